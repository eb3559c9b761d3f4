"""Lets several reporters listen at once, and keeps one that breaks from breaking the run or the others.

A report that cannot be written (a full disk, a closed pipe) is told of once, as a warning to the other listeners, and
its listener is asked nothing more: half a report is worth less than a word about it. Who asked for it learns of it
from the exit code.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from nbrun.core.events import Event, RunFinished, Warned


class Listener(Protocol):
    """Somebody who is told how runs go."""

    name: str
    """What it is to the user: ``the JUnit report out.xml``."""

    def observe(self, event: Event) -> None:
        """Handle an event."""

    def close(self) -> None:
        """Finish what was begun; called once, when nothing more comes."""


class Fanout:
    """Several listeners as one, told in their order; ``tick`` is called every ``interval`` seconds."""

    def __init__(
        self, listeners: Sequence[Listener], *, tick: Callable[[], None] = lambda: None, interval: float = 1.0
    ) -> None:
        self._listeners = list(listeners)
        self._latest = ""
        self.dropped: list[Listener] = []
        """Those that broke, in the order in which they did."""
        self.tick = tick
        self.interval = interval

    def observe(self, event: Event, *, all_but: Listener | None = None) -> None:
        """Pass an event on to all who still listen, but for one who is to be left out."""
        if isinstance(event, RunFinished):
            self._latest = event.notebook
        for listener in tuple(self._listeners):
            if listener is all_but:
                continue
            try:
                listener.observe(event)
            except Exception as error:  # noqa: BLE001  (no report is worth a run)
                self._drop(listener, error, getattr(event, "notebook", self._latest))

    def close(self) -> None:
        """Let every listener finish; the first of them last, so that it can still tell of the others."""
        for listener in reversed(self._listeners[:]):
            if listener not in self._listeners:
                continue
            try:
                listener.close()
            except Exception as error:  # noqa: BLE001
                self._drop(listener, error, self._latest)

    def _drop(self, listener: Listener, error: Exception, notebook: str) -> None:
        """Ask a listener nothing more, and tell the others why."""
        self._listeners.remove(listener)
        self.dropped.append(listener)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        self.observe(Warned(notebook, f"{listener.name} could not be written: {reason}"))
