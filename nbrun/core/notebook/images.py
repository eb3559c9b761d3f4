"""Keep large images out of the JSON encoder.

:mod:`json` checks each character for escapes, and base64 needs none. So images are replaced by marks before encoding
and inserted afterwards.
"""

import string
from collections.abc import Iterator
from typing import Any

LARGE_TEXT = 4096
"""Minimum characters of an image that is replaced."""

_BASE64 = f"{string.ascii_letters}{string.digits}+/=".encode()


class Images:
    """The images of some cells while these are encoded. The text must not contain `mark` otherwise."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._images: list[bytes] = []

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
            yield self._images[int(number)]
            yield piece.encode("utf-8", "replace")

    def _marked(self, value: Any) -> Any:
        """Return the replacement of a value in a mime bundle.

        A final line break stays, because it affects the encoding.
        """
        if not isinstance(value, str) or len(value) < LARGE_TEXT or not value.isascii():
            return value
        end = "\n" if value[-1] == "\n" else ""
        image = value.removesuffix(end).encode()
        if image.translate(None, _BASE64):
            return value
        self._images.append(image)
        return f"{self._mark}{len(self._images) - 1}{self._mark}{end}"
