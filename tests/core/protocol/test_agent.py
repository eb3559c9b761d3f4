"""Requests to the agent in the kernel, and its answers."""

import sys
from typing import Any

import pytest

from nbrun.core.protocol import agent
from nbrun.core.protocol.agent import Ability, AgentOptions
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import KERNEL, OURS


def reply(content: dict[str, Any], metadata: dict[str, Any] | None = None) -> Message:
    return Message(Channel.SHELL, {"session": KERNEL}, {}, content, metadata or {})


def test_the_installation_is_one_silent_expression_that_leaves_no_name() -> None:
    sources = {
        "first": "def add(kernel, value): kernel.append(value)",
        "agent": "from .first import add\ndef install(kernel, options): add(kernel, options)",
    }
    request = agent.install(Requests(OURS), sources, AgentOptions(replay=7))
    assert (request.content["silent"], request.content["store_history"]) == (True, False)
    code = request.content["code"]
    assert {*compile(code, "install", "eval").co_names} == {"exec", "get_ipython", "kernel"}
    kernel: list[Any] = []
    names = {"get_ipython": lambda: type("Shell", (), {"kernel": kernel})}
    assert eval(code, names) is None
    assert kernel == [{"replay": 7, "lift_limits": False, "quiet": False, "freeze": False, "progress": None}]
    assert {*names} == {"get_ipython", "__builtins__"}
    assert not [name for name in sys.modules if name.startswith("nbrun_agent")]


def test_hello_goes_by_shell_and_recalls_by_control() -> None:
    requests = Requests(OURS)
    hello, recall = agent.hello(requests, AgentOptions()), agent.recall(requests, "x")
    assert (hello.channel, hello.type) == (Channel.SHELL, agent.HELLO)
    assert (recall.channel, recall.type, recall.content) == (Channel.CONTROL, agent.RECALL, {"request": "x"})


@pytest.mark.parametrize(("named", "abilities"), [(["replay", 3], {Ability.REPLAY}), (None, set())], ids=str)
def test_abilities_are_read_from_the_reply(named: Any, abilities: set[str]) -> None:
    assert agent.abilities_in(reply({"abilities": named})) == abilities


def test_an_answer_with_messages_may_hold_anything() -> None:
    said = ["{", 3, '{"header": 1, "channel": "iopub", "buffers": "many"}', "[]"]
    answer = Message(Channel.CONTROL, {"session": KERNEL}, {}, {"messages": said}, buffers=(b"x",))
    assert [each.header for each in agent.resent(answer)] == [{}] * 4
    assert agent.resent(Message(Channel.CONTROL, {}, {}, {"messages": None})) == []


@pytest.mark.parametrize(("content", "may_write"), [({"writers": False}, False), ({"writers": True}, True), ({}, True)])
def test_only_a_plain_no_says_that_nobody_writes(content: dict[str, Any], may_write: bool) -> None:
    assert agent.has_writers(reply(content)) == may_write


@pytest.mark.parametrize(
    ("told", "amounts"), [([3, 4, 9, "5"], {5: 2, 7: 0}), ([], {5: 0, 7: 0}), (None, {5: 0, 7: 0})], ids=str
)
def test_numbers_that_were_not_sent_are_counted_from_first_to_last(told: Any, amounts: dict[int, int]) -> None:
    stretches = [(1, 5), (6, 7)]
    assert agent.unsent_in(reply({"unsent": told}), stretches) == amounts
    assert agent.unsent_at_exit(reply({}, {"nbrun_unsent": told}), stretches) == amounts
