"""What a person sees of a run."""

import io
import time
from collections.abc import Sequence

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
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem
from nbrun.reporters.batch_console import HEARTBEAT
from nbrun.reporters.console import Console
from nbrun.reporters.safe_console import SafeConsole

NAME = "nb.ipynb"
FAILED = CellResult(0, None, CellOutcome.FAILED, 1, 0.5, CellError("E", "v", ["\x1b[31mTraceback\x1b[0m", "E: v"]))
RUN: list[Event] = [
    StageEntered(NAME, Stage.STARTING_SERVER),
    StageEntered(NAME, Stage.STARTING_KERNEL),
    StageEntered(NAME, Stage.RUNNING),
    CellStarted(NAME, 0, 1, 2),
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
        "Traceback",
        "E: v",
        "nb.ipynb: E: v in cell 1 of 2",
        "nb.ipynb: failed: 1 failed in 1.0 s, saved in out.ipynb",
    ]


def test_outputs_are_shown_if_asked_and_are_never_taken_for_markup() -> None:
    assert "[cell 1] [bold]said[/bold]" in shown(RUN, log_output=True)
    assert "said" not in shown(RUN)


def test_a_terminal_sees_a_live_line_with_the_stage_and_the_cell() -> None:
    seen = shown(RUN, terminal=True)
    assert "starting the server" in seen
    assert "cell 1 of 2" in seen
    assert "failed: 1 failed" in seen


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
