"""Publishers in processes of their own, on S3 and in a folder: two at once, and killed at random moments."""

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbrun.core.batch.terms import Keep
from nbrun.publishing.history import PublishedHistory
from nbrun.publishing.publish import rebuild, rebuild_base
from nbrun.storage.object_stores.base import ObjectStore
from nbrun.storage.object_stores.by_url import open_store
from tests.publishing.histories import night, published, record
from tests.publishing.test_publish import Links

PUBLISHER = """
import asyncio, pathlib, sys
from nbrun.core.batch.terms import Keep
from nbrun.storage.object_stores.by_url import open_store
from tests.publishing.histories import night, published, record
store, made, keep = open_store(sys.argv[1]), pathlib.Path(sys.argv[2]), Keep(runs=int(sys.argv[3]))
print("ready", flush=True)
for line in sys.stdin:
    asyncio.run(published(store, record(int(line)), made, keep=keep, now=night(int(line))))
    print("published", flush=True)
"""
KEPT = 6


class Publisher:
    """A process that publishes the run of a night on demand."""

    def __init__(self, url: str, made: Path, keep: int) -> None:
        command = [sys.executable, "-c", PUBLISHER, url, str(made), str(keep)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.answer() == "ready"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def publish(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def publishers(url: str, made: Path, number: int, keep: int = 1000) -> Iterator[list[Publisher]]:
    started = [Publisher(url, made, keep) for _ in range(number)]
    try:
        yield started
    finally:
        for each in started:
            each.kill()


async def _content(store: ObjectStore, key: str) -> bytes:
    found = await store.get(key)
    assert found is not None, key
    return found.data


async def consistent(store: ObjectStore) -> list[int]:
    """Return the nights in the index, after a check that index, latest run, records and files agree."""
    records = await PublishedHistory(store).records("sales")
    keys = set(await store.keys())
    for run in records:
        for file in run.files:
            data = await _content(store, f"sales/{run.run_id}/{file.path}")
            assert hashlib.sha256(data).hexdigest() == file.sha256
    page = Links((await _content(store, "sales/index.html")).decode())
    assert [name for name in page.ids if "Z-" in name] == [run.run_id for run in records]
    for link in page.links:
        assert link.startswith("#") or link == "../index.html" or f"sales/{link.partition('#')[0]}" in keys, link
    pointer = json.loads(await _content(store, "sales/latest.json"))
    assert pointer["run_id"] == records[0].run_id
    assert f"../{records[0].run_id}/index.html" in (await _content(store, "sales/latest/index.html")).decode()
    assert b"sales/index.html" in await _content(store, "index.html")
    return [int(run.run_id[-6:], 16) for run in records]


@pytest.mark.slow
@pytest.mark.parametrize("times", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_two_processes_that_publish_at_once_lose_no_run_and_the_latest_never_goes_back(
    url: str, times: int, tmp_path: Path
) -> None:
    store, over, seen = open_store(url), threading.Event(), []

    def watch() -> None:
        while not over.is_set():
            if found := asyncio.run(store.get("sales/latest.json")):
                seen.append(json.loads(found.data)["run_id"])

    with publishers(url, tmp_path / "made", 2) as pair:
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for number in range(times):
                for place, each in enumerate(pair):
                    each.publish(2 * number + place)
                assert [each.answer() for each in pair] == ["published"] * 2
        finally:
            over.set()
            watcher.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > times / 2
    assert asyncio.run(consistent(store)) == [*range(2 * times - 1, -1, -1)]


def settled_nights(store: ObjectStore) -> set[int]:
    """Return the nights with records, when the last request of a killed publisher has ended in the store."""
    found: list[set[int]] = [set(), {-1}]
    while found[-1] != found[-2]:
        time.sleep(0.1)  # nothing tells that the store has ended
        records = asyncio.run(PublishedHistory(store).records("sales"))
        found.append({int(run.run_id[-6:], 16) for run in records})
    return found[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [10, pytest.param(30, marks=pytest.mark.soak)])
def test_after_a_publisher_is_killed_at_random_moments_the_next_one_repairs(
    url: str, kills: int, tmp_path: Path
) -> None:
    """The environment variable NBRUN_TESTS_SEED repeats the moments of a failed test."""
    seed = int(os.environ.get("NBRUN_TESTS_SEED") or random.randrange(2**32))
    print(f"NBRUN_TESTS_SEED={seed}")
    moments, store = random.Random(seed), open_store(url)
    with publishers(url, tmp_path / "made", 1, KEPT) as (one,):
        for number in range(2 * KEPT):  # each deletes an old one in the end
            began = time.monotonic()
            one.publish(number)
            assert one.answer() == "published"
        whole = time.monotonic() - began
    published_runs = killed_runs = 0
    for turn, number in enumerate(range(2 * KEPT, 2 * KEPT + 2 * kills, 2)):
        with publishers(url, tmp_path / "made", 1, KEPT) as (one,):
            one.publish(number)
            # Not for something to happen, but to kill it anywhere: at the beginning first, and at the end last.
            time.sleep(whole * moments.uniform(turn, turn + 1) / kills)
        nights = settled_nights(store)
        published_runs, killed_runs = published_runs + (number in nights), killed_runs + (number not in nights)
        next_one = record(number + 1)
        asyncio.run(published(store, next_one, tmp_path / "made", keep=Keep(runs=KEPT), now=night(number + 1)))
        found = asyncio.run(consistent(store))
        assert (number in found) == (number in nights)
        assert found[0] == number + 1
        assert len(found) == KEPT
    assert published_runs > 0
    assert killed_runs > 0


def test_a_repair_of_a_consistent_report_changes_nothing(url: str, tmp_path: Path) -> None:
    store = open_store(url)

    async def versions() -> dict[str, str]:
        return {key: state.version for key in await store.keys() if (state := await store.stat(key)) is not None}

    for number in range(2):
        asyncio.run(published(store, record(number), tmp_path / "made"))
    before = asyncio.run(versions())
    asyncio.run(rebuild(store, "sales", keep=Keep(), now=night(3)))
    asyncio.run(rebuild_base(store))
    assert asyncio.run(versions()) == before
