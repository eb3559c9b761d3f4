"""A workload counts as slower only beyond the tolerance and the noise of the pairs."""

import pytest

from benchmarks.compare import FAILED, FASTER, LEAST, PAIRS, SAME, SLOWER, USUAL, Quantity, line, order, outside, row_of
from benchmarks.results import Measurement
from benchmarks.workloads import WORKLOADS

QUIET = [1.00, 1.01, 0.99, 1.00, 1.01, 0.99]
LOUD = [1.0, 1.4, 0.8, 1.3, 0.9, 1.2]


def scaled(values: list[float], factor: float) -> list[float]:
    """Return the values in reverse order, so that the pairs differ as the values do."""
    return [value * factor for value in reversed(values)]


@pytest.mark.parametrize(
    ("values", "factor", "verdict"),
    [
        (QUIET, 1.00, SAME),
        (QUIET, 1.02, SAME),
        (QUIET, 1.08, SLOWER),
        (QUIET, 0.90, FASTER),
        (LOUD, 1.08, SAME),
        (LOUD, 2.50, SLOWER),
    ],
)
def test_a_difference_counts_beyond_three_per_cent_and_the_noise(
    values: list[float], factor: float, verdict: str
) -> None:
    assert Quantity("wall", values, scaled(values, factor)).verdict == verdict


def test_one_outlier_neither_makes_nor_hides_a_difference() -> None:
    many = QUIET * 2
    assert Quantity("wall", many, [*many[:-1], 9.0]).verdict == SAME
    assert Quantity("wall", many, [*scaled(many, 1.1)[:-1], 9.0]).verdict == SLOWER


def test_times_with_two_peaks_are_not_taken_for_a_difference() -> None:
    """CPU seconds of five pairs of the same code on a machine with a load of nine."""
    before, after = [2.99, 3.48, 2.94, 3.02, 5.25], [3.82, 3.91, 2.93, 4.01, 2.93]
    assert Quantity("CPU", before, after).verdict == SAME


@pytest.mark.parametrize(("count", "left_out"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (20, 5)])
def test_more_pairs_allow_a_narrower_interval(count: int, left_out: int) -> None:
    """The numbers are those of a two-sided sign test at 5 %."""
    assert outside(count) == left_out


def measured(wall: float, cpu: float, failure: str = "") -> list[Measurement]:
    return [
        Measurement("W1", "nbrun", number, wall * one, cpu * one, 1, 1, failure) for number, one in enumerate(QUIET)
    ]


@pytest.mark.parametrize(
    ("after", "verdict", "words"),
    [
        (measured(1.0, 2.0), SAME, "no difference"),
        (measured(1.0, 3.0), SLOWER, "slower: CPU"),
        (measured(0.5, 3.0), SLOWER, "slower: CPU"),
        (measured(0.5, 2.0), FASTER, "faster"),
        (measured(0.1, 0.1, "7 of 9 lines"), FAILED, "failed: checkout: 7 of 9 lines"),
    ],
    ids=["same", "cpu", "faster but more cpu", "faster", "fast because it loses"],
)
def test_a_row_is_slower_if_time_or_cpu_is(after: list[Measurement], verdict: str, words: str) -> None:
    row = row_of("W1", measured(1.0, 2.0), after)
    assert row.verdict == verdict
    assert line(row).endswith(words)


def test_the_order_within_the_pairs_alternates() -> None:
    assert list(order(3)) == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]


def test_each_workload_has_enough_pairs_to_see_the_noise() -> None:
    assert set(PAIRS) == set(WORKLOADS) - {"help"} > set(USUAL)
    assert min(PAIRS.values()) >= LEAST
