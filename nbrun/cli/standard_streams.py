"""Standard streams of the process that are closed, full, disconnected or non-blocking.

A closed stream behaves like /dev/null. Its file descriptor is occupied before anything else is opened. Otherwise the
first socket would get the number 1 or 2 and receive what is printed. A text stream drops what it cannot write, because
a full disk must not end a run. :func:`lost_output` returns what must be reported at the end. Binary output
(``sys.stdout.buffer``) carries data that the user asked for, so its errors are raised.
"""

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

from nbrun.reporters.safe_stream import SafeStream

_NAMES = ("stdin", "stdout", "stderr")
_BUFFER = 1 << 16

closed: set[str] = set()
"""The standard streams that were closed when the process started: ``stdin``, ``stdout``, ``stderr``."""


def prepare_standard_streams() -> None:
    """Open closed standard streams on /dev/null, and make text output tolerate errors. Call this first."""
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None or not _is_open(number):
            closed.add(name)
            _open_on_nothing(number, name)
    for name in ("stdout", "stderr"):
        if name not in closed:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # not a file, so unchanged
                _make_tolerant(name)


def lost_output() -> str:
    """Flush standard output; return why text was lost, or "" if it was not or its reader has gone."""
    stream: Any = sys.stdout
    try:
        if isinstance(stream, SafeStream):
            stream.finish()
            stream = stream.under
        stream.flush()
    except (OSError, ValueError) as error:
        return "" if isinstance(error, BrokenPipeError) else str(getattr(error, "strerror", None) or error)
    failure = stream.failure if isinstance(stream, _TolerantText) else None
    return "" if failure is None or isinstance(failure, BrokenPipeError) else failure.strerror or str(failure)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of `data` without Python's buffers, and wait if the descriptor does not block. Raises OSError."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def read_whole(descriptor: int) -> bytes:
    """Return everything until the end of the file, and wait if the descriptor does not block. Raises OSError."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, _BUFFER)
        except BlockingIOError:
            select.select([descriptor], [], [])
            continue
        if not part:
            return b"".join(parts)
        parts.append(part)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError as error:
        return error.errno != errno.EBADF
    return True


def _open_on_nothing(number: int, name: str) -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY if name == "stdin" else os.O_WRONLY)
    if descriptor != number and not _is_open(number):
        os.dup2(descriptor, number)
        os.close(descriptor)
        descriptor = number
    if descriptor == number:  # otherwise another file has got this number
        os.set_inheritable(descriptor, True)  # noqa: FBT003
    stream = open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


class _Tolerant(io.FileIO):
    """Writes as much as possible, and stores the first error."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        size = len(data)
        try:
            write_whole(self.fileno(), bytes(data))
        except OSError as error:
            self.failure = self.failure or error
        return size


class _TolerantText(io.TextIOWrapper):
    """A tolerant text stream, whose binary ``buffer`` raises errors."""

    def __init__(self, raw: _Tolerant, data: Any, **options: Any) -> None:
        super().__init__(io.BufferedWriter(raw, _BUFFER), **options)
        self._raw = raw
        self._data = data

    @property
    def buffer(self) -> Any:
        return self._data

    @property
    def failure(self) -> OSError | None:
        return self._raw.failure


def _make_tolerant(name: str) -> None:
    old = getattr(sys, name)
    old.flush()
    raw = _Tolerant(old.fileno(), "wb", closefd=False)
    stream = _TolerantText(
        raw,
        old.buffer,
        encoding="utf-8" if codecs.lookup(old.encoding).name == "ascii" else old.encoding,  # as in click
        errors="backslashreplace" if old.errors == "strict" else old.errors,  # a name may have an invalid encoding
        line_buffering=name == "stderr" or old.line_buffering,
        write_through=old.write_through,
    )
    setattr(sys, name, stream)
