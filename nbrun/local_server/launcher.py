"""Start and stop the private server of a run without ``--server``.

The server listens only for nbrun: on a Unix socket in a folder of mode 0700, or on loopback where Unix sockets are not
available. It receives its settings and token through a pipe and ends with this pipe. If nbrun ends, even by SIGKILL,
the server and its kernels end and the folder is deleted. :mod:`nbrun.local_server.control_pipe` describes the pipe.
The server's side is :mod:`nbrun.local_server.process.app`. It is never imported here, because ``jupyter_server`` is
an optional dependency and takes a second to import.
"""

import asyncio
import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from nbrun.errors import NbrunError, PrivateServerEnded, ServerError, ServerUnreachable, UsageError
from nbrun.jupyter.endpoint import Endpoint
from nbrun.local_server.control_pipe import LiveKernels, Ready, ServerSettings, kill_groups, read_news
from nbrun.local_server.process.kernel_environment import kernel_environment, withheld_from_server

STARTS = 3
"""Maximum starts of the server's process if it ends before it answers."""

START_LIMIT = 60.0
"""Seconds for the server to start, enough for a cold disk on a busy machine."""

STOP_LIMIT = 5.0
"""Seconds for the server to end before it is killed. It usually takes some hundredths of a second."""

NEWS_LIMIT = 1.0
"""Seconds until nbrun knows that its private server has ended, once it does not answer."""

ZYGOTE_VARIABLE = "NBRUN_ZYGOTE"

LOG_LINES = 15
"""Lines of the server's log in an error message."""

_LONGEST_SOCKET = 103
"""Maximum bytes of a Unix socket's path on macOS, which has the lowest limit (sun_path in unix(4))."""

_LONGEST_NAME = len("/12345678-5")
"""Bytes of the longest socket name in the folder: a kernel's heartbeat."""

_ROOM = "It needs a folder for a log and sockets: let TMPDIR name one with room that can be written."
_KILLED = (
    "A process that is killed by SIGKILL was usually killed for using too much memory: look for the host's "
    "out-of-memory log line."
)
_HINTS = {
    errno.EMFILE: "Too many files are open in this process: raise the limit with  ulimit -n.",
    errno.ENFILE: "Too many files are open on this machine.",
    errno.EAGAIN: "There are too many processes: raise the limit with  ulimit -u, or run fewer at once.",
    errno.ENOMEM: "There is too little memory.",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _ROOM,
    errno.EACCES: _ROOM,
}
"""Hints for errors of the operating system, by number."""

_ENTRY = re.compile(r"\[[DIWEC] \d{4}-\d\d-\d\d ")
"""The beginning of an entry in the server's log."""

_LOG_TAIL_BYTES = 64 * 1024

_COMMAND = """\
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
path = [*sys.path]
from nbrun._import_path import standard_library_first
standard_library_first(ARGUMENTS)
from nbrun.local_server.process.boot import main
launch = main(path)
del main, path, standard_library_first
if launch is not None:
    exec(launch)
"""

_log = logging.getLogger(__name__)


class EmbeddedServer:
    """A private server for `root`, started by ``async with`` or by `start` and `ready`, and stopped at the end.

    `root` is an existing folder; contents paths are relative to it. `start_limit` is in seconds. With `tcp`, the server
    and its kernels listen on free loopback ports, as on platforms without Unix sockets. With `zygote`, kernels are
    forked from a process that has imported ipykernel and the modules in `preload`, if the platform and the kernelspec
    allow it (:mod:`nbrun.local_server.process.zygote`). None means true unless the environment has
    ``NBRUN_ZYGOTE=0``.

    A server that ends during its start is started again, up to `STARTS` times. It then prefers the installed packages
    to those in PYTHONPATH. Raises :class:`UsageError` if the server or the Python kernel is not installed or `root` is
    not a folder, and :class:`ServerError` with the last lines of the log if it does not start.
    """

    def __init__(
        self,
        root: Path,
        *,
        start_limit: float = START_LIMIT,
        tcp: bool = False,
        zygote: bool | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self._root = root.absolute()
        self._start_limit = start_limit
        self._tcp = tcp
        self._zygote = os.environ.get(ZYGOTE_VARIABLE) != "0" if zygote is None else zygote
        self._preload = tuple(preload)
        self._token = secrets.token_hex(24)
        self._folder: Path | None = None
        self._socket = ""
        self._process: Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self._port: asyncio.Future[int] | None = None
        self._kernels: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        """Start the server if necessary, and wait until it answers."""
        try:
            if self._process is None:
                await self.start()
            await self.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server."""
        await self.stop()

    @property
    def endpoint(self) -> Endpoint:
        """Return the server's address and token; known once `ready` has returned."""
        if self._socket:
            return Endpoint(base_url="http://localhost/", token=self._token, socket=self._socket)
        port = self._port.result() if self._port is not None and self._port.done() else 0
        return Endpoint(base_url=f"http://127.0.0.1:{port}/", token=self._token)

    @property
    def has_ended(self) -> bool:
        """Return whether the server's process has ended by itself after its start."""
        return self._listener is not None and self._listener.done()

    async def start(self) -> None:
        """Start the server's process without waiting until it answers; `ready` waits.

        The caller must also call `stop` in every case. Raises :class:`ServerError` if its folder cannot be created, or
        if the operating system cannot start another process.
        """
        _check_installed()
        if not self._root.is_dir():
            raise UsageError(f"{self._root}: there is no such folder to serve notebooks from")
        try:
            await self._spawn()
        except BaseException:
            await self.stop()
            raise

    async def _spawn(self, *, cautious: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._port = loop.create_future()
        self._deadline = loop.time() + self._start_limit
        self._folder = _private_folder()
        self._socket = "" if self._tcp else _socket_in(self._folder)
        environment = kernel_environment(os.environ)
        withheld = withheld_from_server(environment)
        settings = ServerSettings(
            root=str(self._root),
            folder=str(self._folder),
            socket=self._socket,
            ipc=bool(self._socket),
            zygote=self._zygote and not withheld and not cautious,
            preload=self._preload,
            environment=withheld,
        )
        try:
            with self._log.open("wb") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    _command(cautious=cautious),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env={name: value for name, value in environment.items() if name not in withheld},
                    start_new_session=True,  # so that Ctrl-C does not reach it: nbrun saves through this server
                )
        except OSError as error:
            raise ServerError(
                f"the private server cannot be started: {error.strerror or error}",
                hint=_HINTS.get(error.errno or 0, ""),
            ) from error
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the pipes were asked for")
        self._listener = asyncio.create_task(self._listen(self._process.stdout), name="private server's news")
        self._process.stdin.write(settings.line() + self._token.encode() + b"\n")

    async def ready(self) -> Endpoint:
        """Wait until the server answers, and return its address.

        Raises :class:`ServerError` if it ended at each start, or does not answer within `start_limit` seconds.
        """
        for start in range(1, STARTS + 1):
            if self._port is None:
                raise AssertionError("start comes first")
            try:
                async with asyncio.timeout_at(self._deadline):
                    await asyncio.shield(self._port)
            except TimeoutError:
                raise self._failure(f"the private server did not answer within {self._start_limit:g} s") from None
            except PrivateServerEnded:
                if start == STARTS:
                    raise
                _log.info("the private server ended while it started; starting it again")
                await self.stop()
                await self._spawn(cautious=True)
            else:
                break
        taken = self._start_limit - (self._deadline - asyncio.get_running_loop().time())
        _log.info("private server at %s, root %s, ready after %.2f s", self.endpoint, self._root, taken)
        return self.endpoint

    async def ended(self) -> ServerError:
        """Wait until the server's process ends by itself; return the error for the caller to raise."""
        if self._listener is None or self._process is None:
            raise AssertionError("start comes first")
        await asyncio.wait([self._listener])
        return self._failure(f"the private server {await self._end_in_words()}")

    async def explain(self, error: ServerUnreachable) -> NbrunError:
        """Return the error for a failed connection. If the server has ended, it says so."""
        if self._listener is None:
            return error
        await asyncio.wait([self._listener], timeout=NEWS_LIMIT)
        if self.has_ended:
            return await self.ended()
        what = "does not answer" if "no answer" in str(error) else "broke the connection"
        return self._failure(f"the private server {what}", ServerUnreachable)

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """Return the last `lines` of the log of the server and its kernels; empty after `stop`."""
        return "\n".join(self._log_end()[-lines:])

    def kernels_log_tail(self, lines: int = LOG_LINES) -> str:
        """Return the last `lines` of the log that the server itself did not write, such as the error of a kernel."""
        return "\n".join(without_entries_of_server(self._log_end())[-lines:])

    def _log_end(self) -> list[str]:
        if self._folder is None or not self._log.exists():
            return []
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _LOG_TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return text.replace(self._token, "[token]").splitlines()

    async def stop(self) -> None:
        """End the server and its kernels and delete its folder. Do nothing if it is stopped already.

        This takes some hundredths of a second, and at most `STOP_LIMIT` if the server hangs.
        """
        process, self._process = self._process, None
        listener, self._listener = self._listener, None
        try:
            if process is not None:
                await asyncio.shield(_end(process))
        finally:
            if process is not None and process.returncode is None:
                process.kill()
            kill_groups(self._kernels)
            self._kernels = ()
            if listener is not None:
                listener.cancel()
                await asyncio.wait([listener])
            folder, self._folder = self._folder, None
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        if self._folder is None:
            raise AssertionError("start comes first")
        return self._folder / "log"

    async def _listen(self, news: asyncio.StreamReader) -> None:
        """Read the server's messages until it has ended; then kill the kernels that it has left."""
        if self._port is None:
            raise AssertionError("start comes first")
        while line := await news.readline():
            match read_news(line):
                case Ready(port):
                    self._port.set_result(port)
                case LiveKernels(pids):
                    self._kernels = pids
                case None:  # printed by a sitecustomize or similar, before the server took over its pipes
                    pass
        kill_groups(self._kernels)
        self._kernels = ()
        if not self._port.done():
            self._port.set_exception(
                self._failure(f"the private server {await self._end_in_words('while it started')}")
            )
            self._port.exception()  # mark it as retrieved, because possibly nothing awaits it

    async def _end_in_words(self, when: str = "") -> str:
        """Return how the process ended, as the end of a sentence whose subject is the server."""
        code = None if self._process is None else await self._process.wait()
        if code is None:
            return "was stopped"
        if code >= 0:
            return " ".join(filter(None, ("ended", when or "by itself", f"(exit status {code})")))
        with contextlib.suppress(ValueError):
            return " ".join(filter(None, (f"was killed by {signal.Signals(-code).name}", when)))
        return " ".join(filter(None, (f"was killed by signal {-code}", when)))

    def _failure(self, message: str, kind: type[ServerError] = PrivateServerEnded) -> ServerError:
        tail = self.log_tail()
        hints = [_KILLED] if "SIGKILL" in message else []
        hints.append(f"The last lines of its log:\n{tail}" if tail else "Its log is empty.")
        return kind(message, hint=" ".join(hints))


def without_entries_of_server(lines: Sequence[str]) -> list[str]:
    """Return the lines that are not entries of the server's log.

    Continuation lines of an entry are indented by four spaces.
    """
    kept, inside = [], False
    for line in lines:
        inside = bool(_ENTRY.match(line)) or (inside and line.startswith("    "))
        if not inside:
            kept.append(line)
    return kept


def _command(*, cautious: bool = False) -> str:
    """Return the code for ``python -c`` that becomes the private server.

    Neither the current folder nor a folder in PYTHONPATH may hide the standard library: a json.py there must not break
    the server. Python's own option for the current folder, ``-P``, would be inherited by forked kernels. A `cautious`
    server prefers all installed packages to those in PYTHONPATH.

    A forked kernel continues in this code, at the bottom of its stack. So none of its frames refers to the server's
    settings.
    """
    return _COMMAND.replace("ARGUMENTS", "users_last=True" if cautious else "")


async def _end(process: Process) -> None:
    """Close the control pipe and wait for the process; kill it if it hangs."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_LIMIT)
    if process.returncode is None:
        process.kill()
        await process.wait()


def _check_installed() -> None:
    missing = [name for name in ("jupyter_server", "ipykernel") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"there is no {' and no '.join(missing)} in this environment to run a private server with",
            hint='Install it with  pip install "jupyter-nbrun[local]"  or name a running server with  --server URL.',
        )


def _private_folder() -> Path:
    """Create a folder that only this user may enter, with a path short enough for sockets if possible."""
    longest = _LONGEST_SOCKET - _LONGEST_NAME - len("/nbrun-12345678")
    try:
        for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 - mkdtemp makes it safe
            if len(os.fsencode(base)) <= longest and os.access(base, os.W_OK):
                with contextlib.suppress(OSError):
                    return Path(tempfile.mkdtemp(prefix="nbrun-", dir=base))
        return Path(tempfile.mkdtemp(prefix="nbrun-"))
    except OSError as error:
        raise ServerError(
            f"no folder for the private server can be made: {error.strerror or error}", hint=_ROOM
        ) from error


def _socket_in(folder: Path) -> str:
    """Return the path of a Unix socket in `folder`, or an empty text if they are not supported there."""
    path = str(folder / "server")
    if not hasattr(socket, "AF_UNIX") or len(os.fsencode(folder)) + _LONGEST_NAME > _LONGEST_SOCKET:
        return ""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(path)
    except OSError:
        return ""
    Path(path).unlink()
    return path
