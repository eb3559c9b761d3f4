"""The comparisons detect differences, and the fixtures match their table."""

from pathlib import Path

import pytest

from tests.support.notebooks import FIXTURES, as_on_a_terminal, code, markdown, normalised, notebook, read_notebook


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("a\nb\n", "a\nb\n", id="plain lines stay"),
        pytest.param("10%\r20%\r100%\n", "100%\n", id="a bar shows its last state"),
        pytest.param("long line\rshort\n", "shortline\n", id="carriage return does not erase"),
        pytest.param("dos\r\n", "dos\n", id="line ends of DOS"),
        pytest.param("|\b/\b-", "-", id="backspace goes over one character"),
        pytest.param("a\n\bb", "a\nb", id="backspace stops at the line's start"),
    ],
)
def test_a_terminal_shows(text: str, shown: str) -> None:
    assert as_on_a_terminal(text) == shown


def stream(name: str, text: str) -> dict[str, str]:
    return {"output_type": "stream", "name": name, "text": text}


def test_streams_cut_differently_are_the_same() -> None:
    pieces = [stream("stdout", "a"), stream("stderr", "E"), stream("stdout", "b\n")]
    whole = [stream("stderr", "E"), stream("stdout", "ab\n")]
    assert normalised(pieces) == normalised(whole) == [stream("stdout", "ab\n"), stream("stderr", "E")]


def test_a_stream_on_the_other_side_of_a_display_is_not_the_same() -> None:
    display = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    assert normalised([stream("stdout", "a"), display]) != normalised([display, stream("stdout", "a")])


def test_addresses_durations_and_the_folder_are_not_compared() -> None:
    text = "<object at 0x7f00deadbeef> took 1.25 s in /here/work, see /tmp/ipykernel_12/345.py"
    [output] = normalised([stream("stdout", text)], folder=Path("/here/work"))
    assert output["text"] == "<object at 0xADDRESS> took DURATION in FOLDER, see CELL.py"


def test_cells_have_ids_from_format_4_5_on() -> None:
    cells = (code("1"), {**markdown("two"), "id": "own"})
    assert [cell.get("id") for cell in notebook(*cells)["cells"]] == ["cell-1", "own"]
    assert "id" not in notebook(code("1"), minor=4)["cells"][0]


def test_every_fixture_is_in_the_table_and_says_what_it_is_for() -> None:
    readme = (FIXTURES.parent / "README.md").read_text(encoding="utf-8")
    for path in FIXTURES.rglob("*.ipynb"):
        assert f"| `{path.relative_to(FIXTURES.parent).as_posix()}` |" in readme
        if not {"broken", "old"} & set(path.parts) and path.name != "no_cells.ipynb":
            assert read_notebook(path)["cells"][0]["cell_type"] == "markdown"
