"""Sentences about runs."""

from dataclasses import replace

import pytest

from nbrun.core.results import Artefact, Attempt, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from nbrun.errors import ExitCode
from nbrun.reporters import phrases


def result(*outcomes: CellOutcome, **given: object) -> NotebookResult:
    cells = [CellResult(index, None, outcome) for index, outcome in enumerate(outcomes)]
    values = {"outcome": Outcome.PASSED, "output": "out.ipynb", **given}
    return NotebookResult("0", "nb.ipynb", kernel="k", started="", seconds=3.44, cells=cells, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (result(CellOutcome.PASSED), "passed: 1 cell in 3.4 s, saved in out.ipynb"),
        (
            result(CellOutcome.NOT_RUN, CellOutcome.SKIPPED, CellOutcome.NOT_RUN, outcome=Outcome.PREPARED),
            "prepared: 2 cells to run, saved in out.ipynb",
        ),
        (result(CellOutcome.PASSED, cached=True), "passed: 1 cell from the cache, saved in out.ipynb"),
        (result(), "passed: 0 cells in 3.4 s, saved in out.ipynb"),
        (result(CellOutcome.PASSED, CellOutcome.SKIPPED, output=None), "passed: 1 cell in 3.4 s"),
        (
            result(CellOutcome.PASSED, CellOutcome.TIMED_OUT, CellOutcome.NOT_RUN, outcome=Outcome.TIMED_OUT),
            "timed out: 1 of 3 cells passed, 1 not run, in 3.4 s, saved in out.ipynb",
        ),
        (
            result(CellOutcome.KERNEL_DIED, outcome=Outcome.SERVER_FAILED, rescued=True, output="/tmp/r.ipynb"),
            "server failed: 0 of 1 cell passed, 1 kernel died, in 3.4 s, rescued in /tmp/r.ipynb",
        ),
        (
            result(CellOutcome.PASSED, artefacts=[Artefact("a", "/a", 900, ""), Artefact("b", "/b", 600, "")]),
            "passed: 1 cell in 3.4 s, saved in out.ipynb, 2 artefacts (1.5 kB)",
        ),
        (
            result(CellOutcome.PASSED, output=None, artefacts=[Artefact("a", "/a", 9, "")]),
            "passed: 1 cell in 3.4 s, 1 artefact (9 B)",
        ),
    ],
)
def test_the_summary_says_how_it_went_how_long_it_took_and_where_it_is(run: NotebookResult, said: str) -> None:
    assert phrases.summary(run) == said


def test_a_problem_is_a_sentence_and_below_it_what_to_do() -> None:
    assert phrases.problem(result()) == []
    assert phrases.problem(result(problem=Problem("it broke"))) == ["nb.ipynb: it broke"]
    assert phrases.problem(result(problem=Problem("it broke", "mend it"))) == ["nb.ipynb: it broke", "  mend it"]


def test_a_cell_is_named_by_its_number() -> None:
    assert phrases.cell_line(CellResult(7, None, CellOutcome.TIMED_OUT, 1, 61.2), 3, 12) == (
        "cell 3 of 12 timed out in 1 min 1 s"
    )


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"output_type": "error", "ename": "E", "evalue": "v"}, "E: v"),
        ({"output_type": "display_data", "data": {"text/plain": "plain", "text/html": "<b>"}}, "plain"),
        ({"output_type": "display_data", "data": {"text/plain": ["a\n", "b"]}}, "a\nb"),
        ({"output_type": "display_data", "data": {"image/png": "…", "text/html": "…"}}, "<image/png, text/html>"),
    ],
)
def test_an_output_is_told_by_its_plain_form(output: dict[str, object], said: str) -> None:
    assert phrases.output_text(output) == said


@pytest.mark.parametrize(
    ("outcome", "cells", "told"),
    [
        (Outcome.KERNEL_DIED, [CellOutcome.KERNEL_DIED], "0 of 1 cell passed"),
        (Outcome.FAILED, [CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.FAILED], "1 of 3 cells passed"),
        (Outcome.FAILED, [CellOutcome.FAILED, CellOutcome.NOT_RUN], "0 of 2 cells passed, 1 not run"),
        (Outcome.TIMED_OUT, [CellOutcome.FAILED, CellOutcome.TIMED_OUT], "0 of 2 cells passed, 1 failed"),
        (Outcome.INTERRUPTED, [CellOutcome.INTERRUPTED, CellOutcome.SKIPPED], "0 of 1 cell passed"),
        (Outcome.NOT_RUN, [CellOutcome.NOT_RUN, CellOutcome.NOT_RUN], "2 cells"),
        (Outcome.INCOMPLETE, [CellOutcome.PASSED], "1 cell"),
    ],
)
def test_no_word_of_a_tally_repeats_the_outcome_beside_it(
    outcome: Outcome, cells: list[CellOutcome], told: str
) -> None:
    assert phrases.tally(result(*cells, outcome=outcome)) == told
    assert outcome is Outcome.PASSED or phrases.outcome(result(outcome=outcome)) not in told.rpartition(" passed")[-1]


@pytest.mark.parametrize(("allowed", "told"), [(1, "1 with an allowed error"), (2, "2 with allowed errors")])
def test_errors_that_are_allowed_are_counted_as_such(allowed: int, told: str) -> None:
    cells = [CellResult(index, None, CellOutcome.FAILED, allowed=True) for index in range(allowed)]
    run = replace(result(CellOutcome.PASSED), cells=[CellResult(9, None, CellOutcome.PASSED), *cells])
    assert phrases.summary(run) == f"passed: {1 + allowed} cells, {told}, in 3.4 s, saved in out.ipynb"
    assert phrases.cell_line(cells[0], 1, 2) == "cell 1 of 2 failed, which is allowed"


def test_the_summary_of_a_run_that_was_repeated_names_the_attempt_that_was_kept() -> None:
    tries = [
        Attempt(Outcome.KERNEL_DIED, ExitCode.KERNEL, "", 1.0, 2, kept=True),
        Attempt(Outcome.SERVER_FAILED, ExitCode.SERVER, "", 1.0, 0),
    ]
    assert phrases.summary(result(attempts=2, tries=tries)).endswith(", attempt 1 of 2")
    assert "attempt" not in phrases.summary(result())
