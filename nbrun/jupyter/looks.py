"""What two looks at a file tell: whether it is another one, whether a save arrived, whether it is what was sent.

By hash where the server knows hashes (since 2.11), on older ones by date and size; where neither is known, nothing is
held against anybody.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from nbrun.core.notebook_text import notebook_text
from nbrun.jupyter.contents import ContentsModel

_MTIME_MARGIN = timedelta(milliseconds=500)


def differ(seen: ContentsModel, now: ContentsModel | None) -> bool:
    """Tell whether a file is another than the one that was seen; by hash, on old servers by its date."""
    if now is None:
        return True
    if seen.hash and now.hash:
        return seen.hash != now.hash
    if seen.last_modified and now.last_modified:
        return now.last_modified - seen.last_modified > _MTIME_MARGIN
    return False


def arrived(content: Mapping[str, Any], before: ContentsModel | None, after: ContentsModel) -> bool:
    """Tell whether a save arrived: the file is another than before, or it was the same notebook all along."""
    if before is None:
        return after.size != 0
    if before.hash and after.hash:
        return before.hash != after.hash or is_of(content, after)
    return before.last_modified is None or before.last_modified != after.last_modified


def written_since(saved: ContentsModel, now: ContentsModel) -> bool:
    """Tell whether a file was written again after the server had said that it was `saved`."""
    return None not in (saved.last_modified, now.last_modified) and saved.last_modified != now.last_modified


def is_of(content: Mapping[str, Any] | str, model: ContentsModel) -> bool:
    """Tell whether a file holds this notebook, or this text; where the server knows no hashes, take it for granted."""
    if not model.hash:
        return True
    try:
        text = content if isinstance(content, str) else notebook_text(content)
        return hashlib.new(model.hash_algorithm or "sha256", text.encode("utf-8", "replace")).hexdigest() == model.hash
    except ValueError:  # an algorithm that this Python does not know
        return False
