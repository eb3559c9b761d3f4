"""A lock has one holder at a time, and a killed holder is replaced."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from nbrun.errors import ExitCode, RunSkipped
from nbrun.publishing.locks import FileLock, LockHeld, locked
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
            async with locked(FileLock(file), "skip", 60, "sales", stop):
                pass
        assert skipped.value.exit_code is ExitCode.OK
        for how, said in (("fail", f"by process {process.pid}$"), ("wait", r"still after 0\.2 s$")):
            with pytest.raises(LockHeld, match=said) as refused:
                async with locked(FileLock(file), how, 0.2, "sales", stop):
                    pass
            assert refused.value.exit_code is ExitCode.USAGE
        waiting = asyncio.ensure_future(locked(FileLock(file), "wait", 60, "sales", stop).__aenter__())
        await asyncio.sleep(0)  # it has tried once
        process.kill()
        process.wait()
        await asyncio.wait_for(waiting, 30)
    finally:
        process.kill()
        process.communicate()


async def test_a_stopped_run_waits_no_longer(tmp_path: Path) -> None:
    stop, first = StopSwitch(), FileLock(tmp_path / "lock")
    assert first.acquire()
    stop.pull("terminated by SIGTERM", ExitCode.TERMINATED)
    async with locked(FileLock(first.file), "wait", 600, "sales", stop):
        assert not FileLock(first.file).acquire()
    first.release()
    assert FileLock(first.file).holder() == f"process {__import__('os').getpid()}"
    assert FileLock(tmp_path / "other").holder() == "another process"
