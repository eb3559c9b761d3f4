"""Ten runs of a trivial notebook on one private server that stays open: ``python -m benchmarks.clients.warm_server``.

Prints the seconds of each run and of the processors in all processes, as JSON. The target is 0.25 s for a run.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import nbrun

RUNS = 10
NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": [], "source": "print(1)"}
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    return sum(
        one.ru_utime + one.ru_stime for one in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(runs: int) -> tuple[list[float], float]:
    """Return the seconds of each run after a first one, and the processor seconds of everything."""
    before, seconds = processor_seconds(), []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "nb.ipynb").write_text(json.dumps(NOTEBOOK))
        with nbrun.private_server(folder) as server:
            server.run("nb.ipynb", output="out.ipynb").check()
            for _ in range(runs):
                began = time.perf_counter()
                server.run("nb.ipynb", output="out.ipynb").check()
                seconds.append(round(time.perf_counter() - began, 3))
    return seconds, processor_seconds() - before


def main() -> None:
    """Measure, and write the result to standard output."""
    _, start = measure(0)
    seconds, used = measure(RUNS)
    json.dump({"seconds": seconds, "processor_seconds_per_run": round((used - start) / RUNS, 3)}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
