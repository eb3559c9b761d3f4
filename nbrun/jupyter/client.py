"""The client of one Jupyter server: connect, check address and token, then files and kernels.

::

    async with connect("http://localhost:8888/?token=…") as client:
        notebook = await client.contents.notebook("reports/weekly.ipynb")
        session = await client.sessions.start(notebook.path, "python3")

:func:`connect` checks that the address belongs to a Jupyter server, where its API is, and that the token is accepted.
``GET api`` shows only the first two, because it returns 200 for a wrong token. So a second request is sent at the same
time. The two are not sent one after the other, because a round trip to a distant server takes a tenth of a second.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote

from nbrun.errors import AccessDenied, NotAJupyterServer, NotFound
from nbrun.jupyter.contents import Contents
from nbrun.jupyter.endpoint import Destination, Endpoint, api_path
from nbrun.jupyter.http.client import Explain, Http, HttpOptions
from nbrun.jupyter.http.retry import PROBE, RECONNECT, RetryPolicy
from nbrun.jupyter.kernel.driver import Kernel, connect_kernel
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.sessions import Kernels, Sessions

NOTICE_AFTER = 3.0
"""Seconds without a server's first answer until that is logged: it may take half a minute until it is given up."""
_log = logging.getLogger("nbrun.jupyter")


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What a server says of itself; another ``started`` than before means that it was restarted."""

    started: datetime | None
    last_activity: datetime | None
    kernels: int | None
    connections: int | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the server takes us for; a token server makes up a name."""

    username: str
    display_name: str | None


class Client:
    """One server, open for as long as the block lasts; see :func:`connect` for the usual way in.

    Every method may raise what :meth:`Http.request` does.
    """

    def __init__(self, endpoint: Endpoint, options: HttpOptions | None = None, explain: Explain | None = None) -> None:
        self.http = Http(endpoint, options, explain)
        self.contents = Contents(self.http)
        self.sessions = Sessions(self.http)
        self.kernels = Kernels(self.http)

    @property
    def endpoint(self) -> Endpoint:
        """Return where the server is; the base URL may be a better one than the client was made with."""
        return self.http.endpoint

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.__aexit__(kind, error, trace)

    def kernel(self, kernel_id: str, *, patience: RetryPolicy = RECONNECT) -> AbstractAsyncContextManager[Kernel]:
        """Open the websocket of a running kernel for as long as the block lasts; yields a :class:`Kernel`.

        `patience` says how long a lost connection is tried to be had back.
        """
        return connect_kernel(self.http, self.kernels, kernel_id, patience=patience)

    async def version(self) -> str:
        """Return the server's version; needs no authentication."""
        answer = await self.http.request("GET", api_path())
        return answer.fields().text("version")

    async def status(self) -> ServerStatus:
        """Return when the server was started, when it was last used, how many kernels and websockets it has."""
        fields = (await self.http.request("GET", api_path("status"))).fields()
        started, active = fields.maybe_time("started"), fields.maybe_time("last_activity")
        return ServerStatus(started, active, fields.maybe_integer("kernels"), fields.maybe_integer("connections"))

    async def me(self) -> Identity:
        """Return who we are to the server; :class:`NotAJupyterServer` on servers before 2.0."""
        identity = (await self.http.request("GET", api_path("me"))).fields().child("identity")
        return Identity(identity.text("username"), identity.maybe_text("display_name"))

    async def kernelspecs(self) -> KernelSpecs:
        """Return the kernels that the server can start."""
        return KernelSpecs.read((await self.http.request("GET", api_path("kernelspecs"))).fields())

    async def shutdown(self) -> None:
        """Stop the server and all its kernels; not repeated."""
        await self.http.request("POST", api_path("shutdown"))

    async def probe(self, destination: Destination | None = None) -> str:
        """Find the API and check that it lets us in; returns the server's version.

        Where the base URL answers 404, `destination`'s other candidates are tried, without `destination` each shorter
        prefix of the base URL. A hub's URL leads to the token's user's own server. :attr:`endpoint` has the result.

        Raises :class:`ServerUnreachable`, :class:`NotAJupyterServer`, :class:`AccessDenied`, and
        :class:`RequestRefused` (424) where a hub says that the server is not running.
        """
        destination = destination or Destination(self.endpoint, elsewhere=_shorter(self.endpoint.base_url))
        if destination.via_hub:
            await self._find_user_server()
            destination = Destination(self.endpoint)
        asked = self.endpoint
        # A password is not given away before it is known that this is the place to log in.
        access = None if asked.password else asyncio.create_task(self._check_access())
        try:
            version = await self._find_api((asked.base_url, *destination.elsewhere))
            await (access if access and self.endpoint == asked else self._check_access())
        finally:
            if access:
                access.cancel()
                await asyncio.gather(access, return_exceptions=True)
        return version

    async def _find_api(self, bases: tuple[str, ...]) -> str:
        """Settle on the first base URL under which there is an API; the first one's error is the telling one."""
        failure: NotAJupyterServer | NotFound | None = None
        for base in bases:
            self.http.move(base)
            try:
                answer = await self.http.request("GET", api_path(), retry=PROBE)
                version = answer.fields().text("version")
            except (NotAJupyterServer, NotFound) as error:
                failure = failure or error
                continue
            if answer.url.endswith("/hub/api"):
                self.http.move(answer.url.removesuffix("hub/api"))
                await self._find_user_server()
                return await self._find_api((self.endpoint.base_url,))
            if not self.endpoint.socket and answer.url.endswith("/api"):
                self.http.move(answer.url.removesuffix("api"))
            return version
        self.http.move(bases[0])
        raise failure or NotAJupyterServer(f"{self.endpoint}: no address to try")

    async def _find_user_server(self) -> None:
        """Ask a hub whose token this is, and move to that user's server."""
        fields = (await self.http.request("GET", "hub/api/user", retry=PROBE)).fields()
        if fields.raw("kind") not in {None, "user"}:
            raise AccessDenied(
                f"{self.endpoint}: the hub's token is not a user's",
                hint="Give the whole URL of the user's server, with /user/NAME/ in it.",
            )
        self.http.move(f"{self.endpoint.base_url}user/{quote(fields.text('name'), safe='@~')}/")

    async def _check_access(self) -> None:
        """Ask for something that only those who are let in get; gateways and old servers lack the first two."""
        for path, params in (
            (api_path("me"), {}),
            (api_path("contents"), {"content": "0"}),
            (api_path("kernelspecs"), {}),
        ):
            with contextlib.suppress(NotFound, NotAJupyterServer):
                await self.http.request("GET", path, params=params, retry=PROBE)
                return
        raise NotAJupyterServer(f"{self.endpoint}: there is an API, but neither files nor kernels in it")


def _shorter(base_url: str) -> tuple[str, ...]:
    """Return the base URLs above one, longest first."""
    head, _, path = base_url.removesuffix("/").partition("://")
    host, *segments = path.split("/")
    return tuple(f"{head}://{'/'.join([host, *segments[:length]])}/" for length in range(len(segments) - 1, -1, -1))


@contextlib.asynccontextmanager
async def connect(
    address: str | Destination | Endpoint,
    *,
    token: str | None = None,
    password: str | None = None,
    options: HttpOptions | None = None,
) -> AsyncIterator[Client]:
    """Open a server by its address as people paste it (:meth:`Endpoint.parse`), probed; returns a :class:`Client`.

    `token` and `password` are for an address in text form. Raises as :meth:`Client.probe`, and :class:`UsageError` for
    what is no address.
    """
    if isinstance(address, str):
        address = Endpoint.parse(address, token, password)
    endpoint = address.endpoint if isinstance(address, Destination) else address
    async with Client(endpoint, options) as client:
        loop = asyncio.get_running_loop()
        notice = loop.call_later(NOTICE_AFTER, _log.warning, "nbrun: %s has not answered yet; still trying", endpoint)
        try:
            await client.probe(address if isinstance(address, Destination) else None)
        finally:
            notice.cancel()
        yield client
