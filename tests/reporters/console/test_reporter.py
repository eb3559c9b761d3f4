"""Console output of a single run."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nbrun.core.events import (
    CellFinished,
    CellStarted,
    Event,
    OutputArrived,
    RunFinished,
    Stage,
    StageEntered,
    Warned,
)
from nbrun.core.formats.tracebacks import plain
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from nbrun.reporters.console.batch import HEARTBEAT
from nbrun.reporters.console.reporter import Console
from nbrun.reporters.console.safe_console import SafeConsole

NAME = "nb.ipynb"
TRACEBACK = [
    "\x1b[31mE\x1b[0m                 Traceback (most recent call last)",
    "Cell In[1], line 2\n      1 x = 1\n\x1b[32m----> \x1b[39m2 raise E",
    "E: v",
]
FAILED = CellResult(0, None, CellOutcome.FAILED, 1, 0.5, CellError("E", "v", TRACEBACK))
RUN: list[Event] = [
    StageEntered(NAME, Stage.STARTING_SERVER),
    StageEntered(NAME, Stage.STARTING_KERNEL),
    StageEntered(NAME, Stage.RUNNING),
    CellStarted(NAME, 0, 1, 2, "x = 1\nraise E"),
    OutputArrived(NAME, 0, {"output_type": "stream", "name": "stdout", "text": "[bold]said[/bold]\n"}),
    CellFinished(NAME, FAILED),
    Warned(NAME, "mind [this]"),
    RunFinished(
        NAME,
        NotebookResult("0", NAME, "out.ipynb", "k", Outcome.FAILED, "", 1.0, [FAILED], Problem("E: v in cell 1 of 2")),
    ),
]


def shown(events: Sequence[Event], *, terminal: bool = False, log_output: bool = False, quiet: bool = False) -> str:
    sink = io.StringIO()
    rich = SafeConsole(file=sink, force_terminal=terminal, width=80, _environ={})
    console = Console(log_output=log_output, quiet=quiet, console=rich)
    for event in events:
        console.observe(event)
        console.tick()
    console.close()
    return sink.getvalue()


def test_a_log_gets_one_line_an_event_and_no_control_codes() -> None:
    assert shown(RUN).splitlines() == [
        "nb.ipynb: starting the kernel",
        "nb.ipynb: running",
        "nb.ipynb: cell 1 of 2 failed in 0.5 s",
        "nb.ipynb: mind [this]",
        "       1 | x = 1",
        "  >    2 | raise E",
        "    Cell In[1], line 2",
        "    ----> 2 raise E",
        "    E: v",
        "nb.ipynb: E: v in cell 1 of 2",
        "nb.ipynb: failed: 0 of 1 cell passed in 1.0 s, saved in out.ipynb",
    ]


def test_outputs_are_shown_if_asked_and_are_never_taken_for_markup() -> None:
    assert "[cell 1] [bold]said[/bold]" in shown(RUN, log_output=True)
    assert "said" not in shown(RUN)


def test_a_terminal_sees_a_live_line_with_the_stage_and_the_cell() -> None:
    seen = shown(RUN, terminal=True)
    assert "starting the server" in seen
    assert "cell 1 of 2" in seen
    assert "failed: 0 of 1 cell passed" in seen


def test_quiet_leaves_only_what_went_wrong() -> None:
    passed = RunFinished(NAME, NotebookResult("0", NAME, "out.ipynb", "k", Outcome.PASSED, "", 1.0))
    assert shown([*RUN[:4], passed], quiet=True) == ""
    assert "E: v in cell 1 of 2" in shown(RUN, quiet=True)


def test_a_silent_cell_gets_a_heartbeat_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sink = io.StringIO()
    console = Console(console=SafeConsole(file=sink, width=80, _environ={}))
    console.observe(CellStarted(NAME, 0, 1, 2))
    console.tick()
    assert sink.getvalue() == ""
    now[0] += HEARTBEAT + 5
    console.tick()
    console.tick()
    assert sink.getvalue() == "nb.ipynb: cell 1 of 2, 35 s\n"


def finished(result: NotebookResult, *cells: CellResult) -> list[Event]:
    return [*(CellStarted(NAME, cell.index, cell.index + 1, 2, "1") for cell in cells), RunFinished(NAME, result)]


def test_a_terminal_breaks_lines_between_words_and_a_log_does_not() -> None:
    problem = Problem(
        "the kernel died in cell 1 of 2, 41 s after it started", "Look for the line in the log of the host."
    )
    result = NotebookResult(
        "0", NAME, "a/long/path/that/is/wider/than/the/screen.ipynb", "k", Outcome.KERNEL_DIED, "", 1.0
    )
    events = finished(replace(result, problem=problem))
    sink = io.StringIO()
    console = Console(console=SafeConsole(file=sink, force_terminal=True, width=30, _environ={}), progress=False)
    for event in events:
        console.observe(event)
    told = plain(sink.getvalue()).splitlines()
    assert told[:5] == [
        "nb.ipynb: the kernel died in",
        "cell 1 of 2, 41 s after it",
        "started",
        "  Look for the line in the log",
        "  of the host.",
    ]
    assert told[-1] == "a/long/path/that/is/wider/than/the/screen.ipynb", "what can be copied stays whole"
    assert "  Look for the line in the log of the host." in shown(events).splitlines()


def test_the_cell_that_is_shown_is_the_one_that_the_message_names() -> None:
    late = CellResult(0, None, CellOutcome.TIMED_OUT, 1, 3.0, CellError("CellTimeout", "", ["KeyboardInterrupt: "]))
    allowed = CellResult(1, None, CellOutcome.FAILED, 2, 0.1, CellError("E", "", ["E: allowed"]), allowed=True)
    problem = Problem("longer than 3 s in cell 1 of 2", cell=0)
    run = NotebookResult("0", NAME, None, "k", Outcome.TIMED_OUT, "", 3.1, [late, allowed], problem)
    said = shown([*finished(run, late, allowed)])
    assert "KeyboardInterrupt" in said
    assert "E: allowed" not in said
    assert said.splitlines()[-1] == "nb.ipynb: timed out: 0 of 2 cells passed, 1 with an allowed error, in 3.1 s"


def test_an_error_without_a_traceback_shows_the_end_of_standard_error() -> None:
    error = CellError("ExceptionGroup", "1 sub-exception", stderr="  | ValueError: the cause")
    failed = CellResult(0, None, CellOutcome.FAILED, 1, 0.1, error)
    run = NotebookResult(
        "0", NAME, None, "k", Outcome.FAILED, "", 1.0, [failed], Problem("what in cell 1 of 2", cell=0)
    )
    assert "      | ValueError: the cause" in shown(finished(run, failed)).splitlines()


def test_a_log_needs_no_rich() -> None:
    code = (
        "import sys\n"
        "from nbrun.reporters.console.reporter import Console\n"
        "from tests.reporters.streams import batch\n"
        "console = Console()\n"
        "for event in batch():\n"
        "    console.observe(event)\n"
        "console.close()\n"
        "print('rich' in sys.modules)"
    )
    for variables, needs in (({}, "False"), ({"FORCE_COLOR": "1"}, "True"), ({"TTY_COMPATIBLE": "1"}, "True")):
        environ = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=environ | variables, capture_output=True, text=True, timeout=60, check=True)
        assert ran.stdout.strip() == needs
        assert "4 notebooks in 3.0 s" in ran.stderr
        assert ("\x1b[" in ran.stderr) is (needs == "True")
