"""A proxy between nbrun and a real server, which can simulate the faults of networks, gateways and logins.

The one idea: it reads requests, so a fault can be meant for one of them; answers pass as bytes, and so do the messages
of websockets, which are only counted. Faults are set while it runs::

    async with proxy(server) as wire:
        wire.answer(502, "PUT", times=2)                    # a gateway whose server is restarting; times=FOR_EVER
        wire.answer(502, "PUT", forward=True)               # the answer got lost, the save did not
        wire.ask_to_log_in("PUT")                           # led to a login page
        wire.drop("PUT")                                    # closed instead of answered
        wire.reset_above = 1_000_000                        # reset on larger bodies
        hold = wire.hold("POST", "api/sessions")            # ... await hold.reached.wait() ... hold.release()
        wire.cut()                                          # every connection, now, without a closing word
        wire.cut_at(7)                                      # the websocket, when its 7th message has passed
        wire.cut_at(7, outage=2.0)                          # and nothing is let in for two seconds
        async with wire.outage(): ...                       # cut, and refuse connections until the block ends
        wire.line.delay, wire.line.rate = 0.1, 50_000       # a far server, a thin line; a rate of 10 is a trickle
        wire.black_hole = True                              # swallow everything, say nothing
        wire.deafen()                                       # the same, but for connections that come later
        wire.inject(websocket_frame(b"garbage"))            # put into every open websocket, towards the client
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.faults import Fault, Heard, Hold, Line
from tests.support.frames import MessageEnds
from tests.support.servers import RunningServer

PIECE = 1 << 16
FOR_EVER = math.inf


@dataclass
class Proxy:
    """An open proxy; made by :func:`proxy`."""

    server: RunningServer
    port: int = 0
    line: Line = field(default_factory=Line)
    black_hole: bool = False
    """Whether all data from both sides is dropped."""
    reset_above: int | None = None
    """Bytes of a request's body above which the connection is reset before it is read completely."""
    swallowed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when data was dropped."""
    heard: list[Heard] = field(default_factory=list)
    cuts: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection was cut at one of its messages."""
    messages: int = 0
    """The number of messages from the server over all websockets."""
    _cut_at: int | None = None
    _cut_for: float = 0.0
    _faults: list[Fault] = field(default_factory=list)
    _holds: list[Hold] = field(default_factory=list)
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)
    _websockets: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _deaf: set[asyncio.StreamWriter] = field(default_factory=set)
    _listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Return the server's address as it is behind the proxy."""
        return f"http://127.0.0.1:{self.port}{urlsplit(self.server.url).path}"

    def lines(self, method: str = "") -> list[str]:
        """Return method and path of the requests so far, of one method or of all."""
        return [heard.line for heard in self.heard if method in ("", heard.method)]

    def answer(
        self,
        status: int,
        method: str = "",
        words: str = "",
        *,
        times: float = 1,
        forward: bool = False,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next requests instead of the server.

        With `forward` it receives them, but its answer is dropped.
        """
        lines = [f"HTTP/1.1 {status} From the proxy", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        answer = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        self._faults.append(Fault(method, words, times, answer, forward))

    def ask_to_log_in(self, method: str = "", words: str = "", *, times: float = 1) -> None:
        """Redirect the next requests to a login page, like a proxy whose session has expired."""
        self.answer(302, method, words, times=times, headers={"Location": "/login?next=%2F"})

    def drop(self, method: str = "", words: str = "", *, times: float = 1, forward: bool = False) -> None:
        """Close the connection instead of answering the next requests."""
        self._faults.append(Fault(method, words, times, forward=forward))

    def heal(self) -> None:
        """Remove all pending faults."""
        self._faults.clear()
        self.black_hole, self.reset_above, self.line, self._cut_at = False, None, Line(), None

    def hold(self, method: str, words: str) -> Hold:
        """Hold the next matching request until it is released."""
        hold = Hold(Fault(method, words, 1))
        self._holds.append(hold)
        return hold

    def deafen(self) -> None:
        """Drop all further data of the open connections, like a router that forgot them; neither side is notified."""
        self._deaf |= self._connections

    def cut(self) -> None:
        """Cut all connections without closing them properly, like a failing network."""
        for writer in tuple(self._connections):
            writer.transport.abort()

    def cut_at(self, message: int, *, outage: float = 0.0) -> None:
        """Cut all connections after this number of further websocket messages from the server.

        The last message is complete. No connection is accepted for `outage` seconds then.
        """
        self._cut_at, self._cut_for = self.messages + message, outage
        self.cuts.clear()

    def inject(self, data: bytes) -> None:
        """Send bytes over every open websocket as if they came from the server, which must be silent."""
        for writer in self._websockets:
            writer.write(data)

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Cut all connections and refuse new ones for the length of the block."""
        self.close()
        try:
            yield
        finally:
            await self.listen()

    async def listen(self) -> None:
        """Accept connections, always on the same port."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._listening.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Accept no more connections, and cut those that are open."""
        if self._listening is not None:
            self._listening.close()
        self.cut()

    async def end(self) -> None:
        """Close, and let go of everything."""
        self.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        opened = {writer}
        self._connections.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                there, back = await asyncio.open_connection("127.0.0.1", self.server.port)
                opened.add(back)
                self._connections.add(back)
                answers = asyncio.create_task(self._carry(there, writer, MessageEnds()))
                try:
                    await self._requests(reader, writer, back)
                finally:
                    answers.cancel()
                    await asyncio.wait({answers})
        finally:
            self._tasks.discard(task)
            self._connections -= opened
            self._deaf -= opened
            self._websockets.discard(writer)
            for each in opened:
                each.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Pass on one request after another, and after a handshake whatever comes."""
        while True:
            heard = await self._read(reader)
            if heard is None:
                writer.transport.abort()
                return
            self.heard.append(heard)
            hold = next((hold for hold in self._holds if hold.fault.takes(heard)), None)
            if hold is not None:
                await hold.wait()
            if self.black_hole:
                self.swallowed.set()
                continue
            fault = next((fault for fault in self._faults if fault.takes(heard)), None)
            if fault is None:
                if heard.upgrades:
                    self._websockets.add(writer)
                await self._send(back, heard.head + heard.body)
                if heard.upgrades:
                    await self._carry(reader, back)
                    return
                continue
            if fault.forward:
                await self._forward(heard)
            if not fault.answer:
                writer.transport.abort()
                return
            writer.write(fault.answer)
            await writer.drain()

    async def _read(self, reader: asyncio.StreamReader) -> Heard | None:
        """Read a request; None when its body is larger than what is let through."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        if self.reset_above is not None and size > self.reset_above:
            return None
        return Heard(method, target, headers, head, await reader.readexactly(size))

    async def _forward(self, heard: Heard) -> None:
        """Let the server have a request, and throw its answer away."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        first, rest = heard.head.split(b"\r\n", 1)
        writer.write(
            first + b"\r\nConnection: close\r\n" + rest.replace(b"Connection: keep-alive\r\n", b"") + heard.body
        )
        await reader.read(-1)
        writer.close()

    async def _send(self, sink: asyncio.StreamWriter, data: bytes) -> None:
        """Hand data over as fast as the line is."""
        if self.line.delay:
            await asyncio.sleep(self.line.delay)
        place = 0
        while place < len(data):
            piece = data[place : place + self.line.piece]
            sink.write(piece)
            await sink.drain()
            place += len(piece)
            if wait := self.line.seconds(len(piece)):
                await asyncio.sleep(wait)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, ends: MessageEnds | None = None
    ) -> None:
        """Carry bytes until there are no more; `ends` counts messages once `sink` is a websocket's client."""
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(PIECE):
                if self.black_hole or sink in self._deaf:
                    self.swallowed.set()
                    continue
                for place in ends.feed(piece) if ends is not None and sink in self._websockets else ():
                    self.messages += 1
                    if self.messages == self._cut_at:
                        await self._send(sink, piece[:place])
                        self._break_off()
                        return
                await self._send(sink, piece)
        if not self.black_hole:
            sink.close()

    def _break_off(self) -> None:
        self._cut_at = None
        self.cuts.set()
        if not self._cut_for:
            self.cut()
            return
        self.close()

        async def come_back() -> None:
            await asyncio.sleep(self._cut_for)
            await self.listen()

        task = asyncio.create_task(come_back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def proxy(server: RunningServer) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a server for the length of the block."""
    wire = Proxy(server)
    await wire.listen()
    try:
        yield wire
    finally:
        await wire.end()
