"""A server's message about an invalid notebook, in one line."""

import json
from typing import Any

import nbformat
import pytest

from nbrun.core.notebook.file_reading import LONGEST, complaint_of


def said_by_a_server(content: dict[str, Any]) -> str:
    """Return the message as Jupyter Server builds it."""
    with pytest.raises(nbformat.ValidationError) as caught:
        nbformat.validate(nbformat.from_dict(content))
    dump = json.dumps(caught.value.instance, indent=1)
    return f"Notebook validation failed: {caught.value}:\n{dump}"


def notebook(**more: Any) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "outputs": []}
    cell["execution_count"] = None
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell, {**cell, "id": "b", **more}]}


UNEXPECTED = "Additional properties are not allowed ('extra' was unexpected)"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({**notebook(), "extra": 1}, f"it is not valid: {UNEXPECTED}"),
        (notebook(extra=1), f"it is not valid at cells[1]: {UNEXPECTED}"),
        (
            notebook(outputs=[{"output_type": "stream", "name": "stdout", "text": "", "extra": {}}]),
            f"it is not valid at cells[1].outputs[0]: {UNEXPECTED}",
        ),
        (
            notebook(outputs=[{"output_type": "display_data", "metadata": {}, "data": {"text/plain": 5}}]),
            "it is not valid at cells[1].outputs[0].data.text/plain: 5 is not valid under any of the given schemas",
        ),
        (notebook(metadata=[]), "it is not valid at cells[1].metadata: [] is not of type 'object'"),
        (
            {**notebook(), "metadata": {"kernelspec": {"name": "k"}}},
            "it is not valid at metadata.kernelspec: 'display_name' is a required property",
        ),
    ],
    ids=["an unknown key", "of a cell", "of an output", "a number as text", "a list as metadata", "a key is missing"],
)
def test_it_says_what_is_not_valid_and_where(content: dict[str, Any], line: str) -> None:
    assert complaint_of(said_by_a_server(content)) == line


def test_a_value_that_is_quoted_is_cut_in_its_middle() -> None:
    line = complaint_of(said_by_a_server(notebook(execution_count="9" * 1_000_000)))
    assert line.startswith("it is not valid at cells[1].execution_count: '999")
    assert line.endswith("99' is not of type 'integer', 'null'")
    assert len(line) < LONGEST + 60


@pytest.mark.parametrize(
    ("message", "line"),
    [("", ""), ("\n\n  converted\tfrom a script:\nand more", "converted from a script")],
    ids=["nothing", "of another server"],
)
def test_another_message_is_its_first_line(message: str, line: str) -> None:
    assert complaint_of(message) == line
