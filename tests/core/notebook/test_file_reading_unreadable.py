"""Why a file cannot be read as a notebook."""

from pathlib import Path

import pytest

from nbrun.core.notebook.file_reading import why_unreadable
from tests.support.notebooks import FIXTURES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b" \n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"cells": [\n<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> other\n]}', "merge conflict"),
        (b'{"a": "\xe9"}', "not UTF-8 (byte 7)"),
        (b'{"cells": [', "line 1, column 12"),
        (b"1" * 5000, "no program can read"),
        (b"[1]", "no notebook"),
        (b'{"cells": []}', "no notebook"),
        (b'{"nbformat": 5}', "nbformat 5"),
        (b'{"nbformat": "four"}', "nbformat four"),
        (b'{"nbformat": 4, "cells": {}}', "no list of cells"),
        (b'{"nbformat": 4, "cells": [1]}', "malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_in_words_with_a_remedy(data: bytes, said: str) -> None:
    what, remedy = why_unreadable(data)
    assert said in what
    assert remedy.endswith(".")


@pytest.mark.parametrize("path", sorted((FIXTURES / "broken").glob("*_*.ipynb")), ids=lambda path: path.stem)
def test_every_broken_fixture_has_a_reason_of_its_own(path: Path) -> None:
    assert "malformed" not in why_unreadable(path.read_bytes())[0]


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"print(1)", "jupytext --to ipynb"),
        (b"# Title", "jupytext --to ipynb"),
        (b'{"a": 1}', "-f FILE"),
        (b'{"a', "cut"),
    ],
)
def test_another_kind_of_file_is_told_what_makes_a_notebook_of_it(data: bytes, hint: str) -> None:
    remedy = why_unreadable(data)[1]
    assert hint in remedy or (hint == "cut" and "version control" in remedy)
