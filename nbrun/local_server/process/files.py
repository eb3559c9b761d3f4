"""File operations of the private server that are safe on a full disk and keep file modes.

While the stock server writes a file, it keeps the old content in a copy named ``.~NAME`` and restores it after an
error. It does not restore it if the copy itself does not fit on the disk, or if the last bytes do not fit. The copy
then stays, and the file is incomplete. Until its mode is set, the copy is readable for all users. This module avoids
both problems. Names and order are the stock server's, which looks for ``.~NAME`` if it cannot read a file.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from jupyter_server.services.contents.fileio import path_to_intermediate

from nbrun.storage.writable import mode_of

_BESIDE = re.compile(r"(.+)-nbrun\d*(\.[^.]+)")


def original_of(path: str) -> str | None:
    """Return the path of the notebook that belongs to ``NAME-nbrun.ipynb``, or None for another name."""
    found = _BESIDE.fullmatch(path)
    return f"{found[1]}{found[2]}" if found else None


@contextlib.contextmanager
def rewriting(os_path: str, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file to replace its content. After an error the old file is restored, or a new file is removed.

    A new file has the permissions `mode`, if given.
    """
    path = os.path.realpath(os_path)
    kept = path_to_intermediate(path)
    old = mode_of(Path(path))
    if old is not None:
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        _copy(path, kept)
    try:
        opener = None if old is not None or mode is None else _opener(mode)
        with open(path, "wb", opener=opener) as file:
            if opener and mode is not None:
                os.chmod(path, mode)  # noqa: PTH101 - the umask may have removed permissions
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        if old is not None:
            os.replace(kept, path)  # noqa: PTH105
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
        raise
    if old is not None:
        with contextlib.suppress(OSError):
            os.unlink(kept)  # noqa: PTH108


def copy_whole(source: str, target: str) -> None:
    """Copy a file atomically. An existing `target` keeps its permissions and owner.

    A new one gets those of `source`.
    """
    target = os.path.realpath(target)
    descriptor, temporary = tempfile.mkstemp(prefix=".nbrun-", dir=Path(target).parent)
    os.close(descriptor)
    try:
        _copy(source, temporary)
        if (mode := mode_of(Path(target))) is not None:
            _give(temporary, target)
            os.chmod(temporary, mode)  # noqa: PTH101
        os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def _copy(source: str, target: str) -> None:
    """Copy content, times, permissions and owner. Before that, only this user can read the copy.

    After an error there is no copy.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)  # noqa: PTH108 - of an earlier run that was killed
        with open(target, "xb", opener=_opener(0o600)) as copy, open(source, "rb") as original:  # noqa: PTH123
            shutil.copyfileobj(original, copy)
        with contextlib.suppress(OSError):  # on some file systems not all of it can be set
            _give(target, source)
            shutil.copystat(source, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(target)  # noqa: PTH108
        raise


def _give(path: str, like: str) -> None:
    """Change the owner of a file to the owner of another one, as far as permitted."""
    if hasattr(os, "chown"):
        found = os.stat(like)  # noqa: PTH116
        with contextlib.suppress(OSError):
            os.chown(path, found.st_uid, found.st_gid)


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)
