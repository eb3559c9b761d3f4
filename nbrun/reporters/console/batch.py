"""Console output of a batch: a row per running notebook, a bar, failures, the final table.

On a terminal, a row shows a running notebook. The bar counts waiting and finished ones and estimates the remaining
time. In a log there is one line per run. Failures are printed at once, with the cell's source, the failing line and a
trimmed traceback. At the end there is a table of the runs.
"""

import time
from collections.abc import Sequence

from msgspec import Struct, field
from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

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
from nbrun.reporters.console.output_log import OutputLog
from nbrun.reporters.console.safe_console import SafeConsole
from nbrun.reporters.run_log import RunRecord, fault_of, is_fault

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
_WIDEST = 120
"""Maximum width of the live rows."""
TRACEBACK = 24
"""Maximum number of traceback lines of a failure."""
_NARROWEST_NAME = 12
"""Minimum width of names in the final table; on a narrower terminal there is no table."""


class _Row(Struct):
    """A running notebook."""

    run: RunRecord
    began: float
    stage: Stage | None = None
    cell: CellStarted | None = None
    cell_began: float = 0.0
    done: int = 0
    log: OutputLog | None = None
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))


class BatchConsole:
    """Shows one batch."""

    def __init__(
        self,
        console: SafeConsole,
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
        self._screen = Live(console=console, auto_refresh=False, transient=True) if live else None
        if self._screen is not None:
            self._screen.start()
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
        if self._screen is not None:
            self._screen.update(Group(*self._picture()), refresh=True)
        elif self._rows and not self._quiet and time.monotonic() - self._last_said >= HEARTBEAT:
            now = time.monotonic()
            going = ", ".join(f"{name} ({_doing(row, now)})" for name, row in self._rows.items())
            self._say(f"{self._counted()}, {spell_duration(now - self._began)}: running {going}")

    def close(self) -> None:
        """Remove the live rows."""
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

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
            if result.attempts and not self._quiet and self._screen is None:
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
        table = _table(named, self._console) if named and self._console.is_terminal else None
        if table is not None:
            self._console.print(table, soft_wrap=False)
        else:
            for run in failed:
                self._say(f"{run.path}: {phrases.outcome(run)}")
        self._say(phrases.batch_summary(batch), "bold red" if failed else "bold green")

    def _counted(self) -> str:
        width = len(str(self._all))
        return f"[{len(self._results):{width}}/{self._all}]"

    def _picture(self) -> list[Table]:
        """Return the bar and as many rows as the screen holds."""
        now, width = time.monotonic(), self._console.width
        rows = _grid(width, names=True)
        room = max(1, self._console.height - 4)
        for name, row in list(self._rows.items())[:room]:
            rows.add_row(
                row.spinner,
                Text(_shortened(self._console.clean(name), max(min(width, _WIDEST) - 40, _NARROWEST_NAME))),
                _doing(row, now),
                spell_duration(now - row.began),
            )
        if len(self._rows) > room:
            rows.add_row("", f"… and {len(self._rows) - room} more", "", "")
        return [rows, self._bar(now, width)]

    def _bar(self, now: float, width: int) -> Table:
        done = len(self._results)
        running = [now - row.began for row in self._rows.values()]
        left = time_left([run.seconds for run in self._results], running, max(0, self._all - done - len(running)))
        failed = sum(not run.went_well for run in self._results)
        status = Text(f"{done} of {self._all}", "bold")
        if failed:
            status.append(f", {failed} not passed", "bold red")
        status.append(f"  {spell_duration(now - self._began)}", "dim")
        if left is not None and done < self._all:
            status.append(f", about {spell_duration(max(left, 1.0))} left", "dim")
        bar = Table.grid(padding=(0, 1))
        bar.add_column(width=max(8, min(40, width - status.cell_len - 3)))
        bar.add_column(no_wrap=True, overflow="ellipsis")
        bar.add_row(ProgressBar(self._all, done, style="dim", complete_style="red" if failed else "green"), status)
        return bar

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


def _shortened(name: str, width: int) -> str:
    """Return a path shortened at its beginning, because its end is more specific."""
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def _grid(width: int, *, names: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.width = min(width - 1, _WIDEST)
    grid.add_column(width=1)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1, style="" if names else "dim")
    grid.add_column(no_wrap=True, overflow="ellipsis", style="cyan")
    grid.add_column(no_wrap=True, justify="right", style="dim", min_width=8)
    return grid


def _table(runs: Sequence[NotebookResult], console: SafeConsole) -> Table | None:
    """Return the final table without broken words, or None if the terminal is too narrow."""
    outcomes = [phrases.outcome(run) + (" (cached)" if run.cached else "") for run in runs]
    tallies = [phrases.tally(run) for run in runs]
    times = [spell_duration(run.seconds) for run in runs]
    fixed = max(map(len, ["outcome", *outcomes])) + max(map(len, ["time", *times])) + 6  # blanks between columns
    names = [console.clean(run.path) for run in runs]
    longest_name = max(map(cell_len, names))
    longest_word = max(len(word) for tally in ["cells", *tallies] for word in tally.split())
    room = console.width - fixed
    if room - longest_word < _NARROWEST_NAME:
        return None
    for_cells = min(max(room - longest_name, room // 3, longest_word), max(map(len, tallies)))
    for_names = min(longest_name, room - for_cells)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("notebook", no_wrap=True, overflow="ellipsis", width=max(for_names, len("notebook")))
    table.add_column("outcome", no_wrap=True)
    table.add_column("cells", width=max(for_cells, len("cells")))
    table.add_column("time", justify="right", no_wrap=True)
    for run, name, outcome, tally, took in zip(runs, names, outcomes, tallies, times, strict=True):
        style = STYLES.get(run.outcome, "bold red")
        table.add_row(Text(_shortened(name, for_names)), Text(outcome, style), tally, took)
    return table
