"""Notebooks from standard input and to standard output (``-``).

A path that is neither a file nor a folder, such as ``<(jupytext --to ipynb -o - report.py)``, is read like standard
input.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbrun.cli.standard_streams import closed, read_whole, write_whole
from nbrun.core.batch.output_paths import is_template
from nbrun.core.formats.safe_text import safe_json
from nbrun.errors import UsageError
from nbrun.reporters.safe_stream import is_on_runner
from nbrun.runner.job import BatchOptions, is_on_server
from nbrun.storage.writable import is_file, is_folder, is_there

STANDARD_OUTPUT = ("-", "/dev/stdout")
STANDARD_ERROR = "/dev/stderr"
_INPUT = "-"
_STANDARD_INPUT = (_INPUT, "/dev/stdin")

_OF_BATCH = ("cache", "shard", "changed_since", "retries", "exclude", "refresh")


def read_streams(named: Sequence[str], options: BatchOptions, *, one: bool, only_plan: bool) -> list[str]:
    """Read a notebook from a stream, and let `options` write to a stream; return the notebooks' names.

    A notebook from a stream without an output goes to standard output. Raises :class:`UsageError`, also if the notebook
    would be run more than once.
    """
    sources = [name for name in named if _is_stream(name, options)]
    output = options["output"]
    to_stdout = output in STANDARD_OUTPUT or (bool(sources) and output is None and options["save"])
    if not sources and not to_stdout:
        return [*named]
    what = f"{sources[0]} as a notebook" if sources else f"--output {output}"
    given: Mapping[str, Any] = options
    if not one or any(given[name] for name in _OF_BATCH) or is_template(os.fspath(output or "")):
        raise UsageError(f"{what}: for one notebook, run once", hint="Name files where there is more to do.")
    if only_plan:
        raise UsageError(f"{what}: --help-notebook wants a file")
    if to_stdout:
        if not options["save"]:
            raise UsageError(f"{what}: with --no-save nothing would come out")
        if "stdout" in closed:
            raise UsageError(f"{what}: standard output is closed")
        options["output"], options["deliver"] = "-", _write
    if not sources:
        return [*named]
    options["content"] = _read(sources[0])
    return ["stdin.ipynb" if sources[0] == _INPUT else "pipe.ipynb"]


def _is_stream(name: str, options: BatchOptions) -> bool:
    if name == _INPUT:
        return True
    return not is_on_server(options) and is_there(name) and not is_file(name) and not is_folder(name)


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
        text = safe_json(text)  # the same notebook, without control characters and CI commands
    # Without Python's buffer: at exit, its lock would wait for a reader that has stopped reading.
    write_whole(sys.stdout.fileno(), text.encode("utf-8", "replace"))
