"""Requests that the proxy of :mod:`tests.support.proxy` received, and the faults that it can simulate."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heard:
    """A received request; header names are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]
    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        """Return the method and the path without query."""
        return f"{self.method} {self.target.partition('?')[0]}"

    @property
    def upgrades(self) -> bool:
        """Return whether the request is for a websocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"


@dataclass
class Fault:
    """A fault for the next `times` requests with this method whose target contains certain words."""

    method: str
    words: str
    times: float
    answer: bytes = b""
    forward: bool = False

    def takes(self, heard: Heard) -> bool:
        """Return whether the fault applies to this request, and count it."""
        meant = self.times > 0 and self.method in ("", heard.method) and self.words in heard.target
        self.times -= meant
        return meant


@dataclass
class Hold:
    """A request that is held until it is released."""

    fault: Fault
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the request has arrived."""
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Forward the request."""
        self._go.set()

    async def wait(self) -> None:
        """Wait for the release; called by the proxy."""
        self.reached.set()
        await self._go.wait()


@dataclass
class Line:
    """The quality of the connection in both directions: ``delay`` in seconds, ``rate`` in bytes per second.

    A rate of a few bytes simulates a network that is almost unusable.
    """

    delay: float = 0.0
    rate: float | None = None

    @property
    def piece(self) -> int:
        """Return the bytes to transfer at a time: at a slow rate, those of a twentieth of a second."""
        return 1 << 16 if self.rate is None else max(1, int(self.rate / 20))

    def seconds(self, size: int) -> float:
        """Return the seconds to transfer a number of bytes."""
        return 0.0 if self.rate is None else size / self.rate
