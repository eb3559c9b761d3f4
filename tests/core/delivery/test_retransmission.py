"""Lost messages are requested by number, and all messages are passed on in order and once."""

from collections import deque
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbrun.core.delivery import retransmission
from nbrun.core.delivery.retransmission import (
    ANSWER_LIMIT,
    CUT_LIMIT,
    ENDED,
    FAILURES,
    FEW,
    PATIENCE,
    RHYTHM,
    ResentMessages,
    in_order,
)
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import KERNEL, OURS, STRANGER, message
from tests.core.keeping import KeptKernel
from tests.core.properties import QUICK

NOTICE = message("stream", {"name": "stderr", "text": "IOPub message rate exceeded.\n"}, session=OURS)
DEAD = message("status", {"execution_state": "dead"}, session=OURS)


class Line:
    """A kernel with the agent, the way from it, and what comes out at the end; time is a number."""

    def __init__(self, *, is_known: bool = True, **kept: Any) -> None:
        self.now = 0.0
        self.kernel = KeptKernel(**kept)
        self.kernel.run_cell(0)
        last = self.kernel.iopub.pop()
        for queue in (self.kernel.iopub, self.kernel.replies, self.kernel.said, self.kernel.answered):
            queue.clear()
        self.client = ResentMessages(Requests(OURS), KERNEL, last if is_known else None)
        self.given: list[Message] = []
        self.asked: list[Message] = []

    def receive(self, what: Message) -> None:
        """Let a message arrive."""
        self.given += self.client.receive(what, self.now)
        self.asked += self.client.requests()

    def output(self, *, lost: bool = False) -> None:
        """Let the next output message arrive, or get lost."""
        what = self.kernel.iopub.popleft()
        if not lost:
            self.receive(what)

    def reply(self) -> None:
        """Let the next reply arrive."""
        self.receive(self.kernel.replies.popleft())

    def deliver_all(self, lose: int = 0) -> None:
        """Let arrive what is on its way, but for the first outputs."""
        for _ in range(lose):
            self.output(lost=True)
        while self.kernel.iopub:
            self.output()
        while self.kernel.replies:
            self.reply()

    def answer(self) -> None:
        """Let the kernel handle what it was asked, and the answers arrive before all else."""
        asked, self.asked = self.asked, []
        for request in asked:
            self.kernel.answer(request)
        while self.kernel.replies:
            self.reply()

    def until(self, now: float) -> None:
        """Let time pass."""
        while (deadline := self.client.deadline) is not None and deadline <= now:
            self.now = deadline
            self.given += self.client.tick(deadline)
            self.asked += self.client.requests()
        self.now = now

    def reconnect(self) -> None:
        """Let the connection break and come back at once."""
        self.client.cut(self.now)
        self.client.reconnected(self.now)
        self.asked += self.client.requests()

    def settle(self) -> None:
        """Go on until nothing is on its way any more, and no clock runs."""
        while self.asked or self.kernel.iopub or self.kernel.replies or self.client.deadline is not None:
            self.answer()
            self.deliver_all()
            if not self.asked and (deadline := self.client.deadline) is not None:
                self.until(deadline)

    def waits(self) -> bool:
        """Return whether the end of the run would wait."""
        return self.client.is_waiting

    def texts(self) -> list[str]:
        """Return what was printed, as it came out."""
        return [str(each.content["text"]) for each in self.given if "text" in each.content]

    def kinds(self) -> list[str]:
        """Return what came out, each message by its type, or its state if it is a status."""
        return [str(each.content.get("execution_state", each.type)) for each in self.given]

    def ranges(self) -> list[Any]:
        """Return the questions that were not answered yet, each as what it asks for, counted from the first output."""
        return [request.content["numbers"] for request in self.asked]


def number_of(what: Message) -> int:
    return int(what.id.rpartition("_")[2])


# The way as it is, with nothing lost ---------------------------------------------------------------------------------


@QUICK
@given(st.randoms(use_true_random=False))
def test_as_long_as_nothing_is_lost_nothing_is_asked_and_nothing_is_held(random: Random) -> None:
    line = Line()
    for _ in range(4):
        stranger = random.random() < 0.3
        line.kernel.run_cell(random.randrange(3), f"{STRANGER}_1" if stranger else "")
        line.kernel.run_cell(0, f"{OURS}_comm", "comm_msg")
        if stranger:
            line.kernel.replies.pop()
            line.kernel.answered.pop()
    outputs = len(line.kernel.said)
    while line.kernel.iopub or line.kernel.replies:
        if line.kernel.iopub and (not line.kernel.replies or random.random() < 0.5):
            line.output()
        else:
            line.reply()
        assert line.asked == []
    assert [each for each in line.given if each.channel == Channel.IOPUB] == line.kernel.said
    assert len(line.given) == outputs + len(line.kernel.answered)


def test_the_first_message_is_where_the_numbers_begin_a_reply_before_it_too() -> None:
    line = Line(is_known=False)
    line.kernel.run_cell(1)
    line.kernel.run_cell(1)
    line.kernel.iopub.popleft()
    line.reply()
    line.reply()
    line.deliver_all()
    assert len(line.given) == 7
    assert line.asked == []


def test_a_reply_that_comes_several_times_is_given_on_once() -> None:
    line = Line()
    line.kernel.run_cell(1)
    reply = line.kernel.replies[0]
    line.receive(reply)
    line.receive(reply)
    line.deliver_all()  # the outputs, and the reply once more
    assert line.kinds().count("execute_reply") == 1
    assert line.asked == []


# What is lost --------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_asked_for_and_what_comes_behind_it_waits() -> None:
    line = Line()
    line.kernel.run_cell(5)
    for lost in (False, False, False, True, True, False):
        line.output(lost=lost)
    first = number_of(line.kernel.said[3])
    assert line.ranges() == [[(first, first + 1)]]
    assert line.texts() == ["2:0", "2:1"]
    line.reply()
    line.output()
    assert len(line.asked) == 1  # one question at a time
    assert line.waits()
    line.answer()
    assert not line.waits()
    assert line.texts() == [f"2:{number}" for number in range(5)]
    assert line.kinds()[-2:] == ["execute_reply", "idle"]


def test_what_is_missing_before_the_idle_is_found_with_and_without_the_reply() -> None:
    for reply_first in (True, False):
        line = Line()
        line.kernel.run_cell(2)
        if reply_first:
            line.reply()
        for lost in (False, False, True, False):
            line.output(lost=lost)
        assert "idle" not in line.kinds()
        line.settle()
        assert line.texts() == ["2:0", "2:1"]
        assert line.kinds().count("execute_reply") == 1


@QUICK
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_whatever_is_lost_all_goes_on_in_order_and_once(seed: int, share: float) -> None:
    random = Random(seed)
    line = Line(portion=random.choice([2500, 5000, 100_000]))
    own, busy, is_lost = [], 0, False
    while busy < 6 or line.kernel.iopub or line.kernel.replies or line.asked:
        match random.randrange(6):
            case 0 if busy < 6:
                busy += 1
                parent = random.choice(["", f"{STRANGER}_{busy}"])
                line.kernel.run_cell(random.randrange(4), parent, has_result=random.random() < 0.5)
                if line.kernel.answered[-1].parent_id.startswith(STRANGER):
                    line.kernel.replies.pop()
                else:
                    own.append(line.kernel.answered[-1])
            case 1 | 2 if line.kernel.iopub:
                # A connection does not lose a text and let the result behind it through.
                is_lost = random.random() < share or (is_lost and line.kernel.iopub[0].type == "execute_result")
                line.output(lost=is_lost)
            case 3 if line.kernel.replies:
                if line.kernel.replies[0].type == "execute_reply" and random.random() < share:
                    line.kernel.replies.popleft()
                else:
                    line.reply()
            case 4 if line.asked:
                line.kernel.answer(line.asked.pop(0))
            case 5 if line.given and random.random() < 0.3:
                twice = random.choice(line.given)
                if twice.type != agent.RESEND_REPLY:
                    line.receive(twice)
    line.reconnect()
    line.settle()
    line.reconnect()
    line.settle()
    numbers = [number_of(each) for each in line.given if each.channel == Channel.IOPUB]
    assert numbers == [number_of(each) for each in line.kernel.said]
    replies = [number_of(each) for each in line.given if each.type == "execute_reply"]
    assert sorted(replies) == [number_of(each) for each in own]


def test_what_is_lost_before_a_reply_and_with_all_that_follows_is_asked_for_after_a_moment() -> None:
    line = Line()
    line.kernel.run_cell(3)
    line.output()
    line.kernel.iopub.clear()
    line.reply()
    assert line.waits()
    line.until(PATIENCE - 0.01)
    assert line.asked == []
    line.until(PATIENCE)
    assert line.client.is_holding  # no clock of the cell runs on
    line.answer()
    assert line.texts() == ["2:0", "2:1", "2:2"]
    assert line.kinds()[-1] == "idle"
    assert not line.waits()


def test_what_a_reply_has_only_overtaken_is_not_asked_for_while_it_comes() -> None:
    line = Line()
    line.kernel.run_cell(4)
    line.reply()
    while line.kernel.iopub:
        line.until(line.now + PATIENCE / 2)
        line.output()
    line.until(line.now + PATIENCE)
    assert (line.asked, line.client.deadline) == ([], None)


def test_what_is_more_before_a_reply_than_queues_hold_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the kernel forgets it: the cells that were sent ahead go on."""
    monkeypatch.setattr(retransmission, "IN_QUEUES", 20)
    line = Line(portion=2500)
    line.kernel.run_cell(30)
    line.output()
    line.reply()
    [[(_, last)]] = line.ranges()
    assert last is None
    while len(line.kernel.iopub) > 15:
        line.answer()
        line.output()
    line.deliver_all()
    line.settle()
    assert line.texts() == [f"2:{number}" for number in range(30)]
    assert (line.now, line.kinds()[-1]) == (0.0, "idle")


def test_after_a_cut_the_tail_is_found_though_nothing_follows_it() -> None:
    line = Line()
    line.kernel.run_cell(3)
    line.output()
    line.kernel.iopub.clear()
    line.kernel.replies.clear()
    line.reconnect()
    assert line.ranges() == [[]]
    line.settle()
    assert line.texts() == ["2:0", "2:1", "2:2"]
    assert "execute_reply" in line.kinds()


def test_a_reply_that_is_lost_behind_its_idle_comes_after_a_cut() -> None:
    line = Line()
    line.kernel.run_cell(1)
    line.kernel.replies.clear()
    line.deliver_all()
    assert line.kinds()[-1] == "idle"
    line.reconnect()
    line.settle()
    assert line.kinds().count("execute_reply") == 1
    assert len(line.kernel.said) == sum(each.channel == Channel.IOPUB for each in line.given)


def test_a_reply_that_is_lost_before_an_idle_that_comes_after_a_cut_is_asked_for() -> None:
    line = Line()
    line.kernel.run_cell(1)
    line.kernel.replies.clear()
    line.output()
    line.output()
    line.reconnect()
    line.output()
    assert line.kinds()[-1] == "idle"
    line.settle()
    assert line.kinds().count("execute_reply") == 1
    assert line.waits() is False


def test_what_a_thread_numbers_early_and_sends_late_is_given_on_when_it_comes() -> None:
    line = Line()
    line.kernel.run_cell(3)
    line.output()
    late = line.kernel.iopub[0]
    line.output(lost=True)
    line.output()
    assert line.texts() == []
    line.receive(late)  # before the answer
    assert line.texts() == ["2:1", "2:0"]
    line.answer()
    line.receive(late)
    assert line.texts() == ["2:1", "2:0"]


def test_a_result_that_was_numbered_before_what_its_representation_put_out_stays_behind_it() -> None:
    line = Line()
    line.kernel.run_cell(3)
    first, result, shown, *rest = (line.kernel.iopub.popleft() for _ in range(5))
    for each in (first, shown, result, *rest):
        line.receive(each)
    assert line.texts() == ["2:1", "2:0", "2:2"]
    line.kernel.run_cell(4)
    busy, _lost, result, shown, *rest = (line.kernel.iopub.popleft() for _ in range(6))
    for each in (busy, shown, shown, result, *rest):
        line.receive(each)
    assert line.client.is_holding
    line.settle()
    assert line.texts()[3:] == ["3:0", "3:2", "3:1", "3:3"]


@pytest.mark.parametrize("lost", range(1, 6))
@pytest.mark.parametrize("portion", [500, 1000, 100_000])
def test_a_result_that_is_sent_again_stays_behind_what_was_printed_before_it(lost: int, portion: int) -> None:
    line = Line(portion=portion)
    line.kernel.run_cell(4, has_result=True)
    sent = [each for each in line.kernel.said if "text" in each.content]
    assert [number_of(each) for each in sent] != sorted(number_of(each) for each in sent)
    while line.kernel.iopub:
        line.output(lost=len(sent) + 1 - len(line.kernel.iopub) >= 5 - lost)
    line.reconnect()
    line.settle()
    assert line.texts() == ["2:0", "2:1", "2:2", "2:3", "2:result"]


def test_a_result_that_came_behind_its_text_waits_with_it_for_a_reply_between_them() -> None:
    """The kernel replies on the control channel while it runs a cell, so the reply has a number of the cell's."""
    line = Line()
    asked = {"msg_id": f"{OURS}_1", "msg_type": "execute_request"}
    result = line.kernel.number("execute_result", {"text": "result"}, asked)
    line.kernel.session.send("control", "nbrun_resend_reply", {}, {"header": asked})
    line.kernel.publish("stream", {"text": "out"}, asked)
    line.kernel.put_out(result)
    line.output()
    line.output()
    line.reply()
    assert line.texts() == ["out", "result"]


def test_a_result_waits_for_what_was_sent_before_it_though_nothing_else_shows_that() -> None:
    line = Line()
    asked = {"msg_id": f"{OURS}_1", "msg_type": "execute_request"}
    result = line.kernel.number("execute_result", {"text": "result"}, asked)
    for text in ("out", "error"):
        line.kernel.publish("stream", {"text": text}, asked)
    line.kernel.put_out(result)
    line.output()
    line.kernel.iopub.clear()
    assert [len(ranges) for ranges in line.ranges()] == [1]  # only the result is known to be missing
    line.answer()
    assert line.texts() == []
    line.settle()
    assert line.texts() == ["out", "error", "result"]


def test_what_a_result_waits_for_may_be_gone_and_its_number_may_be_wrong() -> None:
    for newest in (2, 900):
        line = Line()
        line.kernel.run_cell(1)
        line.output()
        line.output(lost=True)
        line.reply()
        line.output()
        [question] = line.asked
        line.asked.clear()
        line.kernel.answer(question)
        answer = line.kernel.replies.pop()
        line.receive(replace(answer, content={**answer.content, "after": [800, 800], "newest": newest}))
        assert line.texts() == (["2:0"] if newest == 2 else [])
        line.settle()
        assert line.texts() == ["2:0"]


# Who does not answer -------------------------------------------------------------------------------------------------


def test_a_kernel_that_goes_on_and_does_not_answer_is_not_waited_for_long_nor_asked_for_ever() -> None:
    line = Line()
    for cells, asks in enumerate((1, 2, 2), start=1):
        line.kernel.run_cell(3)
        line.output()
        line.output(lost=True)
        line.output()
        line.until(line.now + ANSWER_LIMIT - 1)
        line.deliver_all()
        line.until(line.now + 1)
        assert line.kinds().count("idle") == cells
        assert len(line.asked) == asks
    assert not line.waits()
    assert line.texts() == ["2:1", "2:2", "3:1", "3:2", "4:1", "4:2"]


def test_where_questions_are_not_answered_some_losses_wait_for_an_answer_and_no_others() -> None:
    line = Line()
    for cell in range(2, FAILURES + 3):
        held = cell < FAILURES + 2
        line.kernel.run_cell(2)
        line.output()
        line.output(lost=True)
        line.deliver_all()
        assert (f"{cell}:1" not in line.texts()) == held
        assert line.waits() == held
        line.until(line.now + ANSWER_LIMIT)
    assert line.texts() == [f"{cell}:1" for cell in range(2, FAILURES + 3)]
    assert line.client.deadline is None
    line.receive(NOTICE)
    line.reconnect()
    assert line.texts()[-1] == "IOPub message rate exceeded.\n"
    assert len(line.asked) == FAILURES


def test_a_cut_takes_the_question_along_and_holds_the_end_of_the_run_for_a_while() -> None:
    line = Line()
    line.kernel.run_cell(2)
    line.output()
    line.output(lost=True)
    line.output()
    line.client.cut(line.now)
    assert line.waits()
    assert line.client.deadline == CUT_LIMIT
    line.until(CUT_LIMIT)
    assert not line.waits()
    line.receive(NOTICE)
    assert len(line.asked) == 1  # nothing new: there is no connection
    line.client.reconnected(line.now)
    line.asked += line.client.requests()
    line.settle()
    assert line.texts() == ["2:0", "2:1"]


# What bears no number ------------------------------------------------------------------------------------------------


def test_what_a_forked_child_says_keeps_its_place_and_the_kernels_death_waits_for_nothing() -> None:
    line = Line()
    child = message("stream", {"text": "child"})
    line.receive(child)
    line.kernel.run_cell(3)
    line.output()
    line.output(lost=True)
    line.output()
    line.receive(child)
    line.output()
    assert line.texts() == ["child"]
    line.receive(DEAD)
    assert line.texts() == ["child", "2:1", "child", "2:2"]
    assert line.kinds()[-1] == "dead"


@pytest.mark.parametrize("restart", [False, True])
def test_a_kernel_that_is_shut_down_is_not_asked_for_what_is_missing(restart: bool) -> None:
    """Its reply to whoever shut it down is missing before its last message, and nobody is left to answer."""
    line = Line()
    line.kernel.run_cell(1)
    line.kernel.iopub.pop()
    line.output()
    line.output(lost=True)
    stranger = {"header": {"msg_id": f"{STRANGER}_1", "msg_type": "shutdown_request"}}
    line.kernel.session.send("control", "shutdown_reply", {"restart": restart}, stranger)
    line.kernel.publish("shutdown_reply", {"restart": restart}, stranger["header"])
    line.output()
    assert line.kinds() == ["busy", "shutdown_reply"]
    assert (line.asked, line.waits(), line.client.is_holding, line.client.deadline) == ([], False, False, None)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_kernel_that_has_ended_is_waited_for_no_longer(state: str) -> None:
    line = Line()
    line.kernel.run_cell(3)
    line.output()
    line.output(lost=True)
    line.output()
    assert line.waits()
    line.receive(message("status", {"execution_state": state}, session=OURS))
    line.output()
    assert line.texts() == ["2:1", "2:2"]
    assert (line.waits(), line.client.is_holding, line.client.deadline) == (False, False, None)


def test_a_server_that_drops_is_overtaken_and_its_word_is_no_loss() -> None:
    line = Line()
    line.kernel.run_cell(FEW + 20)
    for _ in range(3):
        line.output()
    line.kernel.iopub.clear()
    line.receive(NOTICE)
    line.receive(NOTICE)
    assert [len(ranges) for ranges in line.ranges()] == [1]
    line.answer()
    assert len(line.texts()) == FEW + 20
    assert line.asked == []
    line.kernel.iopub.clear()
    line.kernel.publish("stream", {"text": "late"}, {})
    line.kernel.iopub.clear()
    line.until(RHYTHM)
    line.answer()
    assert line.texts()[-1] == "late"
    line.settle()
    assert "IOPub message rate exceeded.\n" not in line.texts()
    assert line.client.deadline is None


def test_the_servers_word_is_no_loss_where_the_kernel_has_sent_nothing_since() -> None:
    line = Line()
    line.kernel.run_cell(2)
    line.deliver_all()
    for _ in range(2 + FAILURES):  # the last answer is the newest message from the second time on
        line.receive(NOTICE)
        line.answer()
        assert not line.waits()
    line.kernel.run_cell(2)
    line.deliver_all(lose=2)
    line.settle()
    assert line.texts() == ["2:0", "2:1", "3:0", "3:1"]


def test_the_servers_word_is_given_on_where_the_kernel_has_forgotten() -> None:
    line = Line(room=5000)
    line.kernel.run_cell(100)
    line.output()
    line.kernel.iopub.clear()
    line.receive(NOTICE)
    line.settle()
    assert 0 < len([text for text in line.texts() if text[0].isdigit()]) < 100
    assert "IOPub message rate exceeded.\n" in line.texts()


@pytest.mark.parametrize(
    ("behind", "is_loss"), [(0, True), (5, False)], ids=["it dropped that", "it drops from now on"]
)
def test_the_servers_word_may_come_when_the_kernel_has_told_already_what_it_forgot(behind: int, is_loss: bool) -> None:
    line = Line(room=5000)
    line.kernel.run_cell(100)
    line.output()
    line.reply()
    while line.kernel.iopub:
        line.output(lost=len(line.kernel.iopub) > behind)
    line.until(PATIENCE)
    line.answer()
    assert len(line.texts()) < 100
    line.receive(NOTICE)
    line.settle()
    assert ("IOPub message rate exceeded.\n" in line.texts()) == is_loss


@pytest.mark.parametrize(("has_ended", "is_loss"), [(False, True), (True, False)], ids=["same cell", "next cell"])
def test_a_server_may_drop_more_without_another_word_after_all_was_brought_back(has_ended: bool, is_loss: bool) -> None:
    line = Line(room=5000)
    cell = {"msg_id": f"{OURS}_cell", "msg_type": "execute_request"}
    line.kernel.publish("status", {"execution_state": "busy"}, cell)
    line.kernel.publish("stream", {"text": "0"}, cell)
    line.output()
    line.output(lost=True)
    line.receive(replace(NOTICE, parent=cell))
    line.answer()
    assert line.texts() == ["0"]
    if has_ended:
        line.kernel.publish("status", {"execution_state": "idle"}, cell)
        line.output()
    line.kernel.publish("stream", {"text": "1"}, cell)
    line.output()
    for number in range(100):
        line.kernel.publish("stream", {"text": str(number + 2)}, cell)
        if number < 99:
            line.output(lost=True)
    line.settle()
    assert line.texts()[:2] == ["0", "1"]
    assert 3 < len(line.texts()) < 100
    assert ("IOPub message rate exceeded.\n" in line.texts()) == is_loss


def test_the_servers_word_is_given_on_where_what_bears_no_number_may_be_lost() -> None:
    line = Line()
    line.kernel.run_cell(2)
    line.kernel.pid += 1
    line.kernel.publish("stream", {"text": "child"}, {})
    line.kernel.pid -= 1
    line.output()
    line.kernel.iopub.clear()
    line.receive(NOTICE)
    line.settle()
    assert sorted(line.texts()) == ["2:0", "2:1", "IOPub message rate exceeded.\n"]


def test_the_servers_word_before_anything_else_asks_for_nothing() -> None:
    line = Line(is_known=False)
    line.receive(NOTICE)
    assert line.ranges() == []
    assert not line.waits()
    line.kernel.run_cell(1)
    line.settle()
    assert line.texts() == ["2:0"]


# Bounds --------------------------------------------------------------------------------------------------------------


def test_what_is_held_and_what_is_remembered_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retransmission, "LARGEST_HOLD", 5)
    monkeypatch.setattr(retransmission, "REMEMBERED", 4)
    line = Line()
    line.kernel.run_cell(20)
    line.output()
    lost = deque(line.kernel.iopub.popleft() for _ in range(10))
    for _ in range(6):
        line.output()
    assert line.texts() == [f"2:{number}" for number in range(10, 16)]
    for each in lost:
        line.receive(each)  # so late, only the last are known to be new
    assert line.texts()[6:] == ["2:6", "2:7", "2:8", "2:9"]


def test_more_gaps_than_one_question_asks_for_are_asked_for_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retransmission, "RANGES", 2)
    line = Line()
    line.kernel.run_cell(12)
    line.output()
    for place in range(12):
        line.output(lost=place % 2 == 0)
    line.receive(NOTICE)
    line.settle()
    assert line.texts() == [f"2:{number}" for number in range(12)]


def test_an_answer_that_says_nothing_is_none() -> None:
    line = Line()
    line.kernel.run_cell(4)
    for lost in (False, True, False):
        line.output(lost=lost)
    for number, text in enumerate(("{}", '{"header": {"msg_id": "x"}}')):
        [question] = line.asked
        line.asked.clear()
        answer = message(
            agent.RESEND_REPLY, {"messages": [text], "until": None}, parent=question.id, channel=Channel.CONTROL
        )
        answer.header["msg_id"] = f"{KERNEL}_{line.kernel.pid}_{900 + number}"  # type: ignore[index]
        line.receive(answer)
        line.output(lost=True)
        if line.kernel.iopub:
            line.output()
    assert line.texts() == ["2:1", "2:3"]
    assert line.asked == []


@pytest.mark.parametrize(
    ("came", "after", "order"),
    [
        ([1, 2, 3, 4], {}, [1, 2, 3, 4]),
        ([], {}, [1, 2, 3, 4]),
        ([2, 3, 1, 4], {}, [2, 3, 1, 4]),
        ([1, 4, 3], {}, [1, 2, 4, 3]),
        ([2, 1], {}, [2, 1, 3, 4]),
        ([], {2: 0, 1: 2, 4: 1}, [2, 1, 3, 4]),
        ([2, 4], {1: 2}, [2, 1, 3, 4]),
        ([2, 4], {3: 0}, [1, 3, 2, 4]),
        ([3, 4], {2: 9, 1: 2}, [2, 1, 3, 4]),
        ([3, 4], {1: 2, 2: 1}, [1, 2, 3, 4]),
        ([3, 4], {1: 3, 2: 3}, [1, 3, 2, 4]),
    ],
    ids=[
        "in order",
        "none came",
        "a result behind its own output",
        "one of unknown place before what is behind",
        "the end",
        "all sent again but a reply",
        "a result behind what came",
        "one behind what was passed on before",
        "one behind what is gone",
        "a circle",
        "two behind one",
    ],
)
def test_what_came_keeps_its_order_and_the_rest_finds_its_place(
    came: list[int], after: dict[int, int], order: list[int]
) -> None:
    assert in_order([1, 2, 3, 4], came, after) == order
