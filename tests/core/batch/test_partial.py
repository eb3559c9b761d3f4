"""The partial notebook of a lost run has the outputs that arrived, and says which cells did not finish."""

from typing import Any

from nbrun.core.batch.partial import PartialRun
from nbrun.core.events import CellFinished, CellStarted, OutputArrived, Warned
from nbrun.core.notebook.document import Document
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import make_plan
from nbrun.core.results import CellOutcome, CellResult

OLD = {"output_type": "stream", "name": "stdout", "text": "old"}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def partial_run() -> tuple[Document, PartialRun]:
    cells = [
        {"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": [OLD], "execution_count": 9}
        for source, tags in (("a", []), ("b", []), ("c", ["skip-execution"]), ("d", []), ("", []))
    ]
    document = Document({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells})
    return document, PartialRun(document, make_plan(document, Job("a.ipynb")))


def test_outputs_are_written_as_they_arrived() -> None:
    document, run = partial_run()
    display = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    for event in (
        Warned("a", "careful"),
        CellStarted("a", 0, 1, 3, "a"),
        OutputArrived("a", 0, stream("one ")),
        OutputArrived("a", 0, stream("two")),
        OutputArrived("a", 0, stream("three", "stderr")),
        OutputArrived("a", 0, display),
        CellFinished("a", CellResult(0, None, CellOutcome.PASSED, 1, 0.1, number=1)),
        CellStarted("a", 1, 2, 3, "b"),
        OutputArrived("a", 1, stream("so far")),
    ):
        run.observe(event)
    assert run.has_begun
    results = run.write("the seat is lost")
    assert [cell["outputs"] for cell in document.cells] == [
        [stream("one two"), stream("three", "stderr"), display],
        [stream("so far")],
        [OLD],
        [],
        [],
    ]
    assert [cell["execution_count"] for cell in document.cells] == [1, None, 9, None, None]
    assert [cell.outcome.value for cell in results] == ["passed", "interrupted", "skipped", "not-run", "skipped"]
    assert results[1].error is not None
    assert (results[1].error.ename, results[1].error.evalue) == ("SeatLost", "the seat is lost")
    assert document.cells[1]["metadata"]["nbrun"]["outcome"] == "interrupted"


def test_a_run_has_begun_with_its_first_cell() -> None:
    assert not partial_run()[1].has_begun


def test_an_output_without_a_start_counts_as_one() -> None:
    document, run = partial_run()
    run.observe(OutputArrived("a", 0, stream("x")))
    assert run.write("lost")[0].outcome is CellOutcome.INTERRUPTED
    assert document.cells[0]["outputs"] == [stream("x")]
