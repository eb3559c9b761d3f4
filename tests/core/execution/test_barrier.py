"""A barrier shows which messages are lost. Until it is answered, it is repeated or the kernel is probed."""

import pytest

from nbrun.core.execution.barrier import BARRIER_AFTER, BARRIER_GRACE, BARRIER_LIMIT, Barrier
from nbrun.core.execution.cell import CellExecution, State
from nbrun.core.execution.effects import Effects, ProbeKernel, Send, Timer, Timers
from nbrun.core.execution.pipelining import Routes
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.planning.plan import Action, CellPlan
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import OURS, message


class Parts:
    """A barrier behind one cell, and what it works on."""

    def __init__(self, state: State = State.SENT) -> None:
        self.timers, self.requests, self.routes = Timers(), Requests(OURS), Routes()
        self.barrier = Barrier(self.timers, self.requests, self.routes)
        plan = CellPlan(0, None, "pass", Action.RUN)
        self.cell = CellExecution(plan, OutputArea(Displays()), 1, 0.0, state=state)

    def send(self, now: float = 0.0) -> Message:
        [effect] = self.barrier.send(self.cell, now)
        assert isinstance(effect, Send)
        return effect.message

    def overdue(self, now: float, *, late_output_at: float = 0.0, next_began: bool = False) -> Effects | None:
        return self.barrier.on_overdue(self.cell, now, late_output_at=late_output_at, next_began=next_began)


def test_a_barrier_is_a_kernel_info_request_on_shell_whose_late_output_is_the_cells() -> None:
    parts = Parts()
    request = parts.send()
    assert (request.type, request.channel) == ("kernel_info_request", Channel.SHELL)
    assert parts.routes.owner_of(message("stream", parent=request.id)) is parts.cell
    assert parts.timers.next == BARRIER_LIMIT


def test_a_barrier_can_be_sent_on_control() -> None:
    parts = Parts(State.DONE)
    assert not parts.barrier.is_sent
    [effect] = parts.barrier.send(parts.cell, 0.0, Channel.CONTROL)
    assert isinstance(effect, Send)
    assert (effect.message.type, effect.message.channel) == ("kernel_info_request", Channel.CONTROL)
    assert parts.barrier.is_sent


def test_a_barrier_knows_the_answers_to_each_time_it_was_sent_and_no_others() -> None:
    parts = Parts()
    sent = [parts.send(), parts.send()]
    other = parts.requests.kernel_info()
    answers = [message("status", parent=each.id) for each in [*sent, other]]
    assert [parts.barrier.is_answered_by(answer) for answer in answers] == [True, True, False]
    assert not parts.barrier.is_answered_by(message("status"))
    parts.barrier.reset()
    assert not parts.barrier.is_answered_by(answers[0])


def test_it_is_sent_when_the_other_sign_is_overdue() -> None:
    parts = Parts(State.REPLIED)
    parts.barrier.expect_other_sign(1.0)
    assert parts.timers.expired(1.0 + BARRIER_AFTER) is Timer.BARRIER
    effects = parts.overdue(3.0, late_output_at=2.9)
    assert effects is not None
    assert [type(effect) for effect in effects] == [Send]


def test_its_reply_leaves_the_idle_a_moment() -> None:
    parts = Parts()
    parts.send()
    parts.barrier.on_reply(3.0)
    assert parts.timers.expired(3.0 + BARRIER_GRACE) is Timer.BARRIER
    assert parts.overdue(3.0 + BARRIER_GRACE) is None


@pytest.mark.parametrize(
    ("state", "next_began", "is_over"),
    [
        (State.SENT, False, False),
        (State.REPLIED, False, True),
        (State.IDLED, False, False),
        (State.IDLED, True, True),
        (State.DONE, False, True),
    ],
    ids=["running", "the idle is lost", "the reply may come", "the next cell has begun", "it was interrupted"],
)
def test_without_an_answer_the_kernel_is_looked_for_unless_nothing_can_come(
    state: State, next_began: bool, is_over: bool
) -> None:
    parts = Parts(state)
    parts.send()
    effects = parts.overdue(20.0, next_began=next_began)
    assert effects == (None if is_over else (ProbeKernel(),))


def test_it_is_sent_again_while_outputs_from_before_the_reply_arrive() -> None:
    parts = Parts(State.REPLIED)
    first = parts.send()
    effects = parts.overdue(20.0, late_output_at=19.0)
    assert effects is not None
    assert [isinstance(effect, Send) and effect.message.id != first.id for effect in effects] == [True]
