"""The output that the client has not received yet, and the memory in which it reports this.

This file runs in the kernel, see :mod:`nbrun.kernel_side.agent`.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
import time
from collections import deque
from typing import Any

LARGEST_UNSENT = 4_000_000
"""Characters of text, or bytes of messages, after which a cell waits until the thread of the socket has sent them."""
SEND_LIMIT = 10.0
"""Maximum seconds of that wait, as of ipykernel's flush."""
BACKLOG = 16_000_000
"""Bytes of output on their way to the client from which on a cell waits."""
MARK = 250_000
"""Bytes of output from one message whose number is remembered to the next."""
PATIENCE = 60.0
"""Seconds without anything received after which a cell no longer waits; the next time it waits twice as long."""
CHECK_EVERY = 0.005
"""Seconds between two checks of a cell that waits."""
PROGRESS_CLOSED, PROGRESS_READY, PROGRESS_RECEIVED, PROGRESS_ID, PROGRESS_SIZE = 0, 1, 8, 16, 144
"""Shared memory of the progress: two flags, a number of 8 bytes, the id of a request in ASCII, and the end."""
DELIMITER = b"<IDS|MSG>"
"""The end of the routing of a message; its signature and its header follow."""


class Progress:
    """The id of the request that the kernel started last, in memory that it shares with the client.

    The client creates the memory. It reads it after the end of the kernel or the server, when messages may be lost. It
    first closes the memory, and no request starts from then on. While it reads the kernel's output, it records how far.
    """

    def __init__(self, path: str, name: str) -> None:
        if not os.readlink(path).startswith("/memfd:" + name):
            raise ValueError("the client runs on another system")
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, PROGRESS_SIZE)
        finally:
            os.close(descriptor)
        self._memory[PROGRESS_READY] = 1

    @property
    def received(self) -> int:
        """Return the number of the last output that the client has received; 0 if it does not report it."""
        return int.from_bytes(self._memory[PROGRESS_RECEIVED:PROGRESS_ID], "little")

    def start(self, request: str) -> bool:
        """Record that a request is started; return False if it must not be."""
        # The client first closes the memory and then reads it. So at least one of the two sees what the other did.
        self._memory[PROGRESS_ID:] = request.encode().ljust(PROGRESS_SIZE - PROGRESS_ID, b"\0")
        return not self._memory[PROGRESS_CLOSED]


class Backlog:
    """The output that the client has not received yet; while it is large, the code of a cell waits before each output.

    Without this, a cell that writes faster than the client reads fills the memory of kernel and server, because no
    queue between the two has a limit. A client on the same machine reports the number of the last output that it has
    received, in the memory of the progress. Of any other client, all output that was sent counts as received.

    The thread of the socket counts, and there is no lock: a signal handler of the user may write at any time.
    """

    def __init__(self, kernel: Any) -> None:
        self.is_large = False
        self.progress: Progress | None = None
        self._kernel = kernel
        self._number = number_in_header(kernel.session)
        self._sent = self._received = 0
        """Bytes so far."""
        self._marks: deque[tuple[int, int]] = deque()
        """Numbers of sent messages, and the bytes that were sent up to each."""
        self._limit, self._patience = BACKLOG, PATIENCE

    def count(self, message: list[Any], size: int) -> None:
        """Count a message that was sent."""
        self._sent += size
        if self._sent > MARK + (self._marks[-1][1] if self._marks else self._received) and DELIMITER in message:
            found = self._number.search(message[message.index(DELIMITER) + 2])
            if found is not None:
                self._marks.append((int(found[1]), self._sent))
        if self._sent - self._received > self._limit:
            self._check()

    def _check(self) -> None:
        number = 0 if self.progress is None else self.progress.received
        while self._marks and (number == 0 or self._marks[0][0] <= number):
            self._received = self._marks.popleft()[1]
        if number == 0:
            self._received = self._sent
        if self._sent - self._received <= BACKLOG:
            self._limit, self._patience = BACKLOG, PATIENCE
        self.is_large = self._sent - self._received > self._limit

    def _allow_more(self) -> None:
        self._limit, self._patience = self._sent - self._received + BACKLOG, 2 * self._patience
        self.is_large = False

    def wait(self) -> None:
        """Wait until the client has received enough, except in the threads of the sockets.

        If the wait is interrupted, or if the client receives nothing, as much output again may follow.
        """
        iopub, control = self._kernel.iopub_thread, getattr(self._kernel, "control_thread", None)
        if threading.current_thread() in (iopub.thread, control) or not iopub.thread.is_alive():
            return
        received, until = self._received, time.monotonic() + self._patience
        try:
            while self.is_large and time.monotonic() < until:
                iopub.schedule(self._check)
                time.sleep(CHECK_EVERY)
                if self._received != received:
                    received, until = self._received, time.monotonic() + self._patience
        finally:
            if self.is_large:
                self.is_large = False
                iopub.schedule(self._allow_more)


def size_of(message: list[Any]) -> int:
    """Return the size of a message in bytes."""
    return sum([part.nbytes if isinstance(part, memoryview) else len(part) for part in message])


def wait_before_writes(stream: Any, backlog: Backlog) -> None:
    """Let each write to a stream wait while the backlog is large, and flush text that is long."""
    really_write, unsent = stream.write, 0

    def write(string: str) -> Any:
        nonlocal unsent
        if backlog.is_large:
            backlog.wait()
        written = really_write(string)
        unsent += len(string)
        if unsent > LARGEST_UNSENT:
            unsent = 0
            stream.flush()
        return written

    stream.write = write


def number_in_header(session: Any) -> re.Pattern[bytes]:
    """Return the pattern that finds the number of a message of this process in the message's header."""
    own = re.escape(f"{session.session}_{os.getpid()}").encode()
    return re.compile(b'"msg_id": ?"' + own + b'_([0-9]+)"')
