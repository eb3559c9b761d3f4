"""The client of one Jupyter server: connect, check address and token, then files and kernels.

::

    async with connect("http://localhost:8888/?token=…") as client:
        notebook = await client.contents.notebook("reports/weekly.ipynb")
        session = await client.sessions.start(notebook.path, "python3")

:func:`connect` checks that the address belongs to a Jupyter server, where its API is, and that the token is accepted.
``GET api`` shows only the first two, because it returns 200 for a wrong token. So a second request is sent at the same
time. The two are not sent one after the other, because a round trip to a distant server takes a tenth of a second. For
the same reason a caller may send the reads that it needs next at that time, too. What was read is used only after the
server was checked.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote

from msgspec import Struct

from nbrun.errors import AccessDenied, NotAJupyterServer, NotFound
from nbrun.jupyter.contents import Contents
from nbrun.jupyter.endpoint import Destination, Endpoint, api_path
from nbrun.jupyter.http.client import Explain, Http, HttpOptions
from nbrun.jupyter.http.retry import PROBE, RECONNECT, RetryPolicy
from nbrun.jupyter.kernel.driver import Kernel, connect_kernel
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.sessions import Kernels, Sessions

NOTICE_AFTER = 3.0
"""Seconds without an answer after which a notice is logged. The connection is given up only after half a minute."""
_log = logging.getLogger(__name__)


class ServerStatus(Struct, frozen=True):
    """The state that a server reports. A changed ``started`` means that the server was restarted."""

    started: datetime | None
    last_activity: datetime | None
    kernels: int | None
    connections: int | None


class Identity(Struct, frozen=True):
    """The user as whom the server treats the client. A server with a token invents a name."""

    username: str
    display_name: str | None


class Client:
    """The client of one server, open within the block; usually created by :func:`connect`.

    Every method may raise the errors of :meth:`Http.request`.
    """

    def __init__(self, endpoint: Endpoint, options: HttpOptions | None = None, explain: Explain | None = None) -> None:
        self.http = Http(endpoint, options, explain)
        self.contents = Contents(self.http)
        self.sessions = Sessions(self.http)
        self.kernels = Kernels(self.http)

    @property
    def endpoint(self) -> Endpoint:
        """Return the server's address. :meth:`probe` may have corrected its base URL."""
        return self.http.endpoint

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.__aexit__(kind, error, trace)

    def kernel(self, kernel_id: str, *, patience: RetryPolicy = RECONNECT) -> AbstractAsyncContextManager[Kernel]:
        """Connect to a running kernel for the length of the block, and yield a :class:`Kernel`.

        `patience` is the retry policy for a lost connection.
        """
        return connect_kernel(self.http, self.kernels, kernel_id, patience=patience)

    async def version(self) -> str:
        """Return the server's version; needs no authentication."""
        answer = await self.http.request("GET", api_path())
        return answer.fields().text("version")

    async def status(self) -> ServerStatus:
        """Return the server's start time, its last activity, and its numbers of kernels and websockets."""
        fields = (await self.http.request("GET", api_path("status"))).fields()
        started, active = fields.maybe_time("started"), fields.maybe_time("last_activity")
        return ServerStatus(started, active, fields.maybe_integer("kernels"), fields.maybe_integer("connections"))

    async def me(self) -> Identity:
        """Return the client's identity on the server; raise :class:`NotAJupyterServer` on servers before 2.0."""
        identity = (await self.http.request("GET", api_path("me"))).fields().child("identity")
        return Identity(identity.text("username"), identity.maybe_text("display_name"))

    async def kernelspecs(self) -> KernelSpecs:
        """Return the kernels that the server can start."""
        return KernelSpecs.read((await self.http.request("GET", api_path("kernelspecs"))).fields())

    def read_kernelspecs_ahead(self) -> None:
        """Send the request of a :meth:`kernelspecs` that follows soon, see :meth:`Http.read_ahead`."""
        self.http.read_ahead(api_path("kernelspecs"))

    async def shutdown(self) -> None:
        """Stop the server and all its kernels. The request is not repeated."""
        await self.http.request("POST", api_path("shutdown"))

    async def probe(self, destination: Destination | None = None) -> str:
        """Find the API, check the credentials, and return the server's version.

        If the base URL answers 404, the other candidates of `destination` are tried; without `destination`, each
        shorter prefix of the base URL. The URL of a hub leads to the server of the token's user. :attr:`endpoint`
        contains the result.

        Raises :class:`ServerUnreachable`, :class:`NotAJupyterServer`, :class:`AccessDenied`, and
        :class:`RequestRefused` (424) if a hub reports that the user's server is not running.
        """
        destination = destination or Destination(self.endpoint, elsewhere=_shorter(self.endpoint.base_url))
        if destination.via_hub:
            await self._find_user_server()
            destination = Destination(self.endpoint)
        asked = self.endpoint
        # A password is sent only after the API was found, because the address may be wrong.
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
        """Use the first base URL that has an API.

        If none has, raise the error of the first one, which is the most useful.
        """
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
        """Ask a hub for the token's user, and use the URL of that user's server."""
        fields = (await self.http.request("GET", "hub/api/user", retry=PROBE)).fields()
        if fields.raw("kind") not in {None, "user"}:
            raise AccessDenied(
                f"{self.endpoint}: the hub's token is not a user's",
                hint="Give the whole URL of the user's server, with /user/NAME/ in it.",
            )
        self.http.move(f"{self.endpoint.base_url}user/{quote(fields.text('name'), safe='@~')}/")

    async def _check_access(self) -> None:
        """Send a request that needs authentication. Gateways and old servers do not have the first two paths.

        If one was sent ahead and succeeds, no other is sent.
        """
        if await self.http.succeeds_ahead(api_path("kernelspecs")):
            return
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
    """Return the shorter prefixes of a base URL, longest first."""
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
    explain: Explain | None = None,
    read_ahead: Callable[[Client], None] = lambda _: None,
) -> AsyncIterator[Client]:
    """Connect to a server by its address (:meth:`Endpoint.parse`), check it, and yield a :class:`Client`.

    `token` and `password` are used if the address is text. `explain` returns a more specific error for a failed
    connection. `read_ahead` may send requests ahead, which the server then answers while it is checked. It is not
    called if the check must come first: before a password is sent, and where a hub knows the address of the server.
    Raises the errors of :meth:`Client.probe`, and :class:`UsageError` for an invalid address.
    """
    if isinstance(address, str):
        address = Endpoint.parse(address, token, password)
    endpoint = address.endpoint if isinstance(address, Destination) else address
    async with Client(endpoint, options, explain) as client:
        if not endpoint.password and not (isinstance(address, Destination) and address.via_hub):
            read_ahead(client)
        loop = asyncio.get_running_loop()
        notice = loop.call_later(NOTICE_AFTER, _log.warning, "%s has not answered yet; still trying", endpoint)
        try:
            version = await client.probe(address if isinstance(address, Destination) else None)
        finally:
            notice.cancel()
        _log.info("connected to %s, version %s", client.endpoint, version)
        yield client
