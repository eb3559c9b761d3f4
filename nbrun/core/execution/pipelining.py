"""Pipelining: cells that are sent ahead, and the cell that a message belongs to.

The state machine executes one *current* cell. With a depth of 1, no other cell is sent. With a greater depth the next
cells are sent *ahead*, each on the condition that the cell before it passes (:mod:`nbrun.kernel_side.agent`). Messages
of a cell that was sent ahead are *held* in its slot until it becomes current. So the state machine receives all
messages in the same order as without pipelining::

    waiting  7 8 9 ...  ->  sent ahead  4 5 6 (held: 4's busy, 4's output)  ->  current  3  ->  done  0 1 2
                        <-  taken back: the kernel did not run them, because 3 failed
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from nbrun.core.execution.cell import ABORTED, CellExecution
from nbrun.core.execution.effects import Send
from nbrun.core.planning.plan import CellPlan
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Message, Requests

MOST_SENT_AHEAD = 2_000_000
"""Characters of code that may be sent ahead at a time."""


@dataclass(slots=True)
class Slot:
    """A cell that was sent ahead, and the messages held for it, each with the time at which it came."""

    plan: CellPlan
    request: str
    held: list[tuple[Message, float]] = field(default_factory=list)
    began_at: float | None = None
    """When the kernel said that it runs the cell."""
    is_doubtful: bool = False
    """The connection was cut while the cell was on its way."""


class CellQueue:
    """The cells of a run: those that wait, and those that were sent ahead."""

    def __init__(self, plans: Iterable[CellPlan], requests: Requests, depth: int) -> None:
        """Prepare for `plans`; a `depth` over 1 needs a kernel that knows conditional execution."""
        self._requests = requests
        self._depth = depth
        self._waiting = deque(plans)
        self._ahead: dict[str, Slot] = {}
        self._last_request = ""
        self._characters_ahead = 0
        self.total = len(self._waiting)

    @property
    def has_ahead(self) -> bool:
        """Return whether any cell was sent ahead."""
        return bool(self._ahead)

    @property
    def next_began(self) -> bool:
        """Return whether the kernel has begun the cell after the current one."""
        return any(slot.began_at is not None for slot in self._ahead.values())

    def pop_waiting(self) -> CellPlan | None:
        """Remove and return the next cell that has not been sent."""
        return self._waiting.popleft() if self._waiting else None

    def pop_ahead(self) -> Slot | None:
        """Remove and return the next cell that was sent ahead."""
        if not self._ahead:
            return None
        slot = self._ahead.pop(next(iter(self._ahead)))
        self._characters_ahead -= len(slot.plan.source)
        return slot

    def request_for(self, plan: CellPlan) -> Message:
        """Return the request for a cell that becomes current as it is sent."""
        return self._request(plan, "")

    def send_ahead(self) -> list[Send]:
        """Send cells ahead, as many as the depth allows; a cell that has to be prepared is not sent ahead."""
        sent = []
        while self._waiting and len(self._ahead) < self._depth - 1 and self._fits(self._waiting[0]):
            plan = self._waiting.popleft()
            request = self._request(plan, self._last_request)
            self._ahead[request.id] = Slot(plan, request.id)
            self._characters_ahead += len(plan.source)
            sent.append(Send(request))
        return sent

    def take_back(self) -> list[Slot]:
        """Let the cells that were sent ahead wait again, and return their slots; the kernel refuses to run them."""
        slots = list(self._ahead.values())
        self._waiting.extendleft(slot.plan for slot in reversed(slots))
        self._ahead.clear()
        self._characters_ahead = 0
        return slots

    def close(self) -> None:
        """Send nothing more."""
        self._waiting.clear()
        self._depth = 1

    def hold(self, message: Message, now: float) -> bool:
        """Hold a message for a cell that was sent ahead; False for any other message."""
        slot = self._ahead.get(message.parent_id)
        if slot is None:
            return False
        ran = message.type == "execute_reply" and message.content.get("status") not in ABORTED
        if slot.began_at is None and (ran or message.type == "execute_input"):
            slot.began_at = now
        slot.held.append((message, now))
        return True

    def mark_doubtful(self) -> None:
        """Note that the connection was cut: what was sent ahead, and its messages, may be lost."""
        for slot in self._ahead.values():
            slot.is_doubtful = True

    def _fits(self, plan: CellPlan) -> bool:
        return not plan.before and self._characters_ahead + len(plan.source) <= MOST_SENT_AHEAD

    def _request(self, plan: CellPlan, after: str) -> Message:
        metadata = {"cellId": plan.id} if plan.id else {}
        if after:
            metadata["nbrun_after"] = after
        request = self._requests.execute(
            plan.source,
            stop_on_error=not (plan.expects_error or plan.allows_error),
            metadata=metadata,
            kind=CONDITIONAL_EXECUTE if self._depth > 1 else "execute_request",
        )
        self._last_request = request.id
        return request


class Routes:
    """Which cell a message belongs to, by the request that it names as its parent."""

    def __init__(self) -> None:
        self._executed: dict[str, CellExecution] = {}
        self._asides: dict[str, CellExecution] = {}
        self._idled: set[str] = set()

    def add(self, request: str, cell: CellExecution) -> None:
        """Route the messages of a request that executes `cell`."""
        self._executed[request] = cell

    def add_aside(self, request: str, cell: CellExecution) -> None:
        """Route the output of a request that does not execute a cell to `cell`, the newest when it was sent.

        ipykernel names the request that came last as the parent of what late writers of a cell put out.
        """
        self._asides[request] = cell

    def send_aside(self, request: Message, cell: CellExecution) -> Send:
        """Send a request that does not execute a cell, and route it."""
        self.add_aside(request.id, cell)
        return Send(request)

    def cell_of(self, message: Message) -> CellExecution | None:
        """Return the cell whose execution a message is about."""
        return self._executed.get(message.parent_id)

    def owner_of(self, message: Message) -> CellExecution | None:
        """Return the cell whose output a message would be."""
        return self._executed.get(message.parent_id) or self._asides.get(message.parent_id)

    def ends_cell(self, message: Message) -> bool:
        """Return whether an idle that names an aside of the server as its parent is that of the current cell.

        Some kernels (ILua) know one parent only, that of the request that came last: a request of the server that
        arrives while a cell runs has the idle of its own, and then the cell's.
        """
        if message.content.get("execution_state") != "idle":
            return False
        is_known = message.parent_id in self._idled
        self._idled.add(message.parent_id)
        return is_known
