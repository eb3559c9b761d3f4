"""Send HTTP requests to a Jupyter server; the only module that imports httpx.

A caller gets a successful answer or an exception of :mod:`nbrun.errors`. This module logs in, repeats a write once
after a refused XSRF token, follows redirects (:mod:`~nbrun.jupyter.http.redirects`), turns unexpected answers into
errors (:mod:`~nbrun.jupyter.http.errors`), retries (:mod:`~nbrun.jupyter.http.retry`), and converts httpx's exceptions.
Cookies are stored by :mod:`~nbrun.jupyter.http.auth`, never by httpx.
"""

import asyncio
import contextlib
import functools
import logging
import math
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from nbrun.core.formats import json_text
from nbrun.core.formats.units import MAX_FRAME, MAX_RESPONSE, spell_size
from nbrun.errors import NbrunError, NotAJupyterServer, ResponseTooLarge, ServerUnreachable, TooLarge, UsageError
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.auth import Auth
from nbrun.jupyter.http.errors import HINT_HTTPS, access_refused, failure_of, why_not_connected
from nbrun.jupyter.http.messages import QUICK, Answer, Body, Patience, Request
from nbrun.jupyter.http.redirects import MOST_REDIRECTS, may_follow, moved_base, target_of
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, RetryPolicy
from nbrun.jupyter.trace import Trace

CONNECT_LIMIT = 10.0
NEAR = 0.01
"""Round-trip time in seconds below which a server is near, so that a round trip costs less than to avoid it."""
LARGE_BODY = 1_000_000
"""Bytes from which a connection that is cut while sending may mean "too large": Jupyter Server sends no 413."""

KEPT_BODY = 1 << 20
"""Bytes of a successful answer that are kept. A larger one is parsed while it arrives."""

ERROR_LIMIT = 4_000_000
"""Maximum bytes that are read of an error answer, because only its message is used."""
SMALL_LIMIT = 64_000_000
"""Maximum bytes of an answer that contains no file: versions, kernelspecs, sessions, kernels."""
_LARGE = "api/contents"
_CODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}
"""Content codings that can be decompressed piece by piece, with a ratio of at most 1000. Nested codings are refused."""

AHEAD_LIMIT = 3.0
"""Seconds for which the answer to a request that was sent ahead is used."""

_UNIX_OPTIONS = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)]
"""A buffer of 1 MiB for sent data. With Linux's 208 KiB, both sides wait for each other several times per image."""

_SLICE = 1 << 18
"""Bytes that are written at a time. An event loop copies everything that the socket does not accept at once."""

Explain = Callable[[ServerUnreachable], Awaitable[NbrunError]]
"""Returns a more specific error for a server that cannot be reached."""

_CUT = (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Options of connections to a server.

    ``ca_file`` contains the only trusted certificates, in PEM. Without it, the certificates of the system and of
    certifi are trusted. ``verify=False`` trusts every certificate. ``headers`` are sent with every request and with the
    websocket's handshake. ``max_response`` and ``max_frame`` limit the bytes, after decompression, of a response body
    and of a kernel's message; None means no limit.
    """

    ca_file: Path | None = None
    verify: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_response: int | None = MAX_RESPONSE
    max_frame: int | None = MAX_FRAME
    trace: Trace | None = field(default=None, repr=False)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the context for https and wss; raise :class:`UsageError` if the file contains no certificates."""
        return _ssl_context(self.ca_file, self.verify)


UNBOUNDED = HttpOptions(max_response=None, max_frame=None)
"""For a private server, whose answers are trusted."""


def import_transport() -> None:
    """Import what httpx imports only at its first connection, for a caller that waits for a server anyway."""
    import_module("httpcore")
    import_module("anyio").current_time()  # imports the part for asyncio


@functools.cache
def _ssl_context(ca_file: Path | None, verify: bool) -> ssl.SSLContext:
    """Create the context once, because reading some hundred certificates takes 50 ms."""
    try:
        if ca_file:
            context = ssl.create_default_context(cafile=ca_file)
        else:
            context = httpx.create_ssl_context(trust_env=False)
            context.load_default_certs()
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"{ca_file}: no certificates can be read from it: {error}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _TlsTransport(httpx.AsyncBaseTransport):
    """Connections with TLS, for a server without TLS that may redirect; the certificates are read when it does."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over a connection with TLS."""
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(verify=self._options.ssl_context())
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.aclose()


class Http:
    """A connection pool for one server, open within the ``async with`` block.

    ``endpoint`` can change while it is open: if the server redirects to another base URL, that one is used.
    """

    def __init__(self, endpoint: Endpoint, options: HttpOptions | None = None, explain: Explain | None = None) -> None:
        """Create a client for `endpoint`; `explain` returns a more specific error if it cannot be reached."""
        self.options = options or HttpOptions()
        self.endpoint = replace(endpoint, hidden=tuple(self.options.headers.values()))
        self._explain = explain
        self._auth = Auth(self.endpoint)
        self._client: httpx.AsyncClient | None = None
        self._dated = ("", time.monotonic())
        """The Date header of the last answer, and the monotonic time at which it arrived."""
        self.shortest = math.inf
        """Seconds of the fastest request until its answer began; a round trip to the server takes no longer."""
        self._ahead: dict[str, asyncio.Task[tuple[Answer | NbrunError, float]]] = {}
        """The requests that were sent ahead, by path and query; the result is the outcome and its time."""

    @property
    def is_near(self) -> bool:
        """Return whether a round trip to the server has taken less than :data:`NEAR`."""
        return self.shortest < NEAR

    async def __aenter__(self) -> Self:
        path, options = self.endpoint.socket, self.options
        # A proxy would need the context too, but there is none for a server on this machine. An unusable CA file is
        # reported here. Redirects from a Unix socket are not followed.
        is_plain = self.endpoint.is_local and self.endpoint.base_url.startswith("http:") and options.ca_file is None
        context = False if path or is_plain else options.ssl_context()
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(verify=context, uds=path, socket_options=_UNIX_OPTIONS)
            if path
            else None,
            mounts={"https://": _TlsTransport(options)} if is_plain and not path else None,
            verify=context,
            trust_env=not self.endpoint.is_local,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip, deflate"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*self._drop_ahead(), return_exceptions=True)
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: Body = (),
        patience: Patience = QUICK,
        retry: RetryPolicy | None = None,
    ) -> Answer:
        """Send a request and return the API's answer, which has a 2xx status.

        `path` is relative to the base URL and percent-encoded (:func:`~nbrun.jupyter.endpoint.api_path`). The body is
        `json`, or `content`, which is already encoded. Without `retry`, a GET uses the policy ``PATIENT_GET``, and
        other requests are sent once.

        Raises :class:`AccessDenied`, :class:`NotFound`, :class:`NotAJupyterServer`, :class:`TooLarge`,
        :class:`RequestRefused` or :class:`ServerUnreachable`; :class:`UsageError` if `json` cannot be encoded.
        """
        body = content if json is None else [json_bytes(json)]
        headers = {"Content-Type": "application/json"} if body else {}
        request = Request(method, path, params or {}, body, headers, patience, await self._length(body))
        policy = retry or (PATIENT_GET if method == "GET" else ONCE)
        if method == "GET" and request.target in self._ahead:
            return await policy.call(lambda: self._attempt_ahead(request))
        return await policy.call(lambda: self._attempt(request))

    def read_ahead(self, path: str, *, params: Mapping[str, str] | None = None, patience: Patience = QUICK) -> None:
        """Send a GET now, so that the next :meth:`request` for it need not wait for a round trip.

        That request takes the answer or the error as the result of its first attempt, if it is not older than some
        seconds.
        """
        request = Request("GET", path, params or {}, patience=patience)
        if request.target not in self._ahead:
            self._ahead[request.target] = asyncio.create_task(self._outcome(request))

    async def succeeds_ahead(self, path: str) -> bool:
        """Wait for a request that was sent ahead, and return whether it succeeded. Its answer can still be taken."""
        if (task := self._ahead.get(path)) is None:
            return False
        await asyncio.wait({task})
        return not task.cancelled() and isinstance(task.result()[0], Answer)

    async def _outcome(self, request: Request) -> tuple[Answer | NbrunError, float]:
        try:
            return await self._attempt(request), time.monotonic()
        except NbrunError as error:
            return error, time.monotonic()

    async def _attempt_ahead(self, request: Request) -> Answer:
        if (task := self._ahead.pop(request.target, None)) is not None:
            outcome, when = await task
            if time.monotonic() - when <= AHEAD_LIMIT:
                if isinstance(outcome, NbrunError):
                    raise outcome
                return outcome
        return await self._attempt(request)

    def _drop_ahead(self) -> Sequence[asyncio.Task[Any]]:
        tasks = [*self._ahead.values()]
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        return tasks

    @contextlib.asynccontextmanager
    async def lines(self, path: str, *, silence: float) -> AsyncIterator[AsyncIterator[str]]:
        """GET a stream of text, such as server-sent events, and yield its lines for the length of the block.

        A stream that breaks, or has no data for `silence` seconds, ends without an error. Redirects are not followed.
        Raises the errors of :meth:`request` for an answer without a 2xx status.
        """
        if self._client is None:
            raise RuntimeError("the HTTP client is used outside its block")
        url = self.endpoint.url(path)
        headers = {**self.options.headers, "Accept": "text/event-stream", **self._auth.headers("GET")}
        timeout = httpx.Timeout(silence, connect=CONNECT_LIMIT)
        async with contextlib.AsyncExitStack() as stack:
            with foreign_errors(self.endpoint.named("GET", url), str(self.endpoint)):
                streaming = self._client.stream("GET", url, headers=headers, timeout=timeout)
                response = await stack.enter_async_context(streaming)
                if not response.is_success:
                    body, _ = await _bounded_body(response, url, ERROR_LIMIT)
                    kept = {name.lower(): value for name, value in response.headers.items()}
                    answer = Answer("GET", str(response.url), response.status_code, kept, body)
                    raise failure_of(answer, self.endpoint) or NotAJupyterServer(f"{url}: no stream is there")
            yield _lines_of(response)

    async def websocket_headers(self) -> dict[str, str]:
        """Return the headers for a kernel's websocket handshake; log in first if needed."""
        await self._auth.prepare(self._send)
        return {**self.options.headers, **self._auth.websocket_headers()}

    def server_time(self) -> datetime:
        """Return the server's time according to the Date of its last answer, or else this machine's time."""
        date, when = self._dated
        try:
            return parsedate_to_datetime(date).astimezone(UTC) + timedelta(seconds=time.monotonic() - when)
        except (ValueError, TypeError, IndexError, OverflowError):
            return datetime.now(UTC)

    async def explained(self, error: ServerUnreachable) -> NbrunError:
        """Return a more specific error for `error` if one is known, otherwise `error` itself."""
        return error if self._explain is None else await self._explain(error)

    def move(self, base_url: str) -> None:
        """Use another base URL for the same server from now on."""
        if base_url != self.endpoint.base_url:
            _log.info("the server is at %s", base_url)
            self._drop_ahead()
            self.endpoint = self.endpoint.at(base_url)
            self._auth = Auth(self.endpoint)

    def use_token(self, token: str) -> None:
        """Use another token for the same server from now on."""
        self.endpoint = replace(self.endpoint, token=token)
        self._auth = Auth(self.endpoint)

    async def _length(self, body: Body) -> int | None:
        """Return the bytes of a generated body, or None if they are not needed or :attr:`Request.size` knows them.

        Proxies need the length. A private server behind a Unix socket does not.
        """
        if self.endpoint.socket or isinstance(body, Sequence):
            return None
        length = 0
        for piece in body:
            length += len(piece)
            await asyncio.sleep(0)
        return length

    async def _attempt(self, request: Request) -> Answer:
        if request.path != "api":  # needs no login, and shows whether this is a server to log in to
            await self._auth.prepare(self._send)
        answer = await self._routed(request)
        if access_refused(answer) and await self._auth.second_chance(request.method, answer, self._send):
            answer = await self._routed(request)
        failure = failure_of(answer, self.endpoint)
        if failure is None:
            return answer
        if (
            request.method != "GET"
            and answer.is_html
            and answer.status in {403, 405}
            and "/user/" in self.endpoint.base_url
        ):
            # If the user's server is not running, a hub answers. Only its answer to a GET says so.
            await self._attempt(Request("GET", "api/status"))
        # A proxy answers 503 for a server that has ended.
        raise (await self.explained(failure)) if isinstance(failure, ServerUnreachable) else failure

    async def _routed(self, request: Request) -> Answer:
        """Send a request, and follow redirects if that is safe."""
        if request.method == "GET":
            return await self._followed(request)
        answer = await self._sent_whole(request)
        target = (
            target_of(answer.url, answer.headers.get("location", "")) if answer.status in {301, 302, 307, 308} else None
        )
        base = moved_base(self.endpoint.base_url, request.path, target) if target and not self.endpoint.socket else None
        if base is None or not await self._is_jupyter_server(base):
            return answer
        self.move(base)
        await self._auth.prepare(self._send)
        return await self._sent_whole(request)

    async def _followed(self, request: Request) -> Answer:
        answer = await self._send(request)
        for _ in range(MOST_REDIRECTS):
            if answer.status not in {301, 302, 303, 307, 308}:
                break
            target = target_of(answer.url, answer.headers.get("location", ""))
            if target is None or self.endpoint.socket or not may_follow(answer.url, target):
                break
            answer = await self._send(request, url=target)
        return answer

    async def _sent_whole(self, request: Request) -> Answer:
        """Send a request. Repeat it once if the connection is cut while a large body is sent.

        A second cut raises :class:`TooLarge`, because Jupyter Server closes the connection for a body that is too
        large.
        """
        try:
            return await self._send(request)
        except ServerUnreachable as error:
            cut = _was_cut(error) and (request.size is None or request.size >= LARGE_BODY)
            if not cut or not await self._is_jupyter_server(self.endpoint.base_url):
                raise
        try:
            return await self._send(request)
        except ServerUnreachable as error:
            if not _was_cut(error):
                raise
            size = f"{request.size / 1e6:.1f} MB" if request.size else "its body"
            raise TooLarge(
                f"{request.method} {self.endpoint}{request.path}: the connection was cut twice in {size}",
                status=413,
                hint="Probably more than the server takes: it is raised with --ServerApp.max_body_size (in bytes).",
            ) from None

    async def _is_jupyter_server(self, base_url: str) -> bool:
        """Return whether the API is at `base_url`, by a request without credentials."""
        with contextlib.suppress(NbrunError):
            answer = await self._send(Request("GET", "api"), url=f"{base_url}api", anonymous=True)
            return answer.status == 200 and answer.fields().maybe_text("version") is not None
        return False

    async def _send(self, request: Request, *, url: str | None = None, anonymous: bool = False) -> Answer:
        """Send one request without redirects, and return the answer with any status."""
        if self._client is None:
            raise RuntimeError("the HTTP client is used outside its block")
        patience = request.patience
        headers = dict(request.headers)
        if not anonymous:
            headers = {**self.options.headers, **headers, **self._auth.headers(request.method)}
        if request.size:
            headers["Content-Length"] = str(request.size)
        where = self.endpoint.named(request.method, url or self.endpoint.url(request.path))
        server = url.partition("/api")[0] if url else str(self.endpoint)
        began = time.monotonic()
        try:
            with foreign_errors(where, "" if self.endpoint.socket else server, first=request.path == "api"):
                async with (
                    asyncio.timeout(patience.total),
                    self._client.stream(
                        request.method,
                        url or self.endpoint.url(request.target),
                        content=_slices(request.body) if request.body else None,
                        headers=headers,
                        timeout=httpx.Timeout(patience.read, connect=CONNECT_LIMIT),
                    ) as response,
                ):
                    self.shortest = min(self.shortest, time.monotonic() - began)
                    body, reader = await _bounded_body(response, where, self._limit_of(request))
                    if date := response.headers.get("date"):
                        self._dated = (date, time.monotonic())
        except ServerUnreachable as error:
            _log.debug("%s %s: %s", request.method, request.path, error)
            self._trace(began, request, error=str(error))
            if (explained := await self.explained(error)) is error:
                raise
            raise explained from error.__cause__
        status, size = response.status_code, response.num_bytes_downloaded
        milliseconds = 1000 * (time.monotonic() - began)
        _log.debug("%s %s: %d, %d bytes in %.0f ms", request.method, request.path, status, size, milliseconds)
        self._trace(began, request, status=status, received=body)
        return Answer(
            method=request.method,
            url=str(response.url),
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            cookies=tuple(response.headers.get_list("set-cookie")),
            reader=reader,
        )

    def _trace(self, began: float, request: Request, **outcome: Any) -> None:
        if (trace := self.options.trace) is None:
            return
        endpoint = self.endpoint
        trace.hide([endpoint.token, endpoint.password, *self.options.headers.values(), *self._auth.secrets])
        is_json = request.headers.get("Content-Type") == "application/json"
        trace.http(began, request.method, request.target, sent=request.body if is_json else (), **outcome)

    def _limit_of(self, request: Request) -> int | None:
        most = self.options.max_response
        return most if most is None or request.path.startswith(_LARGE) else min(most, SMALL_LIMIT)


async def _lines_of(response: httpx.Response) -> AsyncIterator[str]:
    """Return the lines of a stream until it ends or breaks."""
    with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
        async for line in response.aiter_lines():
            yield line


async def _bounded_body(
    response: httpx.Response, where: str, limit: int | None
) -> tuple[bytes, json_text.JsonReader | None]:
    """Return the decompressed body of at most `limit` bytes, or the beginning and the reader of a large one.

    Of an error answer only the beginning is read. Raises :class:`ResponseTooLarge`.
    """
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in _CODINGS:
        raise NotAJupyterServer(f"{where}: the answer is compressed as {coding!r}, which was not asked for")
    is_success = response.is_success
    most = limit if is_success else ERROR_LIMIT
    declared = response.headers.get("content-length", "")
    if is_success and most is not None and not coding and declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(where, most, int(declared[:20]))
    parts: list[bytes] = []
    size = 0
    reader: json_text.JsonReader | None = None
    async for part in response.aiter_bytes():
        if is_success and reader is None and size > KEPT_BODY:
            reader = json_text.JsonReader()
            for one in parts:
                reader.feed(one)
        if reader is None:
            parts.append(part)
        else:
            reader.feed(part)
        size += len(part)
        if most is not None and size > most:
            if is_success:
                raise _too_large(where, most, None)
            break
    return b"".join(parts)[:most], reader


def _too_large(where: str, limit: int, declared: int | None) -> ResponseTooLarge:
    size = f"{spell_size(declared)}, which is more than" if declared else "more than"
    hint = "--max-response raises the limit (--max-response 4GiB), and none lifts it."
    if limit == SMALL_LIMIT:
        hint = "No Jupyter server answers this question at such length: is this its address?"
    return ResponseTooLarge(f"{where}: the answer has {size} {spell_size(limit)}", hint=hint)


@contextlib.contextmanager
def foreign_errors(where: str, server: str = "", *, first: bool = False) -> Iterator[None]:
    """Turn exceptions of httpx and an expired deadline into :class:`ServerUnreachable`.

    `where` describes the request in messages. An error that concerns the `server` names the server instead. All errors
    of the `first` request do so too, because they concern the address.
    """
    try:
        yield
    except httpx.ConnectTimeout as error:
        hint = "Is this its address, and is it reachable from here? A firewall, a VPN or a proxy may be in the way."
        raise ServerUnreachable(f"{server or where}: no connection within {CONNECT_LIMIT:g} s", hint=hint) from error
    except (httpx.TimeoutException, TimeoutError) as error:
        hint = "Something listens there and does not answer. Is this the server's address?" if first else ""
        raise ServerUnreachable(f"{server if first else where}: no answer in time", hint=hint) from error
    except httpx.ConnectError as error:
        why, hint = why_not_connected(_reason(error), (server or where).partition("://")[0])
        raise ServerUnreachable(f"{server or where}: no connection: {why}", hint=hint) from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        hint = HINT_HTTPS if first and server.startswith("http:") else ""
        broke = f"the connection broke{f': {error}' if str(error) else ''}"
        raise ServerUnreachable(f"{server if first else where}: {broke}", hint=hint) from error
    except (httpx.InvalidURL, httpx.CookieConflict) as error:
        raise UsageError(f"{where}: {error}") from None


def _reason(error: BaseException) -> str:
    """Return the operating system's reason for a failed connection: the innermost error, without its number."""
    reason = str(error)
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno and not isinstance(inner, ssl.SSLError):
            reason = os.strerror(inner.errno) if inner.errno > 0 else str(inner)
        inner = inner.__cause__ or inner.__context__
    return reason


async def _slices(body: Body) -> AsyncIterator[bytes]:
    for piece in body:
        with memoryview(piece) as whole:
            for start in range(0, len(piece), _SLICE):
                yield bytes(whole[start : start + _SLICE])


def json_bytes(value: Any) -> bytes:
    """Return `value` as JSON; raise :class:`UsageError` if it cannot be encoded."""
    try:
        return json_text.dumps(value)
    except (TypeError, RecursionError) as error:
        raise UsageError(f"this value cannot be written as JSON: {error}") from None


def _was_cut(error: ServerUnreachable) -> bool:
    return isinstance(error.__cause__, _CUT)
