"""Write lines to a log, and filter untrusted text in them; without rich, which is slow."""

import os
from collections.abc import Callable
from typing import Any

from nbrun.core.formats.safe_text import without_controls
from nbrun.reporters.safe_stream import SafeStream

_TERMINAL_VARIABLES = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""The variables with which rich treats any stream as a terminal."""


class LogConsole:
    """Writes whole lines to `file`; `mask` masks secrets in each line.

    If `runner` is true, no line is a command to a CI runner. Otherwise the environment decides.
    """

    is_terminal: Any = False
    can_move: Any = False
    wraps = False

    def __init__(self, file: Any, *, mask: Callable[[str], str] = str, runner: bool = False) -> None:
        self._mask = mask
        self.file: Any = SafeStream(file, colours=False, commands=True if runner else None)

    def allow_movements(self) -> None:
        """Allow cursor movements, which a log does not have."""

    def clean(self, text: str, *, colours: bool = False) -> str:
        """Return untrusted text without control characters and secrets.

        Secrets are masked twice, because a removed character may have been part of a secret or have split one.
        """
        return self._mask(without_controls(self._mask(text), colours=colours))

    def say(self, line: str, style: str = "", *, on_one_line: bool = False) -> None:  # noqa: ARG002
        """Write a line; a log has neither width nor style."""
        self.file.write(f"{self.clean(line)}\n")
        self.file.flush()

    def say_output(self, line: str) -> None:
        """Write a line of a cell's output."""
        LogConsole.say(self, line)


def is_log(stream: Any) -> bool:
    """Return whether `stream` is surely no terminal for rich either."""
    return not stream.isatty() and not any(os.environ.get(name) for name in _TERMINAL_VARIABLES)
