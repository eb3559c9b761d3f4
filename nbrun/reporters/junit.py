"""Write a JUnit report with a suite per notebook and a case per code cell, and their names.

Only elements and attributes that GitHub, GitLab and Jenkins have in common are written; Jenkins' schema forbids others.
A ``failure`` is a failure of the notebook (a cell raised, timed out or lost output), an ``error`` one of the
environment (the kernel died, the server failed). A failure outside of the cells is a case of its own.
"""

import xml.etree.ElementTree as ET
from pathlib import Path, PurePath

from nbrun.core.events import BatchStarted, CellFinished, CellStarted, Event, OutputArrived, RunFinished
from nbrun.core.formats.tracebacks import plain
from nbrun.core.results import CellOutcome, CellResult, NotebookResult, Outcome
from nbrun.reporters.console.output_log import OutputLog
from nbrun.reporters.run_log import Record, RunRecord, fails, is_fault
from nbrun.reporters.safe_stream import named

LONGEST_OUTPUT = 16_000
"""Maximum number of characters of a cell's text; the last ones are kept."""
_LINES_APART = 64
"""Lines of a running cell that are collected before they are joined and shortened."""
_KIND = {CellOutcome.FAILED: "failure", CellOutcome.TIMED_OUT: "failure"}


class JUnit:
    """Writes the report at the end."""

    def __init__(self, target: Path) -> None:
        self.name = f"the JUnit report in {named(str(target))}"
        self._target = target
        self._record = Record()
        self._output: dict[tuple[str, int], list[str]] = {}
        self._logs: dict[str, OutputLog] = {}
        self._writing = ("", 0)

    def observe(self, event: Event) -> None:
        """Handle an event."""
        self._record.observe(event)
        match event:
            case BatchStarted():
                self._output.clear()
            case CellStarted(notebook, index):
                self._output.pop((notebook, index), None)
            case OutputArrived(notebook, index, output):
                self._writing = (notebook, index)
                if output["output_type"] != "error":
                    self._log(notebook).show(index, "", output)
            case CellFinished(notebook, result):
                self._writing = (notebook, result.index)
                self._log(notebook).finish(result.index, "")
                if lines := self._output.get(self._writing):
                    lines[:] = ["\n".join(lines)[-LONGEST_OUTPUT:]]
            case RunFinished(notebook):
                self._logs.pop(notebook, None)
            case _:
                pass

    def _log(self, notebook: str) -> OutputLog:
        return self._logs.setdefault(notebook, OutputLog(self._keep))

    def _keep(self, line: str) -> None:
        """Collect text of a running cell, and drop the oldest text of a cell that writes too much."""
        lines = self._output.setdefault(self._writing, [])
        lines.append(plain(line)[-LONGEST_OUTPUT:])
        if len(lines) > _LINES_APART:
            lines[:] = ["\n".join(lines)[-LONGEST_OUTPUT:]]

    def close(self) -> None:
        """Write the report, unless nothing was run."""
        root = ET.Element("testsuites", name="nbrun")
        suites = [self._suite(run, result) for run, result in self._record.finished()]
        root.extend(suites)
        batch = self._record.batch
        root.set("time", _seconds(batch.seconds if batch else sum(_time(suite) for suite in suites)))
        for count in ("tests", "failures", "errors"):
            root.set(count, str(sum(int(suite.get(count, 0)) for suite in suites)))
        ET.indent(root)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(root).write(self._target, encoding="utf-8", xml_declaration=True)

    def _suite(self, run: RunRecord, result: NotebookResult) -> ET.Element:
        suite = ET.Element("testsuite", name=_clean(run.name))
        suite.set("timestamp", result.started.partition(".")[0].partition("+")[0])
        suite.set("time", _seconds(result.seconds))
        suite.set("file", _clean(result.path))
        properties = {"outcome": result.outcome, "kernel": result.kernel, "output": result.output}
        for number, attempt in enumerate(result.tries, 1):
            kept = ", kept" if attempt.kept else ""
            properties[f"attempt {number}"] = f"{attempt.outcome}{kept}"
        listed = ET.SubElement(suite, "properties")
        for name, value in (*properties.items(), *result.parameters.items()):
            ET.SubElement(listed, "property", name=_clean(str(name)), value=_clean("" if value is None else str(value)))
        cases = [self._case(run, result, cell) for cell in result.cells]
        if result.problem is not None and not _is_in_a_cell(result):
            cases.append(_case_of_run(run, result))
        suite.extend(cases)
        suite.set("tests", str(len(cases)))
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
        if result.warnings:
            ET.SubElement(suite, "system-err").text = _clean("\n".join(result.warnings))
        return suite

    def _case(self, run: RunRecord, result: NotebookResult, cell: CellResult) -> ET.Element:
        case = _case(run, run.title(cell), cell.seconds)
        if fails(result, cell):
            case.append(_verdict(_KIND.get(cell.outcome, "error"), result, cell))
        elif result.outcome is Outcome.INCOMPLETE and cell.incomplete:
            lost = ET.SubElement(case, "failure", type="incomplete", message=_clean(str(cell.incomplete)))
            lost.text = "The cell passed, but not all of its output arrived."
        elif cell.outcome in (CellOutcome.SKIPPED, CellOutcome.NOT_RUN):
            reason = "prepared only" if result.outcome is Outcome.PREPARED else "the run ended before its turn"
            reason = "not meant to run" if cell.outcome is CellOutcome.SKIPPED else reason
            ET.SubElement(case, "skipped", message=reason)
        output = "\n".join(self._output.get((run.name, cell.index), ()))[-LONGEST_OUTPUT:]
        if output:
            ET.SubElement(case, "system-out").text = output
        if cell.error and not fails(result, cell):
            note = f"an error that was allowed: {cell.error.ename}: {cell.error.evalue}"
            ET.SubElement(case, "system-err").text = _clean(note)
        return case


def _case(run: RunRecord, name: str, seconds: float | None) -> ET.Element:
    # Viewers show a class as a path of dots: folders, then the notebook.
    path = PurePath(run.name)
    folders = [part for part in path.parent.parts if part not in (path.anchor, "..")]
    classname = ".".join([*folders, path.name.removesuffix(".ipynb")])
    return ET.Element("testcase", name=name, classname=_clean(classname), time=_seconds(seconds or 0.0))


def _verdict(kind: str, result: NotebookResult, cell: CellResult) -> ET.Element:
    error = cell.error
    is_about_it = result.problem is not None and result.problem.cell in (None, cell.index)
    problem = result.problem.message if result.problem and is_about_it else cell.outcome.value
    verdict = ET.Element(kind, type=_clean(error.ename if error else cell.outcome.value) or "Error")
    verdict.set("message", _clean(f"{error.ename}: {error.evalue}" if error and error.ename else problem))
    lines = list(error.details) if error else []
    if error and error.shown:
        lines.insert(0, "The cell's outputs show this error, though the kernel's reply was ok.")
    verdict.text = _clean("\n".join(lines) or problem)
    return verdict


def _is_in_a_cell(result: NotebookResult) -> bool:
    """Return whether the case of a cell contains the run's problem. A failed save is in no cell's case."""
    is_of_the_run = result.problem is not None and result.problem.cell is None
    if is_of_the_run and result.outcome in (Outcome.SERVER_FAILED, Outcome.SEAT_LOST):
        return False
    return result.failing is not None and fails(result, result.failing)


def _case_of_run(run: RunRecord, result: NotebookResult) -> ET.Element:
    """Return the case for a failure outside of the cells: no server, no kernel, no such notebook."""
    case = _case(run, "the run", result.seconds)
    assert result.problem is not None
    if not is_fault(result):
        ET.SubElement(case, "skipped", message=_clean(result.problem.message))
        return case
    error = ET.SubElement(case, "error", type=result.outcome.value, message=_clean(result.problem.message))
    error.text = _clean(f"{result.problem.message}\n{result.problem.hint}".strip())
    return case


def _clean(text: str) -> str:
    return plain(text)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _time(suite: ET.Element) -> float:
    return float(suite.get("time", 0))
