"""Artefacts: files that a notebook writes are collected, linked, published, and downloaded from servers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import OutputArrived
from nbrun.core.results import Outcome
from nbrun.errors import ExitCode, UsageError
from nbrun.publishing.history import RunRecord
from tests.support.notebooks import assert_exit, code, notebook, run_nbrun, write_notebook
from tests.support.servers import RunningServer

WRITES = """
import os
os.makedirs("out", exist_ok=True)
open("out/a b.csv", "w").write("1,2")
late = open("out/late.csv", "w")
late.write("not flushed")
"""
"""The second file is complete when the kernel has ended."""
PATTERN = "out/*.csv"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which scratch folders are made, instead of the one that other tests use too."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    for module in ("nbrun.runner.job", "nbrun.runner.artefacts"):
        monkeypatch.setattr(f"{module}.scratch_parent", lambda: folder)
    return folder


def test_what_a_run_wrote_is_in_the_result_and_linked_from_page_and_index(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.csv").write_text("of yesterday")
    write_notebook(tmp_path / "r.ipynb", notebook(WRITES))
    run = run_nbrun("run", "r.ipynb", "--artefacts", PATTERN, "--json", "-", "--html", "site", cwd=tmp_path)
    assert_exit(run, ExitCode.OK)
    first, late = json.loads(run.stdout)["artefacts"]
    digest = hashlib.sha256(b"1,2").hexdigest()
    assert first == {"path": "out/a b.csv", "file": str(tmp_path / "out" / "a b.csv"), "size": 3, "sha256": digest}
    assert late["sha256"] == hashlib.sha256(b"not flushed").hexdigest()
    assert (tmp_path / "site" / "r_files" / "out" / "late.csv").read_text() == "not flushed"
    for page in ("r.html", "index.html"):
        assert '<a href="r_files/out/a%20b.csv">out/a b.csv</a>' in (tmp_path / "site" / page).read_text()


def test_artefacts_of_a_failed_run_are_published_with_it(tmp_path: Path) -> None:
    failing = notebook(WRITES, "1 / 0")
    failing["metadata"]["nbrun"] = {"artefacts": [PATTERN, "none/"]}
    path = write_notebook(tmp_path / "r.ipynb", failing)
    run = run_nbrun("run", path, "--publish", "base", cwd=tmp_path)
    assert_exit(run, ExitCode.NOTEBOOK_FAILED)
    assert "an artefact is missing: none/: no file matches" in run.stderr
    (folder,) = (tmp_path / "base" / "r").glob("2*")
    assert (folder / "artefacts" / "out" / "late.csv").read_text() == "not flushed"
    assert 'href="artefacts/out/late.csv"' in (folder / "index.html").read_text()
    assert f'href="{folder.name}/artefacts/out/late.csv"' in (tmp_path / "base" / "r" / "index.html").read_text()
    record = RunRecord.decoded((folder / "run.json").read_bytes())
    assert record.notebooks[0].artefacts == ("artefacts/out/a b.csv", "artefacts/out/late.csv")
    assert "artefacts/out/late.csv" in [file.path for file in record.files]


def test_each_run_of_a_matrix_has_a_scratch_folder_of_its_own(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(
        tmp_path / "r.ipynb", notebook(code("n = 0", tags=["parameters"]), "open('n.txt', 'x').write(f'{n}')")
    )
    result = nbrun.run_many(["r.ipynb"], save=False, matrix={"n": [1, 2]}, cwd="@scratch", artefacts=["*.txt"], jobs=2)
    assert result.exit_code == ExitCode.OK, result
    files = [run.artefacts[0].file for run in result.runs]
    assert files == [str(tmp_path / "artefacts" / f"r.ipynb-n-{n}" / "n.txt") for n in (1, 2)]
    assert [Path(file).read_text() for file in files] == ["1", "2"]
    assert [*scratch.iterdir()] == []
    assert not (tmp_path / "n.txt").exists()


def test_runs_in_one_folder_do_not_take_each_others_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run begins when the artefacts of the one before are collected."""
    monkeypatch.chdir(tmp_path)
    cells = (code("n = 0", tags=["parameters"]), "open('n.txt', 'w').write(f'{n}')")
    write_notebook(tmp_path / "r.ipynb", notebook(*cells))
    result = nbrun.run_many(
        ["r.ipynb"], save=False, matrix={"n": [1, 2, 3]}, artefacts=["*.txt"], artefacts_dir="all", jobs=1
    )
    assert result.exit_code == ExitCode.OK, result
    assert [Path(run.artefacts[0].file).read_text() for run in result.runs] == ["1", "2", "3"]


def test_a_scratch_folder_is_within_the_root_of_a_private_server(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_notebook(root / "r.ipynb", notebook(WRITES, "print(os.getcwd())"))
    with nbrun.private_server(root) as server:
        result = server.run("r.ipynb", cwd="@scratch", artefacts=["out/"], artefacts_dir=tmp_path / "kept")
    assert result.exit_code == ExitCode.OK, result
    assert [artefact.path for artefact in result.artefacts] == ["out/a b.csv", "out/late.csv"]
    assert [path.name for path in root.iterdir()] == ["r.ipynb"]


def test_a_passed_run_without_its_artefacts_is_incomplete_and_keeps_its_scratch_folder(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_notebook(tmp_path / "r.ipynb", notebook(WRITES, "open('out/large.csv', 'w').write('x' * 9999)"))
    options: Any = {"cwd": "@scratch", "artefacts": ["out/"], "max_artefacts": "10kB"}
    result = nbrun.run(path, **options)
    assert result.outcome is Outcome.INCOMPLETE
    assert result.notebook.metadata["nbrun"]["run"]["outcome"] == "incomplete"
    assert result.problem is not None
    assert result.problem.message == "an artefact is missing: out/large.csv: beyond --max-artefacts 10 kB"
    (kept,) = scratch.iterdir()
    assert f"kept, because not all artefacts were collected: {kept}" in result.warnings[0]
    assert (kept / "out" / "large.csv").exists()
    result = nbrun.run(path, **{**options, "artefacts": ["none"]}, tolerate_loss=True)
    assert result.outcome is Outcome.PASSED
    assert result.warnings == ("an artefact is missing: none: no file matches",)


def test_artefacts_of_a_stopped_run_are_collected(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "r.ipynb", notebook(WRITES, "import time\nprint('begun')\ntime.sleep(600)"))
    stop = nbrun.StopSwitch()

    def observe(event: object) -> None:
        if isinstance(event, OutputArrived):
            stop.pull("stopped by the test", ExitCode.INTERRUPTED)

    result = nbrun.run(path, save=False, artefacts=[PATTERN], stop=stop, observe=observe)
    assert result.outcome is Outcome.INTERRUPTED
    assert [artefact.path for artefact in result.artefacts] == ["out/a b.csv", "out/late.csv"]


@pytest.mark.parametrize("how", ["upload", "scratch", "there"])
def test_artefacts_are_downloaded_from_a_server_on_which_nothing_is_left(
    how: str, stock_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path if how == "upload" else stock_server.root
    path = write_notebook(folder / "remote.ipynb", notebook(WRITES))
    name = path if how == "upload" else "remote.ipynb"
    options: Any = {"upload": {"upload": True}, "scratch": {"cwd": "@scratch"}, "there": {}}[how]
    result = nbrun.run(
        name, server=stock_server.url, token=stock_server.token, save=False, artefacts=[PATTERN],
        artefacts_dir="here", **options,
    )  # fmt: skip
    assert result.exit_code == ExitCode.OK, result
    assert result.warnings == ()
    assert [artefact.path for artefact in result.artefacts] == ["out/a b.csv", "out/late.csv"]
    assert Path(result.artefacts[1].file).read_text() == "not flushed"
    assert Path(result.artefacts[1].file).is_relative_to(tmp_path / "here")
    assert [*stock_server.root.glob("nbrun-*")] == []


@pytest.mark.parametrize("pattern", ["../x", "/etc/passwd", ""])
def test_a_pattern_that_leads_out_is_refused_before_anything_starts(pattern: str, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "r.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="artefacts"):
        nbrun.run(path, artefacts=[pattern])


def test_a_folder_for_artefacts_that_cannot_be_written_is_found_before_the_run(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "r.ipynb", notebook("1"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--artefacts-dir .*file: this is a file"):
        nbrun.run(path, artefacts=["*"], artefacts_dir=tmp_path / "file")
