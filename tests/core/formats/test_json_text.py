"""Any input is readable JSON that can be written again, or raises BadFrame."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.formats.json_text import (
    DEEPEST,
    JsonReader,
    as_object,
    dump_into,
    dumps,
    loads,
    notebook_metadata,
    without_surrogates,
)
from nbrun.errors import BadFrame
from tests.core.properties import QUICK, json_values


def in_pieces(raw: bytes, size: int = 3) -> Any:
    reader = JsonReader()
    for start in range(0, len(raw), size):
        reader.feed(raw[start : start + size])
    return reader.value()


@QUICK
@given(json_values)
def test_what_is_written_is_read_back_the_same(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert loads(dumps(value).decode()) == value
    assert loads(bytearray(dumps(value))) == value


any_text = st.text(st.characters(exclude_categories=()))


any_value = st.recursive(
    any_text | st.integers() | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(any_text, inner)
)


@given(any_value)
def test_whoever_wrote_it_the_same_is_read_as_with_json_of_python(value: Any) -> None:
    """Surrogates, big integers and what is no number of JSON among it, escaped and unescaped."""
    expected = without_surrogates(json.loads(json.dumps(value), parse_constant=lambda _: None))
    assert loads(json.dumps(value)) == expected
    assert loads(json.dumps(value).encode()) == expected
    assert in_pieces(json.dumps(value).encode()) == expected
    assert loads(dumps(value)) == expected


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": NaN}', {"a": None}),
        (b"[Infinity, -Infinity]", [None, None]),
        (b"[1e999, -1e999, 1e-999]", [None, None, 0.0]),
        (b'"caf\xe9"', "caf\ufffd"),
        (b'"\x80"', "\ufffd"),
        (rb'"\ud800"', "\ufffd"),
        (rb'"a\uDC80b"', "a\ufffdb"),
        (rb'"\udc00\ud800"', "\ufffd\ufffd"),
        (rb'{"\ud800": ["\udfff", 1]}', {"\ufffd": ["\ufffd", 1]}),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'["\ud800", "plain", "caf\u00e9"]', ["\ufffd", "plain", "café"]),
        ('"😀"'.encode(), "😀"),
        (b" 123456789012345678901234567890 ", 123456789012345678901234567890),
        (bytearray(b"[]"), []),
        (b"null", None),
    ],
    ids=[
        "NaN", "infinities", "numbers too large", "Latin-1", "a byte that is no UTF-8", "a lone high surrogate",
        "a lone low surrogate", "surrogates the wrong way round", "surrogates in keys and inside", "a surrogate pair",
        "among other texts", "UTF-8", "a big integer", "a bytearray", "null",
    ],
)  # fmt: skip
def test_what_hurts_later_is_put_right(raw: bytes, value: Any) -> None:
    assert loads(raw) == value
    assert loads(dumps(loads(raw))) == value
    assert in_pieces(bytes(raw)) == value


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nonsense", b"{'a': 1}", b"1 2", b'"\n"', b"\xef\xbb\xbf{}", b"9" * 5000, b"[" * 100_000],
    ids=["nothing", "cut off", "a word", "single quotes", "two values", "a bare line end", "a byte order mark",
         "a number of 5000 digits", "100000 brackets"],
)  # fmt: skip
def test_what_is_no_json_is_a_bad_frame(raw: bytes) -> None:
    with pytest.raises(BadFrame, match="not readable as JSON"):
        loads(raw)
    with pytest.raises(BadFrame, match="not readable as JSON"):
        in_pieces(raw or b"x")


def nested(levels: int, *, inside: str = "1") -> str:
    return '{"a":[' * (levels // 2) + inside + "]}" * (levels // 2)


def test_what_is_nested_as_deep_as_anybody_needs_is_read() -> None:
    assert json.dumps(loads(nested(DEEPEST)), separators=(",", ":")) == nested(DEEPEST)


@pytest.mark.parametrize("inside", ["1", '"\\ud800"', "[]"], ids=["number", "surrogate", "empty array"])
def test_what_is_nested_deeper_is_a_bad_frame(inside: str) -> None:
    with pytest.raises(BadFrame, match="levels deep"):
        loads(nested(DEEPEST + 2, inside=inside))
    with pytest.raises(BadFrame, match="levels deep"):
        in_pieces(nested(DEEPEST + 2, inside=inside).encode())


@pytest.mark.parametrize("spaces", [0, 20_000], ids=["short", "long"])
@pytest.mark.parametrize("form", [str, str.encode], ids=["text", "bytes"])
def test_the_deepest_level_is_the_last_that_is_read(form: Any, spaces: int) -> None:
    assert loads(form(" " * spaces + "[" * DEEPEST + "]" * DEEPEST))
    for deep in ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), '{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1)):
        with pytest.raises(BadFrame, match="levels deep"):
            loads(form(" " * spaces + deep))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    flat = "[" + ",".join(["[]", "{}"] * DEEPEST) + "]"
    assert len(loads(flat)) == len(in_pieces(flat.encode())) == 2 * DEEPEST


@given(st.binary())
def test_any_bytes_are_json_or_a_bad_frame(raw: bytes) -> None:
    try:
        value = loads(raw)
    except BadFrame:
        return
    assert loads(dumps(value)) == value


@given(st.text(st.characters()))
def test_without_surrogates_any_text_can_be_encoded_and_the_rest_of_it_stays(text: str) -> None:
    cleaned = without_surrogates(text)
    cleaned.encode()
    assert without_surrogates(cleaned) == cleaned
    assert len(cleaned) <= len(text)
    assert without_surrogates([text, 1]) == [cleaned, 1]


def test_nothing_that_others_cannot_read_is_written() -> None:
    assert dumps([float("nan"), float("inf")]) == b"[null,null]"
    assert dumps({"é": [1, None]}) == '{"é":[1,null]}'.encode()
    assert dumps("\ud800") == '"\ufffd"'.encode()


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_what_is_appended_is_what_is_written(value: Any) -> None:
    buffer = bytearray(b"before")
    dump_into(buffer, value)
    assert buffer == b"before" + dumps(value)


def test_a_lone_surrogate_is_replaced_in_what_is_appended_and_nothing_is_left_of_what_json_cannot_hold() -> None:
    buffer = bytearray(b"before")
    dump_into(buffer, ["x", "\ud800"])
    assert buffer == 'before["x","\ufffd"]'.encode()
    with pytest.raises(TypeError):
        dump_into(buffer, ["x", object()])
    assert buffer == 'before["x","\ufffd"]'.encode()


@pytest.mark.parametrize("value", [None, [], "x", 1], ids=["null", "array", "string", "number"])
def test_what_is_no_object_is_taken_for_an_empty_one(value: Any) -> None:
    assert as_object(value) == {}
    assert as_object({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "metadata"),
    [
        (b'{"cells": [{}], "metadata": {"a": 1}}', {"a": 1}),
        (b"{}", {}),
        (b"{", None),
        (b'{"metadata": 1}', None),
        (b'{"metadata": {"a": "\xff"}}', None),
    ],
)
def test_the_metadata_of_a_notebook_are_read_without_its_cells(raw: bytes, metadata: dict[str, Any] | None) -> None:
    assert notebook_metadata(raw) == metadata
