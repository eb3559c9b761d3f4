"""Threads, tasks, timers, child processes and pipes that may still write."""

import asyncio
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from nbrun.kernel_side.background_tasks import unread_bytes, unread_streams, writers


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_threads_tasks_timers_and_children_may_write() -> None:
    before = [*writers()]
    loop, done = asyncio.get_running_loop(), threading.Event()
    timer = loop.call_later(1000, done.set)
    assert timer in writers()
    timer.cancel()
    (thread := threading.Thread(target=done.wait)).start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = [*writers()]
    done.set()
    thread.join()
    child.communicate(b"\n")
    assert thread in found
    assert str(child.pid) in found
    assert thread not in before


@pytest.mark.skipif(sys.platform != "linux", reason="counts what waits in a pipe")
def test_a_pipe_that_is_not_emptied_has_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"text")
    assert unread_bytes(reading) == 4
    monkeypatch.setattr("nbrun.kernel_side.background_tasks.unread_bytes", lambda descriptor: int(descriptor == 2))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(watch_fd_thread=True))
    monkeypatch.setattr("sys.stderr", SimpleNamespace(watch_fd_thread=True))
    assert [*unread_streams()] == [2]
    os.close(reading)
    os.close(writing)
