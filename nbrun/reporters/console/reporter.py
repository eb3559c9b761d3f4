"""Console output of a single run: a live line or plain lines, and a summary at the end.

In a log, a long cell without output gets a progress line every 30 s. rich decides about colours, width and terminals,
including NO_COLOR and FORCE_COLOR. Everything goes to standard error; standard output is for data. A batch is shown by
:mod:`nbrun.reporters.console.batch`.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

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
from nbrun.core.results import CellResult, NotebookResult
from nbrun.reporters import phrases
from nbrun.reporters.console.batch import HEARTBEAT, STYLES, TRACEBACK, BatchConsole
from nbrun.reporters.console.log_console import LogConsole, is_log
from nbrun.reporters.console.output_log import OutputLog
from nbrun.reporters.run_log import Record, RunRecord, fault_of

if TYPE_CHECKING:
    from nbrun.reporters.console.live_display import LiveDisplay


class Console:
    """Shows one run, or a batch, on standard error.

    Without `progress` a terminal is treated as a log. With `runner`, text of a notebook is never a command to GitHub's
    runner. `mask` masks secrets in lines, because carriage returns and backspaces may assemble one.
    """

    name = "the console"

    def __init__(
        self,
        *,
        log_output: bool = False,
        quiet: bool = False,
        progress: bool = True,
        runner: bool = False,
        mask: Callable[[str], str] = str,
        console: LogConsole | None = None,
    ) -> None:
        # With FORCE_COLOR rich treats everything as a terminal. A log stays a log, with colours.
        # The output of a CI runner is a log too, even if its steps have a terminal.
        on_screen = (console is not None or sys.stderr.isatty()) and not runner
        self._console = console or _standard_error(mask, runner=runner)
        self._quiet = quiet
        self._logs_output = log_output and not quiet
        self._log = OutputLog(self._say_output) if self._logs_output else None
        self._live = on_screen and progress and not quiet and self._console.can_move
        if self._live:
            self._console.allow_movements()
        self._console.wraps = self._console.is_terminal and on_screen
        self._record = Record()
        self._batch: BatchConsole | None = None
        self._line: LiveDisplay | None = None
        self._notebook = ""
        self._stage: Stage | None = None
        self._numbers: dict[tuple[str, int], tuple[int, int]] = {}
        self._current: CellStarted | None = None
        self._since = self._last_said = time.monotonic()
        self.interval = 0.1 if self._live else 1.0
        """Seconds between two calls of :meth:`tick`."""

    def observe(self, event: Event) -> None:
        """Handle an event."""
        if self._batch is not None:
            self._batch.observe(event)
            return
        self._record.observe(event)
        match event:
            case StageEntered(notebook, stage):
                self._enter(notebook, stage)
            case CellStarted():
                self._current, self._since = event, time.monotonic()
                self._numbers[event.notebook, event.index] = event.number, event.total
                self._show()
            case OutputArrived(notebook, index, output):
                if self._log is not None:
                    self._log.show(index, self._label(notebook, index), output)
            case CellFinished(notebook, result):
                self._finish_cell(notebook, result)
            case Warned(notebook, text):
                self._say(f"{notebook}: {text}" if notebook else text, "yellow")
            case RunFinished(notebook, result):
                self._finish(self._record.runs[notebook], result)
            case BatchStarted(notebooks) if notebooks:
                self._batch = BatchConsole(
                    self._console,
                    notebooks,
                    live=self._live,
                    quiet=self._quiet,
                    log_output=self._logs_output,
                )
            case BatchStarted() | BatchFinished():
                pass  # without a notebook, the command says why

    def tick(self) -> None:
        """Update the elapsed time."""
        if self._batch is not None:
            self._batch.tick()
        elif self._live:
            self._show()
        elif self._current and not self._quiet and time.monotonic() - self._last_said >= HEARTBEAT:
            self._say(f"{self._current.notebook}: {self._doing()}")

    def close(self) -> None:
        """Remove the live lines."""
        if self._batch is not None:
            self._batch.close()
        if self._line is not None:
            self._line.stop()
            self._line = None

    def _enter(self, notebook: str, stage: Stage) -> None:
        self._stage, self._since, self._current = stage, time.monotonic(), None
        if self._live:
            if self._line is None:
                from nbrun.reporters.console.live_display import LiveDisplay

                self._line = LiveDisplay(self._console)
            self._notebook = notebook
            self._show()
        elif not self._quiet and stage in (Stage.STARTING_KERNEL, Stage.RUNNING):
            self._say(f"{notebook}: {stage.value}")

    def _show(self) -> None:
        if self._line is not None:
            self._line.show_line(f"{self._notebook}: {self._doing()}")

    def _doing(self) -> str:
        passed = spell_duration(time.monotonic() - self._since)
        if self._current is not None:
            return f"cell {self._current.number} of {self._current.total}, {passed}"
        return f"{self._stage.value if self._stage else 'waiting'}, {passed}"

    def _label(self, notebook: str, index: int) -> str:
        return f"[cell {self._numbers.get((notebook, index), ('?',))[0]}] "

    def _finish_cell(self, notebook: str, result: CellResult) -> None:
        if self._log is not None:
            self._log.finish(result.index, self._label(notebook, result.index))
        if not self._live and not self._quiet:
            line = phrases.cell_line(result, *self._numbers.pop((notebook, result.index)))
            self._say(f"{notebook}: {line}", "red" if result.is_fault else "")
        self._current = None

    def _finish(self, run: RunRecord, result: NotebookResult) -> None:
        self.close()
        fault = fault_of(run, result)
        for line, shade, on_one_line in fault.lines(TRACEBACK) if fault is not None else ():
            self._say(line, shade, on_one_line=on_one_line)
        style = STYLES.get(result.outcome, "bold red")
        for line in phrases.problem(result):
            self._say(line, style if not line.startswith("  ") else "")
        if not self._quiet or not result.went_well:
            self._say(f"{result.path}: {phrases.summary(result)}", style)

    def _say(self, line: str, style: str = "", *, on_one_line: bool = False) -> None:
        self._last_said = time.monotonic()
        self._console.say(line, style, on_one_line=on_one_line)

    def _say_output(self, line: str) -> None:
        self._last_said = time.monotonic()
        self._console.say_output(line)


def _standard_error(mask: Callable[[str], str], *, runner: bool) -> LogConsole:
    if is_log(sys.stderr):
        return LogConsole(sys.stderr, mask=mask, runner=runner)
    from nbrun.reporters.console.safe_console import SafeConsole

    return SafeConsole(mask=mask, runner=runner)
