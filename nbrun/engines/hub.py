"""The engine of a JupyterHub: its named servers are seats that this process controls.

``--engine hub+https://hub.example.org/ -j 8`` creates up to eight named servers of one user, runs the notebooks on them
as with ``--upload``, and stops and deletes them at the end. It never touches another server.

The name of a server is its owner mark: ``nbrun-``, the time of its creation, and a random id. The mark expires
:data:`LIFETIME` after the last activity that the hub knows of. It is renewed every minute, by a report of activity if
the token permits it, and otherwise by a request to the server itself. A killed nbrun renews nothing. So the next one
finds the expired mark, and deletes the server if two looks 30 s apart show no connection and only idle kernels. It
deletes the tokens of servers that are gone, too.
"""

import asyncio
import contextlib
import functools
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from msgspec import structs

from nbrun.core.planning.option_types import Named, Text
from nbrun.errors import AccessDenied, NbrunError, NotFound, RequestRefused, ServerError, ServerUnreachable, UsageError
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.client import Http, HttpOptions
from nbrun.jupyter.http.retry import ONCE, pause_after
from nbrun.jupyter.hub import HubClient, HubIdentity, HubToken, NamedServer
from nbrun.jupyter.sessions import KernelModel
from nbrun.runner.engine import ControlledSeat, EngineCall, server_seat
from nbrun.runner.job import NotebookPaths
from nbrun.runner.left_sessions import SECONDS_BETWEEN_LOOKS, end_left, find_left, kernel_answers
from nbrun.storage.base import Notebook
from nbrun.storage.uploaded import UPLOAD_FOLDER, remove_upload

LIFETIME = timedelta(minutes=15)
"""Time without activity after which the mark of a server expires. Servers report activity to a hub every 5 minutes."""
RENEWED_EVERY = 60.0
TOKEN_LIFETIME = 24 * 3600.0
"""Seconds for which the token of a seat is valid, so that nothing of a killed nbrun stays valid for long."""
STARTS = 3
"""Maximum number of failed starts in a row while other seats run; afterwards the batch goes on with these."""
END_LIMIT = 9.0
"""Seconds to stop and delete all servers at the end."""
REMOVE_LIMIT = 7.0
"""Seconds to wait until a server is gone. The hub completes a removal that takes longer."""
TOKEN_LIMIT = 1.0
"""Seconds to wait at the end for the answer to a request that creates or deletes a token."""
CLOSE_LIMIT = 4.0
"""Seconds to wait for the end of a lost seat, so that its place counts no more against the hub's limit."""
FindNotebook = Callable[[NotebookPaths, Callable[[str], None]], Notebook]
_NAME = re.compile(r"nbrun-(?P<created>[0-9a-f]{8})-[0-9a-f]{8}")
_NOTE = "nbrun: "
"""The beginning of the note of a token; the name of its server follows."""
_AT_REST = frozenset({"idle", "dead", None})
_log = logging.getLogger(__name__)


class Hub:
    """The engine of one hub and one user."""

    executes = False

    def __init__(self, call: EngineCall) -> None:
        settings = call.read({"user": Text(), "profile": Text(), "options": Named()})
        destination = Endpoint.parse(call.url.partition("+")[2], call.access.token)
        self.call = call
        self.endpoint = destination.endpoint
        self.user: str | None = settings.get("user")
        self.options: dict[str, Any] = {**settings.get("options", {})}
        if "profile" in settings:
            self.options["profile"] = settings["profile"]
        if "/user/" in self.endpoint.base_url:
            hint = "Give the address of the hub. --server and --upload run notebooks on this server."
            raise UsageError(f"--engine: {self.endpoint} is a server of a hub, not a hub", hint=hint)
        if not self.endpoint.token:
            hint = f"Create one at {self.endpoint}hub/token, and set NBRUN_TOKEN or name a file with --token-file."
            raise UsageError(f"--engine: the hub at {self.endpoint} needs a token", hint=hint)

    @asynccontextmanager
    async def seats(self, wanted: int) -> AsyncIterator[AsyncIterator[ControlledSeat]]:
        """Check the token, and start the servers when the first seat is requested."""
        access = self.call.access
        options = HttpOptions(access.ca_file, access.verify, access.headers)
        async with Http(self.endpoint, options) as http:
            hub = HubClient(http)
            me, user = await self._identify(hub)
            seats = _Seats(self, hub, me, user, wanted, options)
            renewing, cleaning = asyncio.create_task(seats.renew()), asyncio.create_task(seats.remove_left())
            try:
                yield seats.each()
            finally:
                for task in (renewing, cleaning):
                    task.cancel()
                await seats.end()
                await asyncio.wait({renewing, cleaning}, timeout=TOKEN_LIMIT)

    async def _identify(self, hub: HubClient) -> tuple[HubIdentity, str]:
        """Return the owner of the token and the user of the servers; raise :class:`NbrunError` for a useless token."""
        page = f"{self.endpoint}hub/token"
        try:
            me = await hub.me()
        except (AccessDenied, RequestRefused) as error:
            hint = (
                f"Create a token at {page}, and set NBRUN_TOKEN. One of a service comes from the hub's administrator."
            )
            raise AccessDenied(f"{self.endpoint}: the hub does not accept the token", hint=hint) from error
        if me.kind != "user" and not self.user:
            hint = 'Set [tool.nbrun.engine.hub] user = "NAME": the servers belong to this user.'
            raise UsageError(f"{self.endpoint}: the token is that of the service {me.name}, not of a user", hint=hint)
        user = self.user or me.name
        missing = _missing_scopes(me, user)
        if missing:
            hint = f"Create a token with these scopes at {page}, or ask the hub's administrator for a role with them."
            where = f"{self.endpoint}: the token of {me.name} may not run servers of {user}"
            raise UsageError(f"{where}: it lacks {', '.join(missing)}", hint=hint)
        try:
            await hub.servers(user)
        except NotFound:
            hint = "Names are case-sensitive. A user exists after the first login, or once an administrator added it."
            raise UsageError(f"{self.endpoint}: the hub has no user {user}", hint=hint) from None
        return me, user


def _missing_scopes(me: HubIdentity, user: str) -> list[str]:
    """Return the scopes that a token lacks to create, use and delete servers."""
    if not me.scopes:  # a hub before version 2
        return []
    missing = [scope for scope in ("delete:servers", "read:servers") if not me.may(scope, user)]
    if not me.may("start:servers", user) and not me.may("servers", user):  # the narrower one is new in JupyterHub 6
        missing.insert(0, "servers")
    if not me.may("access:servers", user) and not me.may("tokens", user):
        missing.append("access:servers")
    return [f"{scope}!user={user}" for scope in missing]


@dataclass(slots=True, eq=False)
class _Seat:
    """A named server of this process, from before its start until it is deleted."""

    name: str
    task: asyncio.Task[None] | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    token: HubToken | None = None
    token_since: float = 0.0
    client: Client | None = None
    upload: str = ""
    """The path of the notebook that was uploaded last."""
    is_requested: bool = False
    """The hub may have created the server."""
    is_open: bool = False
    restarted: bool = False
    """The hub has started the server again after it died."""


class _Seats:
    def __init__(
        self, engine: Hub, hub: HubClient, me: HubIdentity, user: str, wanted: int, options: HttpOptions
    ) -> None:
        self._engine = engine
        self._call = engine.call
        self._hub = hub
        self._me = me
        self._user = user
        self._wanted = wanted
        self._options = options
        self._seats: dict[str, _Seat] = {}
        self._ready: asyncio.Queue[ControlledSeat | Exception | None] = asyncio.Queue()
        """Seats that are ready, errors of failed starts, and None for a lost seat that was deleted."""
        self._undeleted: list[_Seat] = []
        """Lost seats whose servers could not be deleted, because the hub did not answer."""
        self._left_uploads: list[str] = []
        """Paths of notebooks in the home folder, whose servers were lost."""
        self._failures = 0
        self._has_served = False
        self._ending = False

    async def each(self) -> AsyncIterator[ControlledSeat]:
        """Yield each seat when it is ready; raise the first error of a start if there is no other seat."""
        first: NbrunError | None = None
        while True:
            # After a failed start without an open seat, the other starts are awaited: they probably fail, too.
            while len(self._seats) < self._wanted and (
                first is None or any(each.is_open for each in self._seats.values())
            ):
                self._begin()
            found = await self._ready.get()
            if isinstance(found, ControlledSeat):
                first, self._failures, self._has_served = None, 0, True
                yield found
            elif isinstance(found, NbrunError):
                first = first or found
                if not self._seats and self._has_served and isinstance(first, UsageError):
                    raise ServerError(str(first), hint=first.hint)
                if not self._seats:
                    raise first
                self._failures += 1
                is_final = isinstance(found, UsageError) or self._failures >= STARTS
                if is_final:
                    self._wanted = len(self._seats)
                _log.warning("%s; %s", found, f"going on with {len(self._seats)}" if is_final else "trying again")
                if not is_final:
                    await asyncio.sleep(pause_after(self._failures))
            elif found is not None:  # a bug
                raise found

    async def renew(self) -> None:
        """Renew the marks and the tokens of the servers until the task is cancelled."""
        reports = True
        while True:
            await asyncio.sleep(RENEWED_EVERY)
            seats = [seat for seat in self._seats.values() if seat.is_open]
            is_reported = False
            if reports and seats:
                try:
                    await self._hub.report_activity(self._user, [seat.name for seat in seats])
                    is_reported = True
                except ServerUnreachable:
                    pass
                except NbrunError as error:  # not permitted, or one of the servers is gone
                    reports = isinstance(error, RequestRefused) and error.status == HTTPStatus.BAD_REQUEST
            for seat in seats:
                if (client := seat.client) is None:
                    continue
                with contextlib.suppress(NbrunError):
                    if not is_reported:
                        await client.http.request("GET", "api/kernels", retry=ONCE)
                    if seat.token is not None and time.monotonic() - seat.token_since > TOKEN_LIFETIME / 2:
                        await self._renew_token(seat, client)

    async def end(self) -> None:
        """Stop and delete all servers, within :data:`END_LIMIT`."""
        self._ending = True
        tasks = {seat.task for seat in self._seats.values() if seat.task is not None}
        tasks |= {asyncio.create_task(self._delete_again(seat)) for seat in self._undeleted}
        for seat in self._seats.values():
            seat.lost.set()
            seat.restarted = False
            if not seat.is_open and seat.task is not None:
                seat.task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=END_LIMIT)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=TOKEN_LIMIT)
        if self._seats:
            where = f"{self._hub.http.endpoint}hub/home"
            _log.warning("left on the hub, unless it is still stopping them: %s; see %s", ", ".join(self._seats), where)
        if self._left_uploads:
            files = ", ".join(self._left_uploads)
            _log.warning("uploads of lost servers are left in the home folder of %s: %s", self._user, files)

    def _begin(self) -> None:
        created = int(self._hub.http.server_time().timestamp())
        seat = _Seat(f"nbrun-{created:08x}-{secrets.token_hex(4)}")
        self._seats[seat.name] = seat
        seat.task = asyncio.create_task(self._keep(seat), name=f"named server {seat.name}")

    async def _keep(self, seat: _Seat) -> None:
        """Start a server, offer its seat, and delete the server when the seat is lost or the batch ends."""
        error: Exception | None = None
        try:
            await self._offer(seat)
        except Exception as failure:  # noqa: BLE001 - a bug in this task must end the wait for its seat
            error = failure
        finally:
            seat.is_open = False
            is_gone = await self._delete(seat)
            if is_gone or not self._ending:
                self._seats.pop(seat.name, None)
            if not is_gone and not self._ending:
                self._undeleted.append(seat)
        self._ready.put_nowait(error)

    async def _delete_again(self, seat: _Seat) -> None:
        self._seats[seat.name] = seat
        if await self._delete(seat):
            self._seats.pop(seat.name)

    async def _offer(self, seat: _Seat) -> None:
        await self._start(seat)
        while True:
            url = await self._await_ready(seat)
            if seat.token is None:
                await self._get_token(seat)
            token = seat.token.value if seat.token else self._engine.endpoint.token
            access = replace(self._call.access, server=url, token=token, password=None)
            ended = functools.partial(self._has_ended, seat)
            async with server_seat(
                f"{self._user}/{seat.name}", access, startup=self._call.startup, ended=ended
            ) as found:
                client = found.host.server.client
                if client.endpoint.base_url != url:  # the address of a stopped server leads to the user's default one
                    raise ServerUnreachable(f"{url}: another server answered, at {client.endpoint}")
                seat.client, seat.is_open, seat.restarted = client, True, False
                await self._remove_uploads()
                host = structs.replace(found.host, notebook=_recorded(found.host.notebook, seat))
                self._ready.put_nowait(structs.replace(found, host=host, ending=functools.partial(self._close, seat)))
                await seat.lost.wait()
                seat.client, seat.is_open = None, False
            if not seat.restarted:
                return
            _log.info("%s: the hub starts the server again", seat.name)
            seat.lost.clear()

    async def _start(self, seat: _Seat) -> None:
        seat.is_requested = True
        try:
            await self._hub.start(self._user, seat.name, self._engine.options, limit=self._call.startup)
        except RequestRefused as error:
            if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return  # the start failed at once; the progress has the reason
            seat.is_requested = False
            raise _refusal(error, self._hub.http.endpoint, self._user) from None

    async def _await_ready(self, seat: _Seat) -> str:
        """Wait until the hub reports that the server is ready, and return its address."""
        last = ""
        try:
            async for last in self._hub.progress(self._user, seat.name):
                _log.info("%s: %s", seat.name, last)
        except asyncio.CancelledError:
            _log.warning("%s: not ready yet; the hub's last message: %s", seat.name, last or "none")
            raise
        server = (await self._hub.servers(self._user)).get(seat.name)
        if server is None:
            raise ServerError(f"{seat.name}: the server was deleted while it started")
        return self._hub.url_of(server)

    async def _get_token(self, seat: _Seat) -> None:
        began, creating = time.monotonic(), asyncio.create_task(self._token_for(seat))
        try:
            seat.token, seat.token_since = await asyncio.shield(creating), began
        except asyncio.CancelledError:  # a token that was created must be known, to be deleted
            await asyncio.wait({creating}, timeout=TOKEN_LIMIT)
            if creating.done() and not creating.exception():
                seat.token = creating.result()
            raise

    async def _renew_token(self, seat: _Seat, client: Client) -> None:
        old = seat.token
        await self._get_token(seat)
        if seat.token is None:
            seat.token = old
        elif old is not None:
            client.http.use_token(seat.token.value)
            await self._hub.delete_token(self._user, old.id)

    async def _token_for(self, seat: _Seat) -> HubToken | None:
        """Create a token that is valid for this server only; return None if the given token does not permit it."""
        if self._me.scopes and not self._me.may("tokens", self._user):
            return None
        scope = f"access:servers!server={self._user}/{seat.name}"
        note = f"{_NOTE}{seat.name}"
        return await self._hub.new_token(self._user, [scope], lifetime=TOKEN_LIFETIME, note=note)

    async def _has_ended(self, seat: _Seat) -> bool:
        """Return whether the server of a seat has ended. The hub then starts it again, unless the batch ends."""
        if self._ending or seat.restarted:
            return seat.restarted
        try:
            seat.restarted = await self._hub.start(self._user, seat.name, self._engine.options, limit=0.0)
        except (RequestRefused, NotFound) as error:
            _log.info("%s: %s", seat.name, error)
            return True
        except NbrunError:
            return False
        return seat.restarted

    async def _remove_uploads(self) -> None:
        """Remove the uploads of lost servers. The home folder is that of the user, so any server has it."""
        for seat in self._seats.values():
            if seat.client is not None and not seat.lost.is_set():
                for path in [*self._left_uploads]:
                    with contextlib.suppress(NbrunError):  # what stays is named at the end
                        remaining = await remove_upload(seat.client.contents, path)
                        if path.rpartition("/")[2] not in remaining:
                            self._left_uploads = [left for left in self._left_uploads if left != path]
                return

    async def _close(self, seat: _Seat) -> None:
        if seat.upload:
            self._left_uploads.append(seat.upload)
        seat.lost.set()
        await self._remove_uploads()
        if seat.task is not None and not seat.restarted:
            await asyncio.wait({seat.task}, timeout=CLOSE_LIMIT)

    async def _delete(self, seat: _Seat) -> bool:
        """Delete the token and the server of a seat; return whether the server is gone, or the hub completes it.

        The token comes first: it takes a moment, and the hub may need longer for the server than there is time.
        """
        is_gone = True
        if seat.token is not None:
            try:
                await self._hub.delete_token(self._user, seat.token.id)
                seat.token = None
            except NbrunError as error:
                _log.warning("%s: its token could not be deleted, and ends by itself: %s", seat.name, error)
        try:
            if seat.is_requested:
                await self._hub.remove(self._user, seat.name, limit=REMOVE_LIMIT)
        except TimeoutError:
            _log.info("%s: the hub is still stopping the server", seat.name)
        except NbrunError as error:
            _log.warning("%s: the server could not be deleted: %s", seat.name, error)
            is_gone = False
        return is_gone

    async def remove_left(self) -> None:
        """Delete the servers that killed nbrun processes left, and keep what is still used."""
        try:
            # First, because a server is created before its token: one whose server is missing afterwards is useless.
            tokens = await self._tokens_of_servers()
            servers = await self._hub.servers(self._user)
            now = self._hub.http.server_time()
            left = [
                server for server in servers.values() if has_expired(server, now) and server.name not in self._seats
            ]
            await asyncio.gather(*(self._remove_one(server) for server in left))
            if tokens:
                servers = await self._hub.servers(self._user)
            for token_id, name in tokens.items():
                if name not in servers:
                    await self._hub.delete_token(self._user, token_id)
        except NbrunError as error:
            _log.info("what earlier calls left on the hub was not removed: %s", error)

    async def _tokens_of_servers(self) -> dict[str, str]:
        """Return the names of the servers for which nbrun created tokens, by the ids of the tokens."""
        if not self._me.may("tokens", self._user):
            return {}
        notes = await self._hub.notes_of_tokens(self._user)
        names = {token_id: note.removeprefix(_NOTE) for token_id, note in notes.items() if note.startswith(_NOTE)}
        return {token_id: name for token_id, name in names.items() if _NAME.fullmatch(name)}

    async def _remove_one(self, server: NamedServer) -> None:
        name = f"{self._user}/{server.name}"
        if server.pending:
            return
        try:
            if server.is_ready and not await self._is_idle(server):
                _log.warning("%s was left by an earlier nbrun, and is still used; it is kept", name)
                return
            await self._hub.remove(self._user, server.name, limit=REMOVE_LIMIT)
            _log.warning("%s was left by an nbrun that was killed; it is deleted", name)
        except (NbrunError, TimeoutError) as error:
            _log.warning("%s was left by an earlier nbrun, and could not be deleted: %s", name, error)

    async def _is_idle(self, server: NamedServer) -> bool:
        """Return whether two looks show that nobody uses a server; remove the uploads of killed runs from it."""
        seat, url = _Seat(server.name), self._hub.url_of(server)
        try:
            await self._get_token(seat)
            token = seat.token.value if seat.token else self._engine.endpoint.token
            async with connect(Endpoint(url, token), options=self._options) as client:
                if client.endpoint.base_url != url:
                    return False
                first, sessions = await client.kernels.list(), await find_left(client)
                if not all(map(_is_quiet, first)):
                    return False
                await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
                second = await client.kernels.list()
                if second != first:
                    return False
                for kernel in second:
                    if kernel.execution_state != "dead" and not await kernel_answers(client, kernel.id):
                        return False
                await end_left(client, sessions, lambda _: asyncio.sleep(0))
                return True
        finally:
            if seat.token is not None:
                with contextlib.suppress(NbrunError):
                    await self._hub.delete_token(self._user, seat.token.id)


def _recorded(find: FindNotebook, seat: _Seat) -> FindNotebook:
    """Return `find`, which records in `seat` what it uploads."""

    def notebook(paths: NotebookPaths, warn: Callable[[str], None]) -> Notebook:
        found = find(paths, warn)
        seat.upload = found.path if UPLOAD_FOLDER.fullmatch(found.path.partition("/")[0]) else ""
        return found

    return notebook


def has_expired(server: NamedServer, now: datetime) -> bool:
    """Return whether a server has the name of nbrun's servers and its mark has expired; `now` is the hub's time."""
    found = _NAME.fullmatch(server.name)
    if found is None:
        return False
    created = datetime.fromtimestamp(int(found["created"], 16), UTC)
    used = [moment for moment in (created, server.started, server.last_activity) if moment is not None]
    return now > max(used) + LIFETIME


def _is_quiet(kernel: KernelModel) -> bool:
    return kernel.connections == 0 and kernel.execution_state in _AT_REST


def _refusal(error: RequestRefused, endpoint: Endpoint, user: str) -> NbrunError:
    """Return what to do about a refused request: :class:`UsageError` if the hub starts no further servers."""
    reason = error.reason
    if "not enabled" in reason:
        hint = "The hub's administrator allows them with c.JupyterHub.allow_named_servers = True."
        return UsageError(f"{endpoint}: the hub has no named servers: {reason}", hint=hint)
    if "maximum of" in reason:
        hint = f"Use fewer seats with -j, or delete servers of {user} at {endpoint}hub/home."
        return UsageError(f"{endpoint}: the hub's limit of named servers: {reason}", hint=hint)
    return ServerError(f"{endpoint}: the hub refused to start a server: {reason}", hint=error.hint)


def engine(call: EngineCall) -> Hub:
    """Return the engine of a hub."""
    return Hub(call)
