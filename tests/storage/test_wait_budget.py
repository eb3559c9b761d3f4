"""Requests to stores are limited in time, and stores that do not answer share one budget."""

import contextlib
import threading

import pytest

from nbrun.storage.objects import Unanswered, in_thread
from nbrun.storage.wait_budget import WaitBudget


class Budget(WaitBudget):
    """A budget of 12 s, with a clock that requests move."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(12, short=2, pause=10, clock=lambda: self.now)

    def fail(self, url: str, seconds: float) -> None:
        """Do a request that fails after these seconds."""
        with contextlib.suppress(TimeoutError), self.measure(url):
            self.now += seconds
            raise TimeoutError


def test_a_silent_store_is_asked_again_for_a_short_time_and_then_every_ten_seconds() -> None:
    budget = Budget()
    assert budget.limit_for("s3://a/reports") == 12
    budget.fail("s3://a/reports", 12)
    assert (budget.limit_for("s3://a/other"), budget.spent) == (2, 12)
    budget.fail("s3://a", 2)
    assert budget.limit_for("s3://a") == 0
    budget.now += 10
    assert budget.limit_for("s3://a") == 2
    budget.fail("s3://a", 2)
    assert (budget.limit_for("s3://a"), budget.spent) == (0, 16)
    with budget.measure("s3://a"):  # it answers
        pass
    assert (budget.limit_for("s3://a"), budget.spent) == (12, 0)


def test_other_stores_have_what_silent_ones_left() -> None:
    budget = Budget()
    budget.fail("s3://a", 5)
    assert (budget.limit_for("s3://b"), budget.limit_for("site")) == (7, 7)
    budget.fail("s3://b", 7)
    assert (budget.limit_for("https://c/x"), budget.spent) == (2, 12)


def test_requests_at_the_same_time_count_once_and_quick_errors_do_not_count() -> None:
    budget = Budget()
    budget.fail("s3://a", 0.9)
    assert (budget.limit_for("s3://a"), budget.spent) == (12, 0)
    with contextlib.suppress(TimeoutError), budget.measure("s3://a/1"), budget.measure("s3://a/2"):
        budget.now += 12
        raise TimeoutError
    assert (budget.limit_for("s3://a"), budget.spent) == (2, 12)


async def test_requests_of_a_block_use_its_budget() -> None:
    over, asked = threading.Event(), []

    def work() -> None:
        asked.append(1)
        over.wait()

    with WaitBudget(0.2, short=0.1).shared() as budget:
        for said in ("did not answer within 0 s", "did not answer within 0 s", "the store does not answer"):
            with pytest.raises(Unanswered, match=f"s3://a/x: .*{said}"):
                await in_thread("s3://a/x", work)
    assert (len(asked), 0.3 <= budget.spent < 5) == (2, True)
    over.set()
    await in_thread("s3://a/x", work)  # after the block, without the budget
