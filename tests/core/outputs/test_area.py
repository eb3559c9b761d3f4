"""Messages are merged into outputs as in JupyterLab's document."""

import gc
from collections.abc import Sequence
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.protocol.messages import Message
from tests.core.conversation import message
from tests.core.properties import QUICK, json_objects, json_values

Output = dict[str, Any]


def stream(text: str, name: str = "stdout") -> Message:
    return message("stream", {"name": name, "text": text})


def shown(kind: str, value: Any, display_id: str | None = None, **more: Any) -> Message:
    transient = {"display_id": display_id} if display_id else {}
    return message(kind, {"data": {"text/plain": value}, "metadata": {}, "transient": transient, **more})


def display(value: Any, display_id: str | None = None) -> Message:
    return shown("display_data", value, display_id)


def result(value: Any, display_id: str | None = None, count: int = 1) -> Message:
    return shown("execute_result", value, display_id, execution_count=count)


def update(value: Any, display_id: str | None = "d") -> Message:
    return shown("update_display_data", value, display_id)


def clear(*, wait: bool = False) -> Message:
    return message("clear_output", {"wait": wait})


ERROR = message("error", {"ename": "E", "evalue": "v", "traceback": ["t"], "execution_count": 1})


def area(*messages: Message, displays: Displays | None = None, raw: bool = False) -> OutputArea:
    made = OutputArea(displays or Displays(), raw_streams=raw)
    for each in messages:
        assert made.apply(each)
    return made


def texts(made: OutputArea) -> list[str]:
    """Return what each output shows, briefly."""
    return [output.get("text") or output.get("ename") or output["data"]["text/plain"] for output in made.render()]


# One message each ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "output"),
    [
        (stream("x", "stderr"), {"output_type": "stream", "name": "stderr", "text": "x"}),
        (message("stream", {"text": "x"}), {"output_type": "stream", "name": "stdout", "text": "x"}),
        (display("x"), {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}),
        (
            result("x", count=7),
            {"output_type": "execute_result", "data": {"text/plain": "x"}, "metadata": {}, "execution_count": 7},
        ),
        (ERROR, {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}),
        (message("display_data", {}), {"output_type": "display_data", "data": {}, "metadata": {}}),
        (
            message("execute_result", {"data": [], "metadata": 1, "execution_count": "x"}),
            {"output_type": "execute_result", "data": {}, "metadata": {}, "execution_count": None},
        ),
    ],
    ids=["stream", "nameless stream", "display", "result", "error", "empty display", "result of wrong types"],
)
def test_each_kind_of_message_becomes_its_kind_of_output(sent: Message, output: Output) -> None:
    assert area(sent).render() == [output]


@pytest.mark.parametrize("kind", ["status", "execute_input", "comm_open", "nobody_knows", ""])
def test_a_message_that_is_no_output_is_left_to_others(kind: str) -> None:
    made = area()
    assert made.apply(message(kind, {"text": "x", "name": "stdout"})) is False
    assert made.render() == []


# Streams -------------------------------------------------------------------------------------------------------------


def test_a_stream_joins_the_last_output_of_its_name() -> None:
    assert texts(area(stream("a"), stream("b"), stream("c", "stderr"), stream("d"))) == ["ab", "c", "d"]


def test_another_output_in_between_begins_a_new_stream() -> None:
    assert texts(area(stream("a"), display("x"), stream("b"))) == ["a", "x", "b"]


def test_the_cursor_of_a_stream_lives_as_long_as_its_output() -> None:
    assert texts(area(stream("50%"), stream("\r100%"))) == ["100%"]
    assert texts(area(stream("50%"), display("x"), stream("\r100%"))) == ["50%", "x", "\r100%".replace("\r", "")]
    assert texts(area(stream("50%"), clear(), stream("\b1"))) == ["1"]


def test_raw_streams_are_joined_and_otherwise_left_alone() -> None:
    assert texts(area(stream("50%"), stream("\r100%"), raw=True)) == ["50%\r100%"]


# Clearing ------------------------------------------------------------------------------------------------------------


def test_clear_output_empties_the_cell_at_once() -> None:
    assert texts(area(stream("a"), display("b"), clear())) == []


@pytest.mark.parametrize(
    "next_output", [stream("new"), display("new"), result("new")], ids=["stream", "display", "result"]
)
def test_clear_output_that_waits_empties_the_cell_when_the_next_output_comes(next_output: Message) -> None:
    made = area(stream("old"), clear(wait=True))
    assert texts(made) == ["old"]
    made.apply(next_output)
    assert texts(made) == ["new"]


def test_an_error_is_an_output_that_a_waiting_clear_waited_for() -> None:
    assert texts(area(stream("old"), clear(wait=True), ERROR)) == ["E"]


def test_an_output_that_came_by_another_way_is_one_too() -> None:
    made = area(stream("old"), clear(wait=True))
    made.append({"output_type": "stream", "name": "stdout", "text": "new"})
    assert texts(made) == ["new"]


def test_a_clear_that_waits_in_vain_clears_nothing() -> None:
    assert texts(area(display("old", "d"), clear(wait=True), update("changed"))) == ["changed"]


def test_a_clear_at_once_settles_one_that_waits() -> None:
    assert texts(area(stream("a"), clear(wait=True), clear(), stream("b"), stream("c"))) == ["bc"]


def test_a_stream_after_a_clear_that_waited_begins_anew() -> None:
    assert texts(area(stream("a"), clear(wait=True), stream("b"), stream("c"))) == ["bc"]


def test_errors_are_counted_also_when_they_are_cleared() -> None:
    made = area(ERROR, clear())
    assert (made.render(), made.errors) == ([], 1)


# Display ids ---------------------------------------------------------------------------------------------------------


def test_an_update_changes_data_and_metadata_and_nothing_else() -> None:
    made = area(result("old", "d", count=7))
    made.apply(message("update_display_data", {
        "data": {"text/html": "new"}, "metadata": {"m": 1}, "transient": {"display_id": "d"}, "execution_count": 9,
    }))  # fmt: skip
    assert made.render() == [
        {"output_type": "execute_result", "data": {"text/html": "new"}, "metadata": {"m": 1}, "execution_count": 7}
    ]


def test_an_update_from_a_later_cell_changes_the_earlier_one() -> None:
    displays = Displays()
    first, second = area(display("old", "d"), displays=displays), area(displays=displays)
    second.apply(update("new"))
    assert (texts(first), texts(second)) == (["new"], [])


def test_an_update_from_an_earlier_cell_changes_the_later_one() -> None:
    displays = Displays()
    first, second = area(displays=displays), area(display("old", "d"), displays=displays)
    first.apply(update("new"))
    assert (texts(first), texts(second)) == ([], ["new"])


def test_showing_an_id_again_appends_and_changes_where_it_was_shown_before() -> None:
    displays = Displays()
    first, second = area(display("one", "d"), displays=displays), area(display("two", "d"), displays=displays)
    assert (texts(first), texts(second)) == (["two"], ["two"])
    first.apply(update("three"))
    assert (texts(first), texts(second)) == (["three"], ["three"])


def test_the_same_id_twice_in_one_cell_is_two_outputs_that_show_the_same() -> None:
    assert texts(area(display("one", "d"), result("two", "d"), update("three"))) == ["three", "three"]


def test_the_type_of_an_output_stays_when_its_id_is_shown_in_another_way() -> None:
    made = area(display("one", "d"), result("two", "d", count=3))
    assert [output["output_type"] for output in made.render()] == ["display_data", "execute_result"]


@pytest.mark.parametrize("display_id", ["unknown", None], ids=["unknown", "none"])
def test_an_update_of_what_is_not_shown_changes_nothing(display_id: str | None) -> None:
    assert texts(area(display("x", "d"), display("y"), update("new", display_id))) == ["x", "y"]


def test_outputs_without_an_id_do_not_share_one() -> None:
    assert texts(area(display("x"), display("y"))) == ["x", "y"]


@pytest.mark.parametrize(
    "forget", [[clear()], [clear(wait=True), stream("new")]], ids=["at once", "when the next comes"]
)
def test_what_was_cleared_is_forgotten_and_its_id_unknown_again(forget: list[Message]) -> None:
    displays = Displays()
    made = area(display("old", "d"), *forget, displays=displays)
    gc.collect()
    assert displays.update(update("new").content) is None
    made.apply(display("again", "d"))
    assert texts(made)[-1] == "again"


def test_what_is_cleared_in_one_cell_stays_known_in_another() -> None:
    displays = Displays()
    first, second = area(display("old", "d"), displays=displays), area(display("old", "d"), displays=displays)
    first.apply(clear())
    first.apply(update("new"))
    assert (texts(first), texts(second)) == ([], ["new"])


def test_a_display_that_replaces_itself_keeps_its_id() -> None:
    assert texts(area(display("one", "d"), clear(wait=True), display("two", "d"), update("three"))) == ["three"]


def test_a_waiting_clear_is_not_settled_by_an_update() -> None:
    assert texts(area(display("one", "d"), clear(wait=True), update("two"), stream("new"))) == ["new"]


@pytest.mark.parametrize(
    "transient",
    [None, [], "d", {"display_id": 7}, {"display_id": ["d"]}],
    ids=["null", "array", "text", "number", "list"],
)
def test_an_id_that_is_no_text_is_none(transient: Any) -> None:
    made = area(message("display_data", {"data": {"text/plain": "x"}, "transient": transient}))
    made.apply(message("update_display_data", {"data": {"text/plain": "new"}, "transient": transient}))
    assert texts(made) == ["x"]


# Whatever comes, the notebook is valid -------------------------------------------------------------------------------

contents = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["stdout", "stderr"]) | json_values,
        "text": st.text("a\n\r\b") | json_values,
        "data": st.dictionaries(st.sampled_from(["text/plain", "application/json"]) | st.text(max_size=5), json_values)
        | json_values,
        "metadata": json_objects | json_values,
        "transient": st.fixed_dictionaries({"display_id": st.sampled_from(["d", "e"])}) | json_values,
        "execution_count": json_values,
        "ename": json_values,
        "evalue": json_values,
        "traceback": json_values,
        "wait": json_values,
    },
)
kinds = st.sampled_from(
    ["stream", "display_data", "execute_result", "error", "update_display_data", "clear_output", "status"]
)


@QUICK
@given(st.lists(st.tuples(kinds, contents), max_size=8))
def test_whatever_a_kernel_sends_the_notebook_is_valid(sent: list[tuple[str, Output]]) -> None:
    made = OutputArea(Displays())
    for kind, content in sent:
        made.apply(message(kind, content))
    cell: Output = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": "",
        "execution_count": None,
        "outputs": made.render(),
    }
    nbformat.validate({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]})


# What a verdict asks -------------------------------------------------------------------------------------------------


def error_message(ename: str, traceback: Sequence[str] = ("line",)) -> Message:
    return message("error", {"ename": ename, "evalue": "", "traceback": list(traceback)})


def test_the_errors_that_are_shown_are_those_that_were_not_cleared() -> None:
    area = OutputArea(Displays())
    assert area.shown_errors() == []
    for name in "ab":
        area.apply(error_message(name))
    assert [output["ename"] for output in area.shown_errors()] == ["a", "b"]
    area.apply(message("clear_output", {"wait": True}))
    assert len(area.shown_errors()) == 2, "until something else comes, the outputs stay"
    area.apply(error_message("c"))
    assert [output["ename"] for output in area.shown_errors()] == ["c"]
    area.apply(message("clear_output", {"wait": False}))
    assert area.shown_errors() == []
    assert area.errors == 3


def test_an_error_that_had_no_room_is_shown_all_the_same() -> None:
    area = OutputArea(Displays(), limit=1000)
    area.apply(message("stream", {"name": "stdout", "text": "x" * 5000}))
    area.apply(error_message("E"))
    assert [output["ename"] for output in area.shown_errors()] == ["E"]


def test_the_end_of_standard_error_is_its_last_lines() -> None:
    area = OutputArea(Displays())
    assert area.end_of_stderr(2) == ""
    for name, written in [("stderr", "a\nb\n"), ("stdout", "no\n"), ("stderr", "c\n\n"), ("stdout", "no")]:
        area.apply(message("stream", {"name": name, "text": written}))
    assert area.end_of_stderr(2) == "b\nc"
    assert area.end_of_stderr(9) == "a\nb\nc"
