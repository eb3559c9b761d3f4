"""The pipes between nbrun and its private server: settings, token, end of a process.

Two pipes connect the processes. nbrun writes to the server's standard input: one line with the settings and one line
with the token. So the token is in no argument list and no environment. After that nothing is written. End of file tells
the server that nbrun has ended, in whatever way. The token is read only after the zygote was forked, so it was never in
the memory of a process that becomes a kernel. The server writes to its standard output: a line when it is ready, and a
line whenever its kernels change. End of *that* file tells nbrun that the server has ended. Kernels do not inherit any
end of these pipes.

This module imports the standard library only. Both processes use it.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

PARENT_POLL = 0.5
"""Seconds between two checks of the parent's pid, in case a stray copy of the pipe keeps it open."""

SAVE_LIMIT = 3.0
"""Seconds that a save may continue after nbrun has ended. Without them the notebook would be incomplete."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of the private server: absolute paths, and whether kernels use Unix sockets.

    An empty `socket` means a free port on loopback. With `zygote`, kernels are forked if possible, from a process that
    has imported `preload`. Kernels get the variables of `environment` in addition to the server's own.
    """

    root: str
    folder: str
    socket: str
    ipc: bool
    zygote: bool = False
    preload: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def line(self) -> bytes:
        """Return the settings as a line for the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read the settings from a line."""
        return cls(**json.loads(line))


def read_line(descriptor: int) -> bytes:
    """Return the next line without its end, and read no further byte; return nothing at end of file."""
    line = bytearray()
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


@dataclass(frozen=True, slots=True)
class Ready:
    """The server is ready. `port` is 0 if it listens on a Unix socket."""

    port: int


@dataclass(frozen=True, slots=True)
class LiveKernels:
    """The process ids of the running kernels. Each leads its own process group and session."""

    pids: tuple[int, ...]


News = Ready | LiveKernels


def news_line(news: News) -> bytes:
    """Return the line for `news`."""
    match news:
        case Ready(port):
            return f"ready {port}\n".encode()
        case LiveKernels(pids):
            return " ".join(["kernels", *map(str, pids)]).encode() + b"\n"


def read_news(line: bytes) -> News | None:
    """Read a line of :func:`news_line`; return None for any other line."""
    word, *numbers = line.split() or [b""]
    if not all(number.isdigit() for number in numbers):
        return None
    match word, [int(number) for number in numbers]:
        case b"ready", [port]:
            return Ready(port)
        case b"kernels", pids:
            return LiveKernels(tuple(pids))
        case _:
            return None


def kill_groups(pids: tuple[int, ...]) -> None:
    """Kill the process groups that `pids` lead, including the processes that the leaders have started."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                os.kill(pid, signal.SIGTERM)
            else:
                os.killpg(pid, signal.SIGKILL)


class ControlPipe:
    """The server's end of the pipes. A thread waits for the end of nbrun, even if the event loop is busy."""

    def __init__(self, settings: ServerSettings, source: int, sink: int) -> None:
        self._folder = Path(settings.folder)
        self._source = source
        self._sink = sink
        self._parent = os.getppid()
        self._kernels: dict[str, int] = {}
        self._saves = 0
        self._no_save = threading.Event()
        self._no_save.set()
        self.ending = False
        threading.Thread(target=self._watch, name="control_pipe", daemon=True).start()

    def tell(self, news: News) -> None:
        """Send a message to the parent; ignore a closed pipe, because the process ends then anyway."""
        with contextlib.suppress(OSError):
            os.write(self._sink, news_line(news))

    def kernel_started(self, kernel_id: str, pid: int) -> None:
        """Record a kernel that must end with nbrun. A restarted kernel replaces its predecessor."""
        self._kernels[kernel_id] = pid
        self.tell(LiveKernels(tuple(self._kernels.values())))

    def kernel_gone(self, kernel_id: str) -> None:
        """Remove a kernel whose process has ended, because its pid may be reused."""
        if self._kernels.pop(kernel_id, None) is not None:
            self.tell(LiveKernels(tuple(self._kernels.values())))

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Delay the end of the process for a bounded time while a file is written."""
        self._saves += 1
        self._no_save.clear()
        try:
            yield
        finally:
            self._saves -= 1
            if not self._saves:
                self._no_save.set()

    def kill_kernels(self) -> None:
        """Kill all kernels with SIGKILL, because a kernel can ignore other signals."""
        kill_groups(tuple(self._kernels.values()))

    def _watch(self) -> None:
        while not self._is_cut():
            pass
        self.ending = True
        self.kill_kernels()
        self._no_save.wait(SAVE_LIMIT)
        self.kill_kernels()
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)

    def _is_cut(self) -> bool:
        """Wait a short time; return whether nbrun has ended."""
        if sys.platform == "win32":
            return not os.read(self._source, 1)
        if os.getppid() != self._parent:
            return True
        readable, _, _ = select.select([self._source], [], [], PARENT_POLL)
        return bool(readable) and not os.read(self._source, 1)
