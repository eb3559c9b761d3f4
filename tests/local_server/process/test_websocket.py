"""The private server's websocket: frames, batches, and the rest in a flood of outputs."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.session import DELIM, Session
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader
from zmq.constants import SocketType
from zmq.eventloop.zmqstream import ZMQStream
from zmq.sugar.context import Context

from nbrun.core.protocol.codec import Subprotocol, decode
from nbrun.local_server.process import websocket
from nbrun.local_server.process.websocket import FLOOD, V1_SUBPROTOCOL, PrivateConnection, framed


def output(text: str, topic: bytes = b"kernel.x.stream") -> list[bytes]:
    return [topic, DELIM, b"signature", b"{}", b"{}", b"{}", b'{"text":"%s"}' % text.encode()]


def frames_in(data: bytes) -> list[Frame]:
    reader = StreamReader()
    reader.feed_data(data)
    found = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=False)
        try:
            next(parsing)
        except StopIteration as parsed:
            found.append(parsed.value)
    return found


@pytest.mark.parametrize("length", [0, 1, 50, 60_000, 70_000])
def test_a_message_is_a_frame_of_any_length(length: int) -> None:
    [frame] = frames_in(b"".join(framed("iopub", output("x" * length))))
    message = decode(bytes(frame.data), Subprotocol.V1)
    assert (frame.opcode, frame.fin) == (Opcode.BINARY, True)
    assert (message.channel, message.content) == ("iopub", {"text": "x" * length})


class Passing:
    """A kernel's socket, and a connection that forwards what it sends; the writes are kept."""

    def __init__(self, context: Context[Any]) -> None:
        self.kernel = context.socket(SocketType.PUSH)
        self.kernel.bind("inproc://kernel")
        socket = context.socket(SocketType.PULL)
        socket.connect("inproc://kernel")
        self.stream: Any = ZMQStream(socket)
        self.stream.channel = "iopub"
        self.writes: list[list[str]] = []
        self.is_closing = False
        handler: Any = KernelWebsocketHandler.__new__(KernelWebsocketHandler)
        stream = SimpleNamespace(write=self._write)
        handler.ws_connection = SimpleNamespace(
            is_closing=lambda: self.is_closing, stream=stream, selected_subprotocol=V1_SUBPROTOCOL
        )
        self.arrived = asyncio.Event()
        self.connection: Any = PrivateConnection(websocket_handler=handler)
        self.connection.channels = {"iopub": self.stream}
        self.connection._live = True
        self.stream.on_recv_stream(self.connection.handle_outgoing_message)

    def _write(self, data: bytes) -> None:
        messages = [decode(bytes(frame.data), Subprotocol.V1) for frame in frames_in(data)]
        self.writes.append([str(message.content["text"]) for message in messages])
        self.arrived.set()

    @property
    def texts(self) -> list[str]:
        return [text for write in self.writes for text in write]

    async def until(self, text: str) -> None:
        """Wait until the output `text` has been written."""
        async with asyncio.timeout(20):
            while text not in self.texts:
                self.arrived.clear()
                await self.arrived.wait()

    def close(self) -> None:
        self.kernel.close()
        self.stream.close()


@pytest.fixture
async def passing() -> AsyncIterator[Passing]:
    context: Context[Any] = Context()
    passing = Passing(context)
    yield passing
    passing.close()
    context.term()


async def test_messages_that_wait_are_written_together_in_their_order(passing: Passing) -> None:
    for number in range(20):
        passing.kernel.send_multipart(output(str(number)))
    await passing.until("19")
    assert passing.texts == [str(number) for number in range(20)]
    assert len(passing.writes) < 20


async def test_a_batch_ends_with_a_large_message(passing: Passing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "LARGEST_WRITE", 100)
    for text in ("x" * 200, "y" * 200, "end"):
        passing.kernel.send_multipart(output(text))
    await passing.until("end")
    assert len(passing.writes) == 3


async def test_a_connection_that_closes_gets_nothing(passing: Passing) -> None:
    passing.is_closing = True
    passing.connection.handle_outgoing_message(passing.stream, output("lost"))
    assert passing.writes == []


async def test_the_outputs_of_a_flood_collect_until_a_status_comes(
    passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, *_: rests.append(seconds))
    for number in range(FLOOD):
        passing.connection._rest(passing.stream, [output(str(number))])
    assert rests == [websocket.REST]
    assert not passing.stream.receiving()
    passing.kernel.send_multipart(output("later"))
    passing.connection._go_on(passing.stream)
    await passing.until("later")
    assert len(rests) == 2
    passing.connection._rest(passing.stream, [output("end", b"kernel.x.status")])
    passing.connection._rest(passing.stream, [output("of the next cell")])
    assert len(rests) == 2
    passing.connection.channels = {}  # after the end of the connection, the socket is somebody else's
    passing.stream.stop_on_recv()
    passing.connection._go_on(passing.stream)
    assert not passing.stream.receiving()


class Answered(PrivateConnection):
    """A connection to a kernel that has answered."""

    kernel_manager = SimpleNamespace(is_alive=lambda: True, session=SimpleNamespace(key=b"key"))

    async def _register_session(self) -> None:
        """Register nothing."""

    def request_kernel_info(self) -> Any:
        answer = asyncio.get_running_loop().create_future()
        answer.set_result({})
        return answer


async def test_a_connection_is_released_when_it_is_over_and_not_at_the_stock_time_out() -> None:
    handler: Any = KernelWebsocketHandler.__new__(KernelWebsocketHandler)
    connection: Any = Answered(websocket_handler=handler, session=Session(), kernel_info_timeout=60.0)
    await connection.prepare()
    assert connection.session.key == b"key"
    released = weakref.ref(connection)
    del connection
    gc.collect()
    assert released() is None
