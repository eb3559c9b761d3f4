"""Comm messages become the widgets' state in the notebook."""

import base64
from typing import Any

import pytest

from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.outputs.widgets import STATE_MIME, VIEW_MIME, Widgets, merged_state
from nbrun.core.protocol.messages import Channel, Message
from tests.core.conversation import KERNEL, Conversation, message

SLIDER = {
    "_model_name": "IntSliderModel",
    "_model_module": "@jupyter-widgets/controls",
    "_model_module_version": "2.0.0",
}
OUTPUT = {"_model_name": "OutputModel", "_model_module": "@jupyter-widgets/output", "msg_id": "", "outputs": []}


def comm(kind: str, comm_id: str, data: dict[str, Any] | None = None, *buffers: bytes, **more: Any) -> Message:
    content = {"comm_id": comm_id, "data": data or {}, **more}
    return Message(Channel.IOPUB, {"msg_type": kind, "session": KERNEL}, {}, content, {}, buffers)


def opened(comm_id: str, state: dict[str, Any], paths: list[Any] | None = None, *buffers: bytes) -> Message:
    data = {"state": state, "buffer_paths": paths or []}
    return comm("comm_open", comm_id, data, *buffers, target_name="jupyter.widget")


def updated(
    comm_id: str, state: dict[str, Any], paths: list[Any] | None = None, *buffers: bytes, method: str = "update"
) -> Message:
    return comm("comm_msg", comm_id, {"method": method, "state": state, "buffer_paths": paths or []}, *buffers)


def widgets(*messages: Message) -> Widgets:
    made = Widgets(lambda: OutputArea(Displays()))
    for each in messages:
        assert made.apply(each)
    return made


def view(model_id: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {VIEW_MIME: {"model_id": model_id}}, "metadata": {}}


def models(made: Widgets, *shown: str) -> dict[str, Any]:
    saved = made.saved([view(model_id) for model_id in shown])
    state: dict[str, Any] = saved[STATE_MIME]["state"] if saved else {}
    return state


# State -----------------------------------------------------------------------------------------------------------


def test_a_model_is_saved_with_its_state_and_its_names() -> None:
    made = widgets(opened("a", {**SLIDER, "value": 3}), updated("a", {"value": 4}), updated("a", {"max": 9}))
    saved = made.saved([])
    assert saved == {
        STATE_MIME: {
            "version_major": 2,
            "version_minor": 0,
            "state": {
                "a": {
                    "model_name": "IntSliderModel",
                    "model_module": "@jupyter-widgets/controls",
                    "model_module_version": "2.0.0",
                    "state": {**SLIDER, "value": 4, "max": 9},
                }
            },
        }
    }


def test_without_widgets_there_is_no_state() -> None:
    assert widgets().saved([view("a")]) is None


@pytest.mark.parametrize(
    "foreign",
    [
        comm("comm_open", "b", {"state": {"x": 1}}, target_name="matplotlib"),
        updated("unknown", {"value": 5}),
        updated("a", {"value": 5}, method="custom"),
        comm("comm_close", "unknown"),
    ],
    ids=["another target", "an unknown comm", "a custom message", "the end of an unknown comm"],
)
def test_what_is_not_about_a_widgets_state_changes_nothing(foreign: Message) -> None:
    made = widgets(opened("a", {"value": 1}))
    before = models(made)
    made.apply(foreign)
    assert models(made) == before


def test_the_echo_of_an_update_is_an_update() -> None:
    assert models(widgets(opened("a", {}), updated("a", {"value": 5}, method="echo_update")))["a"]["state"] == {
        "value": 5
    }


def test_other_messages_are_not_taken() -> None:
    assert not Widgets(lambda: OutputArea(Displays())).apply(message("stream", {"name": "stdout", "text": "x"}))


# Buffers ---------------------------------------------------------------------------------------------------------


def saved_buffers(made: Widgets) -> dict[tuple[Any, ...], bytes]:
    return {tuple(row["path"]): base64.b64decode(row["data"]) for row in models(made)["a"].get("buffers", [])}


def test_a_binary_value_stands_beside_the_state() -> None:
    made = widgets(opened("a", {"value": None, "format": "png"}, [["value"]], b"png"))
    assert saved_buffers(made) == {("value",): b"png"}
    assert models(made)["a"]["state"] == {"format": "png"}
    assert models(made)["a"]["buffers"][0]["encoding"] == "base64"


def test_a_new_binary_value_takes_the_place_of_the_old_one() -> None:
    made = widgets(opened("a", {}, [["value"]], b"old"), updated("a", {}, [["value"]], b"new"))
    assert saved_buffers(made) == {("value",): b"new"}


def test_a_new_plain_value_takes_the_place_of_the_binary_ones_below_its_key() -> None:
    deep = [["data", "x"], ["data", 0], ["other"]]
    made = widgets(opened("a", {"data": {}}, deep, b"1", b"2", b"3"), updated("a", {"data": "plain"}))
    assert saved_buffers(made) == {("other",): b"3"}
    assert models(made)["a"]["state"] == {"data": "plain"}


@pytest.mark.parametrize("paths", [None, "x", [["value"], 5], [[]], []], ids=repr)
def test_malformed_paths_break_nothing(paths: Any) -> None:
    made = widgets(
        comm("comm_open", "a", {"state": {"v": 1}, "buffer_paths": paths}, b"1", target_name="jupyter.widget")
    )
    assert models(made)["a"]["state"] == {"v": 1}


# Closed widgets --------------------------------------------------------------------------------------------------


def test_a_closed_widget_is_left_out_unless_an_output_still_shows_it() -> None:
    made = widgets(opened("a", {"value": 1}), opened("b", {"value": 2}), comm("comm_close", "a"))
    assert list(models(made)) == ["b"]
    assert list(models(made, "a")) == ["a", "b"]


def test_what_a_shown_widget_refers_to_is_kept_with_it_however_deep() -> None:
    made = widgets(
        opened("box", {"children": ["IPY_MODEL_inner"], "layout": {"deep": ["IPY_MODEL_layout", 3]}}),
        opened("inner", {"style": "IPY_MODEL_missing", "box": "IPY_MODEL_box"}),
        opened("layout", {}),
        opened("unused", {}),
        *(comm("comm_close", each) for each in ("box", "inner", "layout", "unused")),
    )
    assert list(models(made, "box")) == ["box", "inner", "layout"]


# The Output widget -----------------------------------------------------------------------------------------------


def printed(text: str, parent: str = "r") -> Message:
    return message("stream", {"name": "stdout", "text": text}, parent=parent)


def test_an_output_widget_captures_what_its_request_puts_out_until_it_lets_go() -> None:
    made = widgets(opened("o", OUTPUT), updated("o", {"msg_id": "r"}))
    assert made.captures(printed("in"))
    assert not made.captures(printed("elsewhere", parent="another"))
    assert not made.captures(message("status", {"execution_state": "busy"}, parent="r"))
    made.apply(updated("o", {"msg_id": ""}))
    assert not made.captures(printed("after"))
    state = models(made)["o"]["state"]
    assert state["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "in"}]
    assert state["msg_id"] == ""


def test_of_two_output_widgets_the_inner_one_captures_and_then_the_outer_one_again() -> None:
    made = widgets(
        opened("a", OUTPUT), opened("b", OUTPUT), updated("a", {"msg_id": "r"}), updated("b", {"msg_id": "r"})
    )
    made.captures(printed("inner"))
    made.apply(updated("b", {"msg_id": ""}))
    made.captures(printed("outer"))
    captured = {comm_id: outputs[0]["text"] for comm_id, outputs in made.unsent()}
    assert captured == {"a": "outer", "b": "inner"}


def test_the_kernel_is_told_once_what_was_captured_and_not_after_the_widget_is_closed() -> None:
    made = widgets(opened("o", OUTPUT), updated("o", {"msg_id": "r"}))
    made.captures(printed("x"))
    assert [comm_id for comm_id, _ in made.unsent()] == ["o"]
    assert made.unsent() == []
    made.captures(printed("y"))
    made.apply(comm("comm_close", "o"))
    assert made.unsent() == []
    assert not made.captures(printed("z"))


def test_outputs_that_the_kernel_sets_take_the_place_of_the_captured_ones() -> None:
    made = widgets(opened("o", OUTPUT), updated("o", {"msg_id": "r"}))
    made.captures(printed("gone"))
    set_by_kernel = {"output_type": "stream", "name": "stdout", "text": "set"}
    made.apply(updated("o", {"outputs": [set_by_kernel]}))
    assert models(made)["o"]["state"]["outputs"] == [set_by_kernel]
    made.apply(updated("o", {"outputs": None}))
    assert models(made)["o"]["state"]["outputs"] == []


# In the notebook -------------------------------------------------------------------------------------------------


def test_a_new_state_takes_the_place_of_the_old_one_but_for_what_is_still_shown() -> None:
    old = {
        STATE_MIME: {"state": {"kept": {"state": {"layout": "IPY_MODEL_l"}}, "l": {"state": {}}, "gone": {"state": {}}}}
    }
    new: dict[str, Any] = {STATE_MIME: {"state": {"fresh": {"state": {}}}}}
    merged = merged_state(old, new, [view("kept"), view("fresh"), {"output_type": "stream"}])
    assert merged is not None
    assert list(merged[STATE_MIME]["state"]) == ["kept", "l", "fresh"]
    assert merged_state(old, None, []) is None


# In a run --------------------------------------------------------------------------------------------------------


def test_what_an_output_widget_captured_is_no_output_of_the_cell_and_the_kernel_knows_it_before_the_next_cell() -> None:
    talk = Conversation("one", "two")
    talk.hear(opened("o", OUTPUT))
    talk.hear(updated("o", {"msg_id": talk.request}))
    talk.stream("captured")
    talk.hear(updated("o", {"msg_id": ""}))
    talk.stream("the cell's own")
    talk.complete()
    assert [output["text"] for output in talk.outputs()] == ["the cell's own"]
    kinds = [effect.message.type for effect in talk.wanted if hasattr(effect, "message")]
    assert kinds == ["execute_request", "comm_msg", "execute_request"]
    [told] = talk.requests("comm_msg")
    assert told.content["comm_id"] == "o"
    assert told.content["data"]["state"]["outputs"][0]["text"] == "captured"
    saved = talk.run.widgets([])
    assert saved is not None
    assert saved[STATE_MIME]["state"]["o"]["state"]["outputs"][0]["text"] == "captured"
