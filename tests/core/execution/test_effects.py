"""Timers expire at their time, the most urgent first."""

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
    assert timers(CELL_TIMEOUT=5, RUN_TIMEOUT=3).next == 3


def test_nothing_expires_before_its_time() -> None:
    assert timers(CELL_TIMEOUT=5).expired(4.9) is None


def test_a_timer_expires_once() -> None:
    made = timers(CELL_TIMEOUT=5)
    assert [made.expired(5.0), made.expired(5.0)] == [Timer.CELL_TIMEOUT, None]


def test_of_timers_that_expire_together_the_most_urgent_comes_first() -> None:
    made = timers(DRAIN=1, CELL_TIMEOUT=3, RUN_TIMEOUT=5, ESCALATE=5)
    assert [made.expired(5.0) for _ in range(5)] == [
        Timer.ESCALATE,
        Timer.RUN_TIMEOUT,
        Timer.CELL_TIMEOUT,
        Timer.DRAIN,
        None,
    ]


@pytest.mark.parametrize("seconds", [None, math.inf], ids=["none", "infinity"])
def test_no_limit_stops_a_timer(seconds: float | None) -> None:
    made = timers(CELL_TIMEOUT=5)
    made.set(Timer.CELL_TIMEOUT, 1.0, seconds)
    assert made.next is None
    made.set(Timer.RUN_TIMEOUT, 1.0, seconds)
    assert made.next is None


def test_a_timer_that_is_set_again_forgets_its_old_time() -> None:
    made = timers(IDLE_TIMEOUT=5)
    made.set(Timer.IDLE_TIMEOUT, 4.0, 5.0)
    assert made.next == 9.0


def test_timers_can_be_stopped_whether_or_not_they_run() -> None:
    made = timers(CELL_TIMEOUT=5, RUN_TIMEOUT=7)
    made.drop(Timer.CELL_TIMEOUT, Timer.BARRIER)
    assert made.next == 7.0
