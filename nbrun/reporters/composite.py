"""Combine several reporters; an error in one of them does not affect the run or the others.

If a report cannot be written (a full disk, a closed pipe), its reporter is removed and the others receive one warning.
The exit code also shows it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from nbrun.core.events import Event, RunFinished, Warned


class Listener(Protocol):
    """A receiver of the events of runs."""

    name: str
    """The reporter's name for the user: ``the JUnit report out.xml``."""

    def observe(self, event: Event) -> None:
        """Handle an event."""

    def close(self) -> None:
        """Finish the report; called once, after the last event."""


class IncompleteReport(Exception):
    """A report was written, but it lacks something; the message says what."""


class Composite:
    """Several listeners as one, called in order; ``tick`` is called every ``interval`` seconds."""

    def __init__(
        self, listeners: Sequence[Listener], *, tick: Callable[[], None] = lambda: None, interval: float = 1.0
    ) -> None:
        self._listeners = list(listeners)
        self._latest = ""
        self.dropped: list[Listener] = []
        """The listeners that failed, in order."""
        self.tick = tick
        self.interval = interval

    def observe(self, event: Event, *, all_but: Listener | None = None) -> None:
        """Pass an event to all remaining listeners except `all_but`."""
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
        """Close every listener; the first one last, so that it can report failures of the others."""
        for listener in reversed(self._listeners[:]):
            if listener not in self._listeners:
                continue
            try:
                listener.close()
            except Exception as error:  # noqa: BLE001
                self._drop(listener, error, self._latest)

    def _drop(self, listener: Listener, error: Exception, notebook: str) -> None:
        """Remove a listener and send a warning to the others."""
        self._listeners.remove(listener)
        self.dropped.append(listener)
        if isinstance(error, IncompleteReport):
            self.observe(Warned(notebook, f"{listener.name}: incomplete: {error}"))
            return
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        self.observe(Warned(notebook, f"{listener.name} could not be written: {reason}"))
