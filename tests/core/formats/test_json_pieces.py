"""A JSON text in pieces is read like a whole one, without the whole text in memory."""

import base64
import json
import random
import tracemalloc
from typing import Any

import pytest

from nbrun.core.formats.json_pieces import AHEAD, JsonPieces

IMAGE = base64.b64encode(bytes(range(256)) * (AHEAD // 256)).decode()
ARRAY = [number % 10 for number in range(AHEAD // 2)]
TEXT = "".join(f'line {number}: "quoted" \\ 100 €\n' for number in range(AHEAD // 16))
CELLS = [{"id": str(number), "outputs": [{"text": "1\n" * (number % 30)}]} for number in range(2000)]
VALUES = {
    "null": None,
    "an empty string": "",
    "numbers first": [[0] * AHEAD, "a"],
    "strings": {"a": IMAGE, "b": [IMAGE[4:], {"c": 1.5, IMAGE: "d"}], "e": None},
    "quotes": {"text": f"{IMAGE}\n", "quoted": f'<img src="{IMAGE}">', "end": f'{IMAGE}"', "start": f'"{IMAGE}'},
    "backslashes": {"back": f"\\{IMAGE}", "ends": f"{IMAGE}\\", "both": f'\\"{IMAGE}\\"', "all": "\\" * AHEAD},
    "escapes": [TEXT, {"😀": "😀é" * AHEAD}],
    "arrays": {"a": ARRAY, "b": [ARRAY, "c", *ARRAY, IMAGE], "d": {"e": ARRAY}, "f": [[0] * AHEAD, [], {}]},
    "many small ones": {"metadata": {}, "cells": CELLS, "nbformat": 4},
    "lines": TEXT.splitlines(keepends=True),
    "commas": [[", ", ',\n "', "],[", IMAGE[:9]] * (AHEAD // 16), [[1, [2, 3]], [4]] * (AHEAD // 16)],
}


def read(text: bytes, size: int) -> Any:
    pieces = JsonPieces()
    for start in range(0, len(text), size):
        pieces.feed(text[start : start + size])
    return pieces.value()


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("size", [4099, AHEAD, 1 << 30])
@pytest.mark.parametrize("style", [{"separators": (",", ":")}, {"indent": 1, "ensure_ascii": False}])
def test_the_value_is_that_of_the_whole_text(value: Any, size: int, style: dict[str, Any]) -> None:
    assert read(json.dumps(value, **style).encode(), size) == value


@pytest.mark.parametrize("size", [1000, 1 << 30])
def test_space_may_be_longer_than_what_is_looked_at(size: int) -> None:
    space = " \n" * AHEAD
    assert read(f"{space}[{space}]{space}".encode(), size) == []
    assert read(f'{{{space}"a"{space}:{space}{{{space}}}{space},"b":1{space}}}'.encode(), size) == {"a": {}, "b": 1}


def test_pieces_may_end_anywhere() -> None:
    value = {"a": f'"{IMAGE}\\"', "b": [IMAGE, 1, '"', "\\", ARRAY, TEXT], IMAGE: {"c": "\\\\" * AHEAD}}
    chosen = random.Random(1)
    for text in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()):
        for _ in range(5):
            pieces, rest = JsonPieces(), text
            while rest:
                size = chosen.choice((1, 2, 100, 30_000, AHEAD))
                pieces.feed(rest[:size])
                rest = rest[size:]
            assert pieces.value() == value


def test_the_text_is_not_in_memory() -> None:
    cell = json.dumps({"outputs": [{"data": {"image/png": IMAGE}}, {"text": TEXT}], "metadata": {}})
    text = f'{{"cells": [{", ".join([cell] * 40)}]}}'.encode()
    tracemalloc.start()
    try:
        value = read(text, AHEAD)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(value["cells"]) == 40
    assert peak - after < 0.4 * len(text)  # json.loads needs more than twice the text beside the value


@pytest.mark.parametrize("text", [b"", b" \n"])
def test_an_empty_text_has_no_value(text: bytes) -> None:
    assert read(text, 10) is None


LONG = f'["{IMAGE}"'


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ',
        f'{{"a": "{IMAGE}',
        f'{{"a": "{IMAGE}" 1',
        f'{{"a": "{IMAGE}", 1: 2}}{IMAGE}',
        f'{{"a" "{IMAGE}"}}',
        f'{{"{IMAGE}"',
        f"{LONG}",
        f"{LONG},",
        f"{LONG},]",
        f"{LONG}}}",
        f"{LONG}]]",
        f"{LONG}, nul, 1]{IMAGE}",
        f'["\\x{IMAGE}"]',
        f'["{IMAGE}\n"]',
        f'"{IMAGE}\\',
    ],
)
@pytest.mark.parametrize("size", [1000, 1 << 30])
def test_what_is_no_json_is_an_error(text: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"line 1|near character \d"):
        read(text.encode(), size)
    pieces = JsonPieces()
    pieces.feed(text.encode())
    pieces.feed(b" " * AHEAD)
    pieces.feed(b" " * AHEAD)
    with pytest.raises(ValueError, match=r"line 1|near character \d"):
        pieces.value()


def test_a_place_is_counted_from_the_beginning() -> None:
    with pytest.raises(ValueError, match=rf"Expecting value \(near character {len(LONG) + 1}\)"):
        read(f"{LONG},x{IMAGE}".encode(), 1000)


@pytest.mark.parametrize("text", [b'"\xff"', f'"{IMAGE}\xff"'.encode("latin-1"), "€".encode()[:2]])
def test_what_is_no_utf_8_is_an_error_unless_it_is_replaced(text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        read(text, 1000)
    pieces = JsonPieces(errors="replace")
    pieces.feed(b'["' + text.strip(b'"') + b'"]')
    assert pieces.value()[0].endswith("\ufffd")


def test_what_is_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(RecursionError):
        read(b"[" * 3 * AHEAD, AHEAD)


def test_the_value_can_be_asked_for_again() -> None:
    pieces = JsonPieces()
    pieces.feed(b"[1, 2]")
    assert pieces.value() == pieces.value() == [1, 2]
    broken = JsonPieces()
    broken.feed(b"[1, 2")
    for _ in range(2):
        with pytest.raises(ValueError, match="Expecting ',' delimiter"):
            broken.value()
