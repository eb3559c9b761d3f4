"""The pieces of a notebook's body are equal to the complete encoding."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.formats import json_text
from nbrun.core.notebook import request_body
from nbrun.core.notebook.request_body import PIECE, NotebookBody
from nbrun.errors import UsageError

TEXTS = st.text(st.characters(codec=None), max_size=30)  # lone surrogates, too
OUTPUTS = st.one_of(
    st.fixed_dictionaries({"output_type": st.just("stream"), "text": TEXTS | st.lists(TEXTS, max_size=2)}),
    st.fixed_dictionaries(
        {"output_type": st.just("display_data"), "data": st.dictionaries(TEXTS, TEXTS | st.integers(), max_size=3)}
    ),
    st.just({"output_type": "error", "evalue": "x"}),
)
CELLS = st.fixed_dictionaries({"source": TEXTS}, optional={"outputs": st.lists(OUTPUTS, max_size=4)})


def model(content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "notebook", "format": "json", "content": content}


@given(st.lists(CELLS, max_size=4), st.integers(1, 40))
def test_the_pieces_are_together_what_the_whole_is(cells: list[dict[str, Any]], large: int) -> None:
    content = {"metadata": {}, "cells": cells, "nbformat": 4, "nbformat_minor": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_body, "_LARGE", large)
        patch.setattr(request_body, "_SLICE", large)
        whole = b"".join(NotebookBody(content))
    assert json.loads(whole) == json.loads(json_text.dumps(model(content)))


def test_a_large_text_is_nowhere_in_one_piece() -> None:
    texts = ["é\n" * 2_000_000, "A" * 3_000_000]
    outputs = [{"output_type": "stream", "text": texts[0]}, {"output_type": "display_data", "data": {"x": texts[1]}}]
    content = {"metadata": {}, "cells": [{"source": "1"}, {"outputs": outputs}, {"source": "2"}]}
    pieces = [*NotebookBody(content)]
    assert max(map(len, pieces)) < 1_000_000
    assert len(pieces) > 25
    assert json.loads(b"".join(pieces)) == model(content)


def test_two_halves_of_a_character_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_LARGE", 3)
    monkeypatch.setattr(request_body, "_SLICE", 3)
    content = {"cells": [{"outputs": [{"text": "ab\ud83d\ude00"}]}]}
    assert json.loads(b"".join(NotebookBody(content)))["content"]["cells"][0]["outputs"] == [{"text": "ab\U0001f600"}]


def test_small_cells_share_a_piece_and_many_of_them_come_in_several() -> None:
    cells = [{"source": "x" * 1000}] * 1000
    pieces = [*NotebookBody({"cells": cells})]
    assert [len(piece) > PIECE for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert 3 <= len(pieces) <= 5
    assert json.loads(b"".join(pieces)) == model({"cells": cells})


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        [*NotebookBody({"cells": [{"source": object()}]})]


def test_whatever_a_cell_says_it_is_not_taken_for_a_large_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_LARGE", 9)
    texts = ["\0\0", "\0\0\0", "a large text", "\0"]
    content = {"cells": [{"outputs": [{"text": text} for text in texts]}]}
    assert json.loads(b"".join(NotebookBody(content))) == model(content)
