"""Read a run's result from JSON, and replay its events from the executed notebook; pure.

``nbrun merge`` and ``--resume`` use this to make reports of runs that another process executed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived, RunFinished, Stage, StageEntered, Warned
from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.document import Document
from nbrun.core.outputs.limit import Truncated
from nbrun.core.outputs.mimebundle import Output
from nbrun.core.results import Artefact, Attempt, CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from nbrun.errors import ExitCode


def read_result(content: Mapping[str, Any]) -> NotebookResult:
    """Return the result from the object of :meth:`NotebookResult.as_dict`; raise ValueError for another object."""
    try:
        return _result(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the result of a run: {type(error).__name__} {error}") from None


def _result(content: Mapping[str, Any]) -> NotebookResult:
    outcome = Outcome(content["outcome"])
    result = NotebookResult(
        _text(content["version"]),
        _text(content["notebook"]),
        content["output"] and _text(content["output"]),
        content["kernel"] and _text(content["kernel"]),
        outcome,
        _text(content["started"]),
        float(content["seconds"]),
        [read_cell(cell) for cell in content["cells"]],
        _problem(content["problem"]),
        rescued=bool(content["rescued"]),
        warnings=[_text(warning) for warning in content["warnings"]],
        parameters={**content["parameters"]},
        attempts=int(content["attempts"]),
        cached=bool(content["cached"]),
        tries=[_attempt(one) for one in content["tries"]],
        artefacts=[_artefact(one) for one in content.get("artefacts", ())],
    )
    code = ExitCode(content["exit_code"])
    # Only a signal gives these outcomes another exit code.
    is_by_signal = outcome in (Outcome.INTERRUPTED, Outcome.NOT_RUN) and code is not result.exit_code
    return replace(result, signal=code) if is_by_signal else result


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _problem(content: Any) -> Problem | None:
    return None if content is None else Problem(content["message"], content["hint"], content.get("cell"))


def _attempt(content: Mapping[str, Any]) -> Attempt:
    return Attempt(
        Outcome(content["outcome"]),
        ExitCode(content["exit_code"]),
        content["started"],
        float(content["seconds"]),
        int(content["verdicts"]),
        _problem(content["problem"]),
        content["output"],
        kept=bool(content["kept"]),
    )


def _artefact(content: Mapping[str, Any]) -> Artefact:
    return Artefact(_text(content["path"]), _text(content["file"]), int(content["size"]), _text(content["sha256"]))


def read_cell(content: Mapping[str, Any]) -> CellResult:
    """Return the result from the object of :meth:`CellResult.as_dict`; raise KeyError or TypeError for another one."""
    error, incomplete, truncated = content["error"], content["incomplete"], content["truncated"]
    return CellResult(
        int(content["index"]),
        content["id"],
        CellOutcome(content["outcome"]),
        content["execution_count"],
        content["seconds"],
        CellError.from_dict(error) if error else None,
        Incomplete([Cause(cause) for cause in incomplete["causes"]], incomplete["lost"], incomplete["exact"])
        if incomplete
        else None,
        Truncated(truncated["characters"], truncated["outputs"], truncated["limit"]) if truncated else None,
        content["number"],
        bool(content["allowed"]),
    )


def is_notebook_of(result: NotebookResult, document: Document) -> bool:
    """Return whether a notebook was executed by this run, as far as its metadata tells."""
    run = as_object(as_object(document.metadata.get("nbrun")).get("run"))
    # --no-timing writes no times, and the notebook of a cached run has those of the run that was executed.
    return bool(run) and (result.cached or run.get("started") in (None, result.started))


def events_of(name: str, result: NotebookResult, document: Document | None) -> Iterator[Event]:
    """Yield the events of a finished run, as reporters would have received them.

    Without the executed notebook there are no sources and outputs.
    """
    cells = document.cells if document else []
    total = sum(cell.number is not None for cell in result.cells)
    yield StageEntered(name, Stage.RUNNING)
    for cell in result.cells:
        executed = cells[cell.index] if cell.index < len(cells) else {}
        if cell.seconds is not None and cell.number is not None:
            yield CellStarted(name, cell.index, cell.number, total, executed.get("source", ""))
        for output in executed.get("outputs", ()):
            yield OutputArrived(name, cell.index, _joined(output))
        yield CellFinished(name, cell)
    for warning in result.warnings:
        yield Warned(name, warning)
    content, report_mode = (document.content, is_report(document)) if document else (None, False)
    yield RunFinished(name, result, content, report_mode)


def is_report(document: Document) -> bool:
    """Return whether the run hid the sources of all code cells (``--report-mode``)."""
    cells = [as_object(cell["metadata"].get("jupyter")) for _, cell in document.code_cells()]
    return bool(cells) and all(cell.get("source_hidden") is True for cell in cells)


def _joined(output: Output) -> Output:
    """Return an output whose texts are in one piece; files have them as lists of lines."""
    whole = {**output}
    if isinstance(text := output.get("text"), list):
        whole["text"] = "".join(text)
    if "data" in output:
        whole["data"] = {mime: "".join(value) if _is_lines(value) else value for mime, value in output["data"].items()}
    return whole


def _is_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)
