"""Engines and seats: where the runs of a batch are executed.

An engine provides seats. A seat runs one notebook at a time. The batch loop takes the next free seat for the next run,
and keeps retries, results, outputs and reports to itself. There are two kinds of seats:

- A :class:`ControlledSeat` is an open Jupyter server without nbrun, such as a named server of a hub. This process
  controls it in the same way as the server of ``--server``.
- An :class:`ExecutingSeat` has nbrun. It receives a :class:`~nbrun.core.batch.parcels.Parcel`, sends the events of the
  run, and returns a :class:`~nbrun.core.batch.parcels.Delivery`.

Engines of other packages are entry points of the group ``nbrun.engines``, see docs/engines.md.
"""

import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from nbrun.core.events import Event
from nbrun.core.planning.job import STARTUP_LIMIT
from nbrun.core.planning.option_types import Kind, nearest
from nbrun.errors import NbrunError, SeatLost, ServerUnreachable, UsageError
from nbrun.jupyter.http.retry import RETURN
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.runner.job import Access, engine_name
from nbrun.runner.servers import Host, existing_host
from nbrun.runner.stop import StopSwitch
from nbrun.version import __version__

if TYPE_CHECKING:
    from nbrun.core.batch.parcels import Delivery, Needs, Parcel

SIGN_OF_LIFE = 5.0
"""Seconds in which the server of a seat must answer, after a run on it lost its connection."""


class SeatSetting(Struct, frozen=True):
    """What must be the same on all seats of an engine. ``nbrun`` and ``python`` are empty for controlled seats."""

    kernelspecs: KernelSpecs
    nbrun: str = ""
    python: str = ""

    def check(self, name: str, first: "SeatSetting | None" = None) -> None:
        """Raise :class:`UsageError` if the seat `name` differs from this process or from the `first` seat."""
        for what, ours, theirs in (
            ("nbrun", __version__, self.nbrun),
            ("Python", platform.python_version().rpartition(".")[0], self.python.rpartition(".")[0]),
        ):
            if theirs and ours != theirs:
                hint = f"Install the same {what} on all seats and on this machine."
                raise UsageError(f"{name}: the seat has {what} {theirs}, and this machine has {ours}", hint=hint)
        if first is None:
            return
        known, found = _languages(first.kernelspecs), _languages(self.kernelspecs)
        if known != found:
            differing = sorted({kernel for kernel, _ in known.items() ^ found.items()})
            raise UsageError(
                f"{name}: the seat has other kernelspecs than the first one: {', '.join(differing)}",
                hint=f"It has {', '.join(found) or 'none'}; the first seat has {', '.join(known) or 'none'}.",
            )


def _languages(kernelspecs: KernelSpecs) -> Mapping[str, str]:
    return {name: spec.language for name, spec in kernelspecs.specs.items()}


class Seat(Protocol):
    """A place that runs one notebook at a time."""

    @property
    def name(self) -> str:
        """Return the name of the seat, for messages."""

    @property
    def setting(self) -> SeatSetting | None:
        """Return what must be the same on all seats; None if it need not be compared."""

    def gone(self) -> bool:
        """Return whether the seat is known to be lost, without waiting."""

    def was_retired(self) -> bool:
        """Return whether the seat was lost because its place was taken away in an orderly way.

        Then the run on it is not what ended it.
        """

    async def close(self) -> None:
        """End the seat after it was lost. A seat that is not lost is ended by its engine."""


class ExecutingSeat(Seat, Protocol):
    """A seat that has nbrun and runs notebooks by itself."""

    async def check(self, needs: "Needs") -> None:
        """Raise :class:`UsageError` if the seat lacks something that the runs need, or :class:`SeatLost`."""

    async def run(self, parcel: "Parcel", tell: Callable[[Event], None], stop: StopSwitch) -> "Delivery":
        """Run a notebook, call `tell` with its events, and return its delivery.

        When `stop` is pulled, the seat interrupts the run and delivers what there is. Raises :class:`SeatLost` only.
        A seat that is asked for the same run and attempt a second time raises it without executing anything.
        """


class ControlledSeat(Struct, frozen=True, eq=False):
    """A seat that is an open server, which this process controls.

    ``is_lost`` is called after a run on the seat lost its server, and returns whether the seat must be replaced.
    ``ending`` is called to end a lost seat.
    """

    name: str
    host: Host
    is_lost: Callable[[], Awaitable[bool]]
    setting: SeatSetting | None = None
    ending: Callable[[], Awaitable[object]] | None = None

    def gone(self) -> bool:
        """Return whether the seat is known to be lost, without waiting."""
        return self.host.gone()

    def was_retired(self) -> bool:
        """Return False; whether a server was ended in an orderly way is not known."""
        return False

    async def close(self) -> None:
        """End the seat after it was lost."""
        if self.ending is not None:
            await self.ending()


@asynccontextmanager
async def server_seat(
    name: str, access: Access, *, startup: float = 0.0, ended: Callable[[], Awaitable[bool]] | None = None
) -> AsyncIterator[ControlledSeat]:
    """Connect to a Jupyter server, and yield it as a seat; the notebooks are uploaded to it, or are its own files.

    A server that does not answer yet is waited for, up to `startup` seconds. `ended` returns whether the server is
    known to have ended. It is called when a connection failed, and saves the time of reconnecting. Raises the errors
    of :meth:`nbrun.jupyter.client.Client.probe`.
    """
    has_ended = False

    async def is_over() -> bool:
        nonlocal has_ended
        has_ended = has_ended or (ended is not None and await ended())
        return has_ended

    async def explain(error: ServerUnreachable) -> NbrunError:
        return SeatLost(f"{name}: the server has ended") if await is_over() else error

    async with AsyncExitStack() as stack:
        opening = RETURN.within(startup)
        host = await opening.call(
            lambda: stack.enter_async_context(existing_host(access, on_engine=True, explain=explain))
        )
        kernelspecs = await host.server.client.kernelspecs()

        async def is_lost() -> bool:
            return await is_over() or not await host.server.answers_within(SIGN_OF_LIFE, checks_token=True)

        host = replace(host, gone=lambda: has_ended)
        yield ControlledSeat(name, host, is_lost, SeatSetting(kernelspecs))


class Engine(Protocol):
    """Provides seats."""

    executes: bool
    """Whether the seats are :class:`ExecutingSeat`, and not :class:`ControlledSeat`."""

    def seats(self, wanted: int) -> AbstractAsyncContextManager[AsyncIterator[Seat]]:
        """Provide up to `wanted` seats at a time, and end everything that was started at the end of the block.

        The iterator waits for a seat and yields it. The next seat is requested only when a run waits, and there are
        fewer than `wanted` seats. So the engine may start all of them at once, and yields another one for each that
        was lost. The iterator ends if there will never be another seat. It raises :class:`NbrunError` for a failure of
        the engine. The block must be left within ten seconds.
        """


class EngineCall(Struct, frozen=True):
    """How an engine was requested; the argument of the function that an entry point names.

    ``url`` is the address as it was given, and ``settings`` the table ``[tool.nbrun.engine.NAME]``. ``access`` has the
    token, headers and TLS settings of the call. ``startup`` is the time limit in seconds for a seat. ``on_server``
    means that the notebooks are files of the seats' servers, and not of this machine (``--no-upload``).
    """

    url: str
    access: Access
    settings: Mapping[str, Any] = field(default_factory=dict)
    startup: float = STARTUP_LIMIT
    on_server: bool = False

    def read(self, known: Mapping[str, Kind]) -> dict[str, Any]:
        """Return the given settings as their kinds read them; raise :class:`UsageError` for others."""
        table = f"[tool.nbrun.engine.{engine_name(self.url)}]"
        found = {}
        for name, value in self.settings.items():
            if name not in known:
                near = nearest(name, known, 1)
                hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known) or 'none'}."
                raise UsageError(f"{table}: {name} is no setting of this engine", hint=hint)
            try:
                found[name] = known[name].read(value)
            except ValueError as error:
                raise UsageError(f"{table}: {name} {error}") from None
        return found


MakeEngine = Callable[[EngineCall], Engine]
"""What an entry point names: checks the address and the settings, and returns the engine. It starts nothing.

Raises :class:`UsageError`, also for an extra that is not installed.
"""
