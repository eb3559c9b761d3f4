"""Choose whether cells are sent one by one, ahead or in lists (``--pipeline``).

Cells that are sent ahead hide the round trip to a far server. A list of cells saves a kernel most of its work for a
request. Both need a kernel whose agent executes cells on a condition (:mod:`nbrun.kernel_side.agent`). So the same
cells run as if nbrun waited for each reply.
"""

import contextlib
import mmap
import os
import secrets
from collections.abc import Callable, Mapping

from nbrun.core.execution.pipelining import ONE_BY_ONE, Pipelining
from nbrun.core.planning.plan import Plan
from nbrun.core.protocol.agent import Ability, Agent
from nbrun.jupyter.http.client import NEAR
from nbrun.jupyter.kernel_session import RunningKernel
from nbrun.kernel_side.backlog import PROGRESS_CLOSED, PROGRESS_ID, PROGRESS_READY, PROGRESS_RECEIVED, PROGRESS_SIZE

NEAR_WITH_AGENT = 0.04
"""The limit of a near server for the handshake with the agent, which takes the kernel some milliseconds."""
FAR_DEPTH = 256
LIST_DEPTH = 64
"""How many cells may be in progress in lists."""
LIST_LIMIT = 0.5
"""Seconds after which a kernel handles other requests before the rest of a list."""
TRIPS_IN_LIMIT = 20
"""The same in round trips, so that a far server loses a twentieth of the time by it."""


class SharedProgress:
    """Memory in which a kernel on this machine records the cell that it started last.

    If the server or the kernel is lost, it shows which cells of a list have started. Their messages may be lost too.
    The client records in it how far it has read the output, so that a cell can wait for it.
    """

    def __init__(self) -> None:
        """Create the memory. Only Linux has memory that another process can find without a file."""
        self.address: Mapping[str, str] | None = None
        """Where the kernel finds the memory, None if there is none."""
        self._memory: mmap.mmap | None = None
        self._descriptor: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            name = f"nbrun-{secrets.token_hex(8)}"
            self._descriptor = os.memfd_create(name)
            os.ftruncate(self._descriptor, PROGRESS_SIZE)
            self._memory = mmap.mmap(self._descriptor, PROGRESS_SIZE)
            self.address = {"path": f"/proc/{os.getpid()}/fd/{self._descriptor}", "name": name}

    def close_address(self) -> None:
        """Close the address; a kernel that has found the memory keeps it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def is_shared(self) -> bool:
        """Return whether a kernel has found the memory."""
        return self._memory is not None and self._memory[PROGRESS_READY] == 1

    def record_received(self, number: int) -> None:
        """Record the number of the last output that was received; 0 means that it is not recorded any more."""
        if self._memory is not None:
            self._memory[PROGRESS_RECEIVED:PROGRESS_ID] = number.to_bytes(PROGRESS_ID - PROGRESS_RECEIVED, "little")

    def last_started(self) -> str | None:
        """Return the id of the request that the kernel started last; it starts none from now on.

        The id is empty if the kernel has started no request. The result is None if there is no memory.
        """
        if self._memory is None or not self.is_shared:
            return None
        self._memory[PROGRESS_CLOSED] = 1  # first, see the agent
        return self._memory[PROGRESS_ID:].rstrip(b"\0").decode("ascii", "replace")


def choose_pipelining(
    running: RunningKernel,
    agent: Agent,
    plan: Plan,
    wanted: int | None,
    warn: Callable[[str], None],
    *,
    near: bool = False,
    shares_progress: bool = False,
) -> Pipelining:
    """Return how a run sends its cells.

    The depth is the `wanted` one, or if that is None, one that suits the latency of the server. If the kernel does not
    support the wanted depth, `warn` is called. `near` means that the latency is negligible. A near kernel gets lists
    only if it `shares_progress`, so that the outcome of each cell is known if the kernel or the server is lost. A far
    kernel gets cells ahead in any case, so it gets lists without that.
    """
    if wanted == 1 or len(plan.to_run) < 2:
        return ONE_BY_ONE
    if Ability.CONDITIONAL not in agent.abilities or not running.info.session:
        if wanted is not None:
            warn(f"--pipeline {wanted}: kernel {running.spec.name} cannot take cells ahead; they are sent one by one")
        return ONE_BY_ONE
    if wanted is not None:
        return Pipelining(wanted)
    takes_lists = Ability.LIST in agent.abilities
    if near or agent.round_trip < NEAR or agent.took < NEAR_WITH_AGENT:
        in_lists = shares_progress and takes_lists
        return Pipelining(LIST_DEPTH, in_lists=True, list_limit=LIST_LIMIT) if in_lists else ONE_BY_ONE
    # Behind the limit, the next cell is sent again, which takes a round trip.
    limit = max(LIST_LIMIT, TRIPS_IN_LIMIT * min(agent.round_trip, agent.took))
    return Pipelining(FAR_DEPTH, in_lists=takes_lists, list_limit=limit if takes_lists else None)
