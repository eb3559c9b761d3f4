"""Folds the messages of a run into the outputs of its cells.

The rules are JupyterLab's document model, the reference for what a notebook holds after it ran in a browser:

=========================  ==================================================================================
``stream``                 joins the last output if that is a stream of the same name (:mod:`.streamtext`)
``display_data``           appended; its ``display_id`` names it from now on
``execute_result``         the same, with an execution count
``error``                  appended
``update_display_data``    changes every output of that ``display_id``, in whatever cell; never appends
``clear_output``           empties the cell now, or (``wait``) when the next output comes; if none comes, never
=========================  ==================================================================================

All outputs shown under one ``display_id`` show the same thing at all times, so they share one :class:`Shown`, and an
update is one assignment however many there are. A :class:`Displays` holds them weakly: what ``clear_output`` threw
away is forgotten with its last output, and its id is unknown again.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbrun.core.bundles import Output, count, error_output, mime_bundle, stream_output, text
from nbrun.core.jsontext import as_object
from nbrun.core.messages import Message
from nbrun.core.streamtext import StreamText


@dataclass(slots=True, weakref_slot=True, eq=False)
class Shown:
    """What a display shows now."""

    data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Display:
    shown: Shown
    execution_count: int | None
    is_result: bool

    def render(self) -> Output:
        output: Output = {"output_type": "display_data", "data": self.shown.data, "metadata": self.shown.metadata}
        if self.is_result:
            output |= {"output_type": "execute_result", "execution_count": self.execution_count}
        return output


@dataclass(frozen=True, slots=True)
class _Stream:
    name: str
    written: StreamText

    def render(self) -> Output:
        return stream_output(self.name, str(self.written))


@dataclass(frozen=True, slots=True)
class _Plain:
    output: Output

    def render(self) -> Output:
        return self.output


class Displays:
    """What stands behind each ``display_id``, over all cells, for as long as the kernel lives."""

    def __init__(self) -> None:
        self._shown: weakref.WeakValueDictionary[str, Shown] = weakref.WeakValueDictionary()

    def show(self, content: Mapping[str, Any]) -> Shown:
        """Give what a display message shows; a known ``display_id`` changes where it was shown before, too."""
        display_id = _display_id(content)
        shown = self.update(content) or Shown(mime_bundle(content.get("data")), as_object(content.get("metadata")))
        if display_id:
            self._shown[display_id] = shown
        return shown

    def update(self, content: Mapping[str, Any]) -> Shown | None:
        """Carry out an ``update_display_data``; None, and nothing done, where the id is not known."""
        shown = self._shown.get(_display_id(content))
        if shown is not None:
            shown.data = mime_bundle(content.get("data"))
            shown.metadata = as_object(content.get("metadata"))
        return shown


def _display_id(content: Mapping[str, Any]) -> str:
    display_id = as_object(content.get("transient")).get("display_id")
    return display_id if isinstance(display_id, str) else ""


class OutputArea:
    """The outputs of one cell (or of whatever else captures outputs)."""

    __slots__ = ("_clear_pending", "_displays", "_entries", "_raw_streams", "errors")

    def __init__(self, displays: Displays, *, raw_streams: bool = False) -> None:
        self._displays = displays
        self._raw_streams = raw_streams
        self._entries: list[_Display | _Stream | _Plain] = []
        self._clear_pending = False
        self.errors = 0
        """How many ``error`` messages came, whether or not they were cleared since."""

    def render(self) -> list[Output]:
        """Give the outputs as they stand now, in nbformat's shape."""
        return [entry.render() for entry in self._entries]

    def take(self, message: Message) -> bool:
        """Fold one message in; False for a message that is no output."""
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
        """Append an output that came by another way than a message."""
        self._append(_Plain(output))

    def clear(self, *, wait: bool = False) -> None:
        """Empty the area now, or when the next output comes."""
        self._clear_pending = wait
        if not wait:
            self._entries.clear()

    def _append(self, entry: _Display | _Stream | _Plain) -> None:
        if self._clear_pending:
            self.clear()
        self._entries.append(entry)

    def _write(self, name: str, written: str) -> None:
        last = self._entries[-1] if self._entries and not self._clear_pending else None
        if not isinstance(last, _Stream) or last.name != name:
            last = _Stream(name, StreamText(raw=self._raw_streams))
            self._append(last)
        last.written.feed(written)
