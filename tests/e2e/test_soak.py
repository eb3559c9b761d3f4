"""Many notebooks in sequence through one process and one server leave nothing behind."""

import asyncio
import gc
import time

import psutil
import pytest

import nbrun
from tests.support.live_runs import Place
from tests.support.notebooks import notebook

CELLS = ("import json\nx = list(range(1000))", "for i in range(100): print(i)", "x[:10]", "display(*range(20))")


def descriptors() -> int:
    number: int = psutil.Process().num_fds()
    return number


def memory() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    rss: int = psutil.Process().memory_info().rss
    return rss


async def run_many(place: Place, path: str, times: int) -> None:
    for _ in range(times):
        result = await nbrun.run_async(path, **place.options)
        assert result.outcome is nbrun.Outcome.PASSED, result


async def soak(place: Place, *, warm_up: int, times: int) -> dict[str, int]:
    """Run a notebook often; returns by how much this process has grown since it was warm."""
    assert place.server is not None
    path = place.write(notebook(*CELLS))
    server = psutil.Process(place.server.process.pid)
    await run_many(place, path, warm_up)
    before = (descriptors(), server.num_fds(), memory(), len(asyncio.all_tasks()))
    await run_many(place, path, times)
    assert place.nothing_is_left()
    until = time.monotonic() + 10
    while server.num_fds() > before[1] and time.monotonic() < until:  # until it sees that the connections are closed
        await asyncio.sleep(0.02)
    after = (descriptors(), server.num_fds(), memory(), len(asyncio.all_tasks()))
    names = ("descriptors", "descriptors of the server", "memory", "tasks")
    return {name: now - then for name, then, now in zip(names, before, after, strict=True)}


def check(grown: dict[str, int], *, memory: int) -> None:
    print(grown)
    assert grown["tasks"] == 0
    assert grown["descriptors"] <= 0
    assert grown["descriptors of the server"] <= 4  # it keeps a few connections alive for a while
    assert grown["memory"] <= memory


async def test_of_a_few_notebooks_nothing_stays_behind(on_stock: Place) -> None:
    check(await soak(on_stock, warm_up=2, times=4), memory=8 << 20)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_of_five_hundred_notebooks_nothing_stays_behind(on_stock: Place) -> None:
    check(await soak(on_stock, warm_up=20, times=500), memory=16 << 20)
