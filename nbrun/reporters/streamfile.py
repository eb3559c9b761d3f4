"""What cells write to standard output or to standard error, in a file as it comes.

A file gets the text as it was written, carriage returns and all; secrets are masked in it before anybody is told.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from nbrun.core.events import Event, OutputArrived

OWN_STREAMS = {"-": "stdout", "/dev/stdout": "stdout", "/dev/stderr": "stderr"}
"""What names a stream of nbrun's own, which is never opened anew: it may be a file already, and would be cut off."""


def stream_files(stdout: str | None, stderr: str | None) -> list["StreamFile"]:
    """Give what writes to these files; it is one where both are the same."""
    if stdout is not None and stderr is not None and is_same(stdout, stderr):
        return [StreamFile(stdout, ("stdout", "stderr"))]
    wanted = (("stdout", stdout), ("stderr", stderr))
    return [StreamFile(target, (stream,)) for stream, target in wanted if target is not None]


def is_same(one: str, other: str) -> bool:
    """Tell whether two names are those of one file."""
    return OWN_STREAMS.get(one, os.path.realpath(one)) == OWN_STREAMS.get(other, os.path.realpath(other))


class StreamFile:
    """Writes the streams of these names (``stdout``, ``stderr``) of all runs to one file."""

    def __init__(self, target: str, streams: Collection[str]) -> None:
        self.name = f"{target}, for what cells write to {' and '.join(streams)},"
        self._target = target
        self._streams = streams
        self._file: BinaryIO | None = None

    def observe(self, event: Event) -> None:
        """Take an event."""
        if self._file is None:
            self._file = _open(self._target)
        match event:
            case OutputArrived(_, _, {"output_type": "stream", "name": name, "text": text}) if name in self._streams:
                self._file.write(str(text).encode("utf-8", "replace"))
                self._file.flush()
            case _:
                pass

    def close(self) -> None:
        """Close the file; nbrun's own streams stay open."""
        if self._file is not None and self._target not in OWN_STREAMS:
            self._file.close()


def _open(target: str) -> BinaryIO:
    if own := OWN_STREAMS.get(target):
        stream: BinaryIO = getattr(sys, own).buffer
        return stream
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")
