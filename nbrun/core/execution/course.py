"""The course of a run: cells are sent, have their turn and come to their end, and the run with the last of them.

This is one half of the state machine, what is *done*; the other, :mod:`.execution`, says on which message and at which
time it is done.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from nbrun.core.delivery.loss_detection import Ledger
from nbrun.core.events import CellFinished, CellStarted, Event, Warned
from nbrun.core.execution import outcomes
from nbrun.core.execution.barrier import Fence
from nbrun.core.execution.cell import RANK, CellExecution, State, Stop
from nbrun.core.execution.drain import Farewell
from nbrun.core.execution.effects import (
    ATTEMPTS,
    DRAIN_LIMIT,
    FENCE_LIMIT,
    OF_A_CELL,
    RESEND_AFTER,
    Effect,
    Effects,
    Send,
    Timer,
    Timers,
)
from nbrun.core.execution.outcomes import Ending, place_of
from nbrun.core.execution.pipelining import Turn, Window
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.outputs.widgets import Widgets
from nbrun.core.planning.plan import CellPlan, Plan
from nbrun.core.protocol.messages import Message, Requests
from nbrun.core.results import CellError, CellOutcome, Outcome


class Course(ABC):
    """What happens to the cells of a plan."""

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
        depth: int = 1,
        observe: Callable[[Event], None] | None = None,
    ) -> None:
        """Prepare a run.

        `kernel_session` is the kernel's own as its introduction gave it, None to do without that guard; `max_output` is
        what a cell may put out; `ask_for_writers` is for ipykernel (:mod:`.farewell`); `depth` is how many cells may be
        on their way at a time, over 1 only with a kernel that has the guard of :mod:`.guard`; `observe` is told of
        cells and outputs under the name `notebook`.
        """
        self._plan = plan
        self._requests = requests
        self._window = Window(plan.to_run, requests, depth)
        self._notebook = notebook
        self._kernel_session = kernel_session
        self._observe = observe or (lambda _: None)
        self._tell_outputs = observe is not None
        self._displays = Displays()
        self._new_area = partial(OutputArea, self._displays, raw_streams=raw_streams, limit=max_output)
        self._widgets = Widgets(self._new_area)
        self._total = self._window.total
        self._fence, self._farewell = Fence(), Farewell(asks=ask_for_writers)
        self._ledger = Ledger(requests.session)
        self._timers, self._heard_at = Timers(), 0.0
        self._current: CellExecution | None = None
        self._draining: Ending | None = None
        self._carried: tuple[Stop, str] | None = None
        self._recall = ""
        self._tracebacks: set[tuple[str, ...]] = set()
        self.cells: dict[int, CellExecution] = {}
        """The cells that were sent, by their position in the notebook."""
        self.ending: Ending | None = None
        """How the run ended, once it has."""

    @abstractmethod
    def receive(self, message: Message, now: float) -> Effects:
        """Handle one message of the kernel or of the server."""

    @abstractmethod
    def _stop_cell(self, now: float, stop: Stop, reason: str) -> Effects:
        """Interrupt the cell that has its turn."""

    # A cell's turn -------------------------------------------------------------------------------------------------

    def _send_next(self, now: float) -> Effects:
        if turn := self._window.next_ahead():
            return self._take_turn(turn, now)
        plan = self._window.next_waiting()
        if plan is None:
            return self._drain(now, Ending(Outcome.PASSED))
        told = self._tell_widgets()
        cell = self._begin(plan, now)
        prepared = [self._aside(self._requests.execute(code, silent=True, stop_on_error=False)) for code in plan.before]
        return (*told, *prepared, *self._send_cell(cell, now))

    def _begin(self, plan: CellPlan, began_at: float) -> CellExecution:
        cell = self._current = CellExecution(
            plan, self._new_area(), len(self.cells) + 1, began_at, stale=self._tracebacks
        )
        self.cells[plan.index] = cell
        self._observe(CellStarted(self._notebook, plan.index, cell.number, self._total, plan.source))
        return cell

    def _send_cell(self, cell: CellExecution, now: float) -> Effects:
        request = self._window.ask(cell.plan)
        self._look_after(cell, request.id, now)
        return (Send(request), *self._send_ahead())

    def _send_ahead(self) -> Effects:
        # An Output widget has to be told what it holds before the next cell runs.
        return () if self._widgets.are_used else self._window.fill()

    def _take_turn(self, turn: Turn, now: float) -> Effects:
        """Go on with a cell that was sent ahead; what was held for it comes now."""
        cell = self._begin(turn.plan, turn.began_at or now)
        cell.ahead = True
        self._look_after(cell, turn.request, now)
        effects = [*self._send_ahead(), *(self._send_fence(now) if turn.is_doubtful else ())]
        if self._carried:
            (stop, reason), self._carried = self._carried, None
            effects += self._stop_cell(now, stop, reason)
        for message, _ in turn.held:
            effects += self.receive(message, now)
        return effects

    def _look_after(self, cell: CellExecution, request: str, now: float) -> None:
        self._window.expect(request, cell)
        self._ledger.follow(request)
        self._timers.set(Timer.CELL, cell.sent_at, cell.plan.timeout)
        self._timers.set(Timer.SILENCE, now, cell.plan.idle_timeout)

    def _tell_widgets(self) -> Effects:
        return [self._aside(self._requests.comm_update(*captured)) for captured in self._widgets.unsaid()]

    def _send_again(self, cell: CellExecution, now: float) -> Effects:
        """Send a cell, now without condition, that the kernel did not run because the one before it did not pass."""
        effects = [*self._call_back(cell, now)]
        cell.start_again()
        cell.sent_at = now
        self._timers.drop(*OF_A_CELL)
        self._fence = Fence()
        return (*effects, *self._tell_widgets(), *self._send_cell(cell, now))

    def _finish_cell(self, now: float) -> Effects:
        cell = self._current
        assert cell is not None
        if cell.never_ran and cell.ahead and not cell.stop:
            return self._send_again(cell, now)
        if cell.never_ran and not cell.stop and cell.attempts < ATTEMPTS:
            # A request before it failed, and the kernel threw away what came behind: it may be sent again, and only so.
            cell.start_again()
            self._timers.drop(*OF_A_CELL)
            self._timers.set(Timer.RESEND, now, RESEND_AFTER)
            self._fence = Fence()
            return ()
        self._settle(now)
        if cell.stop in RANK and cell.outcome is CellOutcome.PASSED and self._window.has_ahead:
            self._carried = cell.stop, cell.stop_reason  # the kernel may be at the next one already
        elif cell.stop is Stop.SIGNAL:
            problem = outcomes.problem_in(cell, self._total, cell.stop_reason)
            return self._end(now, Ending(Outcome.INTERRUPTED, problem))
        ending = outcomes.ending_after(cell, self._total)
        if ending is None:
            return self._send_next(now)
        if cell.reply is not None and not cell.asks_exit:
            return self._drain(now, ending)
        if cell.reply is not None:
            self._farewell.hear(cell.reply, self._doubtful())
        return self._end(now, ending)

    def _settle(self, now: float, outcome: CellOutcome | None = None, error: CellError | None = None) -> None:
        cell, self._current = self._current, None
        self._timers.drop(*OF_A_CELL)
        self._fence = Fence()
        if cell is not None:
            cell.stretch = self._ledger.close()
            cell.settle(now, outcome, error)
            self._tracebacks.update(cell.tracebacks())
            if cell.asks_new_input:
                text = f"the code {place_of(cell, self._total)} wants to write a new cell, which nbrun does not do"
                self._observe(Warned(self._notebook, text))
            self._observe(CellFinished(self._notebook, cell.result()))

    # What was sent ahead, when the run does not go on to it --------------------------------------------------------

    def _call_back(self, last: CellExecution, now: float) -> Effects:
        """Count the cells that were sent ahead as not sent: the kernel refuses them; late output is the last one's."""
        effects: list[Effect] = []
        for turn in self._window.call_back():
            self._window.expect_aside(turn.request, last)
            for message, _ in turn.held:
                effects += self.receive(message, now)
        return effects

    def _call_off(self, ending: Ending, now: float) -> None:
        """Say what came of the cells that were sent ahead, now that the run ends: one that may have run did."""
        last = next(reversed(self.cells.values()), None)
        unsure = ending.outcome is Outcome.SERVER_FAILED
        for turn in self._window.call_back():
            began_at = now if unsure and turn.began_at is None else turn.began_at
            cell = None if began_at is None else self._begin(turn.plan, began_at)
            if cell is not None:
                self._window.expect(turn.request, cell)
                self._current, cell.state = None, State.DONE
            else:
                assert last is not None
                self._window.expect_aside(turn.request, last)
            for message, _ in turn.held:
                self.receive(message, now)
                if cell is not None and message.type == "execute_reply":
                    cell.on_reply(message)
            if cell is not None:
                cell.settle(now, *(() if cell.reply else outcomes.cut_off(ending)))
                self._observe(CellFinished(self._notebook, cell.result()))

    # Beside the cells, and the end ---------------------------------------------------------------------------------

    def _send_fence(self, now: float) -> Effects:
        self._timers.set(Timer.FENCE, now, FENCE_LIMIT)
        return (self._aside(self._fence.ask(self._requests)),)

    def _aside(self, request: Message) -> Send:
        """Ask something between cells: ipykernel names it as the parent of what late writers of a cell then put out."""
        self._window.expect_aside(request.id, next(reversed(self.cells.values())))
        return Send(request)

    def _give_up(self, now: float, outcome: CellOutcome, ename: str, ending: Ending) -> None:
        if not self.ending:
            assert ending.problem is not None
            self._settle(now, outcome, CellError(ename, ending.problem.message))
            self._end(now, self._draining or ending)

    def _drain(self, now: float, ending: Ending) -> Effects:
        """Wait a moment for output that is still on its way: the run is over, its verdict stands."""
        if not self.cells:
            return self._end(now, ending)
        self._draining = ending
        self._call_off(ending, now)
        self._timers.drop(Timer.RUN, Timer.PROBE)
        self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)
        self._fence = self._farewell
        return self._ask_farewell()

    def _ask_farewell(self) -> Effects:
        """Ask whether more may come, and whether what is missing of cells was sent at all."""
        return (self._aside(self._farewell.ask(self._requests, self._doubtful())),)

    def _doubtful(self) -> list[tuple[int, int]]:
        """Return the first and the last number of each stretch where messages seem to be missing."""
        stretches = [cell.stretch for cell in self.cells.values() if cell.stretch]
        return [(stretch.first, stretch.last) for stretch in stretches if stretch.missing]

    def _end(self, now: float, ending: Ending) -> Effects:
        self._call_off(ending, now)
        for cell in self.cells.values():
            cell.unsent = self._farewell.unsent[cell.stretch.last] if cell.stretch else 0
            cell.review()  # by the outputs as they are now: they are what is saved
        self.ending = self.ending or outcomes.ending_of_all(ending, self.cells.values(), self._total)
        self._timers = Timers()
        return ()
