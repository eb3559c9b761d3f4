"""A batch is killed in the middle, and ``--resume`` continues it: no notebook that was delivered runs again."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import notebook, run_nbrun, write_notebook
from tests.support.processes import MARK, await_no_process_of, live_nbrun, new_mark
from tests.support.resuming import MARKER, REPORTS, check_resumed, marks, report, write_batch

SIZE = 8
KEY = {"KEY": "hunter2hunter2"}


def test_a_killed_batch_is_resumed_without_running_a_delivered_notebook_again(tmp_path: Path) -> None:
    def cut_a_line(journal: Path) -> None:
        assert journal.stat().st_mode & 0o777 == 0o600
        assert KEY["KEY"] not in journal.read_text()
        journal.write_bytes(journal.read_bytes() + b'{"run": "nb/5.ipynb", "key": "cut o')

    check_resumed(tmp_path, SIZE, ["--secret", "KEY"], env=KEY, when_killed=cut_a_line)
    assert json.loads((tmp_path / "ended" / "r.json").read_text())["tally"] == {"passed": SIZE - 1, "failed": 1}


def test_a_batch_that_is_running_is_not_resumed_at_the_same_time(tmp_path: Path) -> None:
    write_batch(tmp_path, SIZE)
    with live_nbrun(
        "nb", "-o", "out", "-p", "x", "1", "--allow-new", cwd=tmp_path, json_file=tmp_path / "r.json"
    ) as run:
        run.await_file(tmp_path / "marks", words="5")
        second = run_nbrun("run", "nb", "-o", "out", "-p", "x", "1", "--allow-new", "--resume", cwd=tmp_path)
        assert second.returncode == ExitCode.USAGE
        assert "out/.nbrun-journal.jsonl: another process runs a batch with this journal" in second.stderr
        # Without --resume, another batch may write into the same folder. It has no journal.
        write_notebook(tmp_path / "other.ipynb", notebook("1"))
        other = run_nbrun("run", "other.ipynb", "--matrix", "y=1", "--allow-new", "-o", "out", cwd=tmp_path)
        assert other.returncode == ExitCode.OK, other.stderr
        assert "this batch has none, so --resume cannot continue it" in other.stderr
        (tmp_path / "goes-on").touch()
        assert run.end() == ExitCode.NOTEBOOK_FAILED
    assert set(marks(tmp_path).values()) == {1}
    assert not (tmp_path / "out" / ".nbrun-journal.jsonl").exists()


@pytest.mark.soak
def test_a_batch_killed_at_ten_random_moments_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    moments = random.Random(seed)
    folders = tmp_path / "whole", tmp_path / "ended"
    for folder in folders:
        for number in range(1, 41):
            cells = [MARKER.format(marks=str(folder / "marks"), number=number), f"print({number}, time.sleep(1))"]
            cells += ["1/0"] if number % 7 == 0 else []
            write_notebook(folder / "nb" / f"{number:02}.ipynb", notebook(*cells))
    whole, killed = folders
    call = ("run", "nb", "-j", "2", "-o", "out", "--resume", *REPORTS)
    assert run_nbrun(*call, cwd=whole).returncode == ExitCode.NOTEBOOK_FAILED

    journal = killed / "out" / ".nbrun-journal.jsonl"
    delivered: list[tuple[set[int], Counter[int]]] = []
    for _ in range(10):
        environment = {**os.environ, MARK: new_mark()}
        with subprocess.Popen(
            [sys.executable, "-m", "nbrun", *call], cwd=killed, env=environment, stderr=subprocess.DEVNULL
        ) as process:
            with pytest.raises(subprocess.TimeoutExpired):  # all ten take less time than the batch
                process.wait(moments.uniform(0.3, 4.0))
            process.kill()
        await_no_process_of(environment[MARK], 10)
        if (killed / "marks").exists() and journal.exists():
            found = re.findall(r'"run":"nb/(\d+)\.ipynb".*\n', journal.read_text())
            delivered.append(({*map(int, found)}, marks(killed)))
    assert run_nbrun(*call, cwd=killed).returncode == ExitCode.NOTEBOOK_FAILED
    executed = marks(killed)
    for runs, until_then in delivered:
        assert {run: executed[run] for run in runs} == {run: until_then[run] for run in runs}, seed
    assert sum(executed.values()) <= 40 + 10 * 3, seed  # two runs and a kernel that waits
    assert {*executed} == {*range(1, 41)}
    assert report(killed, "r.json") == report(whole, "r.json"), seed
    assert report(killed, "r.xml") == report(whole, "r.xml"), seed
