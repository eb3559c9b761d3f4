"""Notebook files of any format are read, and others are described."""

from typing import Any

import pytest

from nbrun.core.notebook.file_reading import notebook_content, notebook_node, read_notebook
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.errors import NotANotebook

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
