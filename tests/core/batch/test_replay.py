"""Results that are read from JSON, and the events of runs that another process executed."""

from collections.abc import Mapping
from typing import Any

import pytest

from nbrun.core.batch.replay import events_of, is_notebook_of, is_report, read_result
from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.events import CellFinished, CellStarted, OutputArrived, RunFinished, Stage, StageEntered, Warned
from nbrun.core.notebook.document import Document
from nbrun.core.outputs.limit import Truncated
from nbrun.core.results import Artefact, Attempt, CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from nbrun.errors import ExitCode
from tests.support.notebooks import code, markdown, notebook

STARTED = "2026-01-02T03:04:05.678+00:00"
CELLS = [
    CellResult(1, "a", CellOutcome.PASSED, 1, 0.5, truncated=Truncated(10, 1, 10_000), number=1),
    CellResult(2, "b", CellOutcome.SKIPPED),
    CellResult(
        3, "c", CellOutcome.FAILED, 2, 0.25, CellError("E", "why", ["line"], shown=True, stderr="end"),
        Incomplete([Cause.MISSING_MESSAGES], 3, exact=True), number=2, allowed=True,
    ),
    CellResult(4, None, CellOutcome.NOT_RUN, number=3),
]  # fmt: skip


def a_result(outcome: Outcome = Outcome.FAILED, **changes: Any) -> NotebookResult:
    fields: dict[str, Any] = {
        "version": "1.2.3", "path": "a.ipynb", "output": "out/a.ipynb", "kernel": "python3", "outcome": outcome,
        "started": STARTED, "seconds": 1.5, "cells": CELLS, "problem": Problem("it failed", "look", 3), "rescued": True,
        "warnings": ["careful"], "parameters": {"x": 1}, "attempts": 2, "cached": True,
        "tries": [Attempt(outcome, ExitCode.OK, STARTED, 0.5, 2, Problem("gone"), "out/a.ipynb", kept=True)],
        "artefacts": [Artefact("out/a.csv", "/here/out/a.csv", 3, "ab")],
        **changes,
    }  # fmt: skip
    return NotebookResult(**fields)


@pytest.mark.parametrize(
    "result",
    [
        a_result(),
        a_result(Outcome.PASSED, output=None, kernel=None, problem=None, tries=[], cells=[]),
        a_result(Outcome.INTERRUPTED, signal=ExitCode.TERMINATED),
        a_result(Outcome.INTERRUPTED),
        a_result(Outcome.NOT_RUN, signal=ExitCode.INTERRUPTED),
        a_result(Outcome.NOT_RUN, attempts=0),
    ],
)
def test_a_result_is_the_same_after_a_way_through_json(result: NotebookResult) -> None:
    read = read_result(result.as_dict())
    assert read.as_dict() == result.as_dict()
    assert read.exit_code is result.exit_code


@pytest.mark.parametrize(
    "change",
    [{"outcome": "fine"}, {"notebook": None}, {"exit_code": 99}, {"cells": None}, {"cells": [[]]}, {"seconds": "long"}],
)
def test_what_is_no_result_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_result({**a_result().as_dict(), **change})


def executed(**run: Any) -> Document:
    outputs: list[Any] = [
        {"output_type": "stream", "name": "stdout", "text": ["one\n", "two"]},
        {
            "output_type": "display_data",
            "data": {"text/plain": ["a\n", "b"], "image/png": "x", "application/json": [1]},
        },
    ]
    cells = (markdown("# title"), code("1", outputs=outputs), "skip", "fail", "never")
    return Document(notebook(*cells, nbrun={"run": run}))


def test_the_events_are_those_of_the_run() -> None:
    document, result = executed(), a_result()
    events = [*events_of("a [x=1]", result, document)]
    name = "a [x=1]"
    whole = {"text/plain": "a\nb", "image/png": "x", "application/json": [1]}
    assert events == [
        StageEntered(name, Stage.RUNNING),
        CellStarted(name, 1, 1, 3, "1"),
        OutputArrived(name, 1, {"output_type": "stream", "name": "stdout", "text": "one\ntwo"}),
        OutputArrived(name, 1, {"output_type": "display_data", "data": whole}),
        CellFinished(name, CELLS[0]),
        CellFinished(name, CELLS[1]),
        CellStarted(name, 3, 2, 3, "fail"),
        CellFinished(name, CELLS[2]),
        CellFinished(name, CELLS[3]),
        Warned(name, "careful"),
        RunFinished(name, result, document.content),
    ]


def test_without_the_notebook_there_are_no_sources_and_outputs() -> None:
    events = [*events_of("a", a_result(), None)]
    assert [event.source for event in events if isinstance(event, CellStarted)] == ["", ""]
    assert not any(isinstance(event, OutputArrived) for event in events)
    assert events[-1] == RunFinished("a", a_result())


@pytest.mark.parametrize(
    ("run", "cached", "is_of_it"),
    [
        ({"started": STARTED, "outcome": "failed"}, False, True),
        ({"started": "2020-01-01T00:00:00.000+00:00"}, False, False),
        ({"started": "2020-01-01T00:00:00.000+00:00"}, True, True),
        ({"outcome": "failed"}, False, True),
        ({}, True, False),
    ],
)
def test_a_notebook_of_another_run_is_recognised(run: Mapping[str, Any], cached: bool, is_of_it: bool) -> None:
    assert is_notebook_of(a_result(cached=cached), executed(**run)) is is_of_it


def test_a_notebook_whose_code_is_hidden_is_a_report() -> None:
    document = executed()
    assert not is_report(document)
    document.hide_sources()
    assert is_report(document)
    assert not is_report(Document(notebook(markdown("no code"))))
