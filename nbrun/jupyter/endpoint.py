"""The address of a server: base URL, token from the URL, and TLS settings; pure.

Any address that a user copies from a browser is reduced to a *base URL*, the prefix of the server's ``api/``. A token
is removed from the URL when it is read, and is sent in a header from then on. Neither ``str`` nor ``repr`` of the
classes here shows a token.

This module reads no environment and opens no socket.
"""

import ipaddress
import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit

from nbrun.errors import UsageError

_PAGES = frozenset(
    {"lab", "tree", "notebooks", "edit", "nbclassic", "voila", "consoles", "terminals", "doc", "api", "files"}
)
"""The first path segment behind the base URL, in the pages that the Jupyter applications serve."""

_OPENED = re.compile(
    r"(?:(?:lab|doc|nbclassic|voila|api)/)?(?:workspaces/[^/]+/)?(?:tree|notebooks|edit|files|render|contents)/(.+)"
)
"""A page that shows one file; the group is the file's path, still quoted."""

_TOKEN_IN_QUERY = re.compile(r"(?i)((?:^|[?&\s])(?:token|password|_xsrf|access_token)=)[^&\s\"'<>#]+")
_REMOVED = "[secret removed]"
_EXAMPLE = (
    "Give the address of a Jupyter server, for example http://localhost:8888/ or the URL in the browser's address bar."
)


def api_path(*parts: str) -> str:
    """Join `parts` into a path under ``api/``, each segment quoted, and return it relative to the base URL.

    A part may be a contents path with slashes in it; leading, trailing and double slashes vanish, because servers
    answer them with a redirect or a 404 page. Unicode is left as it is: file names are bytes, not text to normalise.

    Raises :class:`UsageError` for a ``.`` or ``..`` segment (clients and proxies would resolve it before the server
    sees it) and for NUL.
    """
    return "/".join(
        ["api", *(quote(segment, safe="") for part in parts for segment in contents_path(part).split("/") if segment)]
    )


def contents_path(path: str) -> str:
    """Return a contents path as the server names it: raw, no slash at the ends, no empty segment."""
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's base URL, its Unix socket if it listens on one, and the secret that opens it.

    ``base_url`` ends in exactly one slash. With a ``socket`` (a path of at most 107 bytes) the host in ``base_url`` is
    ``localhost``: servers answer 403 to any made-up host name. Raises :class:`UsageError` for a token that no HTTP
    header can carry.
    """

    base_url: str
    token: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    socket: str | None = None

    def __post_init__(self) -> None:
        """Normalise the slash at the end and check what headers and the operating system would choke on."""
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
        """Name the server for messages: no secret in it."""
        return f"{self.base_url} on {self.socket}" if self.socket else self.base_url

    @classmethod
    def parse(cls, text: str, token: str | None = None, password: str | None = None) -> "Destination":
        """Read an address as people paste it: with or without a page, a notebook, a token, a hub's user redirect.

        `token` wins over one in the URL. Raises :class:`UsageError` for what is no address of a server, and for a
        user name and password in it, which would end up in logs.
        """
        url = _split(text)
        token = token or parse_qs(url.query).get("token", [""])[0] or None
        socket = None
        root = f"{url.scheme}://{url.netloc}/"
        if url.scheme == "http+unix":
            socket, root = unquote(url.netloc), "http://localhost/"
        place = _place([segment for segment in url.path.split("/") if segment])
        bases = tuple(dict.fromkeys(root + _joined(prefix) for prefix in place.prefixes))
        return Destination(cls(bases[0], token, password, socket), place.notebook, place.via_hub, bases[1:])

    def url(self, path: str) -> str:
        """Return the URL of an already quoted `path` relative to the base URL."""
        return self.base_url + path

    def named(self, method: str, url: str) -> str:
        """Return a request as messages name it: without its query, and on a Unix socket without the made-up host."""
        url = url.partition("?")[0]
        return f"{method} {url.removeprefix(self.base_url) if self.socket else url}"

    def api_url(self, *parts: str) -> str:
        """Return the URL of a path under ``api/``; quoting and errors as in :func:`api_path`."""
        return self.base_url + api_path(*parts)

    def websocket_url(self, kernel_id: str, session_id: str) -> str:
        """Return the URL of a kernel's websocket: ``ws`` for ``http``, ``wss`` for ``https``; no token in it."""
        path = api_path("kernels", kernel_id, "channels")
        return f"ws{self.base_url.removeprefix('http')}{path}?{urlencode({'session_id': session_id})}"

    @property
    def is_local(self) -> bool:
        """Return whether the server is on this machine by its address: loopback or a Unix socket."""
        return self.socket is not None or _is_loopback(urlsplit(self.base_url).hostname or "")

    def at(self, base_url: str) -> Self:
        """Return the same server and secrets under another base URL."""
        return replace(self, base_url=base_url)

    def redacted(self, text: str) -> str:
        """Return foreign `text` (a server's message, a Location) without this endpoint's secrets or any ``token=``."""
        for secret in (self.token, self.password):
            if secret and len(secret) >= 4:
                text = text.replace(secret, _REMOVED).replace(quote(secret, safe=""), _REMOVED)
        return _TOKEN_IN_QUERY.sub(rf"\1{_REMOVED}", text)


@dataclass(frozen=True, slots=True)
class Destination:
    """What a pasted address leads to.

    ``notebook`` is the contents path of the file that the page showed, unquoted and without the ``RTC:`` drive of
    real-time collaboration; a guess, to be checked on the server. ``via_hub`` says that ``endpoint`` is a JupyterHub
    whose ``hub/api/user`` must tell the user name first. ``elsewhere`` are further base URLs to try when the first
    answers 404, likeliest first: a server may be mounted under a prefix that reads like one of its own pages.
    """

    endpoint: Endpoint
    notebook: str | None = None
    via_hub: bool = False
    elsewhere: tuple[str, ...] = ()


class _Place(NamedTuple):
    prefixes: list[list[str]]
    notebook: str | None
    via_hub: bool


def _split(text: str) -> SplitResult:
    """Split an address that passes for one, adding the scheme where only loopback can be meant."""
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
        raise UsageError(f"{url.scheme}://{url.netloc} is no address of a Jupyter server", hint=_EXAMPLE)
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


def _place(segments: list[str]) -> _Place:
    """Find where the base URL ends in a pasted path; every base URL that may be meant, likeliest first."""
    first_page = next((at for at, segment in enumerate(segments) if segment in _PAGES), len(segments))
    users = segments.index("user") if "user" in segments[:first_page] else -1
    pages = [at for at, segment in enumerate(segments) if segment in _PAGES and (users < 0 or at >= users + 2)]
    base = segments[: pages[0]] if pages else segments
    opened = _OPENED.fullmatch("/".join(segments[pages[0] :])) if pages else None
    notebook = unquote(opened[1]).removeprefix("RTC:").strip("/") or None if opened else None
    if "hub" in base:
        hub = base.index("hub")
        if users != hub + 1:
            return _Place([base[:hub]], notebook, via_hub=True)
        base = base[:hub] + base[hub + 1 :]  # the hub's own page about a user's server
    shorter = [base[:length] for length in range(len(base) - 1, -1, -1)]
    longer = [segments[:at] for at in pages[1:2]] or ([segments] if pages and not notebook else [])
    return _Place([base, *longer, *shorter], notebook, via_hub=False)


def _joined(segments: list[str]) -> str:
    return "".join(quote(segment, safe="%@:!$&'()*+,;=~") + "/" for segment in segments)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
