"""The execution of one code cell, from the request to the verdict.

======== ============================ ============================
state    ``execute_reply`` arrives    status ``idle`` arrives
======== ============================ ============================
SENT     REPLIED                      IDLED
REPLIED  --                           DONE
IDLED    DONE                         --
======== ============================ ============================

Reply and idle status arrive on different sockets, in either order, and either can be lost. A barrier (:mod:`.barrier`)
detects the loss, and :meth:`CellExecution.settle` then ends the cell.

The reply decides the verdict. A missing ``error`` output proves nothing: it can be lost, and some kernels only print
their errors. One rule is papermill's: if the reply is ok and the cell's outputs contain an ``error``, the cell failed.
This happens with ``%run`` of a script that exits with 2, a nested ``run_cell`` and ``showtraceback()``. A
``SystemExit`` with code 0 is a success in outputs, too.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from nbrun.core.delivery.loss_detection import Stretch
from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.formats.json_text import as_object
from nbrun.core.outputs.area import OutputArea
from nbrun.core.outputs.mimebundle import count, display_output, error_output, text
from nbrun.core.planning.plan import CellPlan
from nbrun.core.protocol.messages import Message, traceback_lines
from nbrun.core.results import CellError, CellOutcome, CellResult


class State(Enum):
    """The state of a cell, see the table above."""

    SENT = "sent"
    REPLIED = "replied"
    IDLED = "idled"
    DONE = "done"


class Sign(Enum):
    """The two messages that together complete a cell."""

    REPLY = "execute_reply"
    IDLE = "idle"


_NEXT = {
    (State.SENT, Sign.REPLY): State.REPLIED,
    (State.SENT, Sign.IDLE): State.IDLED,
    (State.REPLIED, Sign.IDLE): State.DONE,
    (State.IDLED, Sign.REPLY): State.DONE,
}


class Stop(Enum):
    """Why nbrun interrupted a cell."""

    CELL_TIMEOUT = "CellTimeout"
    IDLE_TIMEOUT = "IdleTimeout"
    RUN_TIMEOUT = "RunTimeout"
    SIGNAL = "Interrupted"
    INPUT = "InputRequested"


_FRAME = frozenset({"busy", "execute_input", "idle"})
RANK = {Stop.RUN_TIMEOUT: 1, Stop.SIGNAL: 2}
"""Reasons that end the whole run. They replace a reason that ends only the cell."""
TIMEOUTS = (Stop.CELL_TIMEOUT, Stop.IDLE_TIMEOUT, Stop.RUN_TIMEOUT)
ABORTED = ("aborted", "abort")
"""Statuses of an aborted reply: ``aborted`` in protocol 5.1, ``abort`` in tslab, IRkernel and bash_kernel."""
_SUCCESSFUL_EXITS = ("", "0", "None")
STDERR_LINES = 60
"""Maximum lines of standard error that are stored with an error without a traceback."""


class CellExecution(Struct):
    """A cell that was sent. Times are seconds on the caller's clock."""

    plan: CellPlan
    area: OutputArea
    number: int
    sent_at: float
    state: State = State.SENT
    reply: Message | None = None
    execution_count: int | None = None
    timing: dict[str, str] = field(default_factory=dict)
    ended_at: float | None = None
    attempts: int = 1
    ahead: bool = False
    """Whether it was sent before it became current, on the condition that the cell before it passes."""
    stop: Stop | None = None
    stop_reason: str = ""
    interrupts: int = 0
    notices: int = 0
    """The number of the server's notices that it dropped output of this cell."""
    stretch: Stretch | None = None
    """The kernel's sequence numbers while the cell ran, if the kernel numbers its messages."""
    unsent: int = 0
    """The numbers that the kernel used without sending a message, as it reported at the end."""
    seen: set[str] = field(default_factory=set)
    """The messages around a cell's outputs that have arrived: busy, execute_input, idle."""
    outcome: CellOutcome | None = None
    error: CellError | None = None
    stale: Collection[tuple[str, ...]] = ()
    """Tracebacks of earlier cells. ipykernel repeats the last one for an error without a traceback."""

    def on_status(self, message: Message) -> bool:
        """Handle a busy or idle status of this cell; return whether it completed the cell."""
        state = message.content.get("execution_state")
        if state in ("busy", "idle"):
            self.seen.add(str(state))
            self._note_time(f"iopub.status.{state}", message.date)
        return state == "idle" and self._advance(Sign.IDLE)

    def on_execute_input(self, message: Message) -> None:
        """Handle the kernel's execute_input, whose execution count is shown to the user."""
        self.seen.add("execute_input")
        self.execution_count = count(message.content.get("execution_count"))
        self._note_time("iopub.execute_input", message.date)

    def on_reply(self, message: Message) -> bool:
        """Handle the execute_reply; return whether it completed the cell."""
        if self.reply is not None:
            return False
        self.reply = message
        if self.execution_count is None and not self.aborted:
            self.execution_count = count(message.content.get("execution_count"))
        self._note_time("shell.execute_reply.started", text(message.metadata.get("started")))
        self._note_time("shell.execute_reply", message.date)
        return self._advance(Sign.REPLY)

    def _advance(self, sign: Sign) -> bool:
        self.state = _NEXT.get((self.state, sign), self.state)
        return self.state is State.DONE

    def _note_time(self, key: str, date: str) -> None:
        if date:
            self.timing[key] = date

    @property
    def aborted(self) -> bool:
        """Return whether the kernel aborted the cell, or did not run it because an earlier request failed."""
        return self.reply is not None and self.reply.content.get("status") in ABORTED

    @property
    def never_ran(self) -> bool:
        """Return whether the kernel did not start the cell: aborted, no execute_input and no output.

        Output for a cell that was sent ahead comes from a thread of the previous cell.
        """
        return self.aborted and self.execution_count is None and (self.ahead or not self.area.render())

    @property
    def asks_exit(self) -> bool:
        """Return whether the cell called ``exit()``: the kernel replies ok and ends a moment later."""
        return any(not payload.get("keepkernel") for payload in self._payloads("ask_exit"))

    @property
    def asks_new_input(self) -> bool:
        """Return whether the cell requests a new cell in the notebook, as ``%load`` does."""
        return bool(self._payloads("set_next_input"))

    def _payloads(self, source: str) -> list[dict[str, Any]]:
        payload = self.reply.content.get("payload") if self.reply else None
        entries = [as_object(entry) for entry in payload] if isinstance(payload, list) else []
        return [entry for entry in entries if entry.get("source") == source]

    @property
    def is_over(self) -> bool:
        """Return whether the kernel reached the end of the cell."""
        return self.outcome in (CellOutcome.PASSED, CellOutcome.FAILED)

    @property
    def _replied_ok(self) -> bool:
        return self.reply is not None and self.reply.content.get("status") == "ok"

    @property
    def exited_well(self) -> bool:
        """Return whether the cell ended the notebook deliberately, by ``sys.exit()`` or ``sys.exit(0)``."""
        error = self._reply_error()
        return error is not None and _is_success(error.ename, error.evalue)

    @property
    def ended_by_foreign_interrupt(self) -> bool:
        """Return whether the cell raised the exception of an interrupt that nbrun did not request."""
        error = self._reply_error()
        return self.stop is None and error is not None and error.ename == "KeyboardInterrupt"

    def start_again(self) -> None:
        """Return to the initial state, because the kernel reported that it did not run the request."""
        self.attempts += 1
        self.ahead = False
        self.state = State.SENT
        self.reply = None
        self.seen.clear()

    def stopped(self) -> tuple[CellOutcome, CellError]:
        """Return outcome and error of a cell that nbrun interrupted."""
        assert self.stop is not None
        error = self._reply_error()
        return _STOPPED[self.stop], CellError(self.stop.value, self.stop_reason, error.traceback if error else ())

    def review(self) -> None:
        """Correct the verdict, because a thread may have shown or cleared an error after the cell ended."""
        if self.is_over and self.stop is None and (self.exited_well or self._replied_ok):
            self.outcome, self.error = self._verdict()

    def settle(
        self, now: float, outcome: CellOutcome | None = None, error: CellError | None = None, *, shown: bool = True
    ) -> None:
        """End the cell by its reply, or with the given outcome and error if the reply is lost.

        If no ``error`` message arrived, the error is added to the outputs, unless it is not to be `shown`.
        """
        self.state = State.DONE
        self.ended_at = now
        if outcome is None:
            self.outcome, self.error = self._verdict()
            for page in self._payloads("page")[:1]:
                # JupyterLab shows the pager text of `obj?` below the cell.
                self.area.append(display_output(as_object(page.get("data"))))
        else:
            self.outcome, self.error = outcome, error
        if shown and self.error and not self.area.errors and (self.error.traceback or self.reply is None):
            self.area.append(error_output(self.error.as_dict()))

    def incomplete(self) -> Incomplete | None:
        """Return what is missing of the cell's outputs, or None if nothing is known to be missing.

        Only a cell that reached its end is checked. The outcome of other cells says enough. A cell can pass without a
        reply, if the kernel has started the next one.
        """
        if (self.reply is None and self.outcome is not CellOutcome.PASSED) or self.state is not State.DONE:
            return None
        missing = self._missing()
        idle_lost = "idle" not in self.seen
        error_lost = self.error is not None and not self.area.errors and bool(self.error.traceback)
        causes = [Cause.RATE_LIMIT] * bool(self.notices) + [Cause.MISSING_MESSAGES] * bool(missing)
        causes += [Cause.IDLE_LOST] * idle_lost
        if not causes:
            return None
        causes += [Cause.ERROR_LOST] * error_lost
        return Incomplete(tuple(causes), missing, exact=self.stretch is not None and self.stretch.alone)

    def _missing(self) -> int | None:
        """Return the number of missing outputs, or None for a kernel that does not number its messages."""
        if self.stretch is None:
            return None
        return max(self.stretch.missing - len(_FRAME - self.seen) - self.unsent, 0)

    def result(self) -> CellResult:
        """Return the result of the cell. A cell that is still running is reported as interrupted."""
        seconds = None if self.ended_at is None else self.ended_at - self.sent_at
        outcome = self.outcome or CellOutcome.INTERRUPTED
        return CellResult(
            self.plan.index,
            self.plan.id,
            outcome,
            None if outcome is CellOutcome.NOT_RUN else self.execution_count,
            seconds,
            self._described_error(),
            self.incomplete(),
            self.area.truncated,
            number=self.number,
            allowed=outcome is CellOutcome.FAILED and self.reply is not None and self.plan.allows_error,
        )

    def _described_error(self) -> CellError | None:
        """Return the error. If it has no traceback, the end of standard error is added."""
        error = self.error
        if error is None or error.traceback:
            return error
        return replace(error, stderr=self.area.end_of_stderr(STDERR_LINES))

    def _verdict(self) -> tuple[CellOutcome, CellError | None]:
        error = self._reply_error()
        shown = self._shown_error() if error is None or self.exited_well else None
        if self.never_ran and self.ahead and self.stop is Stop.SIGNAL:
            return CellOutcome.NOT_RUN, None
        failed = error or shown or self.aborted or self.reply is None
        if self.stop is not None and (failed or self.stop in TIMEOUTS):
            return self.stopped()
        if self.reply is None:
            lost = CellError("ReplyLost", "the kernel's reply was lost; whether the cell succeeded is not known")
            return CellOutcome.FAILED, lost
        if self.never_ran:
            return CellOutcome.NOT_RUN, None
        if self.aborted:
            return CellOutcome.FAILED, CellError("Aborted", "the kernel broke the cell off")
        if shown is None and (error is None or self.exited_well):
            return CellOutcome.PASSED, None
        error = shown or error
        return (CellOutcome.PASSED if self.plan.expects_error else CellOutcome.FAILED), error

    def tracebacks(self) -> Iterator[tuple[str, ...]]:
        """Return the tracebacks that the kernel sent for the cell."""
        sent: list[Mapping[str, Any]] = [self.reply.content] if self.reply else []
        sent += self.area.shown_errors()
        return (tuple(traceback_lines(each["traceback"])) for each in sent if each.get("traceback"))

    def _reply_error(self) -> CellError | None:
        content: Mapping[str, Any] = self.reply.content if self.reply else {"status": "ok"}
        if content.get("status") == "ok" or self.aborted:
            return None
        lines = traceback_lines(content.get("traceback"))
        ename, evalue = text(content.get("ename")), text(content.get("evalue"))
        if tuple(lines) in self.stale and not self.area.errors:
            if ename == _NOTHING_RAISED:
                return None  # ipykernel 7 reports the failed representation of an earlier cell again
            lines = []
        if ename == _NOTHING_RAISED:
            for shown in reversed(self.area.shown_errors()):
                return CellError(shown["ename"], shown["evalue"], shown["traceback"])
        return CellError(ename, evalue, lines)

    def _shown_error(self) -> CellError | None:
        """Return the first error in the outputs that is not a successful exit."""
        for shown in self.area.shown_errors():
            if not _is_success(shown["ename"], shown["evalue"]):
                return CellError(shown["ename"], shown["evalue"], shown["traceback"], shown=True)
        return None


def _is_success(ename: str, evalue: str) -> bool:
    """Return whether an error is ``sys.exit()`` or ``sys.exit(0)``."""
    return ename == "SystemExit" and evalue in _SUCCESSFUL_EXITS


_NOTHING_RAISED = "NoneType"
"""The error name in ipykernel's reply if the representation of a result failed.

The ``error`` message has the real name.
"""

_STOPPED = {
    Stop.CELL_TIMEOUT: CellOutcome.TIMED_OUT,
    Stop.IDLE_TIMEOUT: CellOutcome.TIMED_OUT,
    Stop.RUN_TIMEOUT: CellOutcome.TIMED_OUT,
    Stop.SIGNAL: CellOutcome.INTERRUPTED,
    Stop.INPUT: CellOutcome.FAILED,
}
