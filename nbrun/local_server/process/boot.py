"""Start-up of the private server's process: read the settings, fork the zygote, run the app.

This happens before the slow imports, because the zygote must be forked from a process with a single thread and without
modules that a kernel does not have. See :mod:`nbrun.local_server.process.zygote`.
"""

import gc
import os
import signal
import socket
import sys
from importlib import import_module
from types import CodeType

from nbrun._import_path import shadows_standard_library
from nbrun.local_server.control_pipe import ControlPipe, ServerSettings, read_line
from nbrun.local_server.process.zygote import IN_COMMON, Order, become_kernel, become_zygote, can_fork, threads_beside


def main(path: list[str]) -> CodeType | None:
    """Read the settings from standard input, move both pipes to private descriptors, and serve.

    `path` is the ``sys.path`` of a kernel. This returns only in a forked kernel, with the code that the kernel runs.
    """
    _accept_signals()
    gc.disable()  # until the server is ready: collections would take a tenth of the start and find nothing
    line = read_line(0)
    if not line:
        return None
    settings = ServerSettings.from_line(line)
    source, sink = os.dup(0), os.dup(1)  # not inheritable, unlike 0 and 1
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    forks = settings.zygote and can_fork() and not shadows_standard_library()
    zygote = _fork_zygote(settings, (source, sink)) if forks else None
    if isinstance(zygote, Order):
        return become_kernel(zygote, path)
    token = read_line(source).decode()  # after the fork, so that no kernel has it in its memory
    control_pipe = ControlPipe(settings, source, sink)
    import_module("nbrun._lazy_imports").put_off_imports()  # after the fork: kernels import as usual
    import_module("nbrun.local_server.process.stand_ins").install()
    import_module("nbrun.local_server.process.app").serve(settings, token, control_pipe, zygote)
    return None


def _accept_signals() -> None:
    """Unblock the signals that interrupt and end kernels, which inherit this process's signal mask.

    The zygote's kernels inherit the handlers too. nbrun may have been started with these signals ignored (``nohup``, a
    background job of a script) or blocked.
    """
    if sys.platform == "win32":
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fork_zygote(settings: ServerSettings, pipes: tuple[int, ...]) -> socket.socket | Order | None:
    """Fork the zygote and return the server's socket to it. In a kernel that the zygote forked, return the order.

    Return None if this process already has a second thread, for example from a sitecustomize.
    """
    for name in IN_COMMON:
        import_module(name)
    if threads_beside():
        return None
    server = os.getpid()
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    for pipe in pipes:  # an open copy would hide the end of nbrun
        os.close(pipe)
    return become_zygote(theirs, server, settings.preload)
