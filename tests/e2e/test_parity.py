"""nbrun and ``jupyter execute`` make the same notebook.

nbclient talks to the kernel itself where nbrun goes through a Jupyter server, so whatever the way over HTTP and
websocket loses, doubles or bends shows here. Where the two differ on purpose, ``KNOWN_DIFFERENCES`` says why.
"""

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from nbclient.cli import NbClientApp

import nbrun
from nbrun.cli.main import cli
from nbrun.errors import ExitCode
from tests.support.notebooks import (
    FIXTURES,
    Notebook,
    comparable,
    outputs_of,
    read_notebook,
)
from tests.support.servers import python_path


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference there ought to be.

    `settle` is given nbclient's notebook and nbrun's: it checks nbrun's, and makes nbclient's like it in this alone.
    """

    reason: str
    settle: Callable[[Notebook, Notebook], None]


def stale_outputs_go(theirs: Notebook, ours: Notebook) -> None:
    """Clear the code cells of nbclient's that have nothing to run."""
    for cell in theirs["cells"]:
        if cell["cell_type"] == "code" and not cell["source"].strip():
            assert cell["outputs"] or cell["execution_count"] is None
            cell |= {"outputs": [], "execution_count": None}


def fresh_ids(theirs: Notebook, ours: Notebook) -> None:
    """Take nbrun's new ids for nbclient's new ones; ids the file had are compared all the same."""
    had = {"cell-1", "same", "other", "kept"}
    ids = [cell["id"] for cell in ours["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    for their_cell, our_cell in zip(theirs["cells"], ours["cells"], strict=True):
        if their_cell["id"] not in had and our_cell["id"] not in had:
            their_cell["id"] = our_cell["id"]


def pages_are_kept(theirs: Notebook, ours: Notebook) -> None:
    """Check that nbrun shows the page, and return it to nbclient."""
    [page] = ours["cells"][2]["outputs"]
    assert page["output_type"] == "display_data"
    assert "Give the number back." in page["data"]["text/plain"]
    assert theirs["cells"][2]["outputs"] == []
    theirs["cells"][2]["outputs"] = [page]


KNOWN_DIFFERENCES = {
    "empty_cells.ipynb": Difference(
        "A cell with nothing in it has no outputs: nbrun clears stale ones as JupyterLab does, nbclient leaves them.",
        stale_outputs_go,
    ),
    "duplicate_ids.ipynb": Difference("Both repair ids, and new ones are random.", fresh_ids),
    "missing_ids.ipynb": Difference("Both invent ids, and new ones are random.", fresh_ids),
    "pager.ipynb": Difference(
        "What a console shows in a pager nbrun puts below the cell as JupyterLab does; nbclient drops it.",
        pages_are_kept,
    ),
}

NOT_RUNNABLE = {"unknown_kernel.ipynb"}
"""Notebooks that neither can run; those in ``broken`` and ``old`` have tests of their own."""

RUNNABLE = sorted(path for path in FIXTURES.glob("*.ipynb") if path.name not in NOT_RUNNABLE)
RUNNABLE += sorted((FIXTURES / "odd paths").glob("*.ipynb"))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, nbrun.SyncServer]]:
    """A private server for all notebooks, and its folder."""
    root = tmp_path_factory.mktemp("private")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        with nbrun.private_server(root) as server:
            yield root, server


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fixture", RUNNABLE, ids=lambda path: path.stem.replace("_", " "))
def test_nbrun_and_nbclient_make_the_same_of(
    fixture: Path, private: tuple[Path, nbrun.SyncServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, server = private
    theirs, ours = copy_of_the_fixtures(tmp_path / "nbclient"), copy_of_the_fixtures(root / tmp_path.name)
    place, output = fixture.relative_to(FIXTURES), root / f"{tmp_path.name}-executed.ipynb"
    allowing = fixture.name == "failing.ipynb"
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # Where it sees that pytest runs it, ipykernel does not collect what reaches its file descriptors.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")

    monkeypatch.chdir(theirs)
    monkeypatch.setenv("PYTHONPATH", python_path()["PYTHONPATH"])
    if b"matplotlib" in fixture.read_bytes():
        find_fonts()
    NbClientApp().initialize(["--inplace", *(["--allow-errors"] if allowing else []), str(theirs / place)])
    run = server.run(ours / place, output=output, allow_errors=allowing)
    assert run.exit_code == ExitCode.OK, run.problem

    assert (ours / place).read_bytes() == fixture.read_bytes(), "with -o the notebook itself stays as it was"
    expected = comparable(read_notebook(theirs / place), folder=theirs)
    executed = comparable(read_notebook(output), folder=ours)
    if fixture.name in KNOWN_DIFFERENCES:
        assert executed != expected, "the known difference is gone: take it out of the table"
        KNOWN_DIFFERENCES[fixture.name].settle(expected, executed)
    assert executed == expected


ODD_NAMES = {
    "space": "a b",
    "hash": "a#b",
    "literal percent-twenty": "a%20b",
    "question mark": "a?b=c&d",
    "plus and semicolon": "a+b;c",
    "composed e acute": "caf\u00e9",
    "decomposed e acute": "cafe\u0301",
    "quotes": "'a' \"b\" `c`",
    "brackets": "[a] (b) {c}",
    "star": "a*b",
    "emoji": "🎈👩‍👩‍👧",
    "backslash": "a\\b",
    "colon": "RTC:a",
    "leading dash": "-a",
    "dollar": "$HOME",
    "trailing dots": "a..",
}
"""Names of files and folders that have to be quoted somewhere on their way; many are forbidden on Windows."""


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_a_notebook_runs_in_place_whatever_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = folder / f"{name}.ipynb"
    shutil.copy(next((FIXTURES / "odd paths").glob("*.ipynb")), path)
    (folder / "read me.txt").write_text("beside it", encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    called = CliRunner().invoke(cli, ["run", "--", str(path.relative_to(tmp_path))], standalone_mode=False)
    assert called.return_value == ExitCode.OK, called.output

    [[where], [text]] = outputs_of(read_notebook(path))
    assert where["data"]["text/plain"] == repr(name)
    assert text["data"]["text/plain"] == "'beside it'"
    assert sorted(folder.iterdir()) == sorted([path, folder / "read me.txt"]), "nothing else is left beside it"


@functools.cache
def find_fonts() -> None:
    """Let Matplotlib build its cache of fonts: the first program that needs it prints a warning if that takes 5 s."""
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True, timeout=120)


def copy_of_the_fixtures(folder: Path) -> Path:
    """Copy the fixtures, for runs write in them."""
    shutil.copytree(FIXTURES, folder, ignore=shutil.ignore_patterns("broken", "old"))
    return folder
