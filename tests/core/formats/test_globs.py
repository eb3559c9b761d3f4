"""Patterns match paths like those in a .gitignore file."""

import pytest

from nbrun.core.formats.globs import Patterns, is_glob
from nbrun.errors import UsageError


@pytest.mark.parametrize(
    ("lines", "path", "named"),
    [
        (["draft-*.ipynb"], "deep/in/draft-1.ipynb", True),
        (["slow/*.ipynb"], "slow/a.ipynb", True),
        (["slow/*.ipynb"], "very/slow/a.ipynb", False),
        (["archive/"], "x/archive/y/a.ipynb", True),
        (["a/**/b.ipynb"], "a/b.ipynb", True),
        (["a/**/b.ipynb"], "a/x/y/b.ipynb", True),
        (["*.ipynb", "!keep.ipynb"], "keep.ipynb", False),
        ([], "a.ipynb", False),
    ],
)
def test_a_pattern_names_what_git_would_ignore(lines: list[str], path: str, named: bool) -> None:
    assert Patterns(lines).name(path) is named


def test_an_anchored_pattern_begins_at_the_top_as_in_a_shell() -> None:
    patterns = Patterns.anchored(["./*.ipynb", "data/*.csv"])
    assert patterns.name("a.ipynb")
    assert not patterns.name("deep/a.ipynb")
    assert patterns.name("data/x.csv")
    assert not patterns.name("more/data/x.csv")


def test_what_is_no_pattern_is_told() -> None:
    with pytest.raises(UsageError, match="no pattern"):
        Patterns(["!"])


@pytest.mark.parametrize(("text", "expected"), [("*.ipynb", True), ("a?.ipynb", True), ("[ab]", True), ("a", False)])
def test_a_glob_is_known_by_its_signs(text: str, expected: bool) -> None:
    assert is_glob(text) is expected
