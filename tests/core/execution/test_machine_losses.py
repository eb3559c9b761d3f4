"""A dead or replaced kernel ends the run at once, and nothing is sent to another kernel."""

import pytest

from nbrun.core.execution.effects import Send
from nbrun.core.protocol.messages import Channel, Message
from nbrun.core.results import CellOutcome, Outcome
from nbrun.errors import ServerUnreachable
from tests.core.conversation import OURS, STRANGER, Conversation, message

DIED, NOT_RUN = CellOutcome.KERNEL_DIED, CellOutcome.NOT_RUN


@pytest.mark.parametrize(
    ("notice", "how"),
    [
        (message("status", {"execution_state": "dead"}, session=OURS), "died"),
        (
            message("status", {"execution_state": "restarting"}, session=OURS),
            "died, and the server put a fresh one in its place,",
        ),
        (
            message("status", {"execution_state": "autorestarting"}, session=STRANGER),
            "died, and the server put a fresh one in its place,",
        ),
        (message("shutdown_reply", {"restart": True}), "was restarted by somebody else"),
        (message("shutdown_reply", {"restart": False}), "was shut down by somebody else"),
        (
            message("status", {"execution_state": "starting"}, session=STRANGER),
            "is not the one that the run began with: somebody restarted it",
        ),
    ],
    ids=["dead", "restarting", "a gateway's notice", "restarted by REST", "shut down by REST", "a fresh kernel speaks"],
)
def test_the_end_of_the_kernel_ends_the_run_at_once(notice: Message, how: str) -> None:
    talk = Conversation("one", "two")
    talk.stream("so far")
    talk.until(41.0)
    talk.hear(notice)
    assert talk.outcome() is Outcome.KERNEL_DIED
    assert talk.problem == f"the kernel {how} in cell 1 of 2, 41 s after it started"
    assert talk.outcomes() == [DIED, NOT_RUN]
    stream, error = talk.outputs()
    assert stream["text"] == "so far"
    assert error["ename"] == "KernelDied"
    assert [type(effect) for effect in talk.wanted] == [Send]


def test_the_reply_of_a_fresh_kernel_to_our_request_is_no_success() -> None:
    talk = Conversation("one")
    talk.hear(message("execute_reply", {"status": "ok"}, parent=talk.request, channel=Channel.SHELL, session=STRANGER))
    assert (talk.outcome(), talk.outcomes()) == (Outcome.KERNEL_DIED, [DIED])


def test_a_stream_under_a_third_session_is_a_servers_word_and_no_fresh_kernel() -> None:
    talk = Conversation("one")
    notice = {"name": "stderr", "text": "IOPub message rate exceeded.\n"}
    talk.hear(message("stream", notice, parent=talk.request, session=STRANGER))
    assert talk.outcome() is None
    assert talk.outputs()[0]["text"] == notice["text"]


@pytest.mark.parametrize("session", [OURS, ""], ids=["our own", "none"])
def test_what_the_server_makes_up_under_our_session_is_no_fresh_kernel(session: str) -> None:
    talk = Conversation("one")
    talk.hear(message("status", {"execution_state": "busy"}, parent="a-probe", session=session))
    assert talk.outcome() is None


def test_without_a_session_to_go_by_any_kernel_is_ours() -> None:
    talk = Conversation("one", kernel_session=None)
    talk.hear(message("status", {"execution_state": "busy"}, parent=talk.request, session=STRANGER))
    assert talk.outcome() is None


def test_a_kernel_that_the_server_does_not_know_any_more_is_gone() -> None:
    talk = Conversation("one")
    talk.until(5.0)
    talk.probed(alive=False)
    assert (
        talk.problem == "the kernel is gone: it died, or somebody shut it down in cell 1 of 1, 5.0 s after it started"
    )
    talk.probed(alive=False)
    assert talk.outcomes() == [DIED]


def test_a_server_out_of_reach_ends_the_run_and_its_hint_is_kept() -> None:
    talk = Conversation("one", "two")
    talk.stream("so far")
    talk.run.lose_server(3.0, ServerUnreachable("no connection to h:1", hint="Look at the server."))
    assert talk.run.ending is not None
    assert talk.run.ending.problem is not None
    assert talk.outcome() is Outcome.SERVER_FAILED
    assert talk.problem == "no connection to h:1 in cell 1 of 2"
    assert talk.run.ending.problem.hint == "Look at the server."
    assert talk.outcomes() == [CellOutcome.INTERRUPTED, NOT_RUN]
    assert [output["output_type"] for output in talk.outputs()] == ["stream", "error"]


def test_what_is_lost_after_the_end_changes_nothing() -> None:
    talk = Conversation("one")
    talk.hear(message("shutdown_reply", {"restart": False}))
    before = talk.run.ending
    talk.run.lose_server(3.0, ServerUnreachable("gone"))
    talk.interrupt()
    assert talk.run.ending == before
