"""Checks before a run that files can be read and written, which leave no trace."""

import os
from pathlib import Path

import pytest

from nbrun.errors import NoSuchNotebook, UsageError
from nbrun.storage.writable import check_file, check_folder, check_readable, is_file, is_folder, is_there, require
from tests.support.permissions import read_only


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file, a folder and links in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing/target")
    (tmp_path / "link").symlink_to("file")
    return tmp_path


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when a file in a folder is made, written or removed."""
    return {
        str(path): (0 if path.is_dir() else os.lstat(path).st_mtime_ns, os.lstat(path).st_size)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "target", ["file", "new", "folder/new", "deep/er/new", "link", "nowhere", "/dev/null", "/dev/stdout"]
)
def test_a_file_that_can_be_written_is_left_as_it_is(target: str, here: Path) -> None:
    before = stamps(here)
    check_file("-o", target)
    assert stamps(here) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
def test_a_pipe_is_only_looked_at(here: Path) -> None:
    os.mkfifo(here / "pipe")
    check_file("--json", "pipe")  # to open it would wait for a reader
    reader, writer = os.pipe()
    os.close(reader)
    check_file("--json", f"/dev/fd/{writer}")
    os.close(writer)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("folder", "-o folder: cannot be written: this is a folder"),
        (".", "this is a folder"),
        ("file/new", "a folder of this path is a file"),
        ("file/deep/new", "a folder of this path is a file"),
        ("loop", "cannot be written"),
        ("x" * 256, "a name of 256 bytes is too long"),
        ("x" * 254, "a name of 254 bytes is too long"),
        ("new/" + "ä" * 130 + "/x", "a name of 260 bytes is too long"),
        ("x/" * 2500, "too long"),
        ("/proc/new", "cannot be written"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_cannot_be_written_is_refused(target: str, said: str, here: Path) -> None:
    before = stamps(here)
    with pytest.raises(UsageError) as raised:
        check_file("-o", target, prefix=".~")
    assert said in str(raised.value)
    assert raised.value.hint
    assert len(str(raised.value)) < 250
    assert stamps(here) == before


@pytest.mark.parametrize("target", ["folder", "new", "deep/er", "folder/new", "."])
def test_a_folder_that_can_be_written_is_left_as_it_is(target: str, here: Path) -> None:
    before = stamps(here)
    check_folder("--html", target)
    assert stamps(here).keys() == before.keys()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("file", "--html file: this is a file"),
        ("link", "this is a file"),
        ("nowhere", "this is a file"),
        ("file/new", "a folder of this path is a file"),
        ("x" * 256, "too long"),
    ],
    ids=lambda value: value[:30],
)
def test_a_folder_that_cannot_be_written_is_refused(target: str, said: str, here: Path) -> None:
    with pytest.raises(UsageError) as raised:
        check_folder("--html", target)
    assert said in str(raised.value)


def test_what_nobody_may_write_is_refused_with_the_given_hint(here: Path) -> None:
    with read_only(here / "file"):
        with pytest.raises(UsageError, match=r"^file: cannot be written: (Operation not permitted|Permission denied)$"):
            check_file("", "file", hint="another")
        check_readable("file", here / "file")
    with read_only(here / "folder"):
        with pytest.raises(UsageError, match="cannot be written"):
            check_file("-o", "folder/new/x")
        with pytest.raises(UsageError, match="cannot be written"):
            check_folder("--html", "folder")
    assert [*(here / "folder").iterdir()] == []


def test_a_batch_asks_once_for_each_folder(here: Path) -> None:
    probed: set[Path] = set()
    for name in ("a", "b", "folder/c"):
        check_file("-o", name, probed=probed)
    assert probed == {here, here / "folder"}


def test_looking_is_never_an_error(here: Path) -> None:
    for look in (is_there, is_file, is_folder):
        assert not look("x" * 300)
        assert not look("loop")
    assert (is_there("file"), is_file("file"), is_folder("folder")) == (True, True, True)


def test_what_is_not_there_is_missing_and_what_cannot_be_seen_is_not(here: Path) -> None:
    require("file", here / "file", "is missing", "")
    for name in ("none", "file/none"):
        with pytest.raises(NoSuchNotebook, match="is missing"):
            require(name, here / name, "is missing", "")
    with pytest.raises(UsageError, match=r"xxx\.\.\.: cannot be read: File name too long"):
        require("x" * 300, here / ("x" * 300), "is missing", "")
    with pytest.raises(UsageError, match="cannot be read"):
        check_readable("none", here / "none")
