"""Which numbers a kernel's session took and sent nothing with, how it is asked for them, and what it answers."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.session import Session

from nbrun.core.delivery.unsent import REMEMBER, ROOM, amounts_in, amounts_told, install, question
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import OURS


@pytest.fixture
def session() -> Session:
    """A session that remembers, and has sent three messages before it began to."""
    session = Session()
    for _ in range(3):
        session.send(None, "stream")
    asked_of(session, lambda python: exec(install(Requests(OURS)).content["code"], python))
    return session


def asked_of(session: Session, ask: Callable[[dict[str, Any]], Any]) -> Any:
    """Return what is answered where ``get_ipython()`` is the shell of a kernel with this session."""
    shell = SimpleNamespace(kernel=SimpleNamespace(session=session))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.get_ipython", lambda: shell)
        return ask({"get_ipython": lambda: shell})


def unsent(session: Session) -> list[int]:
    """Return what the session remembers."""
    return [*vars(session)["nbrun_unsent"]]


def test_a_number_that_was_taken_and_sent_nothing_with_is_remembered_once_another_is_sent(session: Session) -> None:
    session.msg("execute_result")  # 3
    session.send(None, "stream")  # 4
    session.msg_header("status")  # 5
    _ = session.msg_id  # 6
    assert unsent(session) == [3]
    session.send(None, session.msg("display_data"))  # 7
    assert unsent(session) == [3, 5, 6]


def test_what_is_sent_late_is_remembered_until_then(session: Session) -> None:
    late, never = session.msg("display_data"), session.msg("display_data")
    session.send(None, "status")
    assert unsent(session) == [3, 4]
    session.send(None, late)
    session.send(None, late)
    assert unsent(session) == [4]
    assert never["msg_id"].endswith("_4")


def test_what_cannot_be_written_counts_as_sent(session: Session) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        session.send(None, "stream", {"text": "\ud800"})
    session.send(None, "status")
    assert unsent(session) == []


def test_messages_that_bear_none_of_its_numbers_are_sent_as_ever(session: Session) -> None:
    process = session.msg("status")["msg_id"].rpartition("_")[0]
    for name in ("of-a-child_1_500", f"{process}_1e3", "no number", 5):
        header = {**session.msg_header("status"), "msg_id": name}
        sent = session.send(None, {"header": header, "parent_header": {}, "metadata": {}, "content": {}})
        assert sent is not None
        assert sent["header"] == header
    session.clone().send(None, "status")
    assert unsent(session) == []


def test_no_more_than_so_many_are_remembered_and_those_are_the_newest(session: Session) -> None:
    for _ in range(2):
        session.message_count += ROOM - 1
        session.send(None, "status")
    session.message_count += 10**9
    session.send(None, "status")
    last = session.message_count - 1
    assert unsent(session) == [*range(last - ROOM, last)]


def test_threads_number_and_send_in_any_order(session: Session) -> None:
    ready = threading.Barrier(4)

    def work() -> None:
        ready.wait()
        for _ in range(500):
            session.msg("display_data")
            session.send(None, session.msg("stream"))
            session.send(None, "stream")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.send(None, "status")
    assert len(unsent(session)) == 4 * 500


def test_it_is_asked_for_the_amounts_from_first_to_last_numbers(session: Session) -> None:
    for _ in range(5):
        session.msg("execute_result")
        session.send(None, "status")
    expression = question([(3, 6), (7, 7), (8, 8), (9, 999)])
    answer = asked_of(session, lambda python: eval(expression, python))
    assert answer == "6:2 7:1 8:0 999:2"
    assert amounts_in(repr(answer)) == {6: 2, 7: 1, 8: 0, 999: 2}


def test_a_kernel_that_is_told_to_exit_tells_them_in_its_reply(session: Session) -> None:
    session.msg("execute_result")  # 3
    left, stays = (
        session.send(None, "execute_reply", {"status": "ok", "payload": [{"source": source}]})
        for source in ("ask_exit", "page")
    )
    assert left is not None
    assert stays is not None
    assert (left["metadata"], stays["metadata"]) == ({"nbrun_unsent": [3]}, {})


@pytest.mark.parametrize(
    ("told", "amounts"), [([3, 4, 9, "5"], {5: 2, 7: 0}), ([], {5: 0, 7: 0}), (None, {5: 0, 7: 0})], ids=str
)
def test_such_a_reply_is_read_for_the_amounts_from_first_to_last_numbers(told: Any, amounts: dict[int, int]) -> None:
    reply = Message(Channel.SHELL, {}, {}, {}, {"nbrun_unsent": told})
    assert amounts_told(reply, [(1, 5), (6, 7)]) == amounts


@pytest.mark.parametrize("answer", ["''", "", "'7'", "'7:1.0 x:1'", "None"], ids=str)
def test_an_answer_that_is_none_names_no_amount(answer: str) -> None:
    assert amounts_in(answer) == {}


def test_the_source_leaves_nothing_but_its_function() -> None:
    names: dict[str, Any] = {}
    exec(REMEMBER, names)
    assert {*names} == {"__builtins__", "remember_unsent"}
