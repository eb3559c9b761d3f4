"""Line numbers of cells in a notebook's file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.reporters.github.source_places import CellLocation, cell_locations, file_line
from tests.core.properties import QUICK


def notebook(*cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}


def cell(source: str | list[str], cell_id: str | None = None, **more: Any) -> dict[str, Any]:
    named = {} if cell_id is None else {"id": cell_id}
    return {"cell_type": "code", **named, "metadata": {}, "outputs": [], **more, "source": source}


TWO = notebook(
    cell(["import a\n", "\n", 'b("\\n")'], "one", outputs=[{"source": "no", "id": "no", "text": ["x\n", "y"]}]),
    cell("first\nsecond", "two", metadata={"source": ["no"], "id": "no", "cells": [{"source": "no"}]}),
    metadata={"cells": [{"source": "no"}]},
)


def shown(text: str, line: int | None) -> str:
    assert line is not None
    return text.splitlines()[line - 1].strip().rstrip(",")


def test_a_source_of_lines_is_found_line_by_line() -> None:
    text = json.dumps(TWO, indent=1)
    places = cell_locations(text)
    found = [file_line(places, index=0, cell_id="one", source=places[0].source, line=line) for line in (1, 2, 3, None)]
    assert [shown(text, line) for line in found] == ['"import a\\n"', '"\\n"', '"b(\\"\\\\n\\")"', '"import a\\n"']


def test_a_source_in_one_string_is_at_its_one_line() -> None:
    text = json.dumps(TWO, indent=1)
    places = cell_locations(text)
    for line in (1, 2, 9):
        found = file_line(places, index=1, cell_id="two", source="first\nsecond", line=line)
        assert shown(text, found) == '"source": "first\\nsecond"'


def test_a_file_of_one_line_has_everything_there() -> None:
    assert [place.lines for place in cell_locations(json.dumps(TWO))] == [[1, 1, 1], [1, 1]]


def test_pieces_that_are_no_lines_are_put_together() -> None:
    text = json.dumps(notebook(cell(["a", "b\nc", "", "d\n", "e\nf\n", ""])), indent=1)
    (place,) = cell_locations(text)
    assert place.source == "ab\ncd\ne\nf\n"
    assert [shown(text, line) for line in place.lines] == ['"a"', '"b\\nc"', '"e\\nf\\n"', '"e\\nf\\n"']


def test_a_cell_is_found_by_its_id_then_by_its_source_nearest_to_its_place() -> None:
    places = [
        CellLocation("a", "x", [1]),
        CellLocation(None, "y", [5]),
        CellLocation(None, "y", [9]),
        CellLocation("d", "y", []),
    ]
    assert file_line(places, index=9, cell_id="a", source="x", line=1) == 1
    assert file_line(places, index=9, cell_id="a", source="changed", line=1) == 1
    assert file_line(places, index=2, cell_id=None, source="y", line=1) == 9
    assert file_line(places, index=0, cell_id="gone", source="y", line=1) == 5
    assert file_line(places, index=0, cell_id="d", source="y", line=1) is None
    assert file_line(places, index=0, cell_id="gone", source="z", line=1) is None


@pytest.mark.parametrize("text", ["", "]", "[1, 2]", '{"cells":', '{"cells": [{"source": "\\x"}]}', '"cells"'])
def test_what_is_no_notebook_has_no_cells_or_none_that_breaks(text: str) -> None:
    assert all(isinstance(place.source, str) for place in cell_locations(text))


@QUICK
@given(
    st.lists(st.one_of(st.text(max_size=30), st.lists(st.text(max_size=12), max_size=5)), max_size=4),
    st.sampled_from([None, 0, 1, 4]),
)
def test_every_source_comes_back_whole_with_one_line_for_each_of_its_lines(sources: list[Any], indent: int) -> None:
    cells = [cell(source, f"c{number}") for number, source in enumerate(sources)]
    places = cell_locations(json.dumps(notebook(*cells), indent=indent))
    whole = ["".join(source) for source in sources]
    assert [place.source for place in places] == whole
    assert [len(place.lines) for place in places] == [
        len(text.removesuffix("\n").split("\n")) * bool(text) for text in whole
    ]
