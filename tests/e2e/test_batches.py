"""A batch as in CI: three notebooks fail in different ways, the others pass, and all reports agree."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import xmlschema

from nbrun.errors import ExitCode
from tests.support.environments import missing
from tests.support.notebooks import Notebook, markdown, notebook, outputs_of, read_notebook, run_nbrun, write_notebook
from tests.support.processes import MARK, new_mark, processes_of

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[2] / "fixtures" / "junit.xsd")
FAILING = {
    "error": ("failed", "x = {}\n\nx['no such key']  # fails here"),
    "timeout": ("timed-out", "import time\ntime.sleep(600)  # fails here"),
    "killed": ("kernel-died", "import os; os.kill(os.getpid(), 9)  # fails here"),
}
"""What comes of a notebook by its name, and the code that does it: a kernel that is killed tells no line."""
REPETITIONS = 20


def good(number: int) -> Notebook:
    return notebook(markdown("# One of many"), f"number = {number}", "print('number', number)")


def write_batch(folder: Path, size: int) -> None:
    """Write `size` notebooks, of which three fail: one at the beginning, one in the middle, one near the end."""
    bad = dict(zip((2, size // 2, size - 2), FAILING, strict=True))
    for number in range(size):
        if name := bad.get(number):
            document = notebook(markdown("# Fails"), "1", FAILING[name][1], "'never'")
            document["cells"][2]["source"] = FAILING[name][1].splitlines(keepends=True)  # as Jupyter writes it
            write_notebook(folder / "nb" / f"{number:03}-{name}.ipynb", document)
        else:
            write_notebook(folder / "nb" / f"{number:03}-good.ipynb", good(number))


def kind(path: str) -> str:
    return Path(path).stem.partition("-")[2]


def check_batch(folder: Path, size: int) -> None:
    """Run the batch, and hold everything that it tells against what it was made of."""
    mark = new_mark()
    (folder / "summary.md").unlink(missing_ok=True)
    (folder / "outputs").unlink(missing_ok=True)
    process = run_nbrun(
        "run", "nb", "-j", "2", "-o", "out", "--cell-timeout", "4s", "--json", "r.json", "--junit", "r.xml", "--github",
        cwd=folder, timeout=280,
        env={
            MARK: mark, "GITHUB_WORKSPACE": str(folder), "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_OUTPUT": str(folder / "outputs"),
        },
    )  # fmt: skip
    assert process.returncode == ExitCode.KERNEL, process.stderr[-4000:]
    assert processes_of(mark) == []

    report = json.loads((folder / "r.json").read_text())
    assert report["tally"] == {"passed": size - 3, "failed": 1, "timed-out": 1, "kernel-died": 1}
    expected = {name: outcome for name, (outcome, _) in FAILING.items()} | {"good": "passed"}
    assert all(run["outcome"] == expected[kind(run["notebook"])] for run in report["runs"])
    for path in (folder / "out" / "nb").iterdir():
        shown = outputs_of(read_notebook(path))
        if kind(path.name) == "good":
            assert shown[1][0]["text"] == f"number {int(path.name[:3])}\n"
        else:
            assert shown[2] == []
    assert len(list((folder / "out" / "nb").iterdir())) == size

    SCHEMA.validate(folder / "r.xml")
    root = ET.parse(folder / "r.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == (str(2 * (size - 3) + 9), "2", "1")
    assert sorted(annotated(process.stdout + process.stderr, folder)) == sorted(FAILING)

    summary = (folder / "summary.md").read_text()
    assert f"## {size} notebooks: 3 did not pass" in summary
    assert summary.count("| ✅ |") == size - 3
    assert summary.count("# fails here") >= 3
    assert f"\n{size - 3}\n" in (folder / "outputs").read_text().partition("passed<<")[2]


def annotated(log: str, folder: Path) -> Iterator[str]:
    """Return what each annotation is of; it stands at the line of the notebook's file where the failing code is."""
    for path, line in re.findall(r"^::error file=([^,]+),line=(\d+),", log, re.MULTILINE):
        text = (folder / path).read_text().splitlines()[int(line) - 1]
        assert "# fails here" in text, (path, line, text)
        yield kind(path)


def test_three_ways_to_fail_are_told_in_every_report(tmp_path: Path) -> None:
    write_batch(tmp_path, 8)
    check_batch(tmp_path, 8)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_sixty_notebooks_come_to_the_same_each_time_and_leave_nothing(tmp_path: Path) -> None:
    write_batch(tmp_path, 60)
    for _ in range(REPETITIONS):
        check_batch(tmp_path, 60)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hundred_notebooks_need_no_more_memory_than_twenty(tmp_path: Path) -> None:
    if sys.platform != "linux":
        missing("the peak of a process's memory in /proc", install="Linux")
    for number in range(200):
        write_notebook(tmp_path / "nb" / f"{number:03}.ipynb", good(number))
    peaks = peaks_of_nbrun(tmp_path)
    assert len(peaks) == 200
    early, late = peaks[19], peaks[199]
    print(f"peak after 20 notebooks {early / 1e6:.1f} MB, after 200 {late / 1e6:.1f} MB")
    assert late <= 1.2 * early


def peaks_of_nbrun(folder: Path) -> list[int]:
    """Run the folder ``nb`` and return, for each notebook that has finished, the most memory nbrun has had, in bytes.

    The system keeps that number (``VmHWM``); the reports that a build asks for are written, too.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "nbrun",
            "run",
            "nb",
            "--in-place",
            "-j",
            "2",
            "--events",
            "-",
            "--junit",
            "r.xml",
            "--json",
            "r.json",
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    peaks = []
    with process:
        for line in process.stdout:
            if json.loads(line)["event"] == "run-finished":
                status = Path(f"/proc/{process.pid}/status").read_text()
                peaks.append(1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]))
    assert process.returncode == ExitCode.OK
    return peaks
