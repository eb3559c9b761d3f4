"""Deliver notifications in the background, within a time limit for all of them.

There is a thread for each target, which keeps the order of its messages. A thread that hangs does not delay the end of
the process.
"""

import queue
import threading
import time
from collections.abc import Callable

from nbrun.publishing.notifications.senders import NotSent
from nbrun.publishing.notifications.targets import Target

NOTIFY_LIMIT = 25.0
"""Seconds for all notifications and pings together."""


class Delivery:
    """Messages on their way to targets."""

    def __init__(self) -> None:
        self._queues: dict[Target, queue.SimpleQueue[Callable[[], None] | None]] = {}
        self._threads: dict[Target, threading.Thread] = {}
        self._warnings: list[str] = []

    def post(self, target: Target, send: Callable[[], None]) -> None:
        """Send in the background, after what was posted to the same target before."""
        if target not in self._threads:
            self._queues[target] = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(target,), name=f"notify {target.name}", daemon=True)
            self._threads[target] = thread
            thread.start()
        self._queues[target].put(send)

    def finish(self, limit: float) -> list[str]:
        """Wait up to `limit` seconds for all messages, and return a warning for each that was not delivered."""
        for waiting in self._queues.values():
            waiting.put(None)
        end = time.monotonic() + limit
        hanging = []
        for target, thread in self._threads.items():
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                hanging.append(f"{target.label}: not delivered in time")
        return [*self._warnings, *hanging]

    def _work(self, target: Target) -> None:
        while (send := self._queues[target].get()) is not None:
            try:
                send()
            except NotSent as error:
                self._warnings.append(f"{target.label}: {error}")
            except Exception as error:  # noqa: BLE001  (a notification never changes the run)
                self._warnings.append(f"{target.label}: {type(error).__name__}")
