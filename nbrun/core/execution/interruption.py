"""Interrupt the current cell: time-outs, signals and input requests.

::

    stop -> (recall -> answer or 1 s) -> interrupt + nudge -> 5 s -> interrupt + nudge -> 5 s -> the kernel is given up
                                             a signal:     -> 2 s ->                           the kernel is given up

If more cells were sent behind the current one, they are *recalled* first. None of them may start when the interrupt
ends the current cell, and none may receive the interrupt. If a stop of the whole run finds the cell already finished,
it is *postponed* to the next cell.
"""

from enum import Enum, auto

from nbrun.core.execution.cell import RANK, CellExecution, Stop
from nbrun.core.execution.effects import Effects, InterruptKernel, Send, Timer, Timers
from nbrun.core.execution.pipelining import Routes
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Message, Requests

INTERRUPT_GRACE = 5.0
"""Seconds for a cell to end after each of two interrupts."""
RECALL_GRACE = 1.0
"""Seconds to wait for the kernel's answer that it starts no further cell, before the interrupt."""
SIGNAL_GRACE = 2.0
"""Seconds for a cell to end after a signal, which interrupts it only once, because SIGKILL may follow."""
LIMITS = {
    Timer.RUN_TIMEOUT: Stop.RUN_TIMEOUT,
    Timer.CELL_TIMEOUT: Stop.CELL_TIMEOUT,
    Timer.IDLE_TIMEOUT: Stop.IDLE_TIMEOUT,
}
"""The limits of a run and of a cell, by their timers."""


class Recalled(Enum):
    """The meaning of the answer to a recall."""

    NOTHING = auto()
    """The answer is late, or the kernel has not started the cell and will refuse it."""
    RUNNING = auto()
    """The cell runs and can be interrupted."""
    ENDED = auto()
    """The cell had ended before, and its reply is on the way."""


class Interruption:
    """Interrupts cells."""

    def __init__(self, timers: Timers, requests: Requests, routes: Routes) -> None:
        self._timers = timers
        self._requests = requests
        self._routes = routes
        self._recall = ""
        self._postponed: tuple[Stop, str] | None = None

    @staticmethod
    def applies(stop: Stop, cell: CellExecution) -> bool:
        """Return whether `stop` is a new reason to interrupt `cell`: the first one, or one with a higher rank."""
        return cell.stop is None or RANK.get(stop, 0) > RANK.get(cell.stop, 0)

    def start(self, cell: CellExecution, stop: Stop, reason: str, now: float, *, recalling: str = "") -> Effects:
        """Interrupt `cell`; `recalling` is its request if more cells were sent behind it."""
        is_first = cell.stop is None
        cell.stop, cell.stop_reason = stop, reason
        self._timers.drop(Timer.CELL_TIMEOUT, Timer.IDLE_TIMEOUT)
        if is_first or stop is Stop.SIGNAL:
            self._timers.set(Timer.ESCALATE, now, _grace(stop))
        if not is_first:
            return ()
        if recalling:
            self._timers.set(Timer.ESCALATE, now, RECALL_GRACE)
            request = agent.recall(self._requests, recalling)
            self._recall = request.id
            return (Send(request),)
        return self._interrupt(cell)

    def on_recall_reply(self, message: Message, cell: CellExecution | None) -> Recalled:
        """Return the meaning of the answer to a recall for the current `cell`."""
        if cell is None or cell.stop is None or cell.interrupts or message.parent_id != self._recall:
            return Recalled.NOTHING
        if message.content.get("state") == "unknown":
            return Recalled.NOTHING
        if message.content.get("state") != "ended":
            return Recalled.RUNNING
        self._postponed = (cell.stop, cell.stop_reason) if cell.stop in RANK else None
        cell.stop = None
        self._timers.drop(Timer.ESCALATE)
        return Recalled.ENDED

    def escalate(self, cell: CellExecution, now: float) -> Effects | None:
        """Interrupt `cell` again, because it has not ended, or return None if no further interrupt helps."""
        assert cell.stop is not None
        if cell.interrupts >= (1 if cell.stop is Stop.SIGNAL else 2):
            return None
        self._timers.set(Timer.ESCALATE, now, _grace(cell.stop))
        return self._interrupt(cell)

    def postpone(self, cell: CellExecution) -> None:
        """Postpone the interrupt to the next cell, because `cell` passed before it."""
        assert cell.stop is not None
        self._postponed = cell.stop, cell.stop_reason

    def postponed(self) -> tuple[Stop, str] | None:
        """Remove and return the postponed reason."""
        postponed, self._postponed = self._postponed, None
        return postponed

    def _interrupt(self, cell: CellExecution) -> Effects:
        """Interrupt and nudge: an ipykernel in an ``await`` notices an interrupt only at the next shell message."""
        cell.interrupts += 1
        return (InterruptKernel(), self._routes.send_aside(self._requests.kernel_info(), cell))


def _grace(stop: Stop) -> float:
    return SIGNAL_GRACE if stop is Stop.SIGNAL else INTERRUPT_GRACE
