"""A small real benchmark run: turns, stored results, and continuation after an interruption."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.results import Results
from benchmarks.rounds import Plan
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from benchmarks.rounds import Plan, run
run(Plan(["W1", "help"], ["nbrun", "bare ZeroMQ loop", "nbrun --version"], 1), Path(sys.argv[1]))
"""


def run(folder: Path) -> Results:
    """Run in a process of its own, which adopts what a command leaves behind: the tests' process must not."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", RUN, str(folder)], check=True, env=environment, timeout=200)
    return Results.load(folder / "run.json")


def test_everybody_is_measured_once_and_nobody_twice(tmp_path: Path) -> None:
    first = run(tmp_path)
    rows = {(row.workload, row.contender): row for row in first.measurements}
    assert rows.keys() == {("W1", "nbrun"), ("W1", "bare ZeroMQ loop"), ("help", "nbrun --version")}
    assert {row.failure for row in rows.values()} == {""}
    ours, floor = rows["W1", "nbrun"], rows["W1", "bare ZeroMQ loop"]
    assert ours.wall > 0 < floor.wall
    assert ours.cpu > floor.cpu > 0
    assert ours.peak > ours.runner_peak > 1_000_000
    assert not (tmp_path / "room").exists()
    first.measurements.pop()
    first.save(tmp_path / "run.json")
    again = run(tmp_path)
    assert again.measurements[:2] == first.measurements
    assert len(again.measurements) == 3


def test_rounds_begin_with_different_contenders_and_slow_ones_run_less_often() -> None:
    turns = [(who.name, number) for _, who, number in Plan(["W2"], ["nbrun", "papermill"]).turns()]
    assert turns == [("nbrun", 0), ("papermill", 0), ("papermill", 1), ("nbrun", 1), ("nbrun", 2)]


def test_each_target_names_contenders_that_run_its_workload() -> None:
    for name in ("W1", "W2", "W3", "W4", "W5", "W8"):
        for who in ("nbrun", "papermill", "jupyter execute", "bare ZeroMQ loop", "nbconvert --execute"):
            assert CONTENDERS[who].command(WORKLOADS[name], None), (name, who)
