"""Limit the size of a cell's outputs (``--max-output``).

Sizes are characters in the notebook file; an image counts with its base64. Of text, the beginning and the end are
kept, with a note between them about the missing part. Other outputs are kept completely or replaced by a note. Errors
are always kept, shortened if they are long::

    | beginning: 7/8 of the limit | note: 1.2 GB were cut here | end: 1/8 of the limit | error |

An output can still grow (``update_display_data``), so each output refers to the :class:`Room` that it counts in.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from msgspec import Struct, field

from nbrun.core.formats.json_text import dumps
from nbrun.core.formats.units import spell_size
from nbrun.core.outputs.mimebundle import Output, stream_output
from nbrun.core.outputs.stream import StreamText

OVERHEAD = 100
"""Characters of an output in the notebook in addition to its content."""
_BLOCK = 1 << 12
"""Minimum characters of a block in the tail. Joining short pieces keeps the time linear in the text."""


class Truncated(Struct, frozen=True):
    """What the limit removed: the number of ``characters``, and of ``outputs`` that are missing completely."""

    characters: int
    outputs: int
    limit: int

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result and the cell's metadata."""
        return {"characters": self.characters, "outputs": self.outputs, "limit": self.limit}

    def __str__(self) -> str:
        """Return a sentence for the user."""
        return f"{_spell_cut(self.characters, self.outputs)} cut: a cell may put out {spell_size(self.limit)}"


class Room(Struct):
    """The remaining size for a cell's outputs; unlimited without a `limit`."""

    limit: int
    used: int = 0
    characters: int = 0
    """The number of removed characters."""
    outputs: int = 0
    """The number of removed outputs."""

    @property
    def left_for_text(self) -> int:
        """Return how much more text fits before only its end is kept."""
        return self.limit - self.limit // 8 - self.used

    def takes(self, size: int) -> bool:
        """Return whether an output or its growth still fits, and count it."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def leave_out(self, size: int) -> None:
        """Count a removed output."""
        self.characters += size
        self.outputs += 1


class LeftOut(Struct):
    """Stands for consecutive outputs that were removed."""

    limit: int
    characters: int = 0
    outputs: int = 0

    def count(self, size: int) -> None:
        """Count one more."""
        self.characters += size
        self.outputs += 1

    def render(self) -> Output:
        """Return the note for them."""
        return note_of(self.characters, self.outputs, self.limit)


class _Block(Struct):
    name: str
    pieces: list[str] = field(default_factory=list)
    size: int = 0


class Tail:
    """The end of outputs beyond the limit: the last text, and errors."""

    __slots__ = ("_blocks", "_dropped", "_errors", "_errors_held", "_held", "_limit", "_raw")

    def __init__(self, limit: int, *, raw: bool) -> None:
        self._limit = limit
        self._raw = raw
        self._blocks: deque[_Block] = deque()
        self._held = 0
        self._errors: deque[tuple[int, Output]] = deque()
        self._errors_held = 0
        self._dropped = 0

    @property
    def characters(self) -> int:
        """Return how many characters were received and not kept."""
        return self._dropped + self._surplus

    @property
    def _surplus(self) -> int:
        return max(self._held - self._limit, 0)

    def write(self, name: str, text: str) -> None:
        """Add text of a stream and drop as much of the oldest text as necessary."""
        kept = text[-self._limit :]
        self._dropped += len(text) - len(kept)
        for start in range(0, len(kept), _BLOCK):
            self._write(name, kept[start : start + _BLOCK])
        # Drop whole blocks. The surplus of the oldest block is omitted by render().
        while self._held - self._blocks[0].size >= self._limit:
            self._held -= (dropped := self._blocks.popleft().size)
            self._dropped += dropped

    def keep_error(self, error: Output) -> None:
        """Add an error; the newest error is always kept."""
        error = _shortened(error, self._limit)
        self._errors.append((size_of(error), error))
        self._errors_held += size_of(error)
        while len(self._errors) > 1 and self._errors_held > self._limit:
            size, _ = self._errors.popleft()
            self._errors_held -= size
            self._dropped += size

    def render(self) -> Iterator[Output]:
        """Return the kept outputs."""
        surplus = self._surplus
        for name, blocks in groupby(self._blocks, lambda block: block.name):
            text = StreamText(raw=self._raw)
            for block in blocks:
                text.feed("".join(block.pieces)[surplus:])
                surplus = 0
            yield stream_output(name, str(text))
        yield from (error for _, error in self._errors)

    def _write(self, name: str, text: str) -> None:
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.name != name or last.size >= _BLOCK:
            last = _Block(name)
            self._blocks.append(last)
        last.pieces.append(text)
        last.size += len(text)
        self._held += len(text)
        if last.size >= _BLOCK:
            last.pieces = ["".join(last.pieces)]


def note_of(characters: int, outputs: int, limit: int) -> Output:
    """Return the note for a cut."""
    text = f"nbrun: {_spell_cut(characters, outputs)} cut here: a cell may put out {spell_size(limit)} (--max-output)\n"
    return stream_output("stderr", text)


def size_of(content: Mapping[str, Any]) -> int:
    """Return the size of an output or mime bundle in the notebook, in characters."""
    return OVERHEAD + sum(len(value) if isinstance(value, str) else len(dumps(value)) for value in content.values())


def _shortened(error: Output, limit: int) -> Output:
    """Return an error of at most about `limit` characters; the end of its traceback is kept."""
    if size_of(error) <= limit:
        return error
    room, lines = limit // 2, []
    for line in reversed(error["traceback"]):
        if len(line) > room:
            lines.append("[... cut by nbrun: --max-output ...]")
            break
        room -= len(line)
        lines.append(line)
    quarter = limit // 4
    return error | {
        "ename": error["ename"][:quarter],
        "evalue": error["evalue"][:quarter],
        "traceback": lines[::-1],
    }


def _spell_cut(characters: int, outputs: int) -> str:
    whole = "" if not outputs else " (1 whole output)" if outputs == 1 else f" ({outputs} whole outputs)"
    return f"{spell_size(characters)}{whole} of output {'was' if outputs < 2 else 'were'}"
