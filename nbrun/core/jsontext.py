"""JSON as kernels and servers really send it, read without an exception that is not ours.

Python's ``json`` is strict about nothing that matters here and lenient about what hurts later, so three things are
put right on the way in: ``NaN``, the infinities and numbers beyond them (``1e999``), which no browser can read back,
become null; bytes that are no UTF-8 become U+FFFD; escapes of lone surrogates, which cannot be encoded again (a save
would answer 500), become U+FFFD too. What is nested so deep that others fail on it, the server while it saves among
them, is refused. The passes for surrogates and depth cost a walk over the value each, and are made only where the
text has such an escape, or brackets enough, at all.
"""

import json
import math
from typing import Any

from nbrun.errors import BadFrame

DEEPEST = 200
"""Levels of arrays and objects. A Jupyter server, at two frames of Python a level, fails at some four hundred."""


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


_decoder = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


def loads(raw: bytes | bytearray | memoryview | str) -> Any:
    """Read JSON text; raises :class:`BadFrame` for what is none, is nested too deep or holds an endless number."""
    text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")
    try:
        value = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not readable as JSON: {error}") from None
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise BadFrame(f"not readable as JSON: nested more than {DEEPEST} levels deep")
    if "\\ud" in text or "\\uD" in text:
        return without_surrogates(value)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]  # the arrays and objects of one level after the other
    for _ in range(DEEPEST):
        items = (inner.values() if isinstance(inner, dict) else inner for inner in level)
        level = [item for inner in items for item in inner if isinstance(item, (dict, list))]
    return bool(level)


def dumps(value: Any) -> str:
    """Write compact JSON that any reader can read: non-ASCII as it is, never a bare NaN."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def as_object(value: Any) -> dict[str, Any]:
    """Give a JSON object as it is, and an empty one for whatever is none."""
    return value if isinstance(value, dict) else {}


def without_surrogates(value: Any) -> Any:
    """Give `value` with every lone surrogate in its strings and keys replaced by U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value
