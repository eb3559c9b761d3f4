"""How somebody outside ends a run early: a switch that a signal handler pulls and a run watches."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nbrun.errors import ExitCode

T = TypeVar("T")


class Stopped(Exception):
    """The switch was pulled before the run had begun; never leaves nbrun."""


class StopSwitch:
    """Pulled once, for good; belongs to one event loop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why it was pulled, in words for the user; None as long as it was not."""
        self.exit_code: ExitCode | None = None
        self._listeners: list[Callable[[str], None]] = []

    def pull(self, reason: str, exit_code: ExitCode) -> None:
        """End what listens; later pulls change nothing."""
        if self.reason is None:
            self.reason, self.exit_code = reason, exit_code
            for listener in tuple(self._listeners):
                listener(reason)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the reason when the switch is pulled, at once if it was already."""
        self._listeners.append(listener)
        if self.reason is not None:
            listener(self.reason)

    def forget(self, listener: Callable[[str], None]) -> None:
        """Call `listener` no more."""
        self._listeners.remove(listener)

    async def guard(self, work: Awaitable[T]) -> T:
        """Await `work`; when the switch is pulled first, cancel it and raise :class:`Stopped`.

        Either way `work` has ended when this returns. Cancellation from outside passes on, also when both come at once.
        """
        task = asyncio.ensure_future(work)
        outer = asyncio.current_task()
        cancelled = outer.cancelling() if outer else 0

        def cancel(_: str) -> None:
            task.cancel()

        self.listen(cancel)
        try:
            return await task
        except asyncio.CancelledError:
            if self.reason is not None and task.cancelled() and not (outer and outer.cancelling() > cancelled):
                raise Stopped from None
            raise
        finally:
            self.forget(cancel)
