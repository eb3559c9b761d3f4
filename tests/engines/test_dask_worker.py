"""What a seat on a Dask worker keeps for the other side: events until they are fetched, and the end of a run."""

import asyncio
import json
from typing import Any

from nbrun.core.batch.parcels import Delivery, Parcel
from nbrun.core.events import CellStarted, Event, OutputArrived
from nbrun.core.outputs.mimebundle import stream_output
from nbrun.core.results import NotebookResult, Outcome
from nbrun.engines.dask_worker import BACKLOG, PORTION, _Run
from nbrun.errors import SeatLost

DELIVERY = Delivery("r", 1, NotebookResult("1", "r", None, None, Outcome.PASSED, "", 0.0, []), b"{}")


class _Worker:
    """Tells events, and then ends in the given way."""

    def __init__(self, events: list[Event], end: Delivery | Exception) -> None:
        self.events, self.end = events, end

    async def run(self, parcel: Any, tell: Any, stop: Any) -> Delivery:
        for event in self.events:
            tell(event)
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


async def ended(events: list[Event], end: Delivery | Exception = DELIVERY) -> _Run:
    """Return a run that has ended."""
    over = asyncio.Event()
    run = _Run(("b", "r", 1), lambda: None)
    worker: Any = _Worker(events, end)
    run.start(Parcel("b", "r", 1, "r", "/", b""), worker, over.set)
    await asyncio.wait_for(over.wait(), 5)
    return run


def output(size: int) -> OutputArrived:
    return OutputArrived("r", 0, stream_output("stdout", "x" * size))


async def test_events_are_kept_until_the_next_call_says_that_they_arrived() -> None:
    run = await ended([CellStarted("r", number, 1, 1) for number in range(3)])
    first = run.news(0)
    assert [json.loads(event)["index"] for event in first["events"]] == [0, 1, 2]
    assert first["delivery"] == DELIVERY.encode()
    assert run.news(0) == first  # the answer was lost
    assert [json.loads(event)["index"] for event in run.news(2)["events"]] == [2]
    assert run.news(3)["events"] == []
    assert run.news(1)["events"] == []  # an old call that Dask repeated


async def test_many_events_are_fetched_in_portions_and_the_delivery_comes_with_the_last_one() -> None:
    run = await ended([output(50_000) for _ in range(PORTION // 50_000 + 5)])
    first = run.news(0)
    assert (first["more"], "delivery" in first) == (True, False)
    last = run.news(len(first["events"]))
    assert (last["more"], "delivery" in last) == (False, True)
    assert len(first["events"]) + len(last["events"]) == PORTION // 50_000 + 5


async def test_outputs_that_nobody_fetches_are_bounded_and_other_events_are_kept() -> None:
    run = await ended([*(output(50_000) for _ in range(1000)), CellStarted("r", 1, 1, 1)])
    size = seen = 0
    kinds = []
    while answer := run.news(seen):
        size += sum(map(len, answer["events"]))
        kinds += [json.loads(event)["event"] for event in answer["events"]]
        seen += len(answer["events"])
        if not answer["more"]:
            break
    assert BACKLOG < size < BACKLOG + 200_000
    assert kinds[-1] == "cell-started"


async def test_a_lost_seat_and_a_bug_are_answered() -> None:
    assert (await ended([], SeatLost("gone"))).news(0)["lost"] == "gone"
    assert "bug" in (await ended([], KeyError("x"))).news(0)["lost"]
