"""Notebooks that are read from a git repository."""

import os
import subprocess
from pathlib import Path

import pytest

from nbrun.errors import NoSuchNotebook, UsageError
from nbrun.storage.git_source import read_from_git
from tests.support.stores import SECRET


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a branch, a tag, a hook and a notebook in a folder."""
    folder = tmp_path_factory.mktemp("a repository")

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)

    git("init", "--initial-branch=main")
    (folder / "reports").mkdir()
    for number, name in enumerate(("v1", "v2")):
        (folder / "reports" / "é nb.ipynb").write_text(f"version {number + 1}\r\n", newline="")
        git("add", ".")
        git("commit", "-m", name)
        git("tag", name)
    return folder


@pytest.mark.parametrize(("reference", "content"), [("@v1", 1), ("@v2", 2), ("@main", 2), ("", 2)])
async def test_a_file_of_a_commit_is_read(repository: Path, reference: str, content: int) -> None:
    found = await read_from_git(f"git+file://{repository}{reference}#reports/é nb.ipynb")
    assert found == f"version {content}\r\n".encode()


async def test_what_is_missing_is_named(repository: Path) -> None:
    with pytest.raises(NoSuchNotebook, match=r"no file none\.ipynb in that commit"):
        await read_from_git(f"git+file://{repository}@main#none.ipynb")
    with pytest.raises(UsageError, match="git could not read it"):
        await read_from_git(f"git+file://{repository}@nowhere#reports/é nb.ipynb")


@pytest.mark.parametrize("url", ["git+https://h/r", "git+https://h/r@--upload-pack=x#nb", "git+https://h/@x#nb"])
async def test_an_address_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no file"):
        await read_from_git(url)


async def test_a_password_is_in_no_argument_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    program = tmp_path / "git"
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\nenv | grep "^GIT_TERM" >>{log}\n[ "$1" = init ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UsageError) as raised:
        await read_from_git(f"git+https://me:{SECRET}@host/r@main#nb.ipynb")
    assert SECRET not in f"{log.read_text()} {raised.value} {raised.value.hint}"
    assert "fetch --quiet --depth=1 --no-tags https://host/r main" in log.read_text()
    assert "GIT_TERMINAL_PROMPT=0" in log.read_text()
