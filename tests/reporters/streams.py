"""Events as a batch tells them, interleaved, for the tests of what listens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbrun.core.events import (
    BatchFinished,
    BatchStarted,
    CellFinished,
    CellStarted,
    Event,
    OutputArrived,
    RunFinished,
    Stage,
    StageEntered,
    Warned,
)
from nbrun.core.results import BatchResult, CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from tests.support.notebooks import notebook, write_notebook

STARTED = "2026-11-23T06:00:00.250+00:00"
FAILING = "total = 0\n\nraise ValueError('<no> & \"data\"')"
ERROR = CellError(
    "ValueError",
    '<no> & "data"',
    [
        "\x1b[31mValueError\x1b[39m                 Traceback (most recent call last)",
        "\x1b[36mCell\x1b[39m In[2], line 3\n      1 total = 0\n----> 3 raise ValueError('<no> & \"data\"')\n",
        '\x1b[31mValueError\x1b[39m: <no> & "data"\x00',
    ],
)
GOOD, BAD, DEAD, NEVER = "a/good.ipynb", "a/bad.ipynb", "dead.ipynb", "never.ipynb"


@dataclass(frozen=True)
class Speaker:
    """Makes the events of one run."""

    name: str
    total: int = 2

    def stage(self, stage: Stage = Stage.RUNNING) -> Event:
        return StageEntered(self.name, stage)

    def starts(self, index: int, source: str) -> Event:
        return CellStarted(self.name, index, index + 1, self.total, source)

    def says(self, index: int, text: str) -> Event:
        return OutputArrived(self.name, index, {"output_type": "stream", "name": "stdout", "text": text})

    def ends(self, cell: CellResult) -> Event:
        return CellFinished(self.name, cell)

    def is_over(self, result: NotebookResult, content: Any = None) -> Event:
        return RunFinished(self.name, result, content)


def result(name: str, outcome: Outcome, cells: Sequence[CellResult] = (), **more: Any) -> NotebookResult:
    return NotebookResult("0.1.0", name, None, "python3", outcome, STARTED, 1.5, cells, **more)


PASSED = CellResult(0, "cell-1", CellOutcome.PASSED, 1, 0.25, number=1)
FAILED = CellResult(1, "cell-2", CellOutcome.FAILED, 2, 0.5, ERROR, number=2)
NOT_RUN = CellResult(2, "cell-3", CellOutcome.NOT_RUN, number=3)
DEATH = CellError("KernelDied", "the kernel died", ())
DIED = CellResult(0, "cell-1", CellOutcome.KERNEL_DIED, None, 0.5, DEATH, number=1)
RESULTS = {
    GOOD: result(GOOD, Outcome.PASSED, [PASSED], parameters={"region": "EU"}, warnings=["the file is old"]),
    BAD: result(
        BAD, Outcome.FAILED, [PASSED, FAILED, NOT_RUN], problem=Problem("ValueError: <no> in cell 2 of 3", cell=1)
    ),
    DEAD: result(DEAD, Outcome.KERNEL_DIED, [DIED], problem=Problem("the kernel died in cell 1 of 1", "Look.", 0)),
    NEVER: result(NEVER, Outcome.NOT_RUN, problem=Problem("never.ipynb: there is no such file", "nbrun looked.")),
}
BATCH = BatchResult("0.1.0", STARTED, 3.0, list(RESULTS.values()))


def batch() -> list[Event]:
    """Return the events of four runs: one passed, one failed, one lost its kernel, one could not begin."""
    good, bad, dead, never = (Speaker(name) for name in RESULTS)
    return [
        BatchStarted(list(RESULTS)),
        good.stage(Stage.STARTING_SERVER),
        bad.stage(Stage.STARTING_SERVER),
        good.stage(),
        good.starts(0, "print('fine')"),
        bad.stage(),
        bad.starts(0, "# begins\nx = 1"),
        good.says(0, "fi"),
        bad.says(0, "\x1b[32m::error::mine\x1b[0m\n"),
        good.says(0, "ne\n"),
        bad.ends(PASSED),
        Warned(GOOD, "the file is old"),
        good.ends(PASSED),
        good.is_over(RESULTS[GOOD], notebook("print('fine')")),
        bad.starts(1, FAILING),
        dead.stage(),
        dead.starts(0, "import os; os._exit(1)"),
        bad.ends(FAILED),
        bad.is_over(RESULTS[BAD], notebook("# begins\nx = 1", FAILING, "3")),
        dead.ends(DIED),
        dead.is_over(RESULTS[DEAD]),
        never.is_over(RESULTS[NEVER]),
        BatchFinished(BATCH),
    ]


def write_notebooks(folder: Path) -> None:
    """Write the files that the runs are of."""
    write_notebook(folder / GOOD, notebook("print('fine')"))
    write_notebook(folder / BAD, notebook("# begins\nx = 1", FAILING, "3"))
    write_notebook(folder / DEAD, notebook("import os; os._exit(1)"))
