"""File operations are safe on a full disk and keep file modes."""

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tornado.web import HTTPError
from traitlets.config import Configurable

from nbrun.local_server.process.contents import PrivateContents
from nbrun.local_server.process.files import copy_whole, original_of, rewriting
from nbrun.storage.writable import mode_of
from tests.support.notebooks import notebook, run_nbrun, write_notebook

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and limits of POSIX")

OLD = b"x" * 2000
PROGRAM = """
import resource, signal, sys
from pathlib import Path
from nbrun.local_server.process.files import copy_whole, rewriting
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
path = Path(sys.argv[1])
try:
    {0}
except OSError as error:
    print(error.strerror)
"""
REWRITE = "with rewriting(str(path)) as file: file.write(b'new' * 5000)"
REWRITE_AT_THE_END = "with rewriting(str(path)) as file: file.write(b'n' * 3001)"  # it fits into the file's buffer
COPY = "copy_whole(str(path), str(path.with_name('copy.ipynb')))"


def listing(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def with_limit(folder: Path, statement: str, limit: int) -> str:
    """Run a statement in a process whose files may have `limit` bytes, as on a disk that is full; return its error."""
    command = [sys.executable, "-c", PROGRAM.replace("{0}", statement), str(folder / "nb.ipynb"), str(limit)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("limit", [1000, 3000], ids=["no room for a copy of the old file", "no room for the new file"])
@pytest.mark.parametrize("statement", [REWRITE, REWRITE_AT_THE_END], ids=["large", "small"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, statement: str, limit: int) -> None:
    (tmp_path / "nb.ipynb").write_bytes(OLD)
    assert with_limit(tmp_path, statement, limit) == "File too large"
    assert listing(tmp_path) == {"nb.ipynb": OLD}


def test_a_full_disk_leaves_no_new_file(tmp_path: Path) -> None:
    assert with_limit(tmp_path, REWRITE, 1000) == "File too large"
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, there: bool) -> None:
    files = {"nb.ipynb": OLD} | ({"copy.ipynb": b"old"} if there else {})
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert with_limit(tmp_path, COPY, 1000) == "File too large"
    assert listing(tmp_path) == files


def test_what_the_writer_raises_brings_the_old_file_back(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(OLD)
    path.chmod(0o640)

    def write_half() -> None:
        with rewriting(str(path)) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert listing(tmp_path) == {"nb.ipynb": OLD}
    assert mode_of(path) == 0o640


def test_nobody_else_can_read_the_copy_that_is_kept_while_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(OLD)
    path.chmod(0o600)
    (tmp_path / ".~nb.ipynb").write_bytes(b"of a run that was killed")
    with rewriting(str(path)) as file:
        assert mode_of(tmp_path / ".~nb.ipynb") == 0o600
        assert (tmp_path / ".~nb.ipynb").read_bytes() == OLD
        file.write(b"new")
    assert listing(tmp_path) == {"nb.ipynb": b"new"}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "nb.ipynb").write_bytes(OLD)
    (tmp_path / "link.ipynb").symlink_to("nb.ipynb")
    with rewriting(str(tmp_path / "link.ipynb")) as file:
        file.write(b"new")
    copy_whole(str(tmp_path / "nb.ipynb"), str(tmp_path / "link.ipynb"))
    assert (tmp_path / "link.ipynb").is_symlink()
    assert listing(tmp_path) == {"nb.ipynb": b"new", "link.ipynb": b"new"}


@pytest.mark.parametrize(
    ("path", "original"),
    [
        ("/a/nb-nbrun.ipynb", "/a/nb.ipynb"),
        ("/a/nb-nbrun12.ipynb", "/a/nb.ipynb"),
        ("/a/nb-nbrun-nbrun.ipynb", "/a/nb-nbrun.ipynb"),
        ("/a/nb.ipynb", None),
        ("/a-nbrun/nb.ipynb", None),
    ],
)
def test_a_copy_is_known_by_its_name(path: str, original: str | None) -> None:
    assert original_of(path) == original


class Server(Configurable):  # type: ignore[misc]
    """What the contents manager asks of its server."""

    class control_pipe:  # noqa: N801
        saving = contextlib.nullcontext


def contents(root: Path) -> PrivateContents:
    return PrivateContents(root_dir=str(root), parent=Server())


def model(text: str = "") -> dict[str, Any]:
    content = {"cells": [], "metadata": {"x": text}, "nbformat": 4, "nbformat_minor": 5}
    return {"type": "notebook", "format": "json", "content": json.loads(json.dumps(content))}


async def test_copies_beside_a_notebook_have_its_permissions(tmp_path: Path) -> None:
    manager, path = contents(tmp_path), tmp_path / "nb.ipynb"
    path.write_text(json.dumps(model()["content"]))
    path.chmod(0o600)
    await manager.get("nb.ipynb")
    await manager.save(model("beside"), "nb-nbrun.ipynb")
    await manager.save(model("other"), "other.ipynb")
    await manager.create_checkpoint("nb.ipynb")
    await manager.save(model("new"), "nb.ipynb")
    checkpoint = tmp_path / ".ipynb_checkpoints" / "nb-checkpoint.ipynb"
    assert [mode_of(tmp_path / name) for name in ("nb.ipynb", "nb-nbrun.ipynb")] == [0o600, 0o600]
    assert mode_of(checkpoint) == 0o600
    assert mode_of(tmp_path / "other.ipynb") != 0o600

    path.unlink()
    with pytest.raises(HTTPError):
        await manager.get("nb.ipynb")
    await manager.save(model("again"), "nb.ipynb")
    await manager.save(model("beside"), "nb-nbrun2.ipynb")
    assert [mode_of(tmp_path / name) for name in ("nb.ipynb", "nb-nbrun2.ipynb")] == [0o600, 0o600]
    assert sorted(entry.name for entry in tmp_path.iterdir() if stat.S_ISREG(entry.stat().st_mode)) == [
        "nb-nbrun.ipynb",
        "nb-nbrun2.ipynb",
        "nb.ipynb",
        "other.ipynb",
    ]


async def test_a_notebook_that_is_brought_back_keeps_its_permissions(tmp_path: Path) -> None:
    manager, path = contents(tmp_path), tmp_path / "nb.ipynb"
    path.write_text("old")
    path.chmod(0o644)
    await manager.create_checkpoint("nb.ipynb")
    path.write_text("new")
    path.chmod(0o600)
    await manager.restore_checkpoint("checkpoint", "nb.ipynb")
    assert path.read_text() == "old"
    assert mode_of(path) == 0o600


def test_a_failed_run_leaves_nothing_that_others_can_read(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", notebook("1 / 0"))
    path.chmod(0o600)
    assert run_nbrun("run", path, "--restore-on-failure").returncode == 1
    found = {str(file.relative_to(tmp_path)): mode_of(file) for file in tmp_path.rglob("*.ipynb")}
    assert found == dict.fromkeys(("nb.ipynb", "nb-nbrun.ipynb"), 0o600)
