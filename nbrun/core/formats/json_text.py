"""Read and write JSON of kernels and servers; the only module that does so with msgspec.

Valid JSON is read by msgspec, which is several times faster than Python's ``json`` and keeps integers of any size.
Other text is read again with tolerance: ``NaN``, infinities and numbers such as ``1e999`` become null, because no
browser can read them. Invalid UTF-8 becomes U+FFFD, and so do lone surrogates, because a server cannot save them. JSON
that is nested too deeply for a server to save is refused. The depth is computed only if the text has enough brackets.

:class:`JsonReader` reads text that arrives in pieces by the same rules.
"""

import json
import math
from typing import Any

import msgspec

from nbrun.core.formats.json_pieces import JsonPieces
from nbrun.errors import BadFrame

DEEPEST = 200
"""Maximum levels of arrays and objects. A Jupyter server, with two Python frames per level, fails at about 400."""

_SEARCHED = 10_000
"""Minimum length of a text in which brackets are searched. A shorter one is counted faster."""


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


_tolerant = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)
_strict = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def loads(raw: bytes | bytearray | str) -> Any:
    """Read JSON text; raise :class:`BadFrame` if it is invalid, nested too deeply or contains an endless number."""
    unclean = ""
    try:
        value = _strict.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        unclean = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        value = _read_tolerantly(unclean)
    if _brackets(raw) > DEEPEST and _is_deep(value):
        raise BadFrame(f"not readable as JSON: nested more than {DEEPEST} levels deep")
    return without_surrogates(value) if "\\ud" in unclean.lower() else value


class JsonReader:
    """A JSON text that arrives in pieces; its value needs little more memory than the value alone."""

    def __init__(self) -> None:
        self._pieces = JsonPieces(_tolerant, "replace")
        self._brackets = 0
        self._end = b""
        self._may_have_surrogates = False

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the text."""
        self._pieces.feed(piece)
        if self._brackets <= DEEPEST:
            self._brackets += _brackets(piece)
        if not self._may_have_surrogates and b"\\" in (text := self._end + piece):
            self._may_have_surrogates = b"\\ud" in text or b"\\uD" in text
        self._end = piece[-2:]

    def value(self) -> Any:
        """Return the value; raise :class:`BadFrame` as :func:`loads` does."""
        try:
            value = self._pieces.value()
        except (ValueError, RecursionError) as error:
            raise BadFrame(f"not readable as JSON: {error}") from None
        if self._brackets > DEEPEST and _is_deep(value):
            raise BadFrame(f"not readable as JSON: nested more than {DEEPEST} levels deep")
        return without_surrogates(value) if self._may_have_surrogates and _has_surrogates(value) else value


class _Notebook(msgspec.Struct):
    metadata: dict[str, Any] = {}


def notebook_metadata(raw: bytes) -> dict[str, Any] | None:
    """Return the metadata in a notebook's JSON, or None for any other text. The cells are skipped, which is fast."""
    try:
        return msgspec.json.decode(raw, type=_Notebook).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _read_tolerantly(text: str) -> Any:
    try:
        return _tolerant.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not readable as JSON: {error}") from None


def _brackets(raw: bytes | bytearray | str) -> int:
    """Return the number of opening brackets, or more than :data:`DEEPEST` if there are more.

    For an image, which has none, counting takes five times as long as parsing, and searching a twentieth of that.
    """
    opening: Any = "[{" if isinstance(raw, str) else (b"[", b"{")
    if len(raw) < _SEARCHED:
        return raw.count(opening[0]) + raw.count(opening[1])
    found = 0
    for bracket in opening:
        at = raw.find(bracket)
        while at >= 0 and found <= DEEPEST:
            found += 1
            at = raw.find(bracket, at + 1)
    return found


def _is_deep(value: Any) -> bool:
    level = [value]  # the arrays and objects of the current level
    for _ in range(DEEPEST):
        items = (inner.values() if isinstance(inner, dict) else inner for inner in level)
        level = [item for inner in items for item in inner if isinstance(item, (dict, list))]
    return bool(level)


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return without_surrogates(value) != value  # type: ignore[no-any-return]
    if isinstance(value, list):
        return any(map(_has_surrogates, value))
    return isinstance(value, dict) and any(map(_has_surrogates, (*value, *value.values())))


def dumps(value: Any) -> bytes:
    """Return compact JSON in UTF-8 that any reader can read.

    Non-ASCII characters are not escaped. NaN and the infinities become null, as in a browser, and a lone surrogate
    becomes U+FFFD. Raises TypeError for a value that JSON cannot represent, RecursionError for one that contains
    itself.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(without_surrogates(value))


def dump_into(buffer: bytearray, value: Any) -> None:
    """Append the result of :func:`dumps` to `buffer` without a copy; after an error the buffer is unchanged."""
    before = len(buffer)
    try:
        _encoder.encode_into(value, buffer, -1)
    except UnicodeEncodeError:
        del buffer[before:]
        _encoder.encode_into(without_surrogates(value), buffer, -1)
    except BaseException:
        del buffer[before:]
        raise


def indented(value: Any) -> bytes:
    """Return JSON in UTF-8 as nbformat formats it: one space per level, sorted keys, and only necessary escapes.

    Numbers are spelled by Python, also NaN and the infinities. A lone surrogate becomes ``?``. Raises the errors of
    :func:`json.dumps`.
    """
    options: dict[str, Any] = {"ensure_ascii": False, "sort_keys": True, "default": _ascii}
    compact = json.dumps(value, separators=(",", ":"), **options).encode("utf-8", "replace")
    try:
        return msgspec.json.format(compact, indent=1)  # with indent, json encodes in Python
    except msgspec.MsgspecError:  # NaN or an infinity
        return json.dumps(value, indent=1, **options).encode("utf-8", "replace")


def _ascii(value: Any) -> str:
    """Return bytes as text, which nbformat accepts in base64."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def as_object(value: Any) -> dict[str, Any]:
    """Return a JSON object unchanged, and any other value as an empty one."""
    return value if isinstance(value, dict) else {}


def without_surrogates(value: Any) -> Any:
    """Return `value` with every lone surrogate in its strings and keys replaced by U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value
