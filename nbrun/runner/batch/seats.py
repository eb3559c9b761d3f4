"""The seats of a batch: the engine of one server, and the pool that runs take seats from.

A seat is requested from the engine only when a run waits for one, so a batch whose results are all cached starts
nothing. The engine's block is entered and left in one task of the pool, as task groups require.
"""

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from nbrun.core.formats import json_text
from nbrun.core.formats.units import spell_duration
from nbrun.errors import NbrunError, NoSuchKernel, SeatLost, ServerError
from nbrun.local_server.launcher import NEWS_LIMIT
from nbrun.runner.engine import ControlledSeat, Engine, ExecutingSeat, Seat, SeatSetting
from nbrun.runner.job import PlannedRun
from nbrun.runner.servers import Host

if TYPE_CHECKING:
    from nbrun.core.batch.parcels import Needs

RESTARTS = 3
"""Maximum number of times that a batch restarts a private server that ended by itself."""
USELESS = RESTARTS + 1
"""Maximum number of times in a row that each seat may be lost before a run on one of them ends."""
CLOSE_LIMIT = 20.0
"""Seconds for an engine to end what it started; afterwards it is cancelled."""
CANCEL_LIMIT = 5.0
_log = logging.getLogger(__name__)


class ServerEngine:
    """The engine of one server: a private one, or that of ``--server``. All seats share it."""

    executes = False

    def __init__(self, open_host: Callable[[], AbstractAsyncContextManager[Host]], *, replaceable: bool) -> None:
        """Open a server with `open_host`; if `replaceable`, open another one when it has ended by itself."""
        self._open = open_host
        self._replaceable = replaceable
        self._restarts_left = RESTARTS if replaceable else 0
        self._host: Host | None = None

    @contextlib.asynccontextmanager
    async def seats(self, wanted: int) -> AsyncIterator[AsyncIterator[ControlledSeat]]:
        """Open the server when the first seat is requested."""
        async with contextlib.AsyncExitStack() as stack:
            yield self._each(wanted, stack)

    async def _each(self, number: int, stack: contextlib.AsyncExitStack) -> AsyncIterator[ControlledSeat]:
        while True:
            self._host = host = await stack.enter_async_context(self._open())
            for _ in range(number):
                yield self._seat_on(host)
            if not self._replaceable or host.ended is None:
                return
            await host.ended()
            if not self._restarts_left:
                break
            self._restarts_left -= 1
            _log.info("the private server ended by itself; starting another one")
        raise ServerError(
            f"the private server ended by itself {RESTARTS + 1} times; it is not started again",
            hint="Something in these notebooks may take all memory: run fewer at once with -j.",
        )

    def _seat_on(self, host: Host) -> ControlledSeat:
        async def is_lost() -> bool:
            """Return whether the server has ended and can be replaced."""
            if host.ended is None:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(host.ended(), NEWS_LIMIT)
            return host.gone() and (self._restarts_left > 0 or host is not self._host)

        return ControlledSeat("", host, is_lost)


def check_kernels(runs: Sequence[PlannedRun], name: str, setting: SeatSetting) -> None:
    """Raise :class:`NoSuchKernel` if the seat `name` lacks the kernel of a run.

    Of a notebook that cannot be read here, only ``--kernel`` is checked.
    """
    kernels = replace(setting.kernelspecs, where=f"the seat {name}")
    checked = set[tuple[str, str | None]]()
    for planned in runs:
        content, key = planned.paths.content, (planned.paths.notebook, planned.job.kernel)
        if content is None and key in checked:
            continue
        checked.add(key)
        if content is None and planned.paths.upload:
            with contextlib.suppress(OSError):  # the run reports what is wrong with the notebook
                content = Path(planned.paths.notebook).read_bytes()
        metadata = None if content is None else json_text.notebook_metadata(content)
        if metadata is None and planned.job.kernel is None:
            continue
        try:
            kernels.choose(planned.job.kernel, metadata or {})
        except NoSuchKernel as error:
            raise NoSuchKernel(f"{planned.name}: {error}", hint=error.hint) from None


class SeatPool:
    """The seats of a batch. A free seat goes to the run that asked first."""

    def __init__(
        self,
        engine: Engine,
        wanted: int,
        *,
        startup: float = math.inf,
        check: Callable[[str, SeatSetting], None] = lambda _name, _setting: None,
        needs: "Needs | None" = None,
    ) -> None:
        """Use up to `wanted` seats of `engine` at a time; without any for `startup` seconds the batch fails.

        `check` is called in a thread with the name and the setting of the first seat, and may raise
        :class:`UsageError`. `needs` is what executing seats must have; None for seats that are controlled from here.
        """
        self._engine = engine
        self._check = check
        self._wanted = wanted
        self._startup = startup
        self._needs = needs
        self._free = deque[Seat]()
        self._out = set[Seat]()
        self._waiting = deque[asyncio.Future[Seat]]()
        self._demand = asyncio.Event()
        """Set while a run waits for a seat, and there are fewer than wanted."""
        self._empty = asyncio.Event()
        """Set while a run waits and there is no seat."""
        self._closing = asyncio.Event()
        self._clock: asyncio.Timeout | None = None
        self._serving: asyncio.Task[None] | None = None
        self._first: SeatSetting | None = None
        self._served = 0
        self._useless = 0
        self.failure: NbrunError | None = None
        """The error because of which there are no further seats, or None."""

    @property
    def is_open(self) -> bool:
        """Return whether there is a seat, free or not."""
        return bool(self._live)

    @property
    def _live(self) -> list[Seat]:
        return [seat for seat in (*self._free, *self._out) if not seat.gone()]

    async def take(self) -> Seat:
        """Return a free seat, or wait for one; raises :attr:`failure`."""
        if self.failure is not None:
            raise self.failure
        while self._free:
            seat = self._free.popleft()
            if not seat.gone():
                self._out.add(seat)
                return seat
            await self.lose(seat)
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        waiting: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._notice()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                await self.give_back(waiting.result())
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            self._notice()

    async def give_back(self, seat: Seat) -> None:
        """Make a seat free for the next run, or remove it if it is gone."""
        if seat.gone():
            await self.lose(seat)
            return
        self._out.discard(seat)
        self._useless = 0
        if not self._pass_on(seat):
            self._free.append(seat)

    async def lose(self, seat: Seat) -> None:
        """Remove a lost seat; the engine provides another one when a run needs it."""
        self._out.discard(seat)
        self._useless += 1
        _log.info("seat %s is lost, %d are left", seat.name or "of the server", len(self._free) + len(self._out))
        self._notice()
        try:
            async with asyncio.timeout(CANCEL_LIMIT):
                await seat.close()
        except (NbrunError, TimeoutError) as error:
            _log.warning("%s: the lost seat could not be ended: %s", seat.name, error)

    async def close(self) -> None:
        """Leave the engine's block; raises the error with which it ended."""
        self._closing.set()
        if (serving := self._serving) is None:
            return
        if self._clock is not None:
            serving.cancel()  # it waits for a seat or for a run
        for limit in (CLOSE_LIMIT, CANCEL_LIMIT):
            await asyncio.wait({serving}, timeout=limit)
            if serving.done():
                serving.result()
                return
            serving.cancel()
        _log.warning("the engine did not end what it started within %.0f s", CLOSE_LIMIT + CANCEL_LIMIT)

    def _pass_on(self, seat: Seat) -> bool:
        """Pass a seat to the run that has waited longest; return False if none waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._out.add(seat)
                waiting.set_result(seat)
                return True
        return False

    def _notice(self) -> None:
        """Request a seat if a run waits, and limit the wait if there is no seat at all."""
        live = len(self._live) if self._waiting else self._wanted
        is_empty = not live
        for event, is_so in ((self._demand, live < self._wanted), (self._empty, is_empty)):
            if is_so:
                event.set()
            else:
                event.clear()
        if self._clock is None or self._clock.expired():
            return
        if self._useless > USELESS * self._wanted:
            self._fail(ServerError(f"{self._useless} seats in a row were lost before a run on them ended"))
        if not is_empty or math.isinf(self._startup):
            self._clock.reschedule(None)
        elif self._clock.when() is None:
            self._clock.reschedule(asyncio.get_running_loop().time() + self._startup)

    def _fail(self, error: NbrunError) -> None:
        self.failure = self.failure or error
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(self.failure)

    async def _serve(self) -> None:
        """Enter the engine's block, pass its seats on, and leave it when the pool is closed."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(None) as self._clock:
                    self._notice()
                    await self._pull(await stack.enter_async_context(self._engine.seats(self._wanted)))
            except asyncio.CancelledError:
                if not self._closing.is_set():
                    raise
                asyncio.current_task().uncancel()  # type: ignore[union-attr]
            except NbrunError as error:
                self._fail(error)
            except TimeoutError:
                when = "" if self._served else ", and there was none before"
                self._fail(
                    ServerError(
                        f"the engine had no seat for {spell_duration(self._startup)}{when}",
                        hint="Give it more time with --startup-timeout.",
                    )
                )
            except Exception as error:  # noqa: BLE001 - a bug of an engine must not end the runs on its seats
                bug = NbrunError(f"the engine ended with a bug: {error!r}", hint="Please report it.")
                bug.__cause__ = error
                self._fail(bug)
            finally:
                self._clock = None
            await self._closing.wait()

    async def _pull(self, seats: AsyncIterator[Seat]) -> None:
        async for seat in seats:
            if not await self._is_fit(seat):
                continue
            self._served += 1
            if not self._pass_on(seat):
                self._free.append(seat)
            self._notice()
            await self._demand.wait()
        await self._empty.wait()
        raise ServerError("the engine has no seat left, and will have no other")

    async def _is_fit(self, seat: Seat) -> bool:
        """Return whether a seat is as the first one and has what the runs need.

        Raises :class:`UsageError` if it is not, before the first run.
        """
        try:
            if seat.setting is not None:
                seat.setting.check(seat.name, self._first)
            if seat.setting is not None and self._first is None:
                await asyncio.to_thread(self._check, seat.name, seat.setting)
            if self._needs is not None:
                await cast(ExecutingSeat, seat).check(self._needs)
        except SeatLost as error:
            _log.info("%s", error)
            await self.lose(seat)
            return False
        except NbrunError as error:
            if not self._served:
                raise
            _log.warning("%s; it is not used", error)
            await self.lose(seat)
            return False
        self._first = self._first or seat.setting
        return True
