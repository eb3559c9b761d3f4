"""The notebook does not depend on the split of text into messages or on the subprotocol."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.notebook.document import Document
from nbrun.core.protocol.codec import Subprotocol, decode, encode
from tests.core.properties import QUICK
from tests.support.transcripts import Line, Played, Transcript, message_as_json, message_from_json

RUNS = ("normal", "display_update", "error", "late_output", "usage_error", "system_exit")
PROGRESS = "one\r\n10%\r20%\r100%\nab\bc\n\x1b[31mé中🎈\x1b[0m\r\n"
cuts = st.lists(st.floats(0, 1), max_size=6)


def carried(message: Line, subprotocol: Subprotocol) -> Line:
    """Send a message through a codec."""
    sent = message_from_json(message)
    came = decode(encode(sent, subprotocol, date=sent.date), subprotocol)
    return message_as_json(came)


def pieces_of(text: str, places: list[float]) -> list[str]:
    """Cut a text at places between 0 (its start) and 1 (its end); it is never empty."""
    ends = sorted({round(place * len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def rechunked(line: Line, places: list[float], subprotocol: Subprotocol) -> list[Line]:
    """Return a line of a transcript as the lines that say the same in other pieces."""
    message = line.get("received")
    if message is None:
        return [line]
    if message["header"]["msg_type"] != "stream":
        return [{**line, "received": carried(message, subprotocol)}]
    made = []
    for piece in pieces_of(message["content"]["text"], places):
        part = copy.deepcopy(message)
        part["content"]["text"] = piece
        made.append({**line, "received": carried(part, subprotocol)})
    return made


def notebook_of(played: Played) -> list[Any]:
    """Return what the run puts into a notebook, and what it says of its cells."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{index}", "source": "", "metadata": {}, "outputs": [], "execution_count": None}
        for index in played.execution.cells
    ]
    document = Document({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    for index, cell in played.execution.cells.items():
        document.record(index, cell.area.render(), cell.execution_count, cell.timing)
    results = [(result.outcome, result.error) for result in played.execution.results()]
    return [document.content, results, played.execution.ending]


@pytest.mark.parametrize("subprotocol", Subprotocol, ids=["v1", "legacy"])
@pytest.mark.parametrize("name", RUNS)
@QUICK
@given(places=cuts)
def test_a_recorded_run_gives_the_same_notebook_in_any_pieces(
    name: str, subprotocol: Subprotocol, places: list[float]
) -> None:
    recorded = Transcript.load(name)
    lines = [made for line in recorded.lines for made in rechunked(line, places, subprotocol)]
    assert notebook_of(Transcript(recorded.setting, lines).play()) == notebook_of(recorded.play())


@pytest.mark.parametrize("subprotocol", Subprotocol, ids=["v1", "legacy"])
@QUICK
@given(text=st.text(alphabet=st.sampled_from("ab\r\n\bé🎈\x1b"), min_size=1) | st.just(PROGRESS), places=cuts)
def test_any_text_gives_the_same_notebook_in_any_pieces(
    subprotocol: Subprotocol, text: str, places: list[float]
) -> None:
    recorded = Transcript.load("normal")
    lines = copy.deepcopy(list(recorded.lines))
    for line in lines:
        if line.get("received", {}).get("header", {}).get("msg_type") == "stream":
            line["received"]["content"]["text"] = text
    whole = Transcript(recorded.setting, lines)
    cut = Transcript(recorded.setting, [made for line in lines for made in rechunked(line, places, subprotocol)])
    assert notebook_of(cut.play()) == notebook_of(whole.play())
