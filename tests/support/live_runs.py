"""A run in the test's own event loop, observed while it is in progress.

The one idea: a cell prints a word when it has come to the point at which the test wants to strike, and the run's own
events bring the word here. So no test waits longer than it must, or strikes too early on a slow machine.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbrun
from nbrun.core.events import Event, OutputArrived, Stage, StageEntered, Warned
from tests.support.notebooks import Notebook, notebook, read_notebook, write_notebook
from tests.support.servers import RunningServer

STEP_LIMIT = 90.0
"""Maximum seconds of a wait in a test."""


@dataclass
class Watch:
    """Records the events of a run."""

    events: list[Event] = field(default_factory=list)
    _waiting: list[tuple[Callable[[Event], bool], asyncio.Future[Event]]] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        """Handle an event of the run."""
        self.events.append(event)
        for wanted, found in self._waiting:
            if not found.done() and wanted(event):
                found.set_result(event)

    @property
    def warnings(self) -> list[str]:
        """Return the warnings of the run so far."""
        return [event.text for event in self.events if isinstance(event, Warned)]

    async def event(self, wanted: Callable[[Event], bool]) -> Event:
        """Wait for the first matching event; past events count."""
        for event in self.events:
            if wanted(event):
                return event
        found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, found))
        try:
            return await asyncio.wait_for(found, STEP_LIMIT)
        except TimeoutError:
            raise AssertionError(f"not within {STEP_LIMIT:g} s; the last events are {self.events[-8:]}") from None

    async def stage(self, stage: Stage) -> None:
        """Wait until the run has reached a stage."""
        await self.event(lambda event: isinstance(event, StageEntered) and event.stage is stage)

    async def printed(self, pattern: str) -> str:
        """Wait until a cell has printed a match in one piece; return the match's first group, or all of it."""
        event = await self.event(lambda event: re.search(pattern, printed(event)) is not None)
        match = re.search(pattern, printed(event))
        assert match is not None
        return match.group(1) if match.groups() else match.group()


def printed(event: Event) -> str:
    """Return the text that a cell printed in this event."""
    return str(event.output.get("text", "")) if isinstance(event, OutputArrived) else ""


@dataclass
class LiveRun:
    """A run in progress."""

    watch: Watch
    task: asyncio.Task[nbrun.NotebookResult]

    async def result(self) -> nbrun.NotebookResult:
        """Wait for its result."""
        return await asyncio.wait_for(asyncio.shield(self.task), STEP_LIMIT)


@contextlib.asynccontextmanager
async def live_run(notebook: str | Path, **options: Any) -> AsyncIterator[LiveRun]:
    """Start a run, and cancel it if it is still in progress at the end of the block."""
    watch = Watch()
    task = asyncio.create_task(nbrun.run_async(notebook, observe=watch.observe, **options))
    try:
        yield LiveRun(watch, task)
    finally:
        task.cancel()
        await asyncio.wait([task])


class LoopClock:
    """The clock of the running event loop, which a test can set forward; create it before anything reads the clock.

    A limit that is generous on a busy machine passes at once, after the event that it waits for in vain.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._ahead = 0.0
        setattr(loop, "time", self._now)  # noqa: B010 - an attribute of this loop hides the method

    def _now(self) -> float:
        return self._time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._ahead += seconds


def outcomes(result: nbrun.NotebookResult) -> list[str]:
    """Return the outcome of each cell."""
    return [cell.outcome.value for cell in result.cells]


@dataclass
class Place:
    """The folder of a test's notebooks, and its server; None means a private server for each run."""

    folder: Path
    server: RunningServer | None = None
    prefix: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of a run here."""
        return {} if self.server is None else {"server": self.server.url, "token": self.server.token}

    def name(self, name: str = "notebook.ipynb") -> str:
        """Return the path of a notebook as a run here knows it."""
        return str(self.folder / name) if self.server is None else f"{self.prefix}{name}"

    def write(self, document: Notebook, name: str = "notebook.ipynb") -> str:
        """Write a notebook; returns its path as a run knows it."""
        write_notebook(self.folder / name, document)
        return self.name(name)

    def read(self, name: str = "notebook.ipynb") -> Notebook:
        """Read a notebook as it is on disk."""
        return read_notebook(self.folder / name)

    def outputs(self, name: str = "notebook.ipynb") -> list[list[dict[str, Any]]]:
        """Return the saved outputs of all code cells."""
        return [cell["outputs"] for cell in self.read(name)["cells"] if cell["cell_type"] == "code"]

    async def run(self, *cells: Any, **options: Any) -> nbrun.NotebookResult:
        """Write a notebook of these cells and run it."""
        return await nbrun.run_async(self.write(notebook(*cells)), **self.options, **options)

    def live(self, *cells: Any, **options: Any) -> contextlib.AbstractAsyncContextManager[LiveRun]:
        """Write a notebook of these cells and begin to run it."""
        return live_run(self.write(notebook(*cells)), **self.options, **options)

    def nothing_is_left(self) -> bool:
        """Return whether the server has no session and no kernel."""
        return self.server is None or (self.server.sessions() == [] and self.server.get("api/kernels") == [])


def place_on(server: RunningServer | None, tmp_path: Path) -> Place:
    """Return a place for a test: its own folder, below the server's root if there is a server."""
    if server is None:
        folder = tmp_path / "notebooks"
        folder.mkdir()
        return Place(folder)
    folder = server.root / tmp_path.name
    folder.mkdir()
    return Place(folder, server, f"{tmp_path.name}/")


def text_of(outputs: list[dict[str, Any]]) -> str:
    """Return the text of all streams among outputs."""
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def text_in(path: Path) -> str:
    """Return the text of all streams in a notebook's file."""
    return "".join(text_of(cell["outputs"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code")
