"""What may still write after the last cell: threads, tasks, timers, child processes, pipes.

This file runs in the kernel, see :mod:`nbrun.kernel_side.agent`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

SCHEDULED = "_scheduled"
"""BaseEventLoop: the timers."""
TARGET = "_target"
"""Thread: the function that it runs."""
_OF_THE_KERNEL = ("ipykernel", "IPython", "tornado", "zmq")


def is_of_the_kernel(module: Any) -> bool:
    """Return whether a module belongs to the kernel itself."""
    return str(module).partition(".")[0] in _OF_THE_KERNEL


def writing_threads() -> Iterator[threading.Thread]:
    """Return the threads that the user started."""
    for thread in threading.enumerate():
        work = getattr(thread, TARGET, None)
        if not (
            thread is threading.main_thread()
            or is_of_the_kernel(type(thread).__module__)
            or is_of_the_kernel(getattr(work, "__module__", ""))
        ):
            yield thread


def writing_tasks() -> Iterator[object]:
    """Return the tasks and timers that the user started."""
    loop = asyncio.get_running_loop()
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is None or not is_of_the_kernel(frame.f_globals.get("__name__")):
            yield task
    yield from getattr(loop, SCHEDULED)


def writers() -> Iterator[object]:
    """Return threads, tasks, timers and child processes that may write, and processes that have the pipes open."""
    yield from writing_threads()
    yield from writing_tasks()
    for name in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{name}/children") as children:
            yield from children.read().split()
    pipes = [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in "12"]
    for process in os.listdir("/proc"):
        if process.isdecimal() and int(process) != os.getpid():
            for descriptor in "12":
                try:
                    held = os.readlink(f"/proc/{process}/fd/{descriptor}")
                except OSError:
                    continue
                if held.startswith("pipe:") and held in pipes:
                    yield process


def has_unread_streams() -> bool:
    """Return whether the kernel has not yet read everything that was written to its file descriptors."""
    try:
        return any(
            getattr(stream, "watch_fd_thread", None) is not None and unread_bytes(descriptor)
            for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2))
        )
    except Exception:  # a descriptor that the user closed, or another system than Linux
        return False


def unread_streams() -> Iterator[int]:
    """Return the file descriptors whose pipes the kernel has not emptied within half a second."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        reader = getattr(stream, "watch_fd_thread", None)
        for _ in range(100):
            if reader is None or not unread_bytes(descriptor):
                break
            time.sleep(0.005)
        else:
            yield descriptor
    time.sleep(0.01)  # bytes that were just read must still be written to the stream


def unread_bytes(descriptor: int) -> int:
    """Return the number of unread bytes in a pipe."""
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
