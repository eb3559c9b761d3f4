"""A JSON text in pieces is read like a whole one, and its large strings are not parsed."""

import base64
import json
import random
from typing import Any
from unittest.mock import Mock

import pytest

from nbrun.core.formats.json_body import LARGE, JsonBody

IMAGE = base64.b64encode(bytes(range(256)) * (LARGE // 256)).decode()
ARRAY = [number % 10 for number in range(LARGE)]


def read(text: bytes, size: int) -> Any:
    body = JsonBody("0123abcd")
    for start in range(0, len(text), size):
        body.feed(text[start : start + size])
    return body.value()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        [[0] * LARGE, "a"],
        {"a": IMAGE, "b": [IMAGE[4:], {"c": 1.5, IMAGE: "d"}], "e": None},
        {"text": f"{IMAGE}\n", "quoted": f'<img src="{IMAGE}">', "end": f'{IMAGE}"', "start": f'"{IMAGE}'},
        {"back": f"\\{IMAGE}", "ends": f"{IMAGE}\\", "both": f'\\"{IMAGE}\\"', "é": f"é{IMAGE}"},
        {"a": ARRAY, "b": [ARRAY, "c", *ARRAY, IMAGE], "d": {"e": ARRAY}, "f": [[0] * LARGE]},
        [",", *ARRAY, ":", *ARRAY, " ", IMAGE, f", {IMAGE}", f": {IMAGE}", f"] {IMAGE}"],
    ],
    ids=["null", "empty string", "numbers first", "strings", "quotes", "backslashes", "arrays", "commas"],
)
@pytest.mark.parametrize("size", [4099, LARGE, 1 << 30])
@pytest.mark.parametrize("compact", [False, True])
def test_the_value_is_that_of_the_whole_text(value: Any, size: int, compact: bool) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else (", ", ": ")).encode()
    assert read(text, size) == value


def test_pieces_may_end_anywhere() -> None:
    value = {"a": f'"{IMAGE}\\"', "b": [IMAGE, 1, '"', "\\", ARRAY], IMAGE: {"c": "\\\\"}}
    text = json.dumps(value).encode()
    chosen = random.Random(1)
    for _ in range(20):
        body, rest = JsonBody("0123abcd"), text
        while rest:
            size = chosen.choice((1, 2, 7, 100, 30_000, LARGE))
            body.feed(rest[:size])
            rest = rest[size:]
        assert body.value() == value


def test_a_large_string_is_not_in_the_text_that_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    body, parse = JsonBody("0123abcd"), Mock(return_value={})
    for piece in (b'{"a": "', IMAGE.encode(), b'", "b": 1}'):
        body.feed(piece)
    with monkeypatch.context() as patched:
        patched.setattr(json, "loads", parse)
        body.value()
    parse.assert_called_once_with('{"a": "0123abcd0", "b": 1}')


@pytest.mark.parametrize("text", [b"", b" \n"])
def test_an_empty_text_has_no_value(text: bytes) -> None:
    assert read(text, 10) is None


@pytest.mark.parametrize(
    "text", [b'{"a": ', b'"\xff"', f'{{"a": "{IMAGE}'.encode(), f'"{IMAGE}\xff"'.encode("latin-1")]
)
def test_what_is_no_json_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1|decode byte"):
        read(text, 1000)
