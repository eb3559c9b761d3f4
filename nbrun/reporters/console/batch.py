"""Console output of a batch: a row per running notebook, a bar, failures, the final table.

On a terminal, a row shows a running notebook. The bar counts waiting and finished ones and estimates the remaining
time. In a log there is one line per run. Failures are printed at once, with the cell's source, the failing line and a
trimmed traceback. At the end there is a table of the runs.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from nbrun.core.batch.scheduling import time_left
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
from nbrun.core.formats.units import spell_duration
from nbrun.core.results import BatchResult, NotebookResult, Outcome
from nbrun.reporters import phrases
from nbrun.reporters.console.log_console import LogConsole
from nbrun.reporters.console.output_log import OutputLog
from nbrun.reporters.run_log import RunRecord, fault_of, is_fault

if TYPE_CHECKING:
    from nbrun.reporters.console.live_display import LiveDisplay

HEARTBEAT = 30.0
"""Seconds between two progress lines in a log."""
STYLES = {
    Outcome.PASSED: "bold green",
    Outcome.PREPARED: "bold green",
    Outcome.INTERRUPTED: "bold yellow",
    Outcome.INCOMPLETE: "bold yellow",
}
"""The colours of outcomes; all others are red."""
_LONGEST_TABLE = 20
"""Maximum number of runs for which the final table includes passed runs."""
TRACEBACK = 24
"""Maximum number of traceback lines of a failure."""


class _Row(Struct):
    """A running notebook."""

    run: RunRecord
    began: float
    stage: Stage | None = None
    cell: CellStarted | None = None
    cell_began: float = 0.0
    done: int = 0
    log: OutputLog | None = None


class BatchConsole:
    """Shows one batch."""

    def __init__(
        self,
        console: LogConsole,
        notebooks: Sequence[str],
        *,
        live: bool,
        quiet: bool,
        log_output: bool,
    ) -> None:
        self._console = console
        self._quiet = quiet
        self._log_output = log_output
        self._all = max(len(notebooks), 1)
        self._began = self._last_said = time.monotonic()
        self._rows: dict[str, _Row] = {}
        self._results: list[NotebookResult] = []
        self._display: LiveDisplay | None = None
        if live:
            from nbrun.reporters.console import live_display

            self._display = live_display.LiveDisplay(console)
        elif not quiet:
            self._say(f"{'1 notebook' if len(notebooks) == 1 else f'{len(notebooks)} notebooks'} to run")

    def observe(self, event: Event) -> None:
        """Handle an event."""
        match event:
            case StageEntered(notebook, stage):
                self._row(notebook).stage = stage
            case CellStarted(notebook, index, number, _, source):
                row = self._row(notebook)
                row.cell, row.cell_began = event, time.monotonic()
                row.run.sources[index], row.run.numbers[index] = source, number
            case OutputArrived(notebook, index, output) if self._log_output:
                log, label = self._log(notebook, index)
                log.show(index, label, output)
            case CellFinished(notebook, cell):
                self._row(notebook).done += 1
                if self._log_output:
                    log, label = self._log(notebook, cell.index)
                    log.finish(cell.index, label)
            case Warned(notebook, text):
                self._say(f"{notebook}: {text}" if notebook else text, "yellow")
            case RunFinished(notebook, result):
                self._finish(notebook, result)
            case BatchFinished(batch):
                self.close()
                self._sum_up(batch)
            case BatchStarted() | OutputArrived():
                pass

    def tick(self) -> None:
        """Update the elapsed time."""
        if self._display is not None:
            self._show(self._display)
        elif self._rows and not self._quiet and time.monotonic() - self._last_said >= HEARTBEAT:
            now = time.monotonic()
            going = ", ".join(f"{name} ({_doing(row, now)})" for name, row in self._rows.items())
            self._say(f"{self._counted()}, {spell_duration(now - self._began)}: running {going}")

    def close(self) -> None:
        """Remove the live rows."""
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _row(self, notebook: str) -> _Row:
        if notebook not in self._rows:
            self._rows[notebook] = _Row(RunRecord(notebook), time.monotonic())
        return self._rows[notebook]

    def _log(self, notebook: str, index: int) -> tuple[OutputLog, str]:
        row = self._row(notebook)
        if row.log is None:
            row.log = OutputLog(self._say_output)
        return row.log, f"[{notebook} cell {row.run.numbers.get(index, '?')}] "

    def _finish(self, notebook: str, result: NotebookResult) -> None:
        row = self._rows.pop(notebook, None)
        self._results.append(result)
        if not is_fault(result):
            # Runs that never started are not shown, because they would hide the failures.
            if result.attempts and not self._quiet and self._display is None:
                self._say(f"{self._counted()} {notebook}: {phrases.summary(result)}")
            return
        style = STYLES.get(result.outcome, "bold red")
        self._say(f"{self._counted()} {notebook}: {phrases.summary(result)}", style)
        if result.problem is not None:
            for line in filter(None, (result.problem.message, result.problem.hint)):
                self._say(f"  {line}")
        fault = fault_of(row.run, result) if row else None
        for line, shade, on_one_line in fault.lines(TRACEBACK) if fault is not None else ():
            self._say(line, shade, on_one_line=on_one_line)

    def _sum_up(self, batch: BatchResult) -> None:
        failed = [run for run in batch.runs if not run.went_well]
        if self._quiet and not failed:
            return
        named = batch.runs if len(batch.runs) <= _LONGEST_TABLE and not self._quiet else failed
        named = sorted(named, key=lambda run: not run.went_well)  # the end of the screen is read first
        if not (named and self._console.is_terminal and self._has_table(named)):
            for run in failed:
                self._say(f"{run.path}: {phrases.outcome(run)}")
        self._say(phrases.batch_summary(batch), "bold red" if failed else "bold green")

    def _counted(self) -> str:
        width = len(str(self._all))
        return f"[{len(self._results):{width}}/{self._all}]"

    def _has_table(self, runs: Sequence[NotebookResult]) -> bool:
        """Print the final table if the terminal is wide enough, and return whether it is."""
        from nbrun.reporters.console.batch_table import print_table

        return print_table(runs, self._console, STYLES)

    def _show(self, display: "LiveDisplay") -> None:
        from nbrun.reporters.console.live_display import LiveRun, Progress

        now = time.monotonic()
        done = len(self._results)
        running = [now - row.began for row in self._rows.values()]
        left = time_left([run.seconds for run in self._results], running, max(0, self._all - done - len(running)))
        failed = sum(not run.went_well for run in self._results)
        rows = [LiveRun(name, _doing(row, now), now - row.began) for name, row in self._rows.items()]
        display.show_batch(rows, Progress(done, failed, self._all, now - self._began, left))

    def _say(self, line: str, style: str = "", *, on_one_line: bool = False) -> None:
        self._last_said = time.monotonic()
        self._console.say(line, style, on_one_line=on_one_line)

    def _say_output(self, line: str) -> None:
        self._last_said = time.monotonic()
        self._console.say_output(line)


def _doing(row: _Row, now: float) -> str:
    if row.cell is not None and row.stage is Stage.RUNNING:
        return f"cell {row.cell.number} of {row.cell.total}, {spell_duration(now - row.cell_began)}"
    return row.stage.value if row.stage else "waiting"
