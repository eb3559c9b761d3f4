"""An engine whose seats execute: workers in this process, whose parcels, events and deliveries travel as bytes."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from nbrun.core.batch.parcels import Delivery, Needs, Parcel, packed_event, unpacked_event
from nbrun.core.events import Event
from nbrun.core.formats.json_text import dumps, loads
from nbrun.engines.worker import Worker
from nbrun.errors import SeatLost
from nbrun.runner.engine import EngineCall, SeatSetting
from nbrun.runner.stop import StopSwitch

Meddle = Callable[[Parcel, Event | Delivery], Delivery | None]


@dataclass
class Script:
    """What a test does to the seats, and what happened on them.

    ``meddle`` sees each event and each delivery as it leaves a seat. It may raise SeatLost, or return another delivery.
    """

    meddle: Meddle = lambda parcel, thing: None
    setting: Callable[[SeatSetting], SeatSetting] = lambda setting: setting
    environ: dict[str, str] = field(default_factory=dict)
    """More environment variables of the seats, when they are checked."""
    is_deaf: bool = False
    """Whether a stop does not reach the seats."""
    sent: list[bytes] = field(default_factory=list)
    ran: list[tuple[str, str, int]] = field(default_factory=list)
    """The seat, the run and the attempt of each parcel."""


script = Script()


@dataclass
class Seat:
    """A worker that is reached through bytes."""

    name: str
    setting: SeatSetting
    worker: Worker
    is_lost: bool = False
    is_retired: bool = False

    def __hash__(self) -> int:
        return id(self)

    def gone(self) -> bool:
        """Return whether the seat is lost."""
        return self.is_lost

    def was_retired(self) -> bool:
        """Return whether the loss was an orderly one."""
        return self.is_retired

    async def check(self, needs: Needs) -> None:
        """Check the worker, which has the environment of ``script``."""
        self.worker.check(needs, {**os.environ, **script.environ})

    async def close(self) -> None:
        """Do nothing; the engine ends the worker."""

    async def run(self, parcel: Parcel, tell: Callable[[Event], None], stop: StopSwitch) -> Delivery:
        """Run a parcel on the worker."""
        data, losses, own = parcel.encode(), list[SeatLost](), StopSwitch()
        script.sent.append(data)
        script.ran.append((self.name, parcel.run, parcel.attempt))

        def follow(reason: str) -> None:
            if not script.is_deaf and stop.exit_code is not None:
                own.pull(reason, stop.exit_code)

        def send(event: Event) -> None:
            if losses or (packed := packed_event(event)) is None:
                return
            script.sent.append(dumps(packed))
            event = unpacked_event(loads(script.sent[-1]))
            tell(event)
            try:
                script.meddle(parcel, event)
            except SeatLost as loss:
                losses.append(loss)
                from nbrun.errors import ExitCode

                own.pull("the seat is lost", ExitCode.INTERRUPTED)

        stop.listen(follow)
        try:
            delivery = await self.worker.run(Parcel.decode(data), send, own)
            script.sent.append(delivery.encode())
            if losses:
                raise losses[0]
            return script.meddle(parcel, delivery) or Delivery.decode(script.sent[-1])
        except SeatLost as error:
            self.is_lost, self.is_retired = True, "retired" in str(error)
            raise
        finally:
            stop.forget(follow)


class Engine:
    """Starts a worker for each seat."""

    executes = True

    @contextlib.asynccontextmanager
    async def seats(self, wanted: int) -> AsyncIterator[AsyncIterator[Seat]]:
        """Yield the seats."""
        async with contextlib.AsyncExitStack() as stack:

            async def each() -> AsyncIterator[Seat]:
                number = 0
                while True:
                    number += 1
                    worker = await stack.enter_async_context(Worker(name=f"seat {number}"))
                    yield Seat(f"seat {number}", script.setting(await worker.setting()), worker)

            yield each()


def engine(_: EngineCall) -> Engine:
    """Return the engine, as an entry point does."""
    return Engine()
