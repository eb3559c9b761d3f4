"""Compatibility with papermill: the same options make the same notebook."""

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support.environments import Environment, environment
from tests.support.notebooks import (
    Notebook,
    assert_exit,
    code,
    markdown,
    notebook,
    outputs_of,
    read_notebook,
    run_nbrun,
    write_notebook,
)
from tests.support.servers import python_path

OPTIONS = (
    "-b", "YjY0OiBmcm9tIGJhc2U2NApsYXN0OiBiNjQ=",
    "-f", "values.yaml",
    "-y", "{yaml: [1, 2.5, null, {a: true}], day: 2026-01-02, last: yaml}",
    "-p", "number", "7", "-p", "real", "1e3", "-p", "flag", "True", "-p", "nothing", "None",
    "-p", "word", "it's \"so\"",
    "--parameters", "last", "typed",
    "-r", "raw", "0123", "--parameters_raw", "last", "raw",
    "--inject-input-path",
)  # fmt: skip
DECLARING = code(
    "b64 = yaml = day = number = real = flag = nothing = word = raw = file = last = None", tags=["parameters"]
)
SHOWING = "print(b64, yaml, day, number, real, flag, nothing, word, raw, file, last, PAPERMILL_INPUT_PATH)"


@pytest.fixture(scope="module")
def papermill() -> Environment:
    """An environment with papermill in it."""
    return environment("papermill")


def by_papermill(papermill: Environment, folder: Path, *arguments: str) -> Notebook:
    command = [str(papermill.python), "-m", "papermill", "in.ipynb", "papermill.ipynb", *arguments, "--no-progress-bar"]
    env = {**os.environ, **python_path()}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=200, stdin=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr
    return read_notebook(folder / "papermill.ipynb")


def by_nbrun(folder: Path, *arguments: str, source: str = "in.ipynb") -> Notebook:
    process = run_nbrun("run", source, "-o", "nbrun.ipynb", *arguments, cwd=folder)
    assert_exit(process, ExitCode.OK)
    return read_notebook(folder / "nbrun.ipynb")


def assignments(source: str) -> dict[str, Any]:
    """Return what a cell assigns, whatever its spelling."""
    statements = [each for each in ast.parse(source).body if isinstance(each, ast.Assign)]
    return {ast.unparse(each.targets[0]): ast.literal_eval(each.value) for each in statements}


def test_both_make_the_same_notebook_of_the_same_options(papermill: Environment, tmp_path: Path) -> None:
    write_notebook(tmp_path / "in.ipynb", notebook(markdown("# Both"), DECLARING, SHOWING))
    (tmp_path / "values.yaml").write_text("file: 'from: file'\nlast: file\n")

    theirs = by_papermill(papermill, tmp_path, *OPTIONS)
    ours = by_nbrun(tmp_path, *OPTIONS, "--allow-new")

    assert [cell["metadata"].get("tags", []) for cell in ours["cells"]] == [
        cell["metadata"].get("tags", []) for cell in theirs["cells"]
    ]
    assert ours["cells"][2]["source"] == theirs["cells"][2]["source"].rstrip("\n")
    assert assignments(ours["cells"][2]["source"]) == assignments(theirs["cells"][2]["source"])
    assert ours["cells"][3]["outputs"] == theirs["cells"][3]["outputs"]
    assert ours["metadata"]["nbrun"]["run"]["parameters"] == theirs["metadata"]["papermill"]["parameters"]

    again = write_notebook(tmp_path / "again.ipynb", theirs)
    rerun = by_nbrun(tmp_path, "-p", "number", "8", "--inject-input-path", "--allow-new", source=again.name)
    assert [cell["metadata"].get("tags", []) for cell in rerun["cells"]] == [
        cell["metadata"].get("tags", []) for cell in theirs["cells"]
    ]
    assert rerun["cells"][2]["source"] == '# Parameters\nPAPERMILL_INPUT_PATH = "again.ipynb"\nnumber = 8'
    assert rerun["cells"][2]["id"] == theirs["cells"][2]["id"]
    assert rerun["metadata"]["papermill"] == theirs["metadata"]["papermill"]


def test_without_a_parameters_cell_both_put_them_at_the_top(papermill: Environment, tmp_path: Path) -> None:
    write_notebook(tmp_path / "in.ipynb", notebook("print(a)"))
    theirs = by_papermill(papermill, tmp_path, "-p", "a", "x\u00e9")
    ours = by_nbrun(tmp_path, "-p", "a", "x\u00e9", "--json", "result.json")
    assert [assignments(each["cells"][0]["source"]) for each in (ours, theirs)] == [{"a": "x\u00e9"}] * 2
    assert outputs_of(ours) == outputs_of(theirs)
    (warning,) = json.loads((tmp_path / "result.json").read_text())["warnings"]
    assert "no cell is tagged 'parameters'" in warning


def test_both_prepare_the_same_report(papermill: Environment, tmp_path: Path) -> None:
    write_notebook(tmp_path / "in.ipynb", notebook(markdown("# Both"), DECLARING, SHOWING))
    options = ("-p", "number", "7", "-r", "raw", "0123", "--prepare-only", "--report-mode")
    theirs = by_papermill(papermill, tmp_path, *options)
    ours = by_nbrun(tmp_path, *options, "--allow-new")
    for cells in zip(ours["cells"], theirs["cells"], strict=True):
        mine, yours = ((each["source"].rstrip("\n"), each["metadata"].get("jupyter")) for each in cells)
        assert mine == yours
    assert outputs_of(ours) == outputs_of(theirs) == [[], [], []]


def test_both_work_in_the_named_folder_and_write_the_same_streams(papermill: Environment, tmp_path: Path) -> None:
    tell = "import os, sys\nprint(os.getcwd())\nprint('to stderr', file=sys.stderr)"
    write_notebook(tmp_path / "in.ipynb", notebook(tell, "print('more')"))
    (tmp_path / "work").mkdir()
    files = [tmp_path / "out.txt", tmp_path / "err.txt"]  # from the root: papermill opens them in the folder of --cwd
    options = ("--cwd", "work", "--stdout-file", str(files[0]), "--stderr-file", str(files[1]))
    by_papermill(papermill, tmp_path, *options)
    theirs = [file.read_text() for file in files]
    by_nbrun(tmp_path, *options)
    assert [file.read_text() for file in files] == theirs == [f"{tmp_path / 'work'}\nmore\n", "to stderr\n"]
