"""How many cells may be on their way to a kernel at a time.

Cells that are sent ahead hide the way to the server and back. Only a kernel with the guard of
:mod:`nbrun.core.execution.guard`
gets them, so that what runs, and what does not, is the same as when each reply is waited for.
"""

from collections.abc import Callable

from nbrun.core.planning.plan import Plan
from nbrun.jupyter.kernel_session import RunningKernel

NEAR = 0.01
"""Seconds there and back within which a server is near: what cells ahead could hide is less than what they cost."""
NEAR_WITH_GUARD = 0.03
"""The same for the installation of the guard, which takes the kernel some milliseconds."""
FAR_DEPTH = 256
_GUARDED = "ipython"


async def find_depth(
    running: RunningKernel, plan: Plan, wanted: int | None, warn: Callable[[str], None], *, near: bool = False
) -> int:
    """Return the depth for a run: the one that is wanted, or where that is None the one that suits the way; 1 for no
    cells ahead. A wish that cannot be granted is told to `warn`; `near` says that there is no way to speak of.
    """
    if wanted == 1 or len(plan.to_run) < 2:
        return 1
    if wanted is None and (near or await running.kernel.round_trip() < NEAR):
        return 1
    info = running.info
    took = await running.kernel.install_guard() if info.implementation == _GUARDED and info.session else None
    if took is None:
        if wanted is not None:
            warn(f"--pipeline {wanted}: kernel {running.spec.name} cannot take cells ahead; they are sent one by one")
        return 1
    return wanted or (1 if took < NEAR_WITH_GUARD else FAR_DEPTH)
