"""Stop a run early, for example from a signal handler."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nbrun.errors import ExitCode

T = TypeVar("T")


class Stopped(Exception):
    """The run was stopped before it started. Raised and caught inside nbrun."""


class StopSwitch:
    """A switch that stops runs. It can be pulled once and belongs to one event loop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """The reason for the user, or None if the switch was not pulled."""
        self.exit_code: ExitCode | None = None
        self._listeners: list[Callable[[str], None]] = []

    def pull(self, reason: str, exit_code: ExitCode) -> None:
        """Call all listeners with the reason; later calls have no effect."""
        if self.reason is None:
            self.reason, self.exit_code = reason, exit_code
            for listener in tuple(self._listeners):
                listener(reason)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the reason when the switch is pulled, or now if it already was."""
        self._listeners.append(listener)
        if self.reason is not None:
            listener(self.reason)

    def forget(self, listener: Callable[[str], None]) -> None:
        """Remove `listener`."""
        self._listeners.remove(listener)

    async def guard(self, work: Awaitable[T]) -> T:
        """Await `work`; if the switch is pulled first, cancel it and raise :class:`Stopped`.

        `work` has ended in both cases. Cancellation of the caller is raised, also if both happen at once.
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
