"""Why a file cannot be read as a notebook, in words that its author understands.

A server answers with the name of an exception and a piece of the file. What happened is usually one of a few things,
and each has its own remedy.
"""

import json
import re

_MERGE_MARKER = re.compile(rb"^(<{7} .*|={7}|>{7} .*)$", re.MULTILINE)
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HINT = (
    "Check that this is a Jupyter notebook (.ipynb), and get it from version control or a checkpoint if it once was."
)


def why_unreadable(data: bytes) -> tuple[str, str]:
    """Return what is wrong with a file that is no readable notebook, and what to do about it."""
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
