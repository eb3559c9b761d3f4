"""How time, memory and open files grow: nbrun alone, with cells, messages, notebooks, and megabytes of outputs.

The exponent is the slope of the fitted line between the logarithms: 1 is linear, 2 quadratic. What a run takes however
small it is (a server, a kernel) would flatten the line, so it is taken off first: the smallest run's measure is the
constant, and the slope is fitted through the rest. So the small ones count most, and are the median of three runs.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.measuring import adopt_orphans
from benchmarks.results import Measurement
from benchmarks.rounds import say, turn
from benchmarks.workloads import Workload, batch, cells, printing, producing, storing

SERIES: dict[str, tuple[tuple[int, ...], Callable[[int], Workload]]] = {
    "cells": ((10, 100, 1_000, 10_000), cells),
    "messages": ((1_000, 10_000, 100_000, 1_000_000), partial(printing, flush=True)),
    "notebooks": ((10, 100, 1_000), batch),
    "MB displayed": ((2, 64, 256, 1_024), producing),
    "MB of earlier outputs": ((2, 64, 256, 1_024), storing),
}
"""What grows: its sizes, and the workload of a size."""
GROWTH = "growth with "
"""What the names of the extras that hold a series begin with."""
LONG = 10.0
"""Seconds; what takes less is measured three times."""
LIMIT = 1200.0
"""Seconds that a point may take; a million flushed prints take some 300 on two cores."""


def series(name: str, folder: Path, interpreter: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Measure a series; each point has ``size``, ``wall``, ``cpu``, ``peaks``, ``files`` and ``failure``."""
    adopt_orphans()
    sizes, workload = SERIES[name]
    room = folder / "room"
    try:
        return [_point(workload(size), size, room, interpreter) for size in sizes[: -1 if quick else None]]
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _point(workload: Workload, size: int, room: Path, interpreter: Path) -> dict[str, Any]:
    alike = workload if workload.name == "W6" else replace(workload, name="W1")  # one notebook on its own server
    runs: list[Measurement] = []
    while not runs or (len(runs) < 3 and runs[-1].wall < LONG and not runs[-1].failure):
        measured = turn(alike, CONTENDERS["nbrun"], 0, room, interpreter, limit=LIMIT)
        assert measured is not None
        runs.append(measured)
        say(measured)
    measured = runs[-1] if runs[-1].failure else sorted(runs, key=lambda run: run.wall)[len(runs) // 2]
    return {
        "size": size,
        "wall": measured.wall,
        "cpu": measured.cpu,
        "peak": measured.peak,
        "peaks": measured.peaks,
        "files": measured.files,
        "failure": measured.failure,
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of ``log(more value)`` over ``log(more size)`` than the first; 0 where hardly anything grows.

    >>> round(exponent([1, 10, 100], [5.0, 5.9, 14.9]), 1)
    1.0
    """
    points = [
        (math.log(size - sizes[0]), math.log(value - values[0]))
        for size, value in zip(sizes[1:], values[1:], strict=True)
        if value > values[0] * 1.1
    ]
    if len(points) < 2:
        return 0.0
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    below = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / below
