"""The limit of a cell's outputs: both ends of text, complete other outputs, and a note."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.formats.units import spell_size
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.outputs.limit import OVERHEAD, Truncated
from nbrun.core.protocol.messages import Channel, Message
from tests.core.properties import QUICK

LIMIT = 8000
HEAD, TAIL = LIMIT - LIMIT // 8, LIMIT // 8


def message(kind: str, **content: Any) -> Message:
    return Message(Channel.IOPUB, {"msg_type": kind}, {"msg_id": "r"}, content)


def stream(text: str, name: str = "stdout") -> Message:
    return message("stream", name=name, text=text)


def shown(size: int, display_id: str = "", kind: str = "display_data") -> Message:
    return message(kind, data={"image/png": "A" * size}, metadata={}, transient={"display_id": display_id})


def error(traceback: list[str]) -> Message:
    return message("error", ename="ValueError", evalue="bad", traceback=traceback)


def area(*messages: Message, displays: Displays | None = None, limit: int = LIMIT) -> OutputArea:
    made = OutputArea(displays or Displays(), limit=limit)
    for each in messages:
        assert made.apply(each)
    return made


def texts(made: OutputArea) -> list[str]:
    return [str(output["text"]) for output in made.render() if output["output_type"] == "stream"]


def test_what_is_within_the_limit_is_kept_and_nothing_is_said() -> None:
    made = area(stream("a\n" * 100), shown(5000))
    assert [output["output_type"] for output in made.render()] == ["stream", "display_data"]
    assert made.truncated is None


def test_of_too_much_text_the_beginning_and_the_end_are_kept() -> None:
    lines = [f"line {number}\n" for number in range(10_000)]
    made = area(*map(stream, lines))
    head, note, tail = texts(made)
    assert "".join(lines).startswith(head)
    assert "".join(lines).endswith(tail)
    assert (len(head), len(tail)) == (HEAD - OVERHEAD, TAIL)
    cut = len("".join(lines)) - len(head) - len(tail)
    assert made.truncated == Truncated(cut, 0, LIMIT)
    assert note == f"nbrun: {spell_size(cut)} of output was cut here: a cell may put out 8 kB (--max-output)\n"


def test_one_huge_text_is_cut_like_many_small_ones() -> None:
    text = "".join(f"{number}\n" for number in range(20_000))
    assert texts(area(stream(text))) == texts(area(*(stream(text[at : at + 7]) for at in range(0, len(text), 7))))


def test_of_a_long_end_nothing_is_missing_but_what_is_counted() -> None:
    pieces = [f"{number},\n" for number in range(30_000)]
    made = area(*map(stream, pieces), limit=80_000)
    head, _, tail = texts(made)
    assert "".join(pieces).endswith(tail)
    assert len(tail) == 10_000
    assert made.truncated is not None
    assert made.truncated.as_dict() == {
        "characters": len("".join(pieces)) - len(head) - len(tail),
        "outputs": 0,
        "limit": 80_000,
    }


def test_text_that_just_reaches_into_the_end_is_there_without_a_note() -> None:
    made = area(stream("x" * (HEAD - OVERHEAD + 10)))
    assert texts(made) == ["x" * (HEAD - OVERHEAD), "x" * 10]
    assert made.truncated is None


def test_what_a_carriage_return_overwrites_takes_up_no_room() -> None:
    made = area(*(stream(f"\r{number:5}") for number in range(20_000)))
    assert texts(made) == ["19999"]
    assert made.truncated is None


def test_the_end_keeps_the_order_of_two_streams() -> None:
    made = area(stream("x" * LIMIT), stream("err", "stderr"), stream("out"), stream("err", "stderr"))
    assert texts(made)[2:] == ["x" * (TAIL - 9), "err", "out", "err"]


def test_an_output_that_is_too_large_is_left_out_and_those_after_it_are_kept() -> None:
    made = area(stream("before\n"), shown(20_000), shown(30_000), stream("after\n"), shown(10))
    before, note, after, last = made.render()
    assert (before["text"], after["text"], last["data"]) == ("before\n", "after\n", {"image/png": "A" * 10})
    assert note["name"] == "stderr"
    assert "50.2 kB (2 whole outputs) of output were cut here" in note["text"]
    assert made.truncated == Truncated(50_000 + 2 * OVERHEAD, 2, LIMIT)
    assert str(made.truncated) == "50.2 kB (2 whole outputs) of output were cut: a cell may put out 8 kB"


def test_once_only_the_end_of_text_is_kept_other_outputs_are_counted_there() -> None:
    made = area(shown(9000), stream("x" * LIMIT), shown(50), stream("y" * TAIL))
    assert made.truncated is not None
    first, head, second, tail = texts(made)
    assert ("9.1 kB (1 whole output)" in first, "1 whole output" in second) == (True, True)
    assert tail == "y" * TAIL
    assert made.truncated.outputs == 2
    assert made.truncated.characters == 9000 + OVERHEAD + 50 + OVERHEAD + (LIMIT - len(head))


def test_an_error_is_kept_however_full_the_cell_is() -> None:
    made = area(stream("x" * 3 * LIMIT), error(["line 1", "line 2"]))
    assert made.render()[-1]["traceback"] == ["line 1", "line 2"]
    assert made.errors == 1


def test_of_a_huge_traceback_the_end_is_kept() -> None:
    made = area(error(["first" * 1000, "x" * LIMIT, "last but one", "last"]))
    [kept] = made.render()
    assert kept["traceback"] == ["[... cut by nbrun: --max-output ...]", "last but one", "last"]
    assert kept["ename"] == "ValueError"


def test_of_an_error_with_a_huge_message_the_message_is_cut() -> None:
    [kept] = area(message("error", ename="E", evalue="x" * LIMIT, traceback=["short"])).render()
    assert (kept["evalue"], kept["traceback"]) == ("x" * (TAIL // 4), ["short"])


def test_of_errors_without_end_the_newest_are_kept() -> None:
    made = area(*(error([f"error {number}", "x" * 500]) for number in range(100)))
    kept = [output["traceback"][0] for output in made.render() if output["output_type"] == "error"]
    assert kept[-1] == "error 99"
    assert len(kept) < 20
    assert made.truncated is not None


def test_clearing_makes_room_again() -> None:
    made = area(stream("x" * 3 * LIMIT), message("clear_output", wait=True), stream("new"))
    assert (texts(made), made.truncated) == (["new"], None)


def test_a_display_that_grows_beyond_the_limit_becomes_a_note() -> None:
    displays = Displays()
    made = area(shown(100, "d"), shown(3000, "d"), displays=displays)
    displays.update(shown(3500, "d", "update_display_data").content)
    assert [output["data"] for output in made.render()] == [{"image/png": "A" * 3500}] * 2
    displays.update(shown(5000, "d", "update_display_data").content)
    assert "was cut here" in made.render()[0]["data"]["text/plain"]
    assert made.truncated is not None
    assert made.truncated.outputs == 2  # it stands there twice
    displays.update(shown(10, "d", "update_display_data").content)
    assert made.render()[0]["data"] == {"image/png": "A" * 10}


def test_json_counts_with_its_text() -> None:
    made = area(message("display_data", data={"application/json": {"a": ["x" * LIMIT]}}, metadata={}))
    assert made.truncated is not None
    assert made.truncated.outputs == 1


def test_a_pager_is_an_output_like_others() -> None:
    made = area()
    made.append({"output_type": "display_data", "data": {"text/plain": "x" * LIMIT}, "metadata": {}})
    made.append({"output_type": "display_data", "data": {"text/plain": "short"}, "metadata": {}})
    assert [output["output_type"] for output in made.render()] == ["stream", "display_data"]


def test_empty_text_leaves_no_output() -> None:
    assert area(stream("")).render() == []


_pieces = st.lists(
    st.tuples(st.sampled_from(["stream", "display", "error", "clear"]), st.integers(0, 3000), st.booleans()),
    max_size=30,
)


@QUICK
@given(_pieces)
def test_whatever_comes_the_outputs_stay_near_the_limit_and_what_is_missing_is_counted(
    pieces: list[tuple[str, int, bool]],
) -> None:
    made, written = OutputArea(Displays(), limit=LIMIT), 0
    for kind, size, flag in pieces:
        match kind:
            case "stream":
                made.apply(stream("x" * size, "stderr" if flag else "stdout"))
                written += size
            case "display":
                made.apply(shown(size))
                written += size
            case "error":
                made.apply(error(["x" * min(size, 300)]))
            case _:
                made.apply(message("clear_output", wait=flag))
                written = written if flag else 0
    outputs = made.render()
    assert sum(len(str(output)) for output in outputs) < 2 * LIMIT + 4000
    if all(kind in ("stream", "display") for kind, _, _ in pieces):
        kept = sum(text.count("x") for text in texts(made) if not text.startswith("nbrun"))
        kept += sum(output["data"]["image/png"].count("A") for output in outputs if "data" in output)
        cut = made.truncated
        assert kept == written - (cut.characters - cut.outputs * OVERHEAD if cut else 0)


@pytest.mark.parametrize("raw", [False, True])
def test_the_end_is_shown_as_the_rest_is(raw: bool) -> None:
    made = OutputArea(Displays(), raw_streams=raw, limit=LIMIT)
    made.apply(stream("x" * HEAD + "\n"))
    made.apply(stream("10%\r20%\n"))
    assert texts(made)[-1].endswith("10%\r20%\n" if raw else "20%\n")
