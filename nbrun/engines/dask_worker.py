"""The side of a Dask worker: a task that is a seat, and the calls that reach it.

The task holds one thread of its Dask worker until the batch ends. It has no run among its arguments. So Dask may
execute it again after a loss of the worker: that is another seat, and no run is executed again by it.

Runs, events and deliveries travel in calls that the scheduler passes on and does not keep. A seat announces by an event
of the scheduler that it is there, or that it has news; such an event has no content.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from distributed import Status, get_worker

from nbrun.core.batch.parcels import Needs, Parcel, packed_event
from nbrun.core.events import Event, OutputArrived
from nbrun.core.formats.json_text import dumps
from nbrun.engines.dask_setting import packed_setting
from nbrun.engines.worker import Worker
from nbrun.errors import ExitCode, NbrunError, SeatLost, UsageError
from nbrun.runner.stop import StopSwitch

TOPIC = "nbrun"
"""The topic of the events. It is the same for all batches, because a scheduler never removes one."""
CALL = "nbrun"
"""The name of the calls among a Dask worker's own."""
WATCH = 0.25
"""Seconds between two checks of whether the task is still wanted."""
COLLECT = 0.05
"""Seconds in which events are collected before they are announced."""
PORTION = 4_000_000
"""Bytes of events in one answer."""
BACKLOG = 16_000_000
"""Bytes of events that wait to be fetched. Beyond them outputs are in the delivery only."""
END_LIMIT = 3.0
"""Seconds for the run of a seat that ends."""
_seats: dict[str, "_Seat"] = {}


def occupy() -> None:
    """Be a seat until the task is cancelled or the seat is ended; the body of the task."""
    dask_worker = get_worker()
    dask_worker.handlers[CALL] = _answer
    seat = _Seat(dask_worker, dask_worker.get_current_task())
    _seats[seat.token] = seat
    try:
        asyncio.run(seat.serve())
    finally:
        del _seats[seat.token]
        seat.end_calls()


async def _answer(seat: str, call: str, **arguments: Any) -> dict[str, Any]:
    """Pass a call on to a seat of this Dask worker; it runs in the loop of the Dask worker."""
    found = _seats.get(seat)
    answer = None if found is None else found.pass_on(call, arguments)
    if answer is None:
        return {"gone": True}
    waiting = asyncio.wrap_future(answer)
    await asyncio.wait({waiting})  # unlike await, this does not cancel what another call may wait for
    return {"gone": True} if waiting.cancelled() else waiting.result() or {}


class _Seat:
    """A seat in a thread of a Dask worker, with an event loop of its own."""

    def __init__(self, dask_worker: Any, key: str) -> None:
        self.token = secrets.token_hex(8)
        self._ended: Future[None] = Future()
        self._calls: set[Future[Any]] = set()
        self._dask_worker = dask_worker
        self._key = key
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._worker: Worker | None = None
        self._run: _Run | None = None
        self._is_announced = False

    async def serve(self) -> None:
        """Open the private server, and keep it until the seat is ended or not wanted any more."""
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._announce()
        serving = asyncio.create_task(self._serve())
        while not self._over.is_set() and self._is_wanted():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), WATCH)
        self._over.set()
        if self._run is not None:
            await self._run.cancel()
        serving.cancel()
        await asyncio.wait({serving})

    async def _serve(self) -> None:
        assert self._ready is not None
        try:
            async with Worker(name=f"Dask worker {self._dask_worker.address}") as self._worker:
                host_setting = await self._worker.setting()
                self._ready.set_result(packed_setting(host_setting.kernelspecs))
                await asyncio.Event().wait()
        except Exception as error:
            if self._ready.done():  # while the server is stopped
                raise
            self._ready.set_result(_packed_error(error))

    def _is_wanted(self) -> bool:
        """Return whether the scheduler still wants the task: its batch may have ended in whatever way."""
        task = self._dask_worker.state.tasks.get(self._key)
        is_open = self._dask_worker.status not in (Status.closing, Status.closed, Status.failed)
        return is_open and task is not None and task.state in ("executing", "long-running")

    def _announce(self) -> None:
        self._is_announced = True
        self._dask_worker.log_event(TOPIC, [self._key, self.token, self._dask_worker.address])

    def _announce_news(self, *, soon: bool) -> None:
        assert self._loop is not None
        if not soon:
            self._announce()
        elif not self._is_announced:
            self._is_announced = True
            self._loop.call_later(COLLECT, self._announce)

    def pass_on(self, call: str, arguments: Mapping[str, Any]) -> "Future[Any] | None":
        """Start a call from another thread; return None if the seat has ended."""
        if self._loop is None:
            return None
        if call == "end":
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._over.set)
            return self._ended
        calling = self._call(call, **arguments)
        try:
            answer = asyncio.run_coroutine_threadsafe(calling, self._loop)
        except RuntimeError:
            calling.close()
            return None
        self._calls.add(answer)
        answer.add_done_callback(self._calls.discard)
        return answer

    def end_calls(self) -> None:
        """Answer the calls that came too late, after the loop was closed."""
        self._ended.set_result(None)
        for answer in tuple(self._calls):
            answer.cancel()

    async def _call(self, call: str, **arguments: Any) -> dict[str, Any]:
        if self._over.is_set():
            return {"gone": True}
        match call:
            case "hello":
                assert self._ready is not None
                return await asyncio.shield(self._ready)
            case "check":
                return self._check(Needs(**arguments))
            case "run":
                return self._start(arguments["parcel"])
            case "news":
                self._is_announced = False
                return {"gone": True} if self._run is None else self._run.news(arguments["seen"])
            case "stop":
                if self._run is not None:
                    self._run.stop.pull(arguments["reason"], ExitCode(arguments["exit_code"]))
                return {}
            case _:
                raise ValueError(f"no call of a seat: {call}")

    def _check(self, needs: Needs) -> dict[str, Any]:
        if self._worker is None:
            return {"gone": True}
        try:
            self._worker.check(needs)
        except UsageError as error:
            return _packed_error(error)
        return {}

    def _start(self, data: bytes) -> dict[str, Any]:
        """Start a run. The same parcel may arrive twice, because Dask may repeat a call."""
        parcel = Parcel.decode(data)
        claim = (parcel.batch, parcel.run, parcel.attempt)
        if self._worker is None:
            return {"gone": True}
        if self._run is None or self._run.claim != claim:
            self._run = _Run(claim, lambda: self._announce_news(soon=True))
            self._run.start(parcel, self._worker, lambda: self._announce_news(soon=False))
        return {}


def _packed_error(error: Exception) -> dict[str, Any]:
    """Return an error as an answer."""
    if isinstance(error, NbrunError):
        return {"error": str(error), "hint": error.hint, "is_usage": isinstance(error, UsageError)}
    return {"error": f"a bug: {error!r}", "hint": "Please report it.", "is_usage": False}


class _Run:
    """A run on a seat: its events until they are fetched, and its end."""

    def __init__(self, claim: tuple[str, str, int], notify: Callable[[], None]) -> None:
        self.claim = claim
        self.stop = StopSwitch()
        self._notify = notify
        self._events: list[bytes] = []
        self._size = 0
        self._fetched = 0
        self._end: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, parcel: Parcel, worker: Worker, ended: Callable[[], None]) -> None:
        """Run the parcel in the background, and call `ended` when there is its end."""

        async def go() -> None:
            try:
                self._end = {"delivery": (await worker.run(parcel, self._tell, self.stop)).encode()}
            except SeatLost as error:
                self._end = {"lost": str(error)}
            except Exception as error:  # noqa: BLE001 - a bug must not leave the other side without an answer
                self._end = {"lost": f"the seat ended with a bug: {error!r}"}
            ended()

        self._task = asyncio.create_task(go())

    async def cancel(self) -> None:
        """End the run, if it has not ended."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=END_LIMIT)

    def _tell(self, event: Event) -> None:
        if self._size > BACKLOG and isinstance(event, OutputArrived):
            return
        if (content := packed_event(event)) is not None:
            self._events.append(dumps(content))
            self._size += len(self._events[-1])
            self._notify()

    def news(self, seen: int) -> dict[str, Any]:
        """Return the events after the first `seen` ones, and the end if all of them are there."""
        known = max(0, seen - self._fetched)
        self._size -= sum(map(len, self._events[:known]))
        del self._events[:known]
        self._fetched += known
        size = number = 0
        while number < len(self._events) and size < PORTION:
            size += len(self._events[number])
            number += 1
        is_all = number == len(self._events)
        return {"events": self._events[:number], "more": not is_all, **(self._end if is_all else {})}
