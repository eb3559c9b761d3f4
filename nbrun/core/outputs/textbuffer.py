"""Text that grows by pieces to any size and leaves no memory behind when it is taken out.

A hundred megabytes put together from small pieces stay with the process when the pieces are freed: the allocator keeps
what lies between other things. While the notebook is encoded for its save that would be the text a third time. So only
the newest pieces are ordinary strings; what is older lies, in UTF-8, in a mapping of its own, which doubles as it fills
and goes back to the system as a whole.
"""

import mmap

_PIECES_KEPT = 1 << 20
_ENCODING = ("utf-8", "surrogatepass")


class TextBuffer:
    """Accumulates text; sizes below a megabyte (of characters) cost no more than a list of strings."""

    __slots__ = ("_mapping", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._mapping: mmap.mmap | None = None

    def write(self, text: str) -> None:
        """Append `text`."""
        self._pieces.append(text)
        self._size += len(text)
        if self._size > _PIECES_KEPT:
            self._put_away()

    def take(self) -> str:
        """Return all that was written since it was last taken, and forget it."""
        if self._mapping is None:
            text = "".join(self._pieces)
            self._pieces, self._size = [], 0
            return text
        self._put_away()
        with self._mapping as mapping, memoryview(mapping) as whole, whole[: mapping.tell()] as written:
            text = str(written, *_ENCODING)
        self._mapping = None
        return text

    def _put_away(self) -> None:
        data = "".join(self._pieces).encode(*_ENCODING)
        self._pieces, self._size = [], 0
        self._mapping = _with_room(self._mapping, len(data))
        self._mapping.write(data)


def _with_room(mapping: mmap.mmap | None, needed: int) -> mmap.mmap:
    """Return a mapping with room for `needed` bytes more: the same one, or a larger one with the same content."""
    if mapping is None:
        return mmap.mmap(-1, 4 * needed)
    if mapping.tell() + needed <= len(mapping):
        return mapping
    larger = mmap.mmap(-1, 2 * (mapping.tell() + needed))
    with mapping, memoryview(mapping) as whole, whole[: mapping.tell()] as written:
        larger.write(written)
    return larger
