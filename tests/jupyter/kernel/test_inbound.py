"""Incoming messages: first in order, then masked."""

import pytest
from msgspec.structs import replace

from nbrun.core.delivery.retransmission import ANSWER_LIMIT, CUT_LIMIT, ResentMessages
from nbrun.core.outputs.masking import Mask, MaskedMessages
from nbrun.core.protocol.agent import RESEND_REPLY, Ability, Agent
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.core.protocol.messages import Message, Requests
from nbrun.errors import ServerUnreachable
from nbrun.jupyter.kernel.inbound import DRAIN_DELAY, Intake
from nbrun.jupyter.kernel.websocket import Cut, Lost, Restored
from tests.core.conversation import KERNEL, OURS, message

LOST = Lost(ServerUnreachable("gone"))


def said(number: int, text: str) -> Message:
    """Return a message of the kernel with a number and a text."""
    printed = message("stream", {"name": "stdout", "text": text}, parent="cell")
    return replace(printed, header={**printed.header, "msg_id": f"{KERNEL}_77_{number}"})


def with_replay(masked: MaskedMessages | None = None) -> Intake:
    """Return an intake of a kernel with a replay buffer."""
    return Intake(resent=ResentMessages(Requests(OURS), KERNEL, said(1, "one\n")), masked=masked)


def texts(arrivals: list[object]) -> str:
    return "".join(str(each.content.get("text")) for each in arrivals if isinstance(each, Message))


def test_without_anything_to_do_everything_passes() -> None:
    intake = Intake()
    what = said(1, "one")
    assert [intake.receive(each, 0.0) for each in (what, None, LOST)] == [[what], [None], [LOST]]
    assert (intake.requests(), intake.deadline(5.0, delays=True), intake.release()) == ([], 5.0, [])
    assert not intake.delays(0.0, is_draining=True, is_stopping=False)


@pytest.mark.parametrize(
    ("abilities", "session", "resends"),
    [({Ability.REPLAY}, KERNEL, True), ({Ability.REPLAY}, None, False), ({Ability.UNSENT}, KERNEL, False)],
    ids=["a replay buffer", "no session", "no replay buffer"],
)
def test_what_is_lost_is_asked_for_where_the_kernel_keeps_it(
    abilities: set[str], session: str | None, resends: bool
) -> None:
    info = KernelInfo({}, "ipython", "5.3", "", session)
    intake = Intake.of(info, Agent(frozenset(abilities), last=said(1, "one")), Requests(OURS))
    assert intake.receive(said(3, "three"), 0.0) == ([] if resends else [said(3, "three")])
    assert len(intake.requests()) == int(resends)


def test_what_is_held_comes_out_in_order_and_masked() -> None:
    intake = with_replay(MaskedMessages(Mask(["hunter2222"])))
    assert intake.receive(said(3, "hun"), 0.0) == []
    assert texts(intake.receive(said(2, "ter2222\n"), 0.0)) == "***\n"
    assert intake.receive(said(5, "hunt"), 0.0) == []
    assert texts([*intake.release()]) == "hunt"


def test_before_the_connection_is_lost_for_good_what_is_held_comes_out() -> None:
    for intake in (with_replay(), with_replay(MaskedMessages(Mask(["hunter2222"])))):
        intake.receive(said(4, "hunter"), 0.0)
        *given, last = intake.receive(LOST, 1.0)
        assert (texts(given), last) == ("hunter", LOST)


def test_clocks_wait_for_what_is_on_its_way_but_not_where_a_cell_is_stopped_nor_at_the_end_for_ever() -> None:
    intake = with_replay()
    assert not intake.delays(0.0, is_draining=False, is_stopping=False)
    intake.receive(said(4, "four"), 0.0)
    assert len(intake.requests()) == 1
    assert intake.delays(1.0, is_draining=False, is_stopping=False)
    assert not intake.delays(1.0, is_draining=False, is_stopping=True)
    assert intake.delays(2.0, is_draining=True, is_stopping=False)
    assert not intake.delays(2.0 + DRAIN_DELAY, is_draining=True, is_stopping=False)
    assert intake.deadline(1.0, delays=False) == 1.0
    assert intake.deadline(1.0, delays=True) == intake.deadline(None, delays=True) == ANSWER_LIMIT


def test_a_cut_is_waited_out_and_followed_by_a_question() -> None:
    intake, stopped = with_replay(), object()
    assert intake.receive(Cut(), 0.0) == [Cut()]
    assert intake.deadline(None, delays=True) == CUT_LIMIT
    assert intake.receive(Restored(), 1.0) == [Restored()]
    assert len(intake.requests()) == 1
    assert intake.receive(stopped, 1.0) == [stopped]
    assert intake.receive(None, 2.0) == [None]


def test_a_gap_and_what_was_brought_back_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    intake = with_replay()
    with caplog.at_level("INFO", "nbrun.jupyter.kernel.inbound"):
        intake.receive(said(4, "four"), 0.0)
        [question] = intake.requests()
        content = {"messages": [], "until": 4, "newest": 4, "evicted": 0, "others": 0}
        intake.receive(message(RESEND_REPLY, content, parent=question.id, channel="control"), 1.0)
    assert caplog.messages == ["asking the kernel again for messages 2-3", "the kernel sent 0 messages again"]
