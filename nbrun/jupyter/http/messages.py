"""An HTTP request and its answer as values, and checked access to the answer's JSON.

Pure. A server, a proxy and a login page can all answer the same URL, so the shape of an answer is always checked. The
methods of :class:`Answer` return a value of the requested shape or raise :class:`~nbrun.errors.NotAJupyterServer`,
never a ``KeyError``.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from nbrun.core.formats import json_text
from nbrun.core.formats.json_text import JsonReader
from nbrun.core.notebook.request_body import Piece
from nbrun.errors import BadFrame, NotAJupyterServer

_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_LONGEST_QUOTATION = 300
_LONGEST_IDENTIFIER = 1000


class Patience(Struct, frozen=True):
    """Time limits in seconds: ``read`` for the next bytes of the answer, ``total`` for the whole exchange."""

    read: float
    total: float


QUICK = Patience(read=30.0, total=120.0)
LONG = Patience(read=120.0, total=900.0)
"""For contents of hundreds of megabytes, and for starting kernels, which can take minutes on a cluster."""


Body = Iterable[Piece]
"""The pieces of a request's body. Each attempt iterates over them, so a large body is never in memory at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``path`` is relative to the base URL and percent-encoded."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: Patience = QUICK
    length: int | None = None
    """The bytes of a generated body, or None to send it in chunks without a Content-Length."""

    @property
    def target(self) -> str:
        """Return the path with its query."""
        return f"{self.path}?{urlencode(self.params)}" if self.params else self.path

    @property
    def size(self) -> int | None:
        """Return the bytes of the body, or None if they are unknown."""
        return sum(map(len, self.body)) if isinstance(self.body, Sequence) else self.length


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. ``url`` is the URL after redirects; header names are lower-case.

    A large body is parsed while it arrives, by ``reader``. Then ``body`` is only its beginning.
    """

    method: str
    url: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    cookies: tuple[str, ...] = field(default=(), repr=False)
    """The unparsed ``Set-Cookie`` lines."""
    reader: JsonReader | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """Return method and URL without the query, for messages."""
        return f"{self.method} {self.url.partition('?')[0]}"

    @property
    def is_html(self) -> bool:
        """Return whether this is a web page, by its content type or the beginning of its body."""
        if "html" in self.headers.get("content-type", "").lower():
            return True
        return self.body[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))

    @property
    def quotation(self) -> str:
        """Return the server's own message, shortened: a page's title, ``message`` of a JSON object, or plain text."""
        if self.is_html:
            title = _TITLE.search(self.body[:100_000])
            return _shortened(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
        try:
            value = json_text.loads(self.body)
        except BadFrame:  # servers send plain text with a JSON content type
            return _shortened(self.body[:2000].decode("utf-8", "replace"))
        if isinstance(value, dict):
            return _shortened(str(value.get("message") or value.get("reason") or ""))
        return _shortened(str(value or ""))

    def json(self) -> Any:
        """Return the body as JSON, with null for NaN and infinities; raise :class:`NotAJupyterServer`."""
        try:
            return self.reader.value() if self.reader else json_text.loads(self.body)
        except BadFrame as error:
            size = f"more than {len(self.body)}" if self.reader else len(self.body)
            raise NotAJupyterServer(f"{self.where}: the answer of {size} bytes is {error}") from None

    def fields(self) -> "Fields":
        """Return the body as a JSON object; raise :class:`NotAJupyterServer`."""
        return Fields(self.json(), self.where)

    def rows(self) -> tuple["Fields", ...]:
        """Return the body as a JSON array of objects; raise :class:`NotAJupyterServer`."""
        return rows_of(self.json(), self.where)


class Fields:
    """A JSON object with checked access to its fields; ``where`` is its source, for error messages."""

    __slots__ = ("_value", "where")

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise NotAJupyterServer(f"{where}: expected a JSON object, got {kind_of(value)}")
        self._value: Mapping[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def raw(self, key: str) -> Any:
        """Return the unchecked value, or None if it is missing."""
        return self._value.get(key)

    def text(self, key: str) -> str:
        """Return a required string."""
        value = self._value.get(key)
        if not isinstance(value, str):
            raise NotAJupyterServer(f"{self.where}: expected a string as {key!r}, got {kind_of(value)}")
        return value

    def identifier(self, key: str) -> str:
        """Return a required string that becomes part of a URL; raise an error if it is too long."""
        value = self.text(key)
        if len(value) > _LONGEST_IDENTIFIER:
            raise NotAJupyterServer(f"{self.where}: {key!r} has {len(value)} characters")
        return value

    def words(self, key: str) -> str:
        """Return a message of the server, shortened, or an empty string if it is missing."""
        return _shortened(self.maybe_text(key) or "")

    def maybe_text(self, key: str) -> str | None:
        """Return an optional string, or None for any other value."""
        value = self._value.get(key)
        return value if isinstance(value, str) else None

    def maybe_integer(self, key: str) -> int | None:
        """Return an optional integer, or None for any other value."""
        value = self._value.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def maybe_time(self, key: str) -> datetime | None:
        """Return an optional ISO 8601 time, in UTC if it has no time zone, or None for any other value."""
        try:
            moment = datetime.fromisoformat(self._value.get(key) or "")
        except (ValueError, TypeError):
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return an optional object, unchecked, or an empty one for any other value."""
        value = self._value.get(key)
        return value if isinstance(value, dict) else {}

    def child(self, key: str) -> "Fields":
        """Return a required object."""
        return Fields(self._value.get(key), f"{self.where}, {key!r}")


def rows_of(value: Any, where: str) -> tuple[Fields, ...]:
    """Return a JSON array of objects; raise :class:`NotAJupyterServer` for any other shape."""
    if not isinstance(value, list):
        raise NotAJupyterServer(f"{where}: expected a JSON array, got {kind_of(value)}")
    return tuple(Fields(row, where) for row in value)


def kind_of(value: Any) -> str:
    """Return the type of a JSON value in words."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTATION else text[:_LONGEST_QUOTATION] + " …"
