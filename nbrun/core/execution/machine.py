"""The run's state machine: messages and time in, effects out.

It knows no socket and no clock. Whoever drives it feeds it every message of the kernel and calls :meth:`Execution.tick`
when :attr:`Execution.deadline` has come, carries out the effects that come back, and stops when :attr:`ending` is set::

    start -> cell SENT -> ... -> DONE (the table in cells.py) -> next cell ... -> draining -> ending
                 |                  ^
                 |  one of reply and idle is missing for 2 s: a *fence* (kernel_info) goes through the same queues
                 |                  |     its reply, and no execute_reply:  the reply is lost
                 |                  |     its busy on iopub, and no idle:   the idle is lost
                 |  a clock strikes, a signal, input() : interrupt + nudge -> again -> give the kernel up
                 +- the kernel dies, is restarted, or answers with another kernel's session -> ending at once

Nothing is ever sent to a kernel that is not the one the run began with, and no cell is ever sent twice, unless the
kernel itself said that it did not run it.
"""

from collections.abc import Iterable
from typing import Any

from nbrun.core.delivery.loss_detection import is_rate_limit_notice
from nbrun.core.events import OutputArrived
from nbrun.core.execution import guard, outcomes
from nbrun.core.execution.cell import RANK, CellExecution, State, Stop
from nbrun.core.execution.course import Course
from nbrun.core.execution.effects import (
    DRAIN_LIMIT,
    DRAIN_QUIET,
    FENCE_AFTER,
    FENCE_GRACE,
    FENCE_LIMIT,
    INTERRUPT_GRACE,
    PROBE_EVERY,
    RECALL_GRACE,
    SIGNAL_GRACE,
    Effect,
    Effects,
    InterruptKernel,
    ProbeKernel,
    Send,
    Timer,
)
from nbrun.core.execution.outcomes import Ending
from nbrun.core.outputs.mimebundle import Output, output_of
from nbrun.core.protocol.messages import KERNEL_INFO, Channel, Message
from nbrun.core.results import CellOutcome, CellResult, Outcome, Problem
from nbrun.errors import NbrunError

_TIMEOUTS = {Timer.RUN: Stop.RUN_TIMEOUT, Timer.CELL: Stop.CELL_TIMEOUT, Timer.SILENCE: Stop.IDLE_TIMEOUT}


class Execution(Course):
    """The execution of a plan by one kernel."""

    # What the driver calls -----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """Return the time at which :meth:`tick` wants to be called."""
        return self._timers.next

    @property
    def is_draining(self) -> bool:
        """Return whether the cells are over, and only what may still come is waited for."""
        return self._draining is not None

    @property
    def is_stopping(self) -> bool:
        """Return whether the cell that runs is being interrupted."""
        return self._current is not None and self._current.stop is not None

    def start(self, now: float) -> Effects:
        """Send the first cell."""
        self._timers.set(Timer.RUN, now, self._plan.run_timeout)
        self._timers.set(Timer.PROBE, now, PROBE_EVERY)
        return self._send_next(now)

    def receive(self, message: Message, now: float) -> Effects:
        """Handle one message of the kernel or of the server."""
        if self.ending:
            return ()
        if outcomes.is_of_another_kernel(message, self._kernel_session, self._requests.session):
            return self._lose_kernel(now, "is not the one that the run began with: somebody restarted it")
        if self._window.hold(message, now):
            return self._on_sign_of_next(message, now)
        self._ledger.take(message)
        if message.channel == Channel.IOPUB:
            return self._on_iopub(message, now)
        if message.type == "input_request":
            prompt = str(message.content.get("prompt") or "").strip()
            return self._stop_cell(now, Stop.INPUT, f"the cell asked for input ({prompt!r}), and nobody is there")
        if self._fence.is_answered_by(message):
            return self._on_fence_reply(message, now)
        if message.type == guard.RECALL_REPLY:
            return self._on_recalled(message, now)
        cell = self._window.cell_of(message)
        if cell is not None and cell is self._current and message.type == "execute_reply":
            self._timers.drop(Timer.CELL, Timer.SILENCE)
            return self._finish_cell(now) if cell.on_reply(message) else self._await_other_sign(now)
        return ()

    def tick(self, now: float) -> Effects:
        """Do what is due."""
        effects: list[Effect] = []
        while not self.ending and (timer := self._timers.strike(now)):
            effects += self._on_timer(timer, now)
        return effects

    def interrupt(self, now: float, reason: str) -> Effects:
        """End the run at the wish of whoever started it (Ctrl-C, SIGTERM)."""
        if self._current is None:
            return self._end(now, self._draining or Ending(Outcome.INTERRUPTED, Problem(reason)))
        return self._stop_cell(now, Stop.SIGNAL, reason)

    def probed(self, now: float, *, alive: bool) -> Effects:
        """Take what the server said when it was asked for the kernel."""
        return () if alive or self.ending else self._lose_kernel(now, "is gone: it died, or somebody shut it down")

    def reconnected(self, now: float, *, nudged: bool = True) -> Effects:
        """Go on over a new websocket: nothing is sent again; a fence shows what was lost."""
        if nudged:
            self._ledger.disturb()
        self._window.doubt()
        return () if self.ending or self._current is None else self._send_fence(now)

    def lose_server(self, now: float, error: NbrunError) -> None:
        """End the run because the server is out of reach."""
        cell = self._current
        problem = outcomes.problem_in(cell, self._total, str(error), error.hint) if cell else Problem.of(error)
        self._give_up(now, CellOutcome.INTERRUPTED, "ServerLost", Ending(Outcome.SERVER_FAILED, problem))

    def abandon(self, now: float, reason: str) -> None:
        """End the run at once, without another word to the kernel."""
        self._give_up(now, CellOutcome.INTERRUPTED, "Interrupted", Ending(Outcome.INTERRUPTED, Problem(reason)))

    def widgets(self, shown: Iterable[Output]) -> dict[str, Any] | None:
        """Return the state of the widgets as a notebook keeps it, where its outputs are those `shown`."""
        return self._widgets.saved(shown)

    def results(self) -> list[CellResult]:
        """Return what came of every code cell of the plan, in order."""
        return outcomes.results_of(self._plan, self.cells, self.ending)

    # Messages ------------------------------------------------------------------------------------------------------

    def _on_sign_of_next(self, message: Message, now: float) -> Effects:
        """Take from what is held for the next cell that a sign of this one is lost: the kernel keeps their order."""
        cell = self._current
        assert cell is not None
        busy = message.channel == Channel.IOPUB and message.content.get("execution_state") == "busy"
        if (busy and cell.state is State.REPLIED) or (message.type == "execute_reply" and cell.reply is None):
            return self._finish_cell(now)
        return ()

    def _on_iopub(self, message: Message, now: float) -> Effects:
        kind = message.type
        cell, owner = self._window.cell_of(message), self._window.owner_of(message)
        if owner is None and message.parent_type == KERNEL_INFO:
            owner, cell = self._current, self._current if self._window.ends_cell(message) else None
        if owner is not None and owner.reply is not None and "" < message.date <= owner.reply.date:
            self._heard_at = now  # sent before the reply, and only now here
        if owner is not None and self._draining:
            self._await_quiet(now)
        elif cell is not None and cell is self._current and cell.reply is None and cell.stop is None:
            self._timers.set(Timer.SILENCE, now, cell.plan.idle_timeout)
        if owner is not None and is_rate_limit_notice(message, self._requests.session):
            owner.notices += 1
        elif self._widgets.captures(message):
            return ()
        elif owner is not None and owner.area.take(message):
            self._tell_output(owner, message)
            return ()
        if kind == "status":
            return self._on_status(message, cell, now)
        if kind == "shutdown_reply":
            return self._lose_kernel(now, f"was {outcomes.ended_by_rest(message)} by somebody else")
        if kind == "execute_input" and cell is not None:
            cell.on_execute_input(message)
        elif kind == "update_display_data":
            self._displays.update(message.content)
        else:
            self._widgets.take(message)
        return ()

    def _on_status(self, message: Message, cell: CellExecution | None, now: float) -> Effects:
        state = str(message.content.get("execution_state"))
        if state in outcomes.GONE:
            return self._lose_kernel(now, outcomes.GONE[state])
        if self._fence.is_answered_by(message):
            return self._on_fence_status(message, state, now)
        if cell is None or not cell.on_status(message):
            return self._await_other_sign(now) if cell and cell.state is State.IDLED else ()
        return self._finish_cell(now) if cell is self._current else ()

    def _tell_output(self, cell: CellExecution, message: Message) -> None:
        if self._tell_outputs and (output := output_of(message)) is not None:
            self._observe(OutputArrived(self._notebook, cell.plan.index, output))

    # Fences --------------------------------------------------------------------------------------------------------

    def _await_other_sign(self, now: float) -> Effects:
        self._timers.set(Timer.FENCE, now, FENCE_AFTER)
        return ()

    def _on_fence_reply(self, message: Message, now: float) -> Effects:
        if self._draining and self._farewell.ends(message):
            return self._end(now, self._draining)
        if self._current is not None:
            self._fence.answered = True
            self._timers.set(Timer.FENCE, now, FENCE_GRACE)
        return ()

    def _on_fence_status(self, message: Message, state: str, now: float) -> Effects:
        if self._draining:
            # Everything that the kernel sent before this is here; what its threads still hold comes in a moment.
            if self._farewell.ends(message):
                return self._end(now, self._draining)
            self._fence.answered = True
            self._await_quiet(now)
        elif state == "busy" and self._current is not None and self._current.state is State.REPLIED:
            return self._finish_cell(now)
        return ()

    def _on_overdue_fence(self, now: float) -> Effects:
        assert self._current is not None
        if not self._fence.is_asked:
            return self._send_fence(now)
        if self._current.state is State.REPLIED and now - self._heard_at < FENCE_GRACE:
            return self._send_fence(now)  # outputs still stream in, far behind the replies: its idle comes after them
        if self._fence.answered or self._current.state is State.REPLIED or self._window.next_began:
            return self._finish_cell(now)
        # The fence stands in the kernel's queue behind a cell that still runs. Is there a kernel at all?
        self._timers.set(Timer.FENCE, now, FENCE_LIMIT)
        return (ProbeKernel(),)

    def _await_quiet(self, now: float) -> None:
        if self._fence.answered:
            self._timers.set(Timer.QUIET, now, DRAIN_QUIET)

    # Clocks, interrupts and ends -----------------------------------------------------------------------------------

    def _on_timer(self, timer: Timer, now: float) -> Effects:
        match timer:
            case Timer.RUN | Timer.CELL | Timer.SILENCE:
                stop = _TIMEOUTS[timer]
                cell = self._current.plan if self._current else None
                return self._stop_cell(now, stop, outcomes.limit_reached(stop, self._plan.run_timeout, cell))
            case Timer.ESCALATE:
                return self._escalate(now)
            case Timer.FENCE:
                return self._on_overdue_fence(now)
            case Timer.RESEND if self._current:
                if self._current.stop:
                    return self._end_stopped(self._current, now, "")
                return self._send_cell(self._current, now)
            case Timer.PROBE:
                self._timers.set(Timer.PROBE, now, PROBE_EVERY)
                return (ProbeKernel(),)
            case Timer.QUIET if self._farewell.asks_again:
                return self._ask_farewell()
            case Timer.DRAIN if not self._fence.answered and now - self._heard_at < DRAIN_LIMIT:
                self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)
                return ()  # outputs still stream in: those before the last cell's end are owed
            case _:
                return self._end(now, self._draining) if self._draining else ()

    def _stop_cell(self, now: float, stop: Stop, reason: str) -> Effects:
        cell = self._current
        if cell is None or (cell.stop and RANK.get(stop, 0) <= RANK.get(cell.stop, 0)):
            return ()
        if stop in RANK:
            self._window.close()
        first = cell.stop is None
        cell.stop, cell.stop_reason = stop, reason
        self._timers.drop(Timer.CELL, Timer.SILENCE)
        if first or stop is Stop.SIGNAL:
            self._timers.set(Timer.ESCALATE, now, SIGNAL_GRACE if stop is Stop.SIGNAL else INTERRUPT_GRACE)
        if not first:
            return ()
        if self._window.has_ahead:
            # What comes behind it must not begin when the interrupt ends it, and must not meet the interrupt.
            self._timers.set(Timer.ESCALATE, now, RECALL_GRACE)
            recall = guard.recall(self._requests, self._ledger.request)
            self._recall = recall.id
            return (Send(recall),)
        return self._interrupt(cell)

    def _on_recalled(self, message: Message, now: float) -> Effects:
        cell = self._current
        if cell is None or cell.stop is None or cell.interrupts or message.parent_id != self._recall:
            return ()  # an answer that came too late
        if message.content.get("state") == "unknown":
            return ()  # it will be refused
        if message.content.get("state") == "ended":
            # It had ended before that: its reply is on the way. What ends the run is for the next one.
            self._carried = (cell.stop, cell.stop_reason) if cell.stop in RANK else None
            cell.stop = None
            self._timers.drop(Timer.ESCALATE)
            return self._await_other_sign(now)
        return self._escalate(now)

    def _interrupt(self, cell: CellExecution) -> Effects:
        """Interrupt and nudge: ipykernel notices an interrupt of a cell that awaits only at the next shell message."""
        cell.interrupts += 1
        return (InterruptKernel(), self._aside(self._requests.kernel_info()))

    def _escalate(self, now: float) -> Effects:
        cell = self._current
        assert cell is not None
        if cell.state is State.REPLIED:
            return self._finish_cell(now)  # it did react; only its idle is missing
        if cell.interrupts < (1 if cell.stop is Stop.SIGNAL else 2):
            self._timers.set(Timer.ESCALATE, now, SIGNAL_GRACE if cell.stop is Stop.SIGNAL else INTERRUPT_GRACE)
            return self._interrupt(cell)
        return self._end_stopped(cell, now, "The kernel did not react to interrupts, so it was shut down.")

    def _end_stopped(self, cell: CellExecution, now: float, hint: str) -> Effects:
        outcome, error = cell.stopped()
        self._settle(now, outcome, error)
        return self._end(now, outcomes.ending_of_stopped(cell, self._total, hint))

    def _lose_kernel(self, now: float, how: str) -> Effects:
        if self._draining:
            return self._end(now, self._draining)
        if self._current is not None and self._current.stop:
            # Why it was interrupted is what the user has to be told, not that the interrupt was too much for it.
            return self._end_stopped(self._current, now, "The kernel did not survive the interrupt.")
        self._give_up(
            now, CellOutcome.KERNEL_DIED, "KernelDied", outcomes.kernel_lost(how, self._current, self._total, now)
        )
        return ()
