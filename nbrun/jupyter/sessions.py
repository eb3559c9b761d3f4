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
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from nbrun.errors import KernelNotLaunched, KernelStartFailed, NoSuchKernel, NotFound, RequestRefused, ServerError
from nbrun.jupyter.endpoint import api_path, contents_path
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.messages import LONG, Fields
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, START, TEARDOWN, RetryPolicy

_NOT_LAUNCHED = re.compile(r"\[Errno \d+\] (?P<why>[^\n]+?): '(?P<path>[^'\n]+)'")
"""How the server tells that the operating system would not run a kernel's program."""
SWEEP_LOOKS = 20
SWEEP_LIMIT = 5.0
"""Seconds that an interrupted start may take to find and delete the kernel it had asked for."""


@dataclass(frozen=True, slots=True)
class KernelModel:
    """A running kernel as the server describes it.

    ``execution_state`` is what the server last saw: it stays ``starting`` until the first request it tracks. With
    ``dead`` comes a ``reason``. ``connections`` counts websockets, all clients together.
    """

    id: str
    name: str
    execution_state: str | None = None
    connections: int | None = None
    last_activity: datetime | None = None
    reason: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the server's JSON; raises :class:`NotAJupyterServer` where id or name is missing."""
        return cls(
            id=fields.identifier("id"),
            name=fields.text("name"),
            execution_state=fields.maybe_text("execution_state"),
            connections=fields.maybe_integer("connections"),
            last_activity=fields.maybe_time("last_activity"),
            reason=fields.words("reason") or None,
        )


@dataclass(frozen=True, slots=True)
class SessionModel:
    """A session as the server describes it; ``type`` is ``notebook``, ``console`` or any word its creator chose.

    ``kernel`` is None for a session whose kernel has just gone.
    """

    id: str
    path: str
    name: str
    type: str
    kernel: KernelModel | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the server's JSON; raises :class:`NotAJupyterServer` where the id is missing or the kernel malformed."""
        kernel = None if fields.raw("kernel") is None else KernelModel.read(fields.child("kernel"))
        path, name, kind = (fields.maybe_text(key) or "" for key in ("path", "name", "type"))
        if not path and fields.raw("notebook") is not None:  # as a kernel gateway says it
            path = fields.child("notebook").maybe_text("path") or ""
        return cls(fields.identifier("id"), path, name, kind, kernel)


class Sessions:
    """The sessions of one server; every method may also raise what :meth:`Http.request` does."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def list(self) -> tuple[SessionModel, ...]:
        """List all live sessions, other people's too."""
        answer = await self._http.request("GET", api_path("sessions"))
        return tuple(SessionModel.read(row) for row in answer.rows())

    async def get(self, session_id: str) -> SessionModel:
        """Fetch one session; raises :class:`NotFound`."""
        answer = await self._http.request("GET", api_path("sessions", session_id))
        return SessionModel.read(answer.fields())

    async def start(self, notebook_path: str, kernel_name: str, *, kind: str = "console") -> SessionModel:
        """Start a kernel of its own for a notebook, in the notebook's folder; returns its session.

        The session's path is ``<folder>/nbrun-<uuid>``, its name the notebook's. `kind` ``console`` keeps a server that
        records documents itself from recording this one, and lets a user attach a console to watch. A request whose
        answer got lost is repeated only after looking for that path, and what a repetition started twice is deleted.

        Raises :class:`NoSuchKernel`, :class:`KernelStartFailed` where the kernel's program cannot be launched, and
        :class:`ServerError` where the server gives a session of another path.
        """
        folder, _, name = contents_path(notebook_path).rpartition("/")
        path = f"{folder}/nbrun-{uuid.uuid4()}".lstrip("/")
        body = {"path": path, "name": name, "type": kind, "kernel": {"name": kernel_name}}
        try:
            return await self._started(path, body)
        except asyncio.CancelledError:
            await self._sweep(path)
            raise

    async def attach(self, path: str, kernel_id: str, *, kind: str = "console") -> SessionModel:
        """Open a session on a kernel that runs already. Deleting it kills that kernel for all: leave it."""
        path = contents_path(path)
        body = {"path": path, "name": path.rpartition("/")[2], "type": kind, "kernel": {"id": kernel_id}}
        return await self._posted(body)

    async def rename(self, session_id: str, path: str) -> SessionModel:
        """PATCH a session's path, so that a frontend that opens that path finds it; not repeated."""
        path = contents_path(path)
        body = {"path": path, "name": path.rpartition("/")[2]}
        answer = await self._http.request("PATCH", api_path("sessions", session_id), json=body)
        return SessionModel.read(answer.fields())

    async def move(self, session_id: str, path: str) -> None:
        """PATCH a session's path and leave its name, so that its kernel keeps its environment; not repeated."""
        await self._http.request("PATCH", api_path("sessions", session_id), json={"path": contents_path(path)})

    def server_time(self) -> datetime:
        """Return the server's time according to its last response."""
        return self._http.server_time()

    async def delete(self, session_id: str, *, retry: RetryPolicy = TEARDOWN) -> None:
        """Delete a session and kill its kernel, repeating until it is gone; that it was gone before is no error.

        A server takes some seconds for a kernel that ignores the signal, and answers 500 for one that just died.
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
        """Delete what an abandoned request starts at `path`: the server carries on, and lists it when it is up."""
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
    """The running kernels of one server; every method may also raise what :meth:`Http.request` does."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def list(self) -> tuple[KernelModel, ...]:
        """List all running kernels, other people's too."""
        answer = await self._http.request("GET", api_path("kernels"))
        return tuple(KernelModel.read(row) for row in answer.rows())

    async def get(self, kernel_id: str, *, retry: RetryPolicy = PATIENT_GET) -> KernelModel:
        """Fetch one kernel; raises :class:`NotFound` for one that was deleted, culled or lost in a server's restart.

        Servers count this as activity, so asking once a minute keeps a silent kernel from being culled.
        """
        answer = await self._http.request("GET", api_path("kernels", kernel_id), retry=retry)
        return KernelModel.read(answer.fields())

    async def create(self, name: str, path: str = "", *, env: Mapping[str, str] | None = None) -> KernelModel:
        """Start a kernel without a session, its working directory that of `path`; `env` is for kernel gateways only.

        Raises :class:`KernelStartFailed`, also for an unknown name, for which servers answer a bare 500.
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
        """Ask the server to interrupt a kernel. It says when it has asked, not whether the kernel listened.

        An ipykernel that sits in an ``await`` wakes up only for the next message on its shell channel: send one.
        """
        await self._http.request("POST", api_path("kernels", kernel_id, "interrupt"), retry=PATIENT_GET)

    async def restart(self, kernel_id: str) -> KernelModel:
        """Restart a kernel and wait for the new one, up to the server's own limit (a minute); not repeated."""
        answer = await self._http.request("POST", api_path("kernels", kernel_id, "restart"), patience=LONG)
        return KernelModel.read(answer.fields())

    async def delete(self, kernel_id: str) -> None:
        """Kill a kernel, and with it every session on it; repeated and forgiving as :meth:`Sessions.delete`."""
        await _gone(self._http, api_path("kernels", kernel_id))


async def _gone(http: Http, path: str, retry: RetryPolicy = TEARDOWN) -> None:
    """DELETE until the server says 204, 404 or, for a session whose kernel went first, 410."""
    with contextlib.suppress(NotFound):
        try:
            await http.request("DELETE", path, retry=retry)
        except RequestRefused as error:
            if error.status != 410:
                raise
