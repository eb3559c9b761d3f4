"""Read and write durations (``90``, ``5m``, ``1h30m``) and sizes (``500kB``, ``1.5GiB``).

``none`` means no limit.
"""

import math
import re

MAX_RESPONSE = 2 << 30
"""Default limit of a server's response body, in bytes after decompression."""
MAX_ARTEFACTS = 1 << 30
"""Default limit of all artefacts of a run, in bytes."""
MAX_FRAME = 1 << 30
"""Default limit of one kernel message, in bytes after decompression. An image of 200 MB has 267 MB in base64."""

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(k|m|g|ki|mi|gi)?b?")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:d|h|ms|m|s))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s)")


def parse_duration(text: str) -> float:
    """Return the seconds that `text` specifies, or infinity for ``none``; raise ValueError with a valid example."""
    bare = text.strip().lower().replace(" ", "")
    if bare in ("none", "never"):
        return math.inf
    if re.fullmatch(r"\d+(?:\.\d+)?", bare):
        seconds = float(bare)
    elif _DURATION.fullmatch(bare):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(bare))
    else:
        raise ValueError(f"{text!r} is no duration; write 90, 90s, 5m, 1h30m, or none")
    if math.isinf(seconds):
        raise ValueError(f"{text[:40]}… is beyond all durations; write none for no limit")
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time at all; write none for no limit")
    return seconds


def spell_duration(seconds: float) -> str:
    """Return a duration for display: ``0.4 s``, ``41 s``, ``5 min 3 s``, ``1 h 30 min``, ``6 d 12 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def parse_size(text: str) -> int | None:
    """Return the number that `text` specifies, or None for ``none``; raise ValueError with a valid example."""
    bare = text.strip().lower().replace(" ", "").replace("_", "")
    if bare == "none":
        return None
    match = _SIZE.fullmatch(bare)
    if match is None:
        raise ValueError(f"{text!r} is no size; write 500kB, 50MB, 1.5GB, or none")
    size = float(match.group(1)) * _MULTIPLES[match.group(2) or ""]
    if math.isinf(size):
        raise ValueError(f"{text[:40]}… is beyond all sizes; write none for no limit")
    return round(size)


def parse_count(text: str) -> int | None:
    """Return `text` as an integer from 1 to 999999999, or None if it is not one."""
    bare = text.strip()
    return int(bare) or None if re.fullmatch(r"[0-9]{1,9}", bare) else None


def spell_size(size: int) -> str:
    """Return a size for display: ``812 B``, ``4.2 kB``, ``50 MB``, ``1.3 GB``."""
    if size < 1000:
        return f"{size} B"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        # A value that would be rounded to 1000 is shown in the next unit.
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}" if value < 100 else f"{value:.0f} {unit}"
