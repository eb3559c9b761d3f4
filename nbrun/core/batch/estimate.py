"""How long a batch will still take, from what its finished runs took."""

from collections.abc import Sequence


def time_left(finished: Sequence[float], running: Sequence[float], waiting: int) -> float | None:
    """Return the seconds until a batch ends, or None before its first run has finished.

    `finished` are the seconds that runs took, `running` the seconds since those now running began. Every run is taken
    for an average one, and as many run at once as do now.
    """
    if not finished:
        return None
    mean = sum(finished) / len(finished)
    rests = [max(mean - passed, 0.0) for passed in running]
    return (sum(rests) + waiting * mean) / max(len(running), 1)
