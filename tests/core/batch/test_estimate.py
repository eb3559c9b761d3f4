"""How long a batch still takes."""

from nbrun.core.batch.estimate import time_left


def test_nothing_is_known_before_the_first_run_has_finished() -> None:
    assert time_left([], [3.0], 4) is None


def test_what_waits_and_what_runs_is_taken_for_average_and_shared_by_those_that_run_at_once() -> None:
    assert time_left([10.0, 20.0], [5.0, 100.0], 4) == (10.0 + 0.0 + 60.0) / 2
    assert time_left([10.0], [], 0) == 0.0
