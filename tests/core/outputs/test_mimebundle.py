"""Outputs of kernels become valid nbformat with the least changes."""

from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.outputs.mimebundle import (
    count,
    display_output,
    error_output,
    mime_bundle,
    output_of,
    stream_output,
    text,
)
from tests.core.conversation import message
from tests.core.properties import QUICK, json_objects, json_values


def is_valid(output: dict[str, Any]) -> bool:
    nbformat.validate(output, ref="output", version=4, version_minor=5)
    return True


@pytest.mark.parametrize(
    ("mime", "sent", "kept"),
    [
        ("text/plain", "one", "one"),
        ("text/plain", ["one\n", "two"], ["one\n", "two"]),
        ("text/plain", 5, "5"),
        ("text/plain", True, "true"),
        ("text/plain", {"a": "é"}, '{"a":"é"}'),
        ("text/plain", ["one", 2], '["one",2]'),
        ("application/json", {"a": [1, None]}, {"a": [1, None]}),
        ("application/json", 5, 5),
        ("application/geo+json", [1], [1]),
        ("application/vnd.vega.v5+json", {}, {}),
        ("application/json-seq", {}, "{}"),
        ("application/jsonp", [1], "[1]"),
        ("model/gltf+json", {"a": 1}, '{"a":1}'),
        ("application/x-custom", {"a": 1}, '{"a":1}'),
        ("application/vnd.of-nobody", "as it came", "as it came"),
        ("", 1, "1"),
    ],
)
def test_a_value_is_coerced_only_where_the_format_does_not_allow_it(mime: str, sent: Any, kept: Any) -> None:
    assert mime_bundle({mime: sent}) == {mime: kept}
    assert is_valid(display_output({mime: sent}))


@pytest.mark.parametrize("mime", ["text/plain", "application/json"])
def test_null_is_no_value(mime: str) -> None:
    assert mime_bundle({mime: None, "text/html": "x"}) == {"text/html": "x"}


@pytest.mark.parametrize("data", [None, [], "x", 7], ids=["null", "array", "string", "number"])
def test_what_is_no_bundle_is_an_empty_one(data: Any) -> None:
    assert mime_bundle(data) == {}


@QUICK
@given(
    st.dictionaries(st.text() | st.sampled_from(["text/plain", "application/json", "application/a+json"]), json_values)
)
def test_any_bundle_becomes_a_valid_one(data: dict[str, Any]) -> None:
    assert is_valid(display_output(data))


@QUICK
@given(json_objects)
def test_a_valid_bundle_is_left_as_it_is(data: dict[str, Any]) -> None:
    once = mime_bundle(data)
    assert mime_bundle(once) == once


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), (0, 0), (None, None), (True, None), (-1, None), (1.0, None), ("1", None)],
    ids=["one", "zero", "null", "true", "negative", "a float", "a string"],
)
def test_an_execution_count_is_a_whole_number_or_nothing(value: Any, number: int | None) -> None:
    assert count(value) == number


@pytest.mark.parametrize(
    ("value", "written"),
    [("a", "a"), (None, ""), (5, "5"), ({"a": 1}, '{"a":1}')],
    ids=["text", "null", "a number", "an object"],
)
def test_text_is_text_whatever_was_sent(value: Any, written: str) -> None:
    assert text(value) == written


@pytest.mark.parametrize(
    "content",
    [
        {"ename": "E", "evalue": "v", "traceback": ["line"], "status": "error"},
        {},
        {"ename": 1, "evalue": None, "traceback": "a\nb"},
    ],
    ids=["as it should be", "empty", "wrong types"],
)
def test_an_error_output_is_valid_and_has_nothing_else(content: dict[str, Any]) -> None:
    output = error_output(content)
    assert is_valid(output)
    assert set(output) == {"output_type", "ename", "evalue", "traceback"}


SHOWN = {"data": {"text/plain": 1}, "metadata": {"m": 1}, "transient": {"display_id": "d"}, "execution_count": 3}


@pytest.mark.parametrize(
    ("kind", "content", "output"),
    [
        ("stream", {"name": "stderr", "text": "x"}, stream_output("stderr", "x")),
        ("stream", {}, stream_output("stdout", "")),
        ("display_data", SHOWN, {"output_type": "display_data", "data": {"text/plain": "1"}, "metadata": {"m": 1}}),
        (
            "execute_result",
            SHOWN,
            {"output_type": "execute_result", "data": {"text/plain": "1"}, "metadata": {"m": 1}, "execution_count": 3},
        ),
        ("error", {"ename": "E"}, {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}),
    ],
    ids=["stream", "empty stream", "display", "result", "error"],
)
def test_an_observer_is_told_of_an_output_as_the_notebook_would_hold_it(
    kind: str, content: dict[str, Any], output: dict[str, Any]
) -> None:
    assert output_of(message(kind, content)) == output
    assert is_valid(output)


@pytest.mark.parametrize("kind", ["update_display_data", "clear_output", "status", ""])
def test_other_messages_carry_no_output_by_themselves(kind: str) -> None:
    assert output_of(message(kind, SHOWN)) is None
