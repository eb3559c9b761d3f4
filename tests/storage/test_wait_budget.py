"""Requests to stores are limited in time, and stores that do not answer share one budget."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

import nbrun
from nbrun.storage.object_stores.base import Unanswered, in_thread
from nbrun.storage.object_stores.web_server import HttpStore
from nbrun.storage.wait_budget import WaitBudget, current_budget
from tests.support.notebooks import notebook, write_notebook


class Budget(WaitBudget):
    """A budget of 16 s, with a clock that requests move."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(16, short=2, pause=10, clock=lambda: self.now)

    def fail(self, url: str, seconds: float, error: type[Exception] = TimeoutError) -> None:
        """Do a request that fails after these seconds."""
        with contextlib.suppress(error), self.measure(url):
            self.now += seconds
            raise error


def test_a_silent_store_is_asked_again_for_a_short_time_and_then_every_ten_seconds() -> None:
    budget = Budget()
    assert budget.limit_for("s3://a/reports") == 12
    budget.fail("s3://a/reports", 12)
    assert (budget.limit_for("s3://a/other"), budget.spent) == (1, 12)
    budget.fail("s3://a", 1)
    assert budget.limit_for("s3://a") == 0
    budget.now += 10
    assert budget.limit_for("s3://a") == 0.75
    budget.fail("s3://a", 2)
    assert (budget.limit_for("s3://a"), budget.spent) == (0, 15)
    with budget.measure("s3://a"):  # it answers
        pass
    assert (budget.limit_for("s3://a"), budget.spent) == (12, 0)


def test_other_stores_have_a_part_of_what_silent_ones_left() -> None:
    budget = Budget()
    budget.fail("s3://a", 4)
    assert (budget.limit_for("s3://b"), budget.limit_for("site")) == (9, 9)
    budget.fail("s3://b", 12)
    assert (budget.limit_for("https://c/x"), budget.spent) == (1, 16)


@pytest.mark.parametrize(("number", "most"), [(1, 13), (2, 17), (4, 20), (6, 23)])
def test_many_silent_stores_cost_hardly_more_than_one(number: int, most: int) -> None:
    budget = Budget()
    for store in range(number):
        while limit := budget.limit_for(f"s3://{store}"):
            assert limit >= 0.5
            budget.fail(f"s3://{store}", limit)
    assert budget.now == budget.spent <= most


def test_a_store_that_answered_some_time_ago_may_have_stopped() -> None:
    budget = Budget()
    assert not budget.has_answered("s3://a/x")
    with budget.measure("s3://a"):
        pass
    assert (budget.has_answered("s3://a/x"), budget.has_answered("s3://b")) == (True, False)
    budget.now += 10
    assert not budget.has_answered("s3://a")


def test_requests_at_the_same_time_count_once_and_quick_errors_do_not_count() -> None:
    budget = Budget()
    budget.fail("s3://a", 0.9, ConnectionError)
    assert (budget.limit_for("s3://a"), budget.spent) == (12, 0)
    with contextlib.suppress(TimeoutError), budget.measure("s3://a/1"), budget.measure("s3://a/2"):
        budget.now += 12
        raise TimeoutError
    assert (budget.limit_for("s3://a"), budget.spent) == (1, 12)


async def test_requests_of_a_block_use_its_budget() -> None:
    over, asked = threading.Event(), []

    def work() -> None:
        asked.append(1)
        over.wait()

    with WaitBudget(0.4, short=0.2).shared() as budget:
        for said in ("did not answer within 0 s", "did not answer within 0 s", "the store does not answer"):
            with pytest.raises(Unanswered, match=f"s3://a/x: .*{said}"):
                await in_thread("s3://a/x", work)
    assert (len(asked), 0.3 <= budget.spent < 5) == (2, True)
    over.set()
    await in_thread("s3://a/x", work)  # after the block, without the budget


async def test_a_store_that_reads_nothing_has_no_time_for_large_data() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and reads and writes nothing
        store = HttpStore(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with WaitBudget(0.4, short=0.2).shared() as budget, pytest.raises(Unanswered, match="did not answer"):
            await store.put("page.html", bytes(20_000_000))
    assert budget.spent < 20


def test_a_call_from_python_has_one_budget_for_all_stores(tmp_path: Path) -> None:
    budgets = list[WaitBudget | None]()

    def observe(_: object) -> None:
        budgets.append(current_budget())

    write_notebook(tmp_path / "a.ipynb", notebook("1"))
    nbrun.run(tmp_path / "a.ipynb", output=tmp_path / "out.ipynb", prepare_only=True, observe=observe)
    first = len(budgets)
    nbrun.run_many([tmp_path / "a.ipynb"], output=tmp_path / "out", prepare_only=True, observe=observe)
    assert len({*budgets[:first]} - {None}) == len({*budgets[first:]} - {None}) == 1
    assert None not in budgets
    assert budgets[0] is not budgets[-1]
