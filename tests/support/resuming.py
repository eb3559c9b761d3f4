"""A batch that is killed in the middle and resumed, here or on an engine."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nbrun.errors import ExitCode
from tests.support.notebooks import notebook, run_nbrun, write_notebook
from tests.support.processes import MARK, await_no_process_of, new_mark, processes_of
from tests.support.servers import pause

MARKER = "import os, time\nwith open({marks!r}, 'a') as file:\n    print({number}, file=file)"
HANG = "import time\nwhile not os.path.exists({goes_on!r}):\n    time.sleep(0.1)"
REPORTS = ("--json", "r.json", "--junit", "r.xml")
CALL = ("run", "nb", "-j", "1", "-o", "out", "-p", "x", "1", "--allow-new", *REPORTS)


def write_batch(folder: Path, size: int) -> Path:
    """Write notebooks that leave a mark; one fails, and the first of the second half waits for the file ``goes-on``."""
    for number in range(1, size + 1):
        cells = [MARKER.format(marks=str(folder / "marks"), number=number), f"print('number {number}', x)"]
        cells += ["1/0"] if number == size // 2 - 1 else []
        cells += [HANG.format(goes_on=str(folder / "goes-on"))] if number == size // 2 + 1 else []
        write_notebook(folder / "nb" / f"{number}.ipynb", notebook(*cells))
    return folder


def marks(folder: Path) -> Counter[int]:
    """Return how often each notebook was executed."""
    return Counter(map(int, (folder / "marks").read_text().split()))


def report(folder: Path, name: str) -> str:
    """Return a report without times and folders."""
    times = re.compile(r'(time|timestamp|"started"|"seconds")(=|: )("[^"]*"|[\d.e-]+)')
    return times.sub("TIME", (folder / name).read_text()).replace(str(folder), "")


def check_resumed(
    tmp_path: Path,
    size: int,
    options: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    leaves: bool = False,
    when_killed: Callable[[Path], None] = lambda journal: None,
) -> None:
    """Kill a batch at its half, and resume it: only the rest runs, and the reports are those of a whole batch.

    With `leaves`, other processes may outlive nbrun; they are there while the batch is resumed. `when_killed` is called
    with the journal.
    """
    call, environment = (*CALL, *options), dict(env or {})
    whole = write_batch(tmp_path / "whole", size)
    killed = write_batch(tmp_path / "ended", size)
    (whole / "goes-on").touch()
    assert run_nbrun(*call, cwd=whole, env=environment).returncode == ExitCode.NOTEBOOK_FAILED
    assert not (whole / "out" / ".nbrun-journal.jsonl").exists()
    assert (whole / "marks").read_text().split() == [str(number) for number in range(1, size + 1)]  # in their order

    mark, waiting = new_mark(), size // 2 + 1
    journal = killed / "out" / ".nbrun-journal.jsonl"
    command = [sys.executable, "-m", "nbrun", *call]
    everything = {**os.environ, **environment, MARK: mark}
    try:
        with subprocess.Popen(command, cwd=killed, env=everything, stderr=subprocess.DEVNULL) as process:
            until = time.monotonic() + 90
            while not (journal.exists() and journal.read_bytes().count(b"\n") == waiting and marks(killed)[waiting]):
                assert time.monotonic() < until
                assert process.poll() is None
                pause(0.05)
            process.kill()
        if not leaves:
            await_no_process_of(mark, 20)
        when_killed(journal)
        (killed / "goes-on").touch()
        resumed = run_nbrun(*call, "--resume", cwd=killed, env=environment)
    finally:
        for left in processes_of(mark):
            left.kill()
    assert resumed.returncode == ExitCode.NOTEBOOK_FAILED, resumed.stderr
    assert marks(killed) == {number: 2 if number == waiting else 1 for number in range(1, size + 1)}
    for name in ("r.json", "r.xml"):
        assert report(killed, name) == report(whole, name)
    assert not journal.exists()
