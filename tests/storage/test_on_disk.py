"""Notebooks on disk: atomic writes, and rescue files."""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nbrun.errors import NoSuchNotebook, NotANotebook, SaveFailed, UsageError
from nbrun.storage.on_disk import DiskFile, read_text, rescue, write_notebook
from nbrun.storage.writable import mode_of
from tests.support.notebooks import code, notebook, read_notebook, stdout

OLD = b"the old file"
NEW = notebook(code("1", outputs=[stdout("new é😀")]))
NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
RESCUED = ".rescued-20260102-030405-000006.ipynb"
UNIX = pytest.mark.skipif(os.name != "posix", reason="modes, owners and limits of POSIX")


def python(source: str, *args: str | Path, cwd: Path) -> str:
    """Run a program of its own, whose limits are not ours; returns what it prints."""
    head = "import json, os, sys\nfrom pathlib import Path\nfrom datetime import UTC, datetime\n"
    head += "from nbrun.errors import SaveFailed\n"
    head += "from nbrun.storage.on_disk import rescue, write_notebook\n"
    head += "NEW = {'cells': [], 'metadata': {'x': 'y' * 100_000}, 'nbformat': 4, 'nbformat_minor': 5}\n"
    command = [sys.executable, "-c", head + source, *map(str, args)]
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()


def test_a_notebook_is_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "nb.ipynb").write_text("é😀", encoding="utf-8")
    assert read_text(tmp_path / "nb.ipynb") == "é😀"


def test_what_cannot_be_read_is_told_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(NoSuchNotebook, match="no such file") as raised:
        read_text(tmp_path / "none.ipynb")
    assert str(tmp_path) in raised.value.hint
    with pytest.raises(NotANotebook, match="a folder"):
        read_text(tmp_path)
    (tmp_path / "latin.ipynb").write_bytes(b"caf\xe9")
    with pytest.raises(NotANotebook, match="at byte 3"):
        read_text(tmp_path / "latin.ipynb")
    (tmp_path / "loop.ipynb").symlink_to("loop.ipynb")
    with pytest.raises(UsageError, match="cannot be read"):
        read_text(tmp_path / "loop.ipynb")


def test_a_written_notebook_is_there_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "not yet" / "there" / "nb.ipynb"
    write_notebook(path, NEW)
    assert read_notebook(path) == NEW
    assert list(path.parent.iterdir()) == [path]


@UNIX
def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_notebook(tmp_path / "new.ipynb", NEW)
        assert os.umask(0o027) == 0o027, "the mask is what it was"
    finally:
        os.umask(before)
    assert (tmp_path / "new.ipynb").stat().st_mode & 0o777 == 0o640
    old = tmp_path / "old.ipynb"
    old.write_bytes(OLD)
    old.chmod(0o604)
    write_notebook(old, NEW)
    assert old.stat().st_mode & 0o777 == 0o604


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(OLD)
    os.chown(path, 12345, 54321)
    write_notebook(path, NEW)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


async def test_a_file_is_written_unless_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = DiskFile(tmp_path / "nb.ipynb")
    file.path.write_bytes(OLD)
    seen = await file.stat()

    def edit(_: int) -> None:
        file.path.write_bytes(b"an edit at the last moment")

    with monkeypatch.context() as patched:
        patched.setattr("nbrun.storage.on_disk.os.fsync", edit)
        assert await file.write(NEW, seen) is None
    assert file.path.read_bytes() == b"an edit at the last moment"
    assert await file.write(NEW, None) is None, "there is a file"
    assert list(tmp_path.iterdir()) == [file.path], "no temporary file is left"
    written = await file.write(NEW, await file.stat())
    assert written is not None
    assert written.version == await file.stat() == (await file.read())[1]
    assert read_notebook(file.path) == NEW


async def test_what_cannot_be_read_has_a_version_too(tmp_path: Path) -> None:
    file = DiskFile(tmp_path)
    seen = await file.stat()
    assert seen == await file.stat()
    (tmp_path / "new").touch()
    assert seen != await file.stat()
    assert await DiskFile(tmp_path / "none.ipynb").stat() is None


@UNIX
async def test_a_file_beside_has_the_permissions_of_the_notebook_even_if_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(OLD)
    path.chmod(0o640)
    file = DiskFile(path)
    path.unlink()
    await file.beside("-nbrun").write(NEW, None)
    await file.write(NEW, None)
    assert [mode_of(tmp_path / name) for name in ("nb-nbrun.ipynb", "nb.ipynb")] == [0o640, 0o640]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "real.ipynb"
    target.parent.mkdir()
    target.write_bytes(OLD)
    link = tmp_path / "nb.ipynb"
    link.symlink_to("elsewhere/real.ipynb")
    write_notebook(link, NEW)
    assert link.is_symlink()
    assert read_notebook(target) == NEW


def test_a_link_that_leads_to_itself_has_failed(tmp_path: Path) -> None:
    link = tmp_path / "loop.ipynb"
    link.symlink_to("loop.ipynb")
    with pytest.raises(SaveFailed, match="cannot be written"):
        write_notebook(link, NEW)


def test_what_is_in_the_way_is_told_and_left(tmp_path: Path) -> None:
    folder = tmp_path / "nb.ipynb"
    folder.mkdir()
    with pytest.raises(SaveFailed, match="cannot be written"):
        write_notebook(folder, NEW)
    assert list(tmp_path.iterdir()) == [folder], "no temporary file is left"
    (tmp_path / "file").touch()
    with pytest.raises(SaveFailed, match="cannot be written"):
        write_notebook(tmp_path / "file" / "nb.ipynb", NEW)


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("本" * 82 + ".ipynb")  # 252 bytes of 255
    write_notebook(path, NEW)
    assert read_notebook(path) == NEW


def test_a_lone_surrogate_does_not_stop_a_save(tmp_path: Path) -> None:
    write_notebook(tmp_path / "nb.ipynb", notebook(code("1", outputs=[stdout("a\ud800b")])))
    assert read_notebook(tmp_path / "nb.ipynb")["cells"][0]["outputs"][0]["text"] == "a?b"


@UNIX
def test_a_full_disk_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(OLD)
    source = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_notebook(Path(sys.argv[1]), NEW)
except SaveFailed as error:
    print(error)
"""
    assert "File too large" in python(source, path, cwd=tmp_path)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_a_rescue_is_in_the_current_folder_under_a_name_that_tells_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rescue(NEW, "reports/weekly.ipynb", NOW) == tmp_path / f"weekly{RESCUED}"
    assert read_notebook(tmp_path / f"weekly{RESCUED}") == NEW
    assert rescue(NEW, "", NOW) == tmp_path / f"notebook{RESCUED}"


@UNIX
def test_only_the_user_can_read_a_rescue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = rescue(NEW, "nb.ipynb", NOW)
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600


@UNIX
def test_a_new_file_can_have_the_mode_of_another_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    for _ in range(2):
        write_notebook(path, NEW, mode=0o600)
        assert mode_of(path) == 0o600
    path.chmod(0o644)
    write_notebook(path, NEW, mode=0o600)
    assert mode_of(path) == 0o644
    assert mode_of(tmp_path / "none.ipynb") is None


def test_a_rescue_of_a_long_name_has_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = rescue(NEW, "本" * 82 + ".ipynb", NOW)
    assert path == tmp_path / ("本" * 66 + RESCUED)


def test_a_rescue_goes_to_the_temporary_folder_where_the_current_one_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    source = """
import tempfile
tempfile.tempdir = sys.argv[1]
write_notebook(Path(sys.argv[1], "first.ipynb"), NEW)  # imports; without a folder, some fail in Python 3.13.0
os.rmdir(os.getcwd())
print(rescue(NEW, "nb.ipynb", datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)))
"""
    assert python(source, tmp_path, cwd=gone) == str(tmp_path / f"nb{RESCUED}")


def test_a_rescue_that_nobody_takes_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "temp"):
        (folder / f"nb{RESCUED}").mkdir(parents=True)  # in the way
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    assert rescue(NEW, "nb.ipynb", NOW) is None
