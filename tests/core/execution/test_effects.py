"""Clocks strike at their time, the most pressing first."""

import math

import pytest

from nbrun.core.execution.effects import Timer, Timers


def timers(**at: float) -> Timers:
    made = Timers()
    for name, seconds in at.items():
        made.set(Timer[name], 0.0, seconds)
    return made


def test_the_next_point_in_time_is_the_earliest() -> None:
    assert timers().next is None
    assert timers(CELL=5, RUN=3).next == 3


def test_nothing_strikes_before_its_time() -> None:
    assert timers(CELL=5).strike(4.9) is None


def test_a_clock_strikes_once() -> None:
    made = timers(CELL=5)
    assert [made.strike(5.0), made.strike(5.0)] == [Timer.CELL, None]


def test_of_clocks_that_strike_together_the_most_pressing_comes_first() -> None:
    made = timers(DRAIN=1, CELL=3, RUN=5, ESCALATE=5)
    assert [made.strike(5.0) for _ in range(5)] == [Timer.ESCALATE, Timer.RUN, Timer.CELL, Timer.DRAIN, None]


@pytest.mark.parametrize("seconds", [None, math.inf], ids=["none", "infinity"])
def test_no_limit_stops_a_clock(seconds: float | None) -> None:
    made = timers(CELL=5)
    made.set(Timer.CELL, 1.0, seconds)
    assert made.next is None
    made.set(Timer.RUN, 1.0, seconds)
    assert made.next is None


def test_a_clock_that_is_set_again_forgets_its_old_time() -> None:
    made = timers(SILENCE=5)
    made.set(Timer.SILENCE, 4.0, 5.0)
    assert made.next == 9.0


def test_clocks_can_be_stopped_whether_or_not_they_run() -> None:
    made = timers(CELL=5, RUN=7)
    made.drop(Timer.CELL, Timer.FENCE)
    assert made.next == 7.0
