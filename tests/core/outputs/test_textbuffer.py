"""Whatever is written comes out again, once, however large it grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.outputs import textbuffer
from nbrun.core.outputs.textbuffer import TextBuffer

any_text = st.text(st.characters(exclude_categories=()))


@given(st.lists(st.lists(any_text)))
def test_what_is_written_is_taken_once(takes: list[list[str]]) -> None:
    buffer = TextBuffer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textbuffer, "_PIECES_KEPT", 3)  # so that all its ways are walked with short texts
        for texts in takes:
            for text in texts:
                buffer.write(text)
            assert buffer.take() == "".join(texts)


@pytest.mark.large
def test_many_megabytes_of_many_widths_are_kept() -> None:
    buffer = TextBuffer()
    pieces = [f"{number} é € 😀 \ud800\n" * 10_000 for number in range(100)]
    for piece in pieces:
        buffer.write(piece)
    assert buffer.take() == "".join(pieces)
    assert buffer.take() == ""
