r"""Stream text equals that of JupyterLab's document: \r overwrites, \b removes, \n is appended."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbrun.core.outputs import stream
from nbrun.core.outputs.stream import _CHARACTERS_KEPT, StreamText, TextBuffer


class NaiveCursor:
    """The same rules written down plainly: a text, a cursor, and a new text for each step."""

    def __init__(self) -> None:
        self.text, self.cursor = "", 0

    def feed(self, new: str) -> None:
        for part in re.split(r"([\n\b\r])", new):
            text, cursor = self.text, self.cursor
            if part == "\n":
                self.text = text + "\n"
                self.cursor = len(self.text)
            elif part == "\r":
                self.cursor = text.rfind("\n", 0, cursor) + 1
            elif part == "\b":
                if cursor > 0 and text[cursor - 1] != "\n":
                    self.text = text[: cursor - 1] + text[cursor + 1 :]
                    self.cursor -= 1
            elif part:
                self.text = text[:cursor] + part + text[cursor + len(part) :]
                self.cursor += len(part)


def written(*pieces: str, raw: bool = False) -> str:
    stream = StreamText(raw=raw)
    for piece in pieces:
        stream.feed(piece)
    return str(stream)


VECTORS = {
    ("xxxxxxxxxx\ry\n",): "yxxxxxxxxx\n",
    ("a\r\nb\r\n",): "a\nb\n",
    ("abc\r", "X"): "Xbc",
    ("10%\r", "20%\r", "30%\r", "\n"): "30%\n",
    ("ab\b\bc\n",): "c\n",
    ("abc\b",): "ab",
    ("\b\bx",): "x",
    ("a\r\r\nb",): "a\nb",
    ("abcdef\rXY\nz",): "XYcdef\nz",
    ("ab\rc\b\bd",): "d",
    ("l1\nl2\r\x1b[K", "x"): "l1\n\x1b[Kx",
    ("line\n", "\b", "x"): "line\nx",
    ("one\ntwo", "\r", "T"): "one\nTwo",
    ("long line\rshort", " and longer than before"): "short and longer than before",
    ("",): "",
    ("ab", "", "\b"): "a",
    (): "",
}


@pytest.mark.parametrize(("pieces", "text"), VECTORS.items(), ids=map(repr, VECTORS))
def test_the_text_is_what_a_simple_terminal_would_show(pieces: tuple[str, ...], text: str) -> None:
    assert written(*pieces) == text


def test_a_line_that_is_longer_than_what_is_kept_unsettled_goes_on() -> None:
    piece = "x" * (_CHARACTERS_KEPT // 2 + 1)
    assert written(*[piece] * 8, "\ry") == "y" + (piece * 8)[1:]


@pytest.mark.parametrize("pieces", VECTORS, ids=map(repr, VECTORS))
def test_raw_text_stays_as_it_was_written(pieces: tuple[str, ...]) -> None:
    assert written(*pieces, raw=True) == "".join(pieces)


pieces = st.lists(st.text(alphabet="ab\n\r\b", max_size=12), max_size=12)


@given(pieces)
@example(["ab\n", "\b", "cd\r", "\b", "x\b\b", "\ry"])
def test_the_text_is_the_naive_cursors(pieces: list[str]) -> None:
    naive = NaiveCursor()
    for piece in pieces:
        naive.feed(piece)
    assert written(*pieces) == naive.text


@given(pieces)
def test_it_does_not_matter_how_the_text_is_cut_into_messages(pieces: list[str]) -> None:
    whole = "".join(pieces)
    assert written(*pieces) == written(whole) == written(*whole)


@given(pieces, st.integers(1, 4))
def test_looking_at_the_text_in_between_changes_nothing(pieces: list[str], every: int) -> None:
    stream = StreamText()
    for number, piece in enumerate(pieces):
        stream.feed(piece)
        if number % every == 0:
            str(stream)
    assert str(stream) == written(*pieces)


# Linear time: sizes that a quadratic way would not finish within the test's time limit. ------------------------------

MILLION = 1_000_000
MANY = 200_000


@pytest.mark.large
def test_a_million_characters_one_by_one_make_one_line() -> None:
    assert written(*["x"] * MILLION) == "x" * MILLION


@pytest.mark.large
def test_a_million_backspaces_one_by_one_take_back_a_line_of_a_million() -> None:
    assert written("x" * MILLION, *["\b"] * MILLION) == ""


@pytest.mark.large
def test_a_million_backspaces_in_one_message_take_back_a_line_of_a_million() -> None:
    assert written("x" * MILLION + "\b" * MILLION) == ""


@pytest.mark.large
def test_a_hundred_thousand_carriage_returns_go_back_over_a_long_line() -> None:
    assert written("x" * MILLION, *["\ry"] * 100_000) == "y" + "x" * (MILLION - 1)


@pytest.mark.large
def test_a_long_line_is_overwritten_character_by_character() -> None:
    assert written("x" * MILLION + "\r", *["y"] * MANY) == "y" * MANY + "x" * (MILLION - MANY)


@pytest.mark.large
def test_a_spinner_turns_many_times_at_the_end_of_a_long_line() -> None:
    assert written("x" * MILLION, *["|\b", "/\b"] * (MANY // 2)) == "x" * MILLION


@pytest.mark.large
def test_a_spinner_in_messages_of_their_own_turns_many_times() -> None:
    assert written("x" * MILLION, *["|", "\b"] * (MANY // 2)) == "x" * MILLION


@pytest.mark.large
def test_a_progress_bar_of_many_steps_over_many_lines() -> None:
    steps = [f"\r{step:06}" for step in range(100_000)] + ["\n"]
    assert written(*steps, *steps) == "099999\n099999\n"


any_text = st.text(st.characters(exclude_categories=()))


def test_a_buffer_keeps_older_text_in_a_mapping_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PIECES_KEPT", 3)
    buffer = TextBuffer()
    for texts in (["a", "b"], ["four", "\ud800", "many more than four times four", "x" * 1000], []):
        for text in texts:
            buffer.write(text)
        assert buffer.pop() == "".join(texts)


@given(st.lists(st.lists(any_text)))
def test_a_buffer_returns_once_what_was_written(takes: list[list[str]]) -> None:
    buffer = TextBuffer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_PIECES_KEPT", 3)  # so that short texts take all its branches
        for texts in takes:
            for text in texts:
                buffer.write(text)
            assert buffer.pop() == "".join(texts)


@pytest.mark.large
def test_a_buffer_keeps_many_megabytes_of_many_widths() -> None:
    buffer = TextBuffer()
    pieces = [f"{number} é € 😀 \ud800\n" * 10_000 for number in range(100)]
    for piece in pieces:
        buffer.write(piece)
    assert buffer.pop() == "".join(pieces)
    assert buffer.pop() == ""
