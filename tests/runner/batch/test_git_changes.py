"""Changes since a commit in real git repositories."""

import subprocess
from pathlib import Path

import pytest

from nbrun.errors import UsageError
from nbrun.runner.batch.git_changes import changed_only
from tests.support.notebooks import notebook, write_notebook

NAMES = ("same.ipynb", "sub/commited.ipynb", "sub/edited.ipynb", "depends.ipynb", "sub/upwards.ipynb")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of five notebooks, one commit old; the current folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("1")
    depends = {"depends.ipynb": {"depends": ["data/*.csv"]}, "sub/upwards.ipynb": {"depends": "../data/**"}}
    for name in NAMES:
        write_notebook(tmp_path / name, notebook("1", nbrun=depends.get(name, {})))
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "start")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(*names: str, since: str = "start") -> list[str]:
    names = names or NAMES
    return [name for name, has in zip(names, changed_only(names, since), strict=True) if has]


def test_nothing_has_changed_at_first(repository: Path) -> None:
    assert changed() == []


def test_commits_edits_and_new_files_are_changes(repository: Path) -> None:
    write_notebook(repository / "sub" / "commited.ipynb", notebook("2"))
    git(repository, "commit", "-am", "second")
    write_notebook(repository / "sub" / "edited.ipynb", notebook("2"))
    write_notebook(repository / "sub" / "ünew one.ipynb", notebook("2"))
    assert changed(*NAMES, "sub/ünew one.ipynb") == ["sub/commited.ipynb", "sub/edited.ipynb", "sub/ünew one.ipynb"]
    assert changed(since="HEAD") == ["sub/edited.ipynb"]
    git(repository, "add", "-A")
    assert changed(since="HEAD") == ["sub/edited.ipynb"]


@pytest.mark.parametrize("how", ["edited", "new", "deleted"])
def test_a_declared_input_is_a_change_of_its_notebooks(how: str, repository: Path) -> None:
    match how:
        case "edited":
            (repository / "data" / "in.csv").write_text("2")
        case "new":
            (repository / "data" / "more.csv").write_text("2")
        case _:
            (repository / "data" / "in.csv").unlink()
    assert changed() == ["depends.ipynb", "sub/upwards.ipynb"]


def test_what_others_changed_on_the_main_branch_meanwhile_is_no_change_of_this_one(repository: Path) -> None:
    git(repository, "checkout", "-b", "mine")
    write_notebook(repository / "sub" / "edited.ipynb", notebook("2"))
    git(repository, "commit", "-am", "mine")
    git(repository, "checkout", "-b", "theirs", "start")
    write_notebook(repository / "same.ipynb", notebook("2"))
    git(repository, "commit", "-am", "theirs")
    git(repository, "checkout", "mine")
    assert changed(since="theirs") == ["sub/edited.ipynb"]


def test_what_git_does_not_know_is_told(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="knows no such commit") as caught:
        changed(since="nowhere")
    assert "fetch-depth" in caught.value.hint
    with pytest.raises(UsageError, match="knows no such commit"):
        changed(since="--output=x")
    outside = write_notebook(tmp_path_factory.mktemp("outside") / "a.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="not a git repository"):
        changed_only([str(outside)], "start")


def test_without_git_it_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(UsageError, match="needs git"):
        changed()


def test_a_notebook_that_cannot_be_read_has_changed_only_itself(repository: Path) -> None:
    (repository / "same.ipynb").write_text("nonsense")
    (repository / "data" / "in.csv").write_text("2")
    git(repository, "commit", "-am", "broken")
    assert changed(since="HEAD") == []
    assert "same.ipynb" in changed()
