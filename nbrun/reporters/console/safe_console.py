"""A console of rich's from which only text and rich's own drawing come out.

Foreign text is cleaned three times. As it comes, because rich must not lay out, and secrets must not be looked for in,
what is removed later. After rich has laid it out, since rich itself drops and splits characters. And in the stream
under the console, which sees the final text. On a terminal with a live display the stream lets cursor movements pass,
so the second time is what keeps those of a notebook out: no text that rich draws holds an escape character.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from nbrun.core.formats.safe_text import without_controls
from nbrun.reporters.phrases import wrapped
from nbrun.reporters.safe_stream import SafeStream


class SafeConsole(Console):
    """Writes to `file`, or to standard error; `mask` takes secrets out of each line.

    Where `runner` is true, no line is a command to a CI runner; otherwise the environment decides.
    """

    def __init__(
        self, *, file: Any = None, mask: Callable[[str], str] = str, runner: bool = False, **options: Any
    ) -> None:
        target = sys.stderr if file is None else file
        super().__init__(**{"highlight": False, "soft_wrap": True, "emoji": False, **options}, file=target)
        self._mask = mask
        self.wraps = False
        """Whether :meth:`say` breaks lines between words, as on a screen; a log keeps them whole."""
        self._colours = self.is_terminal and self.color_system is not None and not self.no_color
        self.file = SafeStream(target, colours=self._colours, commands=True if runner else None)  # type: ignore[assignment]

    def allow_movements(self) -> None:
        """Let rich move the cursor, as its live displays do."""
        self.file = SafeStream(self.file, movements=True)  # type: ignore[assignment]

    def clean(self, text: str, *, colours: bool = False) -> str:
        """Return foreign text without what acts and without secrets.

        Secrets are looked for twice: what is removed may have been part of one, or have parted one.
        """
        return self._mask(without_controls(self._mask(text), colours=colours))

    def say(self, line: str, style: str = "", *, on_one_line: bool = False) -> None:
        """Print a line: whole in a log; on a screen broken between words, or cut where it has to stay `on_one_line`."""
        if not self.is_terminal:
            self._log(line)
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
        """Print a line that a cell wrote, in its own colours where there are colours."""
        if self.is_terminal:
            self.print(Text.from_ansi(self.clean(line, colours=self._colours)))
        else:
            self._log(line)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return what is drawn, the text of it without anything that acts."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control:
                yield segment
            else:
                yield Segment(without_controls(text), style.update_link(None) if style and style.link else style)

    def _log(self, line: str) -> None:
        # Past rich: a log has neither width nor style, and a line costs a tenth.
        self.file.write(f"{self.clean(line)}\n")
        self.file.flush()
