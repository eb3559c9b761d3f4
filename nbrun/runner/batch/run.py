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
import logging
import math
import os
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime

from nbrun.core.batch.replay import events_of
from nbrun.core.batch.scheduling import Policy
from nbrun.core.batch.terms import Cause
from nbrun.core.events import Event, Journal, Observer, RunFinished, Stage
from nbrun.core.formats.units import spell_duration
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.results import NotebookResult, Outcome, Problem, outcome_of, unexecuted
from nbrun.errors import ExitCode, NbrunError, ServerError
from nbrun.jupyter.http.retry import pause_after
from nbrun.jupyter.kernel_session import Server
from nbrun.local_server.launcher import NEWS_LIMIT, EmbeddedServer
from nbrun.runner.attempts import Attempts, LaterAttempt
from nbrun.runner.batch.cache import Cache, CachingNotebook
from nbrun.runner.batch.plan import BatchPlan
from nbrun.runner.batch.resume import RunJournal
from nbrun.runner.job import BatchOptions, PlannedRun
from nbrun.runner.prepare_only import host_to_prepare_on, prepare_unless_stopped
from nbrun.runner.run import run_notebook
from nbrun.runner.servers import Host, open_host
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.base import Notebook
from nbrun.version import __version__

RESTARTS = 3
"""Maximum number of times that a batch restarts a private server that ended by itself."""
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

    host = _SharedHost(open_server, replaceable=not plan.access.server)
    try:
        results = await _Batch(plan.runs, host, _policy(plan.options), observe, stop, plan.cache, plan.journal).go()
    finally:
        await host.close()
        if plan.journal is not None:
            plan.journal.close()
    if plan.cache is not None:
        plan.cache.remember(results)
    return results


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
    results: list[NotebookResult] = []
    async with host_to_prepare_on(plan.access) as host:
        for planned in plan.runs:
            journal = Journal(planned.name, observe)
            results.append(await prepare_unless_stopped(planned.job, planned.paths, host, journal, stop))
    return results


class _SharedHost:
    """The server of a batch: opened on first use, and opened again if it has ended."""

    def __init__(self, open_host: Callable[[], AbstractAsyncContextManager[Host]], *, replaceable: bool) -> None:
        self._open = open_host
        self._left = RESTARTS if replaceable else 0
        self._replaceable = replaceable
        self._host: Host | None = None
        self._stack = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self.failure: NbrunError | None = None
        """The error that prevents a new server, or None."""

    @property
    def is_open(self) -> bool:
        """Return whether the server can be used without waiting."""
        return self._host is not None and not self._host.gone()

    @property
    def stage(self) -> Stage:
        """Return the stage that the batch is waiting for."""
        return Stage.STARTING_SERVER if self._replaceable else Stage.CONNECTING

    async def get(self) -> Host:
        """Return the open server; raises the error of opening it."""
        async with self._opening:
            if self.failure is not None:
                raise self.failure
            try:
                return await self._opened()
            except NbrunError as error:
                self.failure = error
                raise

    async def _opened(self) -> Host:
        if self._host is not None and self._host.gone():
            if not self._left:
                raise ServerError(
                    f"the private server ended by itself {RESTARTS + 1} times; it is not started again",
                    hint="Something in these notebooks may take all memory: run fewer at once with -j.",
                )
            self._left -= 1
            _log.info("the private server ended by itself; starting another one")
            self._host = None
        if self._host is None:
            self._host = await self._stack.enter_async_context(self._open())
        return self._host

    async def may_be_replaced(self, host: Host) -> bool:
        """Return whether `host`, on which a run failed, has ended and can be replaced."""
        if not self._replaceable or host.ended is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(host.ended(), NEWS_LIMIT)
        return host.gone() and (self._left > 0 or host is not self._host)

    async def answers_within(self, limit: float, warn: Callable[[str], None]) -> bool:
        """Return whether the server answers, waiting up to `limit` seconds for an unreachable one."""
        if self._host is None or self._replaceable:
            return True
        server = self._host.server
        problem = f"{server.client.endpoint} does not answer"
        wait = "" if math.isinf(limit) else f"up to {spell_duration(limit)} "
        if await server.answers_within(limit, lambda: warn(f"{problem}; waiting {wait}until it does")):
            return True
        warn(f"{problem} after {spell_duration(limit)}; not trying again")
        return False

    async def close(self) -> None:
        """Close every server that was opened."""
        await self._stack.aclose()


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


class _Batch:
    def __init__(
        self,
        planned_runs: Sequence[PlannedRun],
        host: _SharedHost,
        policy: Policy,
        observe: Observer,
        stop: StopSwitch,
        cache: Cache | None,
        journal: RunJournal | None,
    ) -> None:
        self._planned_runs = planned_runs
        self._host = host
        self._policy = policy
        self._observe = observe
        self._stop = stop
        self._cache = cache
        self._journal = journal
        self._waiting = deque(range(len(planned_runs)))
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
        if self._host.failure is not None:
            return str(self._host.failure)
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
            slot = _Slot(self._slots, whole=self._policy.max_failures is not None)
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
        if (delivered := await asyncio.to_thread(self._journal.look, planned)) is not None:
            _log.info("%s: delivered before, according to the journal", planned.name)
            *events, end = events_of(planned.name, delivered.result, delivered.document)
            for event in events:
                journal.tell(event)
            if isinstance(end, RunFinished):
                finished.append(end)
            return delivered.result
        notebook = await asyncio.to_thread(self._journal.notebook_now, planned)
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
            heard: list[RunFinished] = []
            result = await self._attempt(planned, slot, warnings, heard, attempts.best)
            if result is None:  # the server ended before anything was executed; this does not count as an attempt
                continue
            if not result.attempts and attempts.best is not None:  # it got no slot again
                break
            attempts.add(result, heard[-1] if heard else None)
            warnings = list(result.warnings)
            is_pending = self._policy.tries_again(result, len(attempts.results))
            if not is_pending or self._over or not await self._pause(planned, slot, attempts, warnings):
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
            f"{self._stop.reason} {when} of {self._policy.retries + 1}",
            f"The notebook and the results of its cells are those of attempt {attempts.number}: {_reason(kept)}.",
        )
        return replace(kept, outcome=Outcome.INTERRUPTED, signal=self._stop.exit_code, problem=problem)

    async def _pause(self, planned: PlannedRun, slot: _Slot, attempts: Attempts, warnings: list[str]) -> bool:
        """Wait for the next attempt; return whether there is one."""
        last, number = attempts.results[-1], len(attempts.results)
        journal = Journal(planned.name, self._observe)
        journal.warn(f"attempt {number} of {self._policy.retries + 1}: {_reason(last)}; trying again")
        slot.pause()
        pause = pause_after(number)
        _log.info("%s: attempt %d starts in %.1f s", planned.name, number + 1, pause)
        try:
            await self._stop.guard(asyncio.sleep(pause))
            if last.outcome is not Outcome.SERVER_FAILED:
                return True
            return await self._stop.guard(self._host.answers_within(self._policy.server_wait, journal.warn))
        except Stopped:
            return False
        finally:
            warnings += journal.warnings

    async def _attempt(
        self,
        planned: PlannedRun,
        slot: _Slot,
        earlier: Sequence[str],
        finished: list[RunFinished],
        best: NotebookResult | None,
    ) -> NotebookResult | None:
        """Make one attempt; return None if the server ended before the run started and will be replaced.

        Events are passed on, except the last one. It is added to `finished`, because another attempt may follow. `best`
        is the best attempt so far.
        """
        later: list[LaterAttempt] = []

        def observe(event: Event) -> None:
            for notebook in later:
                notebook.observe(event)
            if isinstance(event, RunFinished):
                finished.append(event)
            else:
                self._observe(event)

        journal = Journal(planned.name, observe)
        journal.warnings.extend(earlier)
        began, clock = datetime.now(UTC), asyncio.get_running_loop().time
        since = clock()
        used: list[Host] = []
        caching: list[CachingNotebook] = []
        slot.check = lambda: self._check_start(used)
        slot.ask()
        job = planned.job if self._cache is None else replace(planned.job, save=True)
        try:
            opening = self._opening(planned, journal, used, caching, later, best)
            result = await run_notebook(job, opening, journal=journal, stop=self._stop, slot=slot)
        except _NotStarted:
            return self._not_its_turn(planned)
        except NbrunError as error:
            if isinstance(error, ServerError) and used and await self._host.may_be_replaced(used[0]):
                return None
            result = unexecuted(planned.job.notebook, outcome_of(error), Problem.of(error), began)
            result = replace(result, seconds=clock() - since, warnings=tuple(journal.warnings))
            finished.append(RunFinished(planned.name, result, error=error))
        except Exception as error:  # noqa: BLE001  (a bug in one run must not affect the others)
            lines = "".join(traceback.format_exception(error))
            problem = Problem(f"this is a bug in nbrun {__version__}: {error!r}", f"Please report it with\n{lines}")
            result = replace(unexecuted(planned.job.notebook, Outcome.INTERRUPTED, problem, began), signal=ExitCode.BUG)
            result = replace(result, seconds=clock() - since, warnings=tuple(journal.warnings))
            finished.append(RunFinished(planned.name, result, error=error))
        except BaseException:
            for notebook in caching:
                notebook.drop()
            raise
        for notebook in caching:
            await asyncio.to_thread(notebook.settle, result)
        is_saved = (planned.job.save and not any(notebook.is_withheld for notebook in later)) or result.rescued
        return result if is_saved else replace(result, output=None)

    @contextlib.asynccontextmanager
    async def _opening(
        self,
        planned: PlannedRun,
        journal: Journal,
        used: list[Host],
        caching: list[CachingNotebook],
        later: list[LaterAttempt],
        best: NotebookResult | None,
    ) -> AsyncIterator[tuple[Server, Notebook]]:
        if not self._host.is_open:
            journal.enter(self._host.stage)
        host = await self._host.get()
        used.append(host)
        notebook = host.notebook(planned.paths, journal.warn)
        if self._cache is not None:
            caching.append(CachingNotebook(notebook, self._cache, planned.job, planned.paths, planned.parameters))
            notebook = caching[-1]
        if best is not None:
            later.append(LaterAttempt(notebook, best))
            notebook = later[-1]
        yield host.server, notebook

    def _check_start(self, used: Sequence[Host]) -> None:
        """Raise an exception if a waiting run must not or cannot start any more."""
        if self._over and self._stop.reason is None:
            raise _NotStarted(self._over)
        if used and used[0].gone():
            raise ServerError("the private server ended while this run was waiting for its slot")

    async def _from_cache(
        self, planned: PlannedRun, cache: Cache, finished: list[RunFinished]
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


def _reason(result: NotebookResult) -> str:
    return result.problem.message if result.problem else result.outcome.value
