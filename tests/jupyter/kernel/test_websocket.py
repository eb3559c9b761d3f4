"""A kernel's websocket: both subprotocols, refused, cut and restored connections."""

import asyncio
import contextlib
import logging
import math
import socket
import struct
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.core.protocol.codec import Subprotocol
from nbrun.core.protocol.messages import Message, Requests
from nbrun.errors import (
    AccessDenied,
    KernelStartFailed,
    NbrunError,
    NotAJupyterServer,
    NotFound,
    ServerUnreachable,
)
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.client import Http, HttpOptions
from nbrun.jupyter.http.retry import ONCE, RetryPolicy
from nbrun.jupyter.kernel.websocket import Arrival, Cut, KernelChannel, Lost, Restored, Unreadable, open_channel
from tests.support.frames import TEXT, websocket_frame
from tests.support.other_servers import other_server
from tests.support.proxy import Proxy, proxy
from tests.support.servers import RunningServer, jupyter_server

LIMIT = 30.0
BRISK = RetryPolicy(tries=100, total=20.0, first=0.02, longest=0.1)
TICKS = """
import time
for tick in range(12):
    print(f'tick {tick}', flush=True)
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, whose kernels and whose life are the tests' own."""
    with jupyter_server(tmp_path_factory.mktemp("files"), base_url="/pre/") as server:
        yield server


@pytest.fixture(scope="module")
def kernel_id(server: RunningServer) -> str:
    """A kernel that the tests of this module share, each under a session id of its own."""
    kernel: str = server.call("POST", "api/kernels", {"name": "python3"})["id"]
    return kernel


class Conversation:
    """A channel and what came over it."""

    def __init__(self, channel: KernelChannel, requests: Requests) -> None:
        self.channel = channel
        self.requests = requests

    async def ask(self, code: str) -> Message:
        """Send a cell; returns the request."""
        request = self.requests.execute(code)
        await self.channel.send(request)
        return request

    async def next(self) -> Arrival:
        """Return the next arrival."""
        arrival: Arrival = await asyncio.wait_for(self.channel.arrivals.get(), LIMIT)
        return arrival

    async def until(self, wanted: Callable[[Arrival], bool]) -> list[Arrival]:
        """Return the arrivals up to the first one that is wanted."""
        arrivals = [await self.next()]
        while not wanted(arrivals[-1]):
            arrivals.append(await self.next())
        return arrivals

    async def answers(self, request: Message) -> list[Arrival]:
        """Return what came until reply and idle for a request are in."""
        missing = {"execute_reply", "idle"}

        def complete(arrival: Arrival) -> bool:
            if isinstance(arrival, Message) and arrival.parent_id == request.id:
                missing.difference_update({arrival.type, arrival.content.get("execution_state")})
            return not missing

        return await self.until(complete)


@contextlib.asynccontextmanager
async def conversation(
    server: RunningServer, kernel_id: str, *, at: str | None = None, patience: RetryPolicy = BRISK
) -> AsyncIterator[Conversation]:
    """Open a channel to a kernel, by the address `at` or the server's own."""
    session_id = uuid.uuid4().hex
    async with Client(Endpoint(at or server.url, token=server.token)) as client:

        async def find() -> bool:
            return (await client.kernels.get(kernel_id, retry=ONCE)).execution_state == "busy"

        async with open_channel(client.http, kernel_id, session_id, find=find, patience=patience) as channel:
            yield Conversation(channel, Requests(session_id))


def text_of(arrivals: list[Arrival]) -> str:
    return "".join(
        message.content["text"] for message in arrivals if isinstance(message, Message) and message.type == "stream"
    )


async def test_a_modern_server_is_spoken_to_in_v1(server: RunningServer, kernel_id: str) -> None:
    async with conversation(server, kernel_id) as kernel:
        request = await kernel.ask("print('é中😀'); 6 * 7")
        arrivals = await kernel.answers(request)
        assert kernel.channel.subprotocol is Subprotocol.V1
    assert text_of(arrivals) == "é中😀\n"
    ours = [arrival for arrival in arrivals if isinstance(arrival, Message) and arrival.parent_id == request.id]
    assert {"execute_input", "stream", "execute_result", "execute_reply"} < {message.type for message in ours}


async def test_no_log_shows_the_token(server: RunningServer, kernel_id: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with conversation(server, kernel_id):
        pass
    assert "websocket of kernel" in caplog.text
    assert server.token not in caplog.text


@pytest.mark.parametrize("kind", ["notebook-6.5", "gateway-client"])
async def test_a_server_that_names_no_subprotocol_is_spoken_to_in_json(kind: str, tmp_path: Path) -> None:
    with other_server(kind, tmp_path) as server:
        kernel_id = server.call("POST", "api/kernels", {"name": "python3"})["id"]
        async with conversation(server, kernel_id) as kernel:
            arrivals = await kernel.answers(await kernel.ask("print('é中😀')"))
            assert kernel.channel.subprotocol is Subprotocol.LEGACY
    assert text_of(arrivals) == "é中😀\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can be told to acknowledge at once")
async def test_what_comes_by_tcp_is_acknowledged_at_once_for_the_server_waits_for_that(
    server: RunningServer, kernel_id: str
) -> None:
    async with conversation(server, kernel_id) as kernel:
        connection = kernel.channel._socket
        assert connection is not None
        assert connection.acknowledge is not None
        acknowledge, times = connection.acknowledge, 0

        def count() -> None:
            nonlocal times
            times += 1
            acknowledge()
            line = connection.transport.get_extra_info("socket")
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1

        connection.acknowledge = count
        await kernel.answers(await kernel.ask("1"))
    assert times > 1


async def test_a_message_of_more_than_the_librarys_megabyte_is_read(server: RunningServer, kernel_id: str) -> None:
    async with conversation(server, kernel_id) as kernel:
        arrivals = await kernel.answers(await kernel.ask("display({'text/plain': 'x' * 3_000_000}, raw=True)"))
    [display] = [arrival for arrival in arrivals if isinstance(arrival, Message) and arrival.type == "display_data"]
    assert len(display.content["data"]["text/plain"]) == 3_000_000


async def test_a_cut_in_the_middle_of_a_cell_loses_nothing(wire: Proxy, server: RunningServer, kernel_id: str) -> None:
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        request = await kernel.ask(TICKS)
        before = await kernel.until(lambda arrival: "tick 2" in text_of([arrival]))
        async with wire.outage():
            assert isinstance((await kernel.until(lambda arrival: isinstance(arrival, Cut)))[-1], Cut)
        after = await kernel.answers(request)
    assert isinstance(after[0], Restored)
    assert text_of(before + after) == "".join(f"tick {tick}\n" for tick in range(12))
    opened = [heard.target for heard in wire.heard if heard.upgrades]
    assert len(set(opened)) == 1, "it comes back under the same session id"
    assert len(opened) >= 2


async def test_what_is_sent_while_the_connection_is_cut_goes_out_when_it_is_back(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        async with wire.outage():
            await kernel.until(lambda arrival: isinstance(arrival, Cut))
            requests = [await kernel.ask(f"print({number})") for number in range(3)]
        arrivals = await kernel.answers(requests[-1])
    assert text_of(arrivals) == "0\n1\n2\n"


async def test_a_kernel_deleted_while_the_connection_is_away_is_lost_as_not_found(
    wire: Proxy, server: RunningServer
) -> None:
    kernel_id = server.call("POST", "api/kernels", {"name": "python3"})["id"]
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        async with wire.outage():
            await kernel.until(lambda arrival: isinstance(arrival, Cut))
            await asyncio.to_thread(server.call, "DELETE", f"api/kernels/{kernel_id}")
        lost = await kernel.next()
        assert isinstance(lost, Lost)
        assert isinstance(lost.error, NotFound)


async def test_a_server_that_does_not_come_back_is_lost_when_patience_ends(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    patience = replace(BRISK, tries=2)
    async with conversation(server, kernel_id, at=wire.url, patience=patience) as kernel:
        # The gateway is there and the server behind it is not.
        wire.answer(502, times=100)
        wire.cut()
        arrivals = await kernel.until(lambda arrival: isinstance(arrival, Lost))
    assert isinstance(arrivals[-1], Lost)
    assert isinstance(arrivals[-1].error, ServerUnreachable)


async def test_a_refused_handshake_on_the_way_back_is_tried_again(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        wire.answer(502, words="/channels", times=3)
        wire.cut()
        await kernel.until(lambda arrival: isinstance(arrival, Restored))
        assert text_of(await kernel.answers(await kernel.ask("print('back')"))) == "back\n"


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        pytest.param(websocket_frame(b"garbage"), "too short", id="garbage"),
        pytest.param(websocket_frame(struct.pack("<3Q", 2, 99, 24)), "ascend", id="not cut as agreed"),
        pytest.param(websocket_frame(b""), "too short", id="empty"),
        pytest.param(websocket_frame(b"[]", TEXT), "object", id="JSON that is no message"),
        pytest.param(websocket_frame(struct.pack("<3Q", 2, 24, 24)), "parts", id="too few parts"),
    ],
)
async def test_a_frame_that_is_no_message_is_told_and_reading_goes_on(
    frame: bytes, says: str, wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        await kernel.answers(await kernel.ask("1"))
        wire.inject(frame)
        [*_, unreadable] = await kernel.until(lambda arrival: isinstance(arrival, Unreadable))
        assert isinstance(unreadable, Unreadable)
        assert says in str(unreadable.error)
        assert text_of(await kernel.answers(await kernel.ask("print('still here')"))) == "still here\n"


async def opened(server: RunningServer, kernel_id: str, at: str, token: str | None = None) -> None:
    """Open a channel and close it again."""
    endpoint = Endpoint(at, token=server.token if token is None else token)
    async with Http(endpoint) as http, open_channel(http, kernel_id, uuid.uuid4().hex, find=_nowhere):
        pass


async def _nowhere() -> bool:
    raise AssertionError("nothing is looked for before a connection was lost")


async def test_a_wrong_token_is_denied_and_does_not_show_in_the_error(server: RunningServer, kernel_id: str) -> None:
    with pytest.raises(AccessDenied, match="refused \\(403\\)") as raised:
        await opened(server, kernel_id, server.url, token="wr0ng-t0ken")
    assert "wr0ng" not in f"{raised.value} {raised.value.hint}"


async def test_a_kernel_that_is_not_there_is_not_found(server: RunningServer) -> None:
    with pytest.raises(NotFound, match="no such kernel"):
        await opened(server, str(uuid.uuid4()), server.url)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AccessDenied),
        (429, ServerUnreachable),
        (500, KernelStartFailed),
        (502, ServerUnreachable),
        (504, ServerUnreachable),
        pytest.param(200, NotAJupyterServer, id="200: a page instead of a websocket"),
        pytest.param(400, NotAJupyterServer, id="400: a proxy that drops the Upgrade header"),
        pytest.param(426, NotAJupyterServer, id="426: a proxy that does not know websockets"),
    ],
)
async def test_a_refused_handshake_is_told_by_what_refused_it(
    status: int, expected: type[NbrunError], wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    wire.answer(status, words="/channels", body=b"<html>no</html>")
    with pytest.raises(expected, match=str(status) if status != 500 else "did not start") as raised:
        await opened(server, kernel_id, wire.url)
    assert type(raised.value) is expected
    if expected is NotAJupyterServer:
        assert "proxy" in raised.value.hint


async def test_a_handshake_that_is_no_http_is_not_a_jupyter_server(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    wire.answer(101, words="/channels")
    with pytest.raises(NotAJupyterServer, match="handshake failed"):
        await opened(server, kernel_id, wire.url)


async def test_a_handshake_without_an_answer_ends(
    wire: Proxy, server: RunningServer, kernel_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.jupyter.kernel.websocket.HANDSHAKE_LIMIT", 0.3)
    wire.black_hole = True
    with pytest.raises(ServerUnreachable, match="no answer within"):
        await opened(server, kernel_id, wire.url)


async def test_a_tls_handshake_that_fails_is_unreachable(kernel_id: str) -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as listening:
        endpoint = Endpoint(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", token="t")
        async with Http(endpoint, HttpOptions(verify=False)) as http:
            with pytest.raises(ServerUnreachable):
                async with open_channel(http, kernel_id, uuid.uuid4().hex, find=_nowhere):
                    pass


async def test_a_unix_socket_carries_a_channel(socket_endpoint: Endpoint) -> None:
    async with Client(socket_endpoint) as client:
        session = await client.sessions.start("nb.ipynb", "python3")
        assert session.kernel
        async with client.kernel(session.kernel.id) as kernel:
            replies = [message async for message in kernel.execute("1", limit=LIMIT)]
        await client.sessions.delete(session.id)
    assert "execute_reply" in [message.type for message in replies]


async def test_closing_a_black_holed_connection_takes_about_a_second_and_leaves_no_task(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    clock = asyncio.get_running_loop().time
    async with conversation(server, kernel_id, at=wire.url):
        assert reading()
        wire.black_hole = True
        began = clock()
    assert clock() - began < 3
    assert not reading()


def reading() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("read kernel")]


async def test_what_is_sent_between_the_cut_and_its_being_noticed_is_kept_too(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    session_id = uuid.uuid4().hex
    requests = Requests(session_id)
    async with Client(Endpoint(wire.url, token=server.token)) as client:

        async def find() -> bool:
            return (await client.kernels.get(kernel_id)).execution_state == "busy"

        channel = KernelChannel(client.http, kernel_id, session_id, find, BRISK)
        await channel.connect()
        assert channel._socket is not None
        wire.cut()
        await channel._socket.wait_closed()
        kernel = Conversation(channel, requests)
        request = await kernel.ask("print('kept')")  # the reader has not come to the end of the connection yet
        reader = asyncio.create_task(channel.read())
        arrivals = await kernel.answers(request)
        reader.cancel()
        await asyncio.wait([reader])
        await channel.close()
    assert text_of(arrivals) == "kept\n"


async def test_a_handshake_that_is_cut_on_the_way_back_is_tried_again(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        wire.drop(words="/channels", times=2)
        wire.cut()
        arrivals = await kernel.until(lambda arrival: isinstance(arrival, Restored | Lost))
    assert isinstance(arrivals[-1], Restored)


async def test_a_handshake_is_not_led_to_another_place(wire: Proxy, server: RunningServer, kernel_id: str) -> None:
    async with proxy(server) as elsewhere:
        target = f"{elsewhere.url.replace('http', 'ws')}api/kernels/{kernel_id}/channels"
        wire.answer(302, words="/channels", headers={"Location": target})
        with pytest.raises(NotAJupyterServer, match="answered 302") as raised:
            await opened(server, kernel_id, wire.url)
        assert "login" in raised.value.hint
        assert elsewhere.heard == [], "the token goes to the server that it is for, and nowhere else"


async def test_the_connection_is_closed_also_when_its_closing_is_cancelled(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    entered = asyncio.Event()

    async def use() -> None:
        async with conversation(server, kernel_id, at=wire.url):
            wire.black_hole = True
            entered.set()
            await asyncio.Event().wait()

    using = asyncio.create_task(use())
    await asyncio.wait_for(entered.wait(), LIMIT)
    using.cancel()
    await asyncio.sleep(0)
    using.cancel()  # once more, in the middle of the closing
    with pytest.raises(asyncio.CancelledError):
        await using
    assert not reading()


async def test_an_answer_that_is_no_http_is_told_as_such(server: RunningServer, kernel_id: str) -> None:
    def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(NotAJupyterServer, match="is not HTTP"):
            await opened(server, kernel_id, f"http://127.0.0.1:{port}/")


async def test_the_way_to_the_server_and_back_is_measured_where_it_can_be(
    wire: Proxy, server: RunningServer, kernel_id: str
) -> None:
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        assert await kernel.channel.round_trip(10) < 10
        wire.deafen()
        assert await kernel.channel.round_trip(0.05) == math.inf


async def test_a_connection_that_came_back_while_its_predecessor_was_examined_is_used(
    server: RunningServer, kernel_id: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined, found_dead = asyncio.Event(), asyncio.Event()

    async def is_dead(channel: KernelChannel, socket: Any) -> bool:
        examined.set()
        await found_dead.wait()
        monkeypatch.setattr("nbrun.jupyter.kernel.websocket.PING_EVERY", 60.0)
        return True

    monkeypatch.setattr("nbrun.jupyter.kernel.websocket.PING_EVERY", 0.1)
    monkeypatch.setattr(KernelChannel, "_is_dead", is_dead)
    async with conversation(server, kernel_id, at=wire.url) as kernel:
        await asyncio.wait_for(examined.wait(), LIMIT)
        wire.cut()
        await kernel.until(lambda arrival: isinstance(arrival, Restored))
        found_dead.set()
        await asyncio.sleep(0)
        assert text_of(await kernel.answers(await kernel.ask("print('heard')"))) == "heard\n"
