"""Nobody is waited for where the kernel says that nobody is there; everybody else gets a moment of quiet."""

from typing import Any

import pytest

from nbrun.core.effects import DRAIN_QUIET
from nbrun.core.farewell import Farewell
from nbrun.core.messages import Channel, Requests
from nbrun.core.results import Outcome
from tests.core.conversation import OURS, Conversation, message

NOBODY = {"nbrun": {"status": "ok", "data": {"text/plain": "'nobody'"}, "metadata": {}}}
SOMEBODY = {"nbrun": {"status": "ok", "data": {"text/plain": "'somebody'"}, "metadata": {}}}
BROKEN = {"nbrun": {"status": "error", "ename": "NameError", "evalue": "x", "traceback": []}}


def ended(talk: Conversation, expressions: dict[str, Any], *, last: str = "idle") -> None:
    """Let the kernel answer the last question."""
    question = talk.request
    talk.status("busy", question)
    if last == "idle":
        talk.reply(user_expressions=expressions, parent=question)
    talk.status("idle", question)
    if last == "reply":
        talk.reply(user_expressions=expressions, parent=question)


def at_the_end() -> Conversation:
    talk = Conversation("one", ask_for_writers=True)
    talk.complete()
    return talk


def test_the_question_is_silent_and_has_no_code() -> None:
    request = Farewell(asks=True).ask(Requests(OURS))
    assert (request.type, request.content["code"], request.content["silent"]) == ("execute_request", "", True)
    assert request.content["store_history"] is False
    assert Farewell(asks=False).ask(Requests(OURS)).type == "kernel_info_request"


def test_what_it_evaluates_is_one_expression_of_python() -> None:
    request = Farewell(asks=True).ask(Requests(OURS))
    compile(request.content["user_expressions"]["nbrun"], "question", "eval")


@pytest.mark.parametrize("last", ["idle", "reply"])
def test_where_nobody_is_there_the_run_ends_at_once(last: str) -> None:
    talk = at_the_end()
    ended(talk, NOBODY, last=last)
    assert talk.outcome() is Outcome.PASSED


def test_what_the_question_brings_along_belongs_to_the_last_cell() -> None:
    talk = at_the_end()
    talk.stream("from a child", parent=talk.request)
    ended(talk, NOBODY)
    assert talk.outputs()[0]["text"] == "from a child"


@pytest.mark.parametrize("answer", [SOMEBODY, BROKEN, {}], ids=["somebody", "an error", "nothing"])
def test_where_somebody_may_be_there_a_moment_passes_and_the_question_is_put_again(answer: dict[str, Any]) -> None:
    talk = at_the_end()
    ended(talk, answer)
    assert talk.outcome() is None
    first = talk.request
    talk.until(DRAIN_QUIET)
    assert talk.request != first
    talk.stream("late", parent=talk.request)
    ended(talk, answer)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outputs()[0]["text"] == "late"


def test_a_second_question_without_an_answer_is_not_waited_for() -> None:
    talk = at_the_end()
    ended(talk, SOMEBODY)
    talk.until(DRAIN_QUIET)
    talk.status("busy", talk.request)
    talk.until(2 * DRAIN_QUIET)
    assert talk.outcome() is Outcome.PASSED


def test_an_answer_to_kernel_info_says_nothing_of_anybody() -> None:
    farewell = Farewell(asks=False)
    farewell.ask(Requests(OURS))
    assert not farewell.ends(message("kernel_info_reply", {}, channel=Channel.SHELL))
    assert not farewell.ends(message("status", {"execution_state": "idle"}))
