"""Typical mistakes and their messages, as one table. Each message names the right option or command.

All run in this process and start nothing. Mistakes that only a server notices are in tests/e2e/test_mistakes.py.
"""

import base64
import json
import re
import sys
from pathlib import Path

import pytest

from nbrun.cli import main, mistakes
from nbrun.cli.run import command as run
from nbrun.errors import ExitCode
from tests.support.notebooks import code, notebook, write_notebook

DECLARED = 'region = "EU"\nlimit: int = 5\nnames: list[str] = []\nflag: bool = False\nopt: int | None = None'
OLD = {"nbformat": 9, "nbformat_minor": 0, "metadata": {}, "cells": []}

MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    # commands
    "a notebook and no command": ("report.ipynb -p limit 3", ("nbrun run report.ipynb -p limit 3",)),
    "a folder and no command": ("sub", ("nbrun run sub",)),
    "a pattern and no command": ("sub/*.ipynb", ("nbrun run sub/*.ipynb",)),
    "a misspelt command": ("rum report.ipynb", ("'rum'", "nbrun run")),
    "papermill's name": ("papermill report.ipynb", ("nbrun run",)),
    "execute": ("execute report.ipynb", ("nbrun run",)),
    "help as a command": ("help", ("nbrun --help",)),
    "an unknown command": ("xyzzy", ("run, batch, merge, plan, schedule, publish, doctor",)),
    "a malformed URL of parameters": ("plan report.ipynb -f https://[x]/p.yaml", ("-f https://[x]/p.yaml", "host")),
    "a malformed URL to publish": ("publish https://[x]/a", ("https://[x]/a", "host")),
    "options before the command": ("--server http://h:1 run report.ipynb", ("nbrun run --server",)),
    "no notebook": ("run", ("nbrun run report.ipynb",)),
    "an option of another command": ("plan report.ipynb --junit x.xml", ("nbrun run",)),
    # options of peers
    "papermill --log-level": ("run report.ipynb --log-level ERROR", ("-q", "--log-output", "--events")),
    "papermill --engine": ("run report.ipynb --engine x", ("-k NAME", "--server URL")),
    "papermill --no-request-save": ("run report.ipynb --no-request-save-on-cell-execute", ("--save-every never",)),
    "papermill --request-save": ("run report.ipynb --request-save-on-cell-execute", ("--save-every",)),
    "nbconvert --to": ("run report.ipynb --to html", ("--html", "jupyter nbconvert")),
    "nbconvert --inplace": ("run report.ipynb --inplace", ("--in-place",)),
    "nbconvert --output-dir": ("run report.ipynb --output-dir x", ("-o DIR/",)),
    "nbconvert --stdout": ("run report.ipynb --stdout", ("-o -",)),
    "nbconvert trait": ("run report.ipynb --ExecutePreprocessor.timeout=60", ("--cell-timeout",)),
    "jupyter trait": ("run report.ipynb --ServerApp.root_dir=x", ("nbrun run --help",)),
    "jupyter execute --kernel_name": ("run report.ipynb --kernel_name=ir", ("-k NAME",)),
    "nbmake --overwrite": ("run report.ipynb --overwrite", ("--in-place",)),
    "nbmake --nbmake-timeout": ("run report.ipynb --nbmake-timeout=3", ("--cell-timeout",)),
    "pytest -n": ("run report.ipynb -n 4", ("-j N",)),
    "pytest -x": ("run report.ipynb -x", ("--fail-fast",)),
    "pytest --junitxml": ("run report.ipynb --junitxml=o.xml", ("--junit FILE",)),
    "a token on the command line": ("run report.ipynb --token abc", ("NBRUN_TOKEN", "--token-file")),
    "--dry-run": ("run report.ipynb --dry-run", ("nbrun plan", "--prepare-only")),
    "a misspelt option": ("run report.ipynb --cel-timeout 3", ("--cell-timeout",)),
    "an unknown option": ("run report.ipynb --xyzzy", ("nbrun run --help",)),
    # parameters
    "-p region=US at the end": ("run report.ipynb -p region=US", ("-p region US",)),
    "-p region=US first": ("run -p region=US report.ipynb", ("-p region US",)),
    "-p region=US before an option": ("run report.ipynb -p region=US -o out.ipynb", ("-p region US",)),
    "-r region=US": ("plan report.ipynb -r region=US x", ("-r region US",)),
    "-p without a value": ("run report.ipynb -p region", ("-p region VALUE",)),
    "a misspelt parameter": ("plan report.ipynb -p regoin US", ("'region'", "--allow-new")),
    "text for a number": ("plan report.ipynb -p limit many", ("'limit'", "int")),
    "a number for text": ("plan report.ipynb -p region 5", ("-r region",)),
    "a list with -p": ("plan report.ipynb -p names [1,2]", ("-y 'names: [1,2]'",)),
    "true for a boolean": ("plan report.ipynb -p flag true", ("-p flag True",)),
    "no for a boolean": ("plan report.ipynb -p flag no", ("-p flag False",)),
    "null for None": ("plan report.ipynb -p opt null", ("-p opt None",)),
    "a reserved word": ("plan report.ipynb -p class 5 --allow-new", ("'class'", "class_value")),
    "no name": ("plan report.ipynb -p 1a 5 --allow-new", ("'1a'", "digit")),
    "a file with -y": ("plan report.ipynb -y values.yaml", ("-f values.yaml",)),
    "a text with -f": ("plan report.ipynb -f region:", ("-y",)),
    "a list in a file": ("plan report.ipynb -f list.yaml", ("NAME: VALUE",)),
    "comments in JSON": ("plan report.ipynb -f comment.json", ("JSON has no comments", ".yaml")),
    "no base64": ("plan report.ipynb -b region:US", ("-y",)),
    "a secret that is not set": ("plan report.ipynb --secret NBRUN_NOT_SET", ("NBRUN_NOT_SET", "environment")),
    "a matrix without values": ("run report.ipynb --no-save --matrix region", ("--matrix region=EU,US",)),
    # files
    "a misspelt notebook": ("run reprot.ipynb", ("report.ipynb",)),
    "a notebook without its suffix": ("run report --no-save", ("report.ipynb",)),
    "a notebook that is not there": ("plan missing.ipynb", ("--server URL",)),
    "a Python script": ("run script.py --prepare-only", ("jupytext --to ipynb", "script.py")),
    "a script among notebooks": ("run report.ipynb script.py -o out/ --prepare-only", ("jupytext --to ipynb",)),
    "Markdown": ("plan notes.md", ("jupytext --to ipynb", "notes.md")),
    "Quarto": ("plan page.qmd", ("quarto convert",)),
    "a file of parameters": ("plan values.yaml", ("-f values.yaml",)),
    "text": ("plan notes.txt", ("NOTEBOOK.ipynb",)),
    "JSON that is no notebook": ("plan values.json", ("-f FILE",)),
    "a newer format": ("plan newer.ipynb", ("nbformat 9", "nbformat 4")),
    "a folder as a notebook": ("plan sub", ("notebook in it",)),
    # values of options
    "a wrong duration": ("run report.ipynb --timeout soon", ("5m",)),
    "a wrong number of jobs": ("run report.ipynb -j many", ("auto",)),
    "a wrong shard": ("run sub --no-save --shard 3/2", ("--shard 1/3",)),
    "a wrong size": ("run report.ipynb --max-output big", ("50MB",)),
    "--upload without a server": ("run report.ipynb --upload", ("--server",)),
    "--cwd that is not there": ("run report.ipynb --cwd nowhere", ("nowhere",)),
    "a server without a scheme": ("plan report.ipynb --server hub.example.org", ("https://hub.example.org/",)),
    "a path that leads upwards": ("plan ../up.ipynb --server http://127.0.0.1:9", ("--upload", "../up.ipynb")),
    # settings
    "a batch that is not there": ("batch nightly", ("[tool.nbrun.batch.NAME]",)),
    "[tool.nbrun] in nbrun.toml": ("run report.ipynb --config wrong/nbrun.toml", ("[tool.nbrun]", "at the top")),
    "a pyproject without settings": ("run report.ipynb --config empty/pyproject.toml", ("[tool.nbrun]",)),
    "a misspelt setting": ("run report.ipynb --config typo/nbrun.toml", ("cell-timeout", "line 1")),
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what people have in one, current."""
    folder = tmp_path / "here"
    write_notebook(folder / "report.ipynb", notebook(code(DECLARED, tags=["parameters"]), "print(region)"))
    write_notebook(folder / "sub" / "a.ipynb", notebook("1"))
    files = {
        "script.py": "print(1)\n", "notes.md": "# Notes\n", "page.qmd": "---\n", "notes.txt": "hello\n",
        "values.yaml": "region: US\n", "list.yaml": "- 1\n", "values.json": '{"region": "US"}',
        "comment.json": '// x\n{"region": "US"}', "newer.ipynb": json.dumps(OLD), "../up.ipynb": "{}",
        "wrong/nbrun.toml": "[tool.nbrun]\njobs = 2\n", "empty/pyproject.toml": "[project]\nname = 'x'\n",
        "typo/nbrun.toml": "cell-timout = 3\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder


def say(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Call nbrun in this process; return the exit code and what it said."""
    monkeypatch.setattr(sys, "argv", ["nbrun", *line.split(" ")] if line else ["nbrun"])
    ended = main._exit_code()
    said = capsys.readouterr()
    return ended, said.out + said.err


@pytest.mark.parametrize(("line", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_typical_mistake_is_told_with_what_to_type_instead(
    line: str,
    words: tuple[str, ...],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    ended, said = say(line, monkeypatch, capsys)
    assert ended == ExitCode.USAGE, said
    for word in words:
        assert word in said
    assert_is_for_people(said)
    assert {path: path.read_bytes() for path in before} == before


def assert_is_for_people(said: str) -> None:
    assert "Traceback" not in said
    assert not re.search(r"\bbug\b", said)
    assert not re.search(r"https?://\S*/api\b", said)
    assert not re.search(r"\b[A-Z]\w+Error\b", said)
    assert len(said) < 1500


def test_the_table_has_what_was_promised() -> None:
    assert len(MISTAKES) >= 40


def test_every_option_in_a_hint_is_one_of_nbrun() -> None:
    known = {name for option in run.params for name in (*option.opts, *option.secondary_opts)}
    foreign = {"--help", "--version", "--nbrun"}
    for option, hint in {**mistakes.OPTIONS, **mistakes.TRAITS}.items():
        named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", hint))
        assert named <= known | foreign, option
        assert option not in known, f"{option} is an option of nbrun"


def test_a_list_as_text_stays_legal_where_no_type_says_otherwise(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, said = say("plan report.ipynb -p region [1,2]", monkeypatch, capsys)
    assert ended == ExitCode.OK
    assert '"[1,2]"' in said


def test_a_right_call_in_base64_is_understood(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = base64.b64encode(b"region: US").decode()
    assert say(f"plan report.ipynb -b {text}", monkeypatch, capsys)[0] == ExitCode.OK
