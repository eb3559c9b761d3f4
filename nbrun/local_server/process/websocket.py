"""The private server's websocket handler: forward kernel messages unparsed and in batches.

Some steps of the stock handler are not needed. nbrun's handshake (:mod:`nbrun.core.protocol.handshake`) checks itself
that outputs arrive, and there is no rate limit. So messages are not parsed: ZeroMQ frames are copied into websocket
frames. Messages are forwarded as soon as the websocket is open.
"""

import asyncio
import struct
import weakref
from contextlib import suppress
from typing import Any

from jupyter_client.session import DELIM
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.iostream import StreamClosedError
from zmq.constants import Flag
from zmq.error import Again

V1_SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"  # also in nbrun.core.protocol.codec, whose import is slow

MOST_AT_ONCE = 256
"""Maximum messages that are forwarded before the event loop continues."""

LARGEST_WRITE = 1_000_000
"""Bytes after which a batch of messages ends."""

STATUS = b"status"
"""Part of the topic of a kernel's status messages."""

FLOOD, FLOOD_RATE = 100, 1000.0
"""Outputs, and outputs per second, from which on a cell's outputs count as a flood."""

REST = 0.004
"""Seconds for which the outputs of a flood collect."""

BINARY_FRAME = 0x82
"""First byte of a frame that is a whole binary message."""

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 0.5
"""Seconds to wait for a message on iopub before the request is repeated. Each wait is twice as long as the last."""

PATIENCE = 5.0
"""Total seconds to wait for a message on iopub, because a busy kernel may send none."""


def framed(channel: str, message: list[bytes]) -> list[bytes]:
    """Return a message of the kernel as one binary frame of a websocket: its header and its content."""
    content = serialize_msg_to_ws_v1(message[message.index(DELIM) + 2 :], channel)
    length = len(content)
    if length < 126:
        return [struct.pack("!BB", BINARY_FRAME, length), content]
    if length <= 0xFFFF:
        return [struct.pack("!BBH", BINARY_FRAME, 126, length), content]
    return [struct.pack("!BBQ", BINARY_FRAME, 127, length), content]


class PrivateConnection(ZMQChannelsWebsocketConnection):
    """A websocket and the kernel's sockets behind it."""

    _live = False
    _outputs = 0
    _since = 0.0
    """The number of outputs since the last status, and when the first of them came."""

    async def prepare(self) -> None:
        """Wait until the kernel answers. The stock time-out keeps what it is called on for a minute after that."""
        await ZMQChannelsWebsocketConnection.prepare(weakref.proxy(self))

    def nudge(self) -> "asyncio.Future[None]":
        """Wait until outputs are delivered, with shorter intervals than the stock half second."""
        return asyncio.ensure_future(self._hear())

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        give_up_at, pause = loop.time() + PATIENCE, FIRST_PAUSE
        heard = asyncio.Event()
        iopub = self.channels["iopub"]
        iopub.on_recv(lambda _: heard.set())
        asking = (self.kernel_manager.connect_control(), self.kernel_manager.connect_shell())
        try:
            while not iopub.closed() and self.kernel_id in self.multi_kernel_manager and loop.time() < give_up_at:
                for channel in asking:
                    self.session.send(channel, "kernel_info_request")
                with suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), pause)
                if heard.is_set():
                    break
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            for channel in asking:
                channel.close()
            if not iopub.closed():
                iopub.stop_on_recv()

    def connect(self) -> Any:
        """Open the kernel's sockets. Messages are forwarded in batches once the buffered ones have been sent."""
        connected = super().connect()
        if connected is not None:
            connected.add_done_callback(self._go_live)
        return connected

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """Forward a message of the kernel and the messages that wait behind it."""
        if self.subprotocol != V1_SUBPROTOCOL:
            super().handle_outgoing_message(stream, outgoing_msg)
            return
        stream = self.channels.get(stream) if isinstance(stream, str) else stream
        messages, size = [outgoing_msg], sum(map(len, outgoing_msg))
        with suppress(Again):
            for _ in range(MOST_AT_ONCE if self._live else 0):
                if stream.closed() or size > LARGEST_WRITE:
                    break
                messages.append(stream.socket.recv_multipart(Flag.NOBLOCK))
                size += sum(map(len, messages[-1]))
        self._write(b"".join([piece for message in messages for piece in framed(stream.channel, message)]))
        if self._live and stream.channel == "iopub" and not stream.closed():
            self._rest(stream, messages)

    def _rest(self, stream: Any, messages: list[list[bytes]]) -> None:
        """Let the outputs of a flood collect for a moment, because each wake-up costs more than a message.

        A status ends the flood: a client waits for the end of its request.
        """
        loop = asyncio.get_running_loop()
        if any(STATUS in message[0] for message in messages):
            self._outputs = 0
            return
        if self._outputs == 0:
            self._since = loop.time()
        self._outputs += len(messages)
        if self._outputs >= FLOOD and self._outputs > FLOOD_RATE * (loop.time() - self._since):
            stream.stop_on_recv()
            loop.call_later(REST, self._go_on, stream)

    def _go_on(self, stream: Any) -> None:
        if self.channels.get("iopub") is stream and not stream.closed():
            stream.on_recv_stream(self.handle_outgoing_message)

    def _write(self, data: bytes) -> None:
        """Write frames to the connection. tornado's own method starts a task for each message."""
        connection = self.websocket_handler.ws_connection
        if connection is not None and not connection.is_closing():
            with suppress(StreamClosedError):
                connection.stream.write(data)

    def _go_live(self, _: Any) -> None:
        self._live = True
