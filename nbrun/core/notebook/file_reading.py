"""Read notebook files of any format, and describe files that are not notebooks.

This is the only module that imports nbformat. It does so on first use, because a run does not need it.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from nbrun._lazy_imports import grammars_put_off
from nbrun.core.formats.json_text import loads
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.errors import BadFrame, NotANotebook

_MERGE_MARKER = re.compile(rb"^(<{7} .*|={7}|>{7} .*)$", re.MULTILINE)
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HINT = (
    "Check that this is a Jupyter notebook (.ipynb), and get it from version control or a checkpoint if it once was."
)
LONGEST = 300
"""Maximum characters of an error, which may quote the invalid value."""
_INVALID = "Notebook validation failed: "
_PLACE = re.compile(r"^On instance((?:\[[^\n]*\])?):$", re.MULTILINE)
_STEP = re.compile(r"\['([^']*)'\]|\[(\d+)\]")


@cache
def _nbformat() -> ModuleType:
    with grammars_put_off():
        return import_module("nbformat")


def notebook_content(data: bytes, name: str) -> dict[str, Any]:
    """Return the content of a file, converted to nbformat 4 if it is older; raise :class:`NotANotebook`."""
    try:
        content = loads(data)
        if isinstance(content, dict) and content.get("nbformat") in (1, 2, 3):
            content = _upgraded(data.decode())
        if not isinstance(content, dict) or "nbformat" not in content:
            raise ValueError("no notebook")
    except (BadFrame, ValueError, TypeError, KeyError, AttributeError):
        why, hint = why_unreadable(data)
        raise NotANotebook(f"{name}: {why}", hint=hint) from None
    found: dict[str, Any] = content
    return found


def _upgraded(text: str) -> Any:
    try:
        return read_notebook(text)
    except _nbformat().ValidationError as error:
        raise ValueError(str(error)) from None


def notebook_node(content: Mapping[str, Any]) -> Any:
    """Return a copy of a notebook as an ``nbformat.NotebookNode``, with texts in one piece as nbformat reads them."""
    return read_notebook(notebook_text(content))


def read_notebook(text: str) -> Any:
    """Return a file's text as nbformat's node, converted to nbformat 4; raises nbformat's errors."""
    return _nbformat().reads(text, as_version=4)


def why_unreadable(data: bytes) -> tuple[str, str]:
    """Return why a file is not a readable notebook, and a hint."""
    if not data.strip():
        return "the file is empty", _HINT
    if data.startswith(_BYTE_ORDER_MARKS):
        return "the file begins with a byte order mark", "Save it as UTF-8 without one."
    if _MERGE_MARKER.search(data):
        return "the file has merge conflict markers in it", "Settle the conflict first; nbdime merges notebooks."
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the file is not UTF-8 (byte {error.start})", "Save it as UTF-8."
    return _why_no_notebook(text)


def _why_no_notebook(text: str) -> tuple[str, str]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        begins = text.lstrip()[:1] in ("{", "[")
        hint = _HINT if begins else "jupytext --to ipynb FILE makes a notebook of a script or of Markdown."
        return f"the file is not JSON: {error.msg} in line {error.lineno}, column {error.colno}", hint
    except (ValueError, RecursionError):
        return "the file is JSON that no program can read", _HINT
    if not isinstance(content, dict) or "nbformat" not in content:
        hint = f"{_HINT} Parameters in a JSON file are given with -f FILE."
        return "the file is JSON, but no notebook", hint
    major = content["nbformat"]
    if not isinstance(major, int) or major > 4:
        return f"the notebook is of nbformat {major}, which is not known here", "Save it as nbformat 4."
    if not isinstance(content.get("cells"), list):
        return "the notebook has no list of cells", _HINT
    return "the notebook is malformed", "`jupyter nbconvert --to notebook --stdout FILE` says more."


def complaint_of(message: str) -> str:
    """Return the ``message`` of a contents model as one line: the error and its position in the notebook."""
    what = next((line for line in message.removeprefix(_INVALID).splitlines() if line.strip()), "")
    what = " ".join(what.split()).removesuffix(":")
    if len(what) > LONGEST:
        what = f"{what[: LONGEST // 2]} … {what[-LONGEST // 2 :]}"
    if not message.startswith(_INVALID):
        return what
    found = _PLACE.search(message)
    place = "".join(f".{name}" if name else f"[{index}]" for name, index in _STEP.findall(found[1] if found else ""))
    return f"it is not valid{f' at {place[1:]}' if place else ''}: {what}"
