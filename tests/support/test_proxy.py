"""The proxy simulates exactly the requested faults on real connections."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from nbrun.errors import ServerUnreachable, TooLarge
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.retry import ONCE
from tests.support.frames import MessageEnds, websocket_frame
from tests.support.live_runs import live_run, text_of
from tests.support.notebooks import notebook, read_notebook, write_notebook
from tests.support.proxy import FOR_EVER, Proxy
from tests.support.servers import RunningServer

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
COUNTS = "for number in range(40):\n    print(number, flush=True)\n    import time; time.sleep(0.01)"


@pytest.fixture
async def client(wire: Proxy, server: RunningServer) -> AsyncIterator[Client]:
    async with Client(Endpoint(wire.url, token=server.token)) as client:
        yield client


@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
def test_messages_are_found_however_the_stream_is_cut(cut: int) -> None:
    ping, fragment = b"\x89\x00", b"\x01\x02ab"
    sizes = [0, 5, 200, 70_000]
    stream = ANSWER + ping + b"".join(websocket_frame(b"x" * size) for size in sizes) + fragment + b"\x80\x01c"
    ends, found, place = MessageEnds(), [], 0
    while place < len(stream):
        found += [place + end for end in ends.feed(stream[place : place + cut])]
        place += cut
    assert len(found) == len(sizes) + 1
    assert found[0] == len(ANSWER) + len(ping) + 2
    assert found[-1] == len(stream)


@pytest.mark.parametrize("outage", [0.0, 0.3])
async def test_a_websocket_is_cut_at_its_nth_message_and_the_run_goes_on(
    outage: float, wire: Proxy, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.jupyter.kernel.driver.NUDGE_AFTER", 60.0)  # no second connection on a busy machine
    write_notebook(server.root / "nb.ipynb", notebook(COUNTS))
    wire.cut_at(30, outage=outage)
    async with live_run("nb.ipynb", server=wire.url, token=server.token) as run:
        await asyncio.wait_for(wire.cuts.wait(), 30)
        result = await run.result()
    assert result.exit_code == 0
    outputs = read_notebook(server.root / "nb.ipynb")["cells"][0]["outputs"]
    assert text_of(outputs) == "".join(f"{number}\n" for number in range(40))
    assert len([line for line in wire.lines("GET") if line.endswith("/channels")]) == 2


async def test_a_delay_is_waited_for_each_way(wire: Proxy, client: Client) -> None:
    wire.line.delay = 0.1
    began = time.monotonic()
    await client.version()
    assert time.monotonic() - began >= 0.2


async def test_a_thin_line_takes_its_time(wire: Proxy, client: Client) -> None:
    wire.line.rate = 100_000
    began = time.monotonic()
    await client.contents.save_file("thin.txt", "x" * 50_000)
    assert time.monotonic() - began >= 0.4


async def test_a_trickle_is_there_and_of_no_use(wire: Proxy, client: Client) -> None:
    wire.line.rate = 10
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.version(), 0.5)


async def test_an_answer_for_ever_is_for_ever_until_it_is_healed(wire: Proxy, client: Client) -> None:
    wire.answer(502, "GET", times=FOR_EVER)
    for _ in range(3):
        with pytest.raises(ServerUnreachable, match="502"):
            await client.http.request("GET", "api", retry=ONCE)
    wire.heal()
    assert await client.version()


async def test_large_bodies_are_reset_and_small_ones_pass(wire: Proxy, client: Client) -> None:
    wire.reset_above = 1_000_000
    await client.contents.save_file("small.txt", "x")
    with pytest.raises(TooLarge):
        await client.contents.save_file("large.txt", "x" * 2_000_000)


async def test_what_was_forwarded_arrived_although_the_answer_was_another(
    wire: Proxy, client: Client, server: RunningServer
) -> None:
    wire.answer(502, "PUT", forward=True)
    body = json.dumps({"type": "file", "format": "text", "content": "x"}).encode()
    with pytest.raises(ServerUnreachable):
        await client.contents.save("forwarded.txt", [body], retry=ONCE)
    assert (server.root / "forwarded.txt").read_text() == "x"


async def test_a_black_hole_says_nothing(wire: Proxy, client: Client) -> None:
    wire.black_hole = True
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.version(), 0.3)
    assert wire.swallowed.is_set()


async def test_an_outage_refuses_until_it_is_over(wire: Proxy, client: Client) -> None:
    async with wire.outage():
        with pytest.raises(ServerUnreachable):
            await client.http.request("GET", "api", retry=ONCE)
    assert await client.version()
