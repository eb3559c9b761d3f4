"""Which cells wait, which are on their way to the kernel, and whose a message is.

One cell has its turn: it is the one that the run's state machine looks after. With a depth of 1 that is the only one
that was sent. With more, the next cells are sent *ahead*, each behind the one before it (:mod:`.guard`), and what
comes for them is *held* until they have their turn, so that the machine sees every message in the order in which it
would have come had the cells been sent one by one::

    waiting  7 8 9 ...  ->  ahead  4 5 6 (held: 4's busy, 4's output)  ->  turn  3  ->  done  0 1 2
                        <-  called back: the kernel did not run them, because 3 failed
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from nbrun.core.execution.cell import ABORTED, CellExecution
from nbrun.core.execution.effects import Send
from nbrun.core.planning.plan import CellPlan
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Message, Requests

LARGEST_FLIGHT = 2_000_000
"""Characters of code that may be on their way ahead of their turn."""


@dataclass(slots=True)
class Turn:
    """A cell that was sent ahead, and what has come for it; `held` gives each message with the time it came at."""

    plan: CellPlan
    request: str
    held: list[tuple[Message, float]] = field(default_factory=list)
    began_at: float | None = None
    """When the kernel said that it runs the cell."""
    is_doubtful: bool = False
    """The connection was cut while it was on its way."""


class Window:
    """The cells of a run on their way through the kernel."""

    def __init__(self, plans: Iterable[CellPlan], requests: Requests, depth: int) -> None:
        """Prepare for `plans`; a `depth` over 1 needs a kernel with the guard."""
        self._requests = requests
        self._depth = depth
        self._waiting = deque(plans)
        self._ahead: dict[str, Turn] = {}
        self._last = ""
        self._flying = 0
        self._asked_for: dict[str, CellExecution] = {}
        self._asides: dict[str, CellExecution] = {}
        self._idled: set[str] = set()
        self.total = len(self._waiting)

    # Cells ---------------------------------------------------------------------------------------------------------

    @property
    def has_ahead(self) -> bool:
        """Return whether any cell was sent ahead."""
        return bool(self._ahead)

    @property
    def next_began(self) -> bool:
        """Return whether the kernel has begun the cell after the one that has its turn."""
        return any(turn.began_at is not None for turn in self._ahead.values())

    def next_waiting(self) -> CellPlan | None:
        """Remove and return the next cell that has not been sent."""
        return self._waiting.popleft() if self._waiting else None

    def next_ahead(self) -> Turn | None:
        """Remove and return the next cell that was sent ahead."""
        if not self._ahead:
            return None
        turn = self._ahead.pop(next(iter(self._ahead)))
        self._flying -= len(turn.plan.source)
        return turn

    def ask(self, plan: CellPlan) -> Message:
        """Return the request for a cell that is sent when it has its turn."""
        return self._request(plan, "")

    def fill(self) -> list[Send]:
        """Send cells ahead, as many as the depth allows; one that has to be prepared waits for its turn."""
        sent = []
        while self._waiting and len(self._ahead) < self._depth - 1 and self._fits(self._waiting[0]):
            plan = self._waiting.popleft()
            request = self._request(plan, self._last)
            self._ahead[request.id] = Turn(plan, request.id)
            self._flying += len(plan.source)
            sent.append(Send(request))
        return sent

    def call_back(self) -> list[Turn]:
        """Let the cells that were sent ahead wait again, and return what came for them; the kernel refuses them."""
        turns = list(self._ahead.values())
        self._waiting.extendleft(turn.plan for turn in reversed(turns))
        self._ahead.clear()
        self._flying = 0
        return turns

    def close(self) -> None:
        """Send nothing more."""
        self._waiting.clear()
        self._depth = 1

    def _fits(self, plan: CellPlan) -> bool:
        return not plan.before and self._flying + len(plan.source) <= LARGEST_FLIGHT

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
        self._last = request.id
        return request

    # Messages ------------------------------------------------------------------------------------------------------

    def hold(self, message: Message, now: float) -> bool:
        """Keep a message for a cell that was sent ahead; False for any other message."""
        turn = self._ahead.get(message.parent_id)
        if turn is None:
            return False
        ran = message.type == "execute_reply" and message.content.get("status") not in ABORTED
        if turn.began_at is None and (ran or message.type == "execute_input"):
            turn.began_at = now
        turn.held.append((message, now))
        return True

    def doubt(self) -> None:
        """Say that what is on its way may be lost."""
        for turn in self._ahead.values():
            turn.is_doubtful = True

    def expect(self, request: str, cell: CellExecution) -> None:
        """Say that what names a request as its parent is for a cell."""
        self._asked_for[request] = cell

    def expect_aside(self, request: str, cell: CellExecution) -> None:
        """Say that output which names a request as its parent is a cell's, though the cell did not ask.

        ipykernel names the request that came last as the parent of what late writers of a cell put out.
        """
        self._asides[request] = cell

    def cell_of(self, message: Message) -> CellExecution | None:
        """Return the cell whose execution a message is about."""
        return self._asked_for.get(message.parent_id)

    def owner_of(self, message: Message) -> CellExecution | None:
        """Return the cell whose output a message would be."""
        return self._asked_for.get(message.parent_id) or self._asides.get(message.parent_id)

    def ends_cell(self, message: Message) -> bool:
        """Return whether an idle that names a question as its parent is that of the cell which runs.

        Some kernels (ILua) know one parent only, that of the request that came last: a question of the server's that
        meets a cell has the idle of its own, and then the cell's.
        """
        if message.content.get("execution_state") != "idle":
            return False
        known = message.parent_id in self._idled
        self._idled.add(message.parent_id)
        return known
