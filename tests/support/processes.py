"""The processes of one run, found by a mark in their environment, and nbrun as a live process.

The one idea: a run's server and kernels inherit nbrun's environment, so a variable of a value that nobody else has
finds them all, also those that nbrun's death has made somebody else's children.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.servers import pause

MARK = "NBRUN_TESTS_RUN"
"""The environment variable whose value marks the processes of one run."""


FORCED_DEPTH = "NBRUN_TESTS_PIPELINE"
"""The variable with which the suite's option ``--nbrun-pipeline`` reaches the commands that tests start."""


def of_cells_behind(unknown: str) -> str:
    """Return the outcome of cells behind the one with which contact was lost: `unknown` if they are on their way."""
    return unknown if FORCED_DEPTH in os.environ else "not-run"


def forced_options() -> list[str]:
    """Return the options with which the suite wants every ``nbrun run`` to be called."""
    depth = os.environ.get(FORCED_DEPTH)
    return ["--pipeline", depth] if depth else []


def new_mark() -> str:
    """Return a value for :data:`MARK` that no other run has."""
    return secrets.token_hex(8)


def processes_of(mark: str) -> list[psutil.Process]:
    """Return the live processes with that mark, without zombies."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def named(processes: list[psutil.Process]) -> list[str]:
    """Return the command lines of processes, for the message of a failing test."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            lines.append(f"{process.pid}: {' '.join(process.cmdline())}")
    return lines


def await_no_process_of(mark: str, within: float) -> None:
    """Check that no process with that mark is left after this many seconds."""
    deadline = time.monotonic() + within
    while left := processes_of(mark):
        assert time.monotonic() < deadline, f"{within:g} s later there still are {named(left)}"
        pause()


async def await_gone(pid: int, within: float = 10.0) -> None:
    """Wait until a process has ended; a zombie counts as ended."""
    deadline = time.monotonic() + within
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} is there {within:g} s later"
            await asyncio.sleep(0.05)


@dataclass
class LiveNbrun:
    """A running ``nbrun run`` with its processes."""

    process: subprocess.Popen[str]
    mark: str
    json_file: Path

    def others(self) -> list[psutil.Process]:
        """Return the processes that it has started, and their descendants."""
        return [process for process in processes_of(self.mark) if process.pid != self.process.pid]

    def await_file(self, path: Path, within: float = 60.0, *, words: str = "") -> str:
        """Wait until a file contains `words`, and return its text; fail if nbrun ends first."""
        deadline = time.monotonic() + within
        while not path.exists() or words not in path.read_text():
            assert self.process.poll() is None, f"nbrun ended first: {self.said()}"
            assert time.monotonic() < deadline, f"{path.name} did not appear within {within:g} s, or had no {words!r}"
            pause(0.02)
        return path.read_text()

    def await_other(self, words: str, within: float = 30.0) -> psutil.Process:
        """Wait for a process of the run whose command line contains these words."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for process in self.others():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if words in " ".join(process.cmdline()):
                        return process
            assert self.process.poll() is None, f"nbrun ended first: {self.said()}"
            pause(0.02)
        raise AssertionError(f"there was no process {words!r} within {within:g} s")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to nbrun's whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self, within: float = 60.0) -> int:
        """Wait until it has ended, and return its exit code."""
        self.process.wait(within)
        return self.process.returncode

    def said(self) -> str:
        """Return its complete output."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def report(self) -> dict[str, Any]:
        """Return its JSON result."""
        report: dict[str, Any] = json.loads(self.json_file.read_text())
        return report

    def outcomes(self) -> list[str]:
        """Return the outcome of each cell."""
        return [cell["outcome"] for cell in self.report()["cells"]]


def default_signals() -> None:
    """Let a new process start with default signals: the tests may run under ``nohup`` or as a background job."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def live_nbrun(
    *args: str | Path,
    cwd: Path,
    json_file: Path,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] = default_signals,
    stderr: int = subprocess.PIPE,
) -> Iterator[LiveNbrun]:
    """Start ``nbrun run`` with `args` in a process group of its own; nothing of it is left after the block.

    `before` is called in the new process, whose standard error is `stderr`.
    """
    mark = new_mark()
    # Where it sees that pytest runs it, ipykernel does not collect what child processes write.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    process = subprocess.Popen(
        [sys.executable, "-m", "nbrun", "run", *map(str, args), *forced_options(), "--json", str(json_file)],
        env={**inherited, MARK: mark, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        start_new_session=True,
        preexec_fn=before,  # noqa: PLW1509  (there are no other threads in the tests)
    )
    try:
        yield LiveNbrun(process, mark, json_file)
    finally:
        for left in processes_of(mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        process.kill()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()
