"""The address of a server: base URL, token from the URL, and TLS settings; pure.

Any address that a user copies from a browser is reduced to a *base URL*, the prefix of the server's ``api/``. A token
is removed from the URL when it is read, and is sent in a header from then on. Neither ``str`` nor ``repr`` of the
classes here shows a token.

This module reads no environment and opens no socket.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit

from nbrun.errors import UsageError

_PAGES = frozenset(
    {"lab", "tree", "notebooks", "edit", "nbclassic", "voila", "consoles", "terminals", "doc", "api", "files"}
)
"""The first path segment behind the base URL in the pages of the Jupyter applications."""

_OPENED = re.compile(
    r"(?:(?:lab|doc|nbclassic|voila|api)/)?(?:workspaces/[^/]+/)?(?:tree|notebooks|edit|files|render|contents)/(.+)"
)
"""A page that shows one file. The group is the file's path, percent-encoded."""

_TOKEN_IN_QUERY = re.compile(r"(?i)((?:^|[?&\s])(?:token|password|_xsrf|access_token)=)[^&\s\"'<>#]+")
_REMOVED = "[secret removed]"
_EXAMPLE = (
    "Give the address of a Jupyter server, for example http://localhost:8888/ or the URL in the browser's address bar."
)


def api_path(*parts: str) -> str:
    """Return the path under ``api/`` that consists of `parts`, percent-encoded and relative to the base URL.

    A part may be a contents path with slashes. Leading, trailing and double slashes are removed, because servers answer
    them with a redirect or a 404 page. Unicode is not normalised, because file names are bytes.

    Raises :class:`UsageError` for NUL and for a ``.`` or ``..`` segment, which clients and proxies would resolve.

    >>> api_path("contents", "reports/week 1.ipynb")
    'api/contents/reports/week%201.ipynb'
    """
    return "/".join(
        ["api", *(quote(segment, safe="") for part in parts for segment in contents_path(part).split("/") if segment)]
    )


def contents_path(path: str) -> str:
    """Return the server's form of a contents path: no percent-encoding, no outer slashes, no empty segments.

    Raises :class:`UsageError` as :func:`api_path` does, and for invalid Unicode.
    """
    segments = [segment for segment in path.split("/") if segment]
    if "\0" in path or "." in segments or ".." in segments:
        raise UsageError(
            f"{path!r} is no path on the server: a segment is '.', '..' or holds a NUL",
            hint="Paths are relative to the server's root folder and are written out in full.",
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path!r} is no path on the server: it is not valid Unicode") from None
    return "/".join(segments)


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "content-type", "transfer-encoding", "upgrade", "accept-encoding"}
)
"""Headers that belong to the transport; another value would break the request."""


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return additional HTTP headers of the user; raise :class:`UsageError` without showing a value."""
    for name, value in headers.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of an HTTP header", hint="Write it as in --header 'X-Team: data'.")
        if lower in _OWN_HEADERS or lower.startswith("sec-websocket-"):
            raise UsageError(f"the header {name} is set by nbrun itself")
        if not (value.isascii() and value.isprintable()):
            raise UsageError(f"the value of the header {name} holds a character that no HTTP header can carry")
    return dict(headers)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server: base URL, Unix socket if any, and token or password.

    ``base_url`` ends in exactly one slash. With a ``socket`` (a path of at most 107 bytes) its host is ``localhost``,
    because servers answer 403 to an unknown host name. Raises :class:`UsageError` for a token that is not valid in an
    HTTP header.
    """

    base_url: str
    token: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    socket: str | None = None
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """Further secrets that no message shows: the values of the user's HTTP headers."""

    def __post_init__(self) -> None:
        """Normalise the final slash, and check the token and the socket's path."""
        object.__setattr__(self, "base_url", self.base_url.rstrip("/") + "/")
        token = (self.token or "").strip() or None
        object.__setattr__(self, "token", token)
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageError(
                "the token holds a character that no HTTP header can carry",
                hint="A token is one word of letters, digits and punctuation; look for quotes pasted with it.",
            )
        if self.socket is not None and len(self.socket.encode()) > 107:
            raise UsageError(f"{self.socket}: the path of a Unix socket is at most 107 bytes long")

    def __str__(self) -> str:
        """Return the address for messages, without secrets."""
        return f"{self.base_url} on {self.socket}" if self.socket else self.base_url

    @classmethod
    def parse(cls, text: str, token: str | None = None, password: str | None = None) -> "Destination":
        """Parse an address as copied from a browser or a log.

        It may contain the path of a page, a notebook, a token, or a hub's user redirect. `token` takes precedence over
        one in the URL. Raises :class:`UsageError` for an invalid address, and for one with a user name or password,
        which would appear in logs.
        """
        url = _split(text)
        token = token or parse_qs(url.query).get("token", [""])[0] or None
        socket = None
        root = f"{url.scheme}://{url.netloc}/"
        if url.scheme == "http+unix":
            socket, root = unquote(url.netloc), "http://localhost/"
        place = _location([segment for segment in url.path.split("/") if segment])
        bases = tuple(dict.fromkeys(root + _joined(prefix) for prefix in place.prefixes))
        return Destination(cls(bases[0], token, password, socket), place.notebook, place.via_hub, bases[1:])

    def url(self, path: str) -> str:
        """Return the URL of a percent-encoded `path` relative to the base URL."""
        return self.base_url + path

    def named(self, method: str, url: str) -> str:
        """Return a request as shown in messages: without its query, and for a Unix socket without the host."""
        url = url.partition("?")[0]
        return f"{method} {url.removeprefix(self.base_url) if self.socket else url}"

    def websocket_url(self, kernel_id: str, session_id: str) -> str:
        """Return the URL of a kernel's websocket, without a token: ``ws`` for ``http``, ``wss`` for ``https``."""
        path = api_path("kernels", kernel_id, "channels")
        return f"ws{self.base_url.removeprefix('http')}{path}?{urlencode({'session_id': session_id})}"

    @property
    def is_local(self) -> bool:
        """Return whether the address is on this machine: loopback or a Unix socket."""
        return self.socket is not None or _is_loopback(urlsplit(self.base_url).hostname or "")

    def at(self, base_url: str) -> Self:
        """Return the same server and credentials with another base URL."""
        return replace(self, base_url=base_url)

    def redacted(self, text: str) -> str:
        """Return untrusted `text`, such as a server's message, without this endpoint's secrets and any ``token=``."""
        for secret in (self.token, self.password, *self.hidden):
            if secret and len(secret) >= 4:
                text = text.replace(secret, _REMOVED).replace(quote(secret, safe=""), _REMOVED)
        return _TOKEN_IN_QUERY.sub(rf"\1{_REMOVED}", text)


_OF_ENGINES = ("+http", "+https", "dask", "+tls")
"""Ends of schemes of engines, which are not addresses of servers."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The result of parsing an address.

    ``notebook`` is the contents path of the file that the page showed, decoded and without the ``RTC:`` drive of
    real-time collaboration. It is a guess that must be checked on the server. ``via_hub`` is true if ``endpoint`` is a
    JupyterHub, whose ``hub/api/user`` returns the user name. ``elsewhere`` are further base URLs to try if the first
    answers 404, likeliest first, because a server may be mounted under a prefix that looks like one of its pages.
    """

    endpoint: Endpoint
    notebook: str | None = None
    via_hub: bool = False
    elsewhere: tuple[str, ...] = ()


class _Location(NamedTuple):
    prefixes: list[list[str]]
    notebook: str | None
    via_hub: bool


def _split(text: str) -> SplitResult:
    """Split an address, and add ``http`` if the scheme is missing and the host is loopback."""
    text = text.strip()
    if not text or any(character.isspace() or not character.isprintable() for character in text):
        raise UsageError("the server's address is empty or has blanks in it", hint=_EXAMPLE)
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname or "", url.port
    except ValueError:
        raise UsageError("the server's address cannot be read: its host or port is malformed", hint=_EXAMPLE) from None
    if url.username is not None or url.password is not None:
        raise UsageError(
            f"the address of {host} holds a user name or password",
            hint="Leave them out of the URL and give the token or the password on its own.",
        )
    if url.scheme not in {"http", "https", "http+unix"} or not host or port == 0:
        hint = "This is the URL of an engine: write --engine." if url.scheme.endswith(_OF_ENGINES) else _EXAMPLE
        raise UsageError(f"{url.scheme}://{url.netloc} is no address of a Jupyter server", hint=hint)
    if "://" not in text and not _is_loopback(host):
        raise UsageError(f"{host}: is that http:// or https://?", hint=f"Write the scheme out: https://{url.netloc}/")
    if {".", ".."} & set(unquote(url.path).split("/")):
        raise UsageError(f"the path of the address at {host} has a '.' or '..' in it", hint=_EXAMPLE)
    if url.scheme == "http+unix" and not unquote(url.netloc).startswith("/"):
        raise UsageError(
            "the address of a Unix socket names no absolute path",
            hint="Its slashes are written %2F: http+unix://%2Frun%2Fjupyter.sock/",
        )
    return url


def _location(segments: list[str]) -> _Location:
    """Return the possible base URLs of an address, likeliest first, and the notebook that it shows."""
    first_page = next((at for at, segment in enumerate(segments) if segment in _PAGES), len(segments))
    users = segments.index("user") if "user" in segments[:first_page] else -1
    pages = [at for at, segment in enumerate(segments) if segment in _PAGES and (users < 0 or at >= users + 2)]
    base = segments[: pages[0]] if pages else segments
    opened = _OPENED.fullmatch("/".join(segments[pages[0] :])) if pages else None
    notebook = unquote(opened[1]).removeprefix("RTC:").strip("/") or None if opened else None
    if "hub" in base:
        hub = base.index("hub")
        if users != hub + 1:
            return _Location([base[:hub]], notebook, via_hub=True)
        base = base[:hub] + base[hub + 1 :]  # the hub's own page about a user's server
    shorter = [base[:length] for length in range(len(base) - 1, -1, -1)]
    longer = [segments[:at] for at in pages[1:2]] or ([segments] if pages and not notebook else [])
    return _Location([base, *longer, *shorter], notebook, via_hub=False)


def _joined(segments: list[str]) -> str:
    return "".join(quote(segment, safe="%@:!$&'()*+,;=~") + "/" for segment in segments)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
