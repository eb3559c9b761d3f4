"""Pipelining: cells that are sent ahead, and the cell that a message belongs to.

The state machine executes one *current* cell. With a depth of 1, no other cell is sent. With a greater depth the next
cells are sent *ahead*, each on the condition that the cell before it passes (:mod:`nbrun.kernel_side.agent`). Messages
of a cell that was sent ahead are *held* in its slot until it becomes current. So the state machine receives all
messages in the same order as without pipelining::

    waiting  7 8 9 ...  ->  sent ahead  4 5 6 (held: 4's busy, 4's output)  ->  current  3  ->  done  0 1 2
                        <-  taken back: the kernel did not run them, because 3 failed

A kernel whose agent executes *lists* gets many cells in one request, and new ones when half of those are done. For
everything else, each of them is a request of its own.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct, field

from nbrun.core.execution.cell import ABORTED, CellExecution
from nbrun.core.execution.effects import Send
from nbrun.core.planning.plan import CellPlan
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Message, Requests

MOST_SENT_AHEAD = 2_000_000
"""Maximum characters of code that may be sent ahead at a time."""


class Pipelining(Struct, frozen=True):
    """How cells are sent.

    Up to ``depth`` cells may be in progress at a time; more than 1 requires an agent that executes on conditions. If
    ``in_lists`` is true, one request carries many cells, which requires an agent that executes lists. After
    ``list_limit`` seconds the kernel starts no more cells of a list.
    """

    depth: int = 1
    in_lists: bool = False
    list_limit: float | None = None


ONE_BY_ONE = Pipelining()
"""Each cell is sent after the previous one has ended."""


class Slot(Struct):
    """A cell that was sent ahead, and its held messages with their times of arrival."""

    plan: CellPlan
    request: str
    held: list[tuple[Message, float]] = field(default_factory=list)
    began_at: float | None = None
    """The time at which the kernel reported that it runs the cell."""
    is_doubtful: bool = False
    """Whether the connection was cut while the cell was on its way."""


class CellQueue:
    """The cells of a run that wait or were sent ahead."""

    def __init__(self, plans: Iterable[CellPlan], requests: Requests, pipelining: Pipelining) -> None:
        """Prepare for `plans`."""
        self._requests = requests
        self._depth = pipelining.depth
        self._pipelining = pipelining
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
    def is_waiting(self) -> bool:
        """Return whether any cell has not been sent."""
        return bool(self._waiting)

    @property
    def next_began(self) -> bool:
        """Return whether the kernel has started the cell after the current one."""
        return any(slot.began_at is not None for slot in self._ahead.values())

    def is_ahead(self, request: str | None) -> bool:
        """Return whether a cell was sent ahead with this request."""
        return request in self._ahead

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
        """Return the request for a cell that becomes current when it is sent."""
        return self._request(plan, "")

    def send_ahead(self) -> list[Send]:
        """Send cells ahead, as many as the depth allows. A cell that needs preparation is not sent ahead."""
        requests: list[Message] = []
        if self._pipelining.in_lists and len(self._ahead) > self._depth // 2:
            return []  # few long lists rather than many short ones
        while self._waiting and len(self._ahead) < self._depth - 1 and self._fits(self._waiting[0]):
            plan = self._waiting.popleft()
            request = self._request(plan, self._last_request)
            self._ahead[request.id] = Slot(plan, request.id)
            self._characters_ahead += len(plan.source)
            requests.append(request)
        if requests and self._pipelining.in_lists:
            requests = [agent.execute_list(self._requests, requests, self._pipelining.list_limit)]
        return [Send(request) for request in requests]

    def take_back(self) -> list[Slot]:
        """Let the cells that were sent ahead wait again, because the kernel refuses them; return their slots."""
        slots = list(self._ahead.values())
        self._waiting.extendleft(slot.plan for slot in reversed(slots))
        self._ahead.clear()
        self._characters_ahead = 0
        return slots

    def close(self) -> None:
        """Send no further cells."""
        self._waiting.clear()
        self._depth = 1

    def hold(self, message: Message, now: float) -> bool:
        """Hold a message for a cell that was sent ahead; return False for any other message."""
        slot = self._ahead.get(message.parent_id)
        if slot is None:
            return False
        ran = message.type == "execute_reply" and message.content.get("status") not in ABORTED
        if slot.began_at is None and (ran or message.type == "execute_input"):
            slot.began_at = now
        slot.held.append((message, now))
        return True

    def mark_doubtful(self) -> None:
        """Record that the connection was cut: cells that were sent ahead, and their messages, may be lost."""
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
    """Assigns messages to cells by the request that is their parent."""

    def __init__(self) -> None:
        self._executed: dict[str, CellExecution] = {}
        self._asides: dict[str, CellExecution] = {}
        self._idled: set[str] = set()

    def add(self, request: str, cell: CellExecution) -> None:
        """Assign the messages of a request that executes `cell`."""
        self._executed[request] = cell

    def add_aside(self, request: str, cell: CellExecution) -> None:
        """Assign the output of a request that does not execute a cell to `cell`, the newest when it was sent.

        ipykernel uses the latest request as the parent of output that threads of a cell write late.
        """
        self._executed.pop(request, None)
        self._asides[request] = cell

    def send_aside(self, request: Message, cell: CellExecution) -> Send:
        """Send a request that does not execute a cell, and assign its output."""
        self.add_aside(request.id, cell)
        return Send(request)

    def cell_of(self, message: Message) -> CellExecution | None:
        """Return the cell whose execution caused a message."""
        return self._executed.get(message.parent_id)

    def owner_of(self, message: Message) -> CellExecution | None:
        """Return the cell that an output in this message belongs to."""
        return self._executed.get(message.parent_id) or self._asides.get(message.parent_id)

    def forget_server(self) -> None:
        """Forget the requests of the server, because it uses their ids again after a reconnection."""
        self._idled.clear()

    def ends_cell(self, message: Message) -> bool:
        """Return whether an idle whose parent is a request of the server is that of the current cell.

        Some kernels (ILua) know only one parent, that of the latest request. A request of the server during a cell is
        followed by its own idle, and then by the cell's with the same parent.
        """
        if message.content.get("execution_state") != "idle":
            return False
        is_known = message.parent_id in self._idled
        self._idled.add(message.parent_id)
        return is_known
