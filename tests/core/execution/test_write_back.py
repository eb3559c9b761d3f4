"""Results are written into the notebook, and a bug in one cell does not affect the others."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.execution.write_back import Recording
from nbrun.core.notebook.document import Document
from nbrun.core.outputs.area import OutputArea
from nbrun.core.outputs.masking import Mask
from nbrun.core.planning.job import Job
from nbrun.core.results import NotebookResult, Outcome
from tests.core.conversation import Conversation

SECRET = "correct-horse"
STARTED = "2026-01-02T03:04:05.678+00:00"


def document_of(cells: int) -> Document:
    """Return a notebook of empty code cells."""
    empty: dict[str, Any] = {
        "cell_type": "code",
        "source": "pass",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    made = [{**empty, "id": f"id{index}", "metadata": {}} for index in range(cells)]
    return Document({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made})


def recording_of(cells: int, **job: Any) -> Recording:
    """Return a record of a run of so many cells."""
    return Recording(document_of(cells), Job("nb", **job), Mask(job.get("secrets", {}).values()), "1.2.3")


def result_of(talk: Conversation, outcome: Outcome = Outcome.PASSED, **more: Any) -> NotebookResult:
    """Return the result of a run that is over."""
    return NotebookResult("1.2.3", "nb", None, None, outcome, STARTED, 1.23456, talk.run.results(), **more)


def texts(recording: Recording) -> list[str]:
    """Return the text of each cell."""
    return ["".join(output.get("text", "") for output in cell["outputs"]) for cell in recording.document.cells]


def marks(recording: Recording) -> list[Any]:
    """Return what each cell says of itself."""
    return [cell["metadata"].get("nbrun", {}).get("outcome") for cell in recording.document.cells]


def run_mark(recording: Recording) -> Any:
    return recording.document.metadata["nbrun"]["run"]


def printing(*cells: str, more: int = 0) -> Conversation:
    """Return a run whose cells have printed a word each; the last of them still runs, and so many more are to come."""
    talk = Conversation(*cells, *["pass"] * more)
    for number, text in enumerate(cells, start=1):
        talk.status("busy")
        talk.stream(text)
        if number < len(cells):
            talk.complete()
    return talk


@pytest.mark.parametrize("timed", [True, False])
def test_while_it_runs_it_says_how_far_it_has_come(timed: bool) -> None:
    talk, recording = printing("one", "two"), recording_of(3, record_timing=timed)
    assert len([*recording.so_far(talk.run, STARTED)]) == 2, "one step for each cell that was sent"
    assert texts(recording) == ["one", "two", ""]
    assert marks(recording) == [None, "running", None]
    times = {"started": STARTED} if timed else {}
    assert run_mark(recording) == {"version": "1.2.3", "outcome": "running", "saves": 1, **times}
    assert [*recording.so_far(talk.run, STARTED)] == [None], "what has ended is recorded"
    assert run_mark(recording)["saves"] == 2, "each save can be told from the one before"
    assert ("execution" in recording.document.cells[0]["metadata"]) is timed


def test_a_cell_that_was_recorded_when_it_had_ended_is_not_recorded_again() -> None:
    talk, recording = printing("one", "two"), recording_of(2)
    assert len([*recording.so_far(talk.run, STARTED)]) == 2
    talk.stream(" and more")
    assert len([*recording.so_far(talk.run, STARTED)]) == 1
    assert texts(recording) == ["one", "two and more"]


def test_a_cell_that_the_kernel_has_not_begun_does_not_say_that_it_runs() -> None:
    recording = recording_of(1)
    assert len([*recording.so_far(Conversation("one").run, STARTED)]) == 1
    assert marks(recording) == [None]


@pytest.mark.parametrize("timed", [True, False])
def test_in_the_end_all_of_it_is_recorded(timed: bool) -> None:
    talk, recording = printing("one", "two", more=1), recording_of(3, record_timing=timed)
    talk.fail()
    talk.status("idle")
    recording.finish(talk.run, result_of(talk, Outcome.FAILED, parameters={"n": 1}))
    assert texts(recording)[0] == "one"
    assert [output["output_type"] for output in recording.document.cells[1]["outputs"]] == ["stream", "error"]
    assert marks(recording) == [None, "failed", "not-run"]
    times = {"started": STARTED, "seconds": 1.235} if timed else {}
    assert run_mark(recording) == {"version": "1.2.3", "outcome": "failed", **times, "parameters": {"n": 1}}


@pytest.mark.parametrize("noted", [True, False])
def test_lost_output_is_noted_at_the_end_of_the_cell_where_that_is_wanted(noted: bool) -> None:
    talk, recording = printing("one"), recording_of(1, note_loss=noted)
    talk.complete()
    result = result_of(talk)
    lossy = structs.replace(result.cells[0], incomplete=Incomplete((Cause.RATE_LIMIT,), 3, exact=True))
    recording.finish(talk.run, replace(result, cells=[lossy]))
    assert ("nbrun: " in texts(recording)[0]) is noted
    assert "incomplete" in recording.document.cells[0]["metadata"]["nbrun"]


def test_a_secret_that_came_in_pieces_is_masked() -> None:
    talk, recording = Conversation("one"), recording_of(1, secrets={"PASS": SECRET})
    talk.stream(SECRET[:5])
    talk.stream(SECRET[5:])
    talk.complete()
    recording.finish(talk.run, result_of(talk))
    assert texts(recording) == ["***"]


def broken_for(monkeypatch: pytest.MonkeyPatch, text: str, instead: Any = None) -> None:
    """Let a cell that printed `text` render as it cannot be, or not at all."""
    render = OutputArea.render

    def broken(area: OutputArea) -> Any:
        outputs = render(area)
        if not outputs or outputs[0].get("text") != text:
            return outputs
        if instead is None:
            raise ZeroDivisionError
        return instead

    monkeypatch.setattr(OutputArea, "render", broken)


@pytest.mark.parametrize(
    "instead", [None, [{"output_type": "stream", "name": "stdout", "text": {1}}]], ids=["raises", "cannot be written"]
)
def test_a_cell_that_cannot_be_recorded_says_so_and_costs_no_other_cell_its_own(
    instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, recording = printing("one", "two", "three"), recording_of(3)
    talk.complete()
    broken_for(monkeypatch, "two", instead)
    assert recording.salvage(talk.run) == [1]
    assert [texts(recording)[0], texts(recording)[2]] == ["one", "three"]
    assert "may be missing, by a bug in nbrun" in texts(recording)[1]


def test_what_was_recorded_of_a_cell_before_stays_as_far_as_it_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    talk, recording = printing("one", "two"), recording_of(2)
    assert [*recording.so_far(talk.run, STARTED)]
    recording.document.cells[1]["outputs"].append({"output_type": "stream", "name": "stdout", "text": {1}})
    broken_for(monkeypatch, "two")
    recording.salvage(talk.run)
    assert texts(recording)[1].startswith("two")
    assert len(recording.document.cells[1]["outputs"]) == 2


def test_what_is_salvaged_of_a_run_says_how_it_ended() -> None:
    talk, recording = printing("one", "two", more=1), recording_of(3)
    assert recording.salvage(talk.run) == []
    assert (run_mark(recording)["outcome"], marks(recording)) == ("interrupted", [None, "interrupted", "not-run"])
    talk.fail()
    talk.status("idle")
    talk.until(60.0)
    recording.salvage(talk.run)
    assert (run_mark(recording)["outcome"], marks(recording)) == ("failed", [None, "failed", "not-run"])


@pytest.mark.parametrize("step", ["mark", "set_widgets"])
def test_a_bug_in_the_marks_or_the_widgets_costs_no_outputs(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    talk, recording = printing("one"), recording_of(1)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Document, step, broken)
    assert recording.salvage(talk.run) == []
    assert texts(recording) == ["one"]


def test_a_secret_that_is_a_parameter_too_is_masked_in_the_injected_cell() -> None:
    document = document_of(2)
    for cell, tags in zip(document.cells, (["parameters"], ["injected-parameters"]), strict=True):
        cell["source"], cell["metadata"] = f"region = '{SECRET}-north'", {"tags": tags}
    Recording(document, Job("nb"), Mask([SECRET]), "1.2.3")
    assert [cell["source"] for cell in document.cells] == [f"region = '{SECRET}-north'", "region = '***-north'"]
