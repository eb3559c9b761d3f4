"""Keeps what a run computes: saved now and then while it runs, saved at its end, and where that fails, rescued.

Its one idea: whatever happens between the first output and the answer to the last save, the notebook is afterwards
in its place, or in a rescue file on this machine that the run names::

    conclude: record all of it -> save --> the asked place
                  |                 | refused, late, cancelled, a bug
                  | a bug           +----------------------------------> a rescue file
                  +--> record what can be, cell by cell -----------------^

What was wrong with the save is in the result; a bug, and cancellation, pass on when the file is written.
"""

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from nbrun.core.events import Event, Journal, Stage
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.outcomes import Ending, ending_with_losses, kept_elsewhere
from nbrun.core.execution.write_back import Recording
from nbrun.core.formats.units import spell_duration
from nbrun.core.planning.job import Job
from nbrun.core.results import CellResult, NotebookResult, Outcome, Problem
from nbrun.errors import NbrunError, SaveFailed
from nbrun.jupyter.http.messages import LONG
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.runner.autosave import LIMIT, Autosave
from nbrun.storage.base import SaveTarget
from nbrun.storage.on_disk import rescue

HURRIED = 5.0
"""Seconds within which a save is tried again after a signal or the loss of the server."""
HURRIED_LIMIT = 20.0
"""Seconds after which such a save is given up for the rescue file, even if the server still seems to take it."""
SLOWEST_LINE = 100_000
"""Characters a second. A save may take as long as these need, and on top of it as long as the last request of its retry
policy may: begun when no later one would be, and given up when its own patience ends. That is 18 minutes, as things
are, and leaves time to look at the file and to send a notebook more than once."""
IN_A_HURRY = (Outcome.INTERRUPTED, Outcome.SERVER_FAILED)


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a run's result goes, how long it is worth trying, and whether the server is there for this run only."""

    destination: SaveTarget
    patience: RetryPolicy
    is_private: bool


class Safekeeping:
    """What is kept of one run; a context in which it may be saved while it runs."""

    def __init__(self, job: Job, journal: Journal, recording: Recording, sink: Sink) -> None:
        """Keep what comes of `job` in the document of `recording` and in the `sink`."""
        self._job = job
        self._journal = journal
        self._recording = recording
        self._sink = sink
        self._autosave = Autosave(journal.warn)
        self._is_recorded = False
        self._is_hurried = False
        self._clock: asyncio.Timeout | None = None

    async def __aenter__(self) -> Self:
        await self._autosave.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._autosave.__aexit__(kind, error, trace)

    def observe(self, event: Event) -> None:
        """Take note of how much there is to save."""
        self._autosave.observe(event)

    def begin(self, execution: Execution, news: Callable[[], int], started: str) -> None:
        """Save now and then from now on, if that is wanted, when `news` counts more than before."""
        if self._job.save and self._job.save_every != math.inf:
            save = functools.partial(self._save_meanwhile, execution, started)
            self._autosave.start(save, news, self._job.save_every)

    def hurry(self, reason: str) -> None:  # noqa: ARG002 - a listener of a switch
        """Return up soon what takes long: the run is to end."""
        self._is_hurried = True
        if self._clock is not None and not self._clock.expired():
            soon = asyncio.get_running_loop().time() + HURRIED_LIMIT
            self._clock.reschedule(min(soon, self._clock.when() or soon))

    async def conclude(
        self, execution: Execution, result_of: Callable[[Ending, Sequence[CellResult]], NotebookResult]
    ) -> NotebookResult:
        """Record the execution that has ended, save it, and return the result, as `result_of` makes it.

        Raises nothing but cancellation and bugs, and these when what there is has been written to a rescue file.
        """
        try:
            assert execution.ending is not None
            await self._end_autosave(execution.ending)
            cells = execution.results()
            ending = self._weigh_losses(execution.ending, cells)
            result = result_of(ending, cells)
            self._recording.finish(execution, result)
            self._is_recorded = True
            for cell in cells:
                if cell.truncated:
                    self._journal.warn(f"{cell.truncated}, in cell {cell.number}")
            # A run that was stopped before its first cell has nothing to save, and must not empty the user's notebook.
            worth_saving = bool(execution.cells) or ending.outcome is Outcome.PASSED
            return await self._save(execution, result) if self._job.save and worth_saving else result
        except BaseException as error:
            if self._job.save and execution.cells:
                self._rescue_from(error, execution)
            raise

    async def _save_meanwhile(self, execution: Execution, started: str) -> bool:
        for _ in self._recording.so_far(execution, started):
            await asyncio.sleep(0)
        return await self._sink.destination.save_meanwhile(self._recording.document.content)

    async def _end_autosave(self, ending: Ending) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._within(HURRIED if self._hurries(ending.outcome) else LIMIT):
                await self._autosave.end(LIMIT)
        await self._autosave.end(0.0)

    def _weigh_losses(self, ending: Ending, cells: Sequence[CellResult]) -> Ending:
        """Let lost output decide the outcome where nothing worse did; else, or where it is tolerated, warn of it."""
        if not self._job.tolerate_loss:
            ending = ending_with_losses(ending, cells, private=self._sink.is_private)
        if ending.outcome is not Outcome.INCOMPLETE:
            for cell in cells:
                if cell.incomplete:
                    self._journal.warn(f"{cell.incomplete}, in cell {cell.number}")
        return ending

    async def _save(self, execution: Execution, result: NotebookResult) -> NotebookResult:
        self._journal.enter(Stage.SAVING)
        document, patience, passed = self._recording.document, self._sink.patience, result.outcome is Outcome.PASSED
        limit = patience.total + LONG.total + document.size() / SLOWEST_LINE
        if self._hurries(result.outcome):
            patience, limit = patience.within(HURRIED), HURRIED_LIMIT
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with self._within(limit):
                output = await self._sink.destination.save(document.content, patience, passed=passed)
        except NbrunError as error:
            return self._rescued(execution, result, error)
        except TimeoutError:
            took = f"the server did not take the result within {spell_duration(clock() - began)}"
            return self._rescued(execution, result, SaveFailed(f"{self._job.notebook}: {took}"), under_way=True)
        return replace(result, output=output)

    def _hurries(self, outcome: Outcome) -> bool:
        return self._is_hurried or outcome in IN_A_HURRY

    @contextlib.asynccontextmanager
    async def _within(self, limit: float) -> AsyncIterator[None]:
        """Bound a block in seconds, and sooner when there comes a hurry; raises TimeoutError."""
        try:
            async with asyncio.timeout(limit) as self._clock:
                yield
        finally:
            self._clock = None

    def _rescued(
        self, execution: Execution, result: NotebookResult, error: NbrunError, *, under_way: bool = False
    ) -> NotebookResult:
        """Keep the executed notebook on this machine; that the save failed is now what the run has to say first."""
        path = self._write_rescue_file(execution)
        if result.problem and result.outcome is not Outcome.SERVER_FAILED:
            self._journal.warn(result.problem.message)
        return kept_elsewhere(result, Problem.of(error), str(path) if path else None, under_way=under_way)

    def _rescue_from(self, error: BaseException, execution: Execution) -> None:
        """Keep what there is on this machine, and say where, also to whoever sees nothing but the error."""
        path = self._write_rescue_file(execution)
        where = f"the executed notebook is in {path}" if path else "no rescue file could be written"
        error.add_note(f"nbrun: {where}")
        with contextlib.suppress(Exception):
            how = f"ended by a bug in nbrun: {error!r}" if isinstance(error, Exception) else "cancelled"
            self._journal.warn(f"the save was {how}; {where}")

    def _write_rescue_file(self, execution: Execution) -> Path | None:
        """Write a rescue file of what can be written; returns its path. Raises nothing."""
        content, now = self._recording.document.content, datetime.now(UTC)
        if self._is_recorded:
            with contextlib.suppress(Exception):
                return rescue(content, self._job.notebook, now)
        with contextlib.suppress(Exception):
            for index in self._recording.salvage(execution):
                number = execution.cells[index].number
                self._journal.warn(f"outputs may be missing, by a bug in nbrun, in cell {number}")
            return rescue(content, self._job.notebook, now)
        return None
