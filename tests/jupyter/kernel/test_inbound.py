"""The way of what a kernel says: whole and in order first, then without secrets."""

from dataclasses import replace

import pytest

from nbrun.core.delivery import replay_buffer, unsent
from nbrun.core.delivery.replay_buffer import RESEND_REPLY
from nbrun.core.delivery.retransmission import ANSWER_LIMIT, CUT_LIMIT, ResentMessages
from nbrun.core.outputs.masking import Mask, MaskedMessages
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.core.protocol.messages import Channel, Message, Requests
from nbrun.errors import ServerUnreachable
from nbrun.jupyter.kernel.inbound import DRAIN_DELAY, Intake
from nbrun.jupyter.kernel.websocket import Cut, Lost, Restored
from tests.core.conversation import KERNEL, OURS, message

LOST = Lost(ServerUnreachable("gone"))


def said(number: int, text: str) -> Message:
    """Return a message of the kernel with a number and a text."""
    printed = message("stream", {"name": "stdout", "text": text}, parent="cell")
    return replace(printed, header={**printed.header, "msg_id": f"{KERNEL}_77_{number}"})


def with_keeper(masked: MaskedMessages | None = None) -> Intake:
    """Return an intake that knows of a keeper in its kernel."""
    intake = Intake(resent=ResentMessages(Requests(OURS), KERNEL), masked=masked)
    [install] = intake.requests()
    done = message("execute_reply", {"status": "ok"}, parent=install.id, channel=Channel.SHELL)
    intake.take(replace(done, header={**done.header, "msg_id": f"{KERNEL}_77_0"}), 0.0)
    [hello] = intake.requests()
    there = message(RESEND_REPLY, {"status": "ok"}, parent=hello.id, channel=Channel.CONTROL)
    intake.take(replace(there, header={**there.header, "msg_id": f"{KERNEL}_77_1"}), 0.0)
    intake.take(said(2, "two\n"), 0.0)
    return intake


def texts(arrivals: list[object]) -> str:
    return "".join(str(each.content.get("text")) for each in arrivals if isinstance(each, Message))


def test_without_anything_to_do_everything_passes() -> None:
    intake = Intake()
    what = said(1, "one")
    assert [intake.take(each, 0.0) for each in (what, None, LOST)] == [[what], [None], [LOST]]
    assert (intake.requests(), intake.deadline(5.0, delays=True), intake.release()) == ([], 5.0, [])
    assert not intake.delays(0.0, is_draining=True, is_stopping=False)


@pytest.mark.parametrize(
    ("implementation", "session", "resends", "remembers", "asked"),
    [
        ("ipython", KERNEL, True, False, replay_buffer.INSTALL),
        ("ipython", None, True, False, unsent.install(Requests(OURS)).content["code"]),
        ("ipython", KERNEL, False, False, unsent.install(Requests(OURS)).content["code"]),
        ("ipython", KERNEL, False, True, None),
        ("IRkernel", KERNEL, True, False, None),
    ],
    ids=["the keeper", "no session", "not to be asked again", "one that remembers by itself", "another kernel"],
)
def test_ipykernel_is_asked_first_to_remember_what_it_sends_or_what_it_does_not(
    implementation: str, session: str | None, resends: bool, remembers: bool, asked: str | None
) -> None:
    info = KernelInfo({}, implementation, "5.3", "", session)
    intake = Intake.of(info, Requests(OURS), resends=resends, remembers=remembers)
    assert [each.content["code"] for each in intake.requests()] == ([] if asked is None else [asked])
    assert intake.requests() == []


def test_what_is_held_comes_out_in_order_and_masked() -> None:
    intake = with_keeper(MaskedMessages(Mask(["hunter2222"])))
    assert intake.take(said(4, "hun"), 0.0) == []
    assert texts(intake.take(said(3, "ter2222\n"), 0.0)) == "***\n"
    assert intake.take(said(6, "hunt"), 0.0) == []
    assert texts([*intake.release()]) == "hunt"


def test_before_the_connection_is_lost_for_good_what_is_held_comes_out() -> None:
    for intake in (with_keeper(), with_keeper(MaskedMessages(Mask(["hunter2222"])))):
        intake.take(said(4, "hunter"), 0.0)
        *given, last = intake.take(LOST, 1.0)
        assert (texts(given), last) == ("hunter", LOST)


def test_clocks_wait_for_what_is_on_its_way_but_not_where_a_cell_is_stopped_nor_at_the_end_for_ever() -> None:
    intake = with_keeper()
    assert not intake.delays(0.0, is_draining=False, is_stopping=False)
    intake.take(said(4, "four"), 0.0)
    assert len(intake.requests()) == 1
    assert intake.delays(1.0, is_draining=False, is_stopping=False)
    assert not intake.delays(1.0, is_draining=False, is_stopping=True)
    assert intake.delays(2.0, is_draining=True, is_stopping=False)
    assert not intake.delays(2.0 + DRAIN_DELAY, is_draining=True, is_stopping=False)
    assert intake.deadline(1.0, delays=False) == 1.0
    assert intake.deadline(1.0, delays=True) == intake.deadline(None, delays=True) == ANSWER_LIMIT


def test_a_cut_is_waited_out_and_followed_by_a_question() -> None:
    intake, stopped = with_keeper(), object()
    assert intake.take(Cut(), 0.0) == [Cut()]
    assert intake.deadline(None, delays=True) == CUT_LIMIT
    assert intake.take(Restored(), 1.0) == [Restored()]
    assert len(intake.requests()) == 1
    assert intake.take(stopped, 1.0) == [stopped]
    assert intake.take(None, 2.0) == [None]
