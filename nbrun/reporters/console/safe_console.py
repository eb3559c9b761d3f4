"""A rich console that filters untrusted text.

Untrusted text is filtered three times: on arrival, so that layout and masking see the final characters; after rich's
layout, because rich drops and splits characters; and in the stream below, which sees the final text. On a terminal with
a live display the stream passes cursor movements. The second step then removes those of a notebook.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from nbrun.core.formats.safe_text import without_controls
from nbrun.reporters.console.log_console import LogConsole
from nbrun.reporters.phrases import wrapped
from nbrun.reporters.safe_stream import SafeStream


class SafeConsole(Console, LogConsole):
    """Writes to `file`, or to standard error; `mask` masks secrets in each line.

    If `runner` is true, no line is a command to a CI runner. Otherwise the environment decides.
    """

    def __init__(
        self, *, file: Any = None, mask: Callable[[str], str] = str, runner: bool = False, **options: Any
    ) -> None:
        target = sys.stderr if file is None else file
        super().__init__(**{"highlight": False, "soft_wrap": True, "emoji": False, **options}, file=target)
        self._mask = mask
        self.wraps = False
        """Whether :meth:`say` wraps lines, as on a terminal; a log keeps them whole."""
        self._colours = self.is_terminal and self.color_system is not None and not self.no_color
        self.file = SafeStream(target, colours=self._colours, commands=True if runner else None)  # type: ignore[assignment]

    @property
    def can_move(self) -> bool:
        """Return whether the stream is a terminal that can move its cursor."""
        return self.is_terminal and not self.is_dumb_terminal

    def allow_movements(self) -> None:
        """Allow rich to move the cursor for its live displays."""
        self.file = SafeStream(self.file, movements=True)  # type: ignore[assignment]

    def say(self, line: str, style: str = "", *, on_one_line: bool = False) -> None:
        """Print a line: whole in a log; on a terminal wrapped, or cut if it must stay `on_one_line`."""
        if not self.is_terminal:
            LogConsole.say(self, line)
            return
        line = self.clean(line)
        if on_one_line and self.wraps:
            text = Text(line, style)
            text.truncate(self.width, overflow="ellipsis")
            self.print(text)
            return
        for part in wrapped(line, self.width) if self.wraps else [line]:
            self.print(Text(part, style))

    def say_output(self, line: str) -> None:
        """Print a line of a cell's output with its own colours if colours are on."""
        if self.is_terminal:
            self.print(Text.from_ansi(self.clean(line, colours=self._colours)))
        else:
            LogConsole.say_output(self, line)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the rendered segments with filtered text."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control:
                yield segment
            else:
                yield Segment(without_controls(text), style.update_link(None) if style and style.link else style)
