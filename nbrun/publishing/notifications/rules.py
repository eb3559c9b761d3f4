"""When to notify: the causes that apply to the end of a run; pure."""

from collections.abc import Sequence
from statistics import median

from nbrun.core.results import Outcome
from nbrun.publishing.local_history import PastRun

_COMPARED = 10
_ENOUGH = 3
_FACTOR = 2.0
_LEAST = 10.0
"""A slow run takes so many seconds longer than usual at least."""


def causes_of(run: PastRun, before: Sequence[PastRun]) -> list[str]:
    """Return the causes that apply to the end of `run`; `before` are the earlier runs, the newest first.

    A run recovers if the one before it failed. It is slow if it takes more than twice the median of the last ten runs
    that passed, of which there must be three. A skipped run only counts for ``always``.
    """
    found = []
    if run.outcome != Outcome.SKIPPED.value:
        found.append("failure" if run.exit_code else "success")
        counted = [one for one in before if one.outcome != Outcome.SKIPPED.value]
        if not run.exit_code and counted and counted[0].exit_code:
            found.append("recovery")
        usual = [one.seconds for one in counted if not one.exit_code][:_COMPARED]
        if len(usual) >= _ENOUGH and run.seconds > max(_FACTOR * median(usual), median(usual) + _LEAST):
            found.append("slow")
    return [*found, "always"]
