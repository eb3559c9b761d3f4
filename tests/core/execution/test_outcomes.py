"""The ending of a run is one sentence with what and where, and a hint."""

from typing import Any

import pytest

from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.execution.cell import CellExecution, Stop
from nbrun.core.execution.outcomes import (
    DEATH_HINT,
    EXIT_HINT,
    LIFT_HINT,
    NONE_TO_LIFT_HINT,
    SHOWN_HINT,
    Ending,
    ending_after,
    ending_of_all,
    ending_of_stopped,
    ending_with_losses,
    kernel_lost,
    limit_reached,
    place_of,
    results_of,
    with_failed_save,
)
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from tests.core.conversation import message

EXIT = [{"source": "ask_exit"}]


def cell(
    outcome: CellOutcome,
    *,
    number: int = 7,
    index: int = 0,
    content: dict[str, Any] | None = None,
    replied: bool = True,
    stop: Stop | None = None,
    error: CellError | None = None,
    **plan: Any,
) -> CellExecution:
    """Return a cell that has ended."""
    made = CellExecution(CellPlan(index, "a", "1", Action.RUN, **plan), OutputArea(Displays()), number, sent_at=10.0)
    made.outcome, made.error, made.stop, made.stop_reason = outcome, error, stop, "too long" if stop else ""
    made.reply = message("execute_reply", {"status": "ok", **(content or {})}) if replied else None
    return made


def test_a_cells_place_is_counted_among_those_that_run() -> None:
    assert place_of(cell(CellOutcome.PASSED), 12) == "in cell 7 of 12"


PASSED, FAILED, TIMED_OUT = CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.TIMED_OUT
LEFT = {"status": "error", "ename": "SystemExit", "evalue": "0"}
VALUE_ERROR = CellError("ValueError", "bad\nand worse")


@pytest.mark.parametrize(
    "ended",
    [
        cell(PASSED),
        cell(FAILED, error=VALUE_ERROR, allows_error=True),
        cell(PASSED, error=VALUE_ERROR, expects_error=True),
        cell(TIMED_OUT, stop=Stop.CELL_TIMEOUT, allows_error=True),
    ],
    ids=["passed", "error allowed", "error expected", "timed out, errors allowed"],
)
def test_after_which_cells_the_next_may_run(ended: CellExecution) -> None:
    assert ending_after(ended, 12) is None


@pytest.mark.parametrize(
    ("ended", "outcome", "sentence"),
    [
        (cell(PASSED, content=LEFT), Outcome.PASSED, ""),
        (cell(PASSED, content={"payload": EXIT}, number=12), Outcome.PASSED, ""),
        (cell(PASSED, content={"payload": EXIT}), Outcome.KERNEL_DIED, "the kernel was told to exit in cell 7 of 12"),
        (cell(FAILED, error=VALUE_ERROR), Outcome.FAILED, "ValueError: bad in cell 7 of 12"),
        (cell(FAILED, error=CellError("E", "")), Outcome.FAILED, "E in cell 7 of 12"),
        (cell(FAILED, error=CellError("", "")), Outcome.FAILED, "an error in cell 7 of 12"),
        (cell(FAILED, error=CellError("\n", "")), Outcome.FAILED, "an error in cell 7 of 12"),
        (cell(FAILED, error=CellError("E", "\n\n  why")), Outcome.FAILED, "E in cell 7 of 12"),
        (cell(FAILED), Outcome.FAILED, "an error in cell 7 of 12"),
        (cell(FAILED, error=CellError("E", "not found.")), Outcome.FAILED, "E: not found in cell 7 of 12"),
        (cell(FAILED, error=CellError("E", "and so on...")), Outcome.FAILED, "E: and so on... in cell 7 of 12"),
        (
            cell(FAILED, stop=Stop.INPUT, error=CellError("InputRequested", "the cell asked for input")),
            Outcome.FAILED,
            "the cell asked for input in cell 7 of 12",
        ),
        (
            cell(FAILED, replied=False, allows_error=True),
            Outcome.SERVER_FAILED,
            "the kernel's reply was lost in cell 7 of 12",
        ),
        (cell(TIMED_OUT, stop=Stop.CELL_TIMEOUT), Outcome.TIMED_OUT, "too long in cell 7 of 12"),
        (cell(TIMED_OUT, stop=Stop.RUN_TIMEOUT, allows_error=True), Outcome.TIMED_OUT, "too long in cell 7 of 12"),
        (
            cell(CellOutcome.NOT_RUN),
            Outcome.KERNEL_DIED,
            "the kernel refused again and again to run the code in cell 7 of 12",
        ),
    ],
    ids=[
        "sys.exit(0)", "exit() at the end", "exit() before", "error", "error without a message", "nameless error",
        "blank error", "error of many lines", "no error known", "a full stop",
        "an ellipsis", "input", "reply lost", "cell limit", "run limit",
        "refused",
    ],
)  # fmt: skip
def test_which_cells_end_the_run_and_how(ended: CellExecution, outcome: Outcome, sentence: str) -> None:
    ending = ending_after(ended, 12)
    assert ending is not None
    assert (ending.outcome, ending.problem.message if ending.problem else "") == (outcome, sentence)


def test_an_exit_is_told_with_the_way_to_end_early_and_well() -> None:
    ending = ending_after(cell(PASSED, content={"payload": EXIT}), 12)
    assert ending == Ending(Outcome.KERNEL_DIED, Problem("the kernel was told to exit in cell 7 of 12", EXIT_HINT, 0))
    assert "sys.exit(0)" in EXIT_HINT


@pytest.mark.parametrize(
    ("running", "sentence"),
    [
        (cell(CellOutcome.KERNEL_DIED), "the kernel died in cell 7 of 12, 41 s after it started"),
        (None, "the kernel died"),
    ],
    ids=["in a cell", "between cells"],
)
def test_a_lost_kernel_is_told_with_the_likely_cause(running: CellExecution | None, sentence: str) -> None:
    problem = Problem(sentence, DEATH_HINT, None if running is None else 0)
    assert kernel_lost("died", running, 12, 51.0) == Ending(Outcome.KERNEL_DIED, problem)


@pytest.mark.parametrize(
    ("outcome", "ended"),
    [
        (CellOutcome.INTERRUPTED, Outcome.INTERRUPTED),
        (TIMED_OUT, Outcome.TIMED_OUT),
        (FAILED, Outcome.FAILED),
    ],
)
def test_of_a_cell_that_took_the_kernel_with_it_the_reason_it_was_stopped_for_is_told(
    outcome: CellOutcome, ended: Outcome
) -> None:
    stopped = cell(outcome, stop=Stop.CELL_TIMEOUT)
    assert ending_of_stopped(stopped, 12, "a hint") == Ending(ended, Problem("too long in cell 7 of 12", "a hint", 0))


def test_a_run_in_which_a_cell_was_timed_out_on_the_way_did_not_pass() -> None:
    allowed = cell(FAILED, number=3, error=VALUE_ERROR, allows_error=True)
    cells = [cell(PASSED), cell(TIMED_OUT, number=2, index=5, stop=Stop.CELL_TIMEOUT), allowed]
    problem = Problem("too long in cell 2 of 3", cell=5)
    assert ending_of_all(Ending(Outcome.PASSED), cells, 3) == Ending(Outcome.TIMED_OUT, problem)
    assert ending_of_all(Ending(Outcome.PASSED), [*cells, cells[1]], 3) == Ending(
        Outcome.TIMED_OUT, Problem("too long in cell 2 of 3 (and in 1 more)", cell=5)
    )
    assert ending_of_all(Ending(Outcome.PASSED), cells[:1], 3) == Ending(Outcome.PASSED)


SHOWN = CellError("SystemExit", "2", shown=True)


def test_a_run_in_which_a_cell_shows_an_error_goes_on_and_fails() -> None:
    cells = [cell(PASSED), cell(FAILED, number=2, index=5, error=SHOWN), cell(PASSED)]
    assert ending_after(cells[1], 3) is None
    how = "its outputs show the error, though the kernel's reply was ok"
    assert ending_of_all(Ending(Outcome.PASSED), cells, 3) == Ending(
        Outcome.FAILED, Problem(f"SystemExit: 2 in cell 2 of 3: {how}", SHOWN_HINT, 5)
    )
    ending = ending_of_all(Ending(Outcome.PASSED), [cells[1], *cells], 3)
    assert ending.problem is not None
    assert ending.problem.message == f"SystemExit: 2 in cell 2 of 3 (and in 1 more): {how}"


def test_a_cell_that_shows_an_error_and_ends_the_notebook_ends_it_all_the_same() -> None:
    assert ending_after(cell(FAILED, content=LEFT, error=SHOWN), 12) == Ending(Outcome.PASSED)
    assert ending_after(cell(FAILED, content={"payload": EXIT}, number=12, error=SHOWN), 12) == Ending(Outcome.PASSED)
    ending = ending_after(cell(FAILED, content={"payload": EXIT}, error=SHOWN), 12)
    assert ending is not None
    assert ending.outcome is Outcome.KERNEL_DIED


def test_an_ending_that_is_graver_than_a_time_out_on_the_way_stays() -> None:
    graver = Ending(Outcome.FAILED, Problem("ValueError in cell 3 of 3"))
    assert ending_of_all(graver, [cell(TIMED_OUT, stop=Stop.CELL_TIMEOUT)], 3) == graver


@pytest.mark.parametrize(
    ("stop", "plan", "sentence"),
    [
        (Stop.RUN_TIMEOUT, None, "the run took longer than its limit of 1 min 30 s"),
        (Stop.CELL_TIMEOUT, CellPlan(0, "a", "1", Action.RUN, timeout=5.0), "exceeded the cell's limit of 5.0 s"),
        (Stop.IDLE_TIMEOUT, CellPlan(0, "a", "1", Action.RUN, idle_timeout=20), "no output for 20 s"),
    ],
    ids=["run", "cell", "idle"],
)
def test_a_limit_is_told_with_its_length(stop: Stop, plan: CellPlan | None, sentence: str) -> None:
    assert limit_reached(stop, 90.0, plan) == sentence


@pytest.mark.parametrize(
    ("sent", "ending", "unsent"),
    [
        (cell(PASSED, content=LEFT), Ending(Outcome.PASSED), CellOutcome.SKIPPED),
        (cell(FAILED, content=LEFT, error=SHOWN), Ending(Outcome.FAILED, Problem("x")), CellOutcome.SKIPPED),
        (cell(FAILED, error=VALUE_ERROR), Ending(Outcome.FAILED, Problem("x")), CellOutcome.NOT_RUN),
        (cell(TIMED_OUT, stop=Stop.CELL_TIMEOUT, content=LEFT), Ending(Outcome.TIMED_OUT), CellOutcome.NOT_RUN),
        (cell(PASSED), None, CellOutcome.NOT_RUN),
    ],
    ids=["sys.exit(0)", "sys.exit(0) behind a shown error", "failed", "sys.exit(0) after a time-out", "under way"],
)
def test_cells_that_were_never_sent_were_skipped_where_the_notebook_ended_early_and_missed_otherwise(
    sent: CellExecution, ending: Ending | None, unsent: CellOutcome
) -> None:
    actions = [Action.RUN, Action.KEEP, Action.CLEAR, Action.RUN]
    plan = Plan([CellPlan(index, None, "", action) for index, action in enumerate(actions)])
    found = results_of(plan, {0: sent}, ending)
    assert [result.outcome for result in found[1:]] == [CellOutcome.SKIPPED, CellOutcome.SKIPPED, unsent]
    assert [result.number for result in found] == [7, None, None, 2], "cells that run are counted, from 1"


def results(*lost: int) -> list[CellResult]:
    """Return passed cells that lost so many outputs each."""
    return [
        CellResult(
            index,
            None,
            CellOutcome.PASSED,
            incomplete=Incomplete((Cause.RATE_LIMIT,), number, exact=True) if number else None,
            number=index + 1,
        )
        for index, number in enumerate(lost)
    ]


@pytest.mark.parametrize(("lost", "where"), [((0, 2), "in cell 2 of 2"), ((1, 2, 3), "in cell 1 of 3 (and in 2 more)")])
def test_a_run_that_only_lost_output_says_so(lost: tuple[int, ...], where: str) -> None:
    ending = ending_with_losses(Ending(Outcome.PASSED), results(*lost), private=False)
    assert ending.outcome is Outcome.INCOMPLETE
    assert ending.problem is not None
    assert ending.problem.message.endswith(where)
    assert ending.problem.hint == f"Every cell passed. {LIFT_HINT}"


def test_of_a_private_server_nobody_is_told_to_lift_the_limits() -> None:
    ending = ending_with_losses(Ending(Outcome.PASSED), results(1), private=True)
    assert ending.problem is not None
    assert ending.problem.hint == f"Every cell passed. {NONE_TO_LIFT_HINT}"
    assert "doctor" not in NONE_TO_LIFT_HINT


def test_where_cells_were_allowed_to_fail_nobody_is_told_that_every_cell_passed() -> None:
    cells = [*results(1), CellResult(1, None, FAILED, error=VALUE_ERROR), CellResult(2, None, CellOutcome.SKIPPED)]
    ending = ending_with_losses(Ending(Outcome.PASSED), cells, private=False)
    assert ending.problem is not None
    assert ending.problem.hint == f"No cell failed but where errors are allowed. {LIFT_HINT}"


def test_a_loss_changes_nothing_where_something_worse_happened_and_none_changes_nothing() -> None:
    failed = Ending(Outcome.FAILED, Problem("it failed"))
    assert ending_with_losses(failed, results(5), private=True) is failed
    passed = Ending(Outcome.PASSED)
    assert ending_with_losses(passed, results(0, 0), private=True) is passed


REFUSED = Problem("nb: not saved", "Look.")


@pytest.mark.parametrize(
    ("ended", "outcome", "message"),
    [
        (Ending(Outcome.PASSED), Outcome.SERVER_FAILED, "nb: not saved"),
        (Ending(Outcome.FAILED, Problem("it failed")), Outcome.SERVER_FAILED, "nb: not saved"),
        (Ending(Outcome.INTERRUPTED, Problem("it was late")), Outcome.INTERRUPTED, "nb: not saved"),
        (Ending(Outcome.SERVER_FAILED, Problem("it went away")), Outcome.SERVER_FAILED, "it went away"),
        (Ending(Outcome.SERVER_FAILED), Outcome.SERVER_FAILED, "nb: not saved"),
    ],
    ids=["passed", "failed", "interrupted", "server lost", "server lost without a word"],
)
def test_a_result_that_could_not_be_saved_says_so_first_unless_the_server_was_lost_before(
    ended: Ending, outcome: Outcome, message: str
) -> None:
    result = NotebookResult("1", "nb", None, None, ended.outcome, "", 0.0, problem=ended.problem)
    kept = with_failed_save(result, REFUSED, "nb.rescued.ipynb")
    assert (kept.outcome, kept.output, kept.rescued) == (outcome, "nb.rescued.ipynb", True)
    assert kept.problem is not None
    assert kept.problem.message == message
    assert kept.problem.hint.startswith("The executed notebook is in nb.rescued.ipynb.")
    assert kept.problem.hint.endswith("Look.") is (message == REFUSED.message)


def test_a_result_that_is_nowhere_says_so_and_one_that_is_under_way_that_it_may_arrive() -> None:
    result = NotebookResult("1", "nb", None, None, Outcome.PASSED, "", 0.0)
    kept = with_failed_save(result, REFUSED, None, under_way=True)
    assert (kept.output, kept.rescued) == (None, False)
    assert kept.problem is not None
    assert kept.problem.hint == (
        "No rescue file could be written either. What was sent to the server may still arrive there. Look."
    )


@pytest.mark.parametrize("asked", ["raw_input was called", "getpass was called"])
def test_a_cell_that_asks_a_question_is_told_how_to_answer_it_beforehand(asked: str) -> None:
    failed = cell(CellOutcome.FAILED, error=CellError("StdinNotImplementedError", f"{asked}, but …", ()))
    ending = ending_after(failed, 12)
    assert ending is not None
    assert ending.problem is not None
    assert "-p NAME VALUE" in ending.problem.hint
    assert "--secret NAME" in ending.problem.hint
    other = ending_after(cell(CellOutcome.FAILED, error=CellError("ValueError", "x", ())), 12)
    assert other is not None
    assert other.problem is not None
    assert other.problem.hint == ""
