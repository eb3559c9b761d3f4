"""Results as values, as JSON and as exit codes."""

import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from nbrun.core.results import (
    Artefact,
    Attempt,
    BatchFailed,
    BatchResult,
    CellError,
    CellFailed,
    CellOutcome,
    CellResult,
    NotebookResult,
    Outcome,
    Problem,
    RunFailed,
    moment,
    outcome_of,
    unexecuted,
    with_lost_reports,
)
from nbrun.errors import (
    AccessDenied,
    BadFrame,
    ExitCode,
    KernelDied,
    KernelStartFailed,
    NbrunError,
    NoSuchKernel,
    NotANotebook,
    SaveFailed,
    UsageError,
)

PASSED, FAILED, SKIPPED, NOT_RUN = (
    CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.SKIPPED, CellOutcome.NOT_RUN,
)  # fmt: skip


def notebook(*cells: CellOutcome, outcome: Outcome = Outcome.PASSED, **more: Any) -> NotebookResult:
    results = [CellResult(index, f"id{index}", each) for index, each in enumerate(cells)]
    fields: dict[str, Any] = {
        "version": "1.2.3", "path": "a.ipynb", "output": "a.ipynb", "kernel": "python3", "outcome": outcome,
        "started": "2026-01-02T03:04:05.678+00:00", "seconds": 1.23456789, "cells": results, **more,
    }  # fmt: skip
    return NotebookResult(**fields)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.PASSED, ExitCode.OK),
        (Outcome.PREPARED, ExitCode.OK),
        (Outcome.FAILED, ExitCode.NOTEBOOK_FAILED),
        (Outcome.TIMED_OUT, ExitCode.NOTEBOOK_FAILED),
        (Outcome.KERNEL_DIED, ExitCode.KERNEL),
        (Outcome.INTERRUPTED, ExitCode.INTERRUPTED),
        (Outcome.INCOMPLETE, ExitCode.INCOMPLETE),
        (Outcome.SERVER_FAILED, ExitCode.SERVER),
        (Outcome.SEAT_LOST, ExitCode.SERVER),
        (Outcome.NOT_RUN, ExitCode.USAGE),
        (Outcome.SKIPPED, ExitCode.OK),
    ],
    ids=[outcome.value for outcome in Outcome],
)
def test_each_outcome_ends_in_its_exit_code(outcome: Outcome, code: ExitCode) -> None:
    assert notebook(outcome=outcome).exit_code is code


def test_what_was_passed_or_only_prepared_went_well() -> None:
    well = [outcome for outcome in Outcome if notebook(outcome=outcome).went_well]
    assert well == [Outcome.PASSED, Outcome.PREPARED, Outcome.SKIPPED]


def test_a_run_that_a_signal_stopped_ends_in_the_signals_code() -> None:
    stopped = notebook(outcome=Outcome.INTERRUPTED, signal=ExitCode.TERMINATED)
    assert stopped.exit_code is ExitCode.TERMINATED


def test_a_signal_that_came_too_late_to_stop_anything_changes_no_code() -> None:
    assert notebook(outcome=Outcome.FAILED, signal=ExitCode.TERMINATED).exit_code is ExitCode.NOTEBOOK_FAILED


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NoSuchKernel("x"), Outcome.NOT_RUN),
        (NotANotebook("x"), Outcome.NOT_RUN),
        (AccessDenied("x"), Outcome.SERVER_FAILED),
        (SaveFailed("x"), Outcome.SERVER_FAILED),
        (BadFrame("x"), Outcome.SERVER_FAILED),
        (KernelDied("x"), Outcome.KERNEL_DIED),
        (KernelStartFailed("x"), Outcome.KERNEL_DIED),
        (NbrunError("x"), Outcome.SERVER_FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_of_the_world_becomes_the_outcome_of_its_exit_code(error: NbrunError, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


def test_a_problem_is_the_errors_sentence_and_hint() -> None:
    assert Problem.of(KernelDied("it died", hint="look at memory")) == Problem("it died", "look at memory")


@pytest.mark.parametrize(
    ("cells", "index"),
    [
        ([PASSED, FAILED, NOT_RUN], 1),
        ([FAILED, PASSED, CellOutcome.TIMED_OUT], 2),
        ([PASSED, SKIPPED], None),
        ([PASSED, NOT_RUN], None),
        ([], None),
    ],
    ids=["ended at the second", "allowed errors before", "all well", "ended without a fault", "no cells"],
)
def test_the_failing_cell_is_the_last_that_did_not_pass(cells: list[CellOutcome], index: int | None) -> None:
    failing = notebook(*cells).failing
    assert (failing.index if failing else None) == index


@pytest.mark.parametrize(
    ("named", "index"),
    [(None, 2), (0, 0), (1, None), (2, 2), (3, None)],
    ids=["none", "an earlier one", "one that passed", "the last", "one whose error is allowed"],
)
def test_the_failing_cell_is_the_one_that_the_problem_names(named: int | None, index: int | None) -> None:
    """So the message and the excerpt of every report are of the same cell."""
    cells = [
        CellResult(0, None, CellOutcome.TIMED_OUT),
        CellResult(1, None, PASSED),
        CellResult(2, None, FAILED),
        CellResult(3, None, FAILED, allowed=True),
    ]
    failing = notebook(cells=cells, outcome=Outcome.FAILED, problem=Problem("what", cell=named)).failing
    assert (failing.index if failing else None) == index


def test_an_error_without_a_traceback_shows_the_end_of_standard_error() -> None:
    assert CellError("E", "", ("line",), stderr="a\nb").details == ("line",)
    assert CellError("E", "", stderr="a\nb").details == ["a", "b"]
    error = CellError("E", "v", ["line"], shown=True, stderr="text")
    assert CellError.from_dict(error.as_dict()) == error


def test_a_tally_counts_what_there_is_and_leaves_out_what_there_is_not() -> None:
    assert notebook(PASSED, FAILED, PASSED).tally() == {PASSED: 2, FAILED: 1}


def test_a_result_is_json_in_the_shape_that_others_rely_on() -> None:
    error = CellError("ValueError", "bad", ("line",))
    cell = CellResult(3, None, FAILED, execution_count=2, seconds=0.12345678, error=error, number=2, allowed=True)
    whole = notebook(
        cells=[cell, CellResult(4, "b", NOT_RUN)],
        outcome=Outcome.FAILED,
        problem=Problem("what", "hint", 3),
        artefacts=[Artefact("out/a.csv", "/here/out/a.csv", 3, "ab")],
    )
    assert json.loads(json.dumps(whole.as_dict())) == {
        "version": "1.2.3",
        "notebook": "a.ipynb",
        "output": "a.ipynb",
        "kernel": "python3",
        "outcome": "failed",
        "exit_code": 1,
        "started": "2026-01-02T03:04:05.678+00:00",
        "seconds": 1.234568,
        "problem": {"message": "what", "hint": "hint", "cell": 3},
        "rescued": False,
        "warnings": [],
        "parameters": {},
        "attempts": 1,
        "tries": [],
        "cached": False,
        "artefacts": [{"path": "out/a.csv", "file": "/here/out/a.csv", "size": 3, "sha256": "ab"}],
        "cells": [
            {
                "index": 3,
                "number": 2,
                "id": None,
                "outcome": "failed",
                "allowed": True,
                "execution_count": 2,
                "seconds": 0.123457,
                "error": {
                    "ename": "ValueError",
                    "evalue": "bad",
                    "traceback": ["line"],
                    "shown": False,
                    "stderr": "",
                },
                "incomplete": None,
                "truncated": None,
            },
            {
                "index": 4,
                "number": None,
                "id": "b",
                "outcome": "not-run",
                "allowed": False,
                "execution_count": None,
                "seconds": None,
                "error": None,
                "incomplete": None,
                "truncated": None,
            },
        ],
    }


def test_a_result_without_a_problem_says_so() -> None:
    assert notebook(PASSED).as_dict()["problem"] is None


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((), ExitCode.NOTHING_TO_RUN),
        ((Outcome.PASSED, Outcome.PASSED), ExitCode.OK),
        ((Outcome.PASSED, Outcome.INCOMPLETE), ExitCode.INCOMPLETE),
        ((Outcome.INCOMPLETE, Outcome.TIMED_OUT), ExitCode.NOTEBOOK_FAILED),
        ((Outcome.FAILED, Outcome.NOT_RUN), ExitCode.USAGE),
        ((Outcome.FAILED, Outcome.KERNEL_DIED, Outcome.SERVER_FAILED), ExitCode.KERNEL),
        ((Outcome.KERNEL_DIED, Outcome.INTERRUPTED), ExitCode.INTERRUPTED),
    ],
    ids=lambda value: value.name if isinstance(value, ExitCode) else "+".join(value) or "no runs",
)
def test_a_batch_ends_in_its_gravest_exit_code(outcomes: tuple[Outcome, ...], code: ExitCode) -> None:
    runs = [notebook(outcome=outcome) for outcome in outcomes]
    assert BatchResult("1.2.3", "2026-01-02T03:04:05.678+00:00", 2.0, runs).exit_code is code


def test_a_batch_that_could_not_begin_ends_in_the_code_of_why() -> None:
    assert BatchResult("1.2.3", "2026-01-02", 0.0, failure=ExitCode.USAGE).exit_code is ExitCode.USAGE


def test_the_json_of_a_batch_stands_over_that_of_its_runs() -> None:
    runs = [notebook(PASSED), notebook(outcome=Outcome.FAILED), notebook(PASSED)]
    whole = BatchResult("1.2.3", "2026-01-02T03:04:05.678+00:00", 2.00000049, runs)
    assert json.loads(json.dumps(whole.as_dict())) == {
        "version": "1.2.3",
        "started": "2026-01-02T03:04:05.678+00:00",
        "seconds": 2.0,
        "exit_code": 1,
        "tally": {"passed": 2, "failed": 1},
        "left_out": 0,
        "problem": None,
        "shard": None,
        "runs": [run.as_dict() for run in runs],
    }


def test_a_run_whose_turn_never_came_is_no_wrong_call() -> None:
    never = NotebookResult("", "a", None, None, Outcome.NOT_RUN, "", 0.0, attempts=0)
    assert never.exit_code is ExitCode.NOTHING_TO_RUN
    assert replace(never, signal=ExitCode.TERMINATED).exit_code is ExitCode.TERMINATED
    failed = NotebookResult("", "b", None, None, Outcome.FAILED, "", 0.0)
    assert BatchResult("", "", 0.0, [failed, never]).exit_code is ExitCode.NOTEBOOK_FAILED


def test_a_batch_from_which_all_was_left_out_on_purpose_is_well() -> None:
    assert BatchResult("", "", 0.0, left_out=3).exit_code is ExitCode.OK
    nothing = BatchResult("", "", 0.0, problem=Problem("no notebook matches x", "Look again."))
    assert nothing.as_dict()["problem"] == {"message": "no notebook matches x", "hint": "Look again."}


DIED, TIMED_OUT, INTERRUPTED = CellOutcome.KERNEL_DIED, CellOutcome.TIMED_OUT, CellOutcome.INTERRUPTED


@pytest.mark.parametrize(
    ("earlier", "later", "kept"),
    [
        (
            notebook(PASSED, DIED, NOT_RUN, outcome=Outcome.KERNEL_DIED),
            notebook(outcome=Outcome.SERVER_FAILED),
            "earlier",
        ),
        (
            notebook(PASSED, DIED, outcome=Outcome.KERNEL_DIED),
            notebook(PASSED, FAILED, outcome=Outcome.FAILED),
            "later",
        ),
        (
            notebook(PASSED, TIMED_OUT, NOT_RUN, outcome=Outcome.TIMED_OUT),
            notebook(PASSED, INTERRUPTED, NOT_RUN, outcome=Outcome.SERVER_FAILED),
            "earlier",
        ),
        (notebook(FAILED, FAILED, outcome=Outcome.FAILED), notebook(PASSED, SKIPPED), "later"),
        (notebook(outcome=Outcome.SERVER_FAILED), notebook(outcome=Outcome.KERNEL_DIED), "later"),
        (notebook(PASSED, SKIPPED), notebook(PASSED, FAILED, outcome=Outcome.FAILED), "earlier"),
    ],
    ids=["it had nothing", "a tie", "an interrupted cell", "it passed", "neither had anything", "it had passed before"],
)
def test_the_attempt_that_came_furthest_is_kept(earlier: NotebookResult, later: NotebookResult, kept: str) -> None:
    assert later.goes_further(earlier) is (kept == "later")


def test_all_attempts_are_in_the_json() -> None:
    problem = Problem("the kernel died", "look")
    lost = Attempt(Outcome.SERVER_FAILED, ExitCode.SERVER, "then", 0.5, 0)
    died = Attempt(Outcome.KERNEL_DIED, ExitCode.KERNEL, "later", 1.23456789, 2, problem, "a.ipynb", kept=True)
    assert notebook(tries=[lost, died], attempts=2).as_dict()["tries"] == [
        {
            "outcome": "server-failed", "exit_code": 4, "started": "then", "seconds": 0.5, "verdicts": 0,
            "problem": None, "output": None, "kept": False,
        },
        {
            "outcome": "kernel-died", "exit_code": 5, "started": "later", "seconds": 1.234568, "verdicts": 2,
            "problem": {"message": "the kernel died", "hint": "look"}, "output": "a.ipynb", "kept": True,
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "lost", "expected"),
    [(0, [], 0), (0, ["a"], 4), (1, ["a"], 4), (6, ["a"], 4), (5, ["a"], 5), (130, ["a"], 130), (5, [], 5)],
)
def test_a_lost_report_counts_unless_something_graver_happened(code: int, lost: list[str], expected: int) -> None:
    assert with_lost_reports(code, lost) == expected


def test_a_run_that_executed_nothing_has_no_cells_and_a_time() -> None:
    began = datetime(2025, 3, 9, 1, 2, 3, 456789, tzinfo=UTC)
    result = unexecuted("a.ipynb", Outcome.NOT_RUN, Problem("why"), began)
    assert (result.cells, result.seconds, result.exit_code) == ((), 0.0, ExitCode.USAGE)
    assert result.started == moment(began) == "2025-03-09T01:02:03.456+00:00"


FAILED_CELL = CellResult(
    2, "id2", FAILED, error=CellError("ValueError", "v", ["\x1b[31mTraceback\x1b[0m", "ValueError: v"])
)
LATE_CELL = CellResult(0, "id0", CellOutcome.TIMED_OUT)


def test_a_run_that_passed_is_its_own_check() -> None:
    for outcome in (Outcome.PASSED, Outcome.PREPARED):
        result = notebook(PASSED, outcome=outcome)
        assert result.check() is result


def test_a_failed_cell_is_raised_with_its_error_and_the_result() -> None:
    result = notebook(
        outcome=Outcome.FAILED, cells=[FAILED_CELL], problem=Problem("ValueError: v in cell 3 of 4", "Mend it.")
    )
    with pytest.raises(CellFailed) as raised:
        result.check()
    error = raised.value
    assert (str(error), error.hint, error.exit_code) == ("a.ipynb: ValueError: v in cell 3 of 4", "Mend it.", 1)
    assert (error.result, error.cell, error.index) == (result, FAILED_CELL, 2)
    assert (error.ename, error.evalue, len(error.traceback)) == ("ValueError", "v", 2)
    assert error.__notes__ == ["Traceback\nValueError: v"]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.cell, again.result) == (str(error), FAILED_CELL, result)


def test_a_cell_that_failed_without_an_error_is_raised_with_empty_texts() -> None:
    result = notebook(outcome=Outcome.TIMED_OUT, cells=[LATE_CELL], problem=Problem("cell 1 took too long"))
    with pytest.raises(CellFailed) as raised:
        result.check()
    error = raised.value
    assert (error.ename, error.evalue, error.traceback, hasattr(error, "__notes__")) == ("", "", (), False)


def test_a_run_that_did_not_pass_without_a_failing_cell_is_raised_too() -> None:
    result = notebook(PASSED, outcome=Outcome.INCOMPLETE)
    with pytest.raises(RunFailed, match=r"^a\.ipynb: the outcome is incomplete$") as raised:
        result.check()
    assert (type(raised.value), raised.value.exit_code) == (RunFailed, ExitCode.INCOMPLETE)
    assert pickle.loads(pickle.dumps(raised.value)).result == result


def test_a_batch_raises_one_error_for_each_run_that_did_not_pass() -> None:
    passed = notebook(PASSED)
    failed = notebook(outcome=Outcome.FAILED, cells=[FAILED_CELL], problem=Problem("ValueError: v"))
    lost = notebook(outcome=Outcome.SERVER_FAILED, problem=Problem("gone", "Look."))
    good = BatchResult("", "", 1.0, [passed])
    assert good.check() is good
    with pytest.raises(BatchFailed) as raised:
        BatchResult("", "", 1.0, [passed, failed, lost]).check()
    error = raised.value
    assert (str(error), error.exit_code) == ("2 of 3 notebooks did not pass", ExitCode.SERVER)
    assert [(type(one), one.result) for one in error.errors] == [(CellFailed, failed), (RunFailed, lost)]
    assert error.__notes__ == ["a.ipynb: ValueError: v", "a.ipynb: gone"]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(BatchFailed, match="1 of 1 notebook did"):
        BatchResult("", "", 1.0, [lost]).check()


@pytest.mark.parametrize(
    ("problem", "said"),
    [(Problem("no notebook matches x", "Look."), "no notebook matches x"), (None, "could not be run")],
)
def test_a_batch_without_runs_is_raised(problem: Problem | None, said: str) -> None:
    with pytest.raises(BatchFailed, match=said) as raised:
        BatchResult("", "", 1.0, problem=problem).check()
    assert raised.value.exit_code is ExitCode.NOTHING_TO_RUN


def test_the_executed_notebook_is_what_the_result_loads() -> None:
    result = notebook(PASSED)
    with pytest.raises(UsageError, match=r"^a\.ipynb: the result does not have"):
        _ = result.notebook
    loaded = replace(result, load=lambda: {"cells": []})
    assert (loaded.notebook, loaded == result, "load" in repr(loaded)) == ({"cells": []}, True, False)
