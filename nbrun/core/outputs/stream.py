r"""The text of a stream output, with carriage returns and backspaces applied as in JupyterLab.

Stream text is what a simple terminal would show. ``\r`` moves the cursor to the start of the line, and the following
characters overwrite. ``\b`` removes the character before the cursor and, as in JupyterLab, the one under it. ``\n`` is
always appended at the end. The state spans messages: ``"abc\r"`` followed by ``"X"`` is ``"Xbc"``.

The cursor never leaves the last line, so only this line is edited. It is held as a gap buffer::

    settled | before the cursor (chunks) | after the cursor (characters, nearest one last)

Each character is inserted, moved and settled a bounded number of times, so the time is linear in the length of the
text. Text without ``\r`` and ``\b`` takes a short path: its chunks are kept and joined once. Settled text goes into a
:class:`TextBuffer`.
"""

import mmap
import re

_CONTROLS = re.compile(r"([\n\b\r])")
_CHARACTERS_KEPT = 1 << 14
_PIECES_KEPT = 1 << 20
_ENCODING = ("utf-8", "surrogatepass")


class StreamText:
    """Accumulates the text of one stream output."""

    __slots__ = (
        "_after", "_before", "_length", "_limit", "_lines_unsettled", "_raw", "_rendered", "_settled", "_unsettled"
    )  # fmt: skip

    def __init__(self, *, raw: bool = False) -> None:
        r"""Start empty; `raw` keeps ``\r`` and ``\b`` in the text."""
        self._raw = raw
        self._rendered = ""
        self._settled = TextBuffer()
        self._before: list[str] = []
        self._after: list[str] = []
        self._unsettled = 0
        self._length = 0
        self._limit = _CHARACTERS_KEPT
        self._lines_unsettled = False

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        # The joined text is stored, so that a large text is in memory only once.
        if self._lines_unsettled:
            self._settle()
        self._rendered += self._settled.pop()
        return "".join([self._rendered, *self._before, *reversed(self._after)])

    def feed(self, text: str) -> None:
        """Write `text` at the cursor."""
        if not text:
            return  # the next backspace would remove an empty chunk instead of a character
        if self._raw or not (self._after or "\r" in text or "\b" in text):
            self._before.append(text)
            self._length += len(text)
            self._lines_unsettled = self._lines_unsettled or "\n" in text
            self._unsettled += len(text)
            if self._unsettled > self._limit:
                self._settle()
            return
        # Only if there are whole lines: joining one long line for each \r and \b would take quadratic time.
        if self._lines_unsettled:
            self._settle()
        for part in _CONTROLS.split(text):
            if part == "\n":
                self._newline()
            elif part == "\r":
                self._carriage_return()
            elif part == "\b":
                self._backspace()
            elif part:
                self._before.append(part)
                self._length += max(len(part) - len(self._after), 0)
                del self._after[-len(part) :]

    def _settle(self) -> None:
        """Move whole lines to the settled text, so that only the last line remains before the cursor."""
        head, newline, tail = "".join(self._before).rpartition("\n")
        if newline:
            self._settled.write(head + newline)
        self._before = [tail] if tail else []
        self._lines_unsettled = False
        self._unsettled = len(tail)
        # The limit doubles for a line without an end. Otherwise joining it would take quadratic time.
        self._limit = _CHARACTERS_KEPT if newline else 2 * self._limit

    def _newline(self) -> None:
        self._settled.write("".join([*self._before, *reversed(self._after), "\n"]))
        self._length += 1
        self._before.clear()
        self._after.clear()

    def _carriage_return(self) -> None:
        self._after.extend(reversed("".join(self._before)))
        self._before.clear()

    def _backspace(self) -> None:
        if not self._before:
            return
        if len(self._before[-1]) > 1:
            self._before[-1:] = self._before[-1]  # split the chunk into characters, once
        self._before.pop()
        self._length -= 1
        if self._after:
            self._after.pop()
            self._length -= 1


class TextBuffer:
    """Accumulates text of any size, and returns its memory to the system.

    The memory of many small strings stays in the process when they are freed, because the allocator keeps blocks
    between other objects. During a save, a hundred megabytes of output would then be in memory a third time. So only
    the newest pieces are strings. Older text is stored as UTF-8 in a memory mapping, which doubles when it is full and
    is returned to the system as a whole. Text of less than a million characters costs the same as a list of strings.
    """

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
            self._move_to_mapping()

    def pop(self) -> str:
        """Remove and return all text that was written since the last call."""
        if self._mapping is None:
            text = "".join(self._pieces)
            self._pieces, self._size = [], 0
            return text
        self._move_to_mapping()
        with self._mapping as mapping, memoryview(mapping) as whole, whole[: mapping.tell()] as written:
            text = str(written, *_ENCODING)
        self._mapping = None
        return text

    def _move_to_mapping(self) -> None:
        data = "".join(self._pieces).encode(*_ENCODING)
        self._pieces, self._size = [], 0
        self._mapping = _with_room(self._mapping, len(data))
        self._mapping.write(data)


def _with_room(mapping: mmap.mmap | None, needed: int) -> mmap.mmap:
    """Return a mapping with room for `needed` more bytes: the same one, or a larger copy."""
    if mapping is None:
        return mmap.mmap(-1, 4 * needed)
    if mapping.tell() + needed <= len(mapping):
        return mapping
    larger = mmap.mmap(-1, 2 * (mapping.tell() + needed))
    with mapping, memoryview(mapping) as whole, whole[: mapping.tell()] as written:
        larger.write(written)
    return larger
