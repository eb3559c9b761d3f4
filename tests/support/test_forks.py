"""A forked call is like a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import psutil
import pytest

from tests.support.forks import ForkServer, exchange
from tests.support.notebooks import inherited, run_module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file descriptors of processes")

STATE = """
import atexit, json, os, signal, sys, threading
state = {
    "arguments": sys.argv, "original": sys.orig_argv, "path": sys.path, "environment": dict(os.environ),
    "folder": os.getcwd(), "umask": os.umask(0), "group": os.getpgid(0), "session": os.getsid(0),
    "signals": {name.name: str(signal.getsignal(name)) for name in signal.valid_signals() if hasattr(name, "name")},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) < 100),
    "streams": [[file.encoding, file.errors, file.isatty(), file.line_buffering, file.name]
                for file in (sys.stdin, sys.stdout, sys.stderr)],
    "main": [__name__, __package__, __file__, sys.modules["__main__"] is sys.modules[__name__]],
    "threads": threading.active_count(), "asked": sys.stdin.read(), "flags": str(sys.flags),
}
print(json.dumps(state))
print("wrong", file=sys.stderr)
atexit.register(print, "the end")
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(sys.argv[1])
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer(inherited())
    yield server
    server.stop()


def test_what_a_module_sees_and_how_it_ends_is_as_in_a_new_process(forks: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "state.py").write_text(STATE)
    stdin = "asked\n" * 50_000  # more than a pipe holds
    before = os.umask(0o027)
    try:
        for end in ("3", "kill"):
            new = run_module("state", end, "ü", cwd=tmp_path, env={"WORD": "ü"}, stdin=stdin)
            forked = forks.run("state", [end, "ü"], {**inherited(), "WORD": "ü"}, tmp_path, 60, stdin)
            assert vars(forked) == vars(new)
    finally:
        os.umask(before)
    assert forked.returncode == -signal.SIGKILL
    assert json.loads(forks.run("state", ["3"], inherited(), tmp_path, 60, "").stdout.splitlines()[0])["asked"] == ""


def test_calls_run_at_the_same_time(forks: ForkServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "reads.py").write_text("print(open('pipe').read())")
    (tmp_path / "writes.py").write_text("open('pipe', 'w').write('met')")
    with ThreadPoolExecutor() as threads:
        reads = threads.submit(forks.run, "reads", [], inherited(), tmp_path, 60, "")
        assert forks.run("writes", [], inherited(), tmp_path, 60, "").returncode == 0
        assert reads.result().stdout == "met\n"


def test_a_call_is_killed_at_its_time_limit(forks: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import threading\nthreading.Event().wait()")
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run("hangs", [], inherited(), tmp_path, 0.2, "x" * 1_000_000)
    (tmp_path / "fine.py").write_text("print('fine')")
    assert forks.run("fine", [], inherited(), tmp_path, 60, "").stdout == "fine\n"
    assert psutil.Process(forks.pid).children() == []


def test_a_call_that_is_killed_shows_what_it_has_printed() -> None:
    (theirs, stdin), (stdout, out), (stderr, err) = os.pipe(), os.pipe(), os.pipe()
    os.write(out, b"out\r\n")
    os.write(err, b"err\n")
    with FileIO(stdin, "w") as given, FileIO(stdout) as first, FileIO(stderr) as second:
        with pytest.raises(TimeoutError) as raised:
            exchange(b"", given, first, second, deadline=time.monotonic())
        assert raised.value.args == ("out\n", "err\n")
    for descriptor in (theirs, out, err):
        os.close(descriptor)


@pytest.mark.parametrize("name", ["PYTHONPATH", "LC_ALL", "PYTHONINSPECT"])
def test_a_variable_that_is_read_at_the_start_needs_a_new_process(name: str, forks: ForkServer) -> None:
    assert forks.takes({**inherited(), "NBRUN_TOKEN": "x", "HOME": "/nowhere"})
    assert not forks.takes({**inherited(), name: "x"})
