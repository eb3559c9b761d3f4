"""Read a JSON text that arrives in pieces, with each large string in memory only once.

A parser needs the whole text while it creates the values, and decodes it before. For a notebook with a hundred
megabytes of images that is four times their size. So large strings are cut out of the text as they arrive, and inserted
into the parsed value. They need no parsing: a string without a backslash is its own value.
"""

import json
from typing import Any

LARGE = 1 << 16
"""Minimum bytes of a string that is cut out."""
_QUOTE = b'"'
_OUTSIDE = b",:]} \t\r\n"
"""The bytes that follow the quote at the end of a string, and what follows a value outside of strings."""


class JsonBody:
    """A JSON text in pieces. The text must not contain `mark` otherwise.

    Only the parts between two quotes are examined. Such a part is a whole string if it contains no backslash, does not
    begin like the text outside of strings, and if the quote before it is not escaped.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._text: list[bytes] = []
        """The text up to the last quote."""
        self._last: list[bytes] = []
        """The text after the last quote."""
        self._large: dict[str, str] = {}
        """The strings that were cut out, by the marks in their places."""
        self._may_open = False
        """Whether there was a quote, and the last one does not follow a backslash, which is part of a string."""

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the text."""
        first = piece.find(_QUOTE)
        if first < 0:
            self._last.append(piece)
            return
        part = b"".join([*self._last, piece[:first]])
        last = piece.rfind(_QUOTE)
        self._text += (self._marked(part), piece[first : last + 1])
        before = piece[last - 1 : last] if last else part[-1:]
        self._may_open = before != b"\\"
        self._last = [piece[last + 1 :]]

    def value(self) -> Any:
        """Return the value of the whole text, or None if it is empty; raise ValueError if it is not JSON."""
        parts = [*self._text, *self._last]
        self._text, self._last = [], []
        text = b"".join(parts).strip()
        del parts
        if not text:
            return None
        value = json.loads(text.decode())
        del text
        return self._inserted(value) if self._large else value

    def _marked(self, part: bytes) -> bytes:
        """Return a mark for a part that is a large string, and any other part itself."""
        if len(part) < LARGE or not self._may_open or part[0] in _OUTSIDE or b"\\" in part:
            return part
        mark = f"{self._mark}{len(self._large)}"
        try:
            self._large[mark] = part.decode()
        except UnicodeDecodeError:
            return part  # an error for the whole text
        return mark.encode()

    def _inserted(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._large.get(value, value)
        if isinstance(value, list):
            return [self._inserted(item) for item in value]
        if isinstance(value, dict):
            return {self._large.get(key, key): self._inserted(item) for key, item in value.items()}
        return value
