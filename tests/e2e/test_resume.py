"""A batch is killed in the middle, and ``--resume`` continues it: no notebook that was delivered runs again."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from nbrun.errors import ExitCode
from tests.support.notebooks import notebook, run_nbrun, write_notebook
from tests.support.processes import MARK, new_mark, processes_of

SIZE = 8
MARKER = "import os, time\nwith open({marks!r}, 'a') as file:\n    print({number}, file=file)"
HANG = "while not os.path.exists({goes_on!r}):\n    time.sleep(0.1)"
REPORTS = ("--json", "r.json", "--junit", "r.xml")
CALL = ("run", "nb", "-j", "1", "-o", "out", "-p", "x", "1", "--allow-new", "--secret", "KEY", *REPORTS)
KEY = {"KEY": "hunter2hunter2"}


def write_batch(folder: Path) -> Path:
    """Write eight notebooks that leave a mark; the third fails, and the fifth waits for the file ``goes-on``."""
    for number in range(1, SIZE + 1):
        cells = [MARKER.format(marks=str(folder / "marks"), number=number), f"print('number {number}', x)"]
        cells += ["1/0"] if number == 3 else []
        cells += [HANG.format(goes_on=str(folder / "goes-on"))] if number == 5 else []
        write_notebook(folder / "nb" / f"{number}.ipynb", notebook(*cells))
    return folder


def marks(folder: Path) -> Counter[int]:
    return Counter(map(int, (folder / "marks").read_text().split()))


def report(folder: Path, name: str) -> str:
    times = re.compile(r'(time|timestamp|"started"|"seconds")(=|: )("[^"]*"|[\d.]+)')
    return times.sub("TIME", (folder / name).read_text()).replace(str(folder), "")


def test_a_killed_batch_is_resumed_without_running_a_delivered_notebook_again(tmp_path: Path) -> None:
    whole, killed = (
        write_batch(tmp_path / "whole"),
        write_batch(tmp_path / "ended"),
    )  # same length: reports cut long lines
    (whole / "goes-on").touch()
    assert run_nbrun(*CALL, cwd=whole, env=KEY).returncode == ExitCode.NOTEBOOK_FAILED
    assert not (whole / "out" / ".nbrun-journal.jsonl").exists()
    assert (whole / "marks").read_text().split() == [str(number) for number in range(1, SIZE + 1)]  # in their order

    mark = new_mark()
    journal = killed / "out" / ".nbrun-journal.jsonl"
    environment = {**os.environ, **KEY, MARK: mark}
    command = [sys.executable, "-m", "nbrun", *CALL]
    with subprocess.Popen(command, cwd=killed, env=environment, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 90
        while not (journal.exists() and journal.read_bytes().count(b"\n") == 5 and marks(killed)[5]):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    while processes_of(mark):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert journal.stat().st_mode & 0o777 == 0o600
    assert KEY["KEY"] not in journal.read_text()
    journal.write_bytes(journal.read_bytes() + b'{"run": "nb/5.ipynb", "key": "cut o')

    (killed / "goes-on").touch()
    resumed = run_nbrun(*CALL, "--resume", cwd=killed, env=KEY)
    assert resumed.returncode == ExitCode.NOTEBOOK_FAILED, resumed.stderr
    assert marks(killed) == {number: 2 if number == 5 else 1 for number in range(1, SIZE + 1)}
    assert report(killed, "r.json") == report(whole, "r.json")
    assert report(killed, "r.xml") == report(whole, "r.xml")
    assert not journal.exists()
    assert json.loads((killed / "r.json").read_text())["tally"] == {"passed": SIZE - 1, "failed": 1}
