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

from nbrun.core.formats import json_text
from nbrun.core.notebook.encoder import Piece
from nbrun.errors import BadFrame, NotAJupyterServer

_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_LONGEST_QUOTATION = 300
_LONGEST_IDENTIFIER = 1000


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds to wait: ``read`` for the next bytes of the answer, ``total`` for the whole exchange."""

    read: float
    total: float


QUICK = Patience(read=30.0, total=120.0)
LONG = Patience(read=120.0, total=900.0)
"""For contents, which may be hundreds of megabytes, and for starting kernels, which a cluster does in minutes."""


Body = Iterable[Piece]
"""The body of a request by pieces, gone through for each attempt: no block of memory holds all of a large one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; ``path`` is relative to the base URL and already quoted."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: Patience = QUICK
    length: int | None = None
    """The bytes of a body that is no sequence of pieces; None to send it without a word about that, in chunks."""

    @property
    def target(self) -> str:
        """Return the path with its query."""
        return f"{self.path}?{urlencode(self.params)}" if self.params else self.path

    @property
    def size(self) -> int | None:
        """Return the bytes of the body; None where they are not known."""
        return sum(map(len, self.body)) if isinstance(self.body, Sequence) else self.length


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``url`` is where it came from after redirects, header names are lower-case."""

    method: str
    url: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    cookies: tuple[str, ...] = field(default=(), repr=False)
    """The ``Set-Cookie`` lines as they came."""

    @property
    def where(self) -> str:
        """Name the exchange for messages, without its query."""
        return f"{self.method} {self.url.partition('?')[0]}"

    @property
    def is_html(self) -> bool:
        """Return whether this is a web page; a body is looked at where the content type is wrong or missing."""
        if "html" in self.headers.get("content-type", "").lower():
            return True
        return self.body[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))

    @property
    def quotation(self) -> str:
        """Return what the server says of itself, shortened: a page's title, JSON's ``message``, or plain text."""
        if self.is_html:
            title = _TITLE.search(self.body[:100_000])
            return _shortened(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
        try:
            value = json_text.loads(self.body)
        except BadFrame:  # servers send plain text under a JSON content type
            return _shortened(self.body[:2000].decode("utf-8", "replace"))
        if isinstance(value, dict):
            return _shortened(str(value.get("message") or value.get("reason") or ""))
        return _shortened(str(value or ""))

    def json(self) -> Any:
        """Return the body as JSON, NaN and infinities turned to null; raises :class:`NotAJupyterServer`."""
        try:
            return json_text.loads(self.body)
        except BadFrame as error:
            raise NotAJupyterServer(f"{self.where}: the answer of {len(self.body)} bytes is {error}") from None

    def fields(self) -> "Fields":
        """Return the body as a JSON object to be read field by field; raises :class:`NotAJupyterServer`."""
        return Fields(self.json(), self.where)

    def rows(self) -> tuple["Fields", ...]:
        """Return the body as a JSON array of objects; raises :class:`NotAJupyterServer`."""
        return rows_of(self.json(), self.where)


class Fields:
    """A JSON object, read field by field; ``where`` says in errors where it came from."""

    __slots__ = ("_value", "where")

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise NotAJupyterServer(f"{where}: expected a JSON object, got {kind_of(value)}")
        self._value: Mapping[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def raw(self, key: str) -> Any:
        """Return the value as it came; None where there is none."""
        return self._value.get(key)

    def text(self, key: str) -> str:
        """Return a string that has to be there."""
        value = self._value.get(key)
        if not isinstance(value, str):
            raise NotAJupyterServer(f"{self.where}: expected a string as {key!r}, got {kind_of(value)}")
        return value

    def identifier(self, key: str) -> str:
        """Return a string that has to be there and goes into addresses; refuse one that is too long."""
        value = self.text(key)
        if len(value) > _LONGEST_IDENTIFIER:
            raise NotAJupyterServer(f"{self.where}: {key!r} has {len(value)} characters")
        return value

    def words(self, key: str) -> str:
        """Return what the server says for a person, shortened; empty for anything but a string."""
        return _shortened(self.maybe_text(key) or "")

    def maybe_text(self, key: str) -> str | None:
        """Return a string; None for anything else, as for all fields that a frontend can do without."""
        value = self._value.get(key)
        return value if isinstance(value, str) else None

    def maybe_integer(self, key: str) -> int | None:
        """Return an integer; None for anything else."""
        value = self._value.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def maybe_time(self, key: str) -> datetime | None:
        """Return an ISO 8601 time, in UTC where it names no zone; None for anything else."""
        try:
            moment = datetime.fromisoformat(self._value.get(key) or "")
        except (ValueError, TypeError):
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return an object as it came; empty for anything else."""
        value = self._value.get(key)
        return value if isinstance(value, dict) else {}

    def child(self, key: str) -> "Fields":
        """Return an object that has to be there."""
        return Fields(self._value.get(key), f"{self.where}, {key!r}")


def rows_of(value: Any, where: str) -> tuple[Fields, ...]:
    """Return a JSON array of objects; raises :class:`NotAJupyterServer` for any other shape."""
    if not isinstance(value, list):
        raise NotAJupyterServer(f"{where}: expected a JSON array, got {kind_of(value)}")
    return tuple(Fields(row, where) for row in value)


def kind_of(value: Any) -> str:
    """Name a JSON value's kind in words."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTATION else text[:_LONGEST_QUOTATION] + " …"
