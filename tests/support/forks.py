"""Calls of ``python -m MODULE`` in processes that are forked from one that has imported nbrun's modules.

A fork takes less CPU time than a new interpreter, but the interpreter reads some variables only at its start. So
:meth:`ForkServer.takes` is false where a call has such a variable of its own.
"""

import atexit
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path

PROGRAM = Path(__file__).with_name("fork_server.py")
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "TZ", "OPENSSL_")
"""Beginnings of the names of variables that the interpreter and its libraries read when they are loaded."""


class ForkServer:
    """A running :mod:`tests.support.fork_server` with this environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._start = at_start(environ)
        self._calls, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(theirs.fileno())],
                env=environ,
                stdin=subprocess.PIPE,  # Python's objects for the streams are made for pipes, as the calls need them
                stdout=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the process."""
        self._calls.close()
        self._process.communicate(timeout=10)

    def takes(self, environ: Mapping[str, str]) -> bool:
        """Return whether a fork with this environment behaves like a new process."""
        return at_start(environ) == self._start

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        cwd: Path | None,
        timeout: float,
        stdin: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m module``, as :func:`subprocess.run` does with these parameters."""
        command = [sys.executable, "-m", module, *arguments]
        sys.audit("subprocess.Popen", sys.executable, command, cwd, environ)  # a unit test may not do this
        deadline = time.monotonic() + timeout
        os.umask(umask := os.umask(0o077))
        given = {"module": module, "arguments": arguments, "environ": dict(environ), "umask": umask}
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as theirs:
            call, their_call = socket.socketpair()
            answers = stack.enter_context(stack.enter_context(call).makefile("r"))
            theirs.enter_context(their_call)
            sent = [their_call.fileno(), os.open(cwd or ".", os.O_RDONLY | os.O_DIRECTORY)]
            ours = []
            for number in range(3):
                read, write = os.pipe()
                ours.append(stack.enter_context(FileIO(*((read, "r") if number else (write, "w")))))
                sent.append(write if number else read)
            for descriptor in sent[1:]:
                theirs.callback(os.close, descriptor)
            socket.send_fds(self._calls, [b"c"], sent)
            theirs.close()
            call.sendall(json.dumps(given).encode() + b"\n")
            pid = int(answers.readline())
            try:
                out, err = exchange(stdin.encode(), *ours, deadline=deadline)
                call.settimeout(max(deadline - time.monotonic(), 0.001))
                code = int(answers.readline())
            except TimeoutError as error:
                os.kill(pid, signal.SIGKILL)
                expired = subprocess.TimeoutExpired(command, timeout)
                expired.add_note("\n".join(map(str, error.args)))  # pytest shows it
                raise expired from None
        return subprocess.CompletedProcess(command, code, out, err)


def at_start(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that take effect only at the start of a process."""
    return {name: value for name, value in environ.items() if name.startswith(READ_AT_START)}


def exchange(data: bytes, stdin: FileIO, *outputs: FileIO, deadline: float) -> list[str]:
    """Write `data` to a pipe, and return as text what comes from the others until their ends.

    Raises :class:`TimeoutError` with the texts so far.
    """
    read = {output.fileno(): bytearray() for output in outputs}
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        for output in outputs:
            selector.register(output, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(*map(as_text, read.values()))
            for key, _ in ready:
                if key.fileobj is not stdin:
                    part = os.read(key.fd, 1 << 16)
                    read[key.fd] += part
                else:
                    try:
                        data = data[os.write(key.fd, data[: select.PIPE_BUF]) :]
                    except BrokenPipeError:
                        data = b""
                    part = data
                if not part:
                    selector.unregister(key.fileobj)
                    if key.fileobj is stdin:
                        stdin.close()
    return [*map(as_text, read.values())]


def as_text(data: bytearray) -> str:
    """Return the text of an output, with the line ends of a pipe that Python reads as text."""
    return data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
