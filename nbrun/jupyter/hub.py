"""The client of a JupyterHub: named servers, the progress of their start, and tokens.

The paths are those of the hub's REST API under ``hub/api/``. Requests that change something are never redirected to
another address. The token is sent in a header only, and no answer that contains a token is logged.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

from nbrun.core.formats import json_text
from nbrun.errors import (
    AccessDenied,
    BadFrame,
    NotAJupyterServer,
    NotFound,
    RequestRefused,
    ServerError,
    ServerUnreachable,
)
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.messages import Fields, Patience, rows_of
from nbrun.jupyter.http.retry import ONCE, PROBE, RETURN, RetryPolicy

ANSWER = Patience(read=10.0, total=15.0)
"""Time limits of a request that the hub answers at once."""
START_ANSWER = Patience(read=60.0, total=60.0)
"""Time limits of the request for a server. The hub answers after ten seconds at the latest, unless it is busy."""
SILENCE_LIMIT = 30.0
"""Seconds without data after which a progress stream counts as broken; a hub sends an empty line every 8 s."""
LOOK_EVERY = 0.5
"""Seconds between two looks at a server that is starting or stopping."""
_IS_RUNNING = "is already running"
_REMOVAL = RetryPolicy(tries=20, total=8.0, first=0.3, longest=1.0, statuses=frozenset({500}))


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """The owner of a token: a user or a service (``kind``), and the scopes of the token."""

    name: str
    kind: str
    scopes: tuple[str, ...]

    def may(self, scope: str, user: str) -> bool:
        """Return whether the token has a scope for a user. A filter by group may include the user."""
        for given in self.scopes:
            granted, _, only = given.partition("!")
            what, _, name = only.partition("=")
            if granted == scope and (what != "user" or name in {"", user}) and what != "server":
                return True
        return False


@dataclass(frozen=True, slots=True)
class NamedServer:
    """A named server as the hub describes it. ``pending`` is the step that it is in, such as ``spawn``, or empty."""

    name: str
    url: str
    is_ready: bool
    pending: str
    started: datetime | None
    last_activity: datetime | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the hub's JSON; raise :class:`NotAJupyterServer` if the name is missing."""
        return cls(
            name=fields.text("name"),
            # Without a host if it is the hub's. Its full_url may be another name, from outside the cluster.
            url=fields.maybe_text("url") or "",
            is_ready=fields.raw("ready") is True,
            pending=fields.maybe_text("pending") or "",
            started=fields.maybe_time("started"),
            last_activity=fields.maybe_time("last_activity"),
        )


@dataclass(frozen=True, slots=True)
class HubToken:
    """A token that was created; ``repr`` does not show its value."""

    id: str
    value: str

    def __repr__(self) -> str:
        return f"<HubToken {self.id}>"


class HubClient:
    """The client of one hub for the named servers of one user; every method may raise the errors of Http.request."""

    def __init__(self, http: Http) -> None:
        self.http = http

    async def me(self) -> HubIdentity:
        """Return the owner of the token; raise :class:`NotAJupyterServer` if the address is not that of a hub."""
        try:
            fields = (await self.http.request("GET", "hub/api/user", patience=ANSWER, retry=PROBE)).fields()
            scopes = fields.raw("scopes")
            texts = tuple(map(str, scopes)) if isinstance(scopes, list) else ()
            return HubIdentity(fields.text("name"), fields.maybe_text("kind") or "user", texts)
        except (NotFound, NotAJupyterServer) as error:
            hint = "Give the address of the hub itself, such as hub+https://hub.example.org/."
            raise NotAJupyterServer(f"{self.http.endpoint}: no JupyterHub answers there: {error}", hint=hint) from None

    async def servers(self, user: str, *, retry: RetryPolicy = PROBE) -> dict[str, NamedServer]:
        """Return the named servers of a user, stopped ones included; raise :class:`NotFound` for an unknown user."""
        params = {"include_stopped_servers": "1"}
        answer = await self.http.request("GET", _path(user), params=params, patience=ANSWER, retry=retry)
        found = answer.fields().mapping("servers")
        return {name: NamedServer.read(Fields(each, answer.where)) for name, each in found.items() if name}

    async def start(self, user: str, name: str, options: Mapping[str, Any], *, limit: float) -> bool:
        """Request a named server, and return False if it is running already.

        A hub that is busy is asked again, for up to `limit` seconds. The hub looks whether a server that it believes to
        be running has died, and then starts it again.
        """
        try:
            await self.http.request(
                "POST",
                _path(user, "servers", name),
                json=dict(options),
                patience=START_ANSWER,
                retry=RETURN.within(limit) if limit else ONCE,
            )
        except RequestRefused as error:
            if error.status == HTTPStatus.BAD_REQUEST and _IS_RUNNING in str(error):
                return False
            raise
        return True

    async def progress(self, user: str, name: str) -> AsyncIterator[str]:
        """Yield the messages of a server that is starting, until it is ready; raise :class:`ServerError` if it fails.

        A stream that breaks is opened again. A proxy may hold it back, so the server is looked at too.
        """
        last, path = "", _path(user, "servers", name, "progress")
        while True:
            try:
                async with self.http.lines(path, silence=SILENCE_LIMIT) as lines:
                    async for line in lines:
                        event = _event(line, path)
                        if event is None:
                            continue
                        message = self.http.endpoint.redacted(event.words("message"))
                        if event.raw("failed") is True:
                            raise SpawnFailed(f"the hub could not start the server: {message or 'it gives no reason'}")
                        if event.raw("ready") is True:
                            return
                        if message and message != last:
                            last = message
                            yield message
            except SpawnFailed:
                raise
            except ServerError:
                pass  # the next request shows whether the hub is there
            server = (await self.servers(user)).get(name)
            if server is None or not (server.is_ready or server.pending):
                raise SpawnFailed(f"the hub could not start the server{f': {last}' if last else ''}")
            if server.is_ready:
                return
            await asyncio.sleep(LOOK_EVERY)

    def url_of(self, server: NamedServer) -> str:
        """Return the address of a server; raise :class:`ServerError` if it is not on the hub's host or below it.

        The server's own address counts, because a hub may have a domain for each user.
        """
        base = self.http.endpoint.base_url
        url = urljoin(base, server.url)
        host, ours = (urlsplit(each).hostname or "" for each in (url, base))
        is_plain = urlsplit(base).scheme == "https" and urlsplit(url).scheme != "https"
        if is_plain or (host != ours and not host.endswith(f".{ours}")):
            raise ServerError(f"{base}: the hub says that the server {server.name} is at {url}, which is another host")
        return url

    async def remove(self, user: str, name: str, *, limit: float) -> None:
        """Stop and delete a named server, and wait until it is gone, for up to `limit` seconds.

        A hub that needs longer completes the removal by itself. Raises :class:`TimeoutError` then, and
        :class:`ServerUnreachable` if the hub did not accept the request in time.
        """
        path, is_accepted = _path(user, "servers", name), False
        try:
            async with asyncio.timeout(limit):
                answer = await self.http.request("DELETE", path, json={"remove": True}, patience=ANSWER, retry=_REMOVAL)
                is_accepted, is_gone = True, answer.status != HTTPStatus.ACCEPTED
                while not is_gone:
                    await asyncio.sleep(LOOK_EVERY)
                    is_gone = name not in await self.servers(user)
        except NotFound:
            return
        except TimeoutError:
            if is_accepted:
                raise
            raise ServerUnreachable(f"{self.http.endpoint}: the hub does not answer") from None

    async def new_token(self, user: str, scopes: Iterable[str], *, lifetime: float, note: str) -> HubToken | None:
        """Create a token of a user with these scopes for `lifetime` seconds; return None if that is not permitted."""
        wanted = {"scopes": [*scopes], "expires_in": int(lifetime), "note": note}
        try:
            answer = await self.http.request("POST", _path(user, "tokens"), json=wanted, patience=ANSWER)
        except (AccessDenied, RequestRefused, NotFound):
            return None
        fields = answer.fields()
        return HubToken(fields.identifier("id"), fields.text("token"))

    async def notes_of_tokens(self, user: str) -> dict[str, str]:
        """Return the notes of the tokens of a user, by the ids of the tokens; nothing if that is not permitted."""
        try:
            answer = await self.http.request("GET", _path(user, "tokens"), patience=ANSWER)
        except (AccessDenied, RequestRefused, NotFound):
            return {}
        rows = rows_of(answer.fields().raw("api_tokens"), answer.where)
        return {each.identifier("id"): each.maybe_text("note") or "" for each in rows}

    async def delete_token(self, user: str, token_id: str) -> None:
        """Delete a token; one that is unknown counts as deleted."""
        with contextlib.suppress(NotFound):
            await self.http.request("DELETE", _path(user, "tokens", token_id), patience=ANSWER)

    async def report_activity(self, user: str, names: Iterable[str]) -> None:
        """Report that these named servers are used now."""
        now = self.http.server_time().isoformat()
        servers = {name: {"last_activity": now} for name in names}
        await self.http.request("POST", _path(user, "activity"), json={"servers": servers}, patience=ANSWER)


class SpawnFailed(ServerError):
    """The hub could not start a named server."""


def _path(user: str, *parts: str) -> str:
    return "/".join(["hub/api/users", *(quote(part, safe="") for part in (user, *parts))])


def _event(line: str, where: str) -> Fields | None:
    """Return the JSON object in a line of a stream of server-sent events, or None for any other line."""
    name, _, data = line.partition(":")
    if name != "data":
        return None
    try:
        return Fields(json_text.loads(data.strip().encode()), where)
    except (BadFrame, NotAJupyterServer):
        return None
