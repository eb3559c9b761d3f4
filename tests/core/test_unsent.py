"""What the kernel is asked about results that it numbered and did not send, and what it answers."""

import pytest

from nbrun.core.unsent import REMEMBER, counts_in, question


@pytest.mark.parametrize(
    ("answer", "counts"), [("'7'", [7]), ("'6 7 7'", [6, 7, 7]), ("''", []), ("", []), ("'7.0 x'", [])], ids=str
)
def test_an_answer_names_a_cell_once_for_each_result(answer: str, counts: list[int]) -> None:
    assert counts_in(answer) == counts


def test_what_is_asked_is_one_expression_of_python() -> None:
    compile(question([1, 2]), "question", "eval")


class DisplayHook:
    """As ipykernel's: it numbers a message, fills it or not, and sends it where it is filled."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.msg: dict[str, dict[str, object]] | None = None

    def finish_displayhook(self) -> None:
        if self.msg and self.msg["content"]["data"]:
            self.sent.append(self.msg)
        self.msg = None


def test_a_displayhook_remembers_what_it_did_not_send_and_sends_the_rest() -> None:
    hook, names = DisplayHook(), dict[str, object]()
    exec(REMEMBER + "\nremember_unsent(hook)", {"hook": hook}, names)
    filled = {"content": {"data": {"text/plain": "1"}, "execution_count": 4}}
    for message in (filled, None, {"content": {"data": {}, "execution_count": 5}}):
        hook.msg = message
        hook.finish_displayhook()
    assert (hook.sent, vars(hook)["nbrun_unsent"]) == ([filled], [5])
