"""The life of one run: load the notebook, start a session, execute its cells, save it, tear the session down.

A *cell's* failure is a value in the result. The *world's* failures are exceptions raised below; before the first cell
they pass through, since nothing was changed; after it they are recorded in the result, which is saved all the same:
to the asked place, else to a rescue file on this machine.

While the cells run, the notebook is saved now and then (:mod:`nbrun.autosave`), and says that it is not finished.
Every way out of the execution (the end, an error, a clock, a dead kernel, a signal, cancellation) meets at
:meth:`_Run._conclude`.
"""

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from nbrun.autosave import LIMIT, Autosave
from nbrun.core.bundles import stream_output
from nbrun.core.document import RUNNING, Document
from nbrun.core.endings import Ending, ending_with_losses
from nbrun.core.events import Event, Journal, RunFinished, Stage
from nbrun.core.execution import Execution
from nbrun.core.job import Job
from nbrun.core.literals_base import recordable
from nbrun.core.masking import Mask, MaskedMessages
from nbrun.core.plan import Action, Plan
from nbrun.core.preparation import prepare
from nbrun.core.resending import ResentMessages
from nbrun.core.results import CellOutcome, CellResult, NotebookResult, Outcome, Problem
from nbrun.errors import NbrunError, NoSuchKernel, SaveFailed
from nbrun.jupyter.ahead import find_depth
from nbrun.jupyter.intake import Intake
from nbrun.jupyter.kernelspecs import KernelSpec, KernelSpecs
from nbrun.jupyter.retry import RetryPolicy
from nbrun.jupyter.server import RunningKernel, Server
from nbrun.local_files import rescue
from nbrun.plugins import literal_writer
from nbrun.stopping import Stopped, StopSwitch
from nbrun.version import __version__

HURRIED = 5.0
"""Seconds within which a save is tried again after a signal or the loss of the server."""
HURRIED_LIMIT = 20.0
"""Seconds after which such a save is given up for the rescue file, even if the server still seems to take it."""
IN_A_HURRY = (Outcome.INTERRUPTED, Outcome.SERVER_FAILED)


class Notebook(Protocol):
    """Where a notebook comes from and where its result goes."""

    path: str
    """Where it is on the server."""

    @property
    def kernel_path(self) -> str:
        """Where it is to its kernel, whose working directory is the folder of it."""

    async def load(self) -> Mapping[str, Any]:
        """Give the content, of nbformat 4."""

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save the executed content and give where it went; raises :class:`SaveFailed`."""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save what there is while the cells still run; False where it must not be tried again before the end."""

    async def close(self) -> None:
        """Clean up; raises nothing."""


Opening = AbstractAsyncContextManager[tuple[Server, Notebook]]
"""Opens what a run needs: a server, and the notebook on it."""
Turn = AbstractAsyncContextManager[object]
"""Held while a run's cells are executed, for as many runs at once as the machine is meant to bear."""


async def run_notebook(
    job: Job, opening: Opening, *, journal: Journal, stop: StopSwitch, turn: Turn | None = None
) -> NotebookResult:
    """Run one notebook on a server and give what came of it.

    `journal` is told of everything on the way, `stop` ends the run early; with a `turn`, its cells wait until it is
    given, and that time is not the run's. Raises :class:`NbrunError` when nothing
    could be run; then nothing was changed. Cancellation saves what there is before it passes on.
    """
    run = _Run(job, journal, stop, turn or contextlib.nullcontext())
    result = await run.go(opening)
    problem = result.problem and Problem(journal.mask(result.problem.message), journal.mask(result.problem.hint))
    result = replace(result, problem=problem, warnings=tuple(journal.warnings))
    journal.tell(RunFinished(journal.notebook, result, run.document.content if run.document else None))
    return result


class _Run:
    def __init__(self, job: Job, journal: Journal, stop: StopSwitch, turn: Turn) -> None:
        self._job = job
        self._journal = journal
        self._stop = stop
        self._turn = turn
        self._waited = 0.0
        self._started = datetime.now(UTC)
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._plan: Plan | None = None
        self._autosave = Autosave(journal.warn)
        self.document: Document | None = None
        self._parameters: Mapping[str, Any] = {}
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

    async def _load_and_run(self, server: Server, notebook: Notebook) -> NotebookResult:
        try:
            self._journal.enter(Stage.LOADING)
            document, specs = await self._stop.guard(self._load(server, notebook))
            self.document = document
            spec = self._choose_kernel(specs, document)
            self._plan = self._prepare_document(document, spec)
            self._journal.enter(Stage.STARTING_KERNEL)
            return await self._run(server, notebook, document, self._plan, spec)
        finally:
            await notebook.close()

    def _choose_kernel(self, specs: KernelSpecs, document: Document) -> KernelSpec:
        try:
            return specs.choose(self._job.kernel, document.metadata)
        except NoSuchKernel as error:
            raise NoSuchKernel(f"{self._job.notebook}: {error}", hint=error.hint) from None

    def _prepare_document(self, document: Document, spec: KernelSpec) -> Plan:
        """Put the parameters into the notebook, and the secrets into the plan."""
        prepared = prepare(document, self._job, spec.name, spec.language, literal_writer)
        for warning in prepared.warnings:
            self._journal.warn(warning)
        self._parameters = prepared.parameters
        return prepared.plan

    def _stopped_early(self) -> NotebookResult:
        cells = self._plan.cells if self._plan else ()
        unrun = [CellResult(cell.index, cell.id, CellOutcome.NOT_RUN) for cell in cells]
        return self._result(
            Ending(Outcome.INTERRUPTED, Problem(f"{self._stop.reason} before the first cell")), unrun, None
        )

    async def _load(self, server: Server, notebook: Notebook) -> tuple[Document, KernelSpecs]:
        finding = asyncio.create_task(server.client.kernelspecs())
        try:
            # Loading may mean uploading, which nothing but its own end may interrupt: it is cleaned up after.
            document = Document(await notebook.load(), name=self._job.notebook)
            specs = await finding
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
        for note in document.notes:
            self._journal.warn(note)
        return document, specs

    async def _run(
        self, server: Server, notebook: Notebook, document: Document, plan: Plan, spec: KernelSpec
    ) -> NotebookResult:
        saving: asyncio.Task[NotebookResult] | None = None
        ended_by: BaseException | None = None
        try:
            async with self._autosave, self._session(server, notebook.kernel_path, spec) as running:
                await self._stop.guard(self._lift_limits(server, running))
                depth = await self._stop.guard(
                    find_depth(running, plan, self._job.pipeline, self._journal.warn, near=server.is_private)
                )
                execution = self._prepare(document, plan, running, depth)
                sink = _Sink(notebook, document, server.save)
                waiting_since = self._clock()
                async with self._turn:
                    self._waited = self._clock() - waiting_since
                    if self._stop.reason is not None:
                        raise Stopped
                    if self._job.save and self._job.save_every != math.inf:
                        save = functools.partial(self._save_meanwhile, sink, execution)
                        self._autosave.start(save, lambda: running.kernel.heard, self._job.save_every)
                    ended_by = await self._execute(execution, running, self._resent(server, running))
                # The notebook is saved while the kernel shuts down: neither needs the other any more.
                saving = asyncio.create_task(self._conclude(sink, execution, spec))
        finally:
            if saving is not None:
                try:
                    await asyncio.wait({saving})
                except asyncio.CancelledError as error:
                    ended_by = error
                    await saving  # unless that is cancelled once more: then the save ends as well, in a rescue file
        if ended_by is not None:
            raise ended_by
        return saving.result()

    @contextlib.asynccontextmanager
    async def _session(self, server: Server, path: str, spec: KernelSpec) -> AsyncIterator[RunningKernel]:
        async with contextlib.AsyncExitStack() as stack:
            session = server.session(path, spec, startup=self._job.limits.startup, warn=self._journal.warn)
            yield await self._stop.guard(stack.enter_async_context(session))
            self._journal.enter(Stage.STOPPING)

    async def _lift_limits(self, server: Server, running: RunningKernel) -> None:
        """Let the kernel drop no output, where that is wanted and was not done at its start."""
        if not (self._job.lift_limits or server.is_private) or (server.is_private and running.spec.starts_ipykernel):
            return
        if running.info.implementation == "ipython" and await running.kernel.lift_limits():
            return
        if self._job.lift_limits:
            self._journal.warn(
                f"--lift-limits: only ipykernel's limits can be lifted, not those of {running.spec.name}"
            )

    def _resent(self, server: Server, running: RunningKernel) -> ResentMessages | None:
        """Give what brings lost messages back, where any are lost and the kernel can send them again."""
        info = running.info
        is_able = info.implementation == "ipython" and not server.is_private and self._job.resend
        return ResentMessages(running.kernel.requests, info.session) if is_able and info.session else None

    def _prepare(self, document: Document, plan: Plan, running: RunningKernel, depth: int) -> Execution:
        """Take the results of an earlier run out of what is to run, so that none is left to mislead."""
        spec = running.spec
        named = {"display_name": spec.display_name, "language": spec.language, "name": spec.name}
        document.set_kernel(named, running.info.language_info)
        for cell in plan.cells:
            if cell.action is not Action.KEEP:
                document.clear(cell.index)
        return Execution(
            plan,
            running.kernel.requests,
            notebook=self._job.notebook,
            kernel_session=running.info.session,
            raw_streams=self._job.raw_streams,
            max_output=self._job.max_output,
            ask_for_writers=running.info.implementation == "ipython",
            depth=depth,
            observe=self._observe,
        )

    def _observe(self, event: Event) -> None:
        self._autosave.observe(event)
        self._journal.tell(event)

    async def _execute(
        self, execution: Execution, running: RunningKernel, resent: ResentMessages | None
    ) -> BaseException | None:
        """Run the cells; gives what must pass on once all is saved: that the run was cancelled, or a bug of ours."""
        kernel = running.kernel
        self._journal.enter(Stage.RUNNING)
        self._stop.listen(kernel.stop)
        try:
            masked = MaskedMessages(self._mask) if self._mask else None
            await kernel.run(execution, Intake(resent=resent, masked=masked))
        except asyncio.CancelledError as error:
            execution.abandon(self._clock(), "the run was cancelled")
            return error
        except Exception as error:  # noqa: BLE001 - what was computed is worth more than to be lost with it
            execution.abandon(self._clock(), f"the run was ended by a bug in nbrun: {error!r}")
            return error
        finally:
            self._stop.forget(kernel.stop)
        if kernel.unreadable:
            self._journal.warn(f"{kernel.unreadable} messages of the kernel could not be read; output may be missing")
        return None

    async def _conclude(self, sink: "_Sink", execution: Execution, spec: KernelSpec) -> NotebookResult:
        assert execution.ending is not None
        await self._autosave.end(HURRIED if execution.ending.outcome in IN_A_HURRY else LIMIT)
        document, cells = sink.document, execution.results()
        ending = self._weigh_losses(execution, cells)
        result = self._result(ending, cells, spec.name)
        for cell in cells:
            document.mark(cell.index, cell.outcome, cell.incomplete, cell.truncated)
            if cell.truncated:
                self._journal.warn(f"{cell.truncated}, in the cell at index {cell.index}")
            if sent := execution.cells.get(cell.index):
                timing = sent.timing if self._job.record_timing else {}
                outputs = self._masked(sent.area.render())
                if cell.incomplete and self._job.note_loss:
                    outputs.append(stream_output("stderr", f"nbrun: {cell.incomplete}\n"))
                document.record(cell.index, outputs, cell.execution_count, timing)
        document.set_widgets(self._masked(execution.widgets(document.shown())))
        times = {"started": result.started, "seconds": round(result.seconds, 3)} if self._job.record_timing else {}
        given = {"parameters": result.parameters} if result.parameters else {}
        document.mark_run({"version": result.version, "outcome": result.outcome.value, **times, **given})
        # A run that was stopped before its first cell has nothing to save, and must not empty the user's notebook.
        worth_saving = bool(execution.cells) or ending.outcome is Outcome.PASSED
        return await self._save(sink, result) if self._job.save and worth_saving else result

    async def _save_meanwhile(self, sink: "_Sink", execution: Execution) -> bool:
        """Save how far the run has come; what ended before the last time was recorded then."""
        for index, sent in tuple(execution.cells.items()):
            if index in sink.recorded:
                continue
            timing = sent.timing if self._job.record_timing else {}
            sink.document.record(index, self._masked(sent.area.render()), sent.execution_count, timing)
            if sent.outcome is not None:
                sink.document.mark(index, sent.outcome, sent.incomplete(), sent.area.truncated)
                sink.recorded.add(index)
            elif sent.seen:
                sink.document.mark_running(index)
            await asyncio.sleep(0)
        sink.document.set_widgets(self._masked(execution.widgets(sink.document.shown())))
        started = {"started": _moment(self._started)} if self._job.record_timing else {}
        sink.document.mark_run({"version": __version__, "outcome": RUNNING, "saves": self._autosave.saves, **started})
        return await sink.notebook.save_meanwhile(sink.document.content)

    def _masked(self, value: Any) -> Any:
        """Mask what was put together of several messages: a secret may have been, too."""
        return self._mask.value(value) if self._mask else value

    def _weigh_losses(self, execution: Execution, cells: list[CellResult]) -> Ending:
        """Let lost output decide the outcome where nothing worse did; else, or where it is tolerated, warn of it."""
        assert execution.ending is not None
        ending = execution.ending if self._job.tolerate_loss else ending_with_losses(execution.ending, cells)
        if ending.outcome is not Outcome.INCOMPLETE:
            for cell in cells:
                if cell.incomplete:
                    self._journal.warn(f"{cell.incomplete}, in the cell at index {cell.index}")
        return ending

    async def _save(self, sink: "_Sink", result: NotebookResult) -> NotebookResult:
        self._journal.enter(Stage.SAVING)
        in_a_hurry = result.outcome in IN_A_HURRY
        patience = sink.patience.within(HURRIED) if in_a_hurry else sink.patience
        try:
            async with asyncio.timeout(HURRIED_LIMIT if in_a_hurry else None):
                passed = result.outcome is Outcome.PASSED
                output = await sink.notebook.save(sink.document.content, patience, passed=passed)
        except NbrunError as error:
            return self._rescue(sink.document, result, error)
        except TimeoutError:
            late = SaveFailed(f"{self._job.notebook}: the server did not take the result within {HURRIED_LIMIT:g} s")
            return self._rescue(sink.document, result, late)
        except BaseException as error:
            how = (
                "was cancelled" if isinstance(error, asyncio.CancelledError) else f"ended by a bug in nbrun: {error!r}"
            )
            if path := rescue(sink.document.content, self._job.notebook, datetime.now(UTC)):
                self._journal.warn(f"the save {how}; the executed notebook is in {path}")
            raise
        return replace(result, output=output)

    def _rescue(self, document: Document, result: NotebookResult, error: NbrunError) -> NotebookResult:
        """Keep the executed notebook on this machine; that the save failed is now what the run has to say first."""
        path = rescue(document.content, self._job.notebook, datetime.now(UTC))
        where = f"The executed notebook is in {path}." if path else "No rescue file could be written either."
        problem, outcome = Problem(str(error), f"{where} {error.hint}".strip()), Outcome.SERVER_FAILED
        if result.outcome is Outcome.SERVER_FAILED and result.problem:
            problem = Problem(result.problem.message, f"{where} {result.problem.hint}".strip())
        elif result.problem:
            self._journal.warn(result.problem.message)
        if result.outcome is Outcome.INTERRUPTED:
            outcome = Outcome.INTERRUPTED
        return replace(result, outcome=outcome, problem=problem, output=str(path) if path else None, rescued=bool(path))

    def _result(self, ending: Ending, cells: list[CellResult], kernel: str | None) -> NotebookResult:
        return NotebookResult(
            version=__version__,
            notebook=self._job.notebook,
            output=None,
            kernel=kernel,
            outcome=ending.outcome,
            started=_moment(self._started),
            seconds=self._clock() - self._began - self._waited,
            cells=cells,
            problem=ending.problem,
            signal=self._stop.exit_code,
            parameters=self._masked(recordable(self._parameters)),
        )


@dataclass(frozen=True, slots=True)
class _Sink:
    """Where a run's result goes."""

    notebook: Notebook
    document: Document
    patience: RetryPolicy
    recorded: set[int] = field(default_factory=set)
    """The cells whose final results an intermediate save has put into the document."""


def _moment(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds")
