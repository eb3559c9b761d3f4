"""The kernel provisioner of the private server: fork a kernel from the zygote, or start it.

A forked kernel is a child process of the server like any other. So only the launch differs from jupyter_client's local
provisioner. Signals, polling and waiting are unchanged.
"""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from jupyter_client.provisioning import LocalProvisioner

from nbrun.local_server.process.zygote import Order, adopt_orphans

ANSWER_LIMIT = 60.0
"""Seconds for an answer of the zygote, including its imports. After that kernels start without it."""

_HONOURED = ("-Xfrozen_modules=off",)
"""Interpreter options in a kernelspec that have no effect on the executed code."""


class ForkRefused(Exception):
    """The zygote has ended or cannot fork now; the message contains the reason."""


class Zygote:
    """The socket to the zygote. Kernels are forked one after the other."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(0)
        self._line: socket.socket | None = line
        self._turn = asyncio.Lock()

    async def fork(self, order: Order) -> int:
        """Return the pid of a new kernel, a child of this process; raise :class:`ForkRefused`."""
        asking = asyncio.create_task(self._ask(order))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_unwanted)
            raise

    async def _ask(self, order: Order) -> int:
        async with self._turn:
            if self._line is None:
                raise ForkRefused("the process that forks kernels is gone")
            adopt_orphans(wanted=True)
            try:
                async with asyncio.timeout(ANSWER_LIMIT):
                    answer = await self._exchange(self._line, order)
            except (OSError, TimeoutError) as error:
                answer = f"lost {error!r}".encode()
            finally:
                adopt_orphans(wanted=False)
            word, _, rest = answer.decode().strip().partition(" ")
            if word == "kernel":
                return int(rest)
            if word != "refused":  # it ended or hangs; closing the socket ends it
                self._line.close()
                self._line = None
            raise ForkRefused(rest or "the process that forks kernels has ended")

    @staticmethod
    async def _exchange(line: socket.socket, order: Order) -> bytes:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(line, order.line())
        answer = b""
        while not answer.endswith(b"\n"):
            part = await loop.sock_recv(line, 4096)
            if not part:
                return b""
            answer += part
        return answer


class ForkedProcess:
    """A child process that was not started by :mod:`subprocess`, with the part of Popen's interface that is used."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status like Popen, negative for a signal, or None while the process lives."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the end, and return the exit status."""
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        """Send a signal if the process has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # other code has already waited for it
                self.returncode = 0
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkingProvisioner(LocalProvisioner):
    """A kernel on this machine, forked by `zygote`, or started as usual if that is refused."""

    zygote: Zygote | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch the kernel, and return its connection info."""
        env: dict[str, str] = kwargs.get("env") or dict(os.environ)
        cwd = os.fspath(kwargs.get("cwd") or Path.cwd())
        if self.zygote is None or not _is_folder(cwd):
            return await super().launch_kernel(cmd, **kwargs)
        env["JPY_PARENT_PID"] = str(os.getpid())
        try:
            pid = await self.zygote.fork(Order(cmd, cwd, env))
        except ForkRefused as error:
            self.log.warning("A kernel is started, not forked: %s", error)
            return await super().launch_kernel(cmd, **kwargs)
        self.process = ForkedProcess(pid)
        self.pid = self.pgid = pid
        self.cwd = cwd
        return self.connection_info


def may_be_forked(spec: Any) -> bool:
    """Return whether a fork of the zygote is equivalent to what the kernelspec starts."""
    program, *words = spec.argv or [""]
    while words[:1] and words[0] in _HONOURED:
        del words[0]
    provisioner = spec.metadata.get("kernel_provisioner", {}).get("provisioner_name", "local-provisioner")
    return (
        _is_this_interpreter(program)
        and words[:2] in (["-m", "ipykernel_launcher"], ["-m", "ipykernel"])
        and not spec.env
        and provisioner == "local-provisioner"
    )


def _is_this_interpreter(program: str) -> bool:
    """Return whether `program` is this environment's interpreter; jupyter_client replaces ``python`` by it."""
    major, minor = sys.version_info[:2]
    if program in ("python", f"python{major}", f"python{major}.{minor}"):
        return True
    named, ours = PurePath(program), PurePath(sys.executable)
    with suppress(OSError):
        return named.is_absolute() and named.parent == ours.parent and Path(program).samefile(sys.executable)
    return False


def _is_folder(path: str) -> bool:
    """Return whether the folder exists. If not, the usual start reports the error."""
    return Path(path).is_dir()


def _unwanted(asking: "asyncio.Task[int]") -> None:
    """Kill a kernel that is no longer needed."""
    if not asking.cancelled() and asking.exception() is None:
        _kill(asking.result())


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
