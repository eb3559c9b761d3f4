"""nbrun of the checkout beside nbrun of another git revision: has a workload become slower?

Both have an environment of their own with the same versions of everything else. They run in pairs, and the order within
a pair alternates, so what disturbs the machine for some time disturbs both.
"""

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.contenders import CONTENDERS
from benchmarks.measuring import adopt_orphans
from benchmarks.results import Measurement, described_commit
from benchmarks.rounds import turn
from benchmarks.workloads import WORKLOADS, Workload

LEAST = 4
"""Pairs of a workload: of fewer, the noise is not known."""

PAIRS = {"W1": 10, "W2": 8, "W3": 4, "W4": 6, "W5": 5, "W6": 5, "W7": 6, "W8": 8}
"""Pairs of each workload: fewer of the long ones, so that the usual ones take at most six minutes together."""
USUAL = ("W1", "W2", "W4", "W5", "W6", "W8")
TOLERANCE = 0.03
FASTER, SAME, SLOWER, FAILED = "faster", "no difference", "slower", "failed"


def outside(count: int) -> int:
    """Return how many of `count` sorted values lie outside the 95 % interval of their median, on each side.

    >>> [outside(count) for count in (4, 6, 9, 30)]
    [0, 0, 1, 9]
    """
    probability, below = 0.0, 0
    while below <= count:
        probability += math.comb(count, below) / 2**count
        if probability > 0.025:
            break
        below += 1
    return max(0, below - 1)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Seconds or CPU seconds of all pairs: those of the revision (`before`), and those of the checkout (`after`)."""

    name: str
    before: Sequence[float]
    after: Sequence[float]

    @property
    def ratio(self) -> float:
        """Return the ratio of the medians; above 1 the checkout is slower."""
        below = median(self.before)
        return median(self.after) / below if below else math.inf

    @property
    def noise(self) -> float:
        """Return half the width of an interval that contains the median of the pairs' ratios with 95 % probability.

        The interval lies between two of the sorted ratios (as in a sign test), so it assumes no distribution: CPU times
        on a busy machine often have two peaks. Of fewer than six pairs it is the whole range.

        >>> Quantity("wall", [1.0, 1.0, 1.0, 1.0], [1.0, 1.1, 1.1, 1.2]).noise
        0.1
        """
        ratios = sorted(
            ours / theirs if theirs else math.inf for theirs, ours in zip(self.before, self.after, strict=True)
        )
        left_out = outside(len(ratios))
        return round((ratios[len(ratios) - 1 - left_out] - ratios[left_out]) / 2, 6)

    @property
    def verdict(self) -> str:
        """Return what the difference is, if it is beyond the tolerance and the noise together."""
        beyond = TOLERANCE + self.noise
        if self.ratio > 1 + beyond:
            return SLOWER
        return FASTER if self.ratio < 1 - beyond else SAME


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: its quantities, and what was incomplete."""

    workload: str
    quantities: Sequence[Quantity]
    failure: str = ""

    @property
    def verdict(self) -> str:
        """Return the worst verdict of the quantities."""
        if self.failure:
            return FAILED
        told = [quantity.verdict for quantity in self.quantities]
        return next((verdict for verdict in (SLOWER, FASTER) if verdict in told), SAME)


def row_of(workload: str, before: Sequence[Measurement], after: Sequence[Measurement]) -> Row:
    """Sum up the pairs of one workload."""
    failures = [
        f"{side}: {one.failure}"
        for side, rows in (("checkout", after), ("revision", before))
        for one in rows
        if one.failure
    ]
    quantities = [
        Quantity("wall", [one.wall for one in before], [one.wall for one in after]),
        Quantity("CPU", [one.cpu for one in before], [one.cpu for one in after]),
    ]
    return Row(workload, quantities, failures[0] if failures else "")


def order(pairs: int) -> Iterator[tuple[int, int]]:
    """Return the number of the pair and the side (0: revision, 1: checkout) of each run.

    >>> list(order(2))
    [(0, 0), (0, 1), (1, 1), (1, 0)]
    """
    for number in range(pairs):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            yield number, side


def compare(
    workloads: Sequence[str], pairs: int | None, sides: tuple[Path, Path], revision: str, folder: Path
) -> list[Row]:
    """Measure both sides, given by their interpreters: the revision's, the checkout's. Keep all in ``compare.json``."""
    adopt_orphans()
    room = folder / "room"
    record: dict[str, object] = {"revision": revision, "checkout": described_commit(), "measurements": {}}
    measured: dict[str, dict[str, list[dict[str, object]]]] = {}
    rows = []
    try:
        for name in workloads:
            warm = WORKLOADS[name] if name == "W7" else _smaller(WORKLOADS[name])
            for interpreter in sides:
                turn(warm, CONTENDERS["nbrun"], 0, room, interpreter)
            runs: tuple[list[Measurement], list[Measurement]] = ([], [])
            for number, side in order(pairs or PAIRS[name]):
                one = turn(WORKLOADS[name], CONTENDERS["nbrun"], number, room, sides[side])
                assert one is not None
                runs[side].append(one)
                print(".", end="", file=sys.stderr, flush=True)
            rows.append(row_of(name, *runs))
            print(f" {line(rows[-1])}", file=sys.stderr, flush=True)
            both = zip(("revision", "checkout"), runs, strict=True)
            measured[name] = {side: [asdict(one) for one in rounds] for side, rounds in both}
            record["measurements"] = measured
            (folder / "compare.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return rows


def _smaller(workload: Workload) -> Workload:
    """Return a batch of two for a batch of forty; the warm-up only has to read every module once."""
    if workload.copies == 1:
        one = WORKLOADS["W1"]
        return Workload("W1", "", one.sources, one.check)
    return Workload(workload.name, "", workload.sources, workload.check, 2)


def line(row: Row) -> str:
    """Return a row as text: seconds before and after, their ratio and its noise, and the verdict."""
    told = "   ".join(
        f"{one.name} {median(one.before):.2f} → {median(one.after):.2f} s, {one.ratio:.3f} ± {one.noise:.3f}"
        for one in row.quantities
    )
    slower = ", ".join(one.name for one in row.quantities if one.verdict == SLOWER)
    why = row.failure or (slower if row.verdict == SLOWER else "")
    return f"{row.workload:3} {told}   {row.verdict}{f': {why}' if why else ''}"
