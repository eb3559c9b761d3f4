r"""Mask secrets in everything that a kernel or a server sends, before it is shown or stored.

A secret is searched as it is and in the forms in which programs print text: escaped for JSON, ``repr``, HTML and URLs,
in base64 at any offset, and in hexadecimal. Each line of a secret with several lines is a secret too, as on GitHub.

Terminal codes, line breaks in base64 and the quotes of strings that ``pprint`` wraps do not hide a secret. The search
then uses a view of the text without them, with a mapping to positions in the text::

    text   c2VjcmV0LWlzLWhlcmUtYW5kLW1vcmUtdGhhbi10aGF0\nLXZhbHVl    view   …tdGhhbi10aGF0LXZhbHVl
    text   'correct horse '\n 'battery'                            view   'correct horse battery'

A stream arrives in pieces, and a secret may be split between them. So the end of a piece that may be the beginning of a
secret is held back until the next piece.
"""

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from msgspec.structs import replace

from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Channel, Message

SHORTEST = 4
"""Minimum length. A shorter secret would match everywhere."""
SHORTEST_BASE64 = 8
"""Minimum characters of a secret's base64 that do not depend on its neighbours. Shorter ones match by chance."""
MASK = "***"
_TURNS = ("execute_request", CONDITIONAL_EXECUTE)
_CODE = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])"
_TERMINAL_CODE = re.compile(_CODE)
_CONTEXT = 32
"""Characters of base64 before a line break that make it wrapped base64. With fewer, it is the end of a line."""
_LINE = f"[A-Za-z0-9+/=_-]{{{_CONTEXT}}}"
_WRAP = "|".join(
    # The line break is matched first, then the text before it, because base64 characters are frequent.
    f"(?<={first}){rest}(?<={_LINE}{first}{rest})"
    for first, rest in (
        (r"\n", ""), (r"\r", r"\n"), (r"\\", r"n"), (r"\\", r"r\\n"), (r"\\", r"\\n"), (r"\\", r"\\r\\\\n"),
    )
)  # fmt: skip
_CONCATENATION = r"(?<=['\"])[ \t]*\r?\n[ \t]*[bBuU]{0,2}['\"]"
_ANY_GAP = rf"[\n\r\\'\"](?:{_WRAP}|{_CONCATENATION})"
_GAP = re.compile(_ANY_GAP)
_GAP_OR_CODE = re.compile(f"{_ANY_GAP}|{_CODE}")
_CUT_GAP = re.compile(r"(?:['\"][ \t]*(?:\r?\n[ \t]*[bBuU]{0,2}|\r)?|\r|\\{1,2}(?:r\\{0,2})?)\Z")
_LONGEST_CUT_GAP = 400
_MARKS = "%\\&:,"
"""Characters that are rare in text and common in encoded forms."""
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
_PERCENT = re.compile("%[0-9A-F]{2}")
_CUT_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?$")


class Mask:
    """Replaces a set of secrets by ``***``.

    >>> Mask(["s3cret-token"]).text("token=s3cret-token")
    'token=***'
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._longest = max(map(len, self._forms), default=0)
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))
        self._alphabet = frozenset().union(*self._forms)
        self._by_mark: dict[str, list[str]] = {}
        self._by_first: dict[str, list[str]] = {}
        for form in self._forms:
            mark = next((mark for mark in _MARKS if mark in form), "")
            self._by_mark.setdefault(mark, []).append(form)
            self._by_first.setdefault(form[0], []).append(form)
        self._bytes = [form.encode("utf-8", "surrogatepass") for form in self._forms]

    def __bool__(self) -> bool:
        """Return whether there are secrets to mask."""
        return bool(self._forms)

    def text(self, text: str, before: str = "") -> str:
        """Return `text` with ``***`` for every secret. Gaps inside a secret, such as terminal codes, follow the mask.

        `before` is the previous text of the same stream. It distinguishes line breaks in wrapped base64 from others.
        """
        start = len(before)
        joined = before + text if before else text
        if _GAP.search(joined, start):
            text = self._masked_in(joined, _View(joined, _GAP_OR_CODE.finditer(joined, start), start=start))[start:]
        if "\x1b" in text:
            return self._masked_in(text, _View(text, _TERMINAL_CODE.finditer(text)))
        return self._pattern.sub(MASK, text) if self._is_in(text) else text

    def value(self, value: Any) -> Any:
        """Return a JSON value with keys, texts and numbers masked, or the same object if it contains no secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            masked = {self.text(str(key)): self.value(item) for key, item in value.items()}
            return value if masked == value else masked
        if isinstance(value, (list, tuple)):
            items = [self.value(item) for item in value]
            if len(items) > 1 and all(isinstance(item, str) for item in items):
                # A list of lines is one text in a notebook.
                joined = "".join(items)
                items = [whole] if (whole := self.text(joined)) != joined else items
            return value if items == list(value) else items
        if isinstance(value, (int, float)) and str(value) in self._forms:
            return MASK
        return value

    def data(self, data: bytes) -> bytes:
        """Return masked binary data of the same length, because its reader may rely on the length."""
        for form in self._bytes:
            if form in data:
                data = bytes(data).replace(form, b"*" * len(form))
        return data

    def undecided(self, text: str, before: str = "") -> int:
        """Return the position in `text` from which it may be the beginning of a secret.

        `before` is the previous text of the same stream.
        """
        cut = _CUT_CODE.search(text)
        end = cut.start() if cut else len(text)
        plain = _View(text, _TERMINAL_CODE.finditer(text) if "\x1b" in text else (), end)
        first = self._beginning_in(plain, end)
        gap = _cut_gap(text, end)
        start = len(before)
        joined = before + text if before else text
        if gap is None and not _GAP.search(joined, start + max(0, end - 4 * self._longest - 1000), start + end):
            return first
        place, views = first, []
        # A quote at the end may be the last character of a gap or the first.
        for stop in {start + end, start + (gap.start() if gap else end)}:
            views.append(_View(joined, _GAP_OR_CODE.finditer(joined, start, stop), stop, start))
            found = self._beginning_in(views[-1], stop)
            place = min(place, found - start if found < stop else end)
        # A complete secret is never cut, even if it is found only in another view.
        spans = [*self._found_in(plain, 0), *(span for view in views for span in self._found_in(view, start))]
        while (begun := min((begun for begun, done in spans if begun < place < done), default=place)) < place:
            place = begun
        return place

    def _beginning_in(self, view: "_View", end: int) -> int:
        """Return the position in the text where an incomplete secret may begin, or `end`."""
        plain = view.plain
        first = self._beginning_of_tail(plain)
        if first == len(plain):
            return end
        whole = [found.span() for found in self._pattern.finditer(plain)] if self._is_in(plain) else []
        for start in range(first, len(plain)):
            # A beginning inside a complete secret is masked with it.
            if self._may_begin(plain[start:]) and not any(begun < start < done for begun, done in whole):
                return view.place(start)
        return end

    def _found_in(self, view: "_View", start: int) -> list[tuple[int, int]]:
        """Return the positions of complete secrets, relative to `start` of the text."""
        if not self._is_in(view.plain):
            return []
        found = [one.span() for one in self._pattern.finditer(view.plain)]
        return [(view.place(begun) - start, view.place(done - 1) + 1 - start) for begun, done in found]

    def _beginning_of_tail(self, plain: str) -> int:
        """Return the position behind the last character that is in no secret. Most pieces end in a newline."""
        shortest = max(0, len(plain) - self._longest + 1)
        place = len(plain)
        while place > shortest and plain[place - 1] in self._alphabet:
            place -= 1
        return place

    def _may_begin(self, tail: str) -> bool:
        return any(form.startswith(tail) and len(form) > len(tail) for form in self._by_first.get(tail[0], ()))

    def _is_in(self, text: str) -> bool:
        for mark, forms in self._by_mark.items():
            if mark in text:
                for form in forms:
                    if form in text:
                        return True
        return False

    def _masked_in(self, text: str, view: "_View") -> str:
        if not self._is_in(view.plain):
            return text
        pieces, done = [], 0
        for found in self._pattern.finditer(view.plain):
            first, last = view.place(found.start()), view.place(found.end() - 1)
            pieces += [text[done:first], MASK, *view.between(first, last)]
            done = last + 1
        return "".join([*pieces, text[done:]])


class _View:
    """A part of a text, from `start` to `end`, without its gaps, and the positions of its characters in the text."""

    def __init__(self, text: str, gaps: Iterable[re.Match[str]], end: int | None = None, start: int = 0) -> None:
        self._gaps = list(gaps)
        self._starts = [start, *(gap.end() for gap in self._gaps)]
        ends = [*(gap.start() for gap in self._gaps), len(text) if end is None else end]
        pieces = [text[first:last] for first, last in zip(self._starts, ends, strict=True)]
        self._offsets = [0]
        for piece in pieces[:-1]:
            self._offsets.append(self._offsets[-1] + len(piece))
        self.plain = "".join(pieces) if self._gaps else pieces[0]

    def place(self, offset: int) -> int:
        """Return the position in the text of the character at `offset` of the view."""
        piece = bisect_right(self._offsets, offset) - 1
        return self._starts[piece] + offset - self._offsets[piece]

    def between(self, first: int, last: int) -> list[str]:
        """Return the gaps between two positions in the text."""
        return [gap[0] for gap in self._gaps if first < gap.start() < last]


def _forms(secret: str) -> Iterator[str]:
    """Return all forms of a secret that are masked."""
    parts = {secret, secret.strip(), *(line.strip() for line in secret.splitlines())}
    for part in parts:
        if len(part) >= SHORTEST:
            yield part
            yield from _spellings(part)
            yield from _encodings(part.encode("utf-8", "surrogatepass"))


def _spellings(text: str) -> Iterator[str]:
    escaped = json.dumps(text)[1:-1]
    yield from (escaped, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(escaped)[1:-1])
    yield _UNICODE_ESCAPE.sub(lambda found: f"\\u{found[1].upper()}", escaped)
    # A leading quote of either kind makes repr() use the other kind.
    yield from (repr(f"'{text}")[2:-1], repr(f'"{text}')[2:-1], ascii(f'"{text}')[2:-1])
    units = [int.from_bytes(pair) for pair in _pairs(text.encode("utf-16-be", "surrogatepass"))]
    for digits in ("04x", "04X"):
        yield "".join(f"\\u{unit:{digits}}" for unit in units)
    yield from (html.escape(text), html.escape(text, quote=False), html.escape(text).replace("&#x27;", "&#39;"))
    yield html.escape(text).encode("ascii", "xmlcharrefreplace").decode()
    raw = text.encode("utf-8", "surrogatepass")
    yield repr(raw)[2:-1]
    for percent in (quote(raw, safe=""), quote(raw), quote_plus(raw), "".join(f"%{byte:02X}" for byte in raw)):
        lower = _PERCENT.sub(lambda found: found[0].lower(), percent)
        yield from (percent, lower, percent.replace("%", "%25"), lower.replace("%", "%25"))


def _encodings(raw: bytes) -> Iterator[str]:
    for separator in ("", ":", " ", "-", "\\x", ", 0x"):
        digits = separator.join(f"{byte:02x}" for byte in raw)
        yield from (digits, separator.join(f"{byte:02X}" for byte in raw))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode()
        for before in range(3):
            # The first and last characters contain bits of the neighbours. The characters between are constant.
            inner = encode(b"\0" * before + raw).decode().rstrip("=")
            inner = inner[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(inner) >= SHORTEST_BASE64:
                yield inner


def _cut_gap(text: str, end: int) -> re.Match[str] | None:
    """Return a possible beginning of a gap at the end of `text[:end]`."""
    start = max(0, end - _LONGEST_CUT_GAP)
    tail = text[start:end].rstrip(" \t\r\nbBuU")
    if tail.endswith(("'", '"', "\\", "\\r")) or text.endswith("\r", 0, end):
        return _CUT_GAP.search(text, start, end)
    return None


def _pairs(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 2] for place in range(0, len(data), 2))


class MaskedMessages:
    """Masks the messages of one kernel in their order, and may hold back the end of a stream.

    Every message is passed on, even if its text is held back, because messages are counted. Held text is passed on in
    an additional message without a number.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held: dict[str, Message] = {}
        """Held text as messages, by the request that they belong to."""
        self._before: dict[str, tuple[str, str]] = {}
        """The name of the stream that each request wrote last, and the end of the text that was passed on."""
        self._idle: set[str] = set()
        """The requests that the kernel has finished. Only threads still write for them."""

    def mask(self, message: Message) -> list[Message]:
        """Return the messages that replace this one."""
        if message.channel != Channel.IOPUB:
            return [self._masked(message)]
        if message.type == "stream" and isinstance(message.content.get("text"), str):
            return self._mask_stream(message)
        if message.type == "status":
            # A cell continues during control requests. It has ended when another cell starts.
            is_a_turn = message.parent.get("msg_type") in _TURNS
            released = self.release() if is_a_turn else self._release_of(message.parent_id)
            if message.content.get("execution_state") == "idle":
                self._idle.add(message.parent_id)
        else:
            released = self._release_of(message.parent_id)
        return [*released, self._masked(message)]

    def release(self) -> list[Message]:
        """Return all held text, because no more will arrive."""
        return [message for parent in list(self._held) for message in self._release_of(parent)]

    def release_late(self) -> list[Message]:
        """Return the held text of finished requests, because the run may be about to end."""
        return [message for parent in self._idle & self._held.keys() for message in self._release_of(parent)]

    def _release_of(self, parent: str) -> list[Message]:
        held = self._held.pop(parent, None)
        _, before = self._before.pop(parent, ("", ""))
        return [] if held is None else [_with_text(held, self._mask.text(held.content["text"], before))]

    def _mask_stream(self, message: Message) -> list[Message]:
        parent, name, text, released = message.parent_id, message.content.get("name"), message.content["text"], []
        if parent in self._held and self._held[parent].content.get("name") == name:
            text = self._held.pop(parent).content["text"] + text
        elif parent in self._held or self._before.get(parent, ("", ""))[0] != name:
            released = self._release_of(parent)
        before = self._before.get(parent, ("", ""))[1]
        end = self._mask.undecided(text, before)
        if end < len(text):
            self._held[parent] = replace(_with_text(message, text[end:]), header={**message.header, "msg_id": ""})
        self._before[parent] = (str(name), (before + text[:end])[-_CONTEXT:])
        return [*released, _with_text(message, self._mask.text(text[:end], before))]

    def _masked(self, message: Message) -> Message:
        return replace(
            message,
            content=self._mask.value(message.content),
            metadata=self._mask.value(message.metadata),
            buffers=tuple(self._mask.data(buffer) for buffer in message.buffers),
        )


def _with_text(message: Message, text: str) -> Message:
    return replace(message, content={**message.content, "text": text})


def lines_to_mask(secret: str) -> list[str]:
    """Return the lines of a secret. GitHub needs each line separately."""
    return [line for line in secret.splitlines() if line.strip()]


def is_too_short(secret: str) -> bool:
    """Return whether a secret is too short to be masked."""
    return len(secret.strip()) < SHORTEST
