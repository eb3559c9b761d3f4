"""Choose how many cells are sent ahead to a kernel (``--pipeline``).

Cells that are sent ahead hide the round trip to the server. They are sent only to a kernel whose agent executes cells
on a condition (:mod:`nbrun.kernel_side.agent`). So the same cells run as if nbrun waited for each reply.
"""

from collections.abc import Callable

from nbrun.core.planning.plan import Plan
from nbrun.core.protocol.agent import Ability, Agent
from nbrun.jupyter.kernel_session import RunningKernel

NEAR = 0.01
"""Round-trip time in seconds below which a server is near, so that pipelining costs more than it saves."""
NEAR_WITH_AGENT = 0.04
"""The same for the handshake with the agent, which takes the kernel some milliseconds."""
FAR_DEPTH = 256


async def find_depth(
    running: RunningKernel,
    agent: Agent,
    plan: Plan,
    wanted: int | None,
    warn: Callable[[str], None],
    *,
    near: bool = False,
) -> int:
    """Return the pipeline depth of a run; 1 sends no cells ahead.

    It is the `wanted` one, or if that is None, one that suits the latency of the server. If the kernel does not support
    the wanted depth, `warn` is called. `near` means that the latency is negligible.
    """
    if wanted == 1 or len(plan.to_run) < 2:
        return 1
    if wanted is None and (near or await running.kernel.round_trip() < NEAR):
        return 1
    if Ability.CONDITIONAL not in agent.abilities or not running.info.session:
        if wanted is not None:
            warn(f"--pipeline {wanted}: kernel {running.spec.name} cannot take cells ahead; they are sent one by one")
        return 1
    return wanted or (1 if agent.took < NEAR_WITH_AGENT else FAR_DEPTH)
