"""Notebooks are written with the same bytes as by the stock server."""

import base64
import io
import os
from typing import Any

import nbformat
import pytest

from nbrun.core.notebook.images import LARGE_TEXT
from nbrun.local_server.process.contents import write_notebook

IMAGE = base64.b64encode(os.urandom(LARGE_TEXT)).decode()


def notebook(*bundles: dict[str, Any]) -> Any:
    outputs = [{"output_type": "display_data", "metadata": {"z": 1, "a": "\u00e9"}, "data": data} for data in bundles]
    stream = {"output_type": "stream", "name": "stdout", "text": f"{IMAGE}\nline\u2028and\x85so on"}
    attached = {"a.png": {"image/png": IMAGE}}
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": "one", "metadata": {"trusted": True}, "source": "1\n2", "outputs": outputs},
        {
            "cell_type": "markdown",
            "id": "two",
            "metadata": {},
            "source": "",
            "attachments": attached,
        },
        {"cell_type": "code", "id": "three", "metadata": {}, "source": "", "outputs": [stream]},
    ]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
    return nbformat.from_dict({"cells": cells, "metadata": {"b": 1.5e300}, "nbformat": 4, "nbformat_minor": 5})


def written(write: Any, content: Any) -> tuple[bytes, dict[str, Any]]:
    errors: dict[str, Any] = {}
    file = io.BytesIO() if write is write_notebook else io.StringIO()
    write(content, file, capture_validation_error=errors)
    value = file.getvalue()
    return value if isinstance(value, bytes) else value.encode(), errors


def stock_write(content: Any, file: Any, capture_validation_error: Any) -> None:
    nbformat.write(content, file, version=nbformat.NO_CONVERT, capture_validation_error=capture_validation_error)


@pytest.mark.parametrize(
    "bundles",
    [
        [],
        [{"image/png": IMAGE}],
        [{"image/png": IMAGE + "\n", "text/plain": "<Image>"}, {"image/png": IMAGE}],
        [{"image/png": IMAGE[:100] + "\n" + IMAGE}],
        [{"image/png": [IMAGE, IMAGE]}],
        [{"text/plain": IMAGE + "\u00e9", "text/html": f'<img src="{IMAGE}">'}],
        [{"application/json": {"deep": [IMAGE]}, "application/x+json": IMAGE, "image/png": "short"}],
    ],
    ids=["nothing", "an image", "two, one with its line end", "two lines", "a list", "no base64", "json"],
)
def test_what_is_written_is_what_the_stock_server_writes(bundles: list[dict[str, Any]]) -> None:
    content = notebook(*bundles)
    before = nbformat.from_dict(content)
    assert written(write_notebook, content) == written(stock_write, content)
    assert content == before


def test_what_is_no_valid_notebook_is_written_and_told_as_by_the_stock_server() -> None:
    content = notebook({"image/png": IMAGE})
    content.cells[0].outputs[0].output_type = "unheard of"
    ours, errors = written(write_notebook, content)
    theirs, their_errors = written(stock_write, content)
    assert ours == theirs
    assert str(errors["ValidationError"]) == str(their_errors["ValidationError"])
