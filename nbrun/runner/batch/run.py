"""Run the planned runs of a call on one server, several at the same time, with retries.

A single run is a batch of one. A worker starts a planned run, closes its kernel, connection and notebook, and keeps
only the result without outputs. There is one worker more than runs may execute at once. It starts the next kernel and
loads the next notebook, whose cells then wait for a slot. Slots are assigned in the order of the planned runs.

A retried run keeps its best attempt (:mod:`nbrun.runner.attempts`). Before the next attempt nbrun waits, longer each
time, and until an unreachable server answers.

A failure in one run, even a bug in nbrun, changes only that run's result. If a private server ends, the executing runs
fail. Runs that have not started executing get a new server.
"""

import asyncio
import contextlib
import functools
import logging
import math
import os
import traceback
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from msgspec import Struct, field

from nbrun.core.batch.scheduling import Policy
from nbrun.core.batch.terms import Cause
from nbrun.core.events import Event, Journal, Observer, RunFinished, Stage
from nbrun.core.formats.units import spell_duration
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.results import NotebookResult, Outcome, Problem, outcome_of, unexecuted
from nbrun.errors import ExitCode, NbrunError, ServerError
from nbrun.jupyter.http.retry import pause_after
from nbrun.jupyter.kernel_session import Server
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.runner.attempts import Attempts, LaterAttempt
from nbrun.runner.batch.plan import BatchPlan
from nbrun.runner.batch.seats import SeatPool, ServerEngine, check_kernels
from nbrun.runner.engine import ControlledSeat, ExecutingSeat, Seat
from nbrun.runner.job import BatchOptions, PlannedRun
from nbrun.runner.run import run_notebook
from nbrun.runner.servers import Host, folder_of, local_notebook_of, open_host
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.base import Notebook
from nbrun.storage.paths import absolute
from nbrun.version import __version__

if TYPE_CHECKING:
    from nbrun.core.batch.parcels import Needs
    from nbrun.runner.batch.cache import Cache, CachingNotebook

_log = logging.getLogger(__name__)


class _NotStarted(NbrunError):
    """The batch ended before a waiting run started. Raised and caught in this module."""


async def run_plan(
    plan: BatchPlan, *, observe: Observer, stop: StopSwitch, started: EmbeddedServer | None = None
) -> list[NotebookResult]:
    """Run or prepare the planned runs, and return the results in the same order.

    The private server may have been `started` already. `stop` ends the executing runs properly, and no other run
    starts. Each run causes exactly one :class:`RunFinished`. Cancellation first saves the results so far.
    """
    if plan.options["prepare_only"]:
        return await _prepare(plan, observe, stop)
    first = [started] if started is not None else []

    def open_server() -> AbstractAsyncContextManager[Host]:
        return open_host(plan.access, plan.paths, first.pop() if first else None)

    policy = _policy(plan.options)
    at_once = min(policy.jobs, len(plan.runs))
    if plan.engine is not None:
        check = functools.partial(check_kernels, plan.runs)
        needs = _needs(plan.runs) if plan.engine.executes else None
        seats = SeatPool(plan.engine, at_once, startup=plan.startup, check=check, needs=needs)
    else:  # one seat more: the run on it starts its kernel while all slots are taken
        seats = SeatPool(ServerEngine(open_server, replaceable=not plan.access.server), at_once + 1)
    stage = Stage.CONNECTING if plan.access.server or plan.engine is not None else Stage.STARTING_SERVER
    try:
        results = await _Batch(plan, policy, seats, stage, observe, stop).go()
    finally:
        if plan.journal is not None:
            plan.journal.close()
        await seats.close()
    if plan.cache is not None:
        plan.cache.remember(results)
    return results


def _needs(runs: Sequence[PlannedRun]) -> "Needs":
    """Return what these runs need on each executing seat."""
    from nbrun.core.batch.parcels import Needs, places_of_secrets

    secrets = {name: place for planned in runs for name, place in places_of_secrets(planned.job).items()}
    return Needs(secrets, sorted({folder_of(planned.paths) for planned in runs}))


def _policy(options: BatchOptions) -> Policy:
    jobs, wait = options["jobs"], options["server_wait"]
    assert isinstance(wait, float)
    causes = [Cause(cause) for cause in options["retry_on"]]
    at_once = jobs if isinstance(jobs, int) else processors()
    return Policy(at_once, options["max_failures"], options["retries"], causes, wait)


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


async def _prepare(plan: BatchPlan, observe: Observer, stop: StopSwitch) -> list[NotebookResult]:
    """Prepare all planned runs in order; a failure of one does not affect the others."""
    from nbrun.runner.prepare_only import host_to_prepare_on, prepare_unless_stopped

    results: list[NotebookResult] = []
    async with host_to_prepare_on(plan.access) as host:
        for planned in plan.runs:
            journal = Journal(planned.name, observe)
            results.append(await prepare_unless_stopped(planned.job, planned.paths, host, journal, stop))
    return results


class _Slots:
    """The slots for executing runs. A free slot goes to the run that asked first, even if that run is not ready yet."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._asked = deque[_Slot]()

    def ask(self, slot: "_Slot") -> None:
        """Assign a slot, now or when one becomes free."""
        self._asked.append(slot)
        self._assign()

    def withdraw(self, slot: "_Slot") -> None:
        """Free a slot that was assigned, or drop a request for one."""
        if slot.assigned.is_set():
            self._free += 1
        else:
            self._asked.remove(slot)
        self._assign()

    def _assign(self) -> None:
        while self._free and self._asked:
            self._free -= 1
            self._asked.popleft().assigned.set()


class _Slot:
    """A slot for an executing run. The run asks for it at its start, and waits for it before its first cell.

    So runs execute in their order, however long each takes to load its notebook and to start its kernel. The slot is
    released after the last cell, so that the next run executes while this one is saved. If `whole`, it is released only
    after the run has been counted. ``check`` raises an exception if the run must not start any more.
    """

    def __init__(self, slots: _Slots, *, whole: bool) -> None:
        self.assigned = asyncio.Event()
        self._slots = slots
        self._whole = whole
        self._is_asked = False
        self.check: Callable[[], None] = lambda: None
        self.ask()

    def ask(self) -> None:
        """Ask for a slot, unless it is asked for or held."""
        if not self._is_asked:
            self._is_asked = True
            self.assigned.clear()
            self._slots.ask(self)

    def pause(self) -> None:
        """Release the slot until the next attempt, unless the run must be counted first."""
        if not self._whole:
            self.release()

    def release(self) -> None:
        """Release the slot if it is held, and no longer wait for it."""
        if self._is_asked:
            self._is_asked = False
            self._slots.withdraw(self)

    async def __aenter__(self) -> None:
        """Wait for the slot; raises the exception of ``check``."""
        self.ask()
        await self.assigned.wait()
        self.check()

    async def __aexit__(self, *_: object) -> None:
        if not self._whole:
            self.release()


class _Trial(Struct):
    """One attempt of a run: its number, the best earlier attempt and the warnings so far, its seat, and its events."""

    number: int
    best: NotebookResult | None
    warnings: Sequence[str]
    seat: Seat | None = None
    is_lost: bool = False
    was_retired: bool = False
    finished: list[RunFinished] = field(default_factory=list)
    caching: "list[CachingNotebook]" = field(default_factory=list)
    later: list[LaterAttempt] = field(default_factory=list)

    def over(self, notebook: Notebook) -> Notebook:
        """Return the notebook as this attempt may save it."""
        if self.best is None:
            return notebook
        self.later.append(LaterAttempt(notebook, self.best))
        return self.later[-1]


class _Batch:
    def __init__(
        self, plan: BatchPlan, policy: Policy, seats: SeatPool, stage: Stage, observe: Observer, stop: StopSwitch
    ) -> None:
        """Run `plan` on `seats`; `stage` is that of a run while there is no seat yet."""
        self._planned_runs = plan.runs
        self._seats = seats
        self._stage = stage
        self._policy = policy
        self._observe = observe
        self._stop = stop
        self._cache = plan.cache
        self._journal = plan.journal
        self._on_engine = plan.engine is not None
        self._is_sent = plan.engine is not None and plan.engine.executes
        self._id = uuid.uuid4().hex
        self._waiting = deque(range(len(plan.runs)))
        self._results: dict[int, NotebookResult] = {}
        self._failures = 0
        self._has_begun = False
        self._slots = _Slots(policy.jobs)

    async def go(self) -> list[NotebookResult]:
        workers = [self._work() for _ in range(min(self._policy.jobs + 1, len(self._planned_runs)))]
        # No TaskGroup, because it forwards only the first cancellation. A second one ends a save in a rescue file.
        for error in await asyncio.gather(*workers, return_exceptions=True):
            if error is not None:
                raise error
        for index in self._waiting:
            self._finish(index, self._not_its_turn(self._planned_runs[index]), None)
        return [self._results[index] for index in range(len(self._planned_runs))]

    @property
    def _over(self) -> str:
        """Return why no further run starts, or "" while runs may start."""
        if self._stop.reason is not None:
            return self._stop.reason
        if self._seats.failure is not None:
            return str(self._seats.failure)
        most = self._policy.max_failures
        if most is not None and self._failures >= most:
            return f"{self._failures} {'run' if self._failures == 1 else 'runs'} failed before"
        return ""

    async def _work(self) -> None:
        # The first run begins even if the stop came before it: it then reports that it was interrupted.
        while self._waiting and not (self._over and self._has_begun):
            self._has_begun = True
            index = self._waiting.popleft()
            _log.debug("%s: next run, %d waiting", self._planned_runs[index].name, len(self._waiting))
            job = self._planned_runs[index].job
            # Artefacts that stay where they are must be copied to the page before the next run may replace them.
            stays = bool(job.artefacts) and job.artefacts_dir is None
            slot = _Slot(self._slots, whole=stays or self._policy.max_failures is not None)
            finished: list[RunFinished] = []
            try:
                result = await self._run_unless_delivered(self._planned_runs[index], slot, finished)
                self._finish(index, result, finished[-1] if finished else None)
            finally:
                slot.release()

    def _finish(self, index: int, result: NotebookResult, finished: RunFinished | None) -> None:
        planned = self._planned_runs[index]
        self._results[index] = result
        self._failures += result.exit_code is not ExitCode.OK and result.attempts > 0
        content, error = (finished.content, finished.error) if finished else (None, None)
        finished = RunFinished(planned.name, result, content, planned.job.report_mode, error)
        Journal(planned.name, self._observe).tell(finished)

    async def _run_unless_delivered(
        self, planned: PlannedRun, slot: _Slot, finished: list[RunFinished]
    ) -> NotebookResult:
        """Return the result of an earlier process from the journal, or run and add the result to it."""
        if self._journal is None:
            return await self._run(planned, slot, finished)
        journal = Journal(planned.name, self._observe)
        notebook, delivered = await asyncio.to_thread(self._journal.look, planned)
        if delivered is not None:
            _log.info("%s: delivered before, according to the journal", planned.name)
            from nbrun.core.batch.replay import events_of

            *events, end = events_of(planned.name, delivered.result, delivered.document)
            for event in events:
                journal.tell(event)
            if isinstance(end, RunFinished):
                finished.append(end)
            return delivered.result
        result = await self._run(planned, slot, finished)
        try:
            await asyncio.to_thread(self._journal.add, planned, notebook, result)
        except OSError as error:
            journal.warn(f"not in the journal for --resume: {error.strerror}")
            return replace(result, warnings=[*result.warnings, *journal.warnings])
        return result

    async def _run(self, planned: PlannedRun, slot: _Slot, finished: list[RunFinished]) -> NotebookResult:
        """Run and retry according to the policy; `finished` receives the last event of the kept attempt."""
        if self._cache is not None and (found := await self._from_cache(planned, self._cache, finished)):
            return found
        attempts, warnings, is_pending = Attempts(), list[str](), False
        while True:
            trial = _Trial(len(attempts.results) + 1, attempts.best, tuple(warnings))
            result = await self._attempt(planned, slot, trial)
            if result is None:  # the server ended before anything was executed; this does not count as an attempt
                continue
            if not result.attempts and attempts.best is not None:  # it got no slot again
                break
            attempts.add(result, trial.finished[-1] if trial.finished else None)
            attempts.retirements += trial.was_retired
            warnings = list(result.warnings)
            is_pending = self._policy.tries_again(result, len(attempts.results), attempts.losses, attempts.retirements)
            if not is_pending or self._over or not await self._pause(planned, slot, attempts, trial, warnings):
                break
        if attempts.best is not attempts.results[-1]:
            journal = Journal(planned.name, self._observe)
            last = len(attempts.results)
            journal.warn(f"attempt {last}: {_reason(result)}; attempt {attempts.number} came further, and is kept")
            warnings += journal.warnings
        if attempts.finished is not None:
            finished.append(attempts.finished)
        kept = attempts.kept(warnings)
        if self._stop.exit_code is None or not (is_pending or attempts.results[-1].outcome is Outcome.INTERRUPTED):
            return kept
        return self._cut_off(kept, attempts, is_pending=is_pending)

    def _cut_off(self, kept: NotebookResult, attempts: Attempts, *, is_pending: bool) -> NotebookResult:
        """Return the result of a run that a signal ended in a later attempt, or in the pause before it."""
        last = len(attempts.results)
        if attempts.number == last and not is_pending:
            return kept  # its problem already names the signal
        when = f"before attempt {last + 1}" if is_pending else f"in attempt {last}"
        problem = Problem(
            f"{self._stop.reason} {when}{self._of_most(attempts)}",
            f"The notebook and the results of its cells are those of attempt {attempts.number}: {_reason(kept)}.",
        )
        return replace(kept, outcome=Outcome.INTERRUPTED, signal=self._stop.exit_code, problem=problem)

    def _of_most(self, attempts: Attempts) -> str:
        """Return how many attempts there may be, as words after a number."""
        return "" if attempts.losses else f" of {self._policy.retries + 1}"

    async def _pause(
        self, planned: PlannedRun, slot: _Slot, attempts: Attempts, trial: "_Trial", warnings: list[str]
    ) -> bool:
        """Wait for the next attempt; return whether there is one."""
        last, number = attempts.results[-1], len(attempts.results)
        journal = Journal(planned.name, self._observe)
        journal.warn(f"attempt {number}{self._of_most(attempts)}: {_reason(last)}; trying again")
        slot.pause()
        pause = pause_after(number)
        _log.info("%s: attempt %d starts in %.1f s", planned.name, number + 1, pause)
        try:
            await self._stop.guard(asyncio.sleep(pause))
            if last.outcome is not Outcome.SERVER_FAILED or trial.seat is None:
                return True
            return await self._stop.guard(_answers(trial.seat, self._policy.server_wait, journal.warn))
        except Stopped:
            return False
        finally:
            warnings += journal.warnings

    async def _attempt(self, planned: PlannedRun, slot: _Slot, trial: "_Trial") -> NotebookResult | None:
        """Make one attempt; return None if the server ended before the run started and will be replaced.

        Events are passed on, except the last one. `trial` keeps it, because another attempt may follow.
        """

        def observe(event: Event) -> None:
            for notebook in trial.later:
                notebook.observe(event)
            if isinstance(event, RunFinished):
                trial.finished.append(event)
            else:
                self._observe(event)

        journal = Journal(planned.name, observe)
        journal.warnings.extend(trial.warnings)
        slot.check = lambda: self._check_start(trial)
        slot.ask()
        try:
            result = await self._tried(planned, slot, trial, journal)
        except BaseException:
            for notebook in trial.caching:
                notebook.drop()
            raise
        finally:
            if trial.seat is not None and not trial.is_lost:
                await self._seats.give_back(trial.seat)
        if result is None or not result.attempts:
            return result
        for notebook in trial.caching:
            await asyncio.to_thread(notebook.settle, result)
        is_saved = (planned.job.save and not any(notebook.is_withheld for notebook in trial.later)) or result.rescued
        return result if is_saved else replace(result, output=None)

    async def _tried(
        self, planned: PlannedRun, slot: _Slot, trial: "_Trial", journal: Journal
    ) -> NotebookResult | None:
        """Execute an attempt; a failure of any kind becomes its result."""
        began, clock = datetime.now(UTC), asyncio.get_running_loop().time
        since = clock()

        def failed(result: NotebookResult, error: Exception) -> NotebookResult:
            result = replace(result, seconds=clock() - since, warnings=tuple(journal.warnings))
            trial.finished.append(RunFinished(planned.name, result, error=error))
            return result

        try:
            result = await self._execute(planned, slot, trial, journal)
            if result.outcome is Outcome.SEAT_LOST and await self._loses(trial):
                trial.was_retired = trial.seat is not None and trial.seat.was_retired()
            return result
        except _NotStarted:
            return self._not_its_turn(planned)
        except NbrunError as error:
            if error is self._seats.failure and trial.best is not None:
                journal.warn(f"not tried again: {error}")
                return self._not_its_turn(planned)
            if isinstance(error, ServerError) and await self._loses(trial):
                return None
            return failed(unexecuted(planned.job.notebook, outcome_of(error), Problem.of(error), began), error)
        except Exception as error:  # noqa: BLE001  (a bug in one run must not affect the others)
            return failed(_ended_by_bug(planned, error, began), error)

    async def _execute(self, planned: PlannedRun, slot: _Slot, trial: "_Trial", journal: Journal) -> NotebookResult:
        """Execute on a seat: control its server, or send the notebook to a seat that executes it."""
        if not self._is_sent:
            job = planned.job if self._cache is None else replace(planned.job, save=True)
            opening = self._opening(planned, journal, trial, slot)
            return await run_notebook(job, opening, journal=journal, stop=self._stop, slot=slot)
        from nbrun.runner.sending import Sending, send_notebook

        notebook = trial.over(local_notebook_of(planned.paths, journal.warn))
        number, folder, home = trial.number, folder_of(planned.paths), absolute(planned.paths.notebook).parent

        async def take() -> ExecutingSeat:
            return cast(ExecutingSeat, await self._take(trial, journal, slot))

        sending = Sending(planned.job, notebook, take, self._id, planned.name, number, folder, home)
        return await send_notebook(sending, journal=journal, stop=self._stop, slot=slot)

    async def _take(self, trial: "_Trial", journal: Journal, slot: _Slot) -> Seat:
        """Return a seat for an attempt.

        An engine has as many seats as there are slots. So a run takes its slot first: if each of two runs had one and
        waited for the other, both would wait for ever.
        """
        if self._on_engine:
            await slot.assigned.wait()
            slot.check()
        if not self._seats.is_open:
            journal.enter(self._stage)
        trial.seat = await self._seats.take()
        return trial.seat

    @contextlib.asynccontextmanager
    async def _opening(
        self, planned: PlannedRun, journal: Journal, trial: "_Trial", slot: _Slot
    ) -> AsyncIterator[tuple[Server, Notebook]]:
        seat = cast(ControlledSeat, await self._take(trial, journal, slot))
        notebook = seat.host.notebook(planned.paths, journal.warn)
        if self._cache is not None:
            from nbrun.runner.batch.cache import CachingNotebook

            trial.caching.append(CachingNotebook(notebook, self._cache, planned.job, planned.paths, planned.parameters))
            notebook = trial.caching[-1]
        yield seat.host.server, trial.over(notebook)

    async def _loses(self, trial: "_Trial") -> bool:
        """Return whether the seat of an attempt is lost, and remove it then."""
        seat = trial.seat
        if seat is None or self._stop.reason is not None:
            return False
        trial.is_lost = not isinstance(seat, ControlledSeat) or await seat.is_lost()
        if trial.is_lost:
            await self._seats.lose(seat)
        return trial.is_lost

    def _check_start(self, trial: "_Trial") -> None:
        """Raise an exception if a waiting run must not or cannot start any more."""
        if self._over and self._stop.reason is None:
            raise _NotStarted(self._over)
        if trial.seat is not None and trial.seat.gone():
            where = trial.seat.name or "the private server"
            raise ServerError(f"{where} ended while this run was waiting for its slot")

    async def _from_cache(
        self, planned: PlannedRun, cache: "Cache", finished: list[RunFinished]
    ) -> NotebookResult | None:
        began, clock = datetime.now(UTC), asyncio.get_running_loop().time
        since = clock()
        found = await asyncio.to_thread(cache.look, planned.job, planned.paths, planned.parameters)
        if found is None:
            _log.debug("%s: not in the cache", planned.name)
            return None
        _log.info("%s: taken from the cache", planned.name)
        result = unexecuted(planned.job.notebook, Outcome.PASSED, None, began)
        finished.append(RunFinished(planned.name, result, found.content))
        return replace(
            result,
            output=found.output,
            kernel=found.restored.kernel,
            cells=found.restored.cells,
            seconds=clock() - since,
            parameters=recordable(planned.parameters),
            cached=True,
        )

    def _not_its_turn(self, planned: PlannedRun) -> NotebookResult:
        problem = Problem(f"not run: {self._over}")
        result = unexecuted(planned.job.notebook, Outcome.NOT_RUN, problem, datetime.now(UTC))
        return replace(result, attempts=0, signal=self._stop.exit_code, parameters=recordable(planned.parameters))


async def _answers(seat: Seat, limit: float, warn: Callable[[str], None]) -> bool:
    """Return whether the server of a seat answers, waiting up to `limit` seconds for an unreachable one.

    A server that can be replaced is not waited for.
    """
    if not isinstance(seat, ControlledSeat) or seat.host.ended is not None:
        return True
    server = seat.host.server
    problem = f"{server.client.endpoint} does not answer"
    wait = "" if math.isinf(limit) else f"up to {spell_duration(limit)} "
    if await server.answers_within(limit, lambda: warn(f"{problem}; waiting {wait}until it does")):
        return True
    warn(f"{problem} after {spell_duration(limit)}; not trying again")
    return False


def _ended_by_bug(planned: PlannedRun, error: Exception, began: datetime) -> NotebookResult:
    lines = "".join(traceback.format_exception(error))
    problem = Problem(f"this is a bug in nbrun {__version__}: {error!r}", f"Please report it with\n{lines}")
    return replace(unexecuted(planned.job.notebook, Outcome.INTERRUPTED, problem, began), signal=ExitCode.BUG)


def _reason(result: NotebookResult) -> str:
    return result.problem.message if result.problem else result.outcome.value
