"""Notebooks for the tests: create them, run them with the command, and compare the results.

The one idea: two honest runners may cut a stream into different pieces and may apply ``\\r`` and ``\\b`` or leave it to
the reader, yet a reader sees the same. :func:`normalised` gives outputs as the reader sees them, so that they compare.
"""

import copy
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbrun.errors import ExitCode
from tests.support.forks import ForkServer

Cell = dict[str, Any]
Notebook = dict[str, Any]
Output = dict[str, Any]

FIXTURES = Path(__file__).parents[2] / "fixtures" / "notebooks"

IGNORED_NOTEBOOK_METADATA = frozenset({"kernelspec", "language_info", "nbrun"})
"""Metadata that differs between machines and runners: the kernel's name and the runner itself."""
IGNORED_CELL_METADATA = frozenset({"execution", "nbrun", "trusted"})
"""Metadata of the execution of a cell, and the server's trust in its outputs, which is never in a file."""

VOLATILE_TEXT = (
    (re.compile(r"\b0x[0-9a-fA-F]{6,16}\b"), "0xADDRESS"),
    (re.compile(r"(?<![^\s'\"])[^\s'\"]*ipykernel_\d+[/\\]\d+\.py"), "CELL.py"),
    (re.compile(r"<dc:date>[^<]*</dc:date>"), "<dc:date/>"),
    (re.compile(r"\b\d+(\.\d+)? ?(ns|[uµμ]s|ms|s|min)\b"), "DURATION"),
)
"""Text that differs between runs: addresses, a cell's temporary file, dates in SVG, durations.

The second pattern has a lookbehind, so that it starts once per word. Otherwise it would be very slow on base64 images.
"""


def code(source: str, *, tags: Sequence[str] = (), outputs: Sequence[Output] = (), count: int | None = None) -> Cell:
    """Build a code cell; its id is given by :func:`notebook`."""
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    return {
        "cell_type": "code",
        "execution_count": count,
        "metadata": metadata,
        "outputs": list(outputs),
        "source": source,
    }


def markdown(source: str) -> Cell:
    """Build a markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def raw(source: str) -> Cell:
    """Build a raw cell."""
    return {"cell_type": "raw", "metadata": {}, "source": source}


def stdout(text: str) -> Output:
    """Build a stream output, to be stale when the test begins."""
    return {"name": "stdout", "output_type": "stream", "text": text}


def notebook(*cells: str | Cell, minor: int = 5, kernel: str = "python3", **metadata: Any) -> Notebook:
    """Build a notebook of format 4.`minor`: a string is a code cell; ids are ``cell-1``, ``cell-2``… from 4.5 on.

    A cell that brings an id keeps it; an empty `kernel` leaves the kernelspec out.
    """
    built = [code(cell) if isinstance(cell, str) else copy.deepcopy(cell) for cell in cells]
    if minor >= 5:
        for number, cell in enumerate(built, start=1):
            cell.setdefault("id", f"cell-{number}")
    spec = {"kernelspec": {"display_name": kernel, "language": "python", "name": kernel}} if kernel else {}
    return {"cells": built, "metadata": spec | metadata, "nbformat": 4, "nbformat_minor": minor}


def write_notebook(path: Path, document: Notebook) -> Path:
    """Write a notebook as Jupyter does (indent 1, sorted keys, a newline at the end); returns the path back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def read_notebook(path: Path) -> Notebook:
    """Read a notebook file as it stands, with lists of lines joined; nothing is converted, repaired or validated."""
    document: Notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in document["cells"]:
        cell["source"] = joined(cell["source"])
        for output in cell.get("outputs", ()):
            if "text" in output:
                output["text"] = joined(output["text"])
            for mime, value in output.get("data", {}).items():
                if not mime.endswith("json"):
                    output["data"][mime] = joined(value)
    return document


def joined(value: Any) -> Any:
    """Join a list of lines, as files hold text, into the text."""
    return "".join(value) if isinstance(value, list) else value


def outputs_of(document: Notebook) -> list[list[Output]]:
    """Return the outputs of all code cells, in order."""
    return [cell["outputs"] for cell in document["cells"] if cell["cell_type"] == "code"]


def run_nbrun(
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run ``nbrun`` with `args` as a process of its own, `env` on top of this one's; `timeout` in seconds.

    The process is forked from one that has imported nbrun. A test of what happens at the start or the end of a process
    calls :func:`run_module`, which starts a new one.
    """
    environ = {**inherited(), **(env or {})}
    if sys.platform == "linux" and (server := fork_server()).takes(environ):
        return server.run("nbrun", [*map(str, args)], environ, cwd, timeout, stdin)
    return run_module("nbrun", *args, env=env, cwd=cwd, timeout=timeout, stdin=stdin)


def inherited() -> dict[str, str]:
    """Return the environment of commands that the tests run."""
    # Where it sees that pytest runs it, ipykernel does not collect what reaches its file descriptors.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {**inherited, "PYTHONIOENCODING": "utf-8"}


AT_IMPORT = inherited()
"""The environment before any test changes it."""


@functools.cache
def fork_server() -> ForkServer:
    """Return the fork server of the tests in this process."""
    return ForkServer(AT_IMPORT)


def run_module(
    module: str,
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module`` and capture what it says, as text."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, args)],
        env={**inherited(), **(env or {})},
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        input=stdin,
        check=False,
    )


def assert_exit(process: subprocess.CompletedProcess[str], expected: ExitCode) -> None:
    """Check the exit code of the process; show its output if it differs."""
    said = f"{process.args}\n--- stdout\n{process.stdout}\n--- stderr\n{process.stderr}"
    assert process.returncode == expected, f"ended with {process.returncode}, not {expected}: {said}"


def normalised(outputs: Iterable[Output], *, folder: Path | None = None) -> list[Output]:
    """Return `outputs` as a reader sees them.

    Between two outputs that are no streams, the text of each stream is put together, stdout first, and shown as a
    terminal would show it. What changes from run to run is replaced by a word, and so is the path of `folder`.
    """
    seen: list[Output] = []
    streams: dict[str, str] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            streams[output["name"]] = streams.get(output["name"], "") + joined(output["text"])
        else:
            seen += rendered(streams)
            streams.clear()
            seen.append(output)
    seen += rendered(streams)
    steady: list[Output] = steadied(seen, folder)
    return steady


def rendered(streams: Mapping[str, str]) -> list[Output]:
    """Return one stream output for each name with any text, stdout before stderr."""
    shown = {name: as_on_a_terminal(streams[name]) for name in sorted(streams, reverse=True)}
    return [{"output_type": "stream", "name": name, "text": text} for name, text in shown.items() if text]


def as_on_a_terminal(text: str) -> str:
    r"""Return what stays on a wide terminal: ``\r`` goes to the line's start, ``\b`` one back, neither erases."""
    return "\n".join(map(line_on_a_terminal, text.split("\n")))


def line_on_a_terminal(line: str) -> str:
    """Return what stays of one line."""
    shown: list[str] = []
    column = 0
    for character in line:
        if character == "\r":
            column = 0
        elif character == "\b":
            column = max(column - 1, 0)
        else:
            shown[column : column + 1] = [character]
            column += 1
    return "".join(shown)


def steadied(value: Any, folder: Path | None = None) -> Any:
    """Replace in all strings of a JSON value what changes from run to run; keys stay."""
    match value:
        case str():
            if folder is not None:
                value = value.replace(str(folder), "FOLDER")
            for pattern, word in VOLATILE_TEXT:
                value = pattern.sub(word, value)
            return value
        case list():
            return [steadied(item, folder) for item in value]
        case dict():
            return {key: steadied(item, folder) for key, item in value.items()}
        case _:
            return value


def comparable(document: Notebook, *, folder: Path | None = None) -> Notebook:
    """Return a copy of `document` without what is not the notebook's own: see the two ``IGNORED`` tables above."""
    document = copy.deepcopy(document)
    document["metadata"] = without(document["metadata"], IGNORED_NOTEBOOK_METADATA)
    for cell in document["cells"]:
        cell["metadata"] = without(cell["metadata"], IGNORED_CELL_METADATA)
        if cell["cell_type"] == "code":
            cell["outputs"] = normalised(cell["outputs"], folder=folder)
    return document


def without(mapping: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return `mapping` without `names`."""
    return {name: value for name, value in mapping.items() if name not in names}
