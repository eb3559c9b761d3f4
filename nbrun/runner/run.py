"""Run one notebook: load it, start a session, execute its cells, save it, delete the session.

The failure of a cell is a value in the result. Failures of the environment are exceptions from lower layers. Before the
first cell they are raised to the caller, because nothing was changed. Later they are recorded in the result, which is
still saved.

Every end of the execution (last cell, error, time-out, dead kernel, signal, cancellation, bug) leads to
:meth:`nbrun.runner.saving.ResultSaver.conclude`, which saves the results to the output path or to a rescue file.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, cast

from msgspec import structs

from nbrun.core.events import CellFinished, Event, Journal, Observer, RunFinished, Stage
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.outcomes import Ending, ending_without_artefacts, unrun
from nbrun.core.execution.pipelining import Pipelining
from nbrun.core.execution.write_back import Recording
from nbrun.core.notebook.document import Document
from nbrun.core.outputs.masking import Mask, MaskedMessages
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import Action, Plan
from nbrun.core.planning.preparation import prepare
from nbrun.core.protocol.agent import REPLAY_BUFFER, Ability, Agent, AgentOptions
from nbrun.core.results import CellResult, NotebookResult, Outcome, Problem, moment
from nbrun.errors import NbrunError, NoSuchKernel, UsageError
from nbrun.jupyter.kernel.inbound import Intake
from nbrun.jupyter.kernel_session import RunningKernel, Server
from nbrun.jupyter.kernelspecs import KernelSpec, KernelSpecs
from nbrun.jupyter.trace import Trace
from nbrun.runner.artefacts import Collecting, make_scratch, remove_scratch
from nbrun.runner.job import NotebookPaths
from nbrun.runner.pipelining import SharedProgress, choose_pipelining
from nbrun.runner.plugins import literal_writer
from nbrun.runner.saving import ResultSaver
from nbrun.runner.servers import Host
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.base import Notebook
from nbrun.version import __version__

Opening = AbstractAsyncContextManager[tuple[Server, Notebook]]
"""Opens the server and the notebook of a run."""
Slot = AbstractAsyncContextManager[object]
"""Entered while a run's cells execute; limits the number of runs that execute at the same time."""
ANSWER_SOON = 1.0
"""Seconds to wait for the answer to a request that is not needed any more, before it is cancelled."""
_log = logging.getLogger(__name__)


async def run_notebook(
    job: Job, opening: Opening, *, journal: Journal, stop: StopSwitch, slot: Slot | None = None
) -> NotebookResult:
    """Run one notebook on a server and return its result.

    `journal` receives all events, and `stop` ends the run early. With a `slot`, the cells wait until it is acquired;
    this time is not part of the run's duration. Raises :class:`NbrunError` if nothing was executed; then nothing was
    changed. Cancellation first saves the results so far.
    """
    run = _Run(job, journal, stop, slot or contextlib.nullcontext())
    result = await run.go(opening)
    run.finish_trace(result)
    problem = result.problem
    if problem is not None:
        problem = structs.replace(problem, message=journal.mask(problem.message), hint=journal.mask(problem.hint))
    result = replace(result, problem=problem, warnings=tuple(journal.warnings))
    _log.info("%s: %s in %.2f s", journal.notebook, result.outcome.value, result.seconds)
    content = run.document.content if run.document else None
    journal.tell(RunFinished(journal.notebook, result, content, job.report_mode))
    return result


async def run_on_host(
    job: Job, paths: NotebookPaths, host: Host, *, observe: Observer, stop: StopSwitch
) -> NotebookResult:
    """Run the notebook at `paths` on a server that is open, as :func:`run_notebook` does."""
    journal = Journal(job.notebook, observe)

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[tuple[Server, Notebook]]:
        yield host.server, host.notebook(paths, journal.warn)

    return await run_notebook(job, opening(), journal=journal, stop=stop)


class _Run:
    def __init__(self, job: Job, journal: Journal, stop: StopSwitch, slot: Slot) -> None:
        self._job = job
        self._journal = journal
        self._stop = stop
        self._slot = slot
        self._waited = 0.0
        self._started = datetime.now(UTC)
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._plan: Plan | None = None
        self.document: Document | None = None
        self._parameters: Mapping[str, Any] = {}
        self._trace: Trace | None = None
        self._is_private = False
        self._lost = Outcome.SERVER_FAILED
        """The outcome if the server is lost."""
        self._setting: Mapping[str, Any] = {}
        """How the run was made, for the trace."""
        self._kernel = ""
        self._progress: SharedProgress | None = None
        self._mask = Mask(job.secrets.values())
        if self._mask:
            journal.mask = self._mask.text

    async def go(self, opening: Opening) -> NotebookResult:
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    server, notebook = await self._stop.guard(stack.enter_async_context(opening))
                    return await self._load_and_run(server, notebook)
                except Stopped:
                    return self._stopped_early()
        except NbrunError as error:
            error.args, error.hint = (self._mask.text(str(error)),), self._mask.text(error.hint)
            raise

    def finish_trace(self, result: NotebookResult) -> None:
        """Write the result into the trace, and warn of a trace that is not complete."""
        if self._trace is None:
            return
        self._trace.result(self._kernel, result.as_dict())
        if (failure := self._trace.failure) is not None:
            self._journal.warn(f"{self._trace.path}: the trace is not complete: {failure.strerror or failure}")

    async def _load_and_run(self, server: Server, notebook: Notebook) -> NotebookResult:
        self._trace, self._is_private = server.client.http.options.trace, server.is_private
        if self._trace is not None:
            self._trace.hide(self._job.secrets.values())
        try:
            self._journal.enter(Stage.LOADING)
            document, specs = await self._stop.guard(self._load(server, notebook))
            self.document = document
            spec = self._choose_kernel(specs, document)
            self._plan = self._prepare_document(document, spec, is_private=server.is_private)
            name, cells = self._journal.notebook, len(self._plan.to_run)
            _log.info("%s: loaded, %d cells to run, kernelspec %s", name, cells, spec.name)
            self._journal.enter(Stage.STARTING_KERNEL)
            return await self._run(server, notebook, document, self._plan, spec)
        finally:
            await notebook.close()

    def _choose_kernel(self, specs: KernelSpecs, document: Document) -> KernelSpec:
        try:
            return specs.choose(self._job.kernel, document.metadata)
        except NoSuchKernel as error:
            raise NoSuchKernel(f"{self._job.notebook}: {error}", hint=error.hint) from None

    def _prepare_document(self, document: Document, spec: KernelSpec, *, is_private: bool) -> Plan:
        """Add the parameters to the notebook, and the secrets to the plan.

        A private server starts the kernel with its environment variables. No API of other servers takes them, so there
        the plan sets them.
        """
        env = {} if is_private else self._job.env
        prepared = prepare(document, self._job, spec.name, spec.language, literal_writer, env=env)
        for warning in prepared.warnings:
            self._journal.warn(warning)
        self._parameters = prepared.parameters
        return prepared.plan

    def _stopped_early(self) -> NotebookResult:
        problem = Problem(f"{self._stop.reason} before the first cell")
        return self._result(Ending(Outcome.INTERRUPTED, problem), unrun(self._plan) if self._plan else [], None)

    async def _load(self, server: Server, notebook: Notebook) -> tuple[Document, KernelSpecs]:
        finding = asyncio.create_task(server.client.kernelspecs())
        try:
            # Loading may upload the notebook. It must not be interrupted, so that the upload can be removed.
            document = Document(await notebook.load(), name=self._job.notebook)
            specs = await finding
        except NbrunError:
            # Both answers may arrive at once. If a read of a Unix socket is cancelled when its data is there, anyio
            # causes an InvalidStateError in the event loop, which logs it with a traceback.
            await asyncio.wait({finding}, timeout=ANSWER_SOON)
            raise
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
        for note in document.notes:
            self._journal.warn(note)
        return document, structs.replace(specs, where="this machine") if server.is_private else specs

    async def _run(
        self, server: Server, notebook: Notebook, document: Document, plan: Plan, spec: KernelSpec
    ) -> NotebookResult:
        recording = Recording(document, self._job, self._mask, __version__)
        saving: asyncio.Task[NotebookResult] | None = None
        ended_by: BaseException | None = None
        try:
            # Other runs may write into the same folder, so the slot is held until the artefacts are collected.
            async with (
                contextlib.AsyncExitStack() as held,
                self._collecting(server, notebook, plan) as (kernel_path, collecting),
                ResultSaver(self._job, self._journal, recording, notebook, server) as keeping,
                self._session(server, kernel_path, spec) as (running, agent),
            ):
                pipelining = choose_pipelining(
                    running,
                    agent,
                    plan,
                    self._job.pipeline,
                    self._journal.warn,
                    near=server.is_private or server.client.http.is_near,
                    shares_progress=self._progress is not None and self._progress.is_shared,
                )
                execution = self._prepare(document, plan, running, agent, pipelining, keeping)
                waiting_since = self._clock()
                async with contextlib.AsyncExitStack() as executing:
                    await (held if plan.artefacts else executing).enter_async_context(self._slot)
                    self._waited = self._clock() - waiting_since
                    _log.debug("%s: slot free after %.2f s, %s", self._job.notebook, self._waited, pipelining)
                    if self._stop.reason is not None:
                        raise Stopped
                    if plan.artefacts:
                        await self._stop.guard(collecting.begin())
                    keeping.begin(execution, lambda: running.kernel.heard, moment(self._started))
                    ended_by = await self._execute(execution, running, agent, server)
                # The notebook is saved while the kernel shuts down, because neither needs the other any more.
                saving = asyncio.create_task(self._conclude(keeping, execution, spec, collecting))
        except BaseException as error:
            if saving is None:
                raise
            ended_by = error
        return await self._saved(saving, keeping, ended_by)

    async def _saved(
        self, saving: asyncio.Task[NotebookResult], keeping: ResultSaver, ended_by: BaseException | None
    ) -> NotebookResult:
        """Wait for the save and return its result, or raise the exception that ended the run."""
        if not isinstance(ended_by, asyncio.CancelledError):
            try:
                await asyncio.wait({saving})
            except asyncio.CancelledError as error:
                ended_by = error
        if isinstance(ended_by, asyncio.CancelledError):
            keeping.shorten("the run was cancelled")
            # A second cancellation ends the save too, and a rescue file is written.
            await asyncio.gather(saving, return_exceptions=True)
        if ended_by is None:
            return saving.result()
        if (bug := saving.exception()) is None and (problem := saving.result().problem) and saving.result().rescued:
            self._journal.warn(f"{problem.message}. {problem.hint}")  # the caller does not get the result
        raise ended_by from bug

    async def _conclude(
        self, keeping: ResultSaver, execution: Execution, spec: KernelSpec, collecting: Collecting
    ) -> NotebookResult:
        """Save the results; shorten the save's time limit when a signal arrives meanwhile."""
        self._stop.listen(keeping.shorten)
        try:
            try:
                await collecting.ended()
            except asyncio.CancelledError:
                # Cancelled again at its first wait, `conclude` writes a rescue file.
                cast("asyncio.Task[Any]", asyncio.current_task()).cancel()
            result_of = functools.partial(self._result, kernel=spec.name, collecting=collecting)
            return await keeping.conclude(execution, result_of)
        finally:
            self._stop.forget(keeping.shorten)

    @contextlib.asynccontextmanager
    async def _collecting(
        self, server: Server, notebook: Notebook, plan: Plan
    ) -> AsyncIterator[tuple[str, Collecting]]:
        """Yield the path of the session, in a scratch folder if the job requires it; collect artefacts at the end."""
        path, scratch, is_whole = notebook.kernel_path, None, False
        if server.kernels_only and (self._job.scratch or plan.artefacts):
            hint = "Its kernels work in a folder that only the gateway knows."
            raise UsageError(f"{self._job.notebook}: a gateway has neither artefacts nor --cwd @scratch", hint=hint)
        if self._job.scratch:
            scratch, folder = await make_scratch(server)
            path = f"{folder}/{PurePosixPath(path).name}"
        collecting = Collecting(self._job, plan.artefacts, server, path, self._mask.text, self._stop)
        try:
            yield path, collecting
            is_whole = True
        finally:
            await collecting.end(soon=not is_whole)
            if scratch is not None:
                await remove_scratch(scratch, collecting, self._journal.warn)

    @contextlib.asynccontextmanager
    async def _session(self, server: Server, path: str, spec: KernelSpec) -> AsyncIterator[tuple[RunningKernel, Agent]]:
        """Yield a kernel and the agent in it, with the options of this run.

        Messages of a private server are not lost, so no replay buffer is needed. Its own ipykernels start without
        limits.
        """
        self._progress = progress = SharedProgress()
        has_no_limits = server.is_private and spec.starts_ipykernel
        options = AgentOptions(
            replay=REPLAY_BUFFER if self._job.resend and not server.is_private else 0,
            lift_limits=(self._job.lift_limits or server.is_private) and not has_no_limits,
            quiet=bool(self._job.secrets or self._job.env),
            freeze=True,
            progress=progress.address,
        )
        startup, warn = self._job.limits.startup, self._journal.warn
        async with contextlib.AsyncExitStack() as stack:
            try:
                session = server.session(path, spec, env=self._job.env, startup=startup, warn=warn, agent=options)
                running = await self._stop.guard(stack.enter_async_context(session))
                agent = await self._stop.guard(server.meet_agent(running, options))
            finally:
                progress.close_address()
            if self._job.lift_limits and not has_no_limits and Ability.LIFT_LIMITS not in agent.abilities:
                warn(f"--lift-limits: only ipykernel's limits can be lifted, not those of {spec.name}")
            if server.is_private and progress.is_shared:
                # Another server may drop output, and a cell would wait in vain until it is received.
                running.kernel.report_received(progress.record_received)
                stack.callback(progress.record_received, 0)
            yield running, agent
            self._journal.enter(Stage.STOPPING)

    def _prepare(
        self,
        document: Document,
        plan: Plan,
        running: RunningKernel,
        agent: Agent,
        pipelining: Pipelining,
        keeping: ResultSaver,
    ) -> Execution:
        """Remove the results of an earlier run from the cells that will be executed."""
        is_logged = _log.isEnabledFor(logging.DEBUG)

        def observe(event: Event) -> None:
            keeping.observe(event)
            if is_logged and isinstance(event, CellFinished):
                cell = event.result
                _log.debug("%s: cell %s %s", self._job.notebook, cell.number, cell.outcome.value)
            self._journal.tell(event)

        spec = running.spec
        named = {"display_name": spec.display_name, "language": spec.language, "name": spec.name}
        document.set_kernel(named, running.info.language_info)
        for cell in plan.cells:
            if cell.action is not Action.KEEP:
                document.clear(cell.index)
        options: dict[str, Any] = {
            "kernel_session": running.info.session,
            "raw_streams": self._job.raw_streams,
            "max_output": self._job.max_output,
            "ask_for_writers": Ability.WRITERS in agent.abilities,
            "can_recall": Ability.ONCE in agent.abilities,
        }
        self._setting = {
            "about": self._job.notebook,
            "kernel": running.info.banner.partition("\n")[0],
            "cells": [structs.asdict(cell) | {"action": cell.action.value} for cell in plan.cells]
            if self._trace
            else [],
            "run_timeout": plan.run_timeout,
            **options,
            **structs.asdict(pipelining),
            "private": self._is_private,
            "tolerate_loss": self._job.tolerate_loss,
        }
        return Execution(
            plan,
            running.kernel.requests,
            notebook=self._job.notebook,
            pipelining=pipelining,
            last_started=self._last_started,
            observe=observe,
            **options,
        )

    def _last_started(self) -> str | None:
        """Return the request that the kernel started last, and let it start none from now on."""
        started = self._progress.last_started() if self._progress else None
        if self._trace is not None:
            self._trace.asked(self._kernel, {"started": started})
        return started

    async def _execute(
        self, execution: Execution, running: RunningKernel, agent: Agent, server: Server
    ) -> BaseException | None:
        """Execute the cells; return the cancellation or bug that must be raised after the save, or None."""
        kernel = running.kernel
        self._journal.enter(Stage.RUNNING)
        self._stop.listen(kernel.stop)
        try:
            masked = MaskedMessages(self._mask) if self._mask else None
            intake = Intake.of(running.info, agent, kernel.requests, masked=masked)
            if self._trace is not None:
                self._kernel = kernel.id
                replays = {"replay": intake.may_delay, "last": agent.last if intake.may_delay else None}
                requests = kernel.requests
                sent = {
                    "session": requests.session,
                    "id_prefix": requests.id_prefix,
                    "requests_made": requests.made,
                }
                self._trace.run(kernel.id, {**self._setting, **sent, **replays})
            await kernel.run(execution, intake)
            if server.on_engine and kernel.is_lost:
                self._lost = Outcome.SEAT_LOST
            if kernel.unreadable:
                what = f"{kernel.unreadable} messages of the kernel could not be read"
                self._journal.warn(f"{what}; output may be missing")
        except asyncio.CancelledError as error:
            self._abandon(execution, "the run was cancelled")
            return error
        except Exception as error:  # noqa: BLE001 - the results must be saved all the same
            self._abandon(execution, f"the run was ended by a bug in nbrun: {error!r}")
            return error
        finally:
            self._stop.forget(kernel.stop)
        return None

    def _abandon(self, execution: Execution, reason: str) -> None:
        with contextlib.suppress(Exception):  # after a bug, keep the execution as it is
            execution.abandon(self._clock(), reason)

    def _result(
        self, ending: Ending, cells: Sequence[CellResult], kernel: str | None, collecting: Collecting | None = None
    ) -> NotebookResult:
        missing = collecting.missing if collecting else []
        if self._job.tolerate_loss or ending.outcome is not Outcome.PASSED:
            for one in missing:
                self._journal.warn(f"an artefact is missing: {one}")
        else:
            ending = ending_without_artefacts(ending, missing)
        return NotebookResult(
            version=__version__,
            path=self._job.notebook,
            output=None,
            kernel=kernel,
            outcome=self._lost if ending.outcome is Outcome.SERVER_FAILED else ending.outcome,
            started=moment(self._started),
            seconds=self._clock() - self._began - self._waited,
            cells=cells,
            problem=ending.problem,
            signal=self._stop.exit_code,
            parameters=self._mask.value(recordable(self._parameters)),
            artefacts=tuple(collecting.artefacts) if collecting else (),
        )
