"""What was measured, as it lies in ``run.json``: written after each measurement, so that a run can be gone on with."""

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks.environment import REPOSITORY

PEERS = ("papermill", "nbclient", "nbconvert", "nbmake", "pytest-xdist", "jupyter-kernel-client")
BELOW = ("jupyter-server", "jupyter-client", "ipykernel", "pyzmq", "nbformat")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender, once, at one workload: seconds, CPU seconds, bytes; ``failure`` says what was missing."""

    workload: str
    contender: str
    round: int
    wall: float
    cpu: float
    peak: int
    runner_peak: int
    failure: str = ""


@dataclass(slots=True)
class Results:
    """All of one run of the harness."""

    machine: dict[str, str] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    """What is no measurement of a contender: stages of a run, the scale series."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a run that was begun before."""
        told = json.loads(path.read_bytes())
        return cls(told["machine"], [Measurement(**row) for row in told["measurements"]], told.get("extras", {}))

    def save(self, path: Path) -> None:
        """Write all of it, so that an interrupted run is never a broken file."""
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        beside.replace(path)

    def has(self, workload: str, contender: str, number: int) -> bool:
        """Return whether a measurement was made."""
        return any((m.workload, m.contender, m.round) == (workload, contender, number) for m in self.measurements)


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender at one workload over all rounds: medians, and what was missing in any of them."""

    wall: float
    cpu: float
    peak: float
    runner_peak: float
    rounds: int
    failure: str

    @classmethod
    def of(cls, rows: Iterable[Measurement]) -> Self:
        """Sum up."""
        every = list(rows)
        failures = sorted({row.failure for row in every if row.failure})
        more = f" (and {len(failures) - 1} other ways)" if len(failures) > 1 else ""
        return cls(
            median(row.wall for row in every),
            median(row.cpu for row in every),
            median(row.peak for row in every),
            median(row.runner_peak for row in every),
            len(every),
            f"{failures[0]}{more}" if failures else "",
        )


def summaries(runs: Iterable[Results]) -> dict[tuple[str, str], Summary]:
    """Return the summary of each workload and contender, over all rounds of all runs."""
    rows: dict[tuple[str, str], list[Measurement]] = {}
    for run in runs:
        for row in run.measurements:
            rows.setdefault((row.workload, row.contender), []).append(row)
    return {key: Summary.of(group) for key, group in rows.items()}


def describe_machine() -> dict[str, str]:
    """Say what was measured on, and with which versions."""
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "nbrun": f"{version('jupyter-nbrun')} ({commit.stdout.strip() or 'no git'})",
        "peers": _versions(PEERS),
        "below": _versions(BELOW),
    }


def _versions(names: Iterable[str]) -> str:
    told = []
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            told.append(f"{name} {version(name)}")
    return ", ".join(told)


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores" + (
        f" of {names[0]}" if names else ""
    )


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
