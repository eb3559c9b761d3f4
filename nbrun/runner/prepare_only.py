"""Write a notebook with its parameters and execute nothing (``--prepare-only``).

A notebook on this machine needs no server. Errors that a run would report, such as wrong parameters, are reported here
too. A kernel that is not installed causes only a warning, because the notebook may be run on another machine.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from nbrun.core.events import Journal, RunFinished, Stage
from nbrun.core.execution.outcomes import unrun
from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_reading import notebook_content
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.planning import preparation
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import Action
from nbrun.core.results import DELIVERED, NotebookResult, Outcome, Problem, moment, outcome_of, unexecuted
from nbrun.errors import ExitCode, NbrunError, NoSuchKernel, UsageError
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.local_kernelspecs import installed_kernelspecs
from nbrun.runner.job import Access, NotebookPaths
from nbrun.runner.plugins import literal_writer
from nbrun.runner.servers import Host, existing_host
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.in_memory import MemoryFile
from nbrun.storage.on_disk import read_bytes, write_notebook
from nbrun.storage.paths import absolute, local_notebook, local_output, shown
from nbrun.version import __version__


@asynccontextmanager
async def host_to_prepare_on(access: Access) -> AsyncIterator[Host | None]:
    """Open the server of the notebooks, or yield None if they are on this machine."""
    if not access.server:
        yield None
        return
    async with existing_host(access) as host:
        yield host


async def prepare_unless_stopped(
    job: Job, paths: NotebookPaths, host: Host | None, journal: Journal, stop: StopSwitch
) -> NotebookResult:
    """Prepare like :func:`prepare`, until `stop` is pulled, and report a failure in the result."""
    try:
        return await stop.guard(prepare(job, paths, host, journal))
    except Stopped:
        problem = Problem(f"not prepared: {stop.reason}")
        return _not_prepared(job, journal, Outcome.NOT_RUN, problem, signal=stop.exit_code)
    except NbrunError as error:
        return _not_prepared(job, journal, outcome_of(error), Problem.of(error), error=error)


def _not_prepared(
    job: Job,
    journal: Journal,
    outcome: Outcome,
    problem: Problem,
    *,
    signal: ExitCode | None = None,
    error: NbrunError | None = None,
) -> NotebookResult:
    result = unexecuted(job.notebook, outcome, problem, datetime.now(UTC))
    result = replace(result, signal=signal, warnings=tuple(journal.warnings))
    journal.tell(RunFinished(journal.notebook, result, report_mode=job.report_mode, error=error))
    return result


async def prepare(job: Job, paths: NotebookPaths, host: Host | None, journal: Journal) -> NotebookResult:
    """Write the parameters into a notebook, save it and return the result; raise :class:`NbrunError`.

    Outputs of an earlier run are removed, because they do not belong to the new parameters.
    """
    if not job.save:
        raise UsageError("a notebook that is prepared and not saved is nothing", hint="Leave out --no-save.")
    began = datetime.now(UTC)
    journal.enter(Stage.LOADING)
    if host is None:
        source = Path(paths.notebook)
        target = Path(paths.output or source)
        if not (paths.deliver or paths.stored):
            local_output(target)
        if paths.content is None:
            local_notebook(paths.notebook)
        data = read_bytes(source) if paths.content is None else paths.content
        document = Document(notebook_content(data, str(source)), name=job.notebook)
        result = _prepared(document, job, installed_kernelspecs(), journal, began)
        journal.enter(Stage.SAVING)
        if paths.deliver:
            output = DELIVERED
            await MemoryFile(output, deliver=paths.deliver).write(document.content, None)
        elif paths.stored:
            from nbrun.storage.in_object_store import put_notebook

            version = paths.version if paths.stored == paths.origin else ""
            output = await put_notebook(paths.stored, document.content, version)
        else:
            output = shown(absolute(target), Path.cwd())
            write_notebook(absolute(target), document.content)
        result = replace(result, output=output)
    else:
        notebook = host.notebook(paths, journal.warn)
        try:
            document = Document(await notebook.load(), name=job.notebook)
            result = _prepared(document, job, await host.server.client.kernelspecs(), journal, began)
            journal.enter(Stage.SAVING)
            result = replace(result, output=await notebook.save(document.content, host.server.save, passed=True))
        finally:
            await notebook.close()
    seconds = (datetime.now(UTC) - began).total_seconds()
    result = replace(result, seconds=seconds, warnings=tuple(journal.warnings))
    journal.tell(RunFinished(journal.notebook, result, document.content, job.report_mode))
    return result


def _prepared(document: Document, job: Job, kernels: KernelSpecs, journal: Journal, began: datetime) -> NotebookResult:
    """Prepare the notebook's content, and return the result without its output path."""
    kernel, language, warning = kernel_of(document, job, kernels)
    prepared = preparation.prepare(document, job, kernel, language, literal_writer)
    for note in (*document.notes, *([warning] if warning else []), *prepared.warnings):
        journal.warn(note)
    for cell in prepared.plan.cells:
        if cell.action is not Action.KEEP:
            document.clear(cell.index)
    started = moment(began)
    given = recordable(prepared.parameters)
    record = {"version": __version__, "outcome": Outcome.PREPARED.value}
    record |= {"started": started} if job.record_timing else {}
    document.mark_run({**record, **({"parameters": given} if given else {})})
    return NotebookResult(
        __version__,
        job.notebook,
        None,
        kernel or None,
        Outcome.PREPARED,
        started,
        0.0,
        unrun(prepared.plan),
        parameters=given,
    )


def kernel_of(document: Document, job: Job, kernels: KernelSpecs) -> tuple[str, str, str]:
    """Return the notebook's kernel and language as far as they are known, and a warning or ""."""
    named = as_object(document.metadata.get("kernelspec"))
    language = str(as_object(document.metadata.get("language_info")).get("name") or named.get("language") or "")
    name, warning = job.kernel or str(named.get("name") or ""), ""
    try:
        spec = kernels.choose(job.kernel, document.metadata)
        name, language = spec.name, spec.language
    except NoSuchKernel as error:
        warning = f"{error}. {error.hint}"
    return name, job.language or language, warning
