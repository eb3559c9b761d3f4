"""A small real benchmark run: turns, stored results, and continuation after an interruption."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS, FarServer, needs_server
from benchmarks.environment import ENVIRONMENTS, OWN, SHARED
from benchmarks.results import Results
from benchmarks.rounds import Plan
from benchmarks.targets import TARGETS
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from benchmarks.rounds import Plan, run
contenders = ["nbrun", "bare ZeroMQ loop", "nbrun --version"]
run(Plan(["W1", "help"], contenders, dict.fromkeys(contenders, Path(sys.executable)), 1), Path(sys.argv[1]))
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
    assert set(ours.parts) == {"client", "server", "kernel"}
    assert min(ours.parts.values()) > 0
    assert floor.parts["server"] == 0 < floor.parts["kernel"]
    assert sum(ours.parts.values()) == pytest.approx(ours.cpu, abs=0.5)
    assert ours.peak > ours.runner_peak > 1_000_000
    assert min(ours.peaks.values()) > 1_000_000
    assert min(ours.files.values()) > 3
    assert not (tmp_path / "room").exists()
    first.measurements.pop()
    first.save(tmp_path / "run.json")
    again = run(tmp_path)
    assert again.measurements[:2] == first.measurements
    assert len(again.measurements) == 3


def test_rounds_begin_with_different_contenders_and_slow_ones_run_less_often() -> None:
    turns = [(who.name, number) for _, who, number in Plan(["W2"], ["nbrun", "papermill"], {}).turns()]
    assert turns == [("nbrun", 0), ("papermill", 0), ("papermill", 1), ("nbrun", 1), ("nbrun", 2)]


@pytest.mark.parametrize("environment", [OWN, SHARED])
def test_each_target_names_contenders_that_run_its_workload(environment: str) -> None:
    for target in TARGETS[environment]:
        for who in (target.ours, target.peer):
            server = FarServer("http://localhost/", "") if needs_server(who, target.workload) else None
            assert CONTENDERS[who].command(WORKLOADS[target.workload], server), (target, who)


def test_each_contender_has_an_environment_that_installs_its_command() -> None:
    for contender in CONTENDERS.values():
        environment = ENVIRONMENTS[contender.environment]
        assert environment.nbrun or "ipykernel" in environment.packages
        assert {*environment.packages} <= {*ENVIRONMENTS[SHARED].packages}
