"""The tags of a cell, as other tools write them."""

from typing import Any

import pytest

from nbrun.core.notebook.tags import tags_of


@pytest.mark.parametrize(
    ("metadata", "tags"),
    [({}, []), ({"tags": ["a", 1]}, ["a", 1]), ({"tags": "a"}, []), ({"tags": None}, []), (None, [])],
    ids=["none", "a list", "text", "null", "no metadata"],
)
def test_tags_are_read_only_from_a_list(metadata: Any, tags: list[Any]) -> None:
    assert tags_of({"metadata": metadata}) == tags
