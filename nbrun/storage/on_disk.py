"""Notebooks on the local disk: atomic reads and writes, and where rescue files are written.

A file is written under another name in the same folder and then renamed, so that at every moment it is the old one or
the new one.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbrun.core.notebook.file_writing import notebook_text
from nbrun.errors import NoSuchNotebook, NotANotebook, SaveFailed, UsageError
from nbrun.jupyter.http.retry import PATIENT_GET, RetryPolicy
from nbrun.storage.base import Written
from nbrun.storage.file_version import FileVersion, is_same, version_of
from nbrun.storage.writable import mode_of

LONGEST_STEM = 200
"""Maximum bytes of a notebook's name in the name of a rescue file; most file systems allow 255 bytes per name."""


def read_bytes(path: Path) -> bytes:
    """Return a notebook's bytes; raise :class:`NoSuchNotebook` or :class:`NotANotebook`."""
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
    """Return a notebook's text; raise :class:`NoSuchNotebook` or :class:`NotANotebook`."""
    return decoded(path, read_bytes(path))


def decoded(path: Path, data: bytes) -> str:
    """Return the text of a notebook's bytes with plain line breaks; raise :class:`NotANotebook`."""
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise NotANotebook(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def lock_file(file: int, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether that was possible; another process may hold the lock.

    With `wait`, wait for it. Raise OSError on a file system without locks. On Windows nothing is locked.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class DiskFile:
    """A file on the local disk: a :class:`~nbrun.storage.base.Storage`."""

    def __init__(self, path: Path, *, mode: int | None = None) -> None:
        """Use the file at `path`. If it must be created, it gets its current permissions, or else `mode`."""
        self.path = path
        now = mode_of(path)
        self._mode = mode if now is None else now

    @property
    def name(self) -> str:
        """Return the path as the user knows it."""
        return str(self.path)

    def beside(self, suffix: str) -> "DiskFile":
        """Return the file ``NAME{suffix}.ipynb`` in the same folder, with the same permissions if it is created."""
        path = self.path.with_name(f"{self.path.stem}{suffix}{self.path.suffix}")
        now = mode_of(self.path)
        return DiskFile(path, mode=self._mode if now is None else now)

    async def exists(self) -> bool:
        """Return whether a file or folder exists at the path."""
        return self.path.exists()

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:  # noqa: ARG002
        """Return the version of the file, or None if it does not exist or is not accessible."""
        return self._version()

    async def read(self) -> tuple[bytes, FileVersion]:
        """Return the content and its version; raise :class:`NoSuchNotebook` or :class:`NotANotebook`."""
        data = read_bytes(self.path)
        return data, version_of(data)

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Write a notebook; return None if the file has changed at the last moment. Raise :class:`SaveFailed`."""
        data = notebook_text(content).encode("utf-8", "replace")
        if _replace(self.path, data, self._mode, lambda: is_same(unless_changed_since, self._version())):
            return Written(version_of(data))
        return None

    def _version(self) -> FileVersion | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        try:
            with self.path.open("rb") as file:
                return FileVersion(hashlib.file_digest(file, "sha256").hexdigest(), "sha256", size=found.st_size)
        except OSError:  # a folder, or a file that may not be read
            modified = datetime.fromtimestamp(found.st_mtime, UTC)
            return FileVersion(f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}", "state", modified, found.st_size)


def write_notebook(path: Path, content: Mapping[str, Any], *, mode: int | None = None) -> None:
    """Write a notebook and replace any existing file; raise :class:`SaveFailed`.

    Parent folders are created. An existing file keeps its permissions. A new one gets `mode`, or the default ones.
    """
    _replace(path, notebook_text(content).encode("utf-8", "replace"), mode, lambda: True)


def _replace(path: Path, data: bytes, mode: int | None, where: Callable[[], bool]) -> bool:
    """Write a file; return False and keep the old one if `where` is false at the last moment."""
    try:
        path = path.resolve()  # a symbolic link stays, and its target is replaced
        if path.is_symlink():  # a link to itself, with which Python 3.13 and newer are content
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path, where, mode) as handle:
            handle.write(data)
    except _NotReplaced:
        return False
    except (OSError, RuntimeError) as error:  # before Python 3.13, a link to itself is a RuntimeError
        reason = error.strerror if isinstance(error, OSError) else "a link that leads to itself"
        raise SaveFailed(f"{path}: cannot be written: {reason}") from None
    return True


def rescue(content: Mapping[str, Any], name: str, now: datetime) -> Path | None:
    """Write an executed notebook to the current folder, or else to the folder for temporary files.

    Return the path of the new file, or None if neither folder is writable. `name` is the notebook's path. Only the user
    can read the file, because the notebook may be private or on a server.
    """
    stem = (Path(name).stem or "notebook").encode()[:LONGEST_STEM].decode(errors="ignore")
    for folder in (Path.cwd, tempfile.gettempdir):
        # The notebook may have deleted the current folder.
        with contextlib.suppress(SaveFailed, OSError):
            path = Path(folder()) / f"{stem}.rescued-{now:%Y%m%d-%H%M%S-%f}.ipynb"
            write_notebook(path, content, mode=0o600)
            return path
    return None


class _NotReplaced(Exception):
    """The file has changed, so it is not replaced."""


@contextlib.contextmanager
def _replacing(path: Path, where: Callable[[], bool], mode: int | None) -> Iterator[Any]:
    """Open a binary file that replaces `path` if the block ends without an error and `where` is true."""
    old = path.stat() if path.exists() else None
    temporary = path.with_name(f".nbrun-{secrets.token_hex(8)}")
    wanted = mode if old is None else old.st_mode & 0o777
    try:
        # Without a mode, the umask decides. It is not asked for, because that changes it for all threads.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666 if wanted is None else 0o600), "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if old is not None and hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # only root can change the owner
                os.chown(temporary, old.st_uid, old.st_gid)
        if wanted is not None:
            temporary.chmod(wanted)
        if not where():
            raise _NotReplaced
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
