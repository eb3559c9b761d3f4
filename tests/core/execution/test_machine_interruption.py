"""Limits, signals and input(): the cell is interrupted, repeatedly if necessary, then the kernel is given up."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from nbrun.core.execution.barrier import BARRIER_AFTER
from nbrun.core.execution.drain import DRAIN_LIMIT
from nbrun.core.execution.effects import InterruptKernel, Send
from nbrun.core.execution.interruption import INTERRUPT_GRACE, SIGNAL_GRACE
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.outcomes import Ending
from nbrun.core.planning.plan import Plan
from nbrun.core.protocol.messages import Channel, Requests
from nbrun.core.results import CellOutcome, Outcome, Problem
from tests.core.conversation import OURS, Conversation, cell, message

PASSED, FAILED, TIMED_OUT = CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.TIMED_OUT
INTERRUPTED, NOT_RUN = CellOutcome.INTERRUPTED, CellOutcome.NOT_RUN


def obey(talk: Conversation, ename: str = "KeyboardInterrupt") -> None:
    """Let the kernel react to an interrupt."""
    talk.fail(ename, "")
    talk.status("idle")


def asks_for_input(talk: Conversation) -> None:
    talk.hear(message("input_request", {"prompt": "Name? "}, parent=talk.request, channel=Channel.STDIN))


LIMITS = pytest.mark.parametrize(
    ("options", "run_timeout", "strikes_at", "ename", "sentence"),
    [
        ({"timeout": 5}, None, 5.0, "CellTimeout", "exceeded the cell's limit of 5.0 s in cell 1 of 2"),
        ({"idle_timeout": 3}, None, 3.0, "IdleTimeout", "no output for 3.0 s in cell 1 of 2"),
        ({}, 90, 90.0, "RunTimeout", "the run took longer than its limit of 1 min 30 s in cell 1 of 2"),
    ],
    ids=["cell", "idle", "run"],
)


@LIMITS
def test_a_limit_interrupts_the_cell_and_nudges_the_kernel(
    options: dict[str, Any], run_timeout: float | None, strikes_at: float, ename: str, sentence: str
) -> None:
    talk = Conversation(cell(**options), "two", run_timeout=run_timeout)
    talk.until(strikes_at - 0.01)
    assert talk.interrupts == 0
    talk.until(strikes_at)
    effects = [effect for effect in talk.wanted if isinstance(effect, InterruptKernel | Send)][1:]
    assert isinstance(effects[0], InterruptKernel)
    assert isinstance(effects[1], Send)
    assert effects[1].message.type == "kernel_info_request"
    obey(talk)
    talk.until(strikes_at + DRAIN_LIMIT)
    assert (talk.outcome(), talk.problem) == (Outcome.TIMED_OUT, sentence)
    assert talk.outcomes() == [TIMED_OUT, NOT_RUN]
    error = talk.run.results()[0].error
    assert error is not None
    assert (error.ename, error.traceback) == (ename, ["line"])


def test_a_limit_without_end_never_strikes() -> None:
    talk = Conversation(cell(timeout=math.inf, idle_timeout=math.inf), run_timeout=math.inf)
    talk.until(1e6)
    assert talk.interrupts == 0


def test_each_message_of_the_cell_puts_the_idle_limit_off() -> None:
    talk = Conversation(cell(idle_timeout=3))
    for second in range(1, 10):
        talk.until(second)
        talk.stream("tick")
    assert talk.interrupts == 0
    talk.until(12.0)
    assert talk.interrupts == 1


def test_output_of_an_earlier_cell_does_not_put_the_idle_limit_off() -> None:
    talk = Conversation("one", cell(idle_timeout=3))
    first = talk.request
    talk.complete()
    talk.until(2.0)
    talk.stream("late", first)
    talk.until(3.0)
    assert talk.interrupts == 1


def test_the_limits_of_a_cell_end_with_its_reply() -> None:
    talk = Conversation(cell(timeout=5, idle_timeout=5), "two")
    talk.until(4.0)
    talk.reply()
    talk.stream("the idle is late, the verdict is not")
    talk.until(4.0 + BARRIER_AFTER)
    assert talk.interrupts == 0
    talk.status("idle")
    assert talk.outcomes()[0] is PASSED


def test_each_cell_has_its_own_limit() -> None:
    talk = Conversation(cell(timeout=5), cell(timeout=5))
    talk.until(4.0)
    talk.complete()
    talk.until(8.9)
    assert talk.interrupts == 0
    talk.until(9.0)
    assert talk.interrupts == 1


def test_a_cell_that_ends_well_in_spite_of_the_interrupt_took_too_long_all_the_same() -> None:
    talk = Conversation(cell(timeout=5))
    talk.until(5.0)
    talk.complete()
    talk.until(5.0 + DRAIN_LIMIT)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.TIMED_OUT, [TIMED_OUT])


def test_a_second_interrupt_follows_and_then_the_kernel_is_given_up() -> None:
    talk = Conversation(cell(timeout=5), "two")
    talk.until(5.0 + INTERRUPT_GRACE - 0.01)
    assert talk.interrupts == 1
    talk.until(5.0 + INTERRUPT_GRACE)
    assert talk.interrupts == 2
    talk.until(5.0 + 2 * INTERRUPT_GRACE - 0.01)
    assert talk.outcome() is None
    talk.until(5.0 + 2 * INTERRUPT_GRACE)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.TIMED_OUT, [TIMED_OUT, NOT_RUN])
    assert talk.run.ending is not None
    assert talk.run.ending.problem is not None
    assert talk.run.ending.problem.hint == "The kernel did not react to interrupts, so it was shut down."
    assert talk.outputs()[0]["ename"] == "CellTimeout"


def test_a_kernel_that_reacted_but_whose_idle_is_missing_did_react() -> None:
    talk = Conversation(cell(timeout=5))
    talk.until(9.5)
    talk.fail("KeyboardInterrupt", "")
    talk.until(10.0)
    assert talk.interrupts == 1
    talk.until(20.0)
    assert talk.outcomes() == [TIMED_OUT]
    assert talk.run.ending is not None
    assert talk.run.ending.problem is not None
    assert "did not react" not in talk.run.ending.problem.hint


def test_where_errors_are_allowed_the_run_goes_on_after_a_time_out_but_does_not_pass() -> None:
    talk = Conversation(cell(timeout=5, allows_error=True), "two")
    talk.until(5.0)
    obey(talk)
    assert talk.sources[-1] == "two"
    talk.complete()
    talk.until(5.0 + DRAIN_LIMIT)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.TIMED_OUT, [TIMED_OUT, PASSED])


def test_the_limit_of_the_run_ends_it_also_where_errors_are_allowed() -> None:
    talk = Conversation(cell(allows_error=True), "two", run_timeout=5)
    talk.until(5.0)
    obey(talk)
    talk.until(5.0 + DRAIN_LIMIT)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.TIMED_OUT, [TIMED_OUT, NOT_RUN])


def test_the_limit_of_the_run_outranks_the_cells_while_that_is_being_interrupted() -> None:
    talk = Conversation(cell(timeout=5, allows_error=True), "two", run_timeout=7)
    talk.until(7.0)
    assert talk.interrupts == 1
    obey(talk)
    talk.until(7.0 + DRAIN_LIMIT)
    assert talk.outcome() is Outcome.TIMED_OUT
    assert talk.problem.startswith("the run took longer")
    assert talk.sources == ["pass"]


def test_the_cells_limit_does_not_outrank_the_runs() -> None:
    talk = Conversation(cell(idle_timeout=7), run_timeout=5)
    talk.until(7.0)
    obey(talk)
    talk.until(7.0 + DRAIN_LIMIT)
    assert talk.problem.startswith("the run took longer")


def test_a_cell_that_was_stopped_is_not_sent_again_when_the_kernel_says_it_did_not_run() -> None:
    talk = Conversation(cell(timeout=5))
    talk.until(5.0)
    talk.complete(status="aborted")
    assert talk.sources == ["pass"]
    assert talk.outcomes() == [TIMED_OUT]


# Signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_interrupts_the_cell_and_ends_the_run() -> None:
    talk = Conversation("one", "two")
    talk.interrupt()
    assert talk.interrupts == 1
    obey(talk)
    assert (talk.outcome(), talk.problem) == (Outcome.INTERRUPTED, "interrupted by Ctrl-C in cell 1 of 2")
    assert talk.outcomes() == [INTERRUPTED, NOT_RUN]


def test_a_cell_that_passes_in_spite_of_a_signal_has_passed() -> None:
    talk = Conversation("one", "two")
    talk.interrupt()
    talk.complete()
    assert (talk.outcome(), talk.outcomes()) == (Outcome.INTERRUPTED, [PASSED, NOT_RUN])


def test_after_a_signal_one_interrupt_must_do() -> None:
    talk = Conversation("one")
    talk.interrupt()
    talk.until(SIGNAL_GRACE)
    assert talk.interrupts == 1
    assert (talk.outcome(), talk.outcomes()) == (Outcome.INTERRUPTED, [INTERRUPTED])
    assert talk.outputs()[0]["ename"] == "Interrupted"


def test_a_second_signal_buys_no_more_time() -> None:
    talk = Conversation("one")
    talk.interrupt()
    talk.until(SIGNAL_GRACE / 2)
    talk.interrupt("terminated")
    talk.until(SIGNAL_GRACE)
    assert (talk.outcome(), talk.problem) == (Outcome.INTERRUPTED, "interrupted by Ctrl-C in cell 1 of 1")


def test_a_signal_outranks_a_limit_and_shortens_its_patience() -> None:
    talk = Conversation(cell(timeout=5))
    talk.until(5.5)
    talk.interrupt()
    talk.until(5.5 + SIGNAL_GRACE)
    assert talk.interrupts == 1
    assert talk.outcome() is Outcome.INTERRUPTED


def test_the_limit_of_the_run_does_not_outrank_a_signal() -> None:
    talk = Conversation("one", run_timeout=5)
    talk.until(4.5)
    talk.interrupt()
    talk.until(4.5 + SIGNAL_GRACE)
    assert talk.outcome() is Outcome.INTERRUPTED


def test_a_signal_while_the_last_output_is_awaited_only_cuts_the_wait_short() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.interrupt()
    assert talk.outcome() is Outcome.PASSED


def test_a_run_that_is_abandoned_ends_without_another_word_to_the_kernel() -> None:
    talk = Conversation("one", "two")
    said = list(talk.wanted)
    talk.run.abandon(1.5, "the run was cancelled")
    assert talk.wanted == said
    assert (talk.outcome(), talk.problem) == (Outcome.INTERRUPTED, "the run was cancelled")
    assert talk.outcomes() == [INTERRUPTED, NOT_RUN]
    assert talk.run.results()[0].seconds == 1.5
    talk.run.abandon(9.0, "again")
    assert talk.problem == "the run was cancelled"


@pytest.mark.parametrize(
    ("stop", "outcome"),
    [
        (lambda talk: talk.until(5.0), Outcome.TIMED_OUT),
        (lambda talk: talk.interrupt(), Outcome.INTERRUPTED),
        (asks_for_input, Outcome.FAILED),
    ],
    ids=["limit", "signal", "input"],
)
def test_of_a_kernel_that_does_not_survive_the_interrupt_its_reason_is_told(
    stop: Callable[[Conversation], None], outcome: Outcome
) -> None:
    talk = Conversation(cell(timeout=5), "two")
    stop(talk)
    talk.hear(message("status", {"execution_state": "dead"}, session=OURS))
    assert talk.outcome() is outcome
    assert talk.outcomes()[1] is NOT_RUN
    assert talk.run.ending is not None
    assert talk.run.ending.problem is not None
    assert talk.run.ending.problem.hint == "The kernel did not survive the interrupt."


def test_a_signal_before_the_first_cell_ends_the_run_before_it_began() -> None:
    run = Execution(Plan([]), Requests(OURS))
    assert run.interrupt(0.0, "terminated") == ()
    assert run.ending == Ending(Outcome.INTERRUPTED, Problem("terminated"))


# Input -----------------------------------------------------------------------------------------------------------


def test_a_cell_that_asks_for_input_is_interrupted_and_fails() -> None:
    talk = Conversation("input('Name? ')", "two")
    asks_for_input(talk)
    assert talk.interrupts == 1
    obey(talk)
    talk.until(DRAIN_LIMIT)
    asked = "the cell asked for input ('Name?'), and nobody is there"
    assert (talk.outcome(), talk.problem) == (Outcome.FAILED, f"{asked} in cell 1 of 2")
    assert talk.outcomes() == [FAILED, NOT_RUN]


def test_asking_twice_interrupts_once() -> None:
    talk = Conversation("input()")
    asks_for_input(talk)
    asks_for_input(talk)
    assert talk.interrupts == 1


def test_a_cell_that_asks_for_input_and_ignores_interrupts_fails_all_the_same() -> None:
    talk = Conversation("input()")
    asks_for_input(talk)
    talk.until(2 * INTERRUPT_GRACE)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.FAILED, [FAILED])


def test_input_that_nobody_waits_for_interrupts_nothing() -> None:
    talk = Conversation("one")
    talk.complete()
    asks_for_input(talk)
    assert talk.interrupts == 0
