"""Merge the messages of a run into the outputs of its cells.

The rules are those of JupyterLab's document model, which defines what a notebook contains after it ran in a browser:

=========================  ==================================================================================
``stream``                 joins the last output if that is a stream of the same name (:mod:`.stream`)
``display_data``           is appended; its ``display_id`` is its name for updates
``execute_result``         the same, with an execution count
``error``                  is appended
``update_display_data``    changes every output of that ``display_id`` in any cell; never appends
``clear_output``           clears the cell now, or (``wait``) when the next output arrives
=========================  ==================================================================================

All outputs with one ``display_id`` always show the same content. They share one :class:`Shown`, so an update is a
single assignment. :class:`Displays` refers to them weakly: after ``clear_output`` removed the last output of a
``display_id``, the id is unknown again.

A cell's outputs may have a size limit (:mod:`.limit`). Without one, nothing is counted.
"""

import weakref
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from nbrun.core.formats.json_text import as_object
from nbrun.core.outputs.limit import OVERHEAD, LeftOut, Room, Tail, Truncated, note_of, size_of
from nbrun.core.outputs.mimebundle import Output, count, error_output, mime_bundle, stream_output, text
from nbrun.core.outputs.stream import StreamText
from nbrun.core.protocol.messages import Message


class Shown(Struct, weakref=True, eq=False):
    """The current content of a display."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    rooms: list[Room] = field(default_factory=list)
    """The limits of the areas that show it, once per output."""

    def change(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Replace the content, or show a note if the limit does not allow it."""
        if self.rooms:
            before, now = size_of(self.data), size_of(data)
            if not all(room.used + now - before <= room.limit for room in self.rooms):
                for room in self.rooms:
                    room.leave_out(now)
                data = {"text/plain": note_of(now, 1, self.rooms[0].limit)["text"]}
                now = size_of(data)
            for room in self.rooms:
                room.used += now - before
        self.data, self.metadata = data, metadata


class _Display(Struct, frozen=True):
    shown: Shown
    execution_count: int | None
    is_result: bool

    def render(self) -> Output:
        output: Output = {"output_type": "display_data", "data": self.shown.data, "metadata": self.shown.metadata}
        if self.is_result:
            output |= {"output_type": "execute_result", "execution_count": self.execution_count}
        return output


class _Stream(Struct, frozen=True):
    name: str
    written: StreamText

    def render(self) -> Output:
        return stream_output(self.name, str(self.written))


class _Plain(Struct, frozen=True):
    output: Output

    def render(self) -> Output:
        return self.output


class Displays:
    """The content of each ``display_id`` in all cells, while the kernel lives."""

    def __init__(self) -> None:
        self._shown: weakref.WeakValueDictionary[str, Shown] = weakref.WeakValueDictionary()

    def show(self, content: Mapping[str, Any]) -> Shown:
        """Return the content of a display message; a known ``display_id`` also updates earlier outputs."""
        display_id = _display_id(content)
        shown = self.update(content) or Shown(mime_bundle(content.get("data")), as_object(content.get("metadata")))
        if display_id:
            self._shown[display_id] = shown
        return shown

    def update(self, content: Mapping[str, Any]) -> Shown | None:
        """Apply an ``update_display_data``; return None if the id is unknown."""
        shown = self._shown.get(_display_id(content))
        if shown is not None:
            shown.change(mime_bundle(content.get("data")), as_object(content.get("metadata")))
        return shown


def _display_id(content: Mapping[str, Any]) -> str:
    display_id = as_object(content.get("transient")).get("display_id")
    return display_id if isinstance(display_id, str) else ""


_Entry = _Display | _Stream | _Plain | LeftOut


class OutputArea:
    """The outputs of one cell or one Output widget."""

    __slots__ = ("_clear_pending", "_displays", "_entries", "_limit", "_raw_streams", "_room", "_tail", "errors")

    def __init__(self, displays: Displays, *, raw_streams: bool = False, limit: int | None = None) -> None:
        """Start empty; `limit` is the maximum size of the outputs in characters."""
        self._displays = displays
        self._raw_streams = raw_streams
        self._limit = limit
        self._entries: list[_Entry] = []
        self._room = None if limit is None else Room(limit)
        self._tail: Tail | None = None
        self._clear_pending = False
        self.errors = 0
        """The number of ``error`` messages, including cleared ones."""

    def render(self) -> list[Output]:
        """Return the current outputs in nbformat's format."""
        outputs = [entry.render() for entry in self._entries]
        if self._tail is None or (room := self._room) is None:
            return outputs
        elsewhere = [entry for entry in self._entries if isinstance(entry, LeftOut)]
        characters = self._tail.characters + room.characters - sum(each.characters for each in elsewhere)
        if characters:
            left_out = room.outputs - sum(each.outputs for each in elsewhere)
            outputs.append(note_of(characters, left_out, room.limit))
        return [*outputs, *self._tail.render()]

    def shown_errors(self) -> list[Output]:
        """Return the current ``error`` outputs."""
        if not self.errors:
            return []  # the common case: no need to render
        return [output for output in self.render() if output["output_type"] == "error"]

    def end_of_stderr(self, lines: int) -> str:
        """Return the last `lines` lines of standard error, without blank lines at the end."""
        written = "".join(str(output["text"]) for output in self.render() if output.get("name") == "stderr")
        return "\n".join(written.rstrip().split("\n")[-lines:])

    @property
    def truncated(self) -> Truncated | None:
        """Return what the limit removed, or None."""
        room, tail = self._room, self._tail
        if room is None:
            return None
        characters = room.characters + (tail.characters if tail else 0)
        return Truncated(characters, room.outputs, room.limit) if characters else None

    def apply(self, message: Message) -> bool:
        """Apply a message; return False if it is not an output."""
        content = message.content
        match message.type:
            case "stream":
                self._write(text(content.get("name")) or "stdout", text(content.get("text")))
            case "display_data":
                self._append(_Display(self._displays.show(content), None, is_result=False))
            case "execute_result":
                executed = count(content.get("execution_count"))
                self._append(_Display(self._displays.show(content), executed, is_result=True))
            case "error":
                self.errors += 1
                self.append(error_output(content))
            case "clear_output":
                self.clear(wait=bool(content.get("wait")))
            case "update_display_data":
                self._displays.update(content)
            case _:
                return False
        return True

    def append(self, output: Output) -> None:
        """Append an output that did not come as a message."""
        self._append(_Plain(output))

    def clear(self, *, wait: bool = False) -> None:
        """Clear the area now, or when the next output arrives."""
        self._clear_pending = wait
        if not wait:
            self._entries.clear()
            self._room = None if self._limit is None else Room(self._limit)
            self._tail = None

    def _append(self, entry: _Display | _Plain) -> None:
        if self._clear_pending:
            self.clear()
        if self._room is None or self._makes_room(self._room, entry):
            self._entries.append(entry)

    def _makes_room(self, room: Room, entry: _Display | _Plain) -> bool:
        """Return whether an entry fits into the limit. Otherwise count it, or keep an error in the tail."""
        size = size_of(entry.shown.data if isinstance(entry, _Display) else entry.output)
        if self._tail is None and room.takes(size):
            if isinstance(entry, _Display):
                entry.shown.rooms.append(room)
            return True
        if isinstance(entry, _Plain) and entry.output["output_type"] == "error":
            self._begin_tail(room).keep_error(entry.output)
            return False
        room.leave_out(size)
        if self._tail is None:
            last = self._entries[-1] if self._entries else None
            if not isinstance(last, LeftOut):
                last = LeftOut(room.limit)
                room.used += size_of(last.render())
                self._entries.append(last)
            last.count(size)
        return False

    def _begin_tail(self, room: Room) -> Tail:
        if self._tail is None:
            self._tail = Tail(max(room.limit // 8, 1), raw=self._raw_streams)
        return self._tail

    def _write(self, name: str, written: str) -> None:
        if self._clear_pending:
            self.clear()
        if self._room is None:
            self._stream(name).written.feed(written)
        else:
            self._write_within(self._room, name, written)

    def _stream(self, name: str) -> _Stream:
        last = self._entries[-1] if self._entries else None
        if not isinstance(last, _Stream) or last.name != name:
            last = _Stream(name, StreamText(raw=self._raw_streams))
            self._entries.append(last)
            if self._room is not None:
                self._room.used += OVERHEAD
        return last

    def _write_within(self, room: Room, name: str, written: str) -> None:
        """Write as much text as fits; text that a carriage return overwrites does not count."""
        done = 0
        while done < len(written):
            if self._tail is not None or room.left_for_text <= 0:
                self._begin_tail(room).write(name, written[done:])
                return
            text = self._stream(name).written
            piece, before = written[done : done + max(room.left_for_text, 1)], len(text)
            text.feed(piece)
            room.used += len(text) - before
            done += len(piece)
