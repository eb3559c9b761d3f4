"""The lock of a report in a store has one holder at a time; a silent one is replaced, and cannot publish then."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import RunSkipped, UsageError
from nbrun.publishing import store_lock
from nbrun.publishing.locks import Attempt, LockHeld, acquire
from nbrun.publishing.store_lock import LockLost, StoreLock
from nbrun.runner.stop import StopSwitch
from nbrun.storage.object_stores.base import StoreError, Unanswered
from nbrun.storage.object_stores.by_url import open_store
from nbrun.storage.object_stores.folder import FolderStore

LEASE = 1.0
HOLD = """
import asyncio, sys
from nbrun.publishing import store_lock
from nbrun.publishing.locks import Attempt
from nbrun.storage.object_stores.base import StoreError
from nbrun.storage.object_stores.by_url import open_store
store_lock.LEASE = float(sys.argv[2])
lock = store_lock.StoreLock(open_store(sys.argv[1]), "sales")
print("ready", flush=True)
for line in sys.stdin:
    try:
        match line.strip():
            case "acquire":
                print(asyncio.run(lock.attempt()).value, flush=True)
            case "confirm":
                print(asyncio.run(lock.confirm()), flush=True)
            case _:
                print(lock.release(), flush=True)
    except StoreError as error:
        print(error, flush=True)
"""
"""A process that holds the lock on demand."""


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lock, "LEASE", LEASE)


@contextmanager
def holders(url: str, number: int, lease: float = LEASE) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", HOLD, url, str(lease)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    try:
        assert [answer(process) for process in started] == ["ready"] * number
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ask(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str], word: str = "") -> str:
    if word:
        ask(process, word)
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def wait_for(lock: StoreLock, seconds: float = 60.0) -> bool:
    return await acquire(lock, "wait", time.monotonic() + seconds, "sales", StopSwitch())


async def held(url: str) -> dict[str, Any]:
    stored = await open_store(url).get("sales/.lock")
    assert stored is not None
    content: dict[str, Any] = json.loads(stored.data)
    return content


async def test_of_two_processes_one_gets_the_lock_in_each_of_50_races(url: str) -> None:
    with holders(url, 2, lease=60.0) as processes:
        for _ in range(50):
            for process in processes:  # both try at the same time
                ask(process, "acquire")
            answers = [answer(process) for process in processes]
            assert answers.count("acquired") == 1, answers
            answer(processes[answers.index("acquired")], "release")
    assert ((await held(url))["fence"], (await held(url))["owner"]) == (50, "")


@pytest.mark.usefixtures("short_lease")
async def test_a_killed_holder_is_replaced_after_its_lease_and_a_living_one_is_not(url: str) -> None:
    with holders(url, 1) as (process,):
        assert answer(process, "acquire") == "acquired"
        waiting: dict[str, Callable[[], Any]] = {
            how: lambda how=how: acquire(  # type: ignore[misc]
                StoreLock(open_store(url), "sales"), how, time.monotonic() + 2.5 * LEASE, "sales", StopSwitch()
            )
            for how in ("skip", "fail", "wait")
        }
        with pytest.raises(RunSkipped, match=f"skipped: sales is being run by process {process.pid} on ."):
            await waiting["skip"]()
        with pytest.raises(LockHeld, match=f"process {process.pid} on "):
            await waiting["fail"]()
        if not url.startswith("s3"):  # once is enough
            with pytest.raises(LockHeld, match=r"still after \d\.\d s"):  # it keeps the lock for longer than a lease
                await waiting["wait"]()
        process.kill()
        process.wait()
        began = time.monotonic()
        lock = StoreLock(open_store(url), "sales")
        assert await acquire(lock, "skip", 0, "sales", StopSwitch())  # a dead holder is no reason to skip
        assert time.monotonic() - began > LEASE
        assert lock.fence == 2
        await lock.confirm()
        await asyncio.to_thread(lock.release)


@pytest.mark.usefixtures("short_lease")
async def test_a_holder_that_was_stopped_and_replaced_is_refused(url: str) -> None:
    with holders(url, 1) as (process,):
        assert answer(process, "acquire") == "acquired"
        assert answer(process, "confirm") == "None"
        process.send_signal(signal.SIGSTOP)
        lock = StoreLock(open_store(url), "sales")
        assert await wait_for(lock)
        process.send_signal(signal.SIGCONT)
        said = answer(process, "confirm")
        assert f"the lock of this run (fence 1) was taken over by process {os.getpid()} on " in said
        assert "(fence 2)" in said
        assert answer(process, "release") == "None"
        await lock.confirm()  # the release of the other one changed nothing
        await asyncio.to_thread(lock.release)


async def test_a_holder_that_is_known_to_have_ended_is_replaced_at_once(url: str) -> None:
    with holders(url, 1, lease=60.0) as (process,):
        assert answer(process, "acquire") == "acquired"
        process.kill()
        process.wait()
    ended = (await held(url))["owner"]
    assert await StoreLock(open_store(url), "sales", ended="another").attempt() is Attempt.UNCERTAIN
    lock = StoreLock(open_store(url), "sales", ended=ended)
    assert await lock.attempt() is Attempt.ACQUIRED
    await asyncio.to_thread(lock.release)


@pytest.mark.usefixtures("short_lease")
async def test_a_released_lock_is_free_and_its_fence_grows(tmp_path: Path) -> None:
    for fence in (1, 2, 3):
        lock = StoreLock(FolderStore(tmp_path), "sales")
        assert await lock.attempt() is Attempt.ACQUIRED
        assert lock.fence == fence
        await asyncio.to_thread(lock.release)
        await asyncio.to_thread(lock.release)
    other = StoreLock(FolderStore(tmp_path), "costs")
    assert await other.attempt() is Attempt.ACQUIRED
    (tmp_path / "costs" / ".lock").unlink()
    with pytest.raises(LockLost, match=r"the lock of this run \(fence 1\) was deleted"):
        await other.confirm()
    await asyncio.to_thread(other.release)
    assert not (tmp_path / "costs" / ".lock").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fence": "x"}', '{"fence": 1, "lease": null}'])
async def test_another_object_in_its_place_is_not_taken_for_a_lock(tmp_path: Path, content: str) -> None:
    (tmp_path / "sales").mkdir()
    (tmp_path / "sales" / ".lock").write_text(content)
    with pytest.raises(UsageError, match=r"--lock: .*/sales/\.lock is not a lock of nbrun"):
        await wait_for(StoreLock(FolderStore(tmp_path), "sales"))


class UnreachableStore(FolderStore):
    """A folder whose puts fail while ``is_dead``, and never end while ``is_hanging``; ``failed`` counts them."""

    is_dead = is_hanging = False
    failed = 0

    async def put(self, key: str, data: bytes, **given: Any) -> str:
        if self.is_hanging:
            self.failed += 1
            await asyncio.Event().wait()
        if self.is_dead:
            self.failed += 1
            raise Unanswered(f"{self.url}: the store cannot be reached (connection refused)")
        return await super().put(key, data, **given)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("short_lease")
async def test_an_unreachable_store_is_a_warning_and_the_lock_is_renewed_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = UnreachableStore(tmp_path)
    lock = StoreLock(store, "sales")
    assert await wait_for(lock)
    store.is_dead = True
    await until(lambda: bool(lock.warnings()))
    assert store.failed > 5
    (warning,) = lock.warnings()
    assert warning.startswith("--lock: not renewed for 1.0 s, so another run may start: ")
    monkeypatch.setattr(store_lock, "_RECENT", 0.0)
    with pytest.raises(StoreError, match="connection refused"):
        await lock.confirm()
    store.is_dead = False
    beat = json.loads((tmp_path / "sales" / ".lock").read_bytes())["beat"]
    await until(lambda: json.loads((tmp_path / "sales" / ".lock").read_bytes())["beat"] > beat)
    await lock.confirm()
    store.is_dead = True
    began = time.monotonic()
    await asyncio.to_thread(lock.release)
    assert time.monotonic() - began < 10
    assert json.loads((tmp_path / "sales" / ".lock").read_bytes())["owner"] == lock.owner  # until its lease ends


@pytest.mark.usefixtures("short_lease")
async def test_a_store_that_does_not_answer_delays_neither_publishing_nor_the_end_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lock, "_RECENT", 0.0)
    monkeypatch.setattr(store_lock, "_CONFIRM_LIMIT", 0.3)
    monkeypatch.setattr(store_lock, "_RELEASE_LIMIT", 0.3)
    store = UnreachableStore(tmp_path)
    lock = StoreLock(store, "sales")
    assert await wait_for(lock)
    store.is_hanging = True
    began = time.monotonic()
    with pytest.raises(Unanswered, match="did not answer within 0 s"):
        await lock.confirm()
    await until(lambda: store.failed >= 2)  # now a sign of life is on its way
    with pytest.raises(Unanswered, match="did not answer"):
        await lock.confirm()
    await asyncio.to_thread(lock.release)
    assert time.monotonic() - began < 10


async def test_a_lock_that_was_just_written_is_confirmed_without_a_put(tmp_path: Path) -> None:
    """Stores limit the rate of puts of one object."""
    store = UnreachableStore(tmp_path)
    lock = StoreLock(store, "sales")
    assert await lock.attempt() is Attempt.ACQUIRED
    store.is_dead = True
    await lock.confirm()
    assert store.failed == 0
    store.is_dead = False
    await asyncio.to_thread(lock.release)
