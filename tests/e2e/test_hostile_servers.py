"""Servers that send too much, too slowly or too deeply nested data: bounded memory and time, exit code 4."""

import asyncio
import contextlib
import functools
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

import nbrun
from nbrun.core.formats.units import MAX_FRAME, parse_size
from nbrun.errors import ExitCode, NbrunError, NotAJupyterServer, RequestRefused, ResponseTooLarge, ServerUnreachable
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.client import SMALL_LIMIT, Http, HttpOptions
from nbrun.jupyter.http.messages import Patience
from nbrun.jupyter.http.retry import ONCE
from nbrun.jupyter.kernel.websocket import Lost, open_channel
from tests.support.notebooks import notebook, run_nbrun, write_notebook
from tests.support.servers import RunningServer

LIMIT = 3_000_000
LIMITED = HttpOptions(max_response=LIMIT, max_frame=100_000)
PEAK = 200_000_000
"""Bytes of memory: 64 kB from a socket may be 66 MB when they are decompressed, and are copied once."""
SOON = Patience(read=5.0, total=5.0)
Writer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def body(data: bytes, *headers: str, status: int = 200) -> Writer:
    """Return what sends a whole answer."""

    async def send(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Said", *headers, f"Content-Length: {len(data)}", "", ""]
        writer.write("\r\n".join(lines).encode() + data)

    return send


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def endless_error(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"10000\r\n" + b"no! " * 0x4000 + b"\r\n")
        await writer.drain()


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X-More: " + b"x" * 60_000 + b"\r\n")
        await writer.drain()


async def endless_interim(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        await writer.drain()


@contextlib.asynccontextmanager
async def hostile(answer: Writer) -> AsyncIterator[str]:
    """Listen on loopback and answer each request so."""
    open_now: set[asyncio.Task[None]] = set()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        for task in open_now:
            task.cancel()
        server.close()


async def failure(answer: Writer, patience: Patience = SOON) -> NbrunError:
    async with hostile(answer) as url, Http(Endpoint(url), LIMITED) as http:
        tracemalloc.start()
        try:
            with pytest.raises(NbrunError) as caught:
                (await http.request("GET", "api/contents/x", retry=ONCE, patience=patience)).json()
            assert tracemalloc.get_traced_memory()[1] < PEAK
        finally:
            tracemalloc.stop()
    assert caught.value.exit_code is ExitCode.SERVER
    return caught.value


@functools.cache
def packed(*layers: int) -> bytes:
    """Return 60 MB of zeros compressed once for each of `layers`: 60 kB, or less."""
    pieces = iter([bytes(1_000_000)] * 60)
    for wbits in layers:
        packer = zlib.compressobj(wbits=wbits)
        pieces = iter([*map(packer.compress, pieces), packer.flush()])
    return b"".join(pieces)


def bomb(coding: str, *layers: int, status: int = 200) -> Writer:
    """Return what sends such an answer, which is made when it is first sent."""

    async def send(writer: asyncio.StreamWriter) -> None:
        await body(packed(*layers), f"Content-Encoding: {coding}", status=status)(writer)

    return send


GZIP = zlib.MAX_WBITS | 16


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (bomb("gzip", GZIP), ResponseTooLarge, "more than 3 MB"),
        (bomb("deflate", zlib.MAX_WBITS), ResponseTooLarge, "more than 3 MB"),
        (bomb("gzip, gzip", GZIP, GZIP), NotAJupyterServer, "compressed as 'gzip, gzip'"),
        (body(b"{}", "Content-Encoding: br"), NotAJupyterServer, "compressed as 'br'"),
        (body(b"{}", "Content-Encoding: gzip"), ServerUnreachable, "the connection broke"),
        (body(bytes(5_000_000)), ResponseTooLarge, "5 MB, which is more than 3 MB"),
        (endless, ResponseTooLarge, "more than 3 MB"),
        (endless_error, RequestRefused, "500: no! no!"),
        (bomb("gzip", GZIP, status=404), NbrunError, "not found"),
        (endless_headers, ServerUnreachable, "the connection broke"),
        (body(b"[" * 1_000_000), NotAJupyterServer, "not readable as JSON"),
        (body(b'{"a":' * 500 + b"1" + b"}" * 500), NotAJupyterServer, "nested more than 200 levels"),
        (body(b'{"message": "' + b"x" * 2_000_000 + b'"}', status=400), RequestRefused, "xxx …"),
    ],
    ids=[
        "a gzip bomb", "a deflate bomb", "a bomb in a bomb", "an unknown coding", "no gzip", "a declared size",
        "endless", "an endless error", "a bomb as an error", "endless headers", "open brackets", "deep objects",
        "a long message",
    ],
)  # fmt: skip
async def test_an_answer_is_read_up_to_a_limit(answer: Writer, kind: type[NbrunError], words: str) -> None:
    error = await failure(answer)
    assert isinstance(error, kind), error
    assert words in str(error)
    assert len(str(error)) < 1000
    if kind is ResponseTooLarge:
        assert "--max-response" in error.hint


@pytest.mark.parametrize("answer", [drip, endless_interim])
async def test_an_answer_that_does_not_end_is_given_up(answer: Writer) -> None:
    error = await failure(answer, patience=Patience(read=5.0, total=0.5))
    assert "no answer in time" in str(error)


async def test_an_answer_that_carries_no_file_has_a_limit_of_its_own() -> None:
    async with hostile(body(bytes(SMALL_LIMIT + 1_000_000))) as url, Http(Endpoint(url)) as http:
        with pytest.raises(ResponseTooLarge, match=r"65 MB, which is more than 64 MB") as caught:
            await http.request("GET", "api/kernelspecs", retry=ONCE)
    assert "--max-response" not in caught.value.hint


async def test_without_a_limit_all_is_read() -> None:
    options = HttpOptions(max_response=None)
    text = "x" * 5_000_000
    async with hostile(body(f'"{text}"'.encode())) as url, Http(Endpoint(url), options) as http:
        assert (await http.request("GET", "api/contents/x", retry=ONCE)).json() == text


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_message_beyond_the_limit_ends_the_connection_for_good(compression: str | None) -> None:
    connections = []

    async def talk(socket: ServerConnection) -> None:
        connections.append(socket)
        await socket.send(bytes(200_000))
        await socket.wait_closed()

    async def find() -> bool:
        return False

    async with serve(talk, "127.0.0.1", 0, compression=compression, select_subprotocol=lambda *_: None) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with Http(Endpoint(url), LIMITED) as http, open_channel(http, "k", "s", find=find) as channel:
            async with asyncio.timeout(10):
                arrival = await channel.arrivals.get()
    assert isinstance(arrival, Lost)
    assert isinstance(arrival.error, ResponseTooLarge)
    assert "more than 100 kB" in str(arrival.error)
    assert "--max-frame" in arrival.error.hint
    assert len(connections) == 1


def test_an_image_of_200_mb_is_within_the_default() -> None:
    assert MAX_FRAME > 200_000_000 * 4 / 3
    assert parse_size("1GiB") == MAX_FRAME


def test_a_run_says_which_limit_was_met(server: RunningServer, tmp_path: Path) -> None:
    """An output above --max-frame, then a notebook above --max-response, on a stock server."""
    big = "from IPython.display import display, HTML\ndisplay(HTML('x' * 300_000))"
    write_notebook(server.root / "big.ipynb", notebook("print(1)", big, "2"))
    env = {"NBRUN_TOKEN": server.token}
    found = run_nbrun("run", "big.ipynb", "--server", server.url, "--max-frame", "100kB", cwd=tmp_path, env=env)
    assert found.returncode == ExitCode.SERVER
    assert "a message of the kernel has" in found.stderr
    assert "more than 100 kB in cell 2 of 3" in found.stderr
    assert "--max-frame" in found.stderr

    result = nbrun.run("big.ipynb", server=server.url, token=server.token)
    assert result.outcome.value == "passed"
    found = run_nbrun("run", "big.ipynb", "--server", server.url, "--max-response", "100kB", cwd=tmp_path, env=env)
    assert found.returncode == ExitCode.SERVER
    assert "the answer has 302 kB, which is more than 100 kB" in found.stderr
    assert "--max-response" in found.stderr
