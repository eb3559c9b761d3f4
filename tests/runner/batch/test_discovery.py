"""The notebooks of paths, folders and patterns, locally and on a real server."""

from pathlib import Path

import pytest

from nbrun.errors import NoSuchNotebook
from nbrun.jupyter.client import connect
from nbrun.runner.batch.discovery import FoundNotebook, local_notebooks, notebooks_on_server
from tests.support.notebooks import notebook, write_notebook
from tests.support.servers import jupyter_server

FILES = (
    "top.ipynb",
    "a/one.ipynb",
    "a/deep/two.ipynb",
    "a/.ipynb_checkpoints/one-checkpoint.ipynb",
    ".hidden/three.ipynb",
    "out/old.ipynb",
    "node_modules/x/four.ipynb",
    "top.rescued-20260101-000000-000000.ipynb",
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder tree, of which the current folder is the root."""
    for name in FILES:
        write_notebook(tmp_path / name, notebook("1"))
    (tmp_path / "a" / "data.csv").write_text("1")
    (tmp_path / "venv" / "lib").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    write_notebook(tmp_path / "venv" / "lib" / "five.ipynb", notebook("1"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*named: str, exclude: tuple[str, ...] = (), outputs: str = "") -> list[str]:
    return [found.name for found in local_notebooks(named, exclude, outputs)]


def test_a_folder_is_searched_and_what_nobody_means_left_out(tree: Path) -> None:
    assert names(".") == ["top.ipynb", "a/one.ipynb", "a/deep/two.ipynb", "out/old.ipynb"]
    assert names("a") == ["a/one.ipynb", "a/deep/two.ipynb"]


def test_what_the_batch_writes_is_not_looked_for(tree: Path) -> None:
    assert "out/old.ipynb" not in names(".", outputs="out")
    assert "out/old.ipynb" not in names("**/*.ipynb", outputs="out")
    assert names("out/old.ipynb", outputs="out") == ["out/old.ipynb"]


def test_patterns_are_a_shells_and_two_stars_any_folders(tree: Path) -> None:
    assert names("*.ipynb") == ["top.ipynb"]
    assert names("a/**/*.ipynb") == ["a/deep/two.ipynb", "a/one.ipynb"]
    assert names("a*") == names("a")
    assert names("a/*") == ["a/deep/two.ipynb", "a/one.ipynb"]
    assert names("nothing*") == []


def test_each_notebook_comes_once_in_the_order_of_the_call(tree: Path) -> None:
    assert names("a/deep/two.ipynb", "a", "./a/../top.ipynb", "*.ipynb") == [
        "a/deep/two.ipynb",
        "a/one.ipynb",
        "top.ipynb",
    ]


def test_what_is_excluded_is_left_out(tree: Path) -> None:
    assert names(".", exclude=("deep/", "out", "top*")) == ["a/one.ipynb"]


def test_a_path_that_is_named_and_not_there_is_told(tree: Path) -> None:
    with pytest.raises(NoSuchNotebook, match=r"b\.ipynb: there is no such file or folder"):
        names("a", "b.ipynb")


def test_a_name_with_a_patterns_signs_is_a_name_where_it_exists(tree: Path) -> None:
    write_notebook(tree / "x[1].ipynb", notebook("1"))
    assert names("x[1].ipynb") == ["x[1].ipynb"]


def test_outside_of_the_current_folder_the_tree_begins_at_what_was_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree / "out")
    assert local_notebooks([str(tree / "a")]) == [
        FoundNotebook(str(tree / "a" / "one.ipynb"), "a/one.ipynb"),
        FoundNotebook(str(tree / "a" / "deep" / "two.ipynb"), "a/deep/two.ipynb"),
    ]
    assert local_notebooks([str(tree / "a" / "**" / "two.ipynb")])[0].tree == "deep/two.ipynb"


async def test_a_server_is_searched_through_its_contents(tree: Path) -> None:
    with jupyter_server(tree) as server:
        async with connect(server.url, token=server.token) as client:

            async def found(*named: str, exclude: tuple[str, ...] = (), outputs: str = "") -> list[str]:
                return [one.name for one in await notebooks_on_server(client.contents, named, exclude, outputs)]

            assert sorted(await found("a")) == ["a/deep/two.ipynb", "a/one.ipynb"]
            assert await found("/a/deep/") == ["a/deep/two.ipynb"]
            assert sorted(await found("a/**/*.ipynb", "a/one.ipynb")) == ["a/deep/two.ipynb", "a/one.ipynb"]
            assert await found("top*.ipynb") == await found("*.ipynb") == ["top.ipynb"]
            assert await found("none/*.ipynb") == []
            assert await found("a", exclude=("deep/",)) == ["a/one.ipynb"]
            assert await found("out/*.ipynb", outputs="out") == ["out/old.ipynb"]
            assert "out/old.ipynb" not in await found("**/*.ipynb", outputs="out")
            with pytest.raises(NoSuchNotebook, match="on the server"):
                await found("none.ipynb")
