"""Collect the data that reports need of each run: sources and numbers of cells, result."""

import re
from collections.abc import Iterator

from msgspec import Struct, field

from nbrun.core.events import BatchFinished, BatchStarted, CellStarted, Event, RunFinished
from nbrun.core.formats.tracebacks import LONGEST, excerpt, failing_line, plain, trimmed
from nbrun.core.results import BatchResult, CellResult, NotebookResult

_POINTS = re.compile(r"-|[\s|]*[\^~]+$")
"""Lines that mark a line of source or a part of it."""


class RunRecord(Struct):
    """The data of one run. ``sources`` and ``numbers`` (from 1) are those of cells by their index in the notebook."""

    name: str
    sources: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    total: int = 0
    """Return the number of cells to run."""
    result: NotebookResult | None = None

    def name_of(self, cell: CellResult) -> str:
        """Return ``cell 3``. A skipped cell has no number, so its index is used."""
        number = cell.number or self.numbers.get(cell.index)
        return f"skipped cell at index {cell.index}" if number is None else f"cell {number}"

    def title(self, cell: CellResult) -> str:
        """Return a cell's name, and the first line of its code that is not blank."""
        name = self.name_of(cell)
        first = next((line.strip() for line in self.sources.get(cell.index, "").splitlines() if line.strip()), "")
        return f"{name}: {plain(first)[:80]}" if first else name


class Record:
    """Collects runs by name, in the order in which they were planned or started."""

    def __init__(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.batch: BatchResult | None = None
        self.is_batch = False

    def observe(self, event: Event) -> None:
        """Handle an event; the last attempt of a retried run counts."""
        match event:
            case BatchStarted(notebooks):
                self.is_batch = True
                self.runs.update({name: RunRecord(name) for name in notebooks})
            case BatchFinished(result):
                self.batch = result
            case CellStarted(notebook, index, number, total, source):
                run = self._run(notebook)
                run.sources[index], run.numbers[index], run.total = source, number, total
            case RunFinished(notebook, result):
                self._run(notebook).result = result
            case _:
                pass

    def _run(self, name: str) -> RunRecord:
        return self.runs.setdefault(name, RunRecord(name))

    def finished(self) -> Iterator[tuple[RunRecord, NotebookResult]]:
        """Return the finished runs."""
        for run in self.runs.values():
            if run.result is not None:
                yield run, run.result


def fails(result: NotebookResult, cell: CellResult) -> bool:
    """Return whether a cell made its run fail. An error that the call allows does not."""
    return cell.is_fault and not result.went_well


def is_fault(result: NotebookResult) -> bool:
    """Return whether a run failed, except because the batch ended before it started."""
    return not result.went_well and result.attempts > 0


class Fault(Struct, frozen=True):
    """The cell that a run's problem is about, with its source; ``line`` is the failing line, from 1, or None."""

    run: RunRecord
    cell: CellResult
    source: str
    line: int | None

    def excerpt(self) -> list[tuple[int, str, bool]]:
        """Return the lines around the failing one: number, text, whether it is the failing one."""
        return excerpt(self.source, self.line)

    def traceback(self, longest: int = LONGEST) -> list[str]:
        """Return the trimmed traceback, or the end of standard error for an error without one."""
        return trimmed(self.cell.error.details, longest=longest) if self.cell.error else []

    def lines(self, longest: int = LONGEST) -> Iterator[tuple[str, str, bool]]:
        """Yield the lines that a console shows: text, style, and whether the text must stay on one line."""
        for at, text, hit in self.excerpt() if self.source else ():
            yield f"  {'>' if hit else ' '} {at:4} | {text}", "bold" if hit else "", True
        for line in self.traceback(longest):
            yield f"    {line}", "dim" if line.startswith("File ") else "", _POINTS.match(line) is not None


def fault_of(run: RunRecord, result: NotebookResult) -> Fault | None:
    """Return the cell that made a run fail, or None."""
    cell = result.failing
    if cell is None or not fails(result, cell):
        return None
    source = run.sources.get(cell.index, "")
    line = failing_line(cell.error.details, source, cell.execution_count) if cell.error else None
    return Fault(run, cell, source, line)
