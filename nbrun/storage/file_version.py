"""What two looks at a file tell: whether it is another one, whether it is what was sent, whose it is after a save.

By hash where the server knows hashes (since 2.11), on older ones by date and size; where neither is known, nothing is
held against anybody. Of a file that is neither what was sent nor what was there before, its own text tells more: a
server whose hooks change what it saves leaves the mark of the run in it, which nobody else's notebook has.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.file_format import notebook_pieces
from nbrun.jupyter.contents import ContentsModel

_MTIME_MARGIN = timedelta(milliseconds=500)


def differ(seen: ContentsModel, now: ContentsModel | None) -> bool:
    """Return whether a file is another than the one that was seen; by hash, on old servers by its date."""
    if now is None:
        return True
    if seen.hash and now.hash:
        return seen.hash != now.hash
    if seen.last_modified and now.last_modified:
        return now.last_modified - seen.last_modified > _MTIME_MARGIN
    return False


def undone(before: ContentsModel | None, after: ContentsModel) -> bool:
    """Return whether a save of something else than `before` left no trace: the old file is there, or an empty one."""
    if before is None:
        return after.size == 0
    if before.hash and after.hash:
        return before.hash == after.hash
    return before.last_modified is not None and before.last_modified == after.last_modified


def written_since(saved: ContentsModel, now: ContentsModel) -> bool:
    """Return whether a file was written again after the server had said that it was `saved`."""
    return None not in (saved.last_modified, now.last_modified) and saved.last_modified != now.last_modified


def digest(content: Mapping[str, Any] | str, algorithm: str | None) -> str:
    """Return the hash that a server computes for the file of this notebook or text; empty where unknown."""
    try:
        found = hashlib.new(algorithm or "sha256")
    except ValueError:  # an algorithm that this Python does not know
        return ""
    if isinstance(content, str):
        found.update(content.encode("utf-8", "replace"))
        return found.hexdigest()
    for piece in notebook_pieces(content, secrets.token_hex(16)):
        found.update(piece)
    return found.hexdigest()


def is_of(content: Mapping[str, Any] | str, model: ContentsModel) -> bool:
    """Return whether a file holds this notebook or text; True where the server knows no hashes."""
    return not model.hash or digest(content, model.hash_algorithm) == model.hash


def bears_mark_of(content: Mapping[str, Any], found: Any) -> bool:
    """Return whether a notebook's file has the mark that a run left in `content`."""
    return bool(_mark(found)) and _mark(found) == _mark(content)


def _mark(content: Any) -> Mapping[str, Any]:
    return as_object(as_object(as_object(as_object(content).get("metadata")).get("nbrun")).get("run"))
