"""Write the stdout and stderr of cells to files (``--stdout-file``, ``--stderr-file``).

A file or pipe gets the unchanged text; a terminal gets filtered text. Secrets are masked before any reporter sees the
text.
"""

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

from nbrun.core.events import Event, OutputArrived
from nbrun.reporters.safe_stream import SafeStream, binary, named, own_stream


def stream_files(stdout: str | None, stderr: str | None) -> list["StreamFile"]:
    """Return the reporters for these files; one reporter if both files are the same."""
    if stdout is not None and stderr is not None and is_same(stdout, stderr):
        return [StreamFile(stdout, ("stdout", "stderr"))]
    wanted = (("stdout", stdout), ("stderr", stderr))
    return [StreamFile(target, (stream,)) for stream, target in wanted if target is not None]


def is_same(one: str, other: str) -> bool:
    """Return whether two names refer to one file."""
    return (own_stream(one) or os.path.realpath(one)) == (own_stream(other) or os.path.realpath(other))


class StreamFile:
    """Writes the given streams (``stdout``, ``stderr``) of all runs to one file."""

    def __init__(self, target: str, streams: Collection[str]) -> None:
        self.name = f"{named(target)}, for what cells write to {' and '.join(streams)},"
        self._target = target
        self._streams = streams
        self._write: Callable[[str], None] | None = None
        self._file: BinaryIO | None = None

    def observe(self, event: Event) -> None:
        """Handle an event."""
        if self._write is None:
            self._write = self._open()
        match event:
            case OutputArrived(_, _, {"output_type": "stream", "name": name, "text": text}) if name in self._streams:
                self._write(str(text))
            case _:
                pass

    def close(self) -> None:
        """Close the file; nbrun's own streams stay open."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> Callable[[str], None]:
        own = own_stream(self._target)
        stream = getattr(sys, own) if own else None
        if stream is not None and stream.isatty():
            return lambda text: _write_text(stream, text)
        if stream is not None:
            return lambda text: _write_data(binary(stream), text)
        path = Path(self._target)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = file = path.open("wb")
        return lambda text: _write_data(file, text)


def _write_text(stream: Any, text: str) -> None:
    stream = stream if isinstance(stream, SafeStream) else SafeStream(stream)
    stream.write(text)
    stream.flush()


def _write_data(file: BinaryIO, text: str) -> None:
    file.write(text.encode("utf-8", "replace"))
    file.flush()
