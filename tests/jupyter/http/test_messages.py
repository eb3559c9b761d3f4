"""An answer has the expected shape or raises an error."""

from datetime import UTC, datetime

import pytest

from nbrun.errors import NotAJupyterServer
from nbrun.jupyter.http.messages import Answer, Fields


def answer(body: bytes, **headers: str) -> Answer:
    return Answer("GET", "http://h/api/x?y=1", 200, headers, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"message": "short  and\\nclear", "reason": "r"}', "short and clear"),
        (b'{"message": null, "reason": "r"}', "r"),
        (b"<html><title>A &lt;page&gt;\n</title>", "A <page>"),
        (b"<html>", ""),
        (b"plain text", "plain text"),
        (b"[1]", "[1]"),
        (b"", ""),
        (b"\xff", "\ufffd"),
    ],
)
def test_what_a_server_says_is_quoted_in_one_line(body: bytes, said: str) -> None:
    assert answer(body).quotation == said


def test_a_quotation_is_short() -> None:
    assert len(answer(b"x" * 100_000).quotation) < 320


def test_an_answer_is_named_without_its_query() -> None:
    assert answer(b"").where == "GET http://h/api/x"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_json_is_no_jupyter_server(body: bytes) -> None:
    with pytest.raises(NotAJupyterServer, match="GET http://h/api/x"):
        answer(body).json()


def test_numbers_that_json_has_not_are_read_as_null() -> None:
    assert answer(b"[NaN, Infinity, -Infinity]").json() == [None, None, None]


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"[]", "an array"), (b"null", "nothing"), (b'"x"', "a string"), (b"1.5", "a number"), (b"true", "a boolean")],
)
def test_another_shape_is_named(body: bytes, kind: str) -> None:
    with pytest.raises(NotAJupyterServer, match=f"expected a JSON object, got {kind}"):
        answer(body).fields()


def test_an_array_of_objects_is_read_row_by_row() -> None:
    assert [row.text("a") for row in answer(b'[{"a": "x"}, {"a": "y"}]').rows()] == ["x", "y"]
    for wrong in (b"{}", b"[1]"):
        with pytest.raises(NotAJupyterServer):
            answer(wrong).rows()


def test_a_field_that_must_be_there_is_named_when_it_is_not() -> None:
    fields = Fields({"a": 1, "child": {}}, "GET x")
    with pytest.raises(NotAJupyterServer, match="GET x: expected a string as 'a', got a number"):
        fields.text("a")
    with pytest.raises(NotAJupyterServer, match="GET x, 'child': expected a string as 'b', got nothing"):
        fields.child("child").text("b")


def test_a_field_of_another_type_is_as_good_as_none() -> None:
    fields = Fields({"a": [], "b": True, "c": "yesterday", "d": 5}, "GET x")
    assert fields.maybe_text("a") is None
    assert fields.maybe_integer("b") is None
    assert (fields.maybe_time("a"), fields.maybe_time("c"), fields.maybe_time("d")) == (None, None, None)
    assert fields.mapping("a") == {}


def test_a_time_without_a_zone_is_utc() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
    for text in ("2026-01-02T03:04:05.600000Z", "2026-01-02T03:04:05.600000", "2026-01-02T04:04:05.600000+01:00"):
        assert Fields({"t": text}, "").maybe_time("t") == moment


def test_what_goes_into_addresses_and_messages_is_bounded() -> None:
    fields = Fields({"id": "x" * 1_000_000, "reason": "w " * 1_000_000, "kernel": "k1"}, "GET here")
    with pytest.raises(NotAJupyterServer, match="'id' has 1000000 characters"):
        fields.identifier("id")
    assert fields.identifier("kernel") == "k1"
    assert len(fields.words("reason")) < 400
    assert fields.words("missing") == ""
