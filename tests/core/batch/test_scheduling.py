"""Shards, order, early end and retries of batches."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.batch.scheduling import Durations, Policy, batch_key, in_shard, run_key, slowest_first, time_left
from nbrun.core.batch.terms import Cause, Shard
from nbrun.core.results import BatchResult, CellOutcome, CellResult, NotebookResult, Outcome
from nbrun.errors import UsageError


def result(outcome: Outcome, notebook: str = "a", seconds: float = 1.0, *, cached: bool = False) -> NotebookResult:
    return NotebookResult("", notebook, None, None, outcome, "", seconds, cached=cached)


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (Outcome.KERNEL_DIED, True),
        (Outcome.SERVER_FAILED, True),
        (Outcome.FAILED, False),
        (Outcome.TIMED_OUT, False),
        (Outcome.PASSED, False),
        (Outcome.INTERRUPTED, False),
    ],
)
def test_only_what_was_no_cells_fault_is_tried_again_unless_said(outcome: Outcome, again: bool) -> None:
    assert Policy(retries=1).tries_again(result(outcome), 1) is again
    assert not Policy(retries=0).tries_again(result(outcome), 1)
    assert not Policy(retries=1).tries_again(result(outcome), 2)


def test_a_cells_error_is_tried_again_where_it_is_asked_for() -> None:
    policy = Policy(retries=2, retry_on=[Cause.CELL])
    assert policy.tries_again(result(Outcome.FAILED), 2)
    assert not policy.tries_again(result(Outcome.KERNEL_DIED), 1)


def test_a_run_of_which_only_the_save_failed_is_not_executed_again() -> None:
    def rescued(*outcomes: CellOutcome) -> NotebookResult:
        cells = [CellResult(index, None, outcome) for index, outcome in enumerate(outcomes)]
        return replace(result(Outcome.SERVER_FAILED), rescued=True, cells=cells)

    policy = Policy(retries=1)
    assert not policy.tries_again(rescued(CellOutcome.PASSED, CellOutcome.SKIPPED), 1)
    assert policy.tries_again(rescued(CellOutcome.PASSED, CellOutcome.NOT_RUN), 1)
    assert policy.tries_again(rescued(CellOutcome.INTERRUPTED), 1)
    assert policy.tries_again(rescued(), 1)


def test_a_lost_seat_is_repeated_once_and_is_no_retry() -> None:
    lost, policy = result(Outcome.SEAT_LOST), Policy()
    assert policy.tries_again(lost, 1, losses=1)
    assert not policy.tries_again(lost, 2, losses=2)
    assert not Policy(retries=5).tries_again(lost, 2, losses=2)
    assert not Policy(retry_on=[Cause.KERNEL]).tries_again(lost, 1, losses=1)
    assert Policy(retries=1).tries_again(result(Outcome.KERNEL_DIED), 2, losses=1)
    assert not Policy(retries=1).tries_again(result(Outcome.KERNEL_DIED), 3, losses=1)


def test_a_seat_that_was_taken_away_in_an_orderly_way_is_no_loss_of_the_run() -> None:
    lost, policy = result(Outcome.SEAT_LOST), Policy()
    assert policy.tries_again(lost, 3, losses=3, retirements=2)
    assert not policy.tries_again(lost, 4, losses=4, retirements=2)
    assert not policy.tries_again(lost, 5, losses=5, retirements=5)


def test_a_shard_is_read() -> None:
    assert Shard.parse("2/3") == Shard(2, 3)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", ""])
def test_what_is_no_shard_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="no part of a whole"):
        Shard.parse(text)


@given(
    st.lists(st.text(max_size=5), unique=True, max_size=30),
    st.dictionaries(st.text(max_size=5), st.floats(0.01, 1000), max_size=30),
    st.integers(1, 5),
)
def test_every_run_is_in_exactly_one_shard(keys: list[str], seconds: dict[str, float], total: int) -> None:
    durations = Durations(seconds)
    shards = [in_shard(keys, Shard(number, total), durations) for number in range(1, total + 1)]
    assert sorted(place for shard in shards for place in shard) == list(range(len(keys)))
    assert all(shard == sorted(shard) for shard in shards)


def test_shards_are_balanced_by_what_runs_took() -> None:
    keys = ["long", *(f"short{number}" for number in range(10))]
    durations = Durations({"long": 10.0} | dict.fromkeys(keys[1:], 1.0))
    first, second = (in_shard(keys, Shard(number, 2), durations) for number in (1, 2))
    assert sorted([len(first), len(second)]) == [1, 10]


def test_shards_without_durations_have_as_many_runs_each() -> None:
    keys = [f"{number}.ipynb" for number in range(9)]
    assert [len(in_shard(keys, Shard(number, 3), Durations())) for number in (1, 2, 3)] == [3, 3, 3]
    assert in_shard(keys[::-1], Shard(1, 3), Durations()) == sorted(
        8 - place for place in in_shard(keys, Shard(1, 3), Durations())
    )


def test_the_slowest_begin_first_and_the_unknown_before_them() -> None:
    assert slowest_first(["a", "b", "c"], Durations({"a": 1.0, "c": 5.0})) == [1, 2, 0]


def test_durations_are_read_from_results_of_one_and_of_many_and_from_their_own_file() -> None:
    one = result(Outcome.PASSED, "a", 2.0).as_dict()
    many = BatchResult("", "", 0.0, [result(Outcome.FAILED, "b", 3.0), result(Outcome.NOT_RUN, "c", 4.0)]).as_dict()
    assert Durations.read(one).seconds == {"a": 2.0}
    assert Durations.read(many).seconds == {"b": 3.0}
    assert Durations.read(result(Outcome.PASSED, cached=True).as_dict()).seconds == {}
    assert Durations.read(Durations({"x": 1.5}).as_dict()).seconds == {"x": 1.5}
    assert Durations.read("nonsense").seconds == Durations.read({"durations": {"a": "long"}}).seconds == {}


def test_durations_go_on_with_what_was_really_run() -> None:
    ran = [
        result(Outcome.PASSED, "a", 2.0),
        result(Outcome.NOT_RUN, "b", 9.0),
        result(Outcome.PASSED, "c", 9.0, cached=True),
    ]
    assert Durations({"a": 1.0, "b": 1.0, "c": 1.0}).updated(ran).seconds == {"a": 2.0, "b": 1.0, "c": 1.0}


def test_what_was_only_prepared_took_no_time_of_its_own() -> None:
    assert Durations({"a": 3.0}).updated([result(Outcome.PREPARED, seconds=0.1)]).seconds == {"a": 3.0}


def test_a_runs_key_is_the_same_however_its_parameters_are_ordered() -> None:
    assert run_key("a.ipynb", {}) == "a.ipynb"
    assert run_key("a.ipynb", {"x": 1, "y": 2}) == run_key("a.ipynb", {"y": 2, "x": 1}) != run_key("a.ipynb", {"x": 1})


def test_nothing_is_known_before_the_first_run_has_finished() -> None:
    assert time_left([], [3.0], 4) is None


def test_what_waits_and_what_runs_is_taken_for_average_and_shared_by_those_that_run_at_once() -> None:
    assert time_left([10.0, 20.0], [5.0, 100.0], 4) == (10.0 + 0.0 + 60.0) / 2
    assert time_left([10.0], [], 0) == 0.0


def test_batches_of_other_runs_or_in_another_order_have_other_keys() -> None:
    assert batch_key(["a", "b"]) == batch_key(("a", "b"))
    assert len({batch_key(keys) for keys in ([], ["a"], ["a", "b"], ["b", "a"], ["ab"])}) == 5
