"""The private server's websocket handler: forward kernel messages unparsed and in batches.

Some steps of the stock handler are not needed. nbrun's handshake (:mod:`nbrun.core.protocol.handshake`) checks itself
that outputs arrive, and there is no rate limit. So messages are not parsed: ZeroMQ frames are copied into websocket
frames. Messages are forwarded as soon as the websocket is open.
"""

import asyncio
from contextlib import suppress
from typing import Any

from jupyter_client.session import DELIM
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.websocket import WebSocketClosedError
from zmq.constants import Flag
from zmq.error import Again

V1_SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"  # also in nbrun.core.protocol.codec, whose import is slow

MOST_AT_ONCE = 256
"""Maximum messages that are forwarded before the event loop continues."""

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 0.5
"""Seconds to wait for a message on iopub before the request is repeated. Each wait is twice as long as the last."""

PATIENCE = 5.0
"""Total seconds to wait for a message on iopub, because a busy kernel may send none."""


class PrivateConnection(ZMQChannelsWebsocketConnection):
    """A websocket and the kernel's sockets behind it."""

    _live = False

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
        with suppress(WebSocketClosedError, Again):
            self._pass_on(stream.channel, outgoing_msg)
            for _ in range(MOST_AT_ONCE if self._live else 0):
                if stream.closed():
                    break
                self._pass_on(stream.channel, stream.socket.recv_multipart(Flag.NOBLOCK))

    def _pass_on(self, channel: str, message: list[bytes]) -> None:
        parts = message[message.index(DELIM) + 2 :]
        self.write_message(serialize_msg_to_ws_v1(parts, channel), binary=True)

    def _go_live(self, _: Any) -> None:
        self._live = True
