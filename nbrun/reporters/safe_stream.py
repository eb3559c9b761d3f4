"""Filter untrusted text in everything that nbrun prints to the standard streams.

All printed text passes through :func:`nbrun.core.formats.safe_text.safe_text` as the last step, whether click, rich, or
Python's warnings and tracebacks print it. Three things bypass the filter: the commands that nbrun itself sends to a CI
runner, the binary output that was asked for (a notebook, JSON, the streams of cells), and on a terminal the cursor
movements of rich's live display.
"""

import codecs
import os
import re
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nbrun.core.formats.safe_text import without_commands, without_controls

_MOVEMENT = re.compile(r"(\r|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh])")
"""The control sequences that rich's live display writes."""
_RUNNERS = ("GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION", "GITLAB_CI")
"""Variables of CI runners that read commands from logs: GitHub, Azure Pipelines, TeamCity, GitLab."""
_NAMES = {"-": "stdout", "/dev/stdout": "stdout", "/dev/stderr": "stderr"}
_STREAMS = {1: "stdout", 2: "stderr"}


def is_on_runner(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether a CI runner reads this process's output."""
    environ = os.environ if environ is None else environ
    return any(environ.get(name, "").lower() not in ("", "0", "false", "no") for name in _RUNNERS)


class SafeStream:
    """A text stream that writes filtered text to the stream `under` it.

    With `colours`, SGR sequences for colours stay. With `commands`, no line is a command to a CI runner; a line is then
    written when it is complete. With `movements`, the cursor movements of a live display stay. This is only for a
    console whose text is cleaned before.
    """

    def __init__(
        self, under: Any, *, colours: bool | None = None, commands: bool | None = None, movements: bool = False
    ) -> None:
        self.under: Any = under.under if isinstance(under, SafeStream) else under
        self._colours = _has_colours(self.under) if colours is None else colours
        self._commands = is_on_runner() if commands is None else commands
        self._movements = movements
        self._begun = ""
        self._is_unicode = codecs.lookup(self.encoding).name.startswith("utf")

    @property
    def encoding(self) -> str:
        """Return the encoding of the stream."""
        return getattr(self.under, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        """Return the error handler for characters outside of the encoding."""
        return getattr(self.under, "errors", None) or "strict"

    @property
    def closed(self) -> bool:
        """Return whether the stream is closed."""
        return bool(getattr(self.under, "closed", False))

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return bool(self.under.isatty())

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return int(self.under.fileno())

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write filtered text; for a CI runner, hold back an unfinished line."""
        if not isinstance(text, str):
            raise TypeError(f"text is wanted, not {type(text).__name__}")
        if self._movements:
            parts = enumerate(_MOVEMENT.split(text))
            self._put("".join(part if at % 2 else without_controls(part, colours=True) for at, part in parts))
            return len(text)
        clean = without_controls(text, colours=self._colours)
        if self._commands:
            whole, newline, rest = clean.rpartition("\n")
            if newline:
                self._put(without_commands(f"{self._begun}{whole}\n"))
                self._begun = ""
            self._begun += rest
        else:
            self._put(clean)
        return len(text)

    def _put(self, text: str) -> None:
        # A stream that drops characters outside of its encoding would restore a broken command.
        if not self._is_unicode:
            text = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self.under.write(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def write_command(self, line: str) -> None:
        """Write a command to the CI runner, unchanged, on a line of its own."""
        self.finish()
        self._put(f"{line}\n")
        self.under.flush()

    def finish(self) -> None:
        """End an unfinished line, so that it is written."""
        if self._begun:
            self.write("\n")

    def flush(self) -> None:
        """Flush the stream."""
        self.under.flush()

    def close(self) -> None:
        """Write the unfinished line; the stream below stays open."""
        self.finish()
        self.flush()


def protect_standard_streams() -> None:
    """Replace standard output and standard error by filtered streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, SafeStream):
            setattr(sys, name, SafeStream(stream))


def finish_standard_streams() -> None:
    """Write the unfinished line of a stream."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SafeStream):
            with suppress(OSError, ValueError):  # the reader has gone
                stream.close()


def binary(stream: Any) -> Any:
    """Return the binary stream under a text stream, for data."""
    return (stream.under if isinstance(stream, SafeStream) else stream).buffer


def named(target: str) -> str:
    """Return the name of a file for messages: its path, or the standard stream."""
    return {"stdout": "standard output", "stderr": "standard error"}.get(own_stream(target) or "", target)


def own_stream(target: str | None) -> str | None:
    """Return ``stdout`` or ``stderr`` if `target` is that stream of nbrun's process, by any name, otherwise None.

    Such a stream is never opened again, because it may be a file, which would be truncated.
    """
    if target is None or target in _NAMES:
        return _NAMES.get(target or "")
    try:
        there, nothing = os.stat(target), os.stat(os.devnull)  # noqa: PTH116  (`nbrun --help` needs no pathlib)
        if there.st_ino and not os.path.samestat(there, nothing):
            return next((name for number, name in _STREAMS.items() if os.path.samestat(there, os.fstat(number))), None)
    except (OSError, ValueError):
        pass  # no such file yet, or no such stream
    return None


def may_be_shown(target: str) -> bool:
    """Return whether text written to `target` may appear in a log or on a terminal."""
    if own_stream(target):
        return True
    try:
        return not stat.S_ISREG(os.stat(target).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False  # a file that does not exist yet


def write_command(stream: Any, line: str) -> None:
    """Write a command of nbrun to the CI runner that reads `stream`."""
    (stream if isinstance(stream, SafeStream) else SafeStream(stream)).write_command(line)


def _has_colours(stream: Any) -> bool:
    """Return whether the stream gets colours, according to the variables that rich uses."""
    environ = os.environ
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    try:
        return bool(stream.isatty()) and environ.get("TERM", "").lower() not in ("dumb", "unknown")
    except ValueError:  # closed
        return False
