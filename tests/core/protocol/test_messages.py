"""Requests are valid, and messages of any shape can be read."""

from typing import Any

import pytest

from nbrun.core.protocol.messages import PROTOCOL_VERSION, Channel, Message, Requests, traceback_lines


def header_of(request: Message) -> dict[str, Any]:
    return dict(request.header)


def test_a_request_has_the_header_without_which_kernels_do_not_answer() -> None:
    header = header_of(Requests("our-session").execute("1"))
    assert header == {
        "msg_id": "our-session_1",
        "msg_type": "execute_request",
        "session": "our-session",
        "username": "nbrun",
        "version": PROTOCOL_VERSION,
    }


def test_each_request_has_an_id_of_its_own() -> None:
    requests = Requests("s")
    made = [requests.execute("1"), requests.kernel_info(), requests.complete("a", 1), requests.inspect("a", 1)]
    assert [request.id for request in made] == ["s_1", "s_2", "s_3", "s_4"]


def test_requests_are_counted() -> None:
    requests = Requests("session")
    requests.kernel_info()
    requests.execute("1")
    assert requests.made == 2


def test_code_is_executed_without_stdin_and_into_the_history() -> None:
    request = Requests("s").execute("1 + 1", metadata={"cellId": "a"})
    assert request.content == {
        "code": "1 + 1",
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    assert (request.channel, request.metadata) == (Channel.SHELL, {"cellId": "a"})


def test_silent_code_leaves_no_history() -> None:
    content = Requests("s").execute("1", silent=True, stop_on_error=False).content
    assert (content["silent"], content["store_history"], content["stop_on_error"]) == (True, False, False)


def test_metadata_is_an_object_also_when_there_is_none() -> None:
    assert Requests("s").execute("1").metadata == {}


def test_the_kernel_can_be_asked_on_either_channel() -> None:
    requests = Requests("s")
    assert [requests.kernel_info().channel, requests.kernel_info(Channel.CONTROL).channel] == ["shell", "control"]


def test_questions_about_code_count_code_points() -> None:
    requests = Requests("s")
    assert requests.complete("é🎈.", 3).content == {"code": "é🎈.", "cursor_pos": 3}
    assert requests.inspect("f", 1, 1).content == {"code": "f", "cursor_pos": 1, "detail_level": 1}


def test_a_message_tells_what_its_headers_say() -> None:
    header = {"msg_id": "k_1", "msg_type": "status", "session": "k", "date": "2026-01-02T03:04:05Z"}
    message = Message("iopub", header, {"msg_id": "s_1", "msg_type": "execute_request"}, {})
    assert (message.type, message.id, message.session, message.date) == ("status", "k_1", "k", "2026-01-02T03:04:05Z")
    assert (message.parent_id, message.parent_type) == ("s_1", "execute_request")


@pytest.mark.parametrize("wrong", [None, 7, ["x"], {}], ids=["null", "a number", "an array", "an object"])
def test_what_is_no_text_in_a_header_is_taken_as_missing(wrong: Any) -> None:
    keys = ("msg_id", "msg_type", "session", "date")
    message = Message("iopub", dict.fromkeys(keys, wrong), {"msg_id": wrong}, {})
    assert (message.type, message.id, message.session, message.date, message.parent_id) == ("", "", "", "", "")
    empty = Message("iopub", {}, {}, {})
    assert (empty.type, empty.id, empty.session, empty.date, empty.parent_id) == ("", "", "", "", "")


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        (["one", "two"], ["one", "two"]),
        ("one\ntwo", ["one", "two"]),
        (["one", 2, None], ["one", "2", "None"]),
        (("one",), ["one"]),
        (None, []),
        (7, []),
        ({"a": 1}, []),
    ],
    ids=["a list", "a text", "other things in it", "a tuple", "null", "a number", "an object"],
)
def test_a_traceback_is_a_list_of_texts_whatever_a_kernel_sent(sent: Any, lines: list[str]) -> None:
    assert traceback_lines(sent) == lines
