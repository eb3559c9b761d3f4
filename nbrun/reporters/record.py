"""What a report of all runs needs to remember of each: its cells' sources, their order, and what came of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from nbrun.core.events import BatchFinished, BatchStarted, CellStarted, Event, RunFinished
from nbrun.core.results import BatchResult, CellOutcome, CellResult, NotebookResult
from nbrun.core.tracebacks import excerpt, failing_line, plain


@dataclass(slots=True)
class RunRecord:
    """What was heard of one run; ``sources`` and ``numbers`` (from 1) of cells by their index in the notebook."""

    name: str
    sources: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    total: int = 0
    """How many cells are to run."""
    result: NotebookResult | None = None

    def title(self, cell: CellResult) -> str:
        """Name a cell: its place among all cells, from 1, and the first line of its code that says something."""
        first = next((line.strip() for line in self.sources.get(cell.index, "").splitlines() if line.strip()), "")
        return f"cell {cell.index + 1}: {plain(first)[:80]}" if first else f"cell {cell.index + 1}"


class Record:
    """Remembers runs by their names, in the order in which they were asked for or first heard of."""

    def __init__(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.batch: BatchResult | None = None
        self.is_batch = False

    def observe(self, event: Event) -> None:
        """Take an event; of a run that is tried again the last try counts."""
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
        """Give the runs that came to a result."""
        for run in self.runs.values():
            if run.result is not None:
                yield run, run.result


def fails(result: NotebookResult, cell: CellResult) -> bool:
    """Tell whether a cell made its run fail: an error that the call allowed did not."""
    if cell.outcome in (CellOutcome.PASSED, CellOutcome.SKIPPED, CellOutcome.NOT_RUN):
        return False
    return not result.went_well


def is_fault(result: NotebookResult) -> bool:
    """Tell whether a run is one to point at: it did not pass, and not because the batch ended before its turn."""
    return not result.went_well and result.attempts > 0


@dataclass(frozen=True, slots=True)
class Fault:
    """The cell at which a run ended, with its source; ``line`` is the one, from 1, that failed, where that is known."""

    run: RunRecord
    cell: CellResult
    source: str
    line: int | None

    def excerpt(self) -> list[tuple[int, str, bool]]:
        """Give the lines around the failing one: number, text, whether it is the one."""
        return excerpt(self.source, self.line)


def fault_of(run: RunRecord, result: NotebookResult) -> Fault | None:
    """Give the cell that made a run fail, or None where no cell did."""
    cell = result.failing
    if cell is None or not fails(result, cell):
        return None
    source = run.sources.get(cell.index, "")
    line = failing_line(cell.error.traceback, source, cell.execution_count) if cell.error else None
    return Fault(run, cell, source, line)
