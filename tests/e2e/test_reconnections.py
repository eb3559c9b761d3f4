"""Cut and silent connections: nothing is lost, or the run reports the loss."""

import asyncio
import random
from typing import Any

import pytest

import nbrun
from nbrun.core.delivery.loss_mark import Cause
from nbrun.jupyter.kernel import websocket
from tests.support.live_runs import Place, live_run, printed, text_of
from tests.support.notebooks import notebook
from tests.support.proxy import Proxy, proxy

COUNTING = "import time\nfor i in range({}):\n    print(i, flush=True)\n    time.sleep({})"
MIXED = """
import sys, time
for i in range(12):
    print(f"{0}:{{i}}", flush=True)
    time.sleep({1})
    display(i)
    if i == 6:
        print("aside", file=sys.stderr, flush=True)
{0}"""
LIMIT = 240.0


def counted(outputs: list[dict[str, Any]]) -> list[int]:
    """Return the numbers that a cell printed."""
    return [int(line) for line in text_of(outputs).split()]


async def cut(wire: Proxy, outage: float) -> None:
    """Cut the connections, and let nobody in for so many seconds."""
    if not outage:
        wire.cut()
        return
    async with wire.outage():
        await asyncio.sleep(outage)


async def run_and_cut(
    place: Place, name: str, cells: list[str], after: float, outage: float, **options: Any
) -> nbrun.NotebookResult:
    """Run a notebook behind a proxy of its own, which cuts it so many seconds after the first output."""
    assert place.server is not None
    path = place.write(notebook(*cells), name)
    async with proxy(place.server) as wire:
        options = {**place.options, "server": wire.url, "startup_timeout": LIMIT, **options}
        async with live_run(path, **options) as live:
            await asyncio.wait_for(live.watch.event(lambda event: bool(printed(event))), LIMIT)
            await asyncio.sleep(after)
            await cut(wire, outage)
            return await asyncio.wait_for(live.task, LIMIT)


async def cut_many(place: Place, cells: list[str], moments: list[float], outage: float, **options: Any) -> int:
    """Run as many notebooks side by side, each cut at its moment; returns how many of them lost nothing.

    What a server has written to a connection that is cut before it arrived is gone: where the kernel does not send it
    again, the run has to say so, to the last message.
    """
    begun = [
        run_and_cut(place, f"cut-{number}.ipynb", cells, after, outage, **options)
        for number, after in enumerate(moments)
    ]
    results = await asyncio.gather(*begun)
    numbers = int(cells[0].split("range(")[1].split(")")[0])
    whole = 0
    for number, result in enumerate(results):
        said = (moments[number], outage, result.problem)
        outputs = place.outputs(f"cut-{number}.ipynb")
        seen = [counted([each for each in shown if each["name"] == "stdout"]) for shown in outputs]
        assert all(sorted(set(count)) == count for count in seen), said  # nothing twice, and all in order
        lost = [numbers - len(count) for count in seen]
        told = [cell.incomplete.lost if cell.incomplete else 0 for cell in result.cells]
        assert told == lost, said
        assert result.outcome is (nbrun.Outcome.INCOMPLETE if any(lost) else nbrun.Outcome.PASSED), said
        whole += not any(lost)
    assert place.nothing_is_left()
    print(f"{whole} of {len(moments)} runs, cut once with {outage:g} s of outage, lost nothing")
    return whole


async def test_a_cut_connection_costs_no_output_with_or_without_an_outage(on_stock: Place) -> None:
    cells = [COUNTING.format(30, 0.05)] * 2
    for outage in (0.0, 1.0):
        assert await cut_many(on_stock, cells, [0.1, 0.7, 1.6, 2.9], outage) == 4


async def test_what_a_cut_costs_without_resending_is_told(on_stock: Place) -> None:
    await cut_many(on_stock, [COUNTING.format(30, 0.05)] * 2, [0.1, 0.7, 1.6], 0.0, resend=False)


@pytest.mark.parametrize("pipeline", [1, 8, "auto"])
async def test_a_cut_run_saves_what_an_undisturbed_one_does(on_stock: Place, pipeline: int | str) -> None:
    cells = [MIXED.format(number, 0.04) for number in range(4)]
    quick = [MIXED.format(number, 0) for number in range(4)]
    assert (await on_stock.run(*quick, record_timing=False)).outcome is nbrun.Outcome.PASSED
    undisturbed = on_stock.read()
    assert on_stock.server is not None
    path = on_stock.write(notebook(*cells))
    async with proxy(on_stock.server) as wire:
        options = {**on_stock.options, "server": wire.url, "record_timing": False, "pipeline": pipeline}
        async with live_run(path, **options) as live:
            for number in range(4):
                # What has been sent meanwhile lies in the proxy, and goes with the connection.
                await live.watch.printed(f"{number}:3")
                wire.deafen()
                await asyncio.sleep(0.1)
                wire.cut()
            result = await live.result()
    assert (result.outcome, result.warnings) == (nbrun.Outcome.PASSED, ())
    assert [cell["outputs"] for cell in on_stock.read()["cells"]] == [cell["outputs"] for cell in undisturbed["cells"]]


async def test_a_result_that_is_sent_again_stays_behind_what_was_printed_before_it(on_stock: Place) -> None:
    """The kernel numbers the result first, and then sends the text."""
    cell = """
import sys, time
from IPython.display import clear_output
print("go{0}", flush=True)
time.sleep(0.05)
shown = display("shown", display_id=True)
print("cleared", flush=True)
clear_output()
print("error", file=sys.stderr, flush=True)
shown.update("updated")
print("text")
{0}"""
    cells = [cell.format(number) for number in range(3)]
    assert (await on_stock.run(*cells, record_timing=False)).outcome is nbrun.Outcome.PASSED
    undisturbed = on_stock.outputs()
    assert on_stock.server is not None
    path = on_stock.write(notebook(*cells))
    async with proxy(on_stock.server) as wire:
        options = {**on_stock.options, "server": wire.url, "record_timing": False}
        async with live_run(path, **options) as live:
            for number in range(3):
                await live.watch.printed(f"go{number}")
                wire.deafen()
                await asyncio.sleep(0.2)
                wire.cut()
            result = await live.result()
    assert (result.outcome, result.warnings) == (nbrun.Outcome.PASSED, ())
    assert on_stock.outputs() == undisturbed


async def test_what_a_deaf_connection_swallowed_comes_again(on_stock: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every last word of the kernel: the reply, the idle, and what follows no more."""
    for name, seconds in {"PING_EVERY": 0.6, "PONG_WITHIN": 0.6, "PONG_GRACE": 0.2}.items():
        monkeypatch.setattr(websocket, name, seconds)
    assert on_stock.server is not None
    path = on_stock.write(notebook(COUNTING.format(100, 0.005), "print('after')"))
    async with proxy(on_stock.server) as wire, live_run(path, **{**on_stock.options, "server": wire.url}) as live:
        await live.watch.printed(r"\b20\b")
        wire.deafen()
        result = await live.result()
    counting, after = on_stock.outputs()
    assert result.outcome is nbrun.Outcome.PASSED
    assert counted(counting) == list(range(100))
    assert text_of(after) == "after\n"


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("outage", [0.0, 10.0], ids=["at once back", "ten seconds away"])
async def test_of_a_minute_of_counting_nothing_is_lost_in_silence_wherever_it_is_cut(
    on_stock: Place, outage: float
) -> None:
    cells = [COUNTING.format(200, 0.1)] * 3
    moments = [random.uniform(0.0, 58.0) for _ in range(20)]
    assert await cut_many(on_stock, cells, moments, outage) == len(moments)


async def test_a_connection_that_died_without_a_word_is_found_and_what_it_swallowed_is_told(
    on_stock: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"PING_EVERY": 0.6, "PONG_WITHIN": 0.6, "PONG_GRACE": 0.2}.items():
        monkeypatch.setattr(websocket, name, seconds)
    assert on_stock.server is not None
    path = on_stock.write(notebook("1", "2", COUNTING.format(300, 0.02), "print('after')"))
    options = {**on_stock.options, "resend": False}
    async with proxy(on_stock.server) as wire, live_run(path, **{**options, "server": wire.url}) as live:
        await live.watch.printed(r"\b20\b")
        wire.deafen()
        result = await live.result()
    _, _, flood, after = on_stock.outputs()
    arrived = counted([output for output in flood if output["name"] == "stdout"])
    assert 20 < len(arrived) < 300
    assert arrived[-1] == 299  # it was found, and the rest came over a new connection
    lost = result.cells[2].incomplete
    assert (result.outcome, result.exit_code) == (nbrun.Outcome.INCOMPLETE, nbrun.ExitCode.INCOMPLETE)
    assert lost is not None
    assert Cause.MISSING_MESSAGES in lost.causes
    assert lost.lost is not None
    assert lost.lost == pytest.approx(300 - len(arrived), abs=3)  # a line is now and then two messages
    assert text_of(after) == "after\n"


async def test_a_connection_is_not_given_up_as_long_as_its_server_answers_nobody_else(
    on_stock: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"PING_EVERY": 0.3, "PONG_WITHIN": 0.3, "PONG_GRACE": 0.2}.items():
        monkeypatch.setattr(websocket, name, seconds)
    assert on_stock.server is not None
    path = on_stock.write(notebook(COUNTING.format(2, 0.3)))
    async with proxy(on_stock.server) as wire, live_run(path, **{**on_stock.options, "server": wire.url}) as live:
        await live.watch.printed(r"\b0\b")
        wire.heard.clear()
        wire.drop("GET", "api/kernels/", times=3)
        wire.deafen()
        result = await live.result()
    kernel = [line for line in wire.lines("GET") if "/api/kernels/" in line]
    handshake = next(place for place, line in enumerate(kernel) if line.endswith("/channels"))
    assert handshake >= 4
    assert result.cells[0].outcome is nbrun.CellOutcome.PASSED
