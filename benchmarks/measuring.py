"""Runs one command and measures it: seconds, CPU seconds of all processes involved, bytes at the peak.

The sum of CPU is counted by the system, not sampled: the harness adopts what a command leaves behind (on Linux, as its
"child subreaper"), so that kernels and servers that outlive their parents are still waited for, and counted. A server
that is not of the command's making (W7) is counted by the difference of its clocks.

The split of CPU into client, server and kernel is sampled 25 times a second: the last value that was read of each
process counts. So each process can lack what it used after its last sample, at most 0.04 s, and a process that lived
between two samples lacks everything. The parts add up to the sum or less. The runner itself and what outlives it are
read once more when they have ended. Without ``/proc/PID/task/TID/children`` samples are taken four times a second.

Memory is sampled four times a second: the proportional share (PSS) of all processes where the system reports it, so
that pages which forked processes share count once; for the runner alone its resident set at its highest. The highest
resident set and the open files of the largest process of each role are read as often as the CPU times.
"""

import contextlib
import ctypes
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

MEMORY_EVERY = 0.25
CPU_EVERY = 0.04
"""Seconds between two samples of the CPU times; a sample of three processes takes about half a millisecond."""
LIMIT = 300.0
"""Seconds that a command may take."""
LEFT_BEHIND = 5.0
"""Seconds that kernels may take to be gone after their runner is."""

CLIENT, SERVER, KERNEL = ROLES = ("client", "server", "kernel")
_IS_SERVER = re.compile(r"\b(jupyter_server|local_server|private_server)\b")

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took: seconds, CPU seconds, bytes; its exit code, and the end of its output."""

    wall: float
    cpu: float
    peak: int
    runner_peak: int
    exit_code: int
    said: str
    parts: Mapping[str, float] = field(default_factory=dict)
    """CPU seconds of each role, as far as they were sampled."""
    peaks: Mapping[str, int] = field(default_factory=dict)
    """The highest resident set, in bytes, of the largest process of each role."""
    files: Mapping[str, int] = field(default_factory=dict)
    """The most file descriptors that a process of each role had open (Linux)."""


def role_of(command: Sequence[str], parent: str) -> str:
    """Return the role of a process, from its command and the role of its parent.

    A kernel is what a server starts, or a process of ipykernel. What a kernel starts belongs to it.

    >>> role_of(["python", "-m", "ipykernel_launcher", "-f", "kernel.json"], "client")
    'kernel'
    """
    if parent in (SERVER, KERNEL):
        return KERNEL
    line = " ".join(command)
    if "ipykernel" in line:
        return KERNEL
    return SERVER if _IS_SERVER.search(line) else CLIENT


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
            if not _has_ended(process, limit):
                process.kill()
                _has_ended(process, LEFT_BEHIND)
            wall = time.perf_counter() - began
        process.wait()
        left = _await_orphans(others, beside, sampler)
        text = Path(said.name).read_text(encoding="utf-8", errors="replace")[-2000:] + left
    cpu = _children_cpu() - before + _served_cpu(beside) - served
    peaks = sampler.most(lambda one: one.highest)
    files = sampler.most(lambda one: one.files)
    return Taken(wall, cpu, sampler.peak, sampler.runner_peak, process.returncode, text, sampler.parts(), peaks, files)


def _has_ended(process: "subprocess.Popen[bytes]", limit: float) -> bool:
    """Wait for the end of a process and return whether it came in time; on Linux, its times can still be read then."""
    if not hasattr(os, "pidfd_open"):
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return False
        return True
    # Popen.wait looks every 0.05 s only, and reaps the process before the sampler's last look.
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(limit * 1000))
    finally:
        os.close(descriptor)


@dataclass(slots=True, eq=False)
class _Seen:
    """A process of the measured command: its role, its CPU seconds as last read, the most bytes and open files."""

    process: psutil.Process
    role: str
    start: float = 0.0
    cpu: float = 0.0
    highest: int = 0
    files: int = 0

    def read(self) -> None:
        """Read the CPU seconds, memory and open files; those of a process that has gone stay."""
        with contextlib.suppress(psutil.Error, OSError):
            self.cpu = _own_cpu(self.process)
            self.highest = max(self.highest, _highest(self.process))
            self.files = max(self.files, len(os.listdir(f"/proc/{self.process.pid}/fd")))  # noqa: PTH208 - often


class _Sampler:
    """Looks at the CPU and the memory of a process and all below it until the block ends."""

    def __init__(self, pid: int, beside: Sequence[psutil.Process]) -> None:
        self._root = _Seen(psutil.Process(pid), CLIENT)
        self._beside = [_Seen(one, SERVER, _own_cpu(one)) for one in beside]
        self._seen = {one.process.pid: one for one in (self._root, *self._beside)}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._read_all()

    def note(self, process: psutil.Process) -> None:
        """Read the times of a process that outlived the runner, before it is waited for."""
        one = self._seen.get(process.pid)
        if one is None:
            with contextlib.suppress(psutil.Error):
                one = self._seen[process.pid] = _Seen(process, role_of(process.cmdline(), CLIENT))
        if one is not None:
            one.read()

    @property
    def runner_peak(self) -> int:
        """Return the highest resident set of the command's own process."""
        return self._root.highest

    def parts(self) -> dict[str, float]:
        """Return the CPU seconds of each role."""
        return {
            role: sum(max(0.0, one.cpu - one.start) for one in self._seen.values() if one.role == role)
            for role in ROLES
        }

    def most(self, value: Callable[[_Seen], int]) -> dict[str, int]:
        """Return the largest value of a process of each role."""
        return {role: max((value(one) for one in self._seen.values() if one.role == role), default=0) for role in ROLES}

    def _look(self) -> None:
        every = CPU_EVERY if _has_children_files() else MEMORY_EVERY
        memory_at = time.monotonic() + MEMORY_EVERY
        while not self._over.wait(every):
            family = self._read_all()
            if time.monotonic() >= memory_at:
                memory_at += MEMORY_EVERY
                with contextlib.suppress(psutil.Error, OSError):
                    self.peak = max(self.peak, sum(_share(one.process) for one in family))

    def _read_all(self) -> list[_Seen]:
        """Find the processes that there are now, and read the times of each."""
        family, at = [self._root, *self._beside], 0
        while at < len(family):
            parent = family[at]
            at += 1
            for pid in _children_of(parent.process):
                known = self._seen.get(pid)
                with contextlib.suppress(psutil.Error, OSError):
                    if known is None:
                        known = self._seen[pid] = _Seen(psutil.Process(pid), CLIENT)
                    if known.role == CLIENT:  # again: between fork and exec it has the command of its parent
                        known.role = role_of(known.process.cmdline(), parent.role)
                if known is not None and known not in family:
                    family.append(known)
        for one in family:
            one.read()
        return family


def _has_children_files() -> bool:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()


def _children_of(process: psutil.Process) -> list[int]:
    """Return the process ids of the children; from the kernel's own list where there is one, which is much faster."""
    if not _has_children_files():
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in process.children()]
        return []
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def _own_cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


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


def _await_orphans(others: set[int], beside: Sequence[psutil.Process], sampler: _Sampler) -> str:
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
                sampler.note(process)
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
