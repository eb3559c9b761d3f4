"""A made-up conversation between a run and its kernel, for what no real kernel does when it is asked to.

The kernel's side is spoken by the test, word by word; the run's side is the real state machine. Time is a number that
the test moves.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from nbrun.core.events import Event
from nbrun.core.execution.effects import Effect, Effects, InterruptKernel, ProbeKernel, Send
from nbrun.core.execution.machine import Execution
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.protocol.messages import Channel, Message, Requests
from nbrun.core.results import CellOutcome, Outcome

OURS = "our-session"
KERNEL = "kernel-session"
STRANGER = "another-session"


def message(
    kind: str,
    content: dict[str, Any] | None = None,
    *,
    parent: str = "",
    channel: str = Channel.IOPUB,
    session: str = KERNEL,
    metadata: dict[str, Any] | None = None,
    date: str = "2026-01-02T03:04:05Z",
) -> Message:
    """Return a message as a kernel sends it."""
    header = {"msg_id": "x", "msg_type": kind, "session": session, "date": date}
    return Message(channel, header, {"msg_id": parent} if parent else {}, content or {}, metadata or {})


def cell(source: str = "pass", **options: Any) -> dict[str, Any]:
    """Return one cell of a plan, without its position."""
    return {"source": source, "action": Action.RUN, **options}


class Conversation:
    """A run of some cells, begun at second 0."""

    def __init__(
        self,
        *cells: str | dict[str, Any],
        run_timeout: float | None = None,
        kernel_session: str | None = KERNEL,
        observe: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> None:
        self.now = 0.0
        self.wanted: list[Effect] = []
        described = [cell(each) if isinstance(each, str) else each for each in cells or ("pass",)]
        plans = [CellPlan(index, **{"id": f"id{index}", **each}) for index, each in enumerate(described)]
        self.run = Execution(
            Plan(plans, run_timeout), Requests(OURS), kernel_session=kernel_session, observe=observe, **options
        )
        self._take(self.run.start(0.0))

    def _take(self, effects: Effects) -> Effects:
        self.wanted += effects
        return effects

    # What the run did ----------------------------------------------------------------------------------------------

    def requests(self, kind: str) -> list[Message]:
        """Return the requests of a type that were sent so far."""
        return [e.message for e in self.wanted if isinstance(e, Send) and e.message.type == kind]

    @property
    def request(self) -> str:
        """Return the id of the execute_request that was sent last."""
        return self.requests("execute_request")[-1].id

    @property
    def barrier(self) -> str:
        """Return the id of the kernel_info_request that was sent last."""
        return self.requests("kernel_info_request")[-1].id

    @property
    def sources(self) -> list[str]:
        """Return the code that was sent so far."""
        return [str(request.content["code"]) for request in self.requests("execute_request")]

    @property
    def interrupts(self) -> int:
        """Count the interrupts that were asked for."""
        return sum(isinstance(effect, InterruptKernel) for effect in self.wanted)

    @property
    def probes(self) -> int:
        """Count how often the kernel was to be looked for."""
        return sum(isinstance(effect, ProbeKernel) for effect in self.wanted)

    def outcome(self) -> Outcome | None:
        """Return the outcome of the run, None while it goes on."""
        return self.run.ending.outcome if self.run.ending else None

    @property
    def problem(self) -> str:
        """Return what the ended run complains of."""
        assert self.run.ending is not None
        return self.run.ending.problem.message if self.run.ending.problem else ""

    def outcomes(self) -> list[CellOutcome]:
        """Return the outcome of each cell."""
        return [result.outcome for result in self.run.results()]

    def outputs(self, index: int = 0) -> list[dict[str, Any]]:
        """Return the outputs of a cell."""
        return self.run.cells[index].area.render()

    # What happens --------------------------------------------------------------------------------------------------

    def hear(self, what: Message) -> Effects:
        """Let a message arrive now."""
        return self._take(self.run.receive(what, self.now))

    def until(self, now: float) -> None:
        """Let time pass; the timers that expire meanwhile do so at their own time."""
        while (deadline := self.run.deadline) is not None and deadline <= now:
            self._take(self.run.tick(deadline))
        self.now = now

    def numbered(
        self, number: int, kind: str, content: dict[str, Any], *, parent: str | None = None, **options: Any
    ) -> Effects:
        """Let a message about the running cell arrive that bears one of the kernel's numbers."""
        said = message(kind, content, parent=parent or self.request, **options)
        return self.hear(replace(said, header={**said.header, "msg_id": f"{KERNEL}_77_{number}"}))

    def status(self, state: str, parent: str | None = None) -> Effects:
        """Let the kernel say that it is busy or idle, with the running cell unless another request is named."""
        return self.hear(message("status", {"execution_state": state}, parent=parent or self.request))

    def reply(self, status: str = "ok", *, parent: str | None = None, **content: Any) -> Effects:
        """Let the execute_reply of the running cell arrive."""
        content = {"status": status, **content}
        return self.hear(message("execute_reply", content, parent=parent or self.request, channel=Channel.SHELL))

    def fail(self, ename: str = "ValueError", evalue: str = "bad", traceback: Sequence[str] = ("line",)) -> Effects:
        """Let the execute_reply of the running cell be an error."""
        return self.reply("error", ename=ename, evalue=evalue, traceback=list(traceback))

    def barrier_reply(self, barrier: str | None = None) -> Effects:
        """Let the reply to the last kernel_info_request arrive."""
        return self.hear(message("kernel_info_reply", {}, parent=barrier or self.barrier, channel=Channel.SHELL))

    def stream(self, text: str, parent: str | None = None, **header: Any) -> Effects:
        """Let the running cell print."""
        return self.hear(message("stream", {"name": "stdout", "text": text}, parent=parent or self.request, **header))

    def complete(self, **reply: Any) -> None:
        """Let the running cell pass."""
        self.reply(**reply)
        self.status("idle")

    def interrupt(self, reason: str = "interrupted by Ctrl-C") -> None:
        """Let the user press Ctrl-C."""
        self._take(self.run.interrupt(self.now, reason))

    def reconnected(self, *, nudged: bool = True) -> None:
        """Let the websocket come back."""
        self._take(self.run.reconnected(self.now, nudged=nudged))

    def probed(self, *, alive: bool) -> None:
        """Let the server answer whether the kernel is there."""
        self._take(self.run.probed(self.now, alive=alive))
