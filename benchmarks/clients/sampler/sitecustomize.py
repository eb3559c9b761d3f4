"""A sampling profiler of every Python process of a command.

``PYTHONPATH`` names this folder, ``BENCHMARK_SAMPLES`` the file for the samples. Every millisecond, the CPU time that
each thread has used since the last sample is assigned to what the thread is doing. The file gets one line for each
process when it begins, and one for each thread and sample, because private servers and kernels are killed at their end.
Only built-in modules are imported, so that the imports of the command are not changed.
"""

import _signal  # type: ignore[import-not-found]
import _thread
import atexit
import os
import sys
import time
from types import FrameType

EVERY, IDLE = 0.001, 0.002
"""Seconds until the next sample, and seconds if no CPU time was used since the last."""

_used: dict[int, int] = {}
"""Nanoseconds of CPU that each thread had used when it was last seen."""


def _thread_cpu(thread: int) -> int:
    return time.clock_gettime_ns(time.pthread_getcpuclockid(thread))


def _describe(frame: FrameType | None) -> str:
    """Return the module that is being imported, or else an empty text, and the innermost function."""
    loading = innermost = ""
    while frame is not None:
        code, module = frame.f_code, str(frame.f_globals.get("__name__", ""))
        if module.startswith("importlib.") or "importlib." in code.co_filename:
            if not loading and code.co_name == "_find_and_load":
                loading = str(frame.f_locals.get("name", ""))
        elif module != __name__:
            innermost = innermost or f"{module}:{code.co_name}"
        frame = frame.f_back
    return f"{loading}\t{innermost}"


def _sample(_: int, frame: FrameType | None) -> None:
    """Write down what the threads did since the last sample; do not count the work of the profiler itself."""
    lines, now, busy = [], time.time(), False
    for thread, top in sys._current_frames().items():  # noqa: SLF001
        try:
            used = _thread_cpu(thread)
        except OSError:
            continue
        spent = used - _used.get(thread, 0)
        if spent > 50_000:
            lines.append(f"{os.getpid()}\t{now:.6f}\t{spent}\t{_describe(frame if thread == _main else top)}\n")
            _used[thread] = used
            busy = True
    if lines:
        os.write(_file, "".join(lines).encode())
    _used[_main] = _thread_cpu(_main)
    _signal.setitimer(_signal.ITIMER_REAL, EVERY if busy else IDLE)


def _begin(how: str) -> None:
    _used.clear()
    _used[_main] = spent = _thread_cpu(_main)
    os.write(_file, f"{os.getpid()}\t{time.time():.6f}\t{spent}\t{how}\t{os.getppid()}\n".encode())
    _signal.signal(_signal.SIGALRM, _sample)
    _signal.setitimer(_signal.ITIMER_REAL, EVERY)


_main = _thread.get_ident()  # the same after a fork
if path := os.environ.get("BENCHMARK_SAMPLES"):
    _file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    _begin("started")
    os.register_at_fork(after_in_child=lambda: _begin("forked"))
    # At its end, the interpreter restores the default action of the signal, which is to end the process.
    atexit.register(_signal.setitimer, _signal.ITIMER_REAL, 0)
