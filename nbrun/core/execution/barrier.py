"""Recover when a cell's reply or idle status is missing: a second request shows what is lost.

A kernel answers the requests of a channel in order, and its iopub messages arrive in the order in which they were sent.
So a ``kernel_info_request`` that follows a cell is a *barrier*. Its reply can only arrive after the cell's reply, and
its busy status only after the cell's idle status. What has not arrived by then is lost.

A barrier on the control channel follows a cell that somebody else interrupted. A server interrupts a kernel before it
requests its shutdown or restart there. So the barrier is answered only by a kernel that was not shut down.

A barrier belongs to one cell. An answer to the barrier of an earlier cell is ignored.
"""

from nbrun.core.execution.cell import CellExecution, State
from nbrun.core.execution.effects import Effects, ProbeKernel, Timer, Timers
from nbrun.core.execution.pipelining import Routes
from nbrun.core.protocol.messages import Channel, Message, Requests

BARRIER_AFTER = 2.0
"""Seconds to wait for the second of reply and idle before a barrier is sent."""
BARRIER_LIMIT = 10.0
"""Seconds to wait for the barrier's answer before the server is asked whether the kernel still exists."""
BARRIER_GRACE = 5.0
"""Seconds of silence after the barrier's reply until its iopub messages are complete. They use another socket."""


class Barrier:
    """The barrier of the current cell: not sent, sent, or answered. If it is sent twice, any answer counts."""

    def __init__(self, timers: Timers, requests: Requests, routes: Routes) -> None:
        self._timers = timers
        self._requests = requests
        self._routes = routes
        self._sent: set[str] = set()
        self._is_answered = False

    @property
    def is_sent(self) -> bool:
        """Return whether the barrier of the current cell is sent."""
        return bool(self._sent)

    def reset(self) -> None:
        """Remove the barrier, because the cell has ended or starts again."""
        self._sent = set()
        self._is_answered = False

    def expect_other_sign(self, now: float) -> None:
        """Start the timer of the barrier, because one of reply and idle has arrived and the other has not."""
        self._timers.set(Timer.BARRIER, now, BARRIER_AFTER)

    def send(self, cell: CellExecution, now: float, channel: Channel = Channel.SHELL) -> Effects:
        """Send the barrier after `cell`."""
        self._timers.set(Timer.BARRIER, now, BARRIER_LIMIT)
        request = self._requests.kernel_info(channel)
        self._sent.add(request.id)
        return (self._routes.send_aside(request, cell),)

    def is_answered_by(self, message: Message) -> bool:
        """Return whether a message, a reply or a status, answers the barrier."""
        return message.parent_id in self._sent

    def on_reply(self, now: float) -> None:
        """Record the barrier's reply: the cell's reply is lost, but its idle may still arrive."""
        self._is_answered = True
        self._timers.set(Timer.BARRIER, now, BARRIER_GRACE)

    def on_overdue(self, cell: CellExecution, now: float, *, late_output_at: float, next_began: bool) -> Effects | None:
        """Return the effects when the barrier or its answer is due, or None if no reply or idle of `cell` can arrive.

        `late_output_at` is the arrival time of the last output that is older than the cell's reply. `next_began` is
        true if the kernel has started the next cell.
        """
        is_replied = cell.state is State.REPLIED
        if not self._sent:
            return self.send(cell, now)
        if is_replied and now - late_output_at < BARRIER_GRACE:
            # Outputs still arrive, long after the replies, and the cell's idle follows them.
            return self.send(cell, now)
        if self._is_answered or is_replied or cell.state is State.DONE or next_began:
            return None
        # The cell may still run, so that the barrier waits in the kernel's queue, or the kernel is gone.
        self._timers.set(Timer.BARRIER, now, BARRIER_LIMIT)
        return (ProbeKernel(),)
