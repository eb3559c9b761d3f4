"""The live lines on a terminal: running notebooks and a progress bar, drawn by rich."""

from collections.abc import Sequence

from msgspec import Struct
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nbrun.core.formats.units import spell_duration
from nbrun.reporters.console.log_console import LogConsole
from nbrun.reporters.console.safe_console import SafeConsole

_WIDEST = 120
"""Maximum width of the live rows."""
NARROWEST_NAME = 12
"""Minimum width of notebooks' names."""


class LiveRun(Struct, frozen=True):
    """A row of the live display: a running notebook, what it does, and for how many seconds it has been running."""

    notebook: str
    doing: str
    seconds: float


class Progress(Struct, frozen=True):
    """The bar of the live display: runs that are done, failed, and all of them; seconds passed and left."""

    done: int
    failed: int
    all: int
    passed: float
    left: float | None


class LiveDisplay:
    """Lines at the bottom of a terminal, from the start until `stop`."""

    def __init__(self, console: LogConsole) -> None:
        assert isinstance(console, SafeConsole)
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._spinners: dict[str, Spinner] = {}
        self._live.start()

    def stop(self) -> None:
        """Remove the lines."""
        self._live.stop()

    def show_line(self, line: str) -> None:
        """Show one line with a spinner."""
        spinner = self._spinner("")
        spinner.update(text=Text(self._console.clean(line)))
        self._live.update(spinner, refresh=True)

    def show_batch(self, runs: Sequence[LiveRun], progress: Progress) -> None:
        """Show the bar and as many rows as the screen holds."""
        width = self._console.width
        rows = _grid(width)
        room = max(1, self._console.height - 4)
        for run in runs[:room]:
            longest = max(min(width, _WIDEST) - 40, NARROWEST_NAME)
            name = Text(shortened_name(self._console.clean(run.notebook), longest))
            rows.add_row(self._spinner(run.notebook), name, run.doing, spell_duration(run.seconds))
        if len(runs) > room:
            rows.add_row("", f"… and {len(runs) - room} more", "", "")
        self._live.update(Group(rows, _bar(progress, width)), refresh=True)

    def _spinner(self, name: str) -> Spinner:
        return self._spinners.setdefault(name, Spinner("dots"))


def _bar(progress: Progress, width: int) -> Table:
    status = Text(f"{progress.done} of {progress.all}", "bold")
    if progress.failed:
        status.append(f", {progress.failed} not passed", "bold red")
    status.append(f"  {spell_duration(progress.passed)}", "dim")
    if progress.left is not None and progress.done < progress.all:
        status.append(f", about {spell_duration(max(progress.left, 1.0))} left", "dim")
    bar = Table.grid(padding=(0, 1))
    bar.add_column(width=max(8, min(40, width - status.cell_len - 3)))
    bar.add_column(no_wrap=True, overflow="ellipsis")
    colour = "red" if progress.failed else "green"
    bar.add_row(ProgressBar(progress.all, progress.done, style="dim", complete_style=colour), status)
    return bar


def shortened_name(name: str, width: int) -> str:
    """Return a path shortened at its beginning, because its end is more specific."""
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def _grid(width: int) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.width = min(width - 1, _WIDEST)
    grid.add_column(width=1)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, overflow="ellipsis", style="cyan")
    grid.add_column(no_wrap=True, justify="right", style="dim", min_width=8)
    return grid
