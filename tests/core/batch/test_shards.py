"""The rules of ``nbrun merge``: which results belong together, and what comes of them."""

from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.core.batch.shards import Merged, ShardFile, is_batch, is_shard, merge, read_shard, why_not_started
from nbrun.core.results import BatchResult, CellOutcome, CellResult, NotebookResult, Outcome, Part, Problem
from nbrun.errors import ExitCode, UsageError


def a_run(name: str, outcome: Outcome = Outcome.PASSED) -> NotebookResult:
    cells = [CellResult(0, "a", CellOutcome.PASSED, 1, 0.1, number=1)]
    return NotebookResult("1.0", name, f"out/{name}", "python3", outcome, "2026-01-01T00:00:01+00:00", 1.0, cells)


def a_shard(number: int, *positions: int, total: int = 2, size: int = 4, **changes: Any) -> ShardFile:
    names = [f"{position}.ipynb" for position in positions]
    part = Part(number, total, changes.pop("batch", "abc"), size, positions, names)
    started = f"2026-01-01T00:00:0{number}.000+00:00"
    left_out = 1 + size - len(positions)  # one notebook is skipped in all shards
    batch = BatchResult("1.0", started, 5.0, [*map(a_run, names)], left_out, shard=part)
    batch = replace(batch, **changes)
    return read_shard(f"{number}.json", batch.as_dict())


def test_the_runs_of_all_shards_are_in_the_order_of_the_whole_batch() -> None:
    merged = merge([a_shard(2, 3, 1), a_shard(1, 0, 2)], {})
    assert [run.name for run in merged.runs] == ["0.ipynb", "1.ipynb", "2.ipynb", "3.ipynb"]
    assert [run.source for run in merged.runs] == ["1.json", "2.json", "1.json", "2.json"]
    assert [run.path for run in merged.batch.runs] == [run.name for run in merged.runs]
    batch = merged.batch
    assert (batch.started, batch.seconds, batch.left_out) == ("2026-01-01T00:00:01.000+00:00", 6.0, 1)
    assert (batch.problem, batch.shard, batch.exit_code) == (None, None, ExitCode.OK)


def test_the_exit_code_is_the_most_severe_of_all_shards() -> None:
    runs = [a_run("0.ipynb"), a_run("2.ipynb", Outcome.KERNEL_DIED)]
    assert merge([a_shard(1, 0, 2, runs=runs), a_shard(2, 1, 3)], {}).batch.exit_code is ExitCode.KERNEL


def test_a_batch_whose_notebooks_are_all_left_out_is_merged_too() -> None:
    merged = merge([a_shard(1, size=0), a_shard(2, size=0)], {})
    assert merged == Merged(BatchResult("1.0", "2026-01-01T00:00:01.000+00:00", 6.0, [], 1), [])
    assert merged.batch.exit_code is ExitCode.OK


def test_a_shard_without_notebooks_is_no_missing_one() -> None:
    merged = merge([a_shard(1, 0, total=3, size=1), a_shard(3, total=3, size=1), a_shard(2, total=3, size=1)], {})
    assert [run.name for run in merged.runs] == ["0.ipynb"]
    assert (merged.batch.problem, merged.batch.exit_code) == (None, ExitCode.OK)
    assert merged.batch.left_out == 1


def test_times_are_compared_across_time_zones() -> None:
    east = a_shard(1, 0, 2, started="2026-01-01T02:00:00+02:00")
    assert merge([east, a_shard(2, 1, 3)], {}).batch.started == east.result.started


def test_missing_shards_are_named_and_the_exit_code_is_4() -> None:
    two = merge([a_shard(2, 1, total=3)], {"1.json": "no such server"}).batch
    assert two.problem == Problem(
        "shards 1, 3 of 3 are missing",
        "Look at the log of that job. Run it again with --shard 1/3, and merge again. 1.json: no such server.",
    )
    assert two.exit_code is ExitCode.SERVER
    one = merge([a_shard(2, 1), ], {}).batch  # fmt: skip
    assert one.problem is not None
    assert one.problem.message == "shard 1 of 2 is missing"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (a_shard(1, 1, 3), "1.json and 1.json: both are shard 1"),
        (a_shard(2, 1, 3, total=3), "1.json and 2.json: a shard of 2 and one of 3"),
        (a_shard(2, 1, 3, version="2.0"), "1.json and 2.json: of nbrun 1.0 and 2.0"),
        (a_shard(2, 1, 3, batch="def"), "1.json and 2.json: results of different batches"),
        (a_shard(2, 1, 3, size=5), "1.json and 2.json: results of different batches"),
        (a_shard(2, 1, 2), "1.json and 2.json: both have 2.ipynb"),
        (a_shard(2, 1), "the shards have 3 of the 4 runs of the batch"),
        (a_shard(2), "the shards have 2 of the 4 runs of the batch"),
    ],
)
def test_shards_that_do_not_belong_together_are_refused(other: ShardFile, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        merge([a_shard(1, 0, 2), other], {})
    assert str(caught.value) == message
    assert caught.value.hint


GOOD = BatchResult("1.0", "2026-01-01T00:00:01+00:00", 1.0, [a_run("a.ipynb")], 1, shard=Part(1, 2, "k", 2, [0], ["a"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "f.json: not the result of a batch"),
        (a_run("a.ipynb").as_dict(), "f.json: not the result of a batch"),
        (GOOD.as_dict() | {"shard": None}, "f.json: the result of a batch without --shard"),
        (GOOD.as_dict() | {"shard": {}}, "f.json: not a result that this nbrun can read: 'number' is missing"),
        (GOOD.as_dict() | {"shard": [1, 3]}, "f.json: not a result that this nbrun can read: list indices"),
        (GOOD.as_dict() | {"runs": [{}]}, "f.json: not a result that this nbrun can read: not the result of a run: K"),
        (GOOD.as_dict() | {"started": "today"}, "f.json: not a result that this nbrun can read: Invalid isoformat"),
        (GOOD.as_dict() | {"started": "2026-01-01T00:00:01"}, "read: the start has no time zone"),
        (GOOD.as_dict() | {"left_out": None}, "read: int() argument"),
        (replace(GOOD, shard=Part(3, 2, "k", 2, [0], ["a"])).as_dict(), "read: shard 3 of 2"),
        (replace(GOOD, shard=Part(1, 2, "k", 2, [2], ["a"])).as_dict(), "read: a position is beyond the batch"),
        (replace(GOOD, shard=Part(1, 2, "k", 2, [0], [])).as_dict(), "read: the shard does not name each run"),
    ],
)
def test_what_is_no_result_of_a_shard_is_refused(content: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_shard("f.json", content)
    assert message in str(caught.value)


def test_a_job_that_could_not_start_says_why() -> None:
    failed = BatchResult("1.0", "2026-01-01", 0.0, problem=Problem("no such server"), failure=ExitCode.SERVER)
    assert is_batch(failed.as_dict())
    assert why_not_started(failed.as_dict()) == "no such server"
    assert why_not_started(GOOD.as_dict()) == why_not_started(replace(failed, problem=None).as_dict()) == ""


@pytest.mark.parametrize("content", [None, [], {}, "text", 1.5, {"runs": []}, {"problem": {"message": "x"}}])
def test_other_json_is_no_result_and_no_failed_job(content: Any) -> None:
    assert not is_batch(content)
    assert not is_shard(content)
    assert why_not_started(content) == ""
