"""Encode a notebook as the body of a save request, in pieces.

Each piece exists only until it is sent, so a large notebook is never in memory twice. Other tasks can run between two
pieces. Iterate again to get the body again.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from nbrun.core.formats import json_text
from nbrun.errors import UsageError

PIECE = 1 << 18
"""Minimum bytes of a piece that consists of small cells."""
_SLICE = 1 << 18
"""Characters of a large text in one piece. A piece that does not fit into the processor's cache takes longer."""
_LARGE = 1 << 20
"""Minimum characters of a text that is encoded in slices."""

Piece = bytes | bytearray


class NotebookBody:
    """The contents model of a notebook as JSON; iterating raises :class:`UsageError` if it cannot be encoded.

    The notebook must not change during the iteration.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def __iter__(self) -> Iterator[Piece]:
        """Encode the notebook from the beginning."""
        try:
            yield from _encoded(self._content)
        except (TypeError, RecursionError) as error:
            raise UsageError(f"this notebook cannot be written as JSON: {error}") from None


def _encoded(content: Mapping[str, Any]) -> Iterator[Piece]:
    others = {key: value for key, value in content.items() if key != "cells"}
    model = {"type": "notebook", "format": "json", "content": {**others, "cells": []}}
    piece = bytearray(json_text.dumps(model).removesuffix(b"]}}"))
    for number, cell in enumerate(content["cells"]):
        if number:
            piece += b","
        if large := _large_of(cell):
            first, *parts = _around(cell, len(large))
            yield piece + first
            for text, part in zip(large, parts, strict=True):
                yield from _slices(text)
                yield part
            piece = bytearray()
        else:
            json_text.dump_into(piece, cell)
        if len(piece) > PIECE:
            yield piece
            piece = bytearray()
    yield piece + b"]}}"


def _is_large(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= _LARGE


def _mapped(output: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an output with `function` applied to its values and those of its mime bundle."""
    return {
        key: {mime: function(data) for mime, data in value.items()}
        if key == "data" and isinstance(value, dict)
        else function(value)
        for key, value in output.items()
    }


def _large_of(cell: Mapping[str, Any]) -> list[str]:
    """Return the large texts of a cell's outputs, in the order in which they are encoded."""
    return [
        text
        for output in cell.get("outputs") or ()
        for key, value in output.items()
        for text in (value.values() if key == "data" and isinstance(value, dict) else (value,))
        if _is_large(text)
    ]


def _marked(mark: str, value: Any) -> Any:
    return mark if _is_large(value) else value


def _around(cell: Mapping[str, Any], large: int) -> list[bytes]:
    """Encode a cell without its large texts; return the parts before, between and after them."""
    mark, parts = "\0", [b""]
    while len(parts) != large + 1:
        mark += "\0"  # until the mark is unique in the cell
        marked = [_mapped(output, partial(_marked, mark)) for output in cell["outputs"]]
        parts = json_text.dumps({**cell, "outputs": marked}).split(json_text.dumps(mark))
    return [b'"' * (place > 0) + part + b'"' * (place < large) for place, part in enumerate(parts)]


def _slices(text: str) -> Iterator[Piece]:
    start = 0
    while start < len(text):
        end = start + _SLICE
        while "\ud800" <= text[end - 1 : end] <= "\udbff":
            end += 1  # do not split a surrogate pair
        yield json_text.dumps(text[start:end])[1:-1]
        start = end
