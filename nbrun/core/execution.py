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

from collections.abc import Callable, Iterable
from typing import Any

from nbrun.core import endings
from nbrun.core.bundles import Output, output_of
from nbrun.core.cells import RANK, CellExecution, State, Stop
from nbrun.core.effects import (
    ATTEMPTS,
    DRAIN_LIMIT,
    DRAIN_QUIET,
    FENCE_AFTER,
    FENCE_GRACE,
    FENCE_LIMIT,
    INTERRUPT_GRACE,
    PROBE_EVERY,
    RESEND_AFTER,
    SIGNAL_GRACE,
    Effect,
    Effects,
    InterruptKernel,
    ProbeKernel,
    Send,
    Timer,
    Timers,
)
from nbrun.core.endings import Ending, place_of
from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived, Warned
from nbrun.core.fence import Fence
from nbrun.core.integrity import Ledger, is_rate_limit_notice
from nbrun.core.messages import Channel, Message, Requests
from nbrun.core.outputs import Displays, OutputArea
from nbrun.core.plan import Plan
from nbrun.core.results import CellError, CellOutcome, CellResult, Outcome, Problem
from nbrun.core.widgets import Widgets
from nbrun.errors import NbrunError

_OF_A_CELL = (Timer.CELL, Timer.SILENCE, Timer.FENCE, Timer.ESCALATE, Timer.RESEND)
_TIMEOUTS = {Timer.RUN: Stop.RUN_TIMEOUT, Timer.CELL: Stop.CELL_TIMEOUT, Timer.SILENCE: Stop.IDLE_TIMEOUT}


class Execution:
    """The execution of a plan by one kernel."""

    def __init__(
        self,
        plan: Plan,
        requests: Requests,
        *,
        notebook: str = "",
        kernel_session: str | None = None,
        raw_streams: bool = False,
        observe: Callable[[Event], None] | None = None,
    ) -> None:
        """Prepare a run.

        `kernel_session` is the kernel's own as its introduction gave it, None to do without that guard; `observe` is
        told of cells and outputs under the name `notebook`.
        """
        self._plan = plan
        self._requests = requests
        self._notebook = notebook
        self._kernel_session = kernel_session
        self._raw_streams = raw_streams
        self._observe = observe or (lambda _: None)
        self._tell_outputs = observe is not None
        self._displays = Displays()
        self._widgets = Widgets(self._displays, raw_streams=raw_streams)
        self._waiting = list(reversed(plan.to_run))
        self._total = len(self._waiting)
        self._asked_for: dict[str, CellExecution] = {}
        self._asides: dict[str, CellExecution] = {}
        self._fence = Fence()
        self._ledger = Ledger(requests.session)
        self._timers = Timers()
        self._current: CellExecution | None = None
        self._draining: Ending | None = None
        self.cells: dict[int, CellExecution] = {}
        """The cells that were sent, by their position in the notebook."""
        self.ending: Ending | None = None
        """How the run ended, once it has."""

    # What the driver calls -----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """Give the time at which :meth:`tick` wants to be called."""
        return self._timers.next

    def start(self, now: float) -> Effects:
        """Send the first cell."""
        self._timers.set(Timer.RUN, now, self._plan.run_timeout)
        self._timers.set(Timer.PROBE, now, PROBE_EVERY)
        return self._send_next(now)

    def receive(self, message: Message, now: float) -> Effects:
        """Take one message of the kernel or of the server."""
        if self.ending:
            return ()
        if endings.is_of_another_kernel(message, self._kernel_session, self._requests.session):
            return self._lose_kernel(now, "is not the one that the run began with: somebody restarted it")
        self._ledger.take(message)
        if message.channel == Channel.IOPUB:
            return self._on_iopub(message, now)
        if message.type == "input_request":
            prompt = str(message.content.get("prompt") or "").strip()
            return self._stop_cell(now, Stop.INPUT, f"the cell asked for input ({prompt!r}), and nobody is there")
        if self._fence.is_answered_by(message):
            return self._on_fence_reply(now)
        cell = self._asked_for.get(message.parent_id)
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
            return self._end(self._draining or Ending(Outcome.INTERRUPTED, Problem(reason)))
        self._waiting.clear()
        return self._stop_cell(now, Stop.SIGNAL, reason)

    def probed(self, now: float, *, alive: bool) -> Effects:
        """Take what the server said when it was asked for the kernel."""
        return () if alive or self.ending else self._lose_kernel(now, "is gone: it died, or somebody shut it down")

    def reconnected(self, now: float) -> Effects:
        """Go on over a new websocket: nothing is sent again; a fence shows what was lost."""
        self._ledger.disturb()
        return () if self.ending or self._current is None else self._send_fence(now)

    def lose_server(self, now: float, error: NbrunError) -> None:
        """End the run because the server is out of reach."""
        where = f" {place_of(self._current, self._total)}" if self._current else ""
        problem = Problem(f"{error}{where}", error.hint)
        self._give_up(now, CellOutcome.INTERRUPTED, "ServerLost", Ending(Outcome.SERVER_FAILED, problem))

    def abandon(self, now: float, reason: str) -> None:
        """End the run at once, without another word to the kernel."""
        self._give_up(now, CellOutcome.INTERRUPTED, "Interrupted", Ending(Outcome.INTERRUPTED, Problem(reason)))

    def widgets(self, shown: Iterable[Output]) -> dict[str, Any] | None:
        """Give the state of the widgets as a notebook keeps it, where its outputs are those `shown`."""
        return self._widgets.saved(shown)

    def results(self) -> list[CellResult]:
        """Give what came of every code cell of the plan, in order."""
        return endings.results_of(self._plan, self.cells, self.ending)

    # Cells ---------------------------------------------------------------------------------------------------------

    def _send_next(self, now: float) -> Effects:
        if not self._waiting:
            return self._drain(now, Ending(Outcome.PASSED))
        told = [self._aside(self._requests.comm_update(*captured)) for captured in self._widgets.unsaid()]
        plan = self._waiting.pop()
        area = OutputArea(self._displays, raw_streams=self._raw_streams)
        self._current = CellExecution(plan, area, self._total - len(self._waiting), now)
        self.cells[plan.index] = self._current
        self._observe(CellStarted(self._notebook, plan.index, self._current.number, self._total, plan.source))
        told += [self._aside(self._requests.execute(code, silent=True, stop_on_error=False)) for code in plan.before]
        return (*told, *self._send_cell(self._current, now))

    def _send_cell(self, cell: CellExecution, now: float) -> Effects:
        plan = cell.plan
        request = self._requests.execute(
            plan.source,
            stop_on_error=not (plan.expects_error or plan.allows_error),
            metadata={"cellId": plan.id} if plan.id else {},
        )
        self._asked_for[request.id] = cell
        self._ledger.request = request.id
        self._timers.set(Timer.CELL, now, plan.timeout)
        self._timers.set(Timer.SILENCE, now, plan.idle_timeout)
        return (Send(request),)

    def _finish_cell(self, now: float) -> Effects:
        cell = self._current
        assert cell is not None
        if cell.never_ran and not cell.stop and cell.attempts < ATTEMPTS:
            # A request before it failed, and the kernel threw away what came behind: it may be sent again, and only so.
            cell.start_again()
            self._timers.drop(*_OF_A_CELL)
            self._timers.set(Timer.RESEND, now, RESEND_AFTER)
            self._fence = Fence()
            return ()
        self._settle(now)
        if cell.stop is Stop.SIGNAL:
            return self._end(Ending(Outcome.INTERRUPTED, Problem(f"{cell.stop_reason} {place_of(cell, self._total)}")))
        ending = endings.ending_after(cell, self._total)
        if ending is None:
            return self._send_next(now)
        return self._drain(now, ending) if cell.reply and not cell.asks_exit else self._end(ending)

    def _settle(self, now: float, outcome: CellOutcome | None = None, error: CellError | None = None) -> None:
        cell, self._current = self._current, None
        self._timers.drop(*_OF_A_CELL)
        self._fence = Fence()
        if cell is not None:
            cell.stretch = self._ledger.close()
            cell.settle(now, outcome, error)
            if cell.asks_new_input:
                text = f"the code {place_of(cell, self._total)} wants to write a new cell, which nbrun does not do"
                self._observe(Warned(self._notebook, text))
            self._observe(CellFinished(self._notebook, cell.result()))

    # Messages ------------------------------------------------------------------------------------------------------

    def _on_iopub(self, message: Message, now: float) -> Effects:
        kind = message.type
        cell = self._asked_for.get(message.parent_id)
        owner = cell or self._asides.get(message.parent_id)
        if owner is not None and self._draining:
            self._await_quiet(now)
        elif cell is not None and cell is self._current and cell.reply and "" < message.date <= cell.reply.date:
            self._timers.set(Timer.FENCE, now, FENCE_AFTER)  # sent before the reply and only now here: so will the idle
        elif cell is not None and cell is self._current and cell.stop is None:
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
            how = "restarted" if message.content.get("restart") else "shut down"
            return self._lose_kernel(now, f"was {how} by somebody else")
        if kind == "execute_input" and cell is not None:
            cell.on_execute_input(message)
        elif kind == "update_display_data":
            self._displays.update(message.content)
        else:
            self._widgets.take(message)
        return ()

    def _on_status(self, message: Message, cell: CellExecution | None, now: float) -> Effects:
        state = str(message.content.get("execution_state"))
        if state in endings.GONE:
            return self._lose_kernel(now, endings.GONE[state])
        if self._fence.is_answered_by(message):
            return self._on_fence_status(state, now)
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

    def _send_fence(self, now: float) -> Effects:
        self._timers.set(Timer.FENCE, now, FENCE_LIMIT)
        return (self._aside(self._fence.ask(self._requests)),)

    def _aside(self, request: Message) -> Send:
        """Ask something between cells: ipykernel names it as the parent of what late writers of a cell then put out."""
        self._asides[request.id] = next(reversed(self.cells.values()))
        return Send(request)

    def _on_fence_reply(self, now: float) -> Effects:
        if self._current is not None:
            self._fence.answered = True
            self._timers.set(Timer.FENCE, now, FENCE_GRACE)
        return ()

    def _on_fence_status(self, state: str, now: float) -> Effects:
        if self._draining:
            # Everything that the kernel sent before this is here; what its threads still hold comes in a moment.
            self._fence.answered = True
            self._await_quiet(now)
        elif state == "busy" and self._current is not None and self._current.state is State.REPLIED:
            return self._finish_cell(now)
        return ()

    def _on_overdue_fence(self, now: float) -> Effects:
        assert self._current is not None
        if not self._fence.is_asked:
            return self._send_fence(now)
        if self._fence.answered or self._current.state is State.REPLIED:
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
                return self._stop_cell(now, stop, endings.limit_reached(stop, self._plan.run_timeout, cell))
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
            case _:
                return self._end(self._draining) if self._draining else ()

    def _stop_cell(self, now: float, stop: Stop, reason: str) -> Effects:
        cell = self._current
        if cell is None or (cell.stop and RANK.get(stop, 0) <= RANK.get(cell.stop, 0)):
            return ()
        first = cell.stop is None
        cell.stop, cell.stop_reason = stop, reason
        self._timers.drop(Timer.CELL, Timer.SILENCE)
        if first or stop is Stop.SIGNAL:
            self._timers.set(Timer.ESCALATE, now, SIGNAL_GRACE if stop is Stop.SIGNAL else INTERRUPT_GRACE)
        return self._interrupt(cell) if first else ()

    def _interrupt(self, cell: CellExecution) -> Effects:
        """Interrupt and nudge: ipykernel notices an interrupt of a cell that awaits only at the next shell message."""
        cell.interrupts += 1
        return (InterruptKernel(), self._aside(self._requests.kernel_info()))

    def _escalate(self, now: float) -> Effects:
        cell = self._current
        assert cell is not None
        if cell.state is State.REPLIED:
            return self._finish_cell(now)  # it did react; only its idle is missing
        if cell.interrupts < 2 and cell.stop is not Stop.SIGNAL:
            self._timers.set(Timer.ESCALATE, now, INTERRUPT_GRACE)
            return self._interrupt(cell)
        return self._end_stopped(cell, now, "The kernel did not react to interrupts, so it was shut down.")

    def _end_stopped(self, cell: CellExecution, now: float, hint: str) -> Effects:
        outcome, error = cell.stopped()
        self._settle(now, outcome, error)
        return self._end(endings.ending_of_stopped(cell, self._total, hint))

    def _lose_kernel(self, now: float, how: str) -> Effects:
        if self._draining:
            return self._end(self._draining)
        if self._current is not None and self._current.stop:
            # Why it was interrupted is what the user has to be told, not that the interrupt was too much for it.
            return self._end_stopped(self._current, now, "The kernel did not survive the interrupt.")
        self._give_up(
            now, CellOutcome.KERNEL_DIED, "KernelDied", endings.kernel_lost(how, self._current, self._total, now)
        )
        return ()

    def _give_up(self, now: float, outcome: CellOutcome, ename: str, ending: Ending) -> None:
        if not self.ending:
            assert ending.problem is not None
            self._settle(now, outcome, CellError(ename, ending.problem.message))
            self._end(self._draining or ending)

    def _drain(self, now: float, ending: Ending) -> Effects:
        """Wait a moment for output that is still on its way: the run is over, its verdict stands."""
        if not self.cells:
            return self._end(ending)
        ending = self._draining = endings.ending_of_all(ending, self.cells.values(), self._total)
        self._timers.drop(Timer.RUN, Timer.PROBE)
        self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)
        return (self._aside(self._fence.ask(self._requests)),)

    def _end(self, ending: Ending) -> Effects:
        self.ending = self.ending or ending
        self._timers = Timers()
        return ()
