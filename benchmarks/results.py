"""What was measured, as it lies in ``run.json``: written after each measurement, so that a run can be gone on with."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks.environment import OWN, REPOSITORY, SHARED, versions
from benchmarks.measuring import ROLES

PEERS = ("papermill", "nbclient", "nbconvert", "nbmake", "pytest-xdist", "jupyter-kernel-client")
BELOW = ("jupyterlab", "jupyter-server", "jupyter-client", "ipykernel", "pyzmq", "nbformat")


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
    parts: Mapping[str, float] = field(default_factory=dict)
    """CPU seconds of client, server and kernel, as far as they were sampled."""
    peaks: Mapping[str, int] = field(default_factory=dict)
    """The highest resident set of client, server and kernel, in bytes."""
    files: Mapping[str, int] = field(default_factory=dict)
    """The most open files of client, server and kernel."""


@dataclass(slots=True)
class Results:
    """All of one run of the harness, in one kind of environments."""

    machine: dict[str, str] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    """What is no measurement of a contender: stages of a run, the scale series."""
    environment: str = OWN

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a run that was begun before."""
        told = json.loads(path.read_bytes())
        rows = [Measurement(**row) for row in told["measurements"]]
        return cls(told["machine"], rows, told.get("extras", {}), told.get("environment", SHARED))

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
    parts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Measurement]) -> Self:
        """Sum up."""
        every = list(rows)
        split = [row for row in every if row.parts]
        failures = sorted({row.failure for row in every if row.failure})
        more = f" (and {len(failures) - 1} other ways)" if len(failures) > 1 else ""
        return cls(
            median(row.wall for row in every),
            median(row.cpu for row in every),
            median(row.peak for row in every),
            median(row.runner_peak for row in every),
            len(every),
            f"{failures[0]}{more}" if failures else "",
            {role: median(row.parts[role] for row in split) for role in ROLES} if split else {},
        )


def summaries(runs: Iterable[Results]) -> dict[tuple[str, str], Summary]:
    """Return the summary of each workload and contender, over all rounds of all runs."""
    rows: dict[tuple[str, str], list[Measurement]] = {}
    for run in runs:
        for row in run.measurements:
            rows.setdefault((row.workload, row.contender), []).append(row)
    return {key: Summary.of(group) for key, group in rows.items()}


def describe_machine(interpreters: Iterable[Path]) -> dict[str, str]:
    """Return what was measured on, and the versions of what the environments of `interpreters` contain."""
    found: dict[str, str] = {}
    for interpreter in interpreters:
        found = versions(interpreter) | found
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "nbrun": f"{found.get('jupyter-nbrun', 'none')} ({described_commit()})",
        "peers": _among(PEERS, found),
        "below": _among(BELOW, found),
    }


def described_commit() -> str:
    """Return the commit of the checkout, with a mark when files have changed since."""
    asked = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "no git"


def _among(names: Iterable[str], found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


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
