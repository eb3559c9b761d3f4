"""Runs one command and tells what it took: seconds, CPU seconds of everybody involved, bytes at the peak.

CPU is counted by the system, not sampled: the harness adopts what a command leaves behind (on Linux, as its "child
subreaper"), so that kernels and servers that outlive their parents are still waited for, and counted. A server that is
not of the command's making (W7) is counted by the difference of its clocks. Memory is sampled four times a second:
the proportional share (PSS) of all processes where the system tells it, so that pages which forked processes share
count once; for the runner alone its resident set at its highest.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

SAMPLE_EVERY = 0.25
LIMIT = 300.0
"""Seconds that a command may take."""
LEFT_BEHIND = 5.0
"""Seconds that kernels may take to be gone after their runner is."""

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took: seconds, CPU seconds, bytes; its exit code, and the end of what it said."""

    wall: float
    cpu: float
    peak: int
    runner_peak: int
    exit_code: int
    said: str


def adopt_orphans() -> None:
    """Let processes whose parents end become children of this one (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    variables: Mapping[str, str],
    beside: Sequence[psutil.Process] = (),
    limit: float = LIMIT,
) -> Taken:
    """Run `command` in `folder` for at most `limit` seconds; `beside` are servers that work for it.

    What a command leaves running after it is killed, and told in ``said``.
    """
    others = {process.pid for process in psutil.Process().children(recursive=True)}
    before, served = _children_cpu(), _served_cpu(beside)
    with (folder / "said.txt").open("w+b") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        with _Sampler(process.pid, beside) as sampler:
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            wall = time.perf_counter() - began
        left = _await_orphans(others, beside)
        text = Path(said.name).read_text(encoding="utf-8", errors="replace")[-2000:] + left
    cpu = _children_cpu() - before + _served_cpu(beside) - served
    return Taken(wall, cpu, sampler.peak, sampler.runner_peak, process.returncode, text)


class _Sampler:
    """Looks at the memory of a process and all below it until the block ends."""

    def __init__(self, pid: int, beside: Sequence[psutil.Process]) -> None:
        self._root = pid
        self._beside = beside
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak = 0
        self.runner_peak = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_EVERY):
            with contextlib.suppress(psutil.Error, OSError):
                root = psutil.Process(self._root)
                self.runner_peak = max(self.runner_peak, _highest(root))
                family = [root, *root.children(recursive=True), *_with_children(self._beside)]
                self.peak = max(self.peak, sum(_share(process) for process in family))


def _highest(process: psutil.Process) -> int:
    """Return the highest resident set that a process has had, or has now where the system keeps no record."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def _share(process: psutil.Process) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _with_children(roots: Sequence[psutil.Process]) -> Iterator[psutil.Process]:
    for root in roots:
        yield root
        with contextlib.suppress(psutil.Error):
            yield from root.children(recursive=True)


def _await_orphans(others: set[int], beside: Sequence[psutil.Process]) -> str:
    """Wait for everything that the command has left, so that it is counted and out of the next one's way."""
    give_up_at = time.monotonic() + LEFT_BEHIND
    killed: set[str] = set()
    while True:
        not_its = others | {process.pid for process in _with_children(beside)}
        left = [one for one in psutil.Process().children(recursive=True) if one.pid not in not_its]
        if not left:
            return "".join(f"\nleft behind: {name}" for name in sorted(killed))
        for process in left:
            with contextlib.suppress(psutil.Error, ChildProcessError):
                if time.monotonic() > give_up_at and process.status() != psutil.STATUS_ZOMBIE:
                    killed.add(" ".join(process.cmdline())[:200])
                    process.kill()
                os.waitpid(process.pid, os.WNOHANG)
        time.sleep(0.01)


def _children_cpu() -> float:
    import resource  # there is none on Windows

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _served_cpu(beside: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds of servers, their living children, and those that they have waited for."""
    total = 0.0
    for process in _with_children(beside):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            if process in beside:
                total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total
