"""Measurements include every process that a command started; with real processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.measuring import LEFT_BEHIND, Taken, measure, role_of


def take(script: str, folder: Path, limit: float = 60.0) -> Taken:
    return measure([sys.executable, "-c", script], folder=folder, variables=os.environ, limit=limit)


def test_time_and_memory_of_a_command_and_its_child_are_counted(tmp_path: Path) -> None:
    busy = "import time; full = bytearray(60_000_000)\nwhile time.process_time() < 0.7: pass"
    taken = take(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])", tmp_path)
    assert taken.exit_code == 0
    assert taken.cpu >= 0.7
    assert taken.wall >= 0.7
    assert taken.peak > 60_000_000 > taken.runner_peak > 0


def test_cpu_is_split_by_process(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < {}: pass"
    kernel = [sys.executable, "-c", busy.format(0.5), "ipykernel_launcher"]
    taken = take(f"import subprocess; subprocess.run({kernel!r})\n{busy.format(0.3)}", tmp_path)
    assert taken.parts["kernel"] == pytest.approx(0.5, abs=0.2)
    assert taken.parts["client"] == pytest.approx(0.3, abs=0.1)
    assert taken.parts["server"] == 0.0
    assert sum(taken.parts.values()) <= taken.cpu + 0.02


@pytest.mark.parametrize(
    ("command", "parent", "role"),
    [
        (["python", "bin/papermill", "in.ipynb", "out.ipynb"], "client", "client"),
        (["python", "bin/nbrun", "run", "in.ipynb", "--server", "http://localhost"], "client", "client"),
        (["python", "-m", "ipykernel_launcher", "-f", "kernel.json"], "client", "kernel"),
        (["python", "-m", "jupyter_server", "--port=0"], "client", "server"),
        (["python", "-c", "from nbrun.local_server.process.boot import main"], "client", "server"),
        (["python", "-c", "from nbrun.local_server.process.boot import main"], "server", "kernel"),
        (["sh", "-c", "true"], "kernel", "kernel"),
    ],
)
def test_a_process_is_client_server_or_kernel(command: list[str], parent: str, role: str) -> None:
    assert role_of(command, parent) == role


def test_a_child_that_was_there_before_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as mine:
        began = time.monotonic()
        assert take("pass", tmp_path).exit_code == 0
        assert time.monotonic() - began < LEFT_BEHIND
        assert mine.poll() is None
        mine.communicate(b"\n", timeout=30)
    assert mine.returncode == 0


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    taken = take("import threading; print('here', flush=True); threading.Event().wait()", tmp_path, limit=0.5)
    assert taken.exit_code != 0
    assert "here" in taken.said
