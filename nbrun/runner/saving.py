"""Save the results during and after a run, or in a rescue file if the save fails.

Whatever happens between the first output and the answer to the last save, the executed notebook is afterwards in its
save target, or in a rescue file on this machine, which the run names::

    conclude: record all cells -> save --> the save target
                  |                 | refused, late, cancelled, a bug
                  | a bug           +----------------------------------> a rescue file
                  +--> record each cell that can be recorded ------------^

The result says why a save failed. A bug or a cancellation is raised again after the rescue file is written.
"""

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from nbrun.core.events import Event, Journal, Stage
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.outcomes import Ending, ending_with_losses, with_failed_save
from nbrun.core.execution.write_back import Recording
from nbrun.core.formats.units import spell_duration
from nbrun.core.planning.job import Job
from nbrun.core.results import CellResult, NotebookResult, Outcome, Problem
from nbrun.errors import NbrunError, SaveFailed
from nbrun.jupyter.http.messages import LONG
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.autosave import LIMIT, Autosave
from nbrun.storage.base import SaveTarget
from nbrun.storage.on_disk import rescue

SHORT_RETRY = 5.0
"""Seconds of retries for a save after a signal or the loss of the server."""
SHORT_LIMIT = 20.0
"""Seconds after which such a save is replaced by a rescue file, even if it is still in progress."""
SLOWEST_LINE = 100_000
"""The lowest expected speed of a save, in characters per second.

A save may take the time for the notebook at this speed, plus the time of its retry policy and of the last request. That
is at least 18 minutes on a server, enough to send the notebook more than once.
"""
SHORTENED = (Outcome.INTERRUPTED, Outcome.SERVER_FAILED, Outcome.SEAT_LOST)
"""The outcomes after which a save has the short limit."""
_log = logging.getLogger(__name__)


class ResultSaver:
    """Saves the results of one run. Within the block, they can be saved while it runs."""

    def __init__(self, job: Job, journal: Journal, recording: Recording, target: SaveTarget, server: Server) -> None:
        """Save the results of `job`, which `recording` writes into its document, to `target`.

        The `server` determines how long a save is repeated, and whether it is private.
        """
        self._job = job
        self._journal = journal
        self._recording = recording
        self._target = target
        self._server = server
        self._autosave = Autosave(journal.warn)
        self._is_recorded = False
        self._is_shortened = False
        self._clock: asyncio.Timeout | None = None

    async def __aenter__(self) -> Self:
        await self._autosave.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._autosave.__aexit__(kind, error, trace)

    def observe(self, event: Event) -> None:
        """Count the output that is not saved yet."""
        self._autosave.observe(event)

    def begin(self, execution: Execution, news: Callable[[], int], started: str) -> None:
        """Start to save at intervals, if the job requires it, whenever `news` has grown."""
        if self._job.save and self._job.save_every != math.inf:
            save = functools.partial(self._save_meanwhile, execution, started)
            self._autosave.start(save, news, self._job.save_every)

    def shorten(self, reason: str) -> None:  # noqa: ARG002 - a listener of a switch
        """Apply the short limit from now on, also to a save in progress, because the run must end soon."""
        self._is_shortened = True
        if self._clock is not None and not self._clock.expired():
            soon = asyncio.get_running_loop().time() + SHORT_LIMIT
            self._clock.reschedule(min(soon, self._clock.when() or soon))

    async def conclude(
        self, execution: Execution, result_of: Callable[[Ending, Sequence[CellResult]], NotebookResult]
    ) -> NotebookResult:
        """Record and save an execution that has ended, and return the result that `result_of` creates.

        Raises only cancellation and bugs, after a rescue file is written.
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
            # A run that was stopped before its first cell must not save, because that would clear the notebook.
            worth_saving = bool(execution.cells) or ending.outcome is Outcome.PASSED
            return await self._save(execution, result) if self._job.save and worth_saving else result
        except BaseException as error:
            if self._job.save and execution.cells:
                self._rescue_from(error, execution)
            raise

    async def _save_meanwhile(self, execution: Execution, started: str) -> bool:
        for _ in self._recording.so_far(execution, started):
            await asyncio.sleep(0)
        return await self._target.save_meanwhile(self._recording.document.content)

    async def _end_autosave(self, ending: Ending) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._within(SHORT_RETRY if self._is_short(ending.outcome) else LIMIT):
                await self._autosave.end(LIMIT)
        await self._autosave.end(0.0)

    def _weigh_losses(self, ending: Ending, cells: Sequence[CellResult]) -> Ending:
        """Return the ending as incomplete if output was lost and nothing worse happened; otherwise warn of the loss."""
        if not self._job.tolerate_loss:
            ending = ending_with_losses(ending, cells, private=self._server.is_private)
        if ending.outcome is not Outcome.INCOMPLETE:
            for cell in cells:
                if cell.incomplete:
                    self._journal.warn(f"{cell.incomplete}, in cell {cell.number}")
        return ending

    async def _save(self, execution: Execution, result: NotebookResult) -> NotebookResult:
        self._journal.enter(Stage.SAVING)
        document, patience, passed = self._recording.document, self._server.save, result.outcome is Outcome.PASSED
        limit = patience.total + LONG.total + document.size() / SLOWEST_LINE
        if self._is_short(result.outcome):
            patience, limit = patience.within(SHORT_RETRY), SHORT_LIMIT
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with self._within(limit):
                output = await self._target.save(document.content, patience, passed=passed)
        except NbrunError as error:
            return self._rescued(execution, result, error)
        except TimeoutError:
            took = f"the server did not take the result within {spell_duration(clock() - began)}"
            return self._rescued(execution, result, SaveFailed(f"{self._job.notebook}: {took}"), under_way=True)
        _log.info("%s: saved as %s in %.2f s", self._job.notebook, output, clock() - began)
        return replace(result, output=output)

    def _is_short(self, outcome: Outcome) -> bool:
        return self._is_shortened or outcome in SHORTENED

    @contextlib.asynccontextmanager
    async def _within(self, limit: float) -> AsyncIterator[None]:
        """Limit a block to some seconds, which :meth:`shorten` reduces; raise TimeoutError."""
        try:
            async with asyncio.timeout(limit) as self._clock:
                yield
        finally:
            self._clock = None

    def _rescued(
        self, execution: Execution, result: NotebookResult, error: NbrunError, *, under_way: bool = False
    ) -> NotebookResult:
        """Write a rescue file, and return the result with the failed save as its problem."""
        path = self._write_rescue_file(execution)
        if result.problem and result.outcome not in (Outcome.SERVER_FAILED, Outcome.SEAT_LOST):
            self._journal.warn(result.problem.message)
        return with_failed_save(result, Problem.of(error), str(path) if path else None, under_way=under_way)

    def _rescue_from(self, error: BaseException, execution: Execution) -> None:
        """Write a rescue file, and name it in a warning and in a note of the error."""
        path = self._write_rescue_file(execution)
        where = f"the executed notebook is in {path}" if path else "no rescue file could be written"
        error.add_note(f"nbrun: {where}")
        with contextlib.suppress(Exception):
            how = f"ended by a bug in nbrun: {error!r}" if isinstance(error, Exception) else "cancelled"
            self._journal.warn(f"the save was {how}; {where}")

    def _write_rescue_file(self, execution: Execution) -> Path | None:
        """Write a rescue file of all cells that can be written, and return its path. Never raises."""
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
