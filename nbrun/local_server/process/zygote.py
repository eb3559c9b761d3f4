"""The zygote: a process that has imported ipykernel and forks a kernel on request.

A kernel spends most of its start on imports, which are always the same. The private server's process forks the zygote
at its very start, while it has one thread and has imported only what servers and kernels share. Then both continue
their imports in parallel. A kernel that is forked from the zygote has nothing left to import::

    private server ── fork ── zygote ── fork ── (between) ── fork ── kernel
          └───────────────────── parent of, once (between) has ended ───┘

The process in between ends at once. Linux then makes the kernel a child of the server, because the server has asked for
it (PR_SET_CHILD_SUBREAPER in prctl(2)). So the server can wait for the kernel and signal it like any other child. It
also recognises a process that got the pid of a finished kernel.

This code runs in the zygote and in the new kernel. The server's side is
:mod:`nbrun.local_server.process.provisioner`. This module imports the standard library only, because everything it
imports is loaded in the user's kernel.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Self

IN_COMMON = ("zmq.asyncio", "traitlets.config", "jupyter_client.manager", "tornado.httpserver")
"""Modules that the server and its kernels both import. None of them starts a thread."""

OF_KERNELS = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "IPython.core.debugger",
    "IPython.core.completer",
    "IPython.core.completerlib",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "pdb",
    "runpy",
    "faulthandler",
    "sqlite3",
    "tornado.platform.asyncio",
    "psutil",
)
"""Modules that a kernel imports before it answers, and psutil, which it imports when it ends.

Those missing in a version of ipykernel are skipped.
"""

ADOPTION_LIMIT = 5.0
"""Seconds that a new kernel waits to become the server's child, which takes a millisecond."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Order:
    """A request for a kernel: the equivalent command (``python FILE ARGUMENTS…``), its folder and its environment.

    ``env`` is the complete environment.
    """

    command: Sequence[str]
    cwd: str
    env: dict[str, str]

    def line(self) -> bytes:
        """Return the order as a line for the zygote."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read an order from a line."""
        return cls(**json.loads(line))


def can_fork() -> bool:
    """Return whether kernels can be forked on this platform and with this PYTHONPATH.

    A relative folder in PYTHONPATH would mean another folder in each working folder.
    """
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return sys.platform == "linux" and all(not folder or Path(folder).is_absolute() for folder in folders)


def adopt_orphans(*, wanted: bool) -> None:
    """Request that Linux makes orphaned descendants children of this process, or end this."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def become_zygote(orders: socket.socket, server: int, preload: Sequence[str]) -> Order:
    """Import the modules of kernels, then fork one for each order; return the order in a new kernel only.

    The zygote ends with the server: Linux kills it, and it ends when the socket is closed.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["JPY_PARENT_PID"] = str(server)  # ipykernel reads it when it is imported
    os.environ.setdefault(
        "MPLBACKEND", "module://matplotlib_inline.backend_inline"
    )  # as a kernel does, before matplotlib reads it
    native = _import_all(preload)
    # Keep memory shared with the kernels: their collections do not touch these objects. A collection before would take
    # 25 ms to find the few hundred objects of garbage that imports make.
    gc.freeze()
    with orders.makefile("rb") as lines:
        for line in lines:
            order = Order.from_line(line)
            if trouble := threads_beside(native):
                orders.sendall(f"refused {trouble}\n".encode())
                continue
            pid = _fork_kernel()
            if pid == 0:
                break
            orders.sendall(f"kernel {pid}\n".encode())
        else:
            os._exit(0)
    orders.close()
    _wait_for_adoption(server)
    return order


def become_kernel(order: Order, path: list[str]) -> CodeType:
    """Prepare this process as a new process for ``order.command`` would be; return the code for it to run.

    `path` is the ``sys.path`` of such a process without its first entry.
    """
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reading, writing = os.pipe()  # standard input without a writer, as jupyter_client sets it up
    os.dup2(reading, 0)
    os.close(reading)
    os.close(writing)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.env)
    time.tzset()
    _reseed()
    if (processes := sys.modules.get("multiprocessing.process")) is not None:  # spawned children import from there
        processes.ORIGINAL_DIR = os.path.abspath(order.cwd)  # type: ignore[attr-defined]  # noqa: PTH100
    with contextlib.suppress(AttributeError):  # Python up to 3.12 does not update it
        threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # noqa: SLF001
    words = [*order.command]
    sys.orig_argv = words
    sys.argv = words[next(place for place, word in enumerate(words) if place and not word.startswith("-")) :]
    file = Path(sys.argv[0])
    added = [folder for folder in sys.path if folder not in path]  # by preloaded modules
    sys.path[:] = [str(file.parent), *path, *added]  # as ``python FILE``; the code removes the first again
    for name in [name for name in sys.modules if name.partition(".")[0] == "nbrun"]:
        del sys.modules[name]
    gc.enable()
    return compile(file.read_bytes(), str(file), "exec")


def _import_all(preload: Sequence[str]) -> int:
    """Import the modules of kernels and those that the user named; return the number of threads that survive a fork."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # as kernel_side/launch.py does
    with contextlib.suppress(ImportError):
        import_module("ipykernel.debugger")
    del sys.modules["debugpy"]
    for name in OF_KERNELS:
        with contextlib.suppress(ImportError):
            import_module(name)
    native = 1
    if preload and find_spec("numpy") is not None:
        # Its linear algebra (OpenBLAS) starts threads at import, ends them before a fork, and restarts them in the
        # child when needed. Threads of other libraries may not survive a fork.
        import_module("numpy")
        native = _native_threads()
    for name in preload:
        try:
            import_module(name)
        except Exception:  # noqa: BLE001 - the kernel works without it, and the notebook gets the same error
            print(f"{name} could not be preloaded:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    return native


def threads_beside(native: int = 1) -> str:
    """Return a description of threads that a fork would interrupt, or an empty text if there are none.

    `native` threads, including the main thread, are known to survive.
    """
    if (count := threading.active_count()) > 1:
        return f"{count - 1} threads are running in the process that has preloaded the modules"
    if (count := _native_threads()) > native:
        return f"{count - native} native threads are running in the process that has preloaded the modules"
    return ""


def _native_threads() -> int:
    return len([*Path("/proc/self/task").iterdir()])


def _fork_kernel() -> int:
    """Fork twice, so that the new process is not a child of this one; return its pid, or 0 in the new process."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        kernel = os.fork()
        if kernel:
            os.write(writing, str(kernel).encode())
            os._exit(0)
        os.close(reading)
        os.close(writing)
        return 0
    os.close(writing)
    pid = int(os.read(reading, 32))
    os.close(reading)
    os.waitpid(between, 0)
    return pid


def _wait_for_adoption(server: int) -> None:
    """Wait until the server is the parent, then request to be killed with it; exit if it has ended already."""
    give_up_at = time.monotonic() + ADOPTION_LIMIT
    while os.getppid() != server and time.monotonic() < give_up_at:
        time.sleep(0.0005)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def _reseed() -> None:
    """Seed the random generators of the kernel. :mod:`random` does so itself; others read system entropy each time."""
    if (processes := sys.modules.get("multiprocessing.process")) is not None:
        processes.current_process().authkey = os.urandom(32)
    for name in ("numpy.random", "torch"):
        if (library := sys.modules.get(name)) is not None:
            library.seed()


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
