"""The order of the tests for several processes."""

import pytest

from tests.support.shares import in_shares

MODULES = [["a1"], ["b1", "b2", "b3"], ["c1", "c2"], ["slow"]]
COSTS = {"slow": 20.0}
SHORT = [f"u{number}" for number in range(7)]


def order(processes: int, short: list[str] = SHORT) -> list[str]:
    return in_shares(MODULES, short, lambda test: COSTS.get(test, 1.0), processes)


def test_each_share_begins_with_whole_modules_of_about_the_same_cost_and_ends_with_short_tests() -> None:
    assert order(2) == ["slow", *SHORT[:6], "b1", "b2", "b3", "c1", "c2", "a1", *SHORT[6:]]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("short", [[], SHORT], ids=["none is short", "some are short"])
def test_no_test_is_lost_or_run_twice(processes: int, short: list[str]) -> None:
    assert sorted(order(processes, short)) == sorted(["a1", "b1", "b2", "b3", "c1", "c2", "slow", *short])
