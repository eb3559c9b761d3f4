"""Where the CPU time of a run goes: a sampling profile of all its processes, see clients/sampler."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

CLIENT, SERVER, ZYGOTE, KERNEL = ROLES = ("client", "server", "zygote", "kernel")
SLOT = 0.01
"""Seconds of a row in the timeline."""

LEAST = 0.01
"""The share of all CPU time from which on an item has a row of its own."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A process spent `seconds` of CPU time until `at` with `item`."""

    role: str
    at: float
    seconds: float
    item: str


def read(lines: Iterable[str]) -> list[Sample]:
    r"""Read the lines of the profiler.

    The first process is the client, the next that is started the server. The server forks the zygote, whose kernels are
    grandchildren.

    >>> [sample.item for sample in read(["7\t0.1\t9000000\tstarted\t1", "7\t0.2\t1000000\tre._parser\tre:f"])]
    ['interpreter', 'import re']
    """
    roles: dict[str, str] = {}
    found = []
    for line in lines:
        process, at, spent, what, where = line.rstrip("\n").split("\t")
        if what in ("started", "forked"):
            roles[process] = _role(what, roles.get(where, ""), is_first=not roles)
            item = "interpreter" if what == "started" else "fork"
        else:
            item = f"import {_package(what)}" if what else where or "unknown"
        found.append(Sample(roles[process], float(at), int(spent) / 1e9, item))
    return found


def _role(how: str, parent: str, *, is_first: bool) -> str:
    if is_first:
        return CLIENT
    if how == "started":
        return SERVER if parent == CLIENT else KERNEL
    return {SERVER: ZYGOTE, ZYGOTE: KERNEL}.get(parent, parent)


def _package(name: str) -> str:
    """Return the package of a module or function: for nbrun its second level.

    >>> _package("tornado.iostream:write"), _package("nbrun.core.results")
    ('tornado', 'nbrun.core')
    """
    parts = name.partition(":")[0].split(".")
    return ".".join(parts[: 2 if parts[0] == "nbrun" else 1])


def items(samples: Iterable[Sample], cpu: float) -> list[list[Any]]:
    """Return the rows ``[role, item, seconds]`` of everything above :data:`LEAST` of `cpu`, largest first.

    Smaller items count for their package, and small packages for their process. The last row is what the profiler did
    not see: the ends of the processes.
    """
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for sample in samples:
        spent[sample.role, sample.item] += sample.seconds
    for is_package in (True, False):
        for (role, item), took in [*spent.items()]:
            if took < LEAST * cpu:
                del spent[role, item]
                spent[role, f"{_package(item)}, other" if is_package else "everything else"] += took
    rows: list[list[Any]] = [
        [role, item, took] for (role, item), took in sorted(spent.items(), key=lambda one: -one[1])
    ]
    return [*rows, ["all", "ends of the processes", cpu - sum(spent.values())]]


def timeline(samples: Iterable[Sample], began: float, wall: float) -> list[dict[str, Any]]:
    """Return for each :data:`SLOT` of a run what each process spent most of its CPU time with, and how many seconds."""
    slots: list[dict[str, dict[str, float]]] = [
        {role: defaultdict(float) for role in ROLES} for _ in range(int(wall / SLOT) + 1)
    ]
    for sample in samples:
        slot = slots[min(max(int((sample.at - began) / SLOT), 0), len(slots) - 1)]
        slot[sample.role][sample.item] += sample.seconds
    rows = []
    for number, slot in enumerate(slots):
        row: dict[str, Any] = {"at": round(number * SLOT, 3)}
        for role, spent in slot.items():
            if spent:
                largest, _ = max(spent.items(), key=lambda one: one[1])
                row[role] = [largest, sum(spent.values())]
        rows.append(row)
    return rows
