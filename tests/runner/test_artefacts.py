"""The collection of artefacts takes a bounded time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.planning.job import Job
from nbrun.errors import ExitCode, UsageError
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.kernel_session import Server
from nbrun.runner import artefacts
from nbrun.runner.artefacts import Collecting
from nbrun.runner.stop import StopSwitch


class Slow:
    """A folder that is not listed before it is allowed to."""

    def __init__(self) -> None:
        self.asked, self.allowed = asyncio.Event(), asyncio.Event()

    async def entries(self, path: str) -> list[Any]:
        self.asked.set()
        await self.allowed.wait()
        return []


def collecting(stop: StopSwitch, root: Path) -> tuple[Collecting, Slow]:
    server = Server.private(Client(Endpoint("http://localhost/")), str, root)
    found = Collecting(Job("nb.ipynb"), ["*.csv"], server, "work/nb.ipynb", str, stop)
    slow = Slow()
    found._folder = slow  # type: ignore[assignment]
    return found, slow


async def test_files_that_are_not_listed_in_time_end_the_run_before_its_first_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "LISTING_LIMIT", 0.01)
    found, _ = collecting(StopSwitch(), tmp_path)
    with pytest.raises(UsageError, match=r"^--artefacts: the files that match \*\.csv were not found within"):
        await found.begin()
    await found.end(soon=True)
    assert found.missing == []


@pytest.mark.parametrize("how", ["late", "stopped"])
async def test_files_that_are_not_collected_in_time_are_missing(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopSwitch()
    found, slow = collecting(stop, tmp_path)
    slow.allowed.set()
    await found.begin()
    slow.allowed.clear()
    slow.asked.clear()
    monkeypatch.setattr(artefacts, "SHORT_LIMIT", 0.01)
    ending = asyncio.create_task(found.end(soon=how == "late"))
    await slow.asked.wait()
    if how == "stopped":
        stop.pull("stopped by the test", ExitCode.INTERRUPTED)
    await ending
    await found.ended()
    assert found.unsaved
    said = "before stopped by the test" if how == "stopped" else "within"
    assert said in found.missing[0]
