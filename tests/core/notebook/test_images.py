"""Only images are removed from a cell and inserted again."""

import base64
import json
from typing import Any

import pytest

from nbrun.core.notebook.file_format import notebook_pieces, notebook_text
from nbrun.core.notebook.images import LARGE_TEXT, Images

IMAGE = base64.b64encode(bytes(range(256)) * 16).decode()
MARK = "0123abcd"


def cell(**data: Any) -> dict[str, Any]:
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"image/png": "short", **data}}]
    outputs.append({"output_type": "stream", "name": "stdout", "text": IMAGE})
    return {"cell_type": "code", "id": "a", "metadata": {}, "source": IMAGE, "execution_count": 1, "outputs": outputs}


def test_an_image_is_not_in_the_cell_and_is_in_its_text() -> None:
    images, whole = Images(MARK), cell(png=IMAGE, jpeg=IMAGE[4:])
    taken = images.taken_from(whole)
    assert len(images) == 2
    assert len(taken["outputs"][0]["data"]["png"]) < LARGE_TEXT
    assert taken["outputs"][1] == whole["outputs"][1]
    assert whole == cell(png=IMAGE, jpeg=IMAGE[4:])
    assert json.loads(b"".join(images.put_into(json.dumps(taken)))) == whole


@pytest.mark.parametrize(
    "value", [IMAGE[: LARGE_TEXT - 1], f"{IMAGE[:99]}\n{IMAGE}", f"{IMAGE}\u00e9", f"<b>{IMAGE}</b>", [IMAGE], None]
)
def test_what_is_no_large_base64_text_stays(value: Any) -> None:
    images = Images(MARK)
    assert images.taken_from(cell(png=value)) == cell(png=value)
    assert not images


def test_a_cell_without_outputs_is_as_it_was() -> None:
    text = {"cell_type": "markdown", "source": IMAGE, "metadata": {}}
    assert Images(MARK).taken_from(text) is text


@pytest.mark.parametrize(
    "cells", [[cell(png=IMAGE, svg="\ud800")], [cell(png=f"{IMAGE}\n")], []], ids=["image", "image and line", "none"]
)
def test_a_notebook_is_the_same_text_by_pieces(cells: list[dict[str, Any]]) -> None:
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    assert b"".join(notebook_pieces(notebook, MARK)) == notebook_text(notebook).encode("utf-8", "replace")
