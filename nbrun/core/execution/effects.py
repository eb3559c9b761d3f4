"""What the run's state machine asks its driver to do, and the clocks it keeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from nbrun.core.protocol.messages import Message

FENCE_AFTER = 2.0
"""Seconds to wait for the second of reply and idle before a fence is sent."""
FENCE_LIMIT = 10.0
"""Seconds to wait for a fence's answer before another look is taken."""
FENCE_GRACE = 5.0
"""Seconds of silence in which a message may still be behind the fence's reply, which comes over another socket."""
INTERRUPT_GRACE = 5.0
"""Seconds that a cell has to end after each of two interrupts."""
RECALL_GRACE = 1.0
"""Seconds to wait until the kernel says that it begins nothing more, before a cell is interrupted."""
SIGNAL_GRACE = 2.0
"""The same after a signal, and once only: what sent it may follow up with SIGKILL."""
PROBE_EVERY = 60.0
"""Seconds between two looks at the kernel over REST; they count as activity for those who cull the idle."""
DRAIN_QUIET = 0.25
"""Seconds of quiet after the last cell: ipykernel hands on what reached its file descriptors with up to 0.2 s delay."""
DRAIN_LIMIT = 2.0
"""Seconds after which a background thread that never falls silent is left alone; what the cells put out is all in."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to the kernel."""

    message: Message


@dataclass(frozen=True, slots=True)
class InterruptKernel:
    """Ask the server to interrupt the kernel."""


@dataclass(frozen=True, slots=True)
class ProbeKernel:
    """Ask the server whether the kernel is there."""


Effect = Send | InterruptKernel | ProbeKernel
Effects = Sequence[Effect]
"""To be carried out in this order: none may overtake the one before it."""


RESEND_AFTER = 0.3
"""Seconds before a cell is sent again that the kernel did not run; after an error tslab refuses all for 0.2 s."""
ATTEMPTS = 3
"""How often a cell is sent at most, when the kernel says each time that it did not run it."""


class Timer(Enum):
    """The clocks of a run, in the order in which they are looked at when several strike at once."""

    ESCALATE = auto()
    """An interrupt had no effect."""
    RUN = auto()
    CELL = auto()
    SILENCE = auto()
    FENCE = auto()
    """One of reply and idle, or a fence's answer, is overdue."""
    RESEND = auto()
    """A cell that the kernel did not run may be sent again."""
    PROBE = auto()
    QUIET = auto()
    """Nothing came for a while after the last cell."""
    DRAIN = auto()
    """Enough was waited for what may still come."""


OF_A_CELL = (Timer.CELL, Timer.SILENCE, Timer.FENCE, Timer.ESCALATE, Timer.RESEND)
"""The clocks that a cell's end stops."""


class Timers:
    """Points in time, by name."""

    def __init__(self) -> None:
        self._at: dict[Timer, float] = {}

    @property
    def next(self) -> float | None:
        """Return the earliest point in time, None where no clock runs."""
        return min(self._at.values()) if self._at else None

    def set(self, timer: Timer, now: float, seconds: float | None) -> None:
        """Let `timer` strike in `seconds`; None and infinity stop it."""
        if seconds is None or seconds == math.inf:
            self._at.pop(timer, None)
        else:
            self._at[timer] = now + seconds

    def drop(self, *timers: Timer) -> None:
        """Stop clocks."""
        for timer in timers:
            self._at.pop(timer, None)

    def strike(self, now: float) -> Timer | None:
        """Remove and return and return a clock that has struck by `now`, the most pressing first."""
        struck = [timer for timer, at in self._at.items() if at <= now]
        if not struck:
            return None
        first = min(struck, key=lambda timer: timer.value)
        del self._at[first]
        return first
