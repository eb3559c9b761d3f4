"""Keep large images out of the JSON encoder, and encode a notebook in pieces.

:mod:`json` checks each character for escapes, and base64 needs none. So images are replaced by marks before encoding
and inserted afterwards.
"""

import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LARGE_TEXT = 4096
"""Minimum characters of an image that is replaced."""
GROUP = 16
"""The number of cells that are encoded at a time. The texts of all cells are never in memory together."""

_BASE64 = f"{string.ascii_letters}{string.digits}+/=".encode()
_NO_CELLS = '\n "cells": []'
"""The empty list of cells in a notebook's text. It is unique, because texts contain no raw line breaks."""
_CELLS = '\n "cells": [\n'
_END = "\n ]"


class Images:
    """The images of some cells while these are encoded. The text must not contain `mark` otherwise."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._images: list[str] = []

    def __len__(self) -> int:
        return len(self._images)

    def taken_from(self, cell: Any) -> Any:
        """Return a copy of the cell with marks in place of its images."""
        outputs = [
            {**output, "data": {kind: self._marked(value) for kind, value in output["data"].items()}}
            if isinstance(output.get("data"), dict)
            else output
            for output in cell.get("outputs") or ()
        ]
        return {**cell, "outputs": outputs} if outputs else cell

    def put_into(self, text: str) -> Iterator[bytes]:
        """Yield the text of the cells in UTF-8, in pieces, with the images inserted."""
        first, *pieces = text.split(self._mark)  # a mark is before and after the number of each image
        yield first.encode("utf-8", "replace")
        for number, piece in zip(pieces[::2], pieces[1::2], strict=True):
            yield self._images[int(number)].encode()
            yield piece.encode("utf-8", "replace")

    def _marked(self, value: Any) -> Any:
        """Return the replacement of a value in a mime bundle.

        A final line break stays, because it affects the encoding.
        """
        if not isinstance(value, str) or len(value) < LARGE_TEXT or not value.isascii():
            return value
        end = "\n" if value[-1] == "\n" else ""
        image = value.removesuffix(end)
        if image.encode().translate(None, _BASE64):
            return value
        self._images.append(image)
        return f"{self._mark}{len(self._images) - 1}{self._mark}{end}"


def encoded_pieces(content: Mapping[str, Any], text_of: Callable[[dict[str, Any]], str], mark: str) -> Iterator[bytes]:
    """Yield a notebook's text in UTF-8, in pieces: the same text that `text_of` returns for the whole notebook.

    `text_of` must write each cell without regard to the others, and all of them as the value of ``cells`` in nbformat's
    format. `mark` is a text of letters and digits that does not occur in the notebook.
    """
    cells = content["cells"]
    before, after = text_of({**content, "cells": []}).split(_NO_CELLS)
    if not cells:
        yield f"{before}{_NO_CELLS}{after}".encode("utf-8", "replace")
        return
    empty = {key: content[key] for key in ("nbformat", "nbformat_minor")} | {"cells": [], "metadata": {}}
    start, end = (len(part) for part in text_of(empty).split(_NO_CELLS))
    yield f"{before}{_CELLS}".encode("utf-8", "replace")
    for first in range(0, len(cells), GROUP):
        images = Images(mark)
        group = [images.taken_from(cell) for cell in cells[first : first + GROUP]]
        text = text_of({**empty, "cells": group})
        yield b",\n" * (first > 0)
        yield from images.put_into(text[start + len(_CELLS) : -end - len(_END)])
    yield f"{_END}{after}".encode("utf-8", "replace")
