"""What starting costs before anything runs: the modules that each of a run's processes imports, and their share."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.environment import variables

PROCESSES = {
    "nbrun": "import nbrun.cli.run, nbrun.api, nbrun.reporters.console",
    "its server": "import nbrun.jupyter.private_server",
    "the kernel": "import ipykernel.kernelapp",
}
SHOWN = 8


def importing(folder: Path) -> dict[str, Any]:
    """Give for each process: all seconds, and the packages that took most, by ``-X importtime``."""
    told = {}
    for name, code in PROCESSES.items():
        command = [sys.executable, "-P", "-X", "importtime", "-c", code]
        for _ in range(2):  # the second one finds everything compiled and read
            done = subprocess.run(command, capture_output=True, text=True, env=variables(folder / "home"), check=True)
        told[name] = by_package(done.stderr.splitlines())
    return told


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
