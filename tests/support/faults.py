"""What the proxy of :mod:`tests.support.proxy` hears, and what it can be told to do to it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heard:
    """A request that came; header names are lower-case."""

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
        """Return whether it asks for a websocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"


@dataclass
class Fault:
    """What befalls the next `times` requests of a method whose target has certain words in it."""

    method: str
    words: str
    times: float
    answer: bytes = b""
    forward: bool = False

    def takes(self, heard: Heard) -> bool:
        """Return whether this request is meant, and count it."""
        meant = self.times > 0 and self.method in ("", heard.method) and self.words in heard.target
        self.times -= meant
        return meant


@dataclass
class Hold:
    """A request that is kept from the server until it is released."""

    fault: Fault
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the request has come."""
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Pass the request on."""
        self._go.set()

    async def wait(self) -> None:
        """Wait, as the proxy does."""
        self.reached.set()
        await self._go.wait()


@dataclass
class Line:
    """How good the line is, in both directions: ``delay`` in seconds, ``rate`` in bytes a second.

    A rate of a few bytes is the slow trickle of a network that is there and of no use.
    """

    delay: float = 0.0
    rate: float | None = None

    @property
    def piece(self) -> int:
        """Return how many bytes are carried at a time: at a slow rate, those of a twentieth of a second."""
        return 1 << 16 if self.rate is None else max(1, int(self.rate / 20))

    def seconds(self, size: int) -> float:
        """Return how long it takes to carry so many bytes."""
        return 0.0 if self.rate is None else size / self.rate
