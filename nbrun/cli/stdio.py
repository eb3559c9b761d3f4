"""Notebooks from standard input and to standard output (``-``).

A path that is neither a file nor a folder, such as ``<(jupytext --to ipynb -o - report.py)``, is read like standard
input.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbrun.cli.destinations import is_plain, is_single
from nbrun.cli.standard_streams import closed, read_whole, write_whole
from nbrun.core.formats.safe_text import safe_json
from nbrun.errors import UsageError
from nbrun.reporters.safe_stream import is_on_runner
from nbrun.storage.writable import is_file, is_folder, is_there

STANDARD_OUTPUT = ("-", "/dev/stdout")
STANDARD_ERROR = "/dev/stderr"
_INPUT = "-"
_STANDARD_INPUT = (_INPUT, "/dev/stdin")

STREAMED = ("content", "deliver")
"""The keys of :class:`nbrun.RunOptions` that say what comes and goes as text."""


def is_handed(given: dict[str, Any]) -> bool:
    """Return whether the notebook comes or goes through a stream."""
    return any(name in given for name in STREAMED)


def read_streams(named: Sequence[str], given: dict[str, Any], *, many: bool) -> list[str]:
    """Read what comes through a stream, and set in `given` what goes through one; returns the notebooks' names.

    A notebook that is read, and said to go nowhere, goes to standard output. Raises :class:`UsageError`, also where
    the settings have it run `many` times.
    """
    comes = [name for name in named if _is_stream(name, given)]
    goes = given["output"] in STANDARD_OUTPUT or (bool(comes) and given["output"] is None and not given["no_save"])
    if not comes and not goes:
        return [*named]
    what = f"{comes[0]} as a notebook" if comes else f"--output {given['output']}"
    if many or not is_single(named, given) or not is_plain({**given, "prepare_only": False}, ()):
        raise UsageError(f"{what}: for one notebook, run once", hint="Name files where there is more to do.")
    if given["help_notebook"]:
        raise UsageError(f"{what}: --help-notebook wants a file")
    if goes:
        if given["no_save"]:
            raise UsageError(f"{what}: with --no-save nothing would come out")
        if "stdout" in closed:
            raise UsageError(f"{what}: standard output is closed")
        given |= {"output": "-", "deliver": _write}
    if not comes:
        return [*named]
    given["content"] = _read(comes[0])
    return ["stdin.ipynb" if comes[0] == _INPUT else "pipe.ipynb"]


def _is_stream(name: str, given: dict[str, Any]) -> bool:
    if name == _INPUT:
        return True
    return (not given["server"] or given["upload"]) and is_there(name) and not is_file(name) and not is_folder(name)


def _read(name: str) -> bytes:
    if name in _STANDARD_INPUT and "stdin" in closed:
        raise UsageError(f"{name}: standard input is closed")
    if name == _INPUT and sys.stdin.isatty():
        raise UsageError("-: standard input is a terminal", hint="Pipe a notebook into it: nbrun run - < in.ipynb")
    try:
        return read_whole(sys.stdin.fileno()) if name == _INPUT else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from None


def _write(text: str) -> None:
    if is_on_runner() or sys.stdout.isatty():
        text = safe_json(text)  # the same notebook, with nothing in it that a terminal or a CI runner acts on
    # Past Python's own buffer, at whose lock the end of the process would wait for a reader that has stopped to read.
    write_whole(sys.stdout.fileno(), text.encode("utf-8", "replace"))
