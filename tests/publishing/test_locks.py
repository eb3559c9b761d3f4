"""A lock has one holder at a time, and a killed holder is replaced."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbrun.errors import ExitCode, RunSkipped
from nbrun.publishing.locks import FileLock, LockHeld, acquire
from nbrun.runner.stop import StopSwitch

HOLD = """
import pathlib, sys
from nbrun.publishing.locks import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]))
for line in sys.stdin:
    print(lock.acquire() if line == "acquire\\n" else lock.release(), flush=True)
"""


def holder(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def tell(process: subprocess.Popen[str], *words: str) -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    for word in words:
        process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return [process.stdout.readline().strip() for _ in words]


def test_of_two_processes_one_gets_the_lock_in_each_of_50_races(tmp_path: Path) -> None:
    processes = [holder(tmp_path / "lock") for _ in range(2)]
    try:
        for _ in range(50):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("acquire\n")
            for process in processes:  # both try at the same time
                assert process.stdin is not None
                process.stdin.flush()
            answers = [process.stdout.readline().strip() for process in processes if process.stdout]
            assert sorted(answers) == ["False", "True"]
            tell(processes[answers.index("True")], "release")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def test_a_held_lock_is_skipped_refused_or_awaited_and_a_killed_holder_is_replaced(tmp_path: Path) -> None:
    file, stop = tmp_path / "lock", StopSwitch()
    process = holder(file)
    try:
        assert tell(process, "acquire") == ["True"]
        with pytest.raises(RunSkipped, match=f"skipped: sales is being run by process {process.pid}") as skipped:
            await acquire(FileLock(file), "skip", time.monotonic() + 60, "sales", stop)
        assert skipped.value.exit_code is ExitCode.OK
        for how, said in (("fail", f"by process {process.pid}$"), ("wait", r"still after 0\.\d s$")):
            with pytest.raises(LockHeld, match=said) as refused:
                await acquire(FileLock(file), how, time.monotonic() + 0.2, "sales", stop)
            assert refused.value.exit_code is ExitCode.USAGE
        waiter = FileLock(file)
        waiting = asyncio.ensure_future(acquire(waiter, "wait", time.monotonic() + 60, "sales", stop))
        await asyncio.sleep(0)  # it has tried once
        process.kill()
        process.wait()
        assert await asyncio.wait_for(waiting, 30)
        waiter.release()
    finally:
        process.kill()
        process.communicate()


async def test_a_stopped_run_waits_no_longer(tmp_path: Path) -> None:
    stop, first = StopSwitch(), FileLock(tmp_path / "lock")
    assert first.acquire()
    stop.pull("terminated by SIGTERM", ExitCode.TERMINATED)
    assert not await acquire(FileLock(first.file), "wait", time.monotonic() + 600, "sales", stop)
    assert FileLock(first.file).holder() == f"process {os.getpid()}"
    first.release()
    assert FileLock(tmp_path / "other").holder() == "another process"


def test_a_holder_leaves_a_mark_for_the_next_one(tmp_path: Path) -> None:
    for before, mark in (("", "a"), ("a", "b"), ("b", ""), ("", "c")):
        lock = FileLock(tmp_path / "lock")
        assert lock.acquire()
        assert (lock.left_mark, lock.holder()) == (before, f"process {os.getpid()}")
        lock.leave(mark)
        lock.release()
