"""A server that answers what no real one can be made to: redirects, proxies' pages, cut connections, garbage.

Where a real server can be started, tests use that one; a double may also stand *before* a real server, as a proxy does.
"""

import asyncio
import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.servers import RunningServer


@dataclass(frozen=True)
class Heard:
    """A request that arrived; header names are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


CUT = None
"""Instead of a reply: close the connection without a word."""

Answering = Callable[[Heard], Awaitable[Reply | None]]


@dataclass
class Double:
    """Where the double listens, and all that it heard so far."""

    url: str
    heard: list[Heard] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [f"{heard.method} {heard.path}" for heard in self.heard]


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def page(title: str, status: int = 200) -> Reply:
    body = f"<!DOCTYPE html>\n<html><head><title>\n {title}\n</title></head></html>"
    return Reply(status, body.encode(), {"Content-Type": "text/html"})


def moved(location: str, status: int = 302) -> Reply:
    return Reply(status, headers={"Location": location})


ENDED = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)


@contextlib.asynccontextmanager
async def double(
    answer: Callable[[Heard], Reply | None] | Answering, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Double]:
    """Listen on loopback for as long as the block lasts; every request gets what `answer` gives."""

    unanswered: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        unanswered.add(task)
        task.add_done_callback(unanswered.discard)
        with contextlib.closing(writer), contextlib.suppress(*ENDED):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            heard = Heard(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
            here.heard.append(heard)
            reply = answer(heard)
            if isinstance(reply, Awaitable):
                reply = await reply
            if reply is not None:
                lines = [f"HTTP/1.1 {reply.status} Said"]
                lines += [f"{name}: {value}" for name, value in reply.headers.items()]
                lines += [f"Content-Length: {len(reply.body)}", "Connection: close", "", ""]
                writer.write("\r\n".join(lines).encode("latin-1") + reply.body)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    here = Double(f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with server:
        yield here
        for task in [*unanswered]:  # since Python 3.12 the server waits for them
            task.cancel()


def origin(url: str) -> str:
    return url[: url.index("/", len("http://"))]


async def passed_on(heard: Heard, server: RunningServer) -> Reply:
    """Ask a real server what was asked of the double, as a proxy would."""
    request = urllib.request.Request(
        f"{origin(server.url)}{heard.target}", data=heard.body or None, method=heard.method
    )
    for name in ("authorization", "content-type"):
        if name in heard.headers:
            request.add_header(name, heard.headers[name])

    def ask() -> Reply:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(
                    answer.status, answer.read(), {"Content-Type": answer.headers["Content-Type"] or "text/plain"}
                )
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), {"Content-Type": error.headers["Content-Type"] or "text/plain"})

    return await asyncio.to_thread(ask)
