"""A cell is recalled if others follow, interrupted once or twice, or the interrupt is postponed."""

from typing import Any

import pytest

from nbrun.core.execution.cell import CellExecution, Stop
from nbrun.core.execution.effects import Effects, InterruptKernel, Send, Timer, Timers
from nbrun.core.execution.interruption import INTERRUPT_GRACE, RECALL_GRACE, SIGNAL_GRACE, Interruption, Recalled
from nbrun.core.execution.pipelining import Routes
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.planning.plan import Action, CellPlan
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import OURS, message


class Parts:
    """An interruption of one cell, and what it works on."""

    def __init__(self) -> None:
        self.timers, self.routes = Timers(), Routes()
        self.interruption = Interruption(self.timers, Requests(OURS), self.routes)
        self.cell = CellExecution(CellPlan(0, None, "pass", Action.RUN), OutputArea(Displays()), 1, 0.0)

    def start(self, stop: Stop, now: float = 0.0, **options: Any) -> Effects:
        return self.interruption.start(self.cell, stop, stop.value, now, **options)

    def recall(self, stop: Stop) -> Message:
        [effect] = self.start(stop, recalling="the cell")
        assert isinstance(effect, Send)
        return effect.message

    def answer(self, request: Message, state: str) -> Recalled:
        reply = message(agent.RECALL_REPLY, {"state": state}, parent=request.id, channel=Channel.CONTROL)
        return self.interruption.on_recall_reply(reply, self.cell)


def kinds(effects: Effects | None) -> list[str] | None:
    if effects is None:
        return None
    return [each.message.type if isinstance(each, Send) else type(each).__name__ for each in effects]


INTERRUPT = [InterruptKernel.__name__, "kernel_info_request"]


@pytest.mark.parametrize(
    ("stop", "grace", "interrupts"),
    [(Stop.CELL_TIMEOUT, INTERRUPT_GRACE, 2), (Stop.INPUT, INTERRUPT_GRACE, 2), (Stop.SIGNAL, SIGNAL_GRACE, 1)],
    ids=str,
)
def test_a_cell_is_interrupted_and_the_kernel_nudged_as_often_as_the_reason_allows(
    stop: Stop, grace: float, interrupts: int
) -> None:
    parts = Parts()
    effects: list[Effects | None] = [parts.start(stop, 1.0)]
    assert parts.timers.next == 1.0 + grace
    effects += [parts.interruption.escalate(parts.cell, 2.0) for _ in range(interrupts)]
    assert [kinds(each) for each in effects] == [*[INTERRUPT] * interrupts, None]
    assert (parts.cell.stop, parts.cell.stop_reason, parts.cell.interrupts) == (stop, stop.value, interrupts)


def test_the_limits_of_a_cell_stop_as_it_is_interrupted() -> None:
    parts = Parts()
    parts.timers.set(Timer.CELL_TIMEOUT, 0.0, 1.0)
    parts.timers.set(Timer.IDLE_TIMEOUT, 0.0, 1.0)
    parts.start(Stop.INPUT)
    assert parts.timers.next == INTERRUPT_GRACE


def test_only_a_reason_that_outranks_the_first_replaces_it() -> None:
    parts = Parts()
    parts.start(Stop.CELL_TIMEOUT)
    assert [parts.interruption.applies(stop, parts.cell) for stop in (Stop.IDLE_TIMEOUT, Stop.RUN_TIMEOUT)] == [
        False,
        True,
    ]
    assert parts.start(Stop.SIGNAL, 1.0) == ()
    assert parts.cell.stop is Stop.SIGNAL
    assert parts.timers.next == 1.0 + SIGNAL_GRACE
    assert not parts.interruption.applies(Stop.RUN_TIMEOUT, parts.cell)


def test_where_cells_stand_behind_it_they_are_recalled_first() -> None:
    parts = Parts()
    request = parts.recall(Stop.CELL_TIMEOUT)
    assert (request.type, request.channel, request.content) == (
        agent.RECALL,
        Channel.CONTROL,
        {"request": "the cell"},
    )
    assert parts.timers.next == RECALL_GRACE
    assert parts.answer(request, "running") is Recalled.RUNNING
    assert kinds(parts.interruption.escalate(parts.cell, 1.0)) == INTERRUPT


def test_an_answer_that_comes_after_the_interrupt_or_to_another_recall_says_nothing() -> None:
    parts = Parts()
    request = parts.recall(Stop.CELL_TIMEOUT)
    assert parts.answer(Requests("another").kernel_info(), "ended") is Recalled.NOTHING
    assert parts.answer(request, "unknown") is Recalled.NOTHING
    parts.interruption.escalate(parts.cell, 1.0)
    assert parts.answer(request, "ended") is Recalled.NOTHING
    assert parts.interruption.on_recall_reply(message(agent.RECALL_REPLY), None) is Recalled.NOTHING


@pytest.mark.parametrize(
    ("stop", "postponed"), [(Stop.CELL_TIMEOUT, None), (Stop.SIGNAL, (Stop.SIGNAL, "Interrupted"))], ids=str
)
def test_a_cell_that_had_ended_is_not_interrupted_and_only_what_ends_the_run_waits_for_the_next(
    stop: Stop, postponed: tuple[Stop, str] | None
) -> None:
    parts = Parts()
    assert parts.answer(parts.recall(stop), "ended") is Recalled.ENDED
    assert parts.cell.stop is None
    assert parts.timers.next is None
    assert parts.interruption.postponed() == postponed
    assert parts.interruption.postponed() is None


def test_a_reason_whose_cell_passed_before_the_interrupt_is_postponed() -> None:
    parts = Parts()
    parts.start(Stop.RUN_TIMEOUT)
    parts.interruption.postpone(parts.cell)
    assert parts.interruption.postponed() == (Stop.RUN_TIMEOUT, "RunTimeout")
