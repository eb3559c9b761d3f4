"""GitHub log groups, annotations at the failing line of a cell, and outputs of the step.

An annotation points at the failing source line in the file of the *input* notebook. The run may overwrite that file, so
the lines of its cells are read at the start. GitHub shows ten annotations of each kind per step; the tenth contains the
number of further ones.

Commands go to standard error like all messages; the runner reads both streams.
"""

import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from nbrun.core.events import (
    BatchFinished,
    BatchStarted,
    CellFinished,
    Event,
    RunFinished,
    StageEntered,
    Warned,
)
from nbrun.core.formats.safe_text import safe_text
from nbrun.core.formats.tracebacks import plain
from nbrun.core.results import NotebookResult, Outcome, with_lost_reports
from nbrun.reporters import phrases
from nbrun.reporters.github.source_places import CellLocation, cell_locations, file_line
from nbrun.reporters.github.summary import LIMIT, summary
from nbrun.reporters.run_log import Record, RunRecord, fault_of, is_fault
from nbrun.reporters.safe_stream import SafeStream

ANNOTATIONS = 10
"""Maximum number of annotations of one kind that GitHub shows for a step."""
LARGEST_FILE = 50_000_000
"""Maximum file size in bytes for finding lines; annotations of larger notebooks point at the file."""


class GitHub:
    """Reports to GitHub Actions; `places` are the step outputs ``results-json`` and ``html-dir``."""

    name = "the report to GitHub Actions"

    def __init__(
        self,
        places: Mapping[str, str],
        *,
        environ: Mapping[str, str] | None = None,
        stream: TextIO | None = None,
        lost: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._lost = lost
        self._environ = os.environ if environ is None else environ
        self._stream = SafeStream(stream or sys.stderr, commands=True)
        self._places = places
        self._record = Record()
        self._cells: dict[str, list[CellLocation]] = {}
        self._lines: dict[str, list[str]] = {}
        self._shown = {"error": 0, "warning": 0}
        self._held: list[str] = []
        self._open = False

    def observe(self, event: Event) -> None:
        """Handle an event."""
        self._record.observe(event)
        match event:
            case StageEntered(notebook) if notebook not in self._cells:
                self._begin(notebook)
            case CellFinished(notebook, cell) if self._record.is_batch:
                run = self._record.runs[notebook]
                line = phrases.cell_line(cell, run.numbers.get(cell.index, 0), run.total)
                self._lines.setdefault(notebook, []).append(line)
            case Warned(notebook, text):
                self._annotate("warning", text, file=self._file(notebook), title=notebook)
            case RunFinished(notebook, result):
                self._finish(self._record.runs[notebook], result)
            case BatchStarted() | BatchFinished() | _:
                pass

    def _begin(self, notebook: str) -> None:
        self._cells[notebook] = self._read(notebook)
        if not self._record.is_batch:
            self._write_line(command("group", notebook))
            self._open = True

    def _read(self, notebook: str) -> list[CellLocation]:
        path = _path_in(notebook)
        try:
            if path is None or path.stat().st_size > LARGEST_FILE:
                return []
            return cell_locations(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return []  # the run itself reports the error

    def _finish(self, run: RunRecord, result: NotebookResult) -> None:
        lines = self._lines.pop(run.name, [])
        if self._record.is_batch:
            self._write_line(command("group", f"{run.name}: {phrases.summary(result)}"))
            for line in lines:
                self._stream.write(f"{line}\n")
        if self._record.is_batch or self._open:
            self._write_line(command("endgroup"))
            self._open = False
        places = self._cells.pop(run.name, [])
        if is_fault(result):
            self._point_at_fault(run, result, places)

    def _point_at_fault(self, run: RunRecord, result: NotebookResult, places: list[CellLocation]) -> None:
        fault = fault_of(run, result)
        message = result.problem.message if result.problem else phrases.outcome(result)
        line = None
        if fault is not None:
            cell = fault.cell
            line = file_line(places, index=cell.index, cell_id=cell.id, source=fault.source, line=fault.line)
            if lines := fault.traceback(20):
                message = "\n".join([message, "", *lines])
        file = self._file(run.name)
        title = f"{run.name}: {phrases.outcome(result)}"
        self._annotate("error", plain(message), file=file, line=(line or 1) if file else None, title=plain(title))

    def _annotate(self, kind: str, message: str, **properties: object) -> None:
        """Write an annotation, but hold back errors from the last one that GitHub shows."""
        line = command(kind, message, **properties)
        if self._shown[kind] < ANNOTATIONS - 1:
            self._write_line(line)
        elif kind == "error":
            self._held.append(line)
        self._shown[kind] += 1

    def _file(self, notebook: str) -> str | None:
        """Return the notebook's path in the checked-out repository, or None if it is outside of it."""
        path = _path_in(notebook)
        if path is None:
            return None
        workspace = Path(self._environ.get("GITHUB_WORKSPACE") or ".").resolve()
        path = path.resolve()
        return path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else None

    def close(self) -> None:
        """Write the summary and the outputs."""
        if len(self._held) == 1:
            self._write_line(self._held[0])
        elif self._held:
            self._write_line(
                command("error", f"{len(self._held)} more notebooks did not pass; the job's summary names them.")
            )
        if self._open:
            self._write_line(command("endgroup"))
        self._write_summary()
        self._write_outputs()

    def _write_summary(self) -> None:
        target = self._environ.get("GITHUB_STEP_SUMMARY")
        if target:
            file = Path(target)
            there = file.stat().st_size if file.exists() else 0
            with file.open("a", encoding="utf-8", errors="replace") as out:
                out.write(summary(self._record, LIMIT - there))

    def _write_outputs(self) -> None:
        target = self._environ.get("GITHUB_OUTPUT")
        if not target:
            return
        results = [result for _, result in self._record.finished()]
        passed = sum(result.outcome is Outcome.PASSED for result in results)
        exit_code = int(with_lost_reports(exit_code_of(self._record), self._lost()))
        values = {
            "outcome": outcome_of_all(self._record),
            "exit-code": str(exit_code),
            "passed": str(passed),
            "failed": str(sum(not result.went_well for result in results)),
            **self._places,
        }
        with Path(target).open("a", encoding="utf-8", errors="replace") as out:
            out.write(assignments(values))

    def _write_line(self, line: str) -> None:
        self._stream.write_command(line)


def command(name: str, message: str = "", /, **properties: object) -> str:
    """Return a workflow command as a line; properties that are None are left out, ``end_line`` becomes ``endLine``."""
    given = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items() if value is not None)
    return f"::{name}{' ' if given else ''}{given}::{_message(message)}"


def _message(text: str) -> str:
    return safe_text(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def assignments(values: Mapping[str, str]) -> str:
    """Return the lines for GITHUB_OUTPUT that set `values`, with a random delimiter."""
    delimiter = f"nbrun-{secrets.token_hex(16)}"
    return "".join(f"{name}<<{delimiter}\n{value}\n{delimiter}\n" for name, value in values.items())


def exit_code_of(record: Record) -> int:
    """Return the exit code of the batch, or of the one run."""
    if record.batch is not None:
        return int(record.batch.exit_code)
    return max((int(result.exit_code) for _, result in record.finished()), default=3)


def outcome_of_all(record: Record) -> str:
    """Return ``passed`` if every run passed, otherwise the outcome that decided the exit code."""
    results = [result for _, result in record.finished()]
    code = exit_code_of(record)
    return next((result.outcome.value for result in results if int(result.exit_code) == code), "not-run")


def _path_in(notebook: str) -> Path | None:
    """Return the file at the beginning of a run's name; a batch appends parameters to the path."""
    end = len(notebook)
    while end > 0:
        path = Path(notebook[:end])
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            return None
        end = notebook.rfind(".ipynb", 0, end - 1) + len(".ipynb") if ".ipynb" in notebook[: end - 1] else 0
    return None
