r"""Write the outputs of cells to the console as whole lines (``--log-output``).

A progress bar redraws its line after each ``\r``. The log gets its last state when the line or the cell ends. Each line
names its cell.
"""

from collections.abc import Callable

from nbrun.core.outputs.mimebundle import Output
from nbrun.core.outputs.stream import StreamText
from nbrun.reporters.phrases import output_text


class OutputLog:
    """Writes outputs as lines."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._open: dict[tuple[int, str], StreamText] = {}

    def show(self, index: int, label: str, output: Output) -> None:
        """Write an output of the cell at `index`, each line with the prefix `label`."""
        if output["output_type"] != "stream":
            self.finish(index, label)
            self._write_lines(label, output_text(output))
            return
        key = (index, output["name"])
        begun = self._open.setdefault(key, StreamText())
        whole, newline, rest = output["text"].rpartition("\n")
        if newline:
            begun.feed(whole)
            self._write_lines(label, str(begun))
            begun = self._open[key] = StreamText()
        begun.feed(rest)

    def finish(self, index: int, label: str) -> None:
        """Write the unfinished lines of a cell."""
        for key in [key for key in self._open if key[0] == index]:
            text = str(self._open.pop(key))
            if text:
                self._write_lines(label, text)

    def _write_lines(self, label: str, text: str) -> None:
        for line in text.split("\n"):
            self._write(f"{label}{line}")
