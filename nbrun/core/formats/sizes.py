"""Sizes as people write them: ``500000``, ``500kB``, ``50MB``, ``1.5GiB``; ``none`` for no limit."""

import math
import re

MAX_RESPONSE = 2 << 30
"""Bytes of a server's response body, decompressed, that are read at most unless said otherwise."""
MAX_FRAME = 1 << 30
"""Bytes of a message from a kernel, decompressed: an image of 200 MB is 267 MB in base64."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SHAPE = re.compile(r"(\d+(?:\.\d+)?)(k|m|g|ki|mi|gi)?b?")


def parse_size(text: str) -> int | None:
    """Return the number that `text` names, None for ``none``; raises ValueError with what would be right."""
    bare = text.strip().lower().replace(" ", "").replace("_", "")
    if bare == "none":
        return None
    match = _SHAPE.fullmatch(bare)
    if match is None:
        raise ValueError(f"{text!r} is no size; write 500kB, 50MB, 1.5GB, or none")
    size = float(match.group(1)) * _UNITS[match.group(2) or ""]
    if math.isinf(size):
        raise ValueError(f"{text[:40]}… is beyond all sizes; write none for no limit")
    return round(size)


def parse_count(text: str) -> int | None:
    """Return the whole number from 1 to 999999999 that `text` is written as, None for anything else."""
    bare = text.strip()
    return int(bare) or None if re.fullmatch(r"[0-9]{1,9}", bare) else None


def spell_size(size: int) -> str:
    """Return a size as a person reads it: ``812 B``, ``4.2 kB``, ``50 MB``, ``1.3 GB``."""
    if size < 1000:
        return f"{size} B"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        # What would be rounded to 1000 is said in the next unit.
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}" if value < 100 else f"{value:.0f} {unit}"
