r"""Find the failing line of a cell in its traceback, and shorten tracebacks for display.

Kernels send tracebacks as coloured text for a terminal. In ipykernel's, each entry is a frame. A frame begins with
``Cell In[7], line 3`` or with ``File …/frame.py:12, in f(x)``. Before IPython 8.7 the first form is ``Input In [7]`` or
``<ipython-input-7-…>``, with an arrow at the line. Frames of cells belong to the author, frames of installed libraries
do not. IPython counts a cell's lines from the first that is not blank, and lines under ``%%time`` from the next line.

Some errors are printed by Python itself on standard error; IPython does this for an ExceptionGroup. A frame is then
``File "…/frame.py", line 12, in f``, and a cell's file is ``ipykernel_123/456.py``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from nbrun.core.formats.safe_text import without_controls

_CELL_FRAME = re.compile(
    r"^\s*(?:Cell In ?\[(?P<cell>\d+)\]|(?:Input )?In \[(?P<input>\d+)\]|(?:File )?\"?<ipython-input-(?P<file>\d+)-)"
)
_TIMED_FRAME = re.compile(r"^File <timed (?:exec|eval)>:(\d+)")
_FRAME = re.compile(r"^(?:Cell In ?\[|(?:Input )?In \[|<ipython-input-|File \S)")
_LINE = re.compile(r"^[^\n]*?(?:\bline |:)(\d+)")
_ARROW = re.compile(r"^-+> (\d+)\b", re.MULTILINE)
_ELSEWHERE = (re.compile(r"<anonymous>:(\d+)"), re.compile(r"\bline (\d+)\b"), re.compile(r"\bIn\[\d+\]:(\d+)"))
_LIBRARY = re.compile(
    r"^File (?:.*[/\\](?:site-packages|dist-packages|python3(?:\.\d+)?)[/\\]|<frozen |\S+\.p[yx][xi]:\d)"
)
_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)*")
_NATIVE_FRAME = re.compile(r'^([\s|+]*)File "([^"]*)", line \d+')
_NATIVE_LIBRARY = re.compile(r"[/\\](?:site-packages|dist-packages|python3(?:\.\d+)?)[/\\]|^<frozen |\.p[yx][xi]$")
_NATIVE_CELL = re.compile(r'^[\s|+]*File "[^"]*[/\\]ipykernel_\d+[/\\]\d+\.py", line (\d+), in <module>')
_LIBRARY_FOLDER = re.compile(
    r'^([\s|+]*File "?)[^"\n]*[/\\]((?:site-packages|dist-packages|python3(?:\.\d+)?)[/\\])', re.MULTILINE
)
_RULE = re.compile(r"^(?:-+|\S+ +Traceback \(most recent call last\):?)$")
_CONTEXT = re.compile(r"^ +\d+(?: |$)|^ +\(\.\.\.\)")
_CAUSE_ENDS = re.compile(r"^\s*(?:During handling of the above|The above exception was)", re.MULTILINE)
LONGEST = 60
"""Maximum lines of a trimmed traceback."""


def plain(text: str) -> str:
    """Return text without control characters, and without characters that XML does not allow."""
    return without_controls(text)


def failing_line(traceback: Sequence[str], source: str, execution_count: int | None) -> int | None:
    """Return the line of `source`, from 1, at which it failed, or None if the traceback does not show it.

    The innermost frame of this cell counts, which contains the ``raise``.
    """
    last = source.count("\n") + 1
    blank = len(_BLANK_LINES.match(source)[0].splitlines())  # type: ignore[index]
    entries = _final_cause([plain(entry) for entry in traceback])
    own = [line + blank for entry in entries for line in _lines_of_cell(entry, execution_count)]
    # The first module frame is the running cell's. Frames below may belong to a cell that defines a function.
    own = own or [int(found[1]) + blank for entry in entries if (found := _NATIVE_CELL.match(entry))][:1]
    if not own and not any(_FRAME.match(line) for entry in entries for line in entry.splitlines()):
        own = [int(number) for pattern in _ELSEWHERE for entry in entries for number in pattern.findall(entry)][:1]
    return next((line for line in reversed(own) if 1 <= line <= last), None)


def _final_cause(entries: list[str]) -> list[str]:
    """Remove the exceptions that preceded the last one, as its cause or context."""
    starts = [number for number, entry in enumerate(entries) if _CAUSE_ENDS.search(entry)]
    rest = entries[starts[-1] + 1 :] if starts else entries
    return rest or entries


def _lines_of_cell(entry: str, execution_count: int | None) -> Iterator[int]:
    """Yield the line numbers in the frames of the cell. An entry may contain several frames."""
    lines = entry.splitlines()
    starts = [number for number, line in enumerate(lines) if _FRAME.match(line) or _CELL_FRAME.match(line)]
    for start, end in pairwise([*starts, len(lines)]):
        if timed := _TIMED_FRAME.match(lines[start]):
            yield int(timed[1]) + 1
        found = _CELL_FRAME.match(lines[start])
        if found is None:
            continue
        number = next(group for group in found.groups() if group is not None)
        if execution_count is not None and int(number) != execution_count:
            continue
        head, body = lines[start][found.end() :], "\n".join(lines[start + 1 : end])
        told = _ARROW.search(body) or _LINE.match(head)
        if told:
            yield int(told[1])


def trimmed(traceback: Sequence[str], *, longest: int = LONGEST) -> list[str]:
    """Return a traceback as plain lines, with the position and the failing line of each frame.

    Frames in installed libraries are reduced to their position, without the library folder. Of several such frames in a
    row, the first and the last stay. More than `longest` lines are cut in the middle, because the end is most
    important.
    """
    lines: list[str] = []
    inside: list[str] = []
    for block in _blocks(traceback):
        if _LIBRARY.match(block[0]):
            inside.append(block[0])
            continue
        lines += [*_in_libraries(inside), *_without_context(block)]
        inside = []
    lines += _in_libraries(inside)
    shortened = [_LIBRARY_FOLDER.sub(r"\1…/\2", line) for line in lines]
    return _without_middle(_without_blanks(shortened), longest)


def _blocks(traceback: Sequence[str]) -> Iterator[list[str]]:
    """Yield the frames and the text between them as lists of lines, without the rules drawn for a terminal."""
    for entry in _without_native_libraries(traceback):
        block: list[str] = []
        for line in plain(entry).splitlines():
            if _RULE.match(line.strip()):
                continue
            if (_FRAME.match(line) or (block and _FRAME.match(block[0]) and _ends_frame(line))) and block:
                yield block
                block = []
            block.append(line.rstrip())
        if block:
            yield block


def _without_native_libraries(traceback: Sequence[str]) -> Iterator[str]:
    """Remove library frames from a traceback that Python printed, except for the last of several in a row."""
    held: list[str] = []
    inside = ""
    for entry in traceback:
        frame = _NATIVE_FRAME.match(entry)
        if frame is None and inside and entry.startswith(f"{inside}  "):
            continue  # the source of a frame in a library
        inside = frame[1] if frame and _NATIVE_LIBRARY.search(frame[2]) else ""
        if inside:
            held = [entry]
            continue
        yield from held
        held = []
        yield entry
    yield from held


def _without_context(block: list[str]) -> list[str]:
    """Remove the lines around the failing line of a frame."""
    if not any(_ARROW.match(line) for line in block):
        return block
    return [line for line in block if not _CONTEXT.match(line)]


def _ends_frame(line: str) -> bool:
    """Return whether a line is outside of the frame above: neither source nor blank."""
    return bool(line.strip()) and not line.startswith((" ", "-"))


def _in_libraries(heads: list[str]) -> list[str]:
    if len(heads) <= 3:
        return heads
    return [heads[0], f"  … {len(heads) - 2} more in libraries …", heads[-1]]


def _without_blanks(lines: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return kept


def _without_middle(lines: list[str], longest: int) -> list[str]:
    if len(lines) <= longest:
        return lines
    first = longest // 3
    last = longest - first - 1
    return [*lines[:first], f"  … {len(lines) - first - last} lines …", *lines[-last:]]


def excerpt(source: str, line: int | None, *, around: int = 3) -> list[tuple[int, str, bool]]:
    """Return lines of a cell's source as (number from 1, text, whether it is the failing line).

    These are the lines within `around` lines of the failing one, or the first lines if there is none.
    """
    lines = source.split("\n")
    first = 1 if line is None else max(1, line - around)
    last = min(len(lines), 2 * around + 1 if line is None else line + around)
    return [(number, plain(lines[number - 1]), number == line) for number in range(first, last + 1)]
