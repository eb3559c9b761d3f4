"""Which published runs are deleted."""

from datetime import timedelta

import pytest

from nbrun.core.batch.terms import Keep
from nbrun.publishing.history import RunRecord
from nbrun.publishing.retention import expired
from tests.publishing.histories import FAILED, night, record

DAY = 86400.0


def nights(*outcomes: str) -> list[RunRecord]:
    return [record(number, outcome) for number, outcome in enumerate(outcomes)][::-1]


@pytest.mark.parametrize(
    ("outcomes", "keep", "gone"),
    [
        ("pppp", Keep(), []),
        ("pppp", Keep(runs=2), [1, 0]),
        ("pppp", Keep(seconds=2.5 * DAY), [0]),
        ("pppp", Keep(runs=3, seconds=1.5 * DAY), [1, 0]),
        ("pppp", Keep(runs=1, seconds=10 * DAY), [2, 1, 0]),
        ("pfff", Keep(runs=1), [2, 1]),
        ("pfff", Keep(seconds=0.5 * DAY), [2, 1]),
        ("ffff", Keep(runs=1), [2, 1, 0]),
    ],
)
def test_old_runs_are_deleted_except_the_newest_passed_one(outcomes: str, keep: Keep, gone: list[int]) -> None:
    runs = nights(*("passed" if letter == "p" else FAILED for letter in outcomes))
    now = night(len(runs) - 1) + timedelta(hours=1)
    assert [run.start.day - 1 for run in expired(runs, keep, now)] == gone


def test_the_latest_run_is_kept_even_if_it_failed() -> None:
    runs = [record(1), record(0, FAILED, scheduled=2, promotes=True)]
    runs.sort(key=lambda run: run.position, reverse=True)
    assert expired(runs, Keep(seconds=1), night(50)) == []


def test_the_age_of_a_run_that_is_made_up_for_counts_from_its_start() -> None:
    runs = [record(30), record(29, scheduled=0)]
    assert expired(runs, Keep(seconds=5 * DAY), night(30)) == []
