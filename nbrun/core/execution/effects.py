"""Effects of the state machine, which its driver carries out, and its timers."""

import math
from collections.abc import Sequence
from enum import Enum, auto

from msgspec import Struct

from nbrun.core.protocol.messages import Message


class Send(Struct, frozen=True):
    """Send a message to the kernel."""

    message: Message


class InterruptKernel(Struct, frozen=True):
    """Ask the server to interrupt the kernel."""


class ProbeKernel(Struct, frozen=True):
    """Ask the server whether the kernel exists."""


Effect = Send | InterruptKernel | ProbeKernel
Effects = Sequence[Effect]
"""Effects in the order in which they must be carried out."""


class Timer(Enum):
    """The timers of a run, in the order of urgency when several expire at once."""

    ESCALATE = auto()
    """An interrupt or a recall had no effect."""
    RUN_TIMEOUT = auto()
    CELL_TIMEOUT = auto()
    IDLE_TIMEOUT = auto()
    BARRIER = auto()
    """One of reply and idle, or a barrier's answer, is overdue."""
    RESEND = auto()
    """A cell that the kernel did not run can be sent again."""
    PROBE = auto()
    QUIET = auto()
    """Nothing arrived for some time during the drain."""
    DRAIN = auto()
    """The time limit of the drain."""


OF_A_CELL = (Timer.CELL_TIMEOUT, Timer.IDLE_TIMEOUT, Timer.BARRIER, Timer.ESCALATE, Timer.RESEND)
"""The timers that the end of a cell stops."""


class Timers:
    """The expiry times of all timers."""

    def __init__(self) -> None:
        self._at: dict[Timer, float] = {}

    @property
    def next(self) -> float | None:
        """Return the earliest expiry, or None if no timer runs."""
        return min(self._at.values()) if self._at else None

    def set(self, timer: Timer, now: float, seconds: float | None) -> None:
        """Start `timer` with this duration; None and infinity stop it."""
        if seconds is None or seconds == math.inf:
            self._at.pop(timer, None)
        else:
            self._at[timer] = now + seconds

    def drop(self, *timers: Timer) -> None:
        """Stop timers."""
        for timer in timers:
            self._at.pop(timer, None)

    def expired(self, now: float) -> Timer | None:
        """Remove and return a timer that has expired by `now`, the most urgent first, or None."""
        due = [timer for timer, at in self._at.items() if at <= now]
        if not due:
            return None
        first = min(due, key=lambda timer: timer.value)
        del self._at[first]
        return first
