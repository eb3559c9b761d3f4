"""Where the time goes: the stages of a batch's runs, and the modules that each of a run's processes imports."""

import json
import subprocess
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.environment import variables

PROCESSES = {
    "nbrun": "import nbrun.cli.run, nbrun.api.functions, nbrun.reporters.console.reporter",
    "its server": "import nbrun.local_server.process.app",
    "the kernel": "import ipykernel.kernelapp",
}
SHOWN = 8


def importing(folder: Path, interpreter: Path) -> dict[str, Any]:
    """Return for each process: all seconds, and the packages that took most, by ``-X importtime``."""
    told = {}
    for name, code in PROCESSES.items():
        command = [str(interpreter), "-P", "-X", "importtime", "-c", code]
        for _ in range(2):  # the second one finds everything compiled and read
            environment = variables(folder / "home", interpreter)
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        told[name] = by_package(done.stderr.splitlines())
    return told


def by_stage(lines: Iterable[str], began: float) -> dict[str, Any]:
    """Sum up the seconds that the runs of a batch spent in each stage, from its log of events.

    `began` is when the process was started, in seconds since the epoch; the result also tells how long after that the
    first run began and the last one ended.
    """
    spent: dict[str, float] = {}
    entered: dict[str, tuple[str, float]] = {}
    first = last = began
    for line in lines:
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] not in ("stage-entered", "run-finished"):
            continue
        name = event["notebook"]
        if name in entered:
            stage, since = entered[name]
            spent[stage] = spent.get(stage, 0.0) + at - since
        first = at if first == began else first
        last = at
        entered[name] = (event.get("stage", ""), at)
    return {"stages": spent, "runs": len(entered), "first": first - began, "last": last - began}


def by_package(lines: Iterable[str]) -> dict[str, Any]:
    """Sum up the time that each top-level package took for itself.

    >>> by_package(["import time:  1000 |  3000 | a.b", "import time: 2000 | 2000 |   c"])["packages"]
    [['c', 0.002], ['a', 0.001]]
    """
    spent: dict[str, int] = {}
    for line in lines:
        own, _, module = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if own.strip().isdigit():
            package = module.strip().partition(".")[0]
            spent[package] = spent.get(package, 0) + int(own)
    most = sorted(spent.items(), key=lambda item: -item[1])
    return {"seconds": sum(spent.values()) / 1e6, "packages": [[name, took / 1e6] for name, took in most[:SHOWN]]}
