"""Interval saves are frequent but stay within their share of the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.runner.autosave import EVERY, MUCH, SHARE, SOON, SPEED, Pacing


def test_the_first_save_is_due_after_the_usual_pause() -> None:
    assert Pacing(100.0).due(0) == 100.0 + EVERY


def test_much_output_is_saved_sooner() -> None:
    pacing = Pacing(100.0)
    assert pacing.due(MUCH) == pytest.approx(100.0 + max(SOON, MUCH / SPEED / SHARE))
    assert pacing.due(MUCH) < pacing.due(MUCH - 1)


def test_the_pause_that_was_asked_for_counts_from_the_end_of_the_last_save() -> None:
    pacing = Pacing(100.0, every=7.0)
    pacing.saved(200.0, 200.1)
    assert pacing.due(0) == pytest.approx(207.1)


def test_a_save_that_took_long_puts_the_next_one_off() -> None:
    pacing = Pacing(100.0, every=1.0)
    pacing.saved(200.0, 210.0)
    assert pacing.due(0) == pytest.approx(100.0 + 20.0 / SHARE)


@given(st.floats(0.001, 100.0), st.lists(st.floats(0.0, 50.0), min_size=1, max_size=50), st.integers(0, 10**9))
def test_whatever_the_saves_cost_they_took_no_more_than_their_share_when_one_is_due(
    every: float, costs: list[float], unsaved: int
) -> None:
    pacing = Pacing(0.0, every)
    for cost in costs:
        due = pacing.due(unsaved)
        assert pacing.spent <= SHARE * due * 1.000001
        pacing.saved(due, due + cost)
