"""Takes secrets out of whatever a kernel or a server says, before anybody is told of it.

A secret is looked for as it is and in the forms in which programs put out text: escaped for JSON, ``repr``, HTML and
URLs, in base64 wherever in a longer text it stands, in hexadecimal. Terminal codes between its characters do not hide
it. Of a secret of several lines each line is one, as GitHub has it.

A stream comes in pieces, and a secret may be cut anywhere. So the end of a piece that may be the beginning of a secret
is held back until it is decided.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

from nbrun.core.guard import EXECUTE
from nbrun.core.messages import Channel, Message

SHORTEST = 4
"""Characters. A secret of fewer would be found in every other word."""
SHORTEST_BASE64 = 8
"""Characters of a secret's base64 that its neighbours have no part in; of fewer, chance would make too many."""
MASK = "***"
_TURNS = ("execute_request", EXECUTE)
_TERMINAL_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_CUT_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?$")


UNHEARD = (
    "(lambda os, sys: [os.dup2(os.open(os.devnull, os.O_WRONLY), stream._original_stdstream_copy)"
    " for stream in (sys.stdout, sys.stderr) if getattr(stream, '_original_stdstream_copy', None) is not None]"
    ")(__import__('os'), __import__('sys'))"
)
"""Keeps ipykernel from repeating in its server's log what reaches its file descriptors; does nothing in others."""


class Mask:
    """Knows some secrets, and what to put in their place."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._longest = max(map(len, self._forms), default=0)
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))
        self._alphabet = frozenset().union(*self._forms)
        self._bytes = [form.encode("utf-8", "surrogatepass") for form in self._forms]

    def __bool__(self) -> bool:
        """Tell whether there is anything to mask."""
        return bool(self._forms)

    def text(self, text: str) -> str:
        """Give `text` with ``***`` for every secret in it; terminal codes that stood inside one stay, behind it."""
        if "\x1b" in text:
            return self._coloured(text)
        return self._pattern.sub(MASK, text) if self._is_in(text) else text

    def value(self, value: Any) -> Any:
        """Give a JSON value masked, keys and numbers too; the same object where nothing is masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            masked = {self.text(str(key)): self.value(item) for key, item in value.items()}
            return value if masked == value else masked
        if isinstance(value, (list, tuple)):
            items = [self.value(item) for item in value]
            return value if items == list(value) else items
        if isinstance(value, (int, float)) and str(value) in self._forms:
            return MASK
        return value

    def data(self, data: bytes) -> bytes:
        """Give binary data masked, of the same length: what reads it may count on that."""
        for form in self._bytes:
            if form in data:
                data = bytes(data).replace(form, b"*" * len(form))
        return data

    def undecided(self, text: str) -> int:
        """Give the place from which `text` may be the beginning of a secret that is cut off at its end."""
        cut = _CUT_CODE.search(text)
        end = cut.start() if cut else len(text)
        places: Sequence[int]
        if "\x1b" in text:
            places = _places_without(list(_TERMINAL_CODE.finditer(text)), end)
            plain = "".join(text[place] for place in places)
        else:
            places, plain = range(end), text
        first = self._beginning_of_tail(plain)
        if first == len(plain):
            return end
        whole = [found.span() for found in self._pattern.finditer(plain)] if self._is_in(plain) else []
        for start in range(first, len(plain)):
            # What begins inside a whole secret is masked with it.
            if self._may_begin(plain[start:]) and not any(begun < start < done for begun, done in whole):
                return places[start]
        return end

    def _beginning_of_tail(self, plain: str) -> int:
        """Give the place behind the last character that is in no secret: most pieces end in a newline."""
        shortest = max(0, len(plain) - self._longest + 1)
        place = len(plain)
        while place > shortest and plain[place - 1] in self._alphabet:
            place -= 1
        return place

    def _may_begin(self, tail: str) -> bool:
        return any(form.startswith(tail) and len(form) > len(tail) for form in self._forms)

    def _is_in(self, text: str) -> bool:
        return any(form in text for form in self._forms)

    def _coloured(self, text: str) -> str:
        codes = list(_TERMINAL_CODE.finditer(text))
        places = _places_without(codes, len(text))
        plain = "".join(text[place] for place in places)
        if not self._is_in(plain):
            return text
        pieces, done = [], 0
        for found in self._pattern.finditer(plain):
            first, last = places[found.start()], places[found.end() - 1]
            inside = "".join(code[0] for code in codes if first < code.start() < last)
            pieces += [text[done:first], MASK, inside]
            done = last + 1
        return "".join([*pieces, text[done:]])


def _places_without(codes: Sequence[re.Match[str]], end: int) -> list[int]:
    """Give the places of the characters before `end` that belong to no terminal code."""
    places: list[int] = []
    done = 0
    for code in codes:
        places += range(done, code.start())
        done = code.end()
    return [*places, *range(done, end)]


def _forms(secret: str) -> Iterator[str]:
    """Give every text that is to be masked for a secret."""
    parts = {secret, secret.strip(), *(line.strip() for line in secret.splitlines())}
    for part in parts:
        if len(part) >= SHORTEST:
            yield part
            yield from _spellings(part)
            yield from _encodings(part.encode("utf-8", "surrogatepass"))


def _spellings(text: str) -> Iterator[str]:
    escaped = json.dumps(text)[1:-1]
    yield from (escaped, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(escaped)[1:-1])
    # With either quote before it, so that it comes out quoted in both ways.
    yield from (repr(f"'{text}")[2:-1], repr(f'"{text}')[2:-1], ascii(f'"{text}')[2:-1])
    yield from (html.escape(text), html.escape(text, quote=False), html.escape(text).replace("&#x27;", "&#39;"))
    raw = text.encode("utf-8", "surrogatepass")
    yield from (quote(raw, safe=""), quote(raw), quote_plus(raw), repr(raw)[2:-1])


def _encodings(raw: bytes) -> Iterator[str]:
    yield from (raw.hex(), raw.hex().upper())
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode()
        for before in range(3):
            # The first and last characters have bits of the neighbours in them; what is between is always the same.
            inner = encode(b"\0" * before + raw).decode().rstrip("=")
            inner = inner[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(inner) >= SHORTEST_BASE64:
                yield inner


class MaskedMessages:
    """Masks the messages of one kernel in the order in which they come, and may hold back the end of a stream.

    Every message comes out, if only without its text, for messages are counted; what was held back comes out in one
    more that bears no number.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held: dict[str, Message] = {}
        """What is held back, by the request that it answers."""
        self._idle: set[str] = set()
        """The requests that the kernel is done with; only its threads write for them now."""

    def take(self, message: Message) -> list[Message]:
        """Give the messages that are to be taken in the place of this one."""
        if message.channel != Channel.IOPUB:
            return [self._masked(message)]
        if message.type == "stream" and isinstance(message.content.get("text"), str):
            return self._take_stream(message)
        if message.type == "status":
            # A cell runs on beside requests on the control channel; when another cell has its turn, it has ended.
            is_a_turn = message.parent.get("msg_type") in _TURNS
            released = self.release() if is_a_turn else self._release_of(message.parent_id)
            if message.content.get("execution_state") == "idle":
                self._idle.add(message.parent_id)
        else:
            released = self._release_of(message.parent_id)
        return [*released, self._masked(message)]

    def release(self) -> list[Message]:
        """Give what is held back: no more of it will come."""
        return [message for parent in list(self._held) for message in self._release_of(parent)]

    def release_late(self) -> list[Message]:
        """Give what is held back of requests that are done: the run may be about to end."""
        return [message for parent in self._idle & self._held.keys() for message in self._release_of(parent)]

    def _release_of(self, parent: str) -> list[Message]:
        held = self._held.pop(parent, None)
        return [] if held is None else [self._masked(held)]

    def _take_stream(self, message: Message) -> list[Message]:
        parent, text, released = message.parent_id, message.content["text"], []
        if parent in self._held and self._held[parent].content.get("name") == message.content.get("name"):
            text = self._held.pop(parent).content["text"] + text
        else:
            released = self._release_of(parent)
        end = self._mask.undecided(text)
        if end < len(text):
            self._held[parent] = replace(_with_text(message, text[end:]), header={**message.header, "msg_id": ""})
        return [*released, _with_text(message, self._mask.text(text[:end]))]

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
    """Give the lines of a secret, each of which GitHub wants to be told of by itself."""
    return [line for line in secret.splitlines() if line.strip()]


def is_too_short(secret: str) -> bool:
    """Tell whether a secret is too short to be masked."""
    return len(secret.strip()) < SHORTEST
