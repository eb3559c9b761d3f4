"""The sessions and kernels APIs: start, list, interrupt and delete.

A path does not identify a session uniquely. If a session exists at a path, the server answers a request for a new one
with the *existing* session and status 201, even if it belongs to another client. Deleting it would end the other
client's kernel. So a run uses a path that no other client has: a new UUID in the notebook's folder. The server derives
the working directory from the folder. If the answer to the request is lost, the UUID also finds the session.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from msgspec import Struct

from nbrun.errors import KernelNotLaunched, KernelStartFailed, NoSuchKernel, NotFound, RequestRefused, ServerError
from nbrun.jupyter.endpoint import api_path, contents_path
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.messages import LONG, Fields
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, START, TEARDOWN, RetryPolicy

_NOT_LAUNCHED = re.compile(r"\[Errno \d+\] (?P<why>[^\n]+?): '(?P<path>[^'\n]+)'")
"""The server's message if the operating system could not start the kernel's program."""
SWEEP_LOOKS = 20
SWEEP_LIMIT = 5.0
"""Seconds for a cancelled start to find and delete its kernel."""


class KernelModel(Struct, frozen=True):
    """A running kernel as the server describes it.

    ``execution_state`` is the last state that the server saw. It stays ``starting`` until the first request that the
    server tracks. If it is ``dead``, there is a ``reason``. ``connections`` is the number of websockets of all clients.
    """

    id: str
    name: str
    execution_state: str | None = None
    connections: int | None = None
    last_activity: datetime | None = None
    reason: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the server's JSON; raise :class:`NotAJupyterServer` if id or name is missing."""
        return cls(
            id=fields.identifier("id"),
            name=fields.text("name"),
            execution_state=fields.maybe_text("execution_state"),
            connections=fields.maybe_integer("connections"),
            last_activity=fields.maybe_time("last_activity"),
            reason=fields.words("reason") or None,
        )


class SessionModel(Struct, frozen=True):
    """A session as the server describes it. ``type`` is ``notebook``, ``console`` or a word of its creator.

    ``kernel`` is None if the session's kernel has just ended.
    """

    id: str
    path: str
    name: str
    type: str
    kernel: KernelModel | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the server's JSON; raise :class:`NotAJupyterServer` if the id is missing or the kernel malformed."""
        kernel = None if fields.raw("kernel") is None else KernelModel.read(fields.child("kernel"))
        path, name, kind = (fields.maybe_text(key) or "" for key in ("path", "name", "type"))
        if not path and fields.raw("notebook") is not None:  # the form of a kernel gateway
            path = fields.child("notebook").maybe_text("path") or ""
        return cls(fields.identifier("id"), path, name, kind, kernel)


class Sessions:
    """The sessions of one server. Every method may also raise the errors of :meth:`Http.request`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def list(self) -> tuple[SessionModel, ...]:
        """Return all live sessions, including those of other clients."""
        answer = await self._http.request("GET", api_path("sessions"))
        return tuple(SessionModel.read(row) for row in answer.rows())

    async def get(self, session_id: str) -> SessionModel:
        """Return one session; raise :class:`NotFound`."""
        answer = await self._http.request("GET", api_path("sessions", session_id))
        return SessionModel.read(answer.fields())

    async def start(
        self, notebook_path: str, kernel_name: str, *, kind: str = "console", env: Mapping[str, str] | None = None
    ) -> SessionModel:
        """Start a new kernel in the notebook's folder, and return its session.

        The session's path is ``<folder>/nbrun-<uuid>``, its name the notebook's. The `kind` ``console`` keeps a server
        that records documents itself from recording this one. A user can attach a console to watch. If the answer is
        lost, the request is repeated only after a search for that path, and a second session is deleted. Only nbrun's
        private server sets the environment variables `env`; other servers ignore them.

        Raises :class:`NoSuchKernel`, :class:`KernelStartFailed` if the kernel's program cannot be launched, and
        :class:`ServerError` if the server returns a session of another path.
        """
        folder, _, name = contents_path(notebook_path).rpartition("/")
        path = f"{folder}/nbrun-{uuid.uuid4()}".lstrip("/")
        kernel: dict[str, Any] = {"name": kernel_name, **({"env": dict(env)} if env else {})}
        body = {"path": path, "name": name, "type": kind, "kernel": kernel}
        try:
            return await self._started(path, body)
        except asyncio.CancelledError:
            await self._sweep(path)
            raise

    async def attach(self, path: str, kernel_id: str, *, kind: str = "console") -> SessionModel:
        """Create a session for a running kernel. Do not delete it: that would end the kernel for all clients."""
        path = contents_path(path)
        body = {"path": path, "name": path.rpartition("/")[2], "type": kind, "kernel": {"id": kernel_id}}
        return await self._posted(body)

    async def rename(self, session_id: str, path: str) -> SessionModel:
        """Change a session's path, so that a frontend that opens the path finds the session. Not repeated."""
        path = contents_path(path)
        body = {"path": path, "name": path.rpartition("/")[2]}
        answer = await self._http.request("PATCH", api_path("sessions", session_id), json=body)
        return SessionModel.read(answer.fields())

    async def move(self, session_id: str, path: str) -> None:
        """Change a session's path but not its name, so that its kernel keeps its environment. Not repeated."""
        await self._http.request("PATCH", api_path("sessions", session_id), json={"path": contents_path(path)})

    def server_time(self) -> datetime:
        """Return the server's time according to its last response."""
        return self._http.server_time()

    async def delete(self, session_id: str, *, retry: RetryPolicy = TEARDOWN) -> None:
        """Delete a session and its kernel; repeat until it is gone. A session that does not exist is not an error.

        A server takes some seconds for a kernel that ignores the signal, and answers 500 for one that has just died.
        """
        await _gone(self._http, api_path("sessions", session_id), retry)

    async def _posted(self, body: Mapping[str, Any]) -> SessionModel:
        try:
            answer = await self._http.request("POST", api_path("sessions"), json=body, patience=LONG, retry=ONCE)
        except RequestRefused as error:
            if error.status == 501:
                raise NoSuchKernel(
                    error.reason, hint="`jupyter kernelspec list` on the server shows what it can start."
                ) from None
            if error.status == 500 and (found := _NOT_LAUNCHED.search(str(error))):
                raise KernelNotLaunched(
                    f"kernel {body['kernel'].get('name', '')}: cannot be launched: {found['why']}: {found['path']}",
                    hint="If its kernelspec is of an environment that is gone, install the kernel anew, or choose "
                    "another with --kernel.",
                ) from None
            if error.status == 500:
                what = f"kernel {body['kernel'].get('name', '')}: not started: {error.reason}"
                raise KernelStartFailed(what, hint="The server's log says more.") from None
            raise
        session = SessionModel.read(answer.fields())
        if session.path.strip("/") != body["path"]:
            raise ServerError(f"{answer.where}: asked for a session at {body['path']!r}, got one at {session.path!r}")
        return session

    async def _at(self, path: str) -> Sequence[SessionModel]:
        return [session for session in await self.list() if session.path.strip("/") == path]

    async def _started(self, path: str, body: Mapping[str, Any]) -> SessionModel:
        started: Sequence[SessionModel] = ()
        repeated = False
        async for attempt in START.attempts():
            with attempt:
                if not repeated:
                    repeated = True
                    started = [await self._posted(body)]
                else:
                    started = await self._at(path) or [await self._posted(body)]
                    for double in await self._at(path):
                        if double.id != started[0].id:
                            await self.delete(double.id)
        return started[0]

    async def _sweep(self, path: str) -> None:
        """Delete the session that a cancelled request created at `path`.

        The server completes the request and then lists it.
        """
        with contextlib.suppress(ServerError, TimeoutError):
            async with asyncio.timeout(SWEEP_LIMIT):
                left: Sequence[SessionModel] = ()
                for _ in range(SWEEP_LOOKS):
                    left = left or await self._at(path)
                    if not left:
                        await asyncio.sleep(SWEEP_LIMIT / SWEEP_LOOKS)
                for session in left:
                    await self.delete(session.id)


class Kernels:
    """The running kernels of one server. Every method may also raise the errors of :meth:`Http.request`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def list(self) -> tuple[KernelModel, ...]:
        """Return all running kernels, including those of other clients."""
        answer = await self._http.request("GET", api_path("kernels"))
        return tuple(KernelModel.read(row) for row in answer.rows())

    async def get(self, kernel_id: str, *, retry: RetryPolicy = PATIENT_GET) -> KernelModel:
        """Return one kernel; raise :class:`NotFound` if it was deleted, culled or lost when the server restarted.

        Servers count this request as activity. One request per minute keeps a silent kernel from being culled.
        """
        answer = await self._http.request("GET", api_path("kernels", kernel_id), retry=retry)
        return KernelModel.read(answer.fields())

    async def create(self, name: str, path: str = "", *, env: Mapping[str, str] | None = None) -> KernelModel:
        """Start a kernel without a session in the folder of `path`. Only kernel gateways use `env`.

        Raises :class:`KernelStartFailed`, also for an unknown name, because servers answer it with a 500.
        """
        body: dict[str, Any] = (
            {"name": name} | ({"path": contents_path(path)} if path else {}) | ({"env": dict(env)} if env else {})
        )
        try:
            answer = await self._http.request("POST", api_path("kernels"), json=body, patience=LONG)
        except RequestRefused as error:
            if error.status == 500:
                raise KernelStartFailed(
                    f"kernel {name}: not started: {error.reason}",
                    hint="Is there a kernel of that name? The server's log says more.",
                ) from None
            raise
        return KernelModel.read(answer.fields())

    async def interrupt(self, kernel_id: str) -> None:
        """Ask the server to interrupt a kernel. The answer does not show whether the kernel reacted.

        An ipykernel that waits in an ``await`` reacts only to the next message on its shell channel, so send one.
        """
        await self._http.request("POST", api_path("kernels", kernel_id, "interrupt"), retry=PATIENT_GET)

    async def restart(self, kernel_id: str) -> KernelModel:
        """Restart a kernel and wait for the new one, up to the server's limit of one minute. Not repeated."""
        answer = await self._http.request("POST", api_path("kernels", kernel_id, "restart"), patience=LONG)
        return KernelModel.read(answer.fields())

    async def delete(self, kernel_id: str, *, retry: RetryPolicy = TEARDOWN) -> None:
        """Delete a kernel and every session on it, in the same way as :meth:`Sessions.delete`."""
        await _gone(self._http, api_path("kernels", kernel_id), retry)


async def _gone(http: Http, path: str, retry: RetryPolicy = TEARDOWN) -> None:
    """Repeat DELETE until the server answers 204, 404 or, if the kernel ended before its session, 410."""
    with contextlib.suppress(NotFound):
        try:
            await http.request("DELETE", path, retry=retry)
        except RequestRefused as error:
            if error.status != 410:
                raise
