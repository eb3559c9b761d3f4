"""Notebooks on this machine's disk: read, written whole or not at all, rescued when a server will not take them."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nbrun.core.notebook.file_format import notebook_text
from nbrun.errors import NoSuchNotebook, NotANotebook, SaveFailed, UsageError

LONGEST_STEM = 200
"""Bytes of a notebook's name that a rescue file's name begins with; most file systems end names at 255."""


def read_bytes(path: Path) -> bytes:
    """Read a notebook's bytes; raises :class:`NoSuchNotebook` or :class:`NotANotebook`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        hint = f"nbrun looked in {path.absolute().parent}. For a notebook on a server, say --server URL."
        raise NoSuchNotebook(f"{path}: there is no such file", hint=hint) from None
    except IsADirectoryError:
        raise NotANotebook(f"{path}: this is a folder", hint="Name the notebook in it.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """Read a notebook's text; raises :class:`NoSuchNotebook` or :class:`NotANotebook`."""
    try:
        return read_bytes(path).decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise NotANotebook(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def mode_of(path: Path) -> int | None:
    """Return the permissions of a file, or None where there is none."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return None


def write_notebook(
    path: Path, content: Mapping[str, Any], *, where: Callable[[], bool] | None = None, mode: int | None = None
) -> str | None:
    """Write a notebook so that the file is at every moment either the old one or the new one; return its text.

    Parent folders are created. The old one stays, and None is returned, if `where` does not hold in the last moment.
    An old file keeps its permissions; a new one has `mode`, or the usual ones. Raises :class:`SaveFailed`.
    """
    data = notebook_text(content).encode("utf-8", "replace")
    try:
        path = path.resolve()  # a link stays a link: what it points to is replaced
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path, where, mode) as handle:
            handle.write(data)
    except _NotReplaced:
        return None
    except (OSError, RuntimeError) as error:  # before Python 3.13 a link that leads to itself is a RuntimeError
        reason = error.strerror if isinstance(error, OSError) else "a link that leads to itself"
        raise SaveFailed(f"{path}: cannot be written: {reason}") from None
    return data.decode()


def free_name_beside(path: Path) -> Path:
    """Return a path beside `path` that does not exist: ``NAME-nbrun.ipynb``, or the same with a number."""
    names = (f"{path.stem}-nbrun{number or ''}{path.suffix}" for number in (None, *range(2, 1000)))
    for name in names:
        if not path.with_name(name).exists():
            return path.with_name(name)
    raise SaveFailed(f"{path}: there is no free name beside it")


def rescue(content: Mapping[str, Any], name: str, now: datetime) -> Path | None:
    """Write an executed notebook where it can be found: the current folder, else the folder for temporary files.

    Return the path, which never existed before, or None where neither can be written. `name` is the notebook's path.
    Only the user can read it: the notebook it should have become may have been as private, or on a server.
    """
    stem = (Path(name).stem or "notebook").encode()[:LONGEST_STEM].decode(errors="ignore")
    for folder in (Path.cwd, tempfile.gettempdir):
        # The current folder may be gone, taken away by the notebook itself.
        with contextlib.suppress(SaveFailed, OSError):
            path = Path(folder()) / f"{stem}.rescued-{now:%Y%m%d-%H%M%S-%f}.ipynb"
            write_notebook(path, content, mode=0o600)
            return path
    return None


class _NotReplaced(Exception):
    """The old file is to stay."""


@contextlib.contextmanager
def _replacing(path: Path, where: Callable[[], bool] | None, mode: int | None) -> Iterator[Any]:
    """Open a binary file that takes the place of `path` when the block ends well and `where` holds."""
    old = path.stat() if path.exists() else None
    descriptor, temporary = tempfile.mkstemp(prefix=".nbrun-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if old is not None and hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # only root can give a file back to its owner
                os.chown(temporary, old.st_uid, old.st_gid)
        usual = _usual_mode() if mode is None else mode
        Path(temporary).chmod(usual if old is None else old.st_mode & 0o777)
        if where is not None and not where():
            raise _NotReplaced
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _usual_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
