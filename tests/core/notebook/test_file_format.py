"""The text of a file has the same bytes as that of a Jupyter server."""

import copy
import json
import subprocess
import sys
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.notebook.file_format import (
    notebook_content,
    notebook_node,
    notebook_pieces,
    notebook_text,
    read_notebook,
)
from nbrun.errors import NotANotebook
from tests.core.properties import QUICK, json_objects

NOTEBOOK: dict[str, Any] = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"z": 1, "a": {"trusted": True}},
    "cells": [
        {
            "cell_type": "code",
            "id": "a",
            "metadata": {"trusted": True, "tags": ["é"]},
            "source": "one\ntwo",
            "execution_count": 1,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "x\ny\n"}],
        }
    ],
}


def test_keys_are_sorted_texts_split_into_lines_and_the_last_line_ended() -> None:
    text = notebook_text(NOTEBOOK)
    written = json.loads(text)
    assert written["cells"][0]["source"] == ["one\n", "two"]
    assert written["cells"][0]["outputs"][0]["text"] == ["x\n", "y\n"]
    assert list(written) == ["cells", "metadata", "nbformat", "nbformat_minor"]
    assert text.endswith("}\n")
    assert "é" in text
    assert text.startswith('{\n "cells"')


def test_a_cells_trust_stays_out_of_the_file_and_other_keys_of_that_name_do_not() -> None:
    written = json.loads(notebook_text(NOTEBOOK))
    assert written["cells"][0]["metadata"] == {"tags": ["é"]}
    assert written["metadata"]["a"] == {"trusted": True}


def test_writing_changes_nothing_in_the_notebook() -> None:
    before = copy.deepcopy(NOTEBOOK)
    notebook_text(NOTEBOOK)
    assert before == NOTEBOOK


def test_what_is_written_is_read_back_the_same() -> None:
    again = nbformat.reads(notebook_text(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    assert notebook_text(again) == notebook_text(NOTEBOOK)
    nbformat.validate(again)


def test_a_notebook_without_cells_ends_in_one_line_end_too() -> None:
    text = notebook_text({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []})
    assert text.endswith("}\n")
    assert not text.endswith("\n\n")


@QUICK
@given(sources=st.lists(st.text(), max_size=4), metadata=json_objects, more=json_objects)
def test_cell_by_cell_it_is_the_same_text(sources: list[str], metadata: Any, more: Any) -> None:
    cells = [
        {"cell_type": "code", "id": f"c{number}", "metadata": metadata, "source": source}
        | {"execution_count": number, "outputs": [{"output_type": "stream", "name": "stdout", "text": source}]}
        for number, source in enumerate(sources)
    ]
    more = {key: value for key, value in more.items() if key not in NOTEBOOK}
    notebook = {**more, "nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    assert b"".join(notebook_pieces(notebook, "0123abcd")) == notebook_text(notebook).encode("utf-8", "replace")


def test_what_the_first_text_needs_can_be_imported_beforehand() -> None:
    code = (
        "import sys; from nbrun.core.notebook.file_format import get_ready; before = 'nbformat.v4' in sys.modules;"
        "get_ready(); print(before, 'nbformat.v4' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False True\n"


def test_a_files_text_is_read_back_with_its_texts_joined() -> None:
    assert read_notebook(notebook_text(NOTEBOOK)).cells[0].source == "one\ntwo"


def test_content_is_read_from_a_file_of_any_format() -> None:
    new = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    old = b'{"worksheets": [{"cells": []}], "metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0}'
    assert notebook_content(new, "nb.ipynb")["nbformat_minor"] == 5
    assert notebook_content(old, "nb.ipynb")["nbformat"] == 4


@pytest.mark.parametrize("data", [b"", b"{", b'{"nbformat": 3}', b"\xff"])
def test_a_file_that_is_no_notebook_is_told_by_its_name(data: bytes) -> None:
    with pytest.raises(NotANotebook, match=r"^nb\.ipynb: "):
        notebook_content(data, "nb.ipynb")


@pytest.mark.parametrize("data", [b'{"region": "US"}', b"[1]", b"7"])
def test_json_that_is_no_notebook_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NotANotebook, match=r"x\.json: the file is JSON, but no notebook"):
        notebook_content(data, "x.json")


def test_a_node_is_a_copy_with_texts_in_one_piece() -> None:
    cell: dict[str, Any] = {
        "cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": ["a = 1\n", "b = 2"],
    }  # fmt: skip
    content = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    node = notebook_node(content)
    assert (type(node).__name__, node.cells[0].source) == ("NotebookNode", "a = 1\nb = 2")
    assert cell["source"] == ["a = 1\n", "b = 2"]
