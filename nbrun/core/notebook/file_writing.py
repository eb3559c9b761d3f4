"""Write a notebook as the text of its file, byte for byte as nbformat does.

nbformat copies a notebook twice and encodes it in Python, which takes 50 µs for a small output. Here, only what a file
stores in another form is copied: texts are split into lines, and transient keys are omitted. C code encodes the rest
(:func:`~nbrun.core.formats.json_text.indented`), so that it takes 4 µs.

The text of all cells is never in memory together, because some cells are encoded at a time. Large texts such as images
are encoded one by one: marks take their places in the cells, and are replaced in the text.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nbrun.core.formats import json_text

LARGE_TEXT = 4096
"""Minimum characters of a text that is encoded by itself."""
GROUP = 16
"""The number of cells that are encoded at a time."""

_LINES = ("application/javascript", "image/svg+xml")
"""Media types that are stored as lists of lines, as all types of text are."""
_TRANSIENT = ("orig_nbformat", "orig_nbformat_minor", "signature")
_NO_CELLS = b'\n "cells": []'
"""The empty list of cells in a notebook's text. It is unique, because texts contain no raw line breaks."""
_CELLS = b'{\n "cells": [\n'
_END = b"\n ]\n}"

Piece = bytes | memoryview


def notebook_text(content: Mapping[str, Any]) -> str:
    """Return the text of a file with this nbformat 4 notebook, which is not changed."""
    cells = [_stored(cell, str) for cell in content["cells"]]
    return f"{json_text.indented({**_without_cells(content), 'cells': cells}).decode()}\n"


def notebook_pieces(
    content: Mapping[str, Any], mark: str, sign: Callable[[Piece], object] | None = None
) -> Iterator[Piece]:
    """Yield the same text in UTF-8, in pieces.

    `mark` is a text of letters and digits that does not occur in the notebook. `sign` is called with the bytes over
    which nbformat computes a notebook's signature, in pieces.
    """
    others, cells = _without_cells(content), content["cells"]
    before, after = json_text.indented(others).split(_NO_CELLS)
    yield before + _NO_CELLS.removesuffix(b"]")
    if sign is not None:
        sign(_plain({key: value for key, value in others.items() if key <= "cells"}).encode())
    for first in range(0, len(cells), GROUP):
        large: list[str] = []

        def marked(text: str, large: list[str] = large) -> str:
            large.append(text)
            return f"{mark}{len(large) - 1}{mark}"

        group = [_stored(cell, marked) for cell in cells[first : first + GROUP]]
        yield b",\n" if first else b"\n"
        text = json_text.indented({"cells": group}).removeprefix(_CELLS).removesuffix(_END)
        # The keys of both are sorted, so both contain the marks in the same order.
        parts = text.split(mark.encode())
        plain = [b""] * len(parts) if sign is None else _plain(group).encode().split(mark.encode())
        for place, (part, signed) in enumerate(zip(parts, plain, strict=True)):
            if place % 2 == 0:
                yield part
                if sign is not None:
                    sign(signed)
                continue
            content_of_string = memoryview(json_text.dumps(large[int(part)]))[1:-1]
            yield content_of_string
            if sign is not None:
                is_plain = len(content_of_string) == len(large[int(part)])
                sign(content_of_string if is_plain else large[int(part)].encode())
    yield (b"\n ]" if cells else b"]") + after + b"\n"
    if sign is not None:
        sign(_plain({key: value for key, value in others.items() if key > "cells"}).encode())


def _without_cells(content: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in content["metadata"].items() if key not in _TRANSIENT}
    return {**content, "metadata": metadata, "cells": []}


def _stored(cell: Mapping[str, Any], large: Callable[[str], str]) -> dict[str, Any]:
    """Return a copy of a cell as a file stores it, with `large` applied to large texts that are not split into lines.

    ``trusted`` flags exist only between server and client.
    """
    stored = {**cell, "metadata": {key: value for key, value in cell["metadata"].items() if key != "trusted"}}
    if isinstance(source := cell.get("source"), str):
        stored["source"] = source.splitlines(keepends=True)
    if "attachments" in cell:
        stored["attachments"] = {name: _bundle(data, large) for name, data in cell["attachments"].items()}
    if cell["cell_type"] == "code":
        stored["outputs"] = [_output(output, large) for output in cell["outputs"]]
    return stored


def _output(output: Mapping[str, Any], large: Callable[[str], str]) -> Mapping[str, Any]:
    kind = output["output_type"]
    if kind == "stream" and isinstance(output["text"], str):
        return {**output, "text": output["text"].splitlines(keepends=True)}
    if kind in ("display_data", "execute_result") and "data" in output:
        return {**output, "data": _bundle(output["data"], large)}
    return output


def _bundle(data: Mapping[str, Any], large: Callable[[str], str]) -> dict[str, Any]:
    bundle = {}
    for kind, value in data.items():
        if not isinstance(value, str):
            bundle[kind] = value
        elif kind.startswith("text/") or kind in _LINES:
            bundle[kind] = value.splitlines(keepends=True)
        else:
            bundle[kind] = large(value) if len(value) >= LARGE_TEXT else value
    return bundle


def _plain(value: Any) -> str:
    """Return the texts of JSON one after the other, as nbformat signs them: each key before its value, keys sorted."""
    texts: list[str] = []
    _collect(value, texts)
    return "".join(texts)


def _collect(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for key in sorted(value):
            texts.append(key)
            _collect(value[key], texts)
    elif isinstance(value, (list, tuple)):
        try:
            texts.append("".join(value))  # the lines of a text
        except TypeError:
            for item in value:
                _collect(item, texts)
    else:
        texts.append(str(value))
