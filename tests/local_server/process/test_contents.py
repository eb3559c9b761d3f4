"""Notebooks are read, sent and written like by the stock server."""

import base64
import hashlib
import hmac
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from nbrun.core.notebook.file_writing import LARGE_TEXT
from nbrun.local_server.process.contents import LARGE_PIECE, Beside, model_pieces, read_large_notebook, write_notebook

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


SECRET = b"secret"


def written(content: Any) -> tuple[str, str, str]:
    """Return the file of a notebook that is saved as the client sends it, its validation error and its signature."""
    file, hashed, signature = io.BytesIO(), hashlib.sha256(), hmac.new(SECRET, digestmod="sha256")
    errors = dict[str, Any]()
    write_notebook(nbformat.NotebookNode(json.loads(json.dumps(content))), file, hashed, signature, errors)
    assert hashed.digest() == hashlib.sha256(file.getvalue()).digest()
    return file.getvalue().decode(), str(errors.get("ValidationError")), signature.hexdigest()


def stock(content: Any) -> tuple[str, str, str]:
    """Return the same by the stock server, with the signature for which it looks when it opens the file."""
    errors = dict[str, Any]()
    text = nbformat.writes(nbformat.from_dict(content), capture_validation_error=errors)
    text += "\n" * (text[-1] != "\n")
    read = nbformat.versions[content["nbformat"]].reads_json(text)
    signature = NotebookNotary(secret=SECRET, db_file=":memory:").compute_signature(read)
    return text, str(errors.get("ValidationError")), signature


@pytest.mark.parametrize(
    "bundles",
    [
        [],
        [{"image/png": IMAGE}],
        [{"image/png": IMAGE * 20}, {"image/png": IMAGE * 30}],
        [{"image/png": IMAGE + "\n", "text/plain": "<Image>"}, {"image/png": IMAGE}],
        [{"image/png": IMAGE[:100] + "\n" + IMAGE}],
        [{"image/png": [IMAGE, IMAGE]}],
        [{"text/plain": IMAGE + "\u00e9", "text/html": f'<img src="{IMAGE}">'}],
        [{"application/json": {"deep": [IMAGE]}, "application/x+json": IMAGE, "image/png": "short"}],
    ],
    ids=[
        "nothing",
        "an image",
        "images that are hashed in threads",
        "two, one with its line end",
        "two lines",
        "a list",
        "no base64",
        "json",
    ],
)
def test_what_is_written_is_what_the_stock_server_writes(bundles: list[dict[str, Any]]) -> None:
    content = notebook(*bundles)
    assert written(content) == stock(content)


def test_what_is_no_valid_notebook_is_written_and_told_as_by_the_stock_server() -> None:
    content = notebook({"image/png": IMAGE})
    content.cells[0].outputs[0].output_type = "unheard of"
    assert written(content) == stock(content)
    assert "unheard of" in written(content)[1]


def test_an_error_of_another_thread_is_raised_where_it_is_waited_for() -> None:
    with ThreadPoolExecutor(1) as threads:
        beside = Beside(lambda _: 1 / 0, threads)
        beside(bytes(LARGE_PIECE))
        with pytest.raises(ZeroDivisionError):
            beside(b"next")
        beside.wait()


OLDER = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [], "metadata": {}}]}
READ = {
    "valid": notebook({"image/png": IMAGE}, {"text/plain": "1\n2"}),
    "invalid": {**notebook(), "cells": [{"cell_type": "code", "id": "one", "metadata": {}, "outputs": []}]},
    "older": OLDER,
}


def test_an_older_format_is_written_as_by_the_stock_server() -> None:
    assert written(OLDER) == stock(OLDER)


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_a_large_notebook_is_read_as_by_the_stock_server(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(content, indent=1))
    ours, theirs, found = dict[str, Any](), dict[str, Any](), hashlib.sha256()
    read = read_large_notebook(str(path), 4, ours, found)
    assert found.digest() == hashlib.sha256(path.read_bytes()).digest()
    expected = nbformat.read(path, 4, theirs)
    if content is OLDER:  # an upgrade makes random ids
        assert read.nbformat == expected.nbformat
    else:
        assert read == expected
    assert [str(error) for error in ours.values()] == [str(error) for error in theirs.values()]


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"nbformat": 9}', b"\xff", b'{"nbformat": 4, "cells": 1, "metadata": {}}']
)
def test_what_is_no_notebook_is_left_to_the_stock_server(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(text)
    with pytest.raises((ValueError, AttributeError, KeyError, TypeError)):
        read_large_notebook(str(path), 4, {}, hashlib.sha256())


@pytest.mark.parametrize(
    "content",
    [notebook({"image/png": IMAGE}), notebook(), {"cells": []}, {"cells": [{}, {"outputs": []}, {"a": 1}]}],
    ids=["outputs", "no outputs", "no cells", "empty cells"],
)
def test_a_notebook_in_pieces_is_the_json_of_its_model(content: Any) -> None:
    model = {"name": "a.ipynb", "type": "notebook", "size": 1, "content": content}
    assert json.loads("".join(model_pieces(model))) == json.loads(json.dumps(model))
