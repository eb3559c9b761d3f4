"""When a notebook that is running is saved meanwhile: often enough to lose little, and never for much of the time.

A save is due when so many seconds have passed since the last one, sooner when much output has come, and later when
saving would take more than its share of the run's time: what the saves took so far, and what the next one will take by
what the last one took, must fit into that share. So the pauses grow with the notebook and with the way to the server.
"""

from dataclasses import dataclass

SHARE = 0.05
"""Of the run's time, from its first cell, that all intermediate saves together may take."""
EVERY = 30.0
"""Seconds between two saves where nothing else is asked for."""
MUCH, SOON = 16_000_000, 5.0
"""So many characters of new output are worth a save after so many seconds."""
FIRST_COST = 0.05
SPEED = 50_000_000.0
"""Seconds and characters a second that a save is taken to need before one was measured."""


@dataclass(slots=True)
class Pacing:
    """The rhythm of one run's saves; times are seconds on the caller's clock.

    ``every`` is the pause that the user asked for, None where it is left to nbrun.
    """

    began: float
    every: float | None = None
    spent: float = 0.0
    cost: float = FIRST_COST
    last: float | None = None

    def due(self, unsaved: int) -> float:
        """Return the time at which to save, with so many characters of output not saved yet."""
        pause = self.every if self.every is not None else SOON if unsaved >= MUCH else EVERY
        expected = max(self.cost, unsaved / SPEED)
        since = self.began if self.last is None else self.last
        return max(since + pause, self.began + (self.spent + expected) / SHARE)

    def saved(self, began: float, ended: float) -> None:
        """Take note of a save, or of an attempt at one."""
        self.cost = ended - began
        self.spent += self.cost
        self.last = ended
