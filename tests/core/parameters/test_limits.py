"""Limits of parameters: numbers that would change, values that do not fit into a cell."""

from typing import Any

import pytest

from nbrun.core.parameters import limits
from nbrun.core.parameters.limits import check_values, read_number, read_toml, shortened, shown_name, shown_value
from nbrun.errors import UsageError

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


def nested(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("1_000", 1000), ("-2.5", -2.5), ("1e3", 1000.0), ("-inf", float("-inf")), ("x", None), ("", None)],
)
def test_a_number_is_read_as_python_reads_it(text: str, value: Any) -> None:
    found = read_number(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("text", "said"), [("9" * 20_000, "20000 characters"), ("-1e400", "1.8e308")])
def test_a_number_that_would_arrive_as_another_one_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_number(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" + ".a" * 50_000 + " = 1", "a key in line 1 has more than 100 parts"),
        ("\n\n[" + "a . " * 50_000 + "a]", "a key in line 3 has more than 100 parts"),
        ('x = [{"a"' + ".'a'" * 50_000 + "= 1}]", "more than 100 parts"),
        ("a = " + "[" * 100_000, "nested too deep|TOML inline arrays/tables are nested"),
        ("a = " + "9" * 20_000, "more than 4300 digits"),
        ("a = 1e400", "1.8e308"),
        ("a = ", "Invalid value"),
        ("a = 1\na = 2", "Cannot overwrite a value"),
        ("a = 1900-99-99", "month must be|Invalid date|Expected newline"),
    ],
    ids=["dotted", "header", "inline", "deep", "digits", "exponent", "malformed", "twice", "date"],
)
def test_a_toml_text_that_cannot_be_read_is_a_value_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_toml(text)


def test_a_toml_text_with_dots_in_its_values_is_read() -> None:
    assert read_toml(f'a = "{"a." * 200}"\nb.c = 1.5')["b"] == {"c": 1.5}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (CYCLE, "'x' is nested more than 100 levels deep, or holds itself"),
        ({"a": nested(101)}, "nested more than 100"),
        ([10**4300], "an integer of more than 4300 digits"),
        (-(10**4300), "an integer of more than 4300 digits"),
        ([nested(3, [0] * 50_000)] * 5, "more than 200000 values"),
        (["x" * 50_000] * 100, "of more than 4000000 characters"),
        ({"x" * 4_000_001: 1}, "of more than 4000000 characters"),
    ],
    ids=["cycle", "deep", "digits", "negative", "shared", "text", "key"],
)
def test_a_value_that_no_cell_can_hold_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check_values({"ok": 1, "x": value}, "nb.ipynb")
    assert str(caught.value).startswith("nb.ipynb: param")
    assert caught.value.hint


def test_what_a_cell_can_hold_passes() -> None:
    check_values({"a": nested(100), "b": 10**4300 - 1, "c": {"k": ("x", None, 1.5)}, "d": True}, "nb.ipynb")


def test_what_a_message_shows_is_short() -> None:
    assert shown_name("a\nb") == r"'a\nb'"
    assert shown_name("x" * 100_000) == repr("x" * 57 + "...")
    assert shown_value("x" * 100_000) == f"'{'x' * 56}..."
    assert shown_value(10**5000) == "an integer of more than 4300 digits"
    assert shown_value(nested(200_000)) == "a list that is nested deep"
    assert shortened("abc") == "abc"
    assert limits.MOST_DIGITS == 4300
