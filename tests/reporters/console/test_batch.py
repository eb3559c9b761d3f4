"""Console output of a batch: lines in a log, live rows on a terminal, failures."""

import io
import time
from typing import Any

import pytest

from nbrun.core.events import BatchFinished, BatchStarted, Event
from nbrun.core.formats.tracebacks import plain
from nbrun.core.results import BatchResult, CellError, CellOutcome, CellResult, Outcome
from nbrun.reporters.console.batch import HEARTBEAT
from nbrun.reporters.console.reporter import Console
from nbrun.reporters.console.safe_console import SafeConsole
from tests.reporters.streams import BATCH, GOOD, RESULTS, Speaker, batch, result


def rich(sink: io.StringIO, *, terminal: bool = False, width: int = 100) -> SafeConsole:
    return SafeConsole(file=sink, force_terminal=terminal, width=width, height=30, _environ={})


def shown(events: list[Event], *, terminal: bool = False, width: int = 100, **options: Any) -> str:
    sink = io.StringIO()
    console = Console(console=rich(sink, terminal=terminal, width=width), **options)
    for event in events:
        console.observe(event)
        console.tick()
    console.close()
    return sink.getvalue()


def test_a_log_gets_a_line_a_run_and_failures_with_the_cell_and_its_failing_line() -> None:
    assert shown(batch()).splitlines() == [
        "4 notebooks to run",
        "a/good.ipynb: the file is old",
        "[1/4] a/good.ipynb: passed: 1 cell in 1.5 s",
        "[2/4] a/bad.ipynb: failed: 1 of 3 cells passed, 1 not run, in 1.5 s",
        "  ValueError: <no> in cell 2 of 3",
        "       1 | total = 0",
        "       2 | ",
        "  >    3 | raise ValueError('<no> & \"data\"')",
        "    Cell In[2], line 3",
        "    ----> 3 raise ValueError('<no> & \"data\"')",
        '    ValueError: <no> & "data"',
        "[3/4] dead.ipynb: kernel died: 0 of 1 cell passed in 1.5 s",
        "  the kernel died in cell 1 of 1",
        "  Look.",
        "       1 | import os; os._exit(1)",
        "[4/4] never.ipynb: not run: 0 cells in 1.5 s",
        "  never.ipynb: there is no such file",
        "  nbrun looked.",
        "a/bad.ipynb: failed",
        "dead.ipynb: kernel died",
        "never.ipynb: not run",
        "4 notebooks in 3.0 s: 1 passed, 1 failed, 1 kernel died, 1 not run",
    ]


def test_quiet_leaves_out_what_went_well() -> None:
    said = shown(batch(), quiet=True)
    assert "good.ipynb: passed" not in said
    assert "a/bad.ipynb: failed" in said


def test_outputs_are_shown_by_notebook_and_cell_if_asked_for() -> None:
    said = shown(batch(), log_output=True).splitlines()
    assert "[a/good.ipynb cell 1] fine" in said
    assert "[a/bad.ipynb cell 1] ::error::mine" in said


def test_in_a_runners_log_nothing_from_a_notebook_is_a_command() -> None:
    run = Speaker("::error::n.ipynb")
    for line in shown([batch()[0], run.stage(), run.is_over(BATCH.runs[1])], runner=True).splitlines():
        assert not line.strip().startswith("::")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_sees_rows_that_fit_a_bar_and_a_table(width: int) -> None:
    said = shown(batch(), terminal=True, width=width)
    for wanted in ("cell 2 of 2", "1 of 4", "about", "left", "outcome"):
        assert wanted in said


@pytest.mark.parametrize("width", [40, 50, 60, 61, 70, 80, 100, 120, 200])
def test_no_word_is_broken_on_a_terminal_of_whatever_width(width: int) -> None:
    said = shown(batch(), terminal=True, width=width, progress=False)
    lines = [plain(line).rstrip() for line in said.splitlines()]
    assert all(len(line) <= width for line in lines)
    whole = {word for line in plain(shown(batch())).split("\n") for word in line.split()}
    whole |= {"notebook", "outcome", "cells", "time", "cell", "1", "3", "passed", "passed,", "died", "run", "0", "s"}
    for word in (word for line in lines for word in line.split()):
        assert word in whole or any(name.endswith(word.strip("…")) for name in RESULTS) or word.endswith("…"), word
    header = next((number for number, line in enumerate(lines) if line.startswith("notebook ")), None)
    cut = [line for line in lines[header or len(lines) :] if "…" in line.partition("  ")[2]]
    assert not cut, "only names are shortened in the table"
    assert (header is None) is (width < 50)


def test_the_table_at_the_end_ends_with_the_failures() -> None:
    lines = plain(shown(batch(), terminal=True, width=100, progress=False)).splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("notebook "))) + 1 : -1]
    assert [line.split()[0] for line in table] == ["a/good.ipynb", "a/bad.ipynb", "dead.ipynb", "never.ipynb"]
    late: list[Event] = [
        BatchStarted(["bad", "good"]),
        BatchFinished(BatchResult("", "", 3.0, [BATCH.runs[1], BATCH.runs[0]])),
    ]
    lines = plain(shown(late, terminal=True, width=100, progress=False)).splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["a/good.ipynb", "a/bad.ipynb"]
    assert lines[-1] == "2 notebooks in 3.0 s: 1 passed, 1 failed"


def test_a_terminal_keeps_each_line_of_source_on_one_line_and_a_log_keeps_all_of_it() -> None:
    run = Speaker("a.ipynb", total=1)
    source = "1\n" + "x" * 90 + " = 1/0"
    failed = CellResult(0, None, CellOutcome.FAILED, 1, 0.1, CellError("E", "", ["Cell In[1], line 2"]))
    events = [
        BatchStarted(["a.ipynb"]), run.starts(0, source), run.ends(failed),
        run.is_over(result("a.ipynb", Outcome.FAILED, [failed])),
    ]  # fmt: skip
    assert source.splitlines()[1] in shown(events)
    on_terminal = plain(shown(events, terminal=True, width=60))
    assert f"  >    2 | {'x' * 48}…\n" in on_terminal.replace("\r", "")


def test_a_terminal_gets_a_log_if_no_bar_is_wanted() -> None:
    told = plain(shown(batch(), terminal=True, progress=False))
    assert "[1/4] a/good.ipynb: passed: 1 cell in 1.5 s\n" in told
    assert "━" not in told


def test_a_long_silence_in_a_log_gets_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sink = io.StringIO()
    console = Console(console=rich(sink))
    for event in batch()[:7]:
        console.observe(event)
    console.tick()
    now[0] += HEARTBEAT + 5
    console.tick()
    console.tick()
    last = sink.getvalue().splitlines()[1:]
    assert last == [f"[0/4], 35 s: running {GOOD} (cell 1 of 2, 35 s), a/bad.ipynb (cell 1 of 2, 35 s)"]
