"""A program that forks for each call of ``python -m MODULE``, and has imported what ``nbrun run`` imports.

It belongs to :mod:`tests.support.forks`. The process of a call has its own standard streams, environment, folder,
umask, arguments, ``sys.path`` and ``__main__``, and no other file descriptors. It differs from a new process in
``sys.modules``, in the command line and the environment that /proc shows, and in what the interpreter reads at its
start.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
import threading
from pathlib import Path
from typing import Any

IMPORTED = (
    "nbrun.cli.main",
    "nbrun.cli.run",
    "nbrun.cli.batch",
    "nbrun.runner.batch.plan",
    "nbrun.api.planned",
    "nbrun.local_server.launcher",
    "nbrun.reporters.console.batch",
    "nbrun.reporters.console.output_log",
    "httpcore._backends.anyio",
    "anyio._backends._asyncio",
)
"""What every run imports, also at its first connection. A call imports by itself what only some options need."""
DESCRIPTORS = 5
"""Sent with a call: a socket for its arguments and its end, its folder, and its three standard streams."""


def serve(calls: socket.socket) -> None:
    """Fork for each call, until the other side closes the socket `calls`; return in the process of a call too."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        waiting: list[Any] = [calls, *running]
        for ready in select.select(waiting, [], [])[0]:
            if ready is not calls:
                pid, call = running.pop(ready)
                os.close(ready)
                with call, contextlib.suppress(BrokenPipeError):  # nobody waits after a time-out
                    call.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            data, descriptors, _, _ = socket.recv_fds(calls, 1, DESCRIPTORS)
            if not data:
                return
            if not (pid := os.fork()):
                for other in (calls, *(call for _, call in running.values())):
                    other.detach()
                run_call(*descriptors)
                return
            call = socket.socket(fileno=descriptors[0])
            call.sendall(b"%d\n" % pid)
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            running[os.pidfd_open(pid)] = pid, call


def run_call(call: int, folder: int, *streams: int) -> None:
    """Become the process of a call, and run its module."""
    with open(call, "rb", closefd=False) as file:
        given: dict[str, Any] = json.loads(file.readline())
    os.fchdir(folder)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.umask(given["umask"])
    os.environ.clear()
    os.environ.update(given["environ"])
    sys.argv = ["-m", *given["arguments"]]
    sys.orig_argv = [sys.executable, "-m", given["module"], *given["arguments"]]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())
    runpy.run_module(given["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import what calls need, and serve."""
    path = sys.path[:]
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this program
    importlib.import_module("nbrun._lazy_imports").put_off_imports()
    for name in IMPORTED:
        importlib.import_module(name)
    sys.path[:] = path
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
