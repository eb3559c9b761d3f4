"""Records of published runs: their JSON, their order, and what is no record."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from nbrun.core.batch.terms import Keep
from nbrun.publishing.history import (
    PublishedHistory,
    RunRecord,
    StoredFile,
    Value,
    expired,
    latest_of,
    new_run_id,
    run_of,
)
from nbrun.storage.object_stores.folder import FolderStore
from tests.publishing.histories import FAILED, FIRST, night, record


def test_a_record_survives_its_json() -> None:
    value = Value("a/0", "amount", "1,000")
    full = record(3, scheduled=1, values=[value], texts=[value], files=(StoredFile("index.html", 3, "abc"),))
    assert RunRecord.decoded(full.encoded()) == full


def test_a_record_with_unknown_fields_is_read() -> None:
    data = record(3).encoded().replace(b'"report"', b'"later":[1],"report"', 1)
    assert RunRecord.decoded(data) == record(3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        record(3).encoded().replace(b"000003", b"../../x"),
        record(3).encoded().replace(b"2026-11-04T06", b"soon"),
        record(3).encoded().replace(b'"notebooks":[', b'"notebooks":[3,'),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a record of a run"):
        RunRecord.decoded(data)


def test_runs_are_ordered_by_the_time_that_they_are_for(tmp_path: Path) -> None:
    runs = [record(0), record(5, scheduled=1), record(2), record(3, FAILED), record(4, retired=True)]
    store = FolderStore(tmp_path)

    async def read() -> list[RunRecord]:
        for run in runs:
            await store.put(f"sales/{run.run_id}/run.json", run.encoded())
        return await PublishedHistory(store).records("sales")

    found = asyncio.run(read())
    assert [run.start.day - 1 for run in found] == [3, 2, 5, 0]
    latest = latest_of(found)
    assert latest is not None
    assert latest.start.day - 1 == 2


def test_a_record_that_is_damaged_or_in_another_place_is_named_and_left_out(tmp_path: Path) -> None:
    store, good, moved = FolderStore(tmp_path), record(0), record(1)
    keys = [f"sales/{good.run_id}/run.json", f"other/{moved.run_id}/run.json", f"other/{good.run_id}/run.json"]

    async def read() -> PublishedHistory:
        for key, data in zip(keys, [good.encoded(), moved.encoded(), b"{"], strict=True):
            await store.put(key, data)
        history = PublishedHistory(store)
        assert await history.records("sales") == [good]
        assert await history.records("other") == []
        assert await history.reports() == {"other": [moved.run_id, good.run_id], "sales": [good.run_id]}
        return history

    assert sorted(asyncio.run(read()).unreadable) == sorted(keys[1:])


@pytest.mark.parametrize(
    "key", ["run.json", "sales/run.json", "sales/latest/run.json", "a/b/20261101T060000Z-abcdef/run.json"]
)
def test_the_key_of_another_object_is_no_run(key: str) -> None:
    assert run_of(key) is None


def test_run_ids_begin_with_the_start_and_differ() -> None:
    assert run_of(f"sales/{new_run_id(FIRST)}/run.json")
    assert len({new_run_id(FIRST) for _ in range(20)}) > 1
    assert new_run_id(FIRST).startswith("20261101T060000Z-")


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
