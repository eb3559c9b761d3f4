"""Compare versions of a file by hash, date and size, to detect changes by others.

Jupyter servers report hashes since 2.11. On older servers date and size are compared. If neither is known, a file
counts as unchanged. A hook of a server can change what it saves. Then neither hash nor date shows who wrote the file,
and the mark that the run left in the notebook's metadata decides.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.file_writing import notebook_pieces

_MTIME_MARGIN = timedelta(milliseconds=500)


class FileVersion(Struct, frozen=True):
    """The known properties of one version of a file; unknown ones are None.

    ``hash`` is hexadecimal, of the bytes of the file, or any text that changes with the file (such as an ETag).
    ``hash_algorithm`` is the name of the algorithm in :mod:`hashlib`, or any other name.
    """

    hash: str | None = None
    hash_algorithm: str | None = None
    last_modified: datetime | None = None
    size: int | None = None


def version_of(data: bytes) -> FileVersion:
    """Return the version of a file with this content."""
    return FileVersion(hashlib.sha256(data).hexdigest(), "sha256", size=len(data))


def differ(seen: FileVersion, now: FileVersion | None) -> bool:
    """Return whether a file has changed since the version `seen`; a deleted file has."""
    if now is None:
        return True
    if seen.hash and now.hash:
        return seen.hash != now.hash
    if seen.last_modified and now.last_modified:
        return now.last_modified - seen.last_modified > _MTIME_MARGIN
    return False


def is_same(before: FileVersion | None, now: FileVersion | None) -> bool:
    """Return whether a file is unchanged; None means no file."""
    return now is None if before is None else not differ(before, now)


def was_reverted(before: FileVersion | None, after: FileVersion) -> bool:
    """Return whether a save was undone: the file `before` is there again, or an empty one."""
    if before is None:
        return after.size == 0
    if before.hash and after.hash:
        return before.hash == after.hash
    return before.last_modified is not None and before.last_modified == after.last_modified


def written_since(saved: FileVersion, now: FileVersion) -> bool:
    """Return whether a file was written again after the storage confirmed the version `saved`."""
    return None not in (saved.last_modified, now.last_modified) and saved.last_modified != now.last_modified


def digest(content: Mapping[str, Any] | bytes, algorithm: str | None) -> str:
    """Return the hash of a notebook's file, or of bytes, or "" if Python does not know the algorithm."""
    try:
        found = hashlib.new(algorithm or "sha256")
    except ValueError:
        return ""
    if isinstance(content, bytes):
        found.update(content)
        return found.hexdigest()
    for piece in notebook_pieces(content, secrets.token_hex(16)):
        found.update(piece)
    return found.hexdigest()


def is_of(content: Mapping[str, Any] | bytes, version: FileVersion) -> bool:
    """Return whether a notebook or file has this version; True if the version has no hash."""
    return not version.hash or digest(content, version.hash_algorithm) == version.hash


def has_mark_of(content: Mapping[str, Any], found: Any) -> bool:
    """Return whether a notebook has the same mark of a run as `content`."""
    return bool(_mark(found)) and _mark(found) == _mark(content)


def _mark(content: Any) -> Mapping[str, Any]:
    return as_object(as_object(as_object(as_object(content).get("metadata")).get("nbrun")).get("run"))
