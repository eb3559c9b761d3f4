"""The handshake ends when the kernel has answered on shell and sent a message on iopub."""

from typing import Any

import pytest

from nbrun.core.protocol.handshake import ASK_AGAIN, ASK_SOON, START_LIMIT, Handshake
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import KERNEL, OURS, STRANGER, message

INFO = {
    "language_info": {"name": "python", "version": "3.11"},
    "implementation": "ipython",
    "protocol_version": "5.3",
    "banner": "Python 3.11",
}


def reply(question: Message, content: dict[str, Any] | None = None, session: str = KERNEL) -> Message:
    answer = INFO if content is None else content
    return message("kernel_info_reply", answer, parent=question.id, channel=Channel.SHELL, session=session)


def status(question: Message, session: str = KERNEL) -> Message:
    return message("status", {"execution_state": "busy"}, parent=question.id, session=session)


def asked() -> tuple[Handshake, Message]:
    handshake = Handshake(Requests(OURS))
    return handshake, handshake.ask()


@pytest.mark.parametrize("iopub_first", [True, False], ids=["iopub first", "shell first"])
def test_a_kernel_is_known_when_both_channels_have_answered(iopub_first: bool) -> None:
    handshake, question = asked()
    answers = [status(question), reply(question)]
    first, second = answers if iopub_first else reversed(answers)
    handshake.receive(first, 0.0)
    known = [handshake.kernel]
    handshake.receive(second, 0.0)
    known.append(handshake.kernel)
    nobody, kernel = known
    assert nobody is None
    assert kernel is not None
    assert kernel.language_info == {"name": "python", "version": "3.11"}
    assert (kernel.implementation, kernel.protocol_version, kernel.banner, kernel.session) == (
        "ipython", "5.3", "Python 3.11", KERNEL,
    )  # fmt: skip


def test_the_question_is_put_again_when_iopub_stays_silent_after_the_reply() -> None:
    handshake, question = asked()
    handshake.receive(reply(question), 10.0)
    assert handshake.deadline == 10.0 + ASK_AGAIN
    assert handshake.tick(10.0 + ASK_AGAIN - 0.1) == ()
    (again,) = handshake.tick(10.0 + ASK_AGAIN)
    assert again.id != question.id
    assert handshake.deadline == 10.0 + 2 * ASK_AGAIN
    handshake.receive(status(again), 11.5)
    assert handshake.kernel is not None


STARTING = {"language_info": {"name": "lua", "version": "n/a"}, "implementation": "ILua"}


def test_a_kernel_without_its_version_is_asked_again_until_it_has_started() -> None:
    handshake, question = asked()
    handshake.receive(status(question), 10.0)
    handshake.receive(reply(question, STARTING), 10.0)
    known = [handshake.kernel]
    assert handshake.deadline == 10.0 + ASK_SOON
    (again,) = handshake.tick(10.0 + ASK_SOON)
    handshake.receive(reply(again, {"language_info": {"name": "lua", "version": "5.3"}}), 10.2)
    known.append(handshake.kernel)
    nobody, kernel = known
    assert nobody is None
    assert kernel is not None
    assert kernel.language_info["version"] == "5.3"


def test_a_kernel_that_never_knows_its_version_is_believed_in_the_end() -> None:
    handshake, question = asked()
    handshake.receive(status(question), 0.0)
    handshake.receive(reply(question, STARTING), 10.0)
    handshake.receive(reply(question, STARTING), 10.0 + START_LIMIT - 0.1)
    known = [handshake.kernel is not None]
    handshake.receive(reply(question, STARTING), 10.0 + START_LIMIT)
    known.append(handshake.kernel is not None)
    assert known == [False, True]
    assert handshake.deadline == 10.0 + START_LIMIT + ASK_AGAIN


def test_before_the_reply_there_is_no_hurry() -> None:
    handshake, _ = asked()
    assert handshake.deadline is None
    assert handshake.tick(1000.0) == ()


def test_the_servers_own_probes_are_not_our_answers() -> None:
    handshake, _ = asked()
    probe = Requests("the server's").kernel_info()
    handshake.receive(status(probe), 0.0)
    handshake.receive(reply(probe), 0.0)
    handshake.receive(message("status", {"execution_state": "starting"}), 0.0)
    assert handshake.kernel is None
    assert handshake.deadline is None


def test_other_messages_on_shell_are_no_reply() -> None:
    handshake, question = asked()
    handshake.receive(message("comm_info_reply", {}, parent=question.id, channel=Channel.SHELL), 0.0)
    handshake.receive(status(question), 0.0)
    assert handshake.kernel is None


@pytest.mark.parametrize(
    ("on_shell", "on_iopub", "session"),
    [(KERNEL, KERNEL, KERNEL), (OURS, OURS, None), ("", "", None), (KERNEL, STRANGER, None), (KERNEL, OURS, None)],
    ids=["one of its own", "ours echoed", "none", "another for each message", "ours on iopub"],
)
def test_a_session_is_a_sign_of_life_only_where_the_kernel_keeps_one_of_its_own(
    on_shell: str, on_iopub: str, session: str | None
) -> None:
    handshake, question = asked()
    handshake.receive(status(question, on_iopub), 0.0)
    handshake.receive(reply(question, session=on_shell), 0.0)
    kernel = handshake.kernel
    assert kernel is not None
    assert kernel.session == session


@pytest.mark.parametrize(
    "content",
    [{}, {"language_info": None, "banner": None}, {"language_info": [], "implementation": 0}],
    ids=["empty", "null", "wrong types"],
)
def test_a_kernel_that_says_little_is_known_all_the_same(content: dict[str, Any]) -> None:
    handshake, question = asked()
    handshake.receive(status(question), 0.0)
    handshake.receive(reply(question, content), 0.0)
    kernel = handshake.kernel
    assert kernel is not None
    assert (dict(kernel.language_info), kernel.implementation, kernel.banner) == ({}, "", "")
