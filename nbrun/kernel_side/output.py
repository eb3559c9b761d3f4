"""Hand output to the thread of the socket, and find message numbers that were never sent.

This file runs in the kernel, see :mod:`nbrun.kernel_side.agent`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .backlog import LARGEST_UNSENT, SEND_LIMIT, Backlog, size_of, wait_before_writes

REALLY_SEND = "_really_send"
"""IOPubThread: sends a message, in the thread of the socket."""
STREAM_COPY = "_original_stdstream_copy"
"""OutStream: the file descriptor to which it copies standard output or standard error."""
FLUSH_PENDING = "_flush_pending"
"""OutStream: whether anything was written since the last flush."""
REALLY_FLUSH = "_flush"
"""OutStream: creates the messages of what was written, in the thread of the socket."""
ROOM_FOR_UNSENT = 10_000
"""Maximum remembered numbers without a message; the newest are kept."""
MOST_EVENTS = 1000
"""Maximum events that the thread of the socket handles before its loop continues."""
THREADS = "/proc/self/task"
"""The threads of this process, with their names and states, see proc(5)."""
SENDER = b"ZMQbg/IO"
"""The beginning of the names of ZeroMQ's threads for input and output."""
SENDER_STEPS = 40
"""Maximum checks, about every tenth of a millisecond, whether these threads sleep."""
FORGET_LIMIT = 1.0
"""Seconds to wait until the sockets have sent everything."""


def hand_over(iopub: Any, limit: float | None = None) -> bool:
    """Wait until the sockets have sent all messages so far; return whether they have."""
    taken = threading.Event()
    iopub.schedule(taken.set)
    return taken.wait(FORGET_LIMIT if limit is None else limit)


def flush() -> None:
    """Flush standard output and standard error; each flush waits for the thread of the socket, so only if needed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and getattr(stream, FLUSH_PENDING, True):
            stream.flush()


class Senders:
    """The threads of ZeroMQ, which write the messages of all sockets to their connections.

    ZeroMQ does not say when a message is written. But Linux shows whether a thread sleeps. Then it has nothing left to
    write, or the client does not keep up: a message wakes it before the call that sends the message returns.
    """

    def __init__(self) -> None:
        self._states: list[int] = []
        try:
            for thread in os.listdir(THREADS):
                with open(f"{THREADS}/{thread}/comm", "rb") as name:
                    if name.read().startswith(SENDER):
                        self._states.append(os.open(f"{THREADS}/{thread}/stat", os.O_RDONLY))
        except OSError:  # another system than Linux, or a thread that has just ended
            return

    def wait(self) -> None:
        """Wait, for a few milliseconds at most, until they sleep; where this is unknown, for half a millisecond."""
        for _ in range(SENDER_STEPS):
            try:
                states = [os.pread(state, 64, 0).partition(b") ") for state in self._states]
            except OSError:  # the user has closed all files
                states = []
            if not states or not all(SENDER in name for name, _, _ in states):
                time.sleep(0.0005)
                return
            if all(state.startswith(b"S") for _, _, state in states):
                return
            time.sleep(0.00005)


class QuickOutput:
    """Hand output to the thread of the socket with fewer wake-ups.

    ipykernel wakes this thread with a ZeroMQ message for each output and each flush, and the thread reads them one by
    one. Here it is woken once for everything that waits. Events keep their order.

    A flush waits for that thread, and ipykernel flushes both streams before each display and at the end of each cell.
    Here a stream is not flushed if nothing was written to it.
    """

    def __init__(self, iopub: Any, backlog: Backlog) -> None:
        self._iopub = iopub
        self._backlog = backlog
        self._events: deque[Callable[[], object]] = deque()
        self._unsent = 0
        """About the bytes of messages since a thread has last waited until they were sent."""
        self._sent = self._seen = 0
        """The number of the last wake-up, and of the last one that the thread has seen."""
        # Raise an error here if something is missing.
        iopub.thread.is_alive, iopub.io_loop.add_callback, getattr(iopub, REALLY_SEND)
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "pub_thread", None) is iopub and getattr(stream, "echo", None) is None:
                skip_empty_flushes(stream)
                wait_before_writes(stream, backlog)
        iopub.schedule, iopub.send_multipart = self.schedule, self.send_multipart

    def send_multipart(self, message: list[Any], *args: Any, **kwargs: Any) -> None:
        """Send a message in the thread of the socket; send it here if that thread has ended, as in a forked child."""
        thread, send = self._iopub.thread, getattr(self._iopub, REALLY_SEND)
        if not thread.is_alive():
            send(message, *args, **kwargs)
            return

        def send_and_count() -> None:
            send(message, *args, **kwargs)
            self._backlog.count(message, size)

        size = size_of(message)
        self.schedule(send_and_count)
        if threading.current_thread() is not thread:
            self._unsent += size
            if self._unsent > LARGEST_UNSENT:
                self._unsent = 0
                hand_over(self._iopub, SEND_LIMIT)

    def schedule(self, event: Callable[[], object]) -> None:
        """Let the thread of the socket call `event`; call it here if that thread has ended."""
        if not self._iopub.thread.is_alive():
            event()
            return
        self._events.append(event)
        if self._sent <= self._seen:
            number = self._seen + 1
            self._iopub.io_loop.add_callback(self._run, number)
            self._sent = number  # afterwards, because an interrupt of the cell may come between the two

    def _run(self, number: int) -> None:
        self._seen = max(self._seen, number)  # first, so that an event that is not seen below wakes the thread again
        try:
            for _ in range(MOST_EVENTS):
                if not self._events:
                    break
                self._events.popleft()()
        finally:
            if self._events:
                self._iopub.io_loop.add_callback(self._run, number)


def skip_empty_flushes(stream: Any) -> None:
    """Let a flush of a stream return at once if everything that was written has been handed over."""
    flush, really_flush = stream.flush, getattr(stream, REALLY_FLUSH)
    getattr(stream, FLUSH_PENDING)
    is_flushing = False

    def note_and_flush() -> None:
        nonlocal is_flushing
        is_flushing = True  # before the stream forgets that anything was written
        try:
            really_flush()
        finally:
            is_flushing = False

    def flush_if_needed() -> None:
        if getattr(stream, FLUSH_PENDING) or is_flushing:
            flush()

    setattr(stream, REALLY_FLUSH, note_and_flush)
    stream.flush = flush_if_needed


class UnsentNumbers:
    """Numbers that ipykernel used without sending a message, so nothing is lost.

    ipykernel numbers a message before it knows whether it will send one. It sends none for a result that displays
    itself (``_ipython_display_``, as in plotly's figures), for a result without any representation, for an interrupted
    representation, and for one that a hook of the display publisher drops. A number counts as sent once its message is
    prepared for the socket. A message may be sent later than one with a higher number, for example by another thread.
    Its number is remembered until then.

    A kernel that exits on request cannot be asked any more, so its last reply contains the numbers in its metadata.
    """

    def __init__(self, session: Any) -> None:
        self.numbers: dict[int, None] = {}
        # A forked child has its own numbers, and must not take a lock that a thread held during the fork.
        self._own = f"{session.session}_{os.getpid()}"
        self._following: int = session.message_count
        self._lock = threading.RLock()
        self._serialize = session.serialize
        session.serialize = self._note_and_serialize

    def _note_and_serialize(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            self._note(message["header"]["msg_id"])
            if any(each["source"] == "ask_exit" for each in message["content"].get("payload", ())):
                message["metadata"]["nbrun_unsent"] = [*self.numbers]
        except Exception:
            return self._serialize(message, *args, **kwargs)
        return self._serialize(message, *args, **kwargs)

    def _note(self, name: str) -> None:
        process, _, digits = name.rpartition("_")
        if process != self._own:
            return
        number = int(digits)
        with self._lock:
            first, self._following = self._following, max(self._following, number + 1)
            for skipped in range(max(first, number - ROOM_FOR_UNSENT), number):
                self.numbers[skipped] = None
            self.numbers.pop(number, None)
            while len(self.numbers) > ROOM_FOR_UNSENT:
                del self.numbers[next(iter(self.numbers))]


def be_quiet() -> None:
    """Keep ipykernel from copying what is written to its file descriptors to the server's log."""
    for stream in (sys.stdout, sys.stderr):
        copy = getattr(stream, STREAM_COPY, None)
        if copy is not None:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, copy)
            os.close(nothing)
