"""The drain ends at once without writers, and otherwise after a quiet moment."""

from typing import Any

import pytest

from nbrun.core.execution.drain import DRAIN_LIMIT, DRAIN_QUIET, Drain
from nbrun.core.execution.effects import Timer, Timers
from nbrun.core.execution.outcomes import Ending
from nbrun.core.protocol.agent import DRAIN
from nbrun.core.protocol.messages import Channel, Requests
from nbrun.core.results import Outcome
from tests.core.conversation import OURS, Conversation, message

NOBODY: dict[str, Any] = {"writers": False, "unsent": []}
SOMEBODY = {"writers": True, "unsent": []}
BROKEN = {"writers": True, "unsent": [], "error": "OSError()"}


def drain(*, asks_writers: bool) -> Drain:
    return Drain(Timers(), Requests(OURS), asks_writers=asks_writers)


def ended(talk: Conversation, answer: dict[str, Any], *, last: str = "idle") -> None:
    """Let the kernel answer the last question."""
    question = talk.requests(DRAIN)[-1].id
    reply = message("nbrun_drain_reply", {"status": "ok", **answer}, parent=question, channel=Channel.SHELL)
    talk.status("busy", question)
    if last == "idle":
        talk.hear(reply)
    talk.status("idle", question)
    if last == "reply":
        talk.hear(reply)


def at_the_end() -> Conversation:
    talk = Conversation("one", ask_for_writers=True)
    talk.complete()
    return talk


def test_a_kernel_without_an_agent_is_asked_for_its_kernel_info() -> None:
    assert drain(asks_writers=True).question().type == DRAIN
    assert drain(asks_writers=False).question().type == "kernel_info_request"


@pytest.mark.parametrize("last", ["idle", "reply"])
def test_where_nobody_is_there_the_run_ends_at_once(last: str) -> None:
    talk = at_the_end()
    ended(talk, NOBODY, last=last)
    assert talk.outcome() is Outcome.PASSED


def test_what_the_question_brings_along_belongs_to_the_last_cell() -> None:
    talk = at_the_end()
    talk.stream("from a child", parent=talk.requests(DRAIN)[-1].id)
    ended(talk, NOBODY)
    assert talk.outputs()[0]["text"] == "from a child"


@pytest.mark.parametrize("answer", [SOMEBODY, BROKEN, {}], ids=["somebody", "an error", "nothing"])
def test_where_somebody_may_be_there_a_moment_passes_and_the_question_is_put_again(answer: dict[str, Any]) -> None:
    talk = at_the_end()
    ended(talk, answer)
    assert talk.outcome() is None
    talk.until(DRAIN_QUIET)
    assert len(talk.requests(DRAIN)) == 2
    talk.stream("late", parent=talk.requests(DRAIN)[-1].id)
    ended(talk, answer)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outputs()[0]["text"] == "late"


def test_a_second_question_without_an_answer_is_not_waited_for() -> None:
    talk = at_the_end()
    ended(talk, SOMEBODY)
    talk.until(DRAIN_QUIET)
    talk.status("busy", talk.requests(DRAIN)[-1].id)
    talk.until(2 * DRAIN_QUIET)
    assert talk.outcome() is Outcome.PASSED


def test_an_answer_to_kernel_info_says_nothing_of_writers() -> None:
    draining = drain(asks_writers=False)
    draining.question()
    assert not draining.on_answer(message("kernel_info_reply", {}, channel=Channel.SHELL), 0.0)
    assert not draining.on_answer(message("status", {"execution_state": "idle"}), 0.0)
    assert not draining.asks_again


def test_a_drain_has_a_limit_that_outputs_from_before_the_last_reply_prolong() -> None:
    timers = Timers()
    draining = Drain(timers, Requests(OURS), asks_writers=True)
    timers.set(Timer.RUN_TIMEOUT, 0.0, 1.0)
    draining.start(Ending(Outcome.PASSED), 0.0)
    draining.on_output(1.0)
    assert timers.next == DRAIN_LIMIT
    assert not draining.on_limit(2.0, late_output_at=1.0)
    assert timers.expired(4.0) is Timer.DRAIN
    assert draining.on_limit(4.0, late_output_at=1.0)


def test_once_the_kernel_has_come_to_the_question_only_quiet_is_waited_for() -> None:
    timers = Timers()
    draining = Drain(timers, Requests(OURS), asks_writers=True)
    question = draining.question()
    busy = message("status", {"execution_state": "busy"}, parent=question.id)
    assert draining.is_answered_by(busy)
    assert not draining.on_answer(busy, 0.0)
    draining.on_output(1.0)
    assert timers.next == 1.0 + DRAIN_QUIET
    assert draining.on_limit(2.0, late_output_at=2.0)


def one_message_short() -> Conversation:
    """Return a run of one cell whose message number 3 has not come, at its end."""
    talk = Conversation("one", ask_for_writers=True)
    talk.numbered(1, "status", {"execution_state": "busy"})
    talk.numbered(2, "execute_input", {"execution_count": 7})
    talk.numbered(4, "display_data", {"data": {}})
    talk.numbered(5, "execute_reply", {"status": "ok"}, channel=Channel.SHELL)
    talk.numbered(6, "status", {"execution_state": "idle"})
    return talk


@pytest.mark.parametrize(("unsent", "lost"), [([3], 0), ([], 1), (None, 1), ([7], 1)], ids=str)
def test_a_message_is_not_missing_where_the_kernel_took_a_number_and_sent_nothing_with_it(
    unsent: list[int] | None, lost: int
) -> None:
    talk = one_message_short()
    [question] = talk.requests(DRAIN)
    assert question.content == {"of": [(1, 6)]}
    ended(talk, NOBODY | {"unsent": unsent})
    incomplete = talk.run.results()[0].incomplete
    assert (incomplete.lost if incomplete else 0) == lost


@pytest.mark.parametrize(("told", "lost"), [([3], 0), ([], 1), ([7], 1)], ids=str)
def test_a_kernel_that_was_told_to_exit_is_not_asked_but_heard(told: list[int], lost: int) -> None:
    talk = Conversation("exit()", ask_for_writers=True)
    talk.numbered(1, "status", {"execution_state": "busy"})
    talk.numbered(2, "execute_input", {"execution_count": 7})
    content = {"status": "ok", "payload": [{"source": "ask_exit", "keepkernel": False}]}
    talk.numbered(4, "execute_reply", content, channel=Channel.SHELL, metadata={"nbrun_unsent": told})
    talk.numbered(5, "status", {"execution_state": "idle"})
    assert talk.run.ending is not None
    incomplete = talk.run.results()[0].incomplete
    assert (incomplete.lost if incomplete else 0) == lost


def test_where_no_message_is_missing_nothing_is_asked_about_numbers() -> None:
    talk = at_the_end()
    [question] = talk.requests(DRAIN)
    assert question.content == {"of": []}
