"""Run a notebook on a seat that executes it, and save what it delivers.

The notebook is read and saved here. The seat gets it in a parcel, streams the events of the run, and returns the
delivery. The notebook is also prepared here: this finds wrong parameters before anything is sent, and shows which cells
the events are about. If the seat is lost, the outputs that arrived are saved.
"""

import asyncio
import contextlib
import glob
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbrun.core.batch.cache_key import declared_inputs
from nbrun.core.batch.parcels import Delivery, Parcel
from nbrun.core.batch.partial import PartialRun
from nbrun.core.events import Event, Journal, RunFinished, Stage
from nbrun.core.execution.outcomes import unrun, with_failed_save
from nbrun.core.formats.json_text import dumps
from nbrun.core.formats.units import spell_duration
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_reading import notebook_content
from nbrun.core.outputs.masking import Mask
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.planning.job import Job
from nbrun.core.planning.preparation import Prepared, prepare
from nbrun.core.results import CellResult, NotebookResult, Outcome, Problem, moment
from nbrun.errors import ExitCode, KernelError, NbrunError, NoSuchKernel, SaveFailed, SeatLost, ServerError, UsageError
from nbrun.jupyter.http.messages import LONG
from nbrun.jupyter.http.retry import SAVE
from nbrun.runner.engine import ExecutingSeat
from nbrun.runner.plugins import literal_writer
from nbrun.runner.run import Slot
from nbrun.runner.saving import SHORT_LIMIT, SHORT_RETRY, SHORTENED, SLOWEST_LINE
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.base import Notebook
from nbrun.storage.on_disk import rescue
from nbrun.storage.paths import absolute
from nbrun.version import __version__

STOP_LIMIT = 8.0
"""Seconds for a seat to deliver a run that was stopped. Afterwards the outputs that arrived are saved."""
_ERRORS: Mapping[ExitCode, type[NbrunError]] = {ExitCode.USAGE: UsageError, ExitCode.KERNEL: KernelError}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sending:
    """One attempt of a run on a seat.

    ``take`` returns the seat. ``batch``, ``run`` and ``attempt`` identify the attempt, and ``folder`` is the working
    directory of the kernel. The inputs that the notebook declares are relative to ``home``.
    """

    job: Job
    notebook: Notebook
    take: Callable[[], Awaitable[ExecutingSeat]]
    batch: str
    run: str
    attempt: int
    folder: str
    home: Path


async def send_notebook(sending: Sending, *, journal: Journal, stop: StopSwitch, slot: Slot) -> NotebookResult:
    """Run a notebook on a seat, and return its result, like :func:`nbrun.runner.run.run_notebook`.

    A lost seat is the outcome ``seat-lost`` of the result. Raises :class:`NbrunError` if nothing was executed.
    """
    sent = _Sent(sending, journal, stop)
    result = await sent.go(slot)
    result = replace(result, warnings=tuple(journal.warnings))
    journal.tell(RunFinished(journal.notebook, result, sent.content, sending.job.report_mode))
    return result


class _Sent:
    def __init__(self, sending: Sending, journal: Journal, stop: StopSwitch) -> None:
        self._sending = sending
        self._job = sending.job
        self._journal = journal
        self._stop = stop
        self._started = datetime.now(UTC)
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._prepared: Prepared | None = None
        self._kernel: str | None = None
        self.content: Mapping[str, Any] | None = None
        self._mask = Mask(self._job.secrets.values())
        if self._mask:
            journal.mask = self._mask.text

    async def go(self, slot: Slot) -> NotebookResult:
        try:
            seat = await self._stop.guard(self._sending.take())
            return await self._load_and_send(seat, slot)
        except Stopped:
            problem = Problem(f"{self._stop.reason} before the first cell")
            return self._result(Outcome.INTERRUPTED, problem, unrun(self._prepared.plan) if self._prepared else ())
        except NbrunError as error:
            error.args, error.hint = (self._mask.text(str(error)),), self._mask.text(error.hint)
            raise

    async def _load_and_send(self, seat: ExecutingSeat, slot: Slot) -> NotebookResult:
        notebook = self._sending.notebook
        try:
            self._journal.enter(Stage.LOADING)
            content = await self._stop.guard(notebook.load())
            parcel = self._parcel(content)
            document = self._prepare(content, seat)
            parcel = replace(parcel, inputs=await asyncio.to_thread(self._inputs, document))
            async with slot:
                self._began = self._clock()
                if self._stop.reason is not None:
                    raise Stopped
                _log.info("%s: sent to seat %s", self._journal.notebook, seat.name)
                return await self._execute(seat, parcel, document)
        finally:
            await notebook.close()

    def _parcel(self, content: Mapping[str, Any]) -> Parcel:
        sending, job = self._sending, self._job
        if job.artefacts_dir is not None:
            job = replace(job, artefacts_dir=str(absolute(job.artefacts_dir)))  # the seat has another current folder
        return Parcel.of(
            job,
            dumps(content),
            batch=sending.batch,
            run=sending.run,
            attempt=sending.attempt,
            folder=sending.folder,
        )

    def _inputs(self, document: Document) -> list[str]:
        """Return the paths of the files here that the notebook declares as inputs; they must be on the seat too."""
        home, found = self._sending.home, set[str]()
        for pattern in declared_inputs(document):
            found.update(glob.glob(pattern, root_dir=home, recursive=True))  # noqa: PTH207
        return [str(home / name) for name in sorted(found)]

    def _prepare(self, content: Mapping[str, Any], seat: ExecutingSeat) -> Document:
        document = Document(content, name=self._job.notebook)
        kernel, language = self._job.kernel or "", self._job.language or ""
        if seat.setting is not None:
            try:
                spec = seat.setting.kernelspecs.choose(self._job.kernel, document.metadata)
            except NoSuchKernel as error:
                raise NoSuchKernel(f"{self._job.notebook}: {error}", hint=error.hint) from None
            kernel, language = spec.name, spec.language
        self._kernel = kernel
        self._prepared = prepare(document, self._job, kernel, language, literal_writer)
        return document

    async def _execute(self, seat: ExecutingSeat, parcel: Parcel, document: Document) -> NotebookResult:
        assert self._prepared is not None
        partial = PartialRun(document, self._prepared.plan)
        is_over = False

        def tell(event: Event) -> None:
            if not is_over:  # the delivery, or the end of the attempt, was first
                partial.observe(event)
                self._journal.tell(event)

        try:
            delivery = await self._delivered(seat, parcel, tell)
        except SeatLost as error:
            is_over = True
            return await self._lost(document, partial, error)
        except BaseException as error:
            is_over = True
            if self._job.save and partial.has_begun:
                reason = "the run was cancelled" if isinstance(error, asyncio.CancelledError) else repr(error)
                await self._lost(document, partial, SeatLost(reason))
            raise
        is_over = True
        return await self._accept(delivery)

    async def _delivered(self, seat: ExecutingSeat, parcel: Parcel, tell: Callable[[Event], None]) -> Delivery:
        """Wait for the delivery, and after a stop only for some seconds; raise :class:`SeatLost`."""
        clock = asyncio.timeout(None)
        try:
            async with clock:
                with self._when_stopped(lambda: clock.reschedule(self._clock() + STOP_LIMIT)):
                    delivery = await seat.run(parcel, tell, self._stop)
        except TimeoutError:
            if not clock.expired():
                raise
            raise SeatLost(f"seat {seat.name} did not deliver within {STOP_LIMIT:g} s") from None
        if (delivery.run, delivery.attempt) != (parcel.run, parcel.attempt):
            raise SeatLost(f"seat {seat.name} delivered another run: {delivery.run}, attempt {delivery.attempt}")
        return delivery

    @contextlib.contextmanager
    def _when_stopped(self, act: Callable[[], None]) -> Iterator[None]:
        """Call `act` when the run is stopped within the block, or was stopped before it."""

        def listener(_: str) -> None:
            act()

        self._stop.listen(listener)
        try:
            yield
        finally:
            self._stop.forget(listener)

    async def _accept(self, delivery: Delivery) -> NotebookResult:
        """Save a delivery and return its result; raise :class:`NbrunError` if nothing was executed."""
        result = replace(delivery.result, path=self._job.notebook, output=None, rescued=False)
        for warning in result.warnings:
            if warning not in self._journal.warnings:
                self._journal.warn(warning)
        if self._stop.exit_code is not None and result.outcome is Outcome.INTERRUPTED:
            result = replace(result, signal=self._stop.exit_code)
        if delivery.notebook is None:
            if result.outcome is Outcome.INTERRUPTED or result.problem is None:
                return result
            error = _ERRORS.get(result.exit_code, ServerError)
            raise error(result.problem.message, hint=result.problem.hint)
        self.content = notebook_content(delivery.notebook, self._job.notebook)
        return await self._saved(self.content, result) if self._job.save else result

    async def _lost(self, document: Document, partial: PartialRun, error: SeatLost) -> NotebookResult:
        """Save the outputs that arrived, and return the result of a lost or late attempt."""
        outcome, problem = Outcome.SEAT_LOST, Problem.of(error)
        if self._stop.reason is not None:
            outcome, problem = Outcome.INTERRUPTED, Problem(f"{self._stop.reason}; {error}", error.hint)
        cells = partial.write(problem.message)
        result = self._result(outcome, problem, cells)
        if not partial.has_begun:
            return result
        times = {"started": result.started, "seconds": round(result.seconds, 3)} if self._job.record_timing else {}
        given = {"parameters": result.parameters} if result.parameters else {}
        document.mark_run({"version": __version__, "outcome": outcome.value, **times, **given})
        self.content = document.content
        return await self._saved(document.content, result) if self._job.save else result

    async def _saved(self, content: Mapping[str, Any], result: NotebookResult) -> NotebookResult:
        """Save the executed notebook, or write a rescue file; also when this is cancelled."""
        self._journal.enter(Stage.SAVING)
        patience, limit = SAVE, SAVE.total + LONG.total + Document(content).size() / SLOWEST_LINE
        if self._stop.reason is not None or result.outcome in SHORTENED:
            patience, limit = patience.within(SHORT_RETRY), SHORT_LIMIT
        passed, began = result.outcome is Outcome.PASSED, self._clock()
        try:
            async with asyncio.timeout(limit) as clock:
                with self._when_stopped(lambda: clock.reschedule(min(self._clock() + SHORT_LIMIT, began + limit))):
                    return replace(result, output=await self._sending.notebook.save(content, patience, passed=passed))
        except NbrunError as failure:
            problem = Problem.of(failure)
        except TimeoutError:
            took = spell_duration(self._clock() - began)
            problem = Problem.of(SaveFailed(f"{self._job.notebook}: the result could not be saved within {took}"))
        except BaseException as error:
            path = rescue(content, self._job.notebook, datetime.now(UTC))
            error.add_note(f"nbrun: {f'the executed notebook is in {path}' if path else 'there is no rescue file'}")
            raise
        path = rescue(content, self._job.notebook, datetime.now(UTC))
        if result.problem and result.outcome not in (Outcome.SERVER_FAILED, Outcome.SEAT_LOST):
            self._journal.warn(result.problem.message)
        return with_failed_save(result, problem, str(path) if path else None)

    def _result(self, outcome: Outcome, problem: Problem, cells: Sequence[CellResult]) -> NotebookResult:
        given = recordable(self._prepared.parameters) if self._prepared else {}
        return NotebookResult(
            __version__,
            self._job.notebook,
            None,
            self._kernel,
            outcome,
            moment(self._started),
            self._clock() - self._began,
            cells,
            problem,
            signal=self._stop.exit_code,
            parameters=self._mask.value(given),
        )
