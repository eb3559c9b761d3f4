"""A matrix makes one run for each combination of values, with unique names."""

from typing import Any

import pytest

from nbrun.core.batch.matrix import LONGEST, combinations, date_axis, notes_of, read_axes, run_name, typed
from nbrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("EU", "EU"),
        ("2025", 2025),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("true", "true"),
        ("null", "null"),
        ("True", True),
        ("False", False),
        ("None", None),
    ],
)  # fmt: skip
def test_a_value_is_what_a_person_means_by_it(text: str, value: object) -> None:
    found = typed(text)
    assert (found, type(found)) == (value, type(value))


def test_axes_are_read_in_order() -> None:
    assert read_axes(["region=EU, US", "year=2025"]) == {"region": ["EU", "US"], "year": [2025]}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2026-11-29..2026-12-01", ["2026-11-29", "2026-11-30", "2026-12-01"]),
        ("2026-11-27..2026-11-30 every 0 6 * * 1,5", ["2026-11-27", "2026-11-30"]),
        ("2026-11-29,2026-12-01", ["2026-11-29", "2026-12-01"]),
        ("1..3", ["1..3"]),
    ],
)
def test_a_range_of_dates_is_an_axis(text: str, values: list[str]) -> None:
    assert read_axes([f"day={text}"]) == {"day": values}


@pytest.mark.parametrize(
    ("axes", "name"),
    [
        ({"region": ["EU"], "day": ["2026-11-01", "2026-12-31"]}, "day"),
        ({"day": ["2026-11-01", "2026-11-31"]}, None),
        ({"day": ["20261101"]}, None),
        ({"day": [20261101]}, None),
        ({"day": []}, None),
        ({"from": ["2026-11-01"], "to": ["2026-11-02"]}, None),
        ({}, None),
    ],
)
def test_the_dates_of_a_matrix_are_found_if_there_is_one_axis_of_them(axes: dict[str, list[Any]], name: str) -> None:
    assert date_axis(axes) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-30..2026-11-01", "ends before it begins"),
        ("2026-11-31..2026-12-01", "--matrix day: day"),
        ("2026-11-01..2026-12-01 every day", "no cron expression"),
    ],
)
def test_a_wrong_range_of_dates_is_explained(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_axes([f"day={text}"])


@pytest.mark.parametrize("text", ["region", "=EU", "region=", "region= "])
def test_what_is_no_axis_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="no name with values"):
        read_axes([text])


def test_an_axis_that_comes_twice_is_told() -> None:
    with pytest.raises(UsageError, match="given before"):
        read_axes(["a=1", "a=2"])


def test_every_combination_comes_once_the_last_axis_fastest() -> None:
    assert combinations({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert combinations({}) == [{}]


def test_an_axis_without_values_and_a_matrix_without_end_are_told() -> None:
    with pytest.raises(UsageError, match="a has no values"):
        combinations({"a": []})
    with pytest.raises(UsageError, match="the most"):
        combinations({"a": range(LONGEST), "b": [1, 2]})


def test_a_run_is_named_after_its_combination() -> None:
    assert run_name("report.ipynb", {"region": "EU", "year": 2025}) == "report.ipynb [region=EU, year=2025]"
    assert run_name("report.ipynb", {}) == "report.ipynb"


@pytest.mark.parametrize("text", ["x=" + "9" * 20_000, "x=1,1e400"])
def test_a_number_that_would_arrive_as_another_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--matrix x: "):
        read_axes([text])


def test_text_that_looks_like_a_boolean_is_noted() -> None:
    axes = read_axes(["x=true,False,FALSE", "y=null,EU,1"])
    assert axes == {"x": ["true", False, "FALSE"], "y": ["null", "EU", 1]}
    assert notes_of(axes) == [
        "--matrix x: true is text; write True for the value",
        "--matrix x: FALSE is text; write False for the value",
        "--matrix y: null is text; write None for the value",
    ]
