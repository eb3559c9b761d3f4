"""Invalid calls end with exit code 2 and one clear message, and change no file."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import FIXTURES, assert_exit, notebook, run_nbrun, write_notebook

BROKEN = {
    "not_json": "JSON",
    "empty_file": "empty",
    "truncated": "JSON",
    "byte_order_mark": "byte order mark",
    "latin_1": "UTF-8",
    "merge_conflict": "conflict",
    "nbformat_5": "5",
    "no_notebook": "notebook",
    "json_array": "notebook",
    "cells_not_a_list": "cells",
}
"""Each broken fixture with a word that a message about it, apart from the path, cannot well do without."""


def assert_refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that the call was refused as wrong, shortly and to the point."""
    assert_exit(run, ExitCode.USAGE)
    assert "Traceback" not in run.stdout + run.stderr
    assert 1 <= len(run.stderr.strip().splitlines()) <= 6, run.stderr
    assert not re.search(r"\w+Error\b", run.stderr), f"the name of an exception tells a user nothing: {run.stderr}"
    for word in words:
        assert word.casefold() in run.stderr.casefold(), run.stderr


@pytest.mark.parametrize(("name", "word"), BROKEN.items(), ids=[name.replace("_", " ") for name in BROKEN])
def test_a_file_that_is_no_notebook_is_refused(name: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.ipynb"
    shutil.copy(FIXTURES / "broken" / path.name, path)

    run = run_nbrun("run", path, cwd=tmp_path)

    assert_refused(run, path.name)
    message = run.stderr.replace(str(path), "").replace(path.name, "")
    assert word.casefold() in message.casefold(), message
    assert path.read_bytes() == (FIXTURES / "broken" / path.name).read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_every_broken_fixture_has_its_word() -> None:
    assert {path.stem for path in (FIXTURES / "broken").iterdir()} == BROKEN.keys() | {"directory"}


def test_a_broken_notebook_is_refused_with_an_output_file_too(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert_refused(run_nbrun("run", FIXTURES / "broken" / "not_json.ipynb", "-o", output), "not_json.ipynb")
    assert not output.exists()


def test_a_notebook_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(run_nbrun("run", "missing.ipynb", cwd=tmp_path), "missing.ipynb")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_named_like_a_notebook_is_searched_like_any_other(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIXTURES / "broken" / "directory.ipynb", tmp_path / "directory.ipynb"))
    found = run_nbrun("run", folder, "--in-place")
    assert found.returncode == ExitCode.NOTHING_TO_RUN
    assert "no notebook matches" in found.stderr
    assert "directory.ipynb" in found.stderr
    assert [path.name for path in folder.iterdir()] == ["keep.txt"]


def test_a_kernel_that_nobody_has_is_refused_naming_those_there_are(tmp_path: Path) -> None:
    path = Path(shutil.copy(FIXTURES / "unknown_kernel.ipynb", tmp_path))

    assert_refused(run_nbrun("run", path), "unknown_kernel.ipynb", "no-such-kernel", "python3")

    assert path.read_bytes() == (FIXTURES / "unknown_kernel.ipynb").read_bytes()


@pytest.mark.parametrize("value", ["nonsense", "-1", ""], ids=["a word", "below zero", "nothing"])
def test_a_cell_timeout_that_is_no_duration_is_refused(value: str, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "good.ipynb", notebook("1 + 1"))
    before = path.read_bytes()

    assert_refused(run_nbrun("run", path, f"--cell-timeout={value}"), "--cell-timeout")

    assert path.read_bytes() == before
