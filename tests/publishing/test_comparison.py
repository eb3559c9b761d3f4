"""What changed between two runs of a report."""

from dataclasses import replace
from typing import Any

import pytest

from nbrun.publishing.comparison import (
    MOST_NUMBERS,
    Change,
    all_changes,
    changes,
    difference,
    numbers_in_tables,
    values_of,
)
from nbrun.publishing.history import Value
from tests.publishing.histories import FAILED, record
from tests.support.notebooks import code, markdown, notebook

PANDAS = """<div><style>x</style><table class="dataframe"><thead><tr style="text-align: right;"><th></th><th>amount</th>
<th>share</th></tr><tr><th>region</th><th></th><th></th></tr></thead><tbody><tr><th>north</th><td>1,200</td>
<td>10.5 %</td></tr><tr><th>south</th><td>-3.5e-2</td><td>NaN</td></tr></tbody></table></div>"""


def shown(**data: str) -> dict[str, Any]:
    kinds = {name.replace("_", "/"): text for name, text in data.items()}
    return {"output_type": "display_data", "data": kinds, "metadata": {}}


@pytest.mark.parametrize(
    ("markup", "tables"),
    [
        (
            PANDAS,
            [{"north · amount": "1,200", "north · share": "10.5 %", "south · amount": "-3.5e-2"}],
        ),
        ("<table><tr><td>north</td><td>3</td></tr></table>", [{"north · column 2": "3"}]),
        ("<table><tr><td>1</td><td>2</td></tr></table>", [{"row 1 · column 1": "1", "row 1 · column 2": "2"}]),
        ("<table><tr><th>a<td>€ 5<tr><th>a<td>6 €</table>", [{"a · column 2": "€ 5", "a · column 2 (2)": "6 €"}]),
        (
            "<table><tr><th rowspan=2>2026</th><th>may</th><td>1</td></tr><tr><th>june</th><td>2</td></tr></table>",
            [{"2026 may · column 3": "1", "2026 june · column 3": "2"}],
        ),
        ("<table><tr><th colspan=2>both</th></tr><tr><td>a</td><td>1</td></tr></table>", [{"a · both": "1"}]),
        ("<table><tr><td>a</td><td><table><tr><td>9</td></tr></table></td></tr></table>", [{"a · column 2": "9"}]),
        ("<table><tr><td>only words</td></tr></table><p>7</p>", []),
        ("<table><td>x</td><td>4</td>", [{"x · column 2": "4"}]),
        ("<table colspan='9'><tr><td colspan='99999999'>x</td></tr></table>", []),
    ],
)
def test_numbers_of_tables_have_the_headers_of_their_row_and_column(markup: str, tables: list[dict[str, str]]) -> None:
    assert numbers_in_tables(markup) == tables


def test_values_are_those_that_a_page_shows_with_the_heading_above() -> None:
    document = notebook(
        markdown("# Report\n\n## Sales"),
        code(
            "x", outputs=[shown(text_html="<table><tr><td>north</td><td>3</td></tr></table>", text_plain="   north 3")]
        ),
        code(
            "x",
            outputs=[shown(image_png="aGk=", text_plain="<Figure>"), shown(text_plain="<object at 0x7f0012345678>")],
        ),
        code(
            "x",
            outputs=[
                {"output_type": "stream", "name": "stdout", "text": "a\n"},
                {"output_type": "stream", "name": "stderr", "text": "no"},
            ],
        ),
    )
    numbers, texts = values_of(document)
    assert [(value.label, value.text) for value in numbers] == [("Sales · north · column 2", "3")]
    assert [(value.label, value.text) for value in texts] == [("Sales", "<object at 0x…>"), ("Sales", "a")]


def test_a_large_table_is_cut() -> None:
    rows = "".join(f"<tr><td>r{row}</td><td>{row}</td></tr>" for row in range(MOST_NUMBERS + 50))
    numbers, _ = values_of(notebook(code("x", outputs=[shown(text_html=f"<table>{rows}</table>")])))
    assert len(numbers) == MOST_NUMBERS


def test_changed_new_and_missing_values_are_changes() -> None:
    before = record(
        0, values=[Value("a", "north", "100"), Value("b", "south", "5")], texts=[Value("t", "Log", "one\ntwo\nthree")]
    )
    after = record(
        1,
        values=[Value("a", "north", "110"), Value("c", "east", "7")],
        texts=[Value("t", "Log", "one\n2\nthree\nfour")],
    )
    assert changes(before, after) == [
        Change("north", "100", "110", "+10.0 %"),
        Change("east", "", "7"),
        Change("south", "5", ""),
        Change("Log", "two", "2"),
        Change("Log", "", "four"),
    ]


def test_what_a_failed_run_did_not_reach_is_no_change() -> None:
    before = record(0, values=[Value("a", "north", "100"), Value("b", "south", "5")])
    after = record(1, FAILED, values=[Value("a", "north", "90")])
    assert changes(before, after) == [Change("north", "100", "90", "-10.0 %")]


def test_a_run_is_compared_with_the_passed_run_before_it() -> None:
    runs = [
        record(number, outcome, values=[Value("a", "n", str(number))])
        for number, outcome in enumerate(["passed", FAILED, "passed"])
    ]
    found = all_changes(runs[::-1])
    assert {
        run_id[-1]: (before.run_id[-1], [change.before for change in made]) for run_id, (before, made) in found.items()
    } == {
        "1": ("0", ["0"]),
        "2": ("0", ["0"]),
    }


def test_runs_with_the_same_parameters_are_compared_whatever_their_templates_made() -> None:
    regions = ["north", "south", "north", "east"]
    runs = [
        record(number, parameters={"day": number, "region": region}, templated=("day",))
        for number, region in enumerate(regions)
    ]
    found = {run_id[-1]: before.run_id[-1] for run_id, (before, _) in all_changes(runs[::-1]).items()}
    assert found == {"1": "0", "2": "0", "3": "2"}


def test_a_run_is_not_compared_with_one_of_other_notebooks() -> None:
    one, several, other = record(0), record(1), record(2)
    several = replace(several, notebooks=(*several.notebooks, *several.notebooks))
    other_names = [replace(notebook, name=f"{number}.ipynb") for number, notebook in enumerate(several.notebooks)]
    found = all_changes([other, replace(several, notebooks=tuple(other_names)), one])
    assert {run_id: before.run_id for run_id, (before, _) in found.items()} == {other.run_id: one.run_id}


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("100", "110", "+10.0 %"),
        ("1,000", "1,500.5", "+50.0 %"),
        ("-10", "-5", "+50.0 %"),
        ("\u22122", "2", "+200.0 %"),
        ("10.5 %", "21 %", "+100.0 %"),
        ("2,5", "5", "+100.0 %"),
        ("0", "5", ""),
        ("5", "5.0", ""),
        ("a", "5", ""),
        ("1.2.3", "5", ""),
    ],
)
def test_the_difference_of_numbers_is_in_per_cent(before: str, after: str, text: str) -> None:
    assert difference(before, after) == text
