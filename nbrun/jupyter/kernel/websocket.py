"""The websocket to a kernel, with reconnection; the only module that imports websockets.

A server stores the messages of a kernel while no client is connected. It sends them to a client that reconnects *with
the same session id*. So a cut connection is opened again with the session id of the first, and reading continues::

    Message ... Message  Cut  (the server is asked for the kernel until it answers)  Restored  Message ...
                                                                                     or Lost(error), the last event

A request that was sent is never sent again, because it may have arrived before the connection failed. A request that
was not sent, because the connection was already known to be cut, is sent over the next connection.
"""

import asyncio
import contextlib
import logging
import math
import re
import socket as sockets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.frames import CloseCode
from websockets.protocol import State

from nbrun.core.formats.units import spell_size
from nbrun.core.protocol.codec import V1_SUBPROTOCOL, Subprotocol, decode, encode
from nbrun.core.protocol.messages import Message
from nbrun.errors import (
    AccessDenied,
    BadFrame,
    KernelStartFailed,
    NbrunError,
    NotAJupyterServer,
    NotFound,
    ResponseTooLarge,
    ServerUnreachable,
)
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.retry import RECONNECT, RetryPolicy

HANDSHAKE_LIMIT = 130.0
"""Seconds. The server delays the handshake up to 60 s for the kernel's process and up to 60 s for its first reply."""
PING_EVERY = 15.0
"""Seconds of silence after which a ping is sent."""
PONG_WITHIN = 10.0
"""Seconds without a pong after which a request over HTTP shows whether the server or only the connection is dead."""
PONG_GRACE = 1.0
"""Seconds to wait for the pong after the HTTP answer, because a busy server may answer both late."""
DEAD_AFTER = 100.0
"""Seconds of silence after which the connection counts as dead. A large save can block a server for a long time."""
PUT_ASIDE = 0.3
"""Seconds for the server to buffer the messages that a kernel sent before it became idle."""
CLOSE_LIMIT = 1.0
NUDGE_LIMIT = 1.0
"""Seconds that the second connection of a nudge stays open at most."""
_TCP = (sockets.AF_INET, sockets.AF_INET6)
_QUICKACK: int | None = getattr(sockets, "TCP_QUICKACK", None)
"""The socket option that disables delayed acknowledgements; Linux only."""
_log = logging.getLogger(__name__)
_library_log = logging.getLogger("websockets.client.nbrun")
_library_log.setLevel(logging.INFO)  # at DEBUG websockets logs the token and every message


class Unreadable(Struct, frozen=True):
    """A frame that is not a message."""

    error: BadFrame


class Cut(Struct, frozen=True):
    """The connection was cut and is being reopened."""


class Restored(Struct, frozen=True):
    """The connection is open again.

    ``nudged`` means that the server may have sent requests of its own to the kernel, which it does unless the kernel is
    busy.
    """

    nudged: bool = True


class Lost(Struct, frozen=True):
    """The connection is lost for good; the last arrival.

    :class:`NotFound` means that the server answers but the kernel no longer exists.
    """

    error: NbrunError


Arrival = Message | Unreadable | Cut | Restored | Lost


class _Connect(connect):
    """Opens a websocket without following redirects.

    The API was found before, over HTTP. A redirect of the websocket leads to a login page, or would send the token
    elsewhere.
    """

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class _Connection(ClientConnection):
    """Records when data last arrived, and acknowledges TCP data at once.

    Any received data counts, because a pong may be delayed behind a large message. Jupyter Server lets TCP collect
    small messages. The second message of a cell then waits until the first is acknowledged, and an acknowledgement is
    delayed by 40 ms if there is nothing to send.
    """

    heard_at = 0.0
    acknowledge: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out whether the connection uses TCP."""
        line = transport.get_extra_info("socket")
        if line is not None and line.family in _TCP and _QUICKACK is not None:
            self.acknowledge = partial(line.setsockopt, sockets.IPPROTO_TCP, _QUICKACK, 1)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Record the time and acknowledge the received bytes."""
        self.heard_at = self.loop.time()
        if self.acknowledge is not None:
            with contextlib.suppress(OSError):  # the socket may be closed
                self.acknowledge()  # each time, because the system resets the option
        super().data_received(data)


class KernelChannel:
    """The connection to a kernel: sends and receives messages; created by :func:`open_channel`."""

    def __init__(
        self, http: Http, kernel_id: str, session_id: str, find: Callable[[], Awaitable[bool]], patience: RetryPolicy
    ) -> None:
        self._http = http
        self._kernel_id = kernel_id
        self._session_id = session_id
        self._find = find
        self._patience = patience
        self._socket: _Connection | None = None
        self._unsent: list[Message] = []
        self._nudging: asyncio.Task[None] | None = None
        self.arrivals: asyncio.Queue[Any] = asyncio.Queue()
        """Arrivals in order (:data:`Arrival`). The driver of the kernel may add its own events."""
        self.subprotocol = Subprotocol.V1
        """The format of frames; known once the channel is open."""

    async def send(self, message: Message) -> None:
        """Send a message, or store it until the connection is restored."""
        if (trace := self._http.options.trace) is not None:
            trace.sent(self._kernel_id, message)
        socket = self._socket
        if socket is None or socket.state is not State.OPEN:
            self._unsent.append(message)
            return
        # If the connection fails here, the message may have arrived. It is not sent again. The barrier after the
        # reconnection shows whether it arrived.
        with contextlib.suppress(ConnectionClosed):
            await socket.send(encode(message, self.subprotocol, date=datetime.now(UTC).isoformat()))

    async def round_trip(self, limit: float) -> float:
        """Return the seconds of a round trip to the server, or infinity if it takes longer than `limit` seconds."""
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(limit):
                if self._socket is not None:
                    await (await self._socket.ping())
                    return asyncio.get_running_loop().time() - began
        return math.inf

    async def connect(self) -> None:
        """Open the websocket once; raise :class:`NbrunError`."""
        headers = await self._http.websocket_headers()
        endpoint = self._http.endpoint
        url = endpoint.websocket_url(self._kernel_id, self._session_id)
        options: dict[str, Any] = {
            "additional_headers": headers,
            "subprotocols": [V1_SUBPROTOCOL],
            "open_timeout": HANDSHAKE_LIMIT,
            "ping_interval": None,  # watch() pings
            "create_connection": _Connection,
            "close_timeout": CLOSE_LIMIT,
            "max_size": self._http.options.max_frame,
            "max_queue": None,
            "compression": None if endpoint.is_local else "deflate",
            "user_agent_header": None,
            "proxy": None if endpoint.is_local else True,
            "logger": _library_log,
        }
        began, trace = time.monotonic(), self._http.options.trace
        path = f"api/kernels/{self._kernel_id}/channels"
        if url.startswith("wss:"):
            options["ssl"] = self._http.options.ssl_context()
        try:
            with _foreign_errors(f"the websocket of kernel {self._kernel_id} on {endpoint}"):
                if endpoint.socket:
                    options |= {"unix": True, "path": endpoint.socket}
                socket = await _Connect(url, **options)
        except NbrunError as error:
            if trace is not None:
                trace.http(began, "GET", path, error=str(error))
            raise (await self._http.explained(error) if isinstance(error, ServerUnreachable) else error) from None
        if trace is not None:
            trace.http(began, "GET", path, status=101)
        assert isinstance(socket, _Connection)
        self._socket = socket
        agreed = socket.subprotocol
        self.subprotocol = Subprotocol.V1 if agreed == V1_SUBPROTOCOL else Subprotocol.LEGACY
        _log.debug("websocket of kernel %s open, protocol %s", self._kernel_id, self.subprotocol.name)

    def nudge(self) -> None:
        """Make the server ask a starting kernel for a sign of life at once, by a second connection for a moment.

        Jupyter Server delivers nothing until it has noticed by such a question that the kernel runs. It asks when a
        client connects, and then every half second.
        """
        self._nudging = asyncio.create_task(self._connect_for_a_moment(), name=f"nudge kernel {self._kernel_id}")

    async def _connect_for_a_moment(self) -> None:
        other = KernelChannel(self._http, self._kernel_id, uuid.uuid4().hex, self._find, self._patience)
        try:
            with contextlib.suppress(NbrunError, TimeoutError):
                async with asyncio.timeout(NUDGE_LIMIT):
                    await other.connect()
                    await other.round_trip(NUDGE_LIMIT)  # the server answers when it has finished with the kernel
        finally:
            await other.close()

    async def read(self) -> None:
        """Read until the connection is lost for good."""
        while True:
            if (too_large := await self._read_connection()) is not None:
                self.arrivals.put_nowait(Lost(too_large))
                return
            _log.info("websocket of kernel %s is cut; reconnecting", self._kernel_id)
            self.arrivals.put_nowait(Cut())
            try:
                nudged = await self._connect_again()
            except NbrunError as error:
                _log.info("websocket of kernel %s is lost: %s", self._kernel_id, error)
                self.arrivals.put_nowait(Lost(error))
                return
            _log.info("websocket of kernel %s is back", self._kernel_id)
            self.arrivals.put_nowait(Restored(nudged))

    def reader_ended(self, reader: asyncio.Task[None]) -> None:
        """Report the end of the reader by a bug, so that nothing waits for it."""
        if not reader.cancelled() and (error := reader.exception()) is not None:
            self.arrivals.put_nowait(Lost(NbrunError(f"reading from the kernel ended by a bug in nbrun: {error!r}")))

    async def close(self) -> None:
        """Close the websocket. This never raises, and takes at most one second, or two soon after a nudge."""
        socket, self._socket = self._socket, None
        try:
            if socket is not None:
                await socket.close()
        finally:
            if self._nudging is not None:
                # A server keeps the sockets of a connection that is open when the kernel's session is deleted.
                await asyncio.wait({self._nudging})

    async def watch(self) -> None:
        """Detect dead connections. A suspended or moved machine, or a router, cuts a connection without a notice."""
        while True:
            socket = self._socket
            if socket is None or (silent_for := self._silence(socket)) < PING_EVERY:
                await asyncio.sleep(PING_EVERY if socket is None else PING_EVERY - silent_for)
            elif await self._is_dead(socket):
                _log.info("websocket of kernel %s is silent and is closed", self._kernel_id)
                socket.transport.abort()
                if self._socket is socket:  # otherwise it was cut and replaced during the check
                    self._socket = None

    def _silence(self, socket: _Connection) -> float:
        return asyncio.get_running_loop().time() - socket.heard_at

    async def _is_dead(self, socket: _Connection) -> bool:
        """Return whether the connection is dead, by a ping.

        Without a pong, an HTTP request shows whether the server is alive. If it is, the connection is dead.
        """
        with contextlib.suppress(ConnectionClosed):
            await socket.ping()
        while socket.state is State.OPEN:
            await asyncio.sleep(PONG_WITHIN)
            if (silent_for := self._silence(socket)) < PING_EVERY:
                return False
            if silent_for > DEAD_AFTER:
                return True
            if await self._server_answers():
                await asyncio.sleep(PONG_GRACE)
                return self._silence(socket) >= PING_EVERY
        return False

    async def _server_answers(self) -> bool:
        try:
            async with asyncio.timeout(PONG_WITHIN):
                await self._find()
        except (ServerUnreachable, TimeoutError):
            return False
        except NbrunError:  # the kernel is gone or the token is refused: an answer all the same
            pass
        return True

    async def _read_connection(self) -> ResponseTooLarge | None:
        """Read until the connection is cut. Return an error if a message exceeded nbrun's limit.

        Such a connection is not reopened, because the server would send the message again.
        """
        socket = self._socket
        assert socket is not None
        put = self.arrivals.put_nowait
        too_large: ResponseTooLarge | None = None
        try:
            while True:
                frame = await socket.recv()
                try:
                    put(decode(frame, self.subprotocol))
                except BadFrame as error:
                    put(Unreadable(error))
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG and not closed.rcvd_then_sent:
                too_large = self._frame_too_large(closed.sent.reason)
        self._socket = None
        return too_large

    def _frame_too_large(self, reason: str) -> ResponseTooLarge:
        limit = spell_size(self._http.options.max_frame or 0)
        size = re.search(r"with (\d+) bytes", reason)
        excess = f"{spell_size(int(size[1]))}, which is more than" if size else "more than"
        return ResponseTooLarge(
            f"a message of the kernel has {excess} {limit}",
            hint="--max-frame raises the limit (--max-frame 4GiB), and none lifts it.",
        )

    async def _connect_again(self) -> bool:
        """Open the connection again; return whether the server may have sent requests to the kernel meanwhile."""
        is_busy = False
        async for attempt in self._patience.attempts():
            with attempt:
                is_busy = await self._find()
                if not is_busy:
                    # A server sends a request to an idle kernel before it accepts the connection, and drops the
                    # kernel's messages that it has not buffered yet.
                    await asyncio.sleep(PUT_ASIDE)
                await self.connect()
        unsent, self._unsent = self._unsent, []
        for message in unsent:
            await self.send(message)
        return not is_busy


@contextlib.asynccontextmanager
async def open_channel(
    http: Http,
    kernel_id: str,
    session_id: str,
    *,
    find: Callable[[], Awaitable[bool]],
    patience: RetryPolicy = RECONNECT,
) -> AsyncIterator[KernelChannel]:
    """Open a kernel's websocket for the length of the block.

    `session_id` must be unique to this client. It must stay the same after a reconnection, because the server otherwise
    drops the messages that it stored. `find` asks the server whether the kernel is busy, and raises
    :class:`NotFound` if it does not exist. It is called before each attempt to reconnect. Raises :class:`AccessDenied`,
    :class:`NotFound`, :class:`KernelStartFailed`, :class:`NotAJupyterServer` or :class:`ServerUnreachable`.
    """
    channel = KernelChannel(http, kernel_id, session_id, find, patience)
    await channel.connect()
    reader = asyncio.create_task(channel.read(), name=f"read kernel {kernel_id}")
    reader.add_done_callback(channel.reader_ended)
    watcher = asyncio.create_task(channel.watch(), name=f"watch the connection to kernel {kernel_id}")
    try:
        yield channel
    finally:
        reader.cancel()
        watcher.cancel()
        try:
            await asyncio.wait({reader, watcher})
        finally:
            await channel.close()


@contextlib.contextmanager
def _foreign_errors(what: str) -> Any:
    """Convert the errors of the handshake to nbrun's errors."""
    try:
        yield
    except InvalidStatus as error:
        raise _refusal(what, error.response.status_code) from None
    except InvalidMessage as error:
        if isinstance(error.__cause__, EOFError):
            raise ServerUnreachable(f"{what}: the connection broke during the handshake") from None
        raise NotAJupyterServer(f"{what}: the answer to the handshake is not HTTP") from None
    except (InvalidHandshake, InvalidURI) as error:
        raise NotAJupyterServer(
            f"{what}: the handshake failed: {error}",
            hint="A proxy in front of the server probably does not pass websockets on.",
        ) from None
    except TimeoutError:
        raise ServerUnreachable(f"{what}: no answer within {HANDSHAKE_LIMIT:.0f} s") from None
    except OSError as error:
        raise ServerUnreachable(f"{what}: {error}") from None


def _refusal(what: str, status: int) -> NbrunError:
    if status in (401, 403):
        return AccessDenied(f"{what}: refused ({status})", hint="The token is missing, wrong or expired.")
    if status == 404:
        return NotFound(f"{what}: there is no such kernel")
    if status == 500:
        return KernelStartFailed(f"{what}: the server says that the kernel did not start", hint="Its log says why.")
    if status in (429, 502, 503, 504):
        return ServerUnreachable(f"{what}: answered {status}")
    moved = status in (301, 302, 303, 307, 308)
    return NotAJupyterServer(
        f"{what}: answered {status} instead of opening a websocket",
        hint="It probably leads to a login page: is the token still good?"
        if moved
        else "A proxy in front of the server probably does not pass websockets on.",
    )
