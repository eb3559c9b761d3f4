"""The functions of the API: ``run``, ``run_many``, ``prepare`` and ``plan``, and async forms.

The common options are written out in the signatures. The others are checked by their TypedDict. Both come from the
declarations in :mod:`nbrun.runner.options`, and a test compares them.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack

from msgspec import structs

from nbrun.api.notebooks import (
    ExecutedNotebook,
    NotebookPath,
    Source,
    check_server_options,
    given_options,
    keeping_notebook,
    read_source,
    with_notebook,
)
from nbrun.api.planned import run_planned
from nbrun.api.servers import OptionsOnServer
from nbrun.core.events import Observer
from nbrun.core.parameters.limits import shown_value
from nbrun.core.planning.option_types import options_in
from nbrun.core.planning.preview import Preview
from nbrun.core.results import BatchResult, NotebookResult
from nbrun.errors import UsageError
from nbrun.runner.batch.plan import plan_runs
from nbrun.runner.job import TextOptions, access_of, is_on_server, job_of, read_batch_options, read_run_options
from nbrun.runner.options import (
    MoreBatchOptions,
    MoreRunOptions,
    MoreServerOptions,
)
from nbrun.runner.preview import preview_local, preview_on_server, read_local
from nbrun.runner.stop import StopSwitch
from nbrun.runner.synchronous import run_to_end
from nbrun.storage.wait_budget import WaitBudget


class OptionsOfRun(OptionsOnServer, MoreServerOptions, total=False):
    """The options of :func:`run` that are not in its signature."""


class OptionsOfMany(MoreRunOptions, MoreServerOptions, MoreBatchOptions, total=False):
    """The options of :func:`run_many` that are not in its signature."""


def run(
    notebook: Source,
    *,
    output: NotebookPath | None = None,
    save: bool = True,
    parameters: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    kernel: str | None = None,
    cwd: NotebookPath | None = None,
    timeout: float | str | None = None,
    cell_timeout: float | str | None = None,
    allow_errors: bool = False,
    server: str | None = None,
    token: str | None = None,
    observe: Observer | None = None,
    stop: StopSwitch | None = None,
    **options: Unpack[OptionsOfRun],
) -> NotebookResult:
    """Run a notebook and return its result.

    A notebook that fails is no exception. Look at ``result.outcome``, or call ``result.check()``, which raises
    :class:`CellFailed`. The executed notebook is ``result.notebook``. Raise :class:`NbrunError` if nothing could be
    run; then nothing was changed. Inside a running event loop, for example in Jupyter, the run uses a thread.

    Args:
        notebook: A path, or the notebook itself as a ``NotebookNode`` or a dict. A notebook that is given itself is
            not changed, and nothing is saved without `output`.
        output: Write the executed notebook here. By default the notebook is overwritten.
        save: Whether to write the executed notebook.
        parameters: Values by name, injected in a cell behind the one tagged ``parameters``.
        secrets: Texts by name, set in the kernel and masked in all outputs.
        env: Environment variables of the kernel. On an existing server they are set when the kernel has started.
        kernel: The kernelspec to use instead of the notebook's.
        cwd: The working directory of the kernel. By default it is the notebook's folder.
        timeout: Time limit of the whole run, in seconds or as text such as ``"5m"``.
        cell_timeout: Time limit of each cell.
        allow_errors: Continue after a cell that raises an error.
        server: The URL of a Jupyter server to run on. By default a private server is started.
        token: The token of that server.
        observe: Called with each event of the run.
        stop: Ends the run early when it is pulled.
        **options: The other options; docs/cli.md lists them under "Options in Python".

    """
    return run_to_end(_run(notebook, given_options(locals())))


async def run_async(
    notebook: Source,
    *,
    output: NotebookPath | None = None,
    save: bool = True,
    parameters: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    kernel: str | None = None,
    cwd: NotebookPath | None = None,
    timeout: float | str | None = None,
    cell_timeout: float | str | None = None,
    allow_errors: bool = False,
    server: str | None = None,
    token: str | None = None,
    observe: Observer | None = None,
    stop: StopSwitch | None = None,
    **options: Unpack[OptionsOfRun],
) -> NotebookResult:
    """Run a notebook like :func:`run`, in the running event loop. A cancelled run is saved first."""
    return await _run(notebook, given_options(locals()))


def run_many(
    notebooks: Sequence[NotebookPath],
    *,
    output: NotebookPath | None = None,
    save: bool = True,
    parameters: Mapping[str, Any] | None = None,
    matrix: Mapping[str, Sequence[Any]] | None = None,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    kernel: str | None = None,
    cwd: NotebookPath | None = None,
    timeout: float | str | None = None,
    cell_timeout: float | str | None = None,
    allow_errors: bool = False,
    jobs: int | Literal["auto"] | None = 1,
    retries: int = 0,
    max_failures: int | None = None,
    server: str | None = None,
    token: str | None = None,
    observe: Observer | None = None,
    stop: StopSwitch | None = None,
    **options: Unpack[OptionsOfMany],
) -> BatchResult:
    """Run notebooks, folders of notebooks and patterns on one server, and return the results.

    A notebook that fails is no exception; ``result.check()`` raises :class:`BatchFailed`. Raise :class:`UsageError` if
    the call is wrong; then nothing was run. Everything but a single notebook needs `output`, ``save=False`` or
    ``in_place=True``.

    Args:
        notebooks: Paths of notebooks and folders, and patterns such as ``"reports/**/*.ipynb"``.
        output: A folder for the executed notebooks, or a template such as ``"out/{stem}-{params.region}.ipynb"``.
        save: Whether to write the executed notebooks.
        parameters: Values by name for all notebooks.
        matrix: Lists of values by name; each notebook is run once for each combination.
        secrets: Texts by name, set in the kernels and masked in all outputs.
        env: Environment variables of the kernels, as in :func:`run`.
        kernel: The kernelspec to use instead of the notebooks'.
        cwd: The working directory of the kernels. By default it is each notebook's folder.
        timeout: Time limit of each run, in seconds or as text such as ``"5m"``.
        cell_timeout: Time limit of each cell.
        allow_errors: Continue after a cell that raises an error.
        jobs: The number of notebooks that run at the same time, or ``"auto"``.
        retries: The number of further attempts after a failure of the kernel or the server.
        max_failures: Start no further notebook after this number of failures.
        server: The URL of a Jupyter server to run on. By default a private server is started.
        token: The token of that server.
        observe: Called with each event of the runs.
        stop: Ends the runs early when it is pulled.
        **options: The other options; docs/cli.md lists them under "Options in Python".

    """
    return run_to_end(_run_many(notebooks, given_options(locals())))


async def run_many_async(
    notebooks: Sequence[NotebookPath],
    *,
    output: NotebookPath | None = None,
    save: bool = True,
    parameters: Mapping[str, Any] | None = None,
    matrix: Mapping[str, Sequence[Any]] | None = None,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    kernel: str | None = None,
    cwd: NotebookPath | None = None,
    timeout: float | str | None = None,
    cell_timeout: float | str | None = None,
    allow_errors: bool = False,
    jobs: int | Literal["auto"] | None = 1,
    retries: int = 0,
    max_failures: int | None = None,
    server: str | None = None,
    token: str | None = None,
    observe: Observer | None = None,
    stop: StopSwitch | None = None,
    **options: Unpack[OptionsOfMany],
) -> BatchResult:
    """Run notebooks like :func:`run_many`, in the running event loop. Cancelled runs are saved first."""
    return await _run_many(notebooks, given_options(locals()))


def prepare(
    notebook: Source,
    *,
    output: NotebookPath | None = None,
    parameters: Mapping[str, Any] | None = None,
    kernel: str | None = None,
    server: str | None = None,
    token: str | None = None,
    observe: Observer | None = None,
    **options: Unpack[OptionsOfRun],
) -> Any:
    """Return the notebook with its parameters and without outputs, as a ``NotebookNode``; execute nothing.

    With `output` it is also written there. Raises the same errors for the parameters as a run. A kernel that is not
    installed causes only a warning, an event for `observe`.
    """
    given = given_options(locals()) | {"prepare_only": True}
    if output is None and not given.get("in_place"):
        given["deliver"] = _discard
    return run_to_end(_run(notebook, given)).notebook


def plan(
    notebook: Source,
    *,
    parameters: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    kernel: str | None = None,
    timeout: float | str | None = None,
    cell_timeout: float | str | None = None,
    allow_errors: bool = False,
    server: str | None = None,
    token: str | None = None,
    **options: Unpack[OptionsOfRun],
) -> Preview:
    """Return the plan of a run: parameters, kernel, cells and time limits. Nothing is started or changed.

    Raises the same errors as a run for an invalid option or parameter.
    """
    name, given = read_source(notebook, given_options(locals()))
    check_server_options(given)
    read = read_run_options(given)
    job, text = job_of(name, read), read["content"]
    content = text.encode() if isinstance(text, str) else text
    if not server:
        return preview_local(job, content)
    if read["upload"] and content is None:
        content = read_local(job)
    return run_to_end(preview_on_server(job, access_of(read), content))


async def _run(notebook: Source, given: Mapping[str, Any]) -> NotebookResult:
    name, given = read_source(notebook, given)
    options = read_run_options(given)
    check_server_options(given)
    if options["upload"] and not (options["server"] or options["engine"]):
        raise UsageError("upload needs a server", hint="Without a server the notebook is run where it is.")
    options, finished = keeping_notebook(options)
    with WaitBudget().shared():
        result = await run_planned(await plan_runs([name], read_batch_options(options), one=True))
    assert isinstance(result, NotebookResult)
    return with_notebook(result, finished)


async def _run_many(notebooks: Sequence[NotebookPath], given: Mapping[str, Any]) -> BatchResult:
    if not _are_paths(notebooks):
        raise UsageError(
            f"notebooks: takes a list of paths, not {shown_value(notebooks)}", hint="nbrun.run runs a single notebook."
        )
    if one := given.keys() & options_in(TextOptions).keys():
        raise UsageError(f"for one notebook, which nbrun.run runs: {', '.join(sorted(one))}")
    options = read_batch_options(given)
    check_server_options(given)
    with WaitBudget().shared():
        plan = await plan_runs([os.fspath(name) for name in notebooks], options)
        result = await run_planned(plan)
    assert isinstance(result, BatchResult)
    if plan.journal is not None:
        plan.journal.finish(result.runs)
    if is_on_server(options):
        return result
    here = Path.cwd()
    return structs.replace(result, runs=[_with_file(one, here) for one in result.runs])


def _are_paths(given: Any) -> bool:
    return (
        isinstance(given, Collection)
        and not isinstance(given, (str, bytes, os.PathLike, Mapping))
        and all(isinstance(name, (str, os.PathLike)) for name in given)
    )


def _with_file(result: NotebookResult, here: Path) -> NotebookResult:
    return result if result.output is None else replace(result, load=ExecutedNotebook(file=here / result.output))


def _discard(text: str) -> None:
    """Write the notebook nowhere."""
