"""The state machine of a run: messages and time in, effects out.

It has no socket and no clock. Its driver passes it every message of the kernel and calls :meth:`Execution.tick` at
:attr:`Execution.deadline`. The driver carries out the returned effects and stops when :attr:`Execution.ending` is set::

    start -> cell SENT -> ... -> DONE (the table in cell.py) -> next cell ... -> drain -> ending
                 |                  ^
                 |  reply or idle is missing for 2 s: a *barrier* (kernel_info) takes the same path
                 |                  |     its reply, and no execute_reply:  the reply is lost
                 |                  |     its busy on iopub, and no idle:   the idle is lost
                 |  a limit, a signal, input() : interrupt + nudge -> again -> give the kernel up
                 +- the kernel dies, is restarted, or a message has another kernel's session -> ending at once

Its parts are the current cell, from the request to the verdict (:mod:`.cell`), the other ones, which wait or are sent
ahead (:mod:`.pipelining`), a missing reply or idle (:mod:`.barrier`), limits and signals (:mod:`.interruption`), late
output (:mod:`.drain`), lost messages (:mod:`nbrun.core.delivery.loss_detection`) and the outcome of the run
(:mod:`.outcomes`).

Cells are sent only to the kernel that the run started with. No cell is sent twice, unless the kernel itself reported
that it did not execute it.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from nbrun.core.delivery.loss_detection import Ledger, is_rate_limit_notice
from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived, Warned
from nbrun.core.execution import outcomes
from nbrun.core.execution.barrier import Barrier
from nbrun.core.execution.cell import RANK, CellExecution, State, Stop
from nbrun.core.execution.drain import Drain
from nbrun.core.execution.effects import OF_A_CELL, Effect, Effects, ProbeKernel, Send, Timer, Timers
from nbrun.core.execution.interruption import LIMITS, Interruption, Recalled
from nbrun.core.execution.outcomes import Ending, place_of
from nbrun.core.execution.pipelining import ONE_BY_ONE, CellQueue, Pipelining, Routes, Slot
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.outputs.mimebundle import Output, output_of
from nbrun.core.outputs.widgets import Widgets
from nbrun.core.planning.plan import CellPlan, Plan
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import KERNEL_INFO, Channel, Message, Requests
from nbrun.core.results import CellError, CellOutcome, CellResult, Outcome, Problem
from nbrun.errors import NbrunError, ResponseTooLarge

RESEND_AFTER = 0.3
"""Seconds before a cell is sent again that the kernel did not run. After an error tslab refuses cells for 0.2 s."""
ATTEMPTS = 3
"""Maximum times that a cell is sent if the kernel reports each time that it did not run it."""
PROBE_EVERY = 60.0
"""Seconds between two requests for the kernel's state. Servers that cull idle kernels count them as activity."""


class Execution:
    """The execution of a plan by one kernel."""

    def __init__(  # noqa: PLR0913  (what one run is made of)
        self,
        plan: Plan,
        requests: Requests,
        *,
        notebook: str = "",
        kernel_session: str | None = None,
        raw_streams: bool = False,
        max_output: int | None = None,
        ask_for_writers: bool = False,
        can_recall: bool = False,
        pipelining: Pipelining = ONE_BY_ONE,
        last_started: Callable[[], str | None] = lambda: None,
        observe: Callable[[Event], None] | None = None,
    ) -> None:
        """Prepare a run.

        `kernel_session` is the kernel's session from the handshake, or None to accept messages of any session.
        `max_output` is the maximum size of a cell's outputs. `ask_for_writers` is true if the kernel's agent can report
        writers (:mod:`.drain`). `can_recall` is true if it can report whether a request was started. `pipelining` is
        how cells are sent. `last_started` returns the id of the request that the kernel started last, and then the
        kernel starts no other one; it returns None if that is unknown. `observe` is called with the events of cells and
        outputs, with the name `notebook`.
        """
        self._plan = plan
        self._requests = requests
        self._notebook = notebook
        self._kernel_session = kernel_session
        self._observe = observe or (lambda _: None)
        self._is_observed = observe is not None
        self._displays = Displays()
        self._new_area = partial(OutputArea, self._displays, raw_streams=raw_streams, limit=max_output)
        self._widgets = Widgets(self._new_area)
        self._ledger = Ledger(requests.id_prefix)
        self._timers = Timers()
        self._routes = Routes()
        self._queue = CellQueue(plan.to_run, requests, pipelining)
        self._total = self._queue.total
        self._barrier = Barrier(self._timers, requests, self._routes)
        self._interruption = Interruption(self._timers, requests, self._routes)
        self._drain = Drain(self._timers, requests, asks_writers=ask_for_writers)
        self._current: CellExecution | None = None
        self._can_recall = can_recall
        self._last_started = last_started
        self._recall = ("", "")
        """The request that asks whether the current cell's request was started, and that request."""
        self._late_output_at = 0.0
        """The arrival time of the last output that is older than its cell's reply."""
        self._tracebacks: set[tuple[str, ...]] = set()
        self.cells: dict[int, CellExecution] = {}
        """The cells that were sent, by their index in the notebook."""
        self.ending: Ending | None = None
        """The ending of the run, or None while it runs."""

    # The driver's interface ----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """Return the time of the next call of :meth:`tick`."""
        return self._timers.next

    @property
    def is_draining(self) -> bool:
        """Return whether all cells have ended and only late output is expected."""
        return self._drain.ending is not None

    @property
    def is_stopping(self) -> bool:
        """Return whether the current cell is being interrupted."""
        return self._current is not None and self._current.stop is not None

    def start(self, now: float) -> Effects:
        """Send the first cell."""
        self._timers.set(Timer.RUN_TIMEOUT, now, self._plan.run_timeout)
        self._timers.set(Timer.PROBE, now, PROBE_EVERY)
        return self._send_next(now)

    def receive(self, message: Message, now: float) -> Effects:
        """Handle one message of the kernel or of the server."""
        if self.ending:
            return ()
        if outcomes.is_of_another_kernel(message, self._kernel_session, self._requests.session):
            return self._lose_kernel(now, "is not the one that the run began with: somebody restarted it")
        if self._queue.hold(message, now):
            return self._on_sign_of_next(message, now)
        if self._drain.hold(message):
            return ()
        self._ledger.count(message)
        if message.channel == Channel.IOPUB:
            return self._on_iopub(message, now)
        return self._on_reply(message, now)

    def tick(self, now: float) -> Effects:
        """Handle the timers that have expired."""
        effects: list[Effect] = []
        while not self.ending and (timer := self._timers.expired(now)):
            effects += self._on_timer(timer, now)
        return effects

    def interrupt(self, now: float, reason: str) -> Effects:
        """End the run on request of the user (Ctrl-C, SIGTERM)."""
        if self._current is None:
            return self._end(now, Ending(Outcome.INTERRUPTED, Problem(reason)))
        return self._stop_cell(now, Stop.SIGNAL, reason)

    def probed(self, now: float, *, alive: bool) -> Effects:
        """Handle the server's answer whether the kernel is alive."""
        return () if alive or self.ending else self._lose_kernel(now, "is gone: it died, or somebody shut it down")

    def reconnected(self, now: float, *, nudged: bool = True) -> Effects:
        """Continue with a new websocket. Nothing is sent again; a barrier shows what was lost."""
        if nudged:
            self._ledger.disturb()
        self._routes.forget_server()
        self._queue.mark_doubtful()
        self._give_up_question(now)
        return () if self.ending or self._current is None else self._barrier.send(self._current, now)

    def lose_server(self, now: float, error: NbrunError) -> None:
        """End the run because the server cannot be reached, or because a message of the current cell is too large."""
        arriving = self._current
        self._catch_up(now)
        cell = arriving if isinstance(error, ResponseTooLarge) else self._current
        problem = outcomes.problem_in(cell, self._total, str(error), error.hint) if cell else Problem.of(error)
        self._give_up(now, CellOutcome.INTERRUPTED, "ServerLost", Ending(Outcome.SERVER_FAILED, problem))

    def abandon(self, now: float, reason: str) -> None:
        """End the run at once, without a further request to the kernel."""
        self._catch_up(now)
        self._give_up(now, CellOutcome.INTERRUPTED, "Interrupted", Ending(Outcome.INTERRUPTED, Problem(reason)))

    def widgets(self, shown: Iterable[Output]) -> dict[str, Any] | None:
        """Return the state of the widgets in the notebook's format, for the outputs `shown`."""
        return self._widgets.saved(shown)

    def results(self) -> list[CellResult]:
        """Return the result of every code cell of the plan, in order."""
        return outcomes.results_of(self._plan, self.cells, self.ending)

    # Sequence of cells ---------------------------------------------------------------------------------------------

    def _send_next(self, now: float) -> Effects:
        if slot := self._queue.pop_ahead():
            return self._continue_with(slot, now)
        plan = self._queue.pop_waiting()
        if plan is None:
            return self._start_drain(now, Ending(Outcome.PASSED))
        updates = self._update_widgets()
        cell = self._begin(plan, now)
        prepared = [
            self._routes.send_aside(self._requests.execute(code, silent=True, stop_on_error=False), cell)
            for code in plan.before
        ]
        return (*updates, *prepared, *self._send_cell(cell, now))

    def _begin(self, plan: CellPlan, began_at: float) -> CellExecution:
        cell = self._current = CellExecution(
            plan, self._new_area(), len(self.cells) + 1, began_at, stale=self._tracebacks
        )
        self.cells[plan.index] = cell
        self._observe(CellStarted(self._notebook, plan.index, cell.number, self._total, plan.source))
        return cell

    def _send_cell(self, cell: CellExecution, now: float) -> Effects:
        self._give_up_question(now)
        request = self._queue.request_for(cell.plan)
        self._watch(cell, request.id, now)
        return (Send(request), *self._send_ahead())

    def _send_ahead(self) -> Effects:
        # The kernel needs the contents of Output widgets before the next cell runs.
        # While any comm is open, the kernel refuses the cells that were sent ahead.
        if self._widgets.has_comms:
            return ()
        sent = self._queue.send_ahead()
        if sent and not self._queue.is_waiting and (question := self._drain.question_ahead()) is not None:
            return (*sent, Send(question))
        return sent

    def _continue_with(self, slot: Slot, now: float) -> Effects:
        """Make a cell current that was sent ahead, and handle the messages held for it."""
        cell = self._begin(slot.plan, slot.began_at or now)
        cell.ahead = True
        self._watch(cell, slot.request, now)
        effects = [*self._send_ahead(), *(self._barrier.send(cell, now) if slot.is_doubtful else ())]
        if postponed := self._interruption.postponed():
            effects += self._stop_cell(now, *postponed)
        for message, _ in slot.held:
            effects += self.receive(message, now)
        return effects

    def _watch(self, cell: CellExecution, request: str, now: float) -> None:
        self._routes.add(request, cell)
        self._ledger.follow(request)
        self._timers.set(Timer.CELL_TIMEOUT, cell.sent_at, cell.plan.timeout)
        self._timers.set(Timer.IDLE_TIMEOUT, now, cell.plan.idle_timeout)

    def _update_widgets(self) -> Effects:
        """Send the state of the Output widgets to the kernel."""
        updates = [self._requests.comm_update(*captured) for captured in self._widgets.unsent()]
        return [self._routes.send_aside(update, self._newest) for update in updates]

    @property
    def _newest(self) -> CellExecution:
        return next(reversed(self.cells.values()))

    def _finish_cell(self, now: float) -> Effects:
        cell = self._current
        assert cell is not None
        if cell.never_ran and cell.ahead and not cell.stop:
            return self._send_unconditionally(cell, now)
        if cell.never_ran and not cell.stop and cell.attempts < ATTEMPTS:
            # An earlier request failed, and the kernel discarded its queue. Only then may a cell be sent again.
            self._restart(cell)
            self._timers.set(Timer.RESEND, now, RESEND_AFTER)
            return ()
        if cell.ended_by_foreign_interrupt and not self._barrier.is_sent:
            return self._barrier.send(cell, now, Channel.CONTROL)  # a server interrupts a kernel before it restarts it
        self._settle(now)
        if cell.stop in RANK and cell.outcome is CellOutcome.PASSED and self._queue.has_ahead:
            self._interruption.postpone(cell)  # the kernel may have started the next one already
        elif cell.stop is Stop.SIGNAL:
            problem = outcomes.problem_in(cell, self._total, cell.stop_reason)
            return self._end(now, Ending(Outcome.INTERRUPTED, problem))
        ending = outcomes.ending_after(cell, self._total)
        if ending is None:
            return self._send_next(now)
        if cell.reply is not None and not cell.asks_exit:
            return self._start_drain(now, ending)
        if cell.reply is not None:
            self._drain.on_exit(cell.reply, self._doubtful())
        return self._end(now, ending)

    def _restart(self, cell: CellExecution) -> None:
        cell.start_again()
        self._timers.drop(*OF_A_CELL)
        self._barrier.reset()

    def _settle(self, now: float, outcome: CellOutcome | None = None, error: CellError | None = None) -> None:
        cell, self._current = self._current, None
        self._timers.drop(*OF_A_CELL)
        self._barrier.reset()
        if cell is not None:
            cell.stretch = self._ledger.close()
            cell.settle(now, outcome, error)
            self._tracebacks.update(cell.tracebacks())
            if cell.asks_new_input:
                text = f"the code {place_of(cell, self._total)} wants to write a new cell, which nbrun does not do"
                self._observe(Warned(self._notebook, text))
            self._observe(CellFinished(self._notebook, cell.result()))

    # Cells that were sent ahead but not run ------------------------------------------------------------------------

    def _send_unconditionally(self, cell: CellExecution, now: float) -> Effects:
        """Send a cell again without condition, because the kernel refused it or does not know it.

        The cells behind it wait again. The kernel refuses them too, and their late output belongs to this cell.
        """
        effects: list[Effect] = []
        for slot in self._queue.take_back():
            self._routes.add_aside(slot.request, cell)
            for message, _ in slot.held:
                effects += self.receive(message, now)
        self._restart(cell)
        cell.sent_at = now
        return (*effects, *self._update_widgets(), *self._send_cell(cell, now))

    def _catch_up(self, now: float) -> None:
        """Continue to the cell that the kernel started last, because messages were lost with the kernel or the server.

        A kernel that has started a cell has passed the cells before it.
        """
        if self.ending or self.is_stopping or not self._queue.has_ahead:
            return
        started = self._last_started()
        while self._queue.is_ahead(started) and (slot := self._queue.pop_ahead()):
            has_reply = self._current is not None and self._current.reply is not None
            self._settle(now, None if has_reply else CellOutcome.PASSED)
            self._current = self._adopt(slot, slot.began_at or now, now)

    def _settle_ahead(self, ending: Ending, now: float) -> None:
        """End the cells that were sent ahead, because the run ends.

        If it is unknown which cells the kernel has started, a cell that may have run counts as run.
        """
        last = next(reversed(self.cells.values()), None)
        started = self._last_started() if self._queue.has_ahead else None
        may_run = ending.outcome is Outcome.SERVER_FAILED if started is None else self._queue.is_ahead(started)
        for slot in self._queue.take_back():
            began_at = now if may_run and slot.began_at is None else slot.began_at
            may_run = may_run and slot.request != started
            if began_at is not None:
                cell = self._adopt(slot, began_at, now)
                # If no message of a cell arrived, it may not have started: its outputs stay empty.
                cell.settle(now, *(() if cell.reply else outcomes.cut_off(ending)), shown=bool(slot.held))
                self._observe(CellFinished(self._notebook, cell.result()))
                continue
            assert last is not None
            self._routes.add_aside(slot.request, last)
            for message, _ in slot.held:
                self.receive(message, now)

    def _adopt(self, slot: Slot, began_at: float, now: float) -> CellExecution:
        """Return the execution of a cell that was sent ahead, with the messages held for it, as the run ends."""
        cell = self._begin(slot.plan, began_at)
        self._routes.add(slot.request, cell)
        self._current, cell.state = None, State.DONE
        for message, _ in slot.held:
            self.receive(message, now)
            if message.type == "execute_reply":
                cell.on_reply(message)
        return cell

    # Messages ------------------------------------------------------------------------------------------------------

    def _on_sign_of_next(self, message: Message, now: float) -> Effects:
        """End the current cell if a message for the next one shows that a reply or idle is lost."""
        cell = self._current
        assert cell is not None
        busy = message.channel == Channel.IOPUB and message.content.get("execution_state") == "busy"
        if (busy and cell.state is State.REPLIED) or (message.type == "execute_reply" and cell.reply is None):
            return self._finish_cell(now)
        return ()

    def _on_iopub(self, message: Message, now: float) -> Effects:
        kind = message.type
        cell, owner = self._routes.cell_of(message), self._routes.owner_of(message)
        if owner is None and message.parent_type == KERNEL_INFO:
            owner, cell = self._current, self._current if self._routes.ends_cell(message) else None
        if owner is not None and owner.reply is not None and "" < message.date <= owner.reply.date:
            self._late_output_at = now
        if owner is not None and self._drain.ending:
            self._drain.on_output(now)
        elif cell is not None and cell is self._current and cell.reply is None and cell.stop is None:
            self._timers.set(Timer.IDLE_TIMEOUT, now, cell.plan.idle_timeout)
        if owner is not None and is_rate_limit_notice(message, self._requests.session):
            owner.notices += 1
        elif self._widgets.captures(message):
            return ()
        elif owner is not None and owner.area.apply(message):
            self._report_output(owner, message)
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
            self._widgets.apply(message)
        return ()

    def _on_reply(self, message: Message, now: float) -> Effects:
        """Handle a message of any channel but iopub."""
        if message.type == "input_request":
            prompt = str(message.content.get("prompt") or "").strip()
            return self._stop_cell(now, Stop.INPUT, f"the cell asked for input ({prompt!r}), and nobody is there")
        if self._barrier.is_answered_by(message):
            self._barrier.on_reply(now)
            return self._ask_whether_started()
        if self._drain.is_answered_by(message):
            return self._on_drain_answer(message, now)
        if message.type == agent.RECALL_REPLY:
            return self._on_recall_reply(message, now)
        cell = self._routes.cell_of(message)
        if cell is not None and cell is self._current and message.type == "execute_reply":
            self._timers.drop(Timer.CELL_TIMEOUT, Timer.IDLE_TIMEOUT)
            if cell.on_reply(message):
                return self._finish_cell(now)
            self._barrier.expect_other_sign(now)
        return ()

    def _on_status(self, message: Message, cell: CellExecution | None, now: float) -> Effects:
        state = str(message.content.get("execution_state"))
        if state in outcomes.GONE:
            return self._lose_kernel(now, outcomes.GONE[state])
        if self._barrier.is_answered_by(message):
            is_over = state == "busy" and self._current is not None and self._current.reply is not None
            return self._finish_cell(now) if is_over else ()
        if self._drain.is_answered_by(message):
            return self._on_drain_answer(message, now)
        if cell is not None and cell.on_status(message):
            return self._finish_cell(now) if cell is self._current else ()
        if cell is not None and cell.state is State.IDLED:
            self._barrier.expect_other_sign(now)
        return ()

    def _report_output(self, cell: CellExecution, message: Message) -> None:
        if self._is_observed and (output := output_of(message)) is not None:
            self._observe(OutputArrived(self._notebook, cell.plan.index, output))

    # Timers and interruption ---------------------------------------------------------------------------------------

    def _on_timer(self, timer: Timer, now: float) -> Effects:
        match timer:
            case Timer.RUN_TIMEOUT | Timer.CELL_TIMEOUT | Timer.IDLE_TIMEOUT:
                stop = LIMITS[timer]
                cell = self._current.plan if self._current else None
                return self._stop_cell(now, stop, outcomes.limit_reached(stop, self._plan.run_timeout, cell))
            case Timer.ESCALATE:
                return self._escalate(now)
            case Timer.BARRIER:
                return self._on_overdue_barrier(now)
            case Timer.RESEND:
                assert self._current is not None
                if self._current.stop:
                    return self._end_stopped(self._current, now, "")
                return self._send_cell(self._current, now)
            case Timer.PROBE:
                self._timers.set(Timer.PROBE, now, PROBE_EVERY)
                return (ProbeKernel(),)
            case Timer.QUIET:
                return self._ask_writers() if self._drain.asks_again else self._end_drained(now)
            case _:  # the limit of the drain
                is_over = self._drain.on_limit(now, late_output_at=self._late_output_at)
                return self._end_drained(now) if is_over else ()

    def _on_overdue_barrier(self, now: float) -> Effects:
        assert self._current is not None
        effects = self._barrier.on_overdue(
            self._current, now, late_output_at=self._late_output_at, next_began=self._queue.next_began
        )
        return self._finish_cell(now) if effects is None else effects

    def _stop_cell(self, now: float, stop: Stop, reason: str) -> Effects:
        cell = self._current
        if cell is None or not self._interruption.applies(stop, cell):
            return ()
        self._give_up_question(now)
        if stop in RANK:
            self._queue.close()
        recalling = self._ledger.request if self._queue.has_ahead else ""
        return self._interruption.start(cell, stop, reason, now, recalling=recalling)

    def _ask_whether_started(self) -> Effects:
        """Ask the kernel whether it has started the current cell, whose request may be lost with a connection.

        A cell is not sent again if other requests before it may be lost too.
        """
        cell = self._current
        if cell is None or not self._may_be_unknown(cell) or cell.plan.before or self._widgets.has_comms:
            return ()
        question = agent.recall(self._requests, self._ledger.request)
        self._recall = question.id, self._ledger.request
        return (Send(question),)

    def _may_be_unknown(self, cell: CellExecution) -> bool:
        return self._can_recall and cell.reply is None and cell.stop is None and not cell.seen

    def _on_recall_reply(self, message: Message, now: float) -> Effects:
        cell = self._current
        if (message.parent_id, self._ledger.request) == self._recall:
            if cell is None or not self._may_be_unknown(cell) or message.content.get("state") != "unknown":
                return ()
            self._routes.add_aside(self._ledger.request, cell)  # the kernel refuses it if it arrives after all
            return self._send_unconditionally(cell, now)
        recalled = self._interruption.on_recall_reply(message, self._current)
        if recalled is Recalled.ENDED:
            self._barrier.expect_other_sign(now)
        return self._escalate(now) if recalled is Recalled.RUNNING else ()

    def _escalate(self, now: float) -> Effects:
        cell = self._current
        assert cell is not None
        if cell.state is State.REPLIED:
            return self._finish_cell(now)  # the cell has ended; only its idle is missing
        effects = self._interruption.escalate(cell, now)
        if effects is None:
            return self._end_stopped(cell, now, "The kernel did not react to interrupts, so it was shut down.")
        return effects

    # The end -------------------------------------------------------------------------------------------------------

    def _end_stopped(self, cell: CellExecution, now: float, hint: str) -> Effects:
        outcome, error = cell.stopped()
        self._settle(now, outcome, error)
        return self._end(now, outcomes.ending_of_stopped(cell, self._total, hint))

    def _lose_kernel(self, now: float, how: str) -> Effects:
        self._catch_up(now)
        if self._current is not None and self._current.stop:
            # Report the reason of the interrupt, not the death of the kernel that followed.
            return self._end_stopped(self._current, now, "The kernel did not survive the interrupt.")
        ending = outcomes.kernel_lost(how, self._current, self._total, now)
        self._give_up(now, CellOutcome.KERNEL_DIED, "KernelDied", ending)
        return ()

    def _give_up(self, now: float, outcome: CellOutcome, ename: str, ending: Ending) -> None:
        if not self.ending:
            assert ending.problem is not None
            self._settle(now, outcome, CellError(ename, ending.problem.message))
            self._end(now, ending)

    def _start_drain(self, now: float, ending: Ending) -> Effects:
        """Wait for output that is still on its way. All cells have ended, and the verdict does not change."""
        if not self.cells:
            return self._end(now, ending)
        self._drain.start(ending, now)
        self._settle_ahead(ending, now)
        if self._doubtful():
            self._give_up_question(now)
        question, held = self._drain.take_ahead(counts=True)
        if question is None:
            return self._ask_writers()
        self._routes.add_aside(question.id, self._newest)
        return [effect for message in held for effect in self.receive(message, now)]

    def _give_up_question(self, now: float) -> None:
        """Ignore the answer to the question that was sent ahead. Late output that has it as its parent is kept."""
        question, held = self._drain.take_ahead(counts=False)
        if question is not None:
            self._routes.add_aside(question.id, self._newest)
            for message in held:
                self.receive(message, now)

    def _ask_writers(self) -> Effects:
        """Ask whether more output may come, and whether missing messages were sent at all."""
        return (self._routes.send_aside(self._drain.question(self._doubtful()), self._newest),)

    def _on_drain_answer(self, message: Message, now: float) -> Effects:
        return self._end_drained(now) if self._drain.on_answer(message, now) else ()

    def _end_drained(self, now: float) -> Effects:
        assert self._drain.ending is not None
        return self._end(now, self._drain.ending)

    def _doubtful(self) -> list[tuple[int, int]]:
        """Return the first and last number of each range with missing messages."""
        stretches = [cell.stretch for cell in self.cells.values() if cell.stretch]
        return [(stretch.first, stretch.last) for stretch in stretches if stretch.missing]

    def _end(self, now: float, ending: Ending) -> Effects:
        """End the run. The verdict of a run that drains does not change."""
        ending = self._drain.ending or ending
        self._settle_ahead(ending, now)
        self._give_up_question(now)
        for cell in self.cells.values():
            cell.unsent = self._drain.unsent[cell.stretch.last] if cell.stretch else 0
            cell.review()  # with the final outputs, which are saved
        self.ending = self.ending or outcomes.ending_of_all(ending, self.cells.values(), self._total)
        self._timers.drop(*Timer)
        return ()
