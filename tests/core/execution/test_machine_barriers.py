"""If reply or idle is missing, a barrier shows whether it can still arrive."""

from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.core.execution.barrier import BARRIER_AFTER, BARRIER_GRACE, BARRIER_LIMIT
from nbrun.core.execution.drain import DRAIN_LIMIT
from nbrun.core.execution.machine import RESEND_AFTER
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Channel, Message
from nbrun.core.results import CellOutcome, Outcome
from tests.core.conversation import OURS, STRANGER, Conversation, cell, message

PASSED, FAILED = CellOutcome.PASSED, CellOutcome.FAILED


def barriers(talk: Conversation) -> int:
    return len(talk.requests("kernel_info_request"))


# The idle is lost ------------------------------------------------------------------------------------------------


def test_nothing_is_asked_while_a_cell_is_merely_silent() -> None:
    talk = Conversation("one")
    talk.status("busy")
    talk.until(59.0)
    assert barriers(talk) == 0
    assert talk.outcome() is None


def test_a_barrier_is_sent_when_only_one_of_reply_and_idle_came() -> None:
    talk = Conversation("one")
    talk.reply()
    talk.until(BARRIER_AFTER - 0.01)
    assert barriers(talk) == 0
    talk.until(BARRIER_AFTER)
    assert barriers(talk) == 1


def test_the_barriers_busy_shows_that_the_idle_will_not_come() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    talk.until(BARRIER_AFTER)
    talk.status("busy", talk.barrier)
    assert talk.run.cells[0].outcome is PASSED
    assert talk.sources == ["one", "two"]


def test_the_barriers_reply_leaves_the_idle_a_moment_more() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    talk.until(BARRIER_AFTER)
    talk.barrier_reply()
    talk.until(BARRIER_AFTER + BARRIER_GRACE - 0.01)
    assert talk.sources == ["one"]
    talk.until(BARRIER_AFTER + BARRIER_GRACE)
    assert talk.run.cells[0].outcome is PASSED
    assert talk.sources == ["one", "two"]


def test_an_idle_is_waited_for_while_outputs_from_before_the_reply_still_arrive() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    for second in range(1, 30):
        talk.until(second)
        talk.stream("x", date="2026-01-02T03:04:04Z")
    assert talk.sources == ["one"]
    talk.until(29 + BARRIER_AFTER)
    talk.barrier_reply()
    talk.until(30 + BARRIER_AFTER)
    talk.stream("x", date="2026-01-02T03:04:04Z")
    talk.until(31 + BARRIER_AFTER)
    talk.status("idle")
    assert talk.run.results()[0].incomplete is None
    assert talk.sources == ["one", "two"]


@pytest.mark.parametrize("date", ["2026-01-02T03:04:06Z", ""], ids=["later", "undated"])
def test_what_a_thread_puts_out_after_the_reply_does_not_hold_up_the_end(date: str) -> None:
    talk = Conversation("one", "two")
    talk.reply()
    for second in range(1, 5):
        talk.until(second)
        talk.stream("x", date=date)
        if second == 3:
            talk.barrier_reply()
    talk.until(3 + BARRIER_GRACE)
    assert talk.sources == ["one", "two"]


def test_a_barrier_that_nobody_answers_does_not_hold_up_a_cell_that_replied() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    talk.until(BARRIER_AFTER + BARRIER_LIMIT)
    assert talk.sources == ["one", "two"]


def test_an_idle_that_comes_late_completes_the_cell_without_the_barrier() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    talk.until(BARRIER_AFTER)
    talk.status("idle")
    assert talk.sources == ["one", "two"]


def test_a_barrier_that_was_not_needed_says_nothing_about_the_next_cell() -> None:
    """Its answers arrive while the next cell runs, which they must not take for unanswered."""
    talk = Conversation("one", "two")
    talk.reply()
    talk.until(BARRIER_AFTER)
    old = talk.barrier
    talk.status("idle")
    talk.barrier_reply(old)
    talk.until(BARRIER_AFTER + 60.0)
    assert talk.run.cells[1].outcome is None
    talk.reply()
    talk.status("busy", old)
    assert talk.run.cells[1].outcome is None
    talk.status("idle")
    assert talk.run.cells[1].outcome is PASSED


def test_a_barrier_of_an_aborted_attempt_says_nothing_about_the_next_attempt() -> None:
    talk = Conversation("one")
    talk.reply("aborted")
    talk.until(BARRIER_AFTER)
    talk.status("busy", talk.barrier)
    talk.until(BARRIER_AFTER + RESEND_AFTER)
    assert talk.sources == ["one", "one"]
    talk.status("idle")
    talk.until(2 * BARRIER_AFTER + RESEND_AFTER)
    assert talk.run.cells[0].outcome is None
    assert barriers(talk) == 2


# The reply is lost -----------------------------------------------------------------------------------------------


def test_a_reply_that_the_barrier_overtook_is_lost_and_the_cell_is_not_run_again() -> None:
    talk = Conversation("one", "two")
    talk.status("idle")
    talk.until(BARRIER_AFTER)
    talk.barrier_reply()
    talk.until(BARRIER_AFTER + BARRIER_GRACE)
    assert talk.sources == ["one"]
    assert talk.outcome() is Outcome.SERVER_FAILED
    assert talk.problem == "the kernel's reply was lost in cell 1 of 2"
    assert talk.outcomes() == [FAILED, CellOutcome.NOT_RUN]
    assert talk.outputs()[0]["ename"] == "ReplyLost"


def test_the_barriers_busy_says_nothing_of_the_reply_which_comes_over_another_socket() -> None:
    talk = Conversation("one", "two")
    talk.status("idle")
    talk.until(BARRIER_AFTER)
    talk.status("busy", talk.barrier)
    assert talk.run.cells[0].outcome is None
    talk.reply()
    assert talk.run.cells[0].outcome is PASSED


def test_while_a_barrier_stands_behind_a_running_cell_the_server_is_asked_for_the_kernel() -> None:
    talk = Conversation("one")
    talk.status("idle")
    talk.until(BARRIER_AFTER + BARRIER_LIMIT)
    assert talk.probes == 1
    talk.probed(alive=True)
    talk.until(BARRIER_AFTER + 3 * BARRIER_LIMIT)
    assert talk.probes == 3
    talk.probed(alive=False)
    assert talk.outcome() is Outcome.KERNEL_DIED


# A new websocket -------------------------------------------------------------------------------------------------


def test_over_a_new_websocket_nothing_is_sent_but_a_barrier() -> None:
    talk = Conversation("one")
    talk.reconnected()
    assert talk.sources == ["one"]
    assert barriers(talk) == 1


def test_a_cell_that_still_runs_behind_a_new_websocket_is_waited_for() -> None:
    talk = Conversation("one", "two")
    talk.reconnected()
    talk.until(45.0)
    assert talk.run.cells[0].outcome is None
    talk.complete()
    assert talk.sources == ["one", "two"]


def test_a_reply_that_was_lost_with_the_websocket_is_found_out() -> None:
    talk = Conversation("one")
    talk.status("busy")
    talk.reconnected()
    talk.barrier_reply()
    talk.status("busy", talk.barrier)
    talk.until(BARRIER_GRACE)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.SERVER_FAILED, [FAILED])


def recalled(talk: Conversation, state: str) -> None:
    """Answer the last question whether a request was started."""
    question = talk.requests(agent.RECALL)[-1]
    talk.hear(message(agent.RECALL_REPLY, {"state": state}, parent=question.id, channel=Channel.CONTROL))


def test_a_cell_whose_request_was_lost_with_the_websocket_is_sent_again() -> None:
    talk = Conversation("one", "two", can_recall=True)
    lost = talk.request
    talk.reconnected()
    talk.barrier_reply()
    assert [each.content for each in talk.requests(agent.RECALL)] == [{"request": lost}]
    recalled(talk, "unknown")
    assert talk.sources == ["one", "one"]
    talk.reply("aborted", parent=lost)  # it arrives after all, and the kernel refuses it
    recalled(talk, "unknown")
    talk.until(BARRIER_GRACE)
    assert talk.sources == ["one", "one"]
    talk.complete()
    talk.complete()
    talk.until(talk.now + DRAIN_LIMIT)
    assert (talk.sources, talk.outcome()) == (["one", "one", "two"], Outcome.PASSED)


def test_a_server_that_uses_an_id_again_on_a_new_websocket_ends_no_cell() -> None:
    talk = Conversation("one", can_recall=True)
    for _ in range(2):
        talk.reconnected()
        nudge = {"msg_id": f"{OURS}_9_0", "msg_type": "kernel_info_request"}
        for state in ("busy", "idle"):
            idle = message("status", {"execution_state": state}, parent=nudge["msg_id"])
            talk.hear(replace(idle, parent=nudge))
    assert talk.run.cells[0].seen == set()


@pytest.mark.parametrize("state", ["running", "ended", None])
def test_a_cell_that_the_kernel_has_started_is_not_sent_again(state: str | None) -> None:
    talk = Conversation("one", can_recall=True)
    talk.reconnected()
    talk.barrier_reply()
    if state:
        recalled(talk, state)
    talk.until(BARRIER_GRACE)
    assert (talk.sources, talk.outcome(), talk.outcomes()) == (["one"], Outcome.SERVER_FAILED, [FAILED])


def test_the_word_of_a_kernel_that_comes_after_the_reply_changes_nothing() -> None:
    talk = Conversation("one", can_recall=True)
    talk.reconnected()
    talk.barrier_reply()
    talk.reply()
    recalled(talk, "unknown")
    assert talk.sources == ["one"]


@pytest.mark.parametrize("what", ["busy", "prepared"])
def test_a_cell_that_began_or_was_prepared_is_not_asked_for(what: str) -> None:
    talk = Conversation(cell("one", before=("x",) if what == "prepared" else ()), can_recall=True)
    if what == "busy":
        talk.status("busy")
    talk.reconnected()
    talk.barrier_reply()
    assert talk.requests(agent.RECALL) == []


def test_each_new_websocket_gets_a_barrier_and_any_ones_answer_counts() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    talk.reconnected()
    first = talk.barrier
    talk.reconnected()
    assert barriers(talk) == 2
    talk.status("busy", first)
    assert talk.sources == ["one", "two"]


def test_a_websocket_that_comes_back_when_all_is_done_is_left_alone() -> None:
    talk = Conversation("one")
    talk.complete()
    asked = barriers(talk)
    talk.reconnected()
    talk.until(DRAIN_LIMIT)
    talk.reconnected()
    assert barriers(talk) == asked
    assert talk.outcome() is Outcome.PASSED


def test_a_barriers_other_states_mean_nothing() -> None:
    talk = Conversation(cell("one"))
    talk.reply()
    talk.until(BARRIER_AFTER)
    talk.status("idle", talk.barrier)
    assert talk.run.cells[0].outcome is None


# Somebody else interrupted the cell ------------------------------------------------------------------------------


def interrupted_by_somebody(*cells: dict[str, Any] | str) -> Conversation:
    """Return a run whose first cell has ended by an interrupt that the run did not request."""
    talk = Conversation(*cells)
    talk.fail("KeyboardInterrupt", "")
    talk.status("idle")
    [barrier] = talk.requests("kernel_info_request")
    assert (barrier.channel, talk.outcome()) == (Channel.CONTROL, None)
    return talk


@pytest.mark.parametrize(
    ("sign", "how"),
    [
        (message("shutdown_reply", {"restart": True}), "was restarted by somebody else"),
        (message("shutdown_reply", {"restart": False}), "was shut down by somebody else"),
        (
            message("status", {"execution_state": "starting"}, session=STRANGER),
            "is not the one that the run began with: somebody restarted it",
        ),
    ],
    ids=["restarted", "shut down", "replaced"],
)
@pytest.mark.parametrize("allowed", [False, True], ids=["", "errors allowed"])
def test_a_kernel_that_answers_the_interrupt_of_a_restart_was_restarted(
    sign: Message, how: str, *, allowed: bool
) -> None:
    talk = interrupted_by_somebody(cell("one", allows_error=allowed), "two")
    talk.until(4.0)
    talk.hear(sign)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.KERNEL_DIED, [CellOutcome.KERNEL_DIED, CellOutcome.NOT_RUN])
    assert talk.problem == f"the kernel {how} in cell 1 of 2, 4.0 s after it started"
    assert talk.sources == ["one"]


@pytest.mark.parametrize("answer", ["busy", "reply", "none"])
def test_a_cell_that_was_only_interrupted_has_failed(answer: str) -> None:
    talk = interrupted_by_somebody("one", "two")
    if answer == "busy":
        talk.status("busy", talk.barrier)
    elif answer == "reply":
        talk.barrier_reply()
        talk.until(BARRIER_GRACE)
    else:
        talk.until(BARRIER_LIMIT)
    assert talk.outcomes() == [FAILED, CellOutcome.NOT_RUN]
    talk.until(talk.now + DRAIN_LIMIT)
    assert (talk.outcome(), talk.problem) == (Outcome.FAILED, "KeyboardInterrupt in cell 1 of 2")
    assert [each.channel for each in talk.requests("kernel_info_request")] == [Channel.CONTROL, Channel.SHELL]


def test_a_stop_of_the_run_meanwhile_is_its_outcome() -> None:
    talk = interrupted_by_somebody("one", "two")
    talk.interrupt()
    talk.until(talk.now + BARRIER_LIMIT)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.INTERRUPTED, [CellOutcome.INTERRUPTED, CellOutcome.NOT_RUN])


# Outputs are far behind ------------------------------------------------------------------------------------------


def test_a_reply_that_is_far_ahead_of_the_outputs_does_not_end_the_cell_before_they_are_in() -> None:
    """A busy server hands on the reply at once and ten thousand outputs later."""
    talk = Conversation("one", "two")
    talk.reply()
    for second in range(1, 60):
        talk.until(float(second))
        if second == 3:
            talk.barrier_reply()
        talk.stream(".")
    assert talk.sources == ["one"]
    assert talk.outputs()[0]["text"] == "." * 59
    talk.status("idle")
    assert talk.sources == ["one", "two"]


def test_outputs_that_never_end_do_not_hide_that_the_idle_is_lost() -> None:
    talk = Conversation("one", "two")
    talk.reply()
    for second in range(1, 20):
        talk.until(float(second))
        talk.stream(".")
    talk.status("busy", talk.barrier)
    assert talk.sources == ["one", "two"]


def test_at_the_end_outputs_that_are_still_on_their_way_are_waited_for() -> None:
    talk = Conversation("one")
    talk.complete()
    for second in range(1, 30):
        talk.until(float(second))
        talk.stream(".")
    assert talk.outcome() is None
    talk.status("idle", talk.barrier)
    talk.until(30.0)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outputs()[0]["text"] == "." * 29


def test_a_gap_beside_a_reconnection_counts_and_exactly_where_the_server_had_no_reason_to_talk_to_the_kernel() -> None:
    for nudged in (False, True):
        talk = Conversation("one")
        talk.numbered(1, "status", {"execution_state": "busy"})
        talk.numbered(2, "execute_input", {"execution_count": 1})
        talk.reconnected(nudged=nudged)
        talk.numbered(5, "stream", {"name": "stdout", "text": "3 and 4 are missing"})
        talk.numbered(6, "execute_reply", {"status": "ok"}, channel=Channel.SHELL)
        talk.numbered(7, "status", {"execution_state": "idle"})
        incomplete = talk.run.results()[0].incomplete
        assert incomplete is not None
        assert (incomplete.lost, incomplete.exact) == (2, not nudged)


def test_behind_the_last_cell_a_run_only_waits_for_what_may_still_come() -> None:
    talk = Conversation("1")
    assert [talk.run.is_draining] == [False]
    talk.complete()
    assert [talk.run.is_draining] == [True]
    assert not talk.run.is_stopping


def test_a_run_knows_that_it_stops_its_cell() -> None:
    talk = Conversation("1")
    assert [talk.run.is_stopping] == [False]
    talk.interrupt()
    assert [talk.run.is_stopping] == [True]
