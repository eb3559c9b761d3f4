"""Durations as people write them: ``90``, ``90s``, ``5m``, ``1h30m``; ``none`` for no limit."""

import math
import re

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SHAPE = re.compile(r"(?:\d+(?:\.\d+)?(?:d|h|ms|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s)")


def parse_duration(text: str) -> float:
    """Return the seconds that `text` names, infinity for ``none``; raises ValueError with what would be right."""
    bare = text.strip().lower().replace(" ", "")
    if bare in ("none", "never"):
        return math.inf
    if re.fullmatch(r"\d+(?:\.\d+)?", bare):
        seconds = float(bare)
    elif _SHAPE.fullmatch(bare):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(bare))
    else:
        raise ValueError(f"{text!r} is no duration; write 90, 90s, 5m, 1h30m, or none")
    if math.isinf(seconds):
        raise ValueError(f"{text[:40]}… is beyond all durations; write none for no limit")
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time at all; write none for no limit")
    return seconds


def spell_duration(seconds: float) -> str:
    """Return a duration as a person reads it: ``0.4 s``, ``41 s``, ``5 min 3 s``, ``1 h 30 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
