"""Read a JSON text that arrives in pieces, with little more than its value in memory.

A parser needs the whole text while it creates the values. For a notebook with a gigabyte of outputs, that is several
times their size: the pieces, the bytes, the text and the values. So this one parses what has arrived:

- A value that ends within the next :data:`AHEAD` characters is parsed by :mod:`json`, whatever is in it.
- Of a longer object or array, the members are read in the same way. Of a longer string, the end is searched.

So the text in memory is at most one long string, or some hundred thousand characters.
"""

import codecs
import json
import re
from collections.abc import Generator
from typing import Any

AHEAD = 1 << 16
"""Characters that are looked at before a value is known to be long. A scalar other than a string is never long."""
_OPENING = ('"', "[", "{")
_SPACE = re.compile(r"[ \t\n\r]*")

Reading = Generator[None, None, Any]
"""Waits for more text at each step, and returns a value."""


class JsonPieces:
    """The value of a JSON text in UTF-8 that is fed in pieces."""

    def __init__(self, decoder: json.JSONDecoder | None = None, errors: str = "strict") -> None:
        """Parse with `decoder`; `errors` is how invalid UTF-8 is handled, as in :meth:`bytes.decode`."""
        self._parse = (decoder or json.JSONDecoder()).raw_decode
        self._decode = codecs.getincrementaldecoder("utf-8")(errors).decode
        self._arrived: list[str] = []
        """The text that has arrived but is not in ``_text`` yet."""
        self._waiting = 0
        """The characters in ``_arrived``."""
        self._text = ""
        self._at = 0
        """The position in ``_text`` up to which it is read."""
        self._passed = 0
        """The characters before ``_text``."""
        self._tried = -1
        """``_passed`` when several items of an array were last tried together."""
        self._is_whole = False
        """Whether no more text arrives."""
        self._reading: Reading = self._document()
        self._value: Any = None
        self._error: Exception | None = None

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the text. An error is raised by :meth:`value`."""
        self._add(piece)
        if self._waiting >= AHEAD:
            self._go_on()

    def value(self) -> Any:
        """Return the value of the whole text, or None if it is empty.

        Raise ValueError if the text is not JSON, and RecursionError if it is nested too deeply.
        """
        if not self._is_whole:
            self._is_whole = True
            self._add(b"")
            self._go_on()
        if self._error is not None:
            raise self._error
        return self._value

    def _add(self, piece: bytes) -> None:
        if self._error is None:
            try:
                text = self._decode(piece, self._is_whole)
            except UnicodeDecodeError as error:
                self._fail(error)
            else:
                self._arrived.append(text)
                self._waiting += len(text)

    def _go_on(self) -> None:
        """Read as far as the text that has arrived allows."""
        if self._error is not None:
            return
        self._text = "".join([self._text[self._at :], *self._arrived])
        self._passed += self._at
        self._at, self._waiting = 0, 0
        self._arrived.clear()
        try:
            next(self._reading)
        except StopIteration as end:
            self._value = end.value
        except json.JSONDecodeError as error:
            place = self._passed + self._at
            self._fail(ValueError(f"{error.msg} (near character {place})") if self._passed else error)
        except (ValueError, RecursionError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._text = ""
        self._arrived.clear()

    def _document(self) -> Reading:
        if not (yield from self._next()):
            return None
        value = yield from self._any()
        if (yield from self._next()):
            raise json.JSONDecodeError("Extra data", self._text, self._at)
        return value

    def _next(self) -> Reading:
        """Skip white space and return the next character, or an empty string at the end of the text."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._is_whole:
                return self._text[self._at : self._at + 1]
            yield

    def _any(self) -> Reading:
        """Read any value; a character of it is next."""
        while len(self._text) - self._at < AHEAD and not self._is_whole:
            yield
        try:
            value, self._at = self._parse(self._text, self._at)
        except ValueError:
            long = {'"': self._string, "[": self._array, "{": self._object}.get(self._text[self._at : self._at + 1])
            if self._is_whole or long is None:
                raise
        else:
            return value
        return (yield from long())

    def _string(self) -> Reading:
        """Read a long string: search its end in each part of it, and parse it when it is whole."""
        parts, start = [], self._at + 1
        while (end := self._end_of_string(start)) is None:
            # An odd backslash at the end belongs to the next character.
            backslashes = len(self._text) - start - len(self._text[start:].rstrip("\\"))
            cut = len(self._text) - backslashes % 2
            parts.append(self._text[self._at : cut])
            self._at = cut
            if self._is_whole:
                raise json.JSONDecodeError("Unterminated string", self._text, self._at)
            yield
            start = 0
        parts.append(self._text[self._at : end])
        self._at = end
        text = "".join(parts)
        del parts
        return self._parse(text)[0]

    def _end_of_string(self, start: int) -> int | None:
        """Return the position after a string whose content continues at `start`, or None if it does not end here."""
        if self._text.find('"', start) < 0:
            return None
        try:
            return self._parse(f'"{self._text[start:]}')[1] + start - 1
        except ValueError:  # also for an invalid string, which is found when it is parsed
            return None

    def _array(self) -> Reading:
        """Read a long array, item by item, or many items at a time where they are short."""
        items: list[Any] = []
        self._at += 1
        if (yield from self._next()) == "]":
            self._at += 1
            return items
        while True:
            items.append((yield from self._any()))
            end, passed = self._at, self._passed
            if (yield from self._separator("]")):
                return items
            if passed == self._passed:
                items += self._several(self._text[end : self._at])

    def _several(self, separator: str) -> list[Any]:
        """Return the items up to the last `separator` in the text so far, if there are whole items only.

        Commas are inside of items too, so this is tried once for each text.
        """
        if self._tried == self._passed:
            return []
        self._tried = self._passed
        first = self._text[self._at : self._at + 1]
        cut = self._text.rfind(separator + (first if first in _OPENING else ""), self._at)
        text = f"[{self._text[self._at : max(cut, self._at)]}]"
        try:
            items, end = self._parse(text)
        except ValueError:
            return []
        if end < len(text) or not items:
            return []
        self._at = cut + len(separator)
        return items  # type: ignore[no-any-return]

    def _object(self) -> Reading:
        """Read a long object, member by member."""
        members: dict[str, Any] = {}
        self._at += 1
        if (yield from self._next()) == "}":
            self._at += 1
            return members
        while True:
            if (yield from self._next()) != '"':
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", self._text, self._at)
            name = yield from self._any()
            if (yield from self._next()) != ":":
                raise json.JSONDecodeError("Expecting ':' delimiter", self._text, self._at)
            self._at += 1
            yield from self._next()
            members[name] = yield from self._any()
            if (yield from self._separator("}")):
                return members

    def _separator(self, end: str) -> Reading:
        """Read a comma, or the `end` of an object or array; return whether it was the end."""
        found = yield from self._next()
        if found not in (",", end) or not found:
            raise json.JSONDecodeError("Expecting ',' delimiter", self._text, self._at)
        self._at += 1
        if found == ",":
            yield from self._next()
        return found == end
