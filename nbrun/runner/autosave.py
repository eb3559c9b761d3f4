"""Save a notebook at intervals while it runs (``--save-every``), and choose the interval.

Saves do not overlap. A save is skipped if there is no new output. The event loop continues during a save, except while
one cell is encoded. The final save of a run is made elsewhere, after the last interval save has ended.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from msgspec import Struct

from nbrun.core.events import Event, OutputArrived
from nbrun.core.outputs.mimebundle import Output
from nbrun.errors import NbrunError, ServerUnreachable

SHARE = 0.05
"""Maximum share of the run's time, from its first cell, for all interval saves together."""
EVERY = 30.0
"""Default interval in seconds."""
MUCH, SOON = 16_000_000, 5.0
"""With this many characters of new output, a save is due after this many seconds."""
FIRST_COST = 0.05
SPEED = 50_000_000.0
"""The assumed cost of a save, in seconds and in characters a second, before one was measured."""
TICK = 1.0
"""Seconds between two checks for new output."""
LIMIT = 120.0
"""Seconds to wait at the end of a run for a save in progress, unless the run must end soon."""


class Pacing(Struct):
    """Computes the times of interval saves, in seconds on the caller's clock.

    ``every`` is the requested interval, or None for the default.
    """

    began: float
    every: float | None = None
    spent: float = 0.0
    cost: float = FIRST_COST
    last: float | None = None

    def due(self, unsaved: int) -> float:
        """Return the time of the next save if `unsaved` characters of output are not saved yet."""
        pause = self.every if self.every is not None else SOON if unsaved >= MUCH else EVERY
        expected = max(self.cost, unsaved / SPEED)
        since = self.began if self.last is None else self.last
        return max(since + pause, self.began + (self.spent + expected) / SHARE)

    def saved(self, began: float, ended: float) -> None:
        """Record the cost of a save or of an attempt."""
        self.cost = ended - began
        self.spent += self.cost
        self.last = ended


class Autosave:
    """The interval saves of one run, within the block."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.saves = 0
        """The number of attempts."""
        self._warn = warn
        self._unsaved = 0
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    def observe(self, event: Event) -> None:
        """Count the characters of output."""
        if isinstance(event, OutputArrived):
            self._unsaved += _size(event.output)

    def start(self, save: Callable[[], Awaitable[bool]], news: Callable[[], int], every: float | None) -> None:
        """Call `save` whenever it is due and `news` has grown, until it returns False.

        `every` is the interval in seconds, or None for the default.
        """
        self._task = asyncio.create_task(self._run(save, news, Pacing(_now(), every)))

    async def end(self, limit: float = LIMIT) -> None:
        """Start no further save, and wait at most `limit` seconds for the one in progress."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=limit)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, save: Callable[[], Awaitable[bool]], news: Callable[[], int], pacing: Pacing) -> None:
        seen = 0
        while not self._ending.is_set():
            now = _now()
            wait = pacing.due(self._unsaved) - now
            if wait > 0 or news() == seen:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, TICK) if wait > 0 else TICK):
                        await self._ending.wait()
                continue
            seen, self._unsaved = news(), 0
            if not await self._saved(save):
                return
            pacing.saved(now, _now())

    async def _saved(self, save: Callable[[], Awaitable[bool]]) -> bool:
        """Save once; return whether to continue."""
        try:
            self.saves += 1
            return await save()
        except ServerUnreachable:
            return True  # it may be back for the next one
        except NbrunError as error:
            self._warn(f"the notebook cannot be saved while it runs: {error}")
        except Exception as error:  # noqa: BLE001 - a failed interval save must not end the run
            self._warn(f"the notebook is not saved while it runs, by a bug in nbrun: {error!r}")
        return False


def _size(output: Output) -> int:
    text = output.get("text")
    if isinstance(text, str):
        return len(text)
    data = output.get("data")
    return sum(len(value) for value in data.values() if isinstance(value, str)) if isinstance(data, dict) else 0


def _now() -> float:
    return asyncio.get_running_loop().time()
