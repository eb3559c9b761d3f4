"""Checks before a run that files can be read and written.

Each check asks the file system and leaves no trace. An existing file is opened and closed. For a new one a temporary
file is created in the nearest existing folder and removed. Pipes and devices are only stat'ed. The module imports very
little, so that a private server can be started before the slow imports.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

from nbrun.core.planning.destinations import refuse_unreachable
from nbrun.errors import NoSuchNotebook, UsageError
from nbrun.reporters.safe_stream import own_stream

_BINARY = getattr(os, "O_BINARY", 0)
_LONGEST_LABEL = 100
_GRANT = "Choose another place, or give this user the right to write there."
_SHORTER = "Choose a shorter name: most file systems take 255 bytes, and nbrun and the server need a few of them."
_HINTS = {
    errno.EROFS: "The file system is read-only: choose another place.",
    errno.ENOSPC: "The disk is full.",
    errno.ELOOP: "A link there leads to itself.",
}


def is_there(path: str | os.PathLike[str]) -> bool:
    """Return whether a path exists and is accessible. Unlike in :mod:`pathlib`, a long name is not an error."""
    return os.path.exists(path)  # noqa: PTH110


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an accessible folder."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an accessible regular file."""
    return os.path.isfile(path)  # noqa: PTH113


def mode_of(path: Path) -> int | None:
    """Return the permissions of a file, or None if it does not exist."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return None


def require(name: str, path: Path, missing: str, hint: str) -> None:
    """Raise :class:`NoSuchNotebook` if nothing is at a path, :class:`UsageError` if it is not accessible."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchNotebook(f"{name}: {missing}", hint=hint) from None
    except OSError as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: OSError) -> UsageError:
    hint = "Give this user the right to read it." if error.errno in (errno.EACCES, errno.EPERM) else ""
    shown = name if len(name) <= _LONGEST_LABEL else f"{name[:_LONGEST_LABEL]}..."
    return UsageError(f"{shown}: cannot be read: {error.strerror}", hint=hint)


def check_readable(name: str, path: Path) -> None:
    """Raise :class:`UsageError` if the file `name` cannot be read."""
    try:
        os.close(os.open(path, os.O_RDONLY | _BINARY))
    except OSError as error:
        raise _unreadable(name, error) from None


def check_file(
    option: str, target: str | os.PathLike[str], *, hint: str = "", prefix: str = "", probed: set[Path] | None = None
) -> None:
    """Raise :class:`UsageError` if the file `target` of an option could not be written at the end.

    `hint` is for a user without the permission. `prefix` is put before the file's name during the write. `probed`
    contains the folders in which a file could already be created; a batch checks each of them once.
    """
    path = Path(target).absolute()
    label = f"{option} {target}".strip()
    try:
        try:
            found = os.stat(path)  # noqa: PTH116  (pathlib would hide some errors)
        except FileNotFoundError:
            path = Path(os.path.realpath(path))  # the missing target of a link
            _look_at_names(path, prefix)
            _probe_below(label, path.parent, set() if probed is None else probed)
            return
        if stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{label}: cannot be written: this is a folder", hint="Name the file in it.")
        if stat.S_ISREG(found.st_mode):
            _look_at_names(path, prefix)
            os.close(os.open(path, os.O_WRONLY | _BINARY))
    except OSError as error:
        raise _refusal(label, path, error, hint) from None


def check_folder(option: str, target: str | os.PathLike[str]) -> None:
    """Raise :class:`UsageError` if `target` is not a folder, or no file can be created in it."""
    path = Path(target).absolute()
    label = f"{option} {target}".strip()
    try:
        if os.path.lexists(path) and not path.is_dir():
            raise UsageError(f"{label}: this is a file", hint="Name a folder.")
        _look_at_names(path, "")
        _probe_below(label, path, set())
    except OSError as error:
        raise _refusal(label, path, error, "") from None


def check_trace(option: str, path: str) -> None:
    """Raise :class:`UsageError` if no trace can be written to `path`, which must be a regular file."""
    refuse_unreachable(option, path)
    if own_stream(path):
        raise UsageError(f"{option} {path}: a trace goes into a file", hint="Name a file.")
    if path.lower().endswith(".ipynb"):
        raise UsageError(f"{option} {path}: a trace does not go into a notebook", hint="Name another file.")
    check_file(option, path)


def _refusal(label: str, path: Path, error: OSError, hint: str) -> UsageError:
    if error.errno == errno.ENOTDIR:
        return UsageError(f"{label}: cannot be written: a folder of this path is a file", hint="Choose another place.")
    if error.errno == errno.ENAMETOOLONG:
        length = max(len(os.fsencode(part)) for part in path.parts)
        label = label if len(label) <= _LONGEST_LABEL else f"{label[:_LONGEST_LABEL]}..."
        return UsageError(f"{label}: cannot be written: a name of {length} bytes is too long", hint=_SHORTER)
    return UsageError(
        f"{label}: cannot be written: {error.strerror}", hint=_HINTS.get(error.errno or 0, hint or _GRANT)
    )


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    for path in (folder, *folder.parents):
        try:
            os.stat(path)  # noqa: PTH116  (a permission error must be raised)
        except FileNotFoundError:
            continue
        return path
    return folder


def _look_at_names(path: Path, prefix: str) -> None:
    """Raise OSError for a name that is too long, by a stat of each name that does not exist yet."""
    there = _nearest(path.parent)
    for name in (*path.parent.relative_to(there).parts, f"{prefix}{path.name}"):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(there / name)


def _probe_below(label: str, folder: Path, probed: set[Path]) -> None:
    """Create a file in the nearest existing folder, and remove it."""
    there = _nearest(folder)
    if not there.is_dir():
        raise UsageError(f"{label}: {there} is a file, not a folder", hint="Choose another place.")
    if there not in probed:
        probe = there / f".nbrun-{os.getpid()}-{os.urandom(6).hex()}"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600))
        probe.unlink()
        probed.add(there)
