"""A file has the same bytes as nbformat and a Jupyter server write, and the same signature."""

import base64
import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.sign import yield_everything

from nbrun.core.notebook.file_writing import LARGE_TEXT, notebook_pieces, notebook_text
from tests.core.properties import QUICK, json_objects
from tests.support.notebooks import FIXTURES

IMAGE = base64.b64encode(bytes(range(256)) * 16).decode()
MARK = "0123abcd"
ODD_TEXTS = {
    "an image": IMAGE,
    "an image that ends its line": f"{IMAGE}\n",
    "an image of two lines": f"{IMAGE[:99]}\n{IMAGE}",
    "a long text with quotation marks": f'<img src="{IMAGE}">\\',
    "a long text that is not ASCII": f"{IMAGE}é€😀",
    "a long text with control characters": "\x00\x1f\x7f\b\f\r\t\v" * LARGE_TEXT,
    "line ends of all kinds": "a\nb\rc\r\nd\u2028e\x85f\x0cg\x1eh\v",
    "empty": "",
}
ODD_VALUES = {
    "numbers": [0.1, 1e16, 1e-7, -0.0, 1.5e300, 2**64, -(10**400), 7, True, None],
    "no numbers of JSON": [math.nan, math.inf, -math.inf],
    "empty": {"list": [], "object": {}, "lists": [[], [[]]], "": ""},
    "keys in any order": {"z": 1, "ü": 2, "a": 3, "\U0001f600": 4, "\ufb01": 5, "A": 6},
    "deep": json.loads(f"{'[' * 150}{']' * 150}"),
    "a tuple": (1, "a"),
}


def notebook(*cells: Any, minor: int = 5, **metadata: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": minor, "metadata": metadata, "cells": list(cells)}


def code(*outputs: Any, source: Any = "one\ntwo", **metadata: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "id": "a", "execution_count": None, "metadata": metadata, "source": source}
    return cell | {"outputs": list(outputs)}


def display(**data: Any) -> dict[str, Any]:
    bundle = {kind.replace("_", "/"): value for kind, value in data.items()}
    return {"output_type": "display_data", "metadata": {}, "data": bundle}


def stream(text: Any) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text}


def stock_text(content: Any) -> str:
    return f"{nbformat.v4.writes(nbformat.from_dict(content))}\n"


def same_as_stock(content: dict[str, Any]) -> str:
    """Check that a notebook is written and signed as by nbformat, and not changed; return the text."""
    before, text, signed = copy.deepcopy(content), notebook_text(content), bytearray()
    assert text == stock_text(content)
    assert b"".join(notebook_pieces(content, MARK)) == text.encode()
    assert b"".join(notebook_pieces(content, MARK, signed.extend)) == text.encode()
    assert bytes(signed) == b"".join(yield_everything(nbformat.v4.reads(text)))
    assert repr(content) == repr(before)
    return text


def fixtures() -> Iterator[Path]:
    for path in sorted([*FIXTURES.rglob("*.ipynb"), *(FIXTURES.parent / "hostile").glob("*.ipynb")]):
        if path.parent.name not in ("broken", "old"):
            yield path


@pytest.mark.parametrize("path", list(fixtures()), ids=lambda path: path.stem)
def test_every_fixture_is_written_as_by_nbformat(path: Path) -> None:
    stored = json.loads(path.read_bytes())
    same_as_stock(stored)
    same_as_stock(nbformat.v4.to_notebook(stored))


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_a_text_is_split_and_escaped_as_by_nbformat(text: str) -> None:
    kinds = {"image_png": text, "text_plain": text, "image_svg+xml": text, "application_javascript": text}
    outputs = [display(**kinds, application_json=text, image_jpeg=[text, text]), stream(text), stream([text])]
    attached = {"cell_type": "raw", "id": "r", "metadata": {}, "source": [text]}
    attached["attachments"] = {"a.png": {"image/png": text, "text/plain": text}}
    same_as_stock(notebook(code(*outputs, source=text, note=text), attached, title=text))


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_a_value_is_spelled_as_by_nbformat(value: Any) -> None:
    same_as_stock(notebook(code(display(application_json=value), note=value), value=value))


@pytest.mark.parametrize("minor", range(6))
def test_every_minor_version_is_written_as_by_nbformat(minor: int) -> None:
    result = {**display(text_plain="1"), "output_type": "execute_result", "execution_count": 1}
    error = {"output_type": "error", "ename": "E", "evalue": "\x1b[0m", "traceback": ["a\nb", "c"]}
    cells = [code(result, error, {**display(), "data": {}}), {"cell_type": "markdown", "metadata": {}, "source": "# a"}]
    same_as_stock(notebook(*cells, minor=minor))
    same_as_stock(notebook(minor=minor))


def test_what_a_file_does_not_store_is_left_out() -> None:
    transient: dict[str, Any] = {"signature": "x", "orig_nbformat": 3, "orig_nbformat_minor": 0}
    cells = [code(trusted=True, tags=["é"]), {"cell_type": "markdown", "metadata": {"trusted": True}, "source": ""}]
    text = same_as_stock({**notebook(*cells, **transient, a={"trusted": True}), "zzz": 1, "aaa": 2})
    stored = json.loads(text)
    assert [cell["metadata"] for cell in stored["cells"]] == [{"tags": ["é"]}, {}]
    assert stored["metadata"] == {"a": {"trusted": True}}


def test_many_cells_are_written_in_groups() -> None:
    same_as_stock(notebook(*[code(display(image_png=IMAGE), source=str(number)) for number in range(33)]))


def test_a_lone_surrogate_does_not_stop_a_rescue() -> None:
    content = notebook(code(stream("a\ud800"), source="\udfff", note="\ud800"))
    assert notebook_text(content) == stock_text(content).encode("utf-8", "replace").decode()
    assert json.loads(b"".join(notebook_pieces(notebook(code(display(image_png=f"{IMAGE}\ud800"))), MARK)))


def test_what_json_cannot_represent_is_an_error_but_for_bytes() -> None:
    content = notebook(code(display(image_png=b"base64==")))
    assert notebook_text(content) == stock_text(content)
    with pytest.raises(TypeError, match="set"):
        notebook_text(notebook(code(display(image_png={1}))))


@QUICK
@given(texts=st.lists(st.text(), max_size=4), metadata=json_objects, more=json_objects)
def test_any_notebook_is_written_and_signed_as_by_nbformat(texts: list[str], metadata: Any, more: Any) -> None:
    cells = [code(stream(text), display(image_png=text, text_plain=text), source=text, **metadata) for text in texts]
    same_as_stock({**more, **notebook(*cells, **metadata)})
