"""Records of published runs: their JSON, their order, and what is no record."""

import asyncio
from pathlib import Path

import pytest

from nbrun.publishing.history import PublishedHistory, RunRecord, StoredFile, Value, latest_of, new_run_id, run_of
from nbrun.storage.object_store import FolderStore
from tests.publishing.histories import FAILED, FIRST, record


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
