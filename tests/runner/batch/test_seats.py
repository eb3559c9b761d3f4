"""The pool of seats: order, losses, limits, and the end of the engine."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.batch.parcels import Needs
from nbrun.core.planning.job import Job
from nbrun.errors import ExitCode, NbrunError, NoSuchKernel, SeatLost, ServerError, UsageError
from nbrun.jupyter.kernelspecs import KernelSpec, KernelSpecs
from nbrun.runner.batch.seats import SeatPool, check_kernels
from nbrun.runner.engine import SeatSetting
from nbrun.runner.job import NotebookPaths, PlannedRun
from nbrun.version import __version__
from tests.support.notebooks import notebook, write_notebook


def kernels(*names: str) -> KernelSpecs:
    return KernelSpecs("", {name: KernelSpec(name, name, "python") for name in names})


@dataclass(eq=False)
class Place:
    """A seat without any server."""

    name: str
    setting: SeatSetting | None = None
    is_gone: bool = False
    is_closed: bool = False
    lacks: NbrunError | None = None

    def gone(self) -> bool:
        return self.is_gone

    def was_retired(self) -> bool:
        return False

    async def check(self, needs: Needs) -> None:
        if self.lacks is not None:
            raise self.lacks

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class Places:
    """An engine whose seats are numbered; ``make`` may raise an exception or wait."""

    make: Callable[[int], Place] = lambda number: Place(f"seat {number}")
    most: int = 1000
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    started: int = 0
    is_left: bool = False
    executes: bool = False

    @contextlib.asynccontextmanager
    async def seats(self, wanted: int) -> AsyncIterator[AsyncIterator[Place]]:
        async def each() -> AsyncIterator[Place]:
            for _ in range(self.most):
                await self.ready.wait()
                self.started += 1
                yield self.make(self.started)

        try:
            yield each()
        finally:
            self.is_left = True


@contextlib.asynccontextmanager
async def pool(
    engine: Places, wanted: int = 2, *, startup: float = math.inf, ready: bool = True, needs: Needs | None = None
) -> AsyncIterator[SeatPool]:
    if ready:
        engine.ready.set()
    seats = SeatPool(engine, wanted, startup=startup, needs=needs)
    try:
        yield seats
    finally:
        await seats.close()
        assert engine.is_left or not engine.started


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nothing_is_started_before_a_run_needs_a_seat() -> None:
    engine = Places()
    async with pool(engine) as seats:
        await settle()
        assert (engine.started, seats.is_open) == (0, False)
        assert (await seats.take()).name == "seat 1"
        await settle()
        assert (engine.started, seats.is_open) == (1, True)


async def test_there_are_never_more_seats_than_wanted_and_the_first_run_gets_the_free_one() -> None:
    engine = Places()
    async with pool(engine, 2) as seats:
        first, _ = await seats.take(), await seats.take()
        waiting = [asyncio.create_task(seats.take()) for _ in range(2)]
        await settle()
        assert engine.started == 2
        await seats.give_back(first)
        assert await waiting[0] is first
        assert not waiting[1].done()
        waiting[1].cancel()


async def test_a_lost_seat_is_closed_and_replaced() -> None:
    engine = Places()
    async with pool(engine, 1) as seats:
        first = await seats.take()
        assert isinstance(first, Place)
        await seats.lose(first)
        assert first.is_closed
        assert (await seats.take()).name == "seat 2"


async def test_a_seat_that_is_gone_is_not_given_to_a_run() -> None:
    engine = Places()
    async with pool(engine, 2) as seats:
        one, two = await seats.take(), await seats.take()
        await seats.give_back(one)
        assert isinstance(one, Place)
        assert isinstance(two, Place)
        one.is_gone = two.is_gone = True
        assert (await seats.take()).name == "seat 3"
        await seats.give_back(two)
        assert two.is_closed
        assert (await seats.take()).name == "seat 4"


async def test_a_run_that_stops_waiting_leaves_its_seat_to_the_next() -> None:
    engine = Places()
    async with pool(engine, 1) as seats:
        only = await seats.take()
        first, second = (asyncio.create_task(seats.take()) for _ in range(2))
        await settle()
        await seats.give_back(only)  # assigned to the first
        first.cancel()
        assert await second is only


async def test_without_a_seat_in_time_the_batch_fails() -> None:
    engine = Places()
    async with pool(engine, startup=0.1, ready=False) as seats:
        with pytest.raises(ServerError, match=r"no seat for 0\.1 s, and there was none before") as raised:
            await seats.take()
        assert "--startup-timeout" in raised.value.hint
        with pytest.raises(ServerError):
            await seats.take()
        assert seats.failure is raised.value


async def test_while_there_is_a_seat_a_run_waits_without_limit() -> None:
    engine = Places(most=1)
    async with pool(engine, 2, startup=0.05) as seats:
        only = await seats.take()
        second = asyncio.create_task(seats.take())
        await asyncio.wait({second}, timeout=0.15)
        assert not second.done()
        await seats.lose(only)
        with pytest.raises(ServerError, match="no seat left"):
            await second


@pytest.mark.parametrize("error", [ServerError("refused"), UsageError("wrong")], ids=["server", "usage"])
async def test_an_error_of_the_engine_ends_all_waiting_runs(error: NbrunError) -> None:
    def make(number: int) -> Place:
        raise error

    async with pool(Places(make)) as seats:
        for ended in await asyncio.gather(seats.take(), seats.take(), return_exceptions=True):
            assert ended is error


async def test_a_bug_of_an_engine_is_named() -> None:
    def make(number: int) -> Place:
        raise ZeroDivisionError("a bug")

    async with pool(Places(make)) as seats:
        with pytest.raises(NbrunError, match="the engine ended with a bug: ZeroDivisionError") as raised:
            await seats.take()
        assert raised.value.exit_code is ExitCode.BUG


async def test_an_error_after_some_seats_does_not_end_the_runs_on_them() -> None:
    def make(number: int) -> Place:
        if number == 2:
            raise ServerError("refused")
        return Place(str(number))

    engine = Places(make)
    async with pool(engine) as seats:
        await seats.take()
        with pytest.raises(ServerError, match="refused"):
            await seats.take()
        await settle()
        assert not engine.is_left


async def test_seats_that_are_lost_again_and_again_are_given_up() -> None:
    async def use(seats: SeatPool) -> None:
        while True:
            await seats.lose(await seats.take())

    async with pool(Places(), 2) as seats, asyncio.timeout(10):
        with pytest.raises(ServerError, match="9 seats in a row were lost"):
            await use(seats)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (SeatSetting(kernels("python3"), nbrun="0.0.1"), f"has nbrun 0.0.1, and this machine has {__version__}"),
        (SeatSetting(kernels("python3"), __version__, "2.7.18"), "has Python 2.7, and this machine has 3."),
    ],
    ids=["nbrun", "python"],
)
async def test_a_seat_with_other_versions_ends_the_batch_before_its_first_run(setting: SeatSetting, said: str) -> None:
    async with pool(Places(lambda number: Place("node 7", setting))) as seats:
        with pytest.raises(UsageError, match=f"node 7: the seat {said}"):
            await seats.take()


async def test_a_later_seat_with_other_kernels_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    made = [Place("a", SeatSetting(kernels("python3"))), Place("b", SeatSetting(kernels("python3", "ir"))),
            Place("c", SeatSetting(kernels("python3")))]  # fmt: skip
    async with pool(Places(lambda number: made[number - 1])) as seats:
        assert (await seats.take()).name == "a"
        assert (await seats.take()).name == "c"
    assert made[1].is_closed
    assert "b: the seat has other kernelspecs than the first one: ir; it is not used" in caplog.text


async def test_a_seat_that_lacks_something_ends_the_batch_before_its_first_run_and_is_not_used_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacks = UsageError("it has no KEY")
    async with pool(Places(lambda number: Place(f"seat {number}", lacks=lacks)), needs=Needs()) as seats:
        with pytest.raises(UsageError, match="it has no KEY"):
            await seats.take()

    # One that is lost while it is checked is replaced, before the first run and later.
    errors = {1: SeatLost("gone"), 3: lacks, 4: SeatLost("gone")}
    engine = Places(lambda number: Place(f"seat {number}", lacks=errors.get(number)))
    async with pool(engine, needs=Needs()) as seats:
        assert [(await seats.take()).name for _ in range(2)] == ["seat 2", "seat 5"]
    assert "it has no KEY; it is not used" in caplog.text


async def test_the_first_seat_is_checked_before_a_run_gets_it() -> None:
    checked: list[str] = []

    def check(name: str, setting: SeatSetting) -> None:
        checked.append(name)
        if "ir" in setting.kernelspecs.specs:
            raise UsageError("refused")

    settings = {name: SeatSetting(kernels(name)) for name in ("python3", "ir")}
    made = {name: [Place(f"seat {number}", setting) for number in (1, 2)] for name, setting in settings.items()}
    for name, refused in (("python3", False), ("ir", True)):
        engine = Places(lambda number, places=made[name]: places[number - 1])  # type: ignore[misc]
        engine.ready.set()
        seats = SeatPool(engine, 2, check=check)
        taken = await asyncio.gather(seats.take(), seats.take(), return_exceptions=True)
        await seats.close()
        assert [isinstance(each, UsageError) for each in taken] == [refused, refused]
    assert checked == ["seat 1", "seat 1"]


@pytest.mark.parametrize(
    ("kernel", "options", "said"),
    [
        ("python3", {}, ""),
        ("cobol", {}, "a: the seat s has no kernel 'cobol', which the notebook names"),
        ("cobol", {"upload": False}, ""),
        ("python3", {"upload": False, "kernel": "cobol"}, "a: the seat s has no kernel 'cobol'"),
        (None, {}, ""),
    ],
    ids=["there", "missing", "elsewhere", "option", "unreadable"],
)
def test_a_kernel_that_a_seat_does_not_have_is_named(
    tmp_path: Path, kernel: str | None, options: dict[str, Any], said: str
) -> None:
    path = tmp_path / "a.ipynb"
    if kernel is None:
        path.write_text("{")
    else:
        write_notebook(path, notebook("1", kernel=kernel))
    paths = NotebookPaths(str(path), upload=options.get("upload", True))
    planned = PlannedRun("a", Job("a", kernel=options.get("kernel")), paths)
    with pytest.raises(NoSuchKernel, match=said) if said else contextlib.nullcontext():
        check_kernels([planned], "s", SeatSetting(kernels("python3")))
