"""A notebook as the body of its save, encoded by pieces.

Encoded as one whole, a text of a hundred megabytes is put together in a buffer that has to grow and to move with it,
and what it leaves behind on the way stays with the process. By pieces it costs what it is, and between two pieces
others may have their turn. A large piece lies in a mapping of its own, which goes back to the system as a whole.
"""

import mmap
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from nbrun.core import jsontext

PIECE = 1 << 18
"""Bytes from which on a piece of small cells is done, and others have their turn."""
_LARGE = 1 << 20
"""Characters of a text that is encoded in slices."""
_MARK = f"nbrun-{secrets.token_hex(16)}"  # nobody can have written it into a notebook


Piece = bytes | bytearray | mmap.mmap


def body_of(content: Mapping[str, Any]) -> Iterator[Piece]:
    """Encode the contents model that saves the notebook `content`; what has not been encoded yet may still change.

    Raises as :func:`nbrun.core.jsontext.dumps`.
    """
    others = {key: value for key, value in content.items() if key != "cells"}
    model = {"type": "notebook", "format": "json", "content": {**others, "cells": []}}
    piece = bytearray(jsontext.dumps(model).removesuffix(b"]}}"))
    for number, cell in enumerate(content["cells"]):
        if number:
            piece += b","
        large: list[str] = []
        skeleton = _lifted(cell, large)
        if not large:
            jsontext.dump_into(piece, cell)
        else:
            first, *parts = jsontext.dumps(skeleton).split(_MARK.encode())
            yield _put_away(piece + first)
            for text, part in zip(large, parts, strict=True):
                yield from _slices(text)
                yield part
            piece = bytearray()
        if len(piece) > PIECE:
            yield _put_away(piece)
            piece = bytearray()
    yield piece + b"]}}"


def _lifted(cell: Mapping[str, Any], large: list[str]) -> Mapping[str, Any]:
    """Put the large texts of a cell's outputs into `large`; gives the cell with a mark in the place of each."""

    def lift(value: Any) -> Any:
        if not isinstance(value, str) or len(value) < _LARGE:
            return value
        large.append(value)
        return _MARK

    outputs = []
    for output in cell.get("outputs") or ():
        lifted = {**output, "text": lift(output["text"])} if "text" in output else output
        if isinstance(data := output.get("data"), dict):
            lifted = {**lifted, "data": {mime: lift(value) for mime, value in data.items()}}
        outputs.append(lifted)
    return {**cell, "outputs": outputs} if large else cell


def _slices(text: str) -> Iterator[Piece]:
    start = 0
    while start < len(text):
        end = start + _LARGE
        while "\ud800" <= text[end - 1 : end] <= "\udbff":
            end += 1  # two halves of a character, encoded one by one, would be none
        yield _put_away(jsontext.dumps(text[start:end])[1:-1])
        start = end


def _put_away(piece: bytes | bytearray) -> Piece:
    if len(piece) <= PIECE:
        return piece
    mapping = mmap.mmap(-1, len(piece))
    mapping.write(piece)
    return mapping
