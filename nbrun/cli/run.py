"""``nbrun run``: run one notebook or many."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import click

from nbrun._lazy_imports import put_off_imports
from nbrun.cli.config.files import current_project, overrides_for, settings_options
from nbrun.cli.destinations import Paths, check_choice, check_paths, is_plain, is_single, settle_choice
from nbrun.cli.options.batch import batch_options, options_of_batch
from nbrun.cli.options.declared import OF_RUN, declared, read_declared
from nbrun.cli.options.log import hide_in_log, log_option, start_log
from nbrun.cli.options.parameters import parameter_options, read_parameters
from nbrun.cli.options.reports import Reports, reporting_options
from nbrun.cli.options.server import access_options, server_options
from nbrun.cli.plan import show_plan
from nbrun.cli.signals import signals
from nbrun.cli.stdio import STREAMED, is_handed, read_streams
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.runner.options import check_together

_ABOVE = ("output", "in_place", "server", "ca_file", "verify", "max_response", "max_frame", "allow_new", "language")


@click.command("run", short_help="Run notebooks and save them with their outputs.")
@click.argument("notebooks", nargs=-1, metavar="PATH...")
@declared("output", "in_place")
@batch_options
@settings_options
@server_options
@parameter_options
@declared(*[name for name in OF_RUN if name not in _ABOVE])
@click.option("--help-notebook", is_flag=True, help="Show what would be run, as nbrun plan does, and run nothing.")
@reporting_options
@log_option
def command(notebooks: tuple[str, ...], **given: Any) -> int:
    """Run notebooks and save them with their outputs.

    PATH is a notebook, a folder to search for notebooks, or a glob pattern ('reports/**/*.ipynb'). Use - to read a
    notebook from standard input; the result is written to standard output unless -o is given.

    Without --server, PATH is on this machine and nbrun starts a private Jupyter server for the run. With --server, PATH
    is on that server.

    A single notebook is overwritten with its result. Several PATHs, a folder, a pattern or --matrix need -o, --no-save
    or --in-place. All messages go to standard error.
    """
    start_log(given)
    project = current_project()
    on_server = bool(given["server"]) and not given["upload"]
    named = list(notebooks) or project.notebooks(on_server=on_server)
    if not named:
        raise click.MissingParameter(param_hint="'PATH...'", param_type="argument")
    if given["upload"] and not given["server"]:
        raise UsageError("--upload needs --server", hint="Without --server the notebook is run where it is.")
    check_together(given)
    settle_choice(click.get_current_context(), given)
    check_paths(named, given)
    named = read_streams(named, given, many=bool(project.matrix))
    single = is_single(named, given) and not project.matrix
    check_choice(named, given, single=single, matrix=bool(project.matrix), by_settings=not notebooks)
    paths = Paths(given, named[0] if single else None)
    one = named[0] if len(named) == 1 and not given["matrix"] and not project.matrix else None
    reports = Reports(given, one=one, single=single)
    try:
        given |= read_parameters(given, named[0] if single else None, given["output"])
        hide_in_log(given["secrets"].values())
        overrides = [] if is_handed(given) else overrides_for(click.get_current_context(), project, given["parameters"])
        given["parameters"] = {**project.parameters, **given["parameters"]}
        if paths.fill_in(given["parameters"]):
            reports.check()
        if given["help_notebook"]:
            show_plan(named[0], given)
            return ExitCode.OK
        if is_handed(given) or (single and is_plain(given, overrides)):
            result = asyncio.run(_run(given, reports, notebook=named[0]))
        else:
            batch = options_of_batch(given, project.matrix)
            batch |= {"overrides": overrides, "output": paths.output_of_batch()}
            result = asyncio.run(_run_many(named, given, reports, batch))
    except NbrunError as error:
        reports.could_not_begin(named[0] if single else None, error)
        raise
    finally:
        reports.close()
    return _exit_code(result, given, reports.lost())


def _exit_code(result: Any, given: Mapping[str, Any], lost: Sequence[str]) -> int:
    """Return the code of a run or a batch; one that ran nothing says why."""
    from nbrun.core.results import BatchResult, with_lost_reports

    code = result.exit_code
    if isinstance(result, BatchResult):
        _say_why_nothing_ran(result, quiet=given["quiet"])
        code = ExitCode.OK if given["allow_empty"] and not result.runs else code
    return int(with_lost_reports(code, lost))


def run_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say of each run, as keys of :class:`nbrun.RunOptions`."""
    handed = {name: given[name] for name in (*STREAMED, "parameters", "secrets") if name in given}
    return {**read_declared(OF_RUN, given), **access_options(given), **handed}


async def _run(given: Mapping[str, Any], reports: Reports, *, notebook: str) -> Any:
    from nbrun.runner.stop import StopSwitch

    stop = StopSwitch()
    async with signals(stop):
        started = None if given["server"] or given["prepare_only"] else await _private_server(notebook, given)
        try:
            # What a run needs is imported here, while the server starts.
            put_off_imports()
            from nbrun.api import run_beside_start
            from nbrun.runner.job import read_run_options

            reports.open()
            async with _ticking(reports):
                options = {**run_options(given), "observe": reports.observe, "stop": stop}
                return await run_beside_start(started, notebook, read_run_options(options))
        finally:
            if started is not None:
                await started.stop()


async def _private_server(notebook: str, given: Mapping[str, Any]) -> Any:
    """Start the private server before anything that takes time is imported: they need each other only later."""
    from nbrun.local_server.launcher import EmbeddedServer
    from nbrun.storage.paths import check_pair, local_folder, root_for

    is_given, is_delivered = "content" in given, "deliver" in given
    save = not given["no_save"]
    pair = check_pair(notebook, given["output"], is_given=is_given, is_delivered=is_delivered, save=save)
    folders = [local_folder(given["cwd"])] if given["cwd"] else []
    server = EmbeddedServer(root_for([pair], folders), zygote=given["zygote"], preload=given["preload"] or ())
    await server.start()
    return server


async def _run_many(notebooks: list[str], given: Mapping[str, Any], reports: Reports, batch: Mapping[str, Any]) -> Any:
    put_off_imports()
    from nbrun.runner.batch.plan import run_many_async
    from nbrun.runner.stop import StopSwitch

    stop = StopSwitch()
    reports.open()
    async with signals(stop), _ticking(reports):
        options: Any = {**run_options(given), **batch, "observe": reports.observe, "stop": stop}
        return await run_many_async(notebooks, **options)


@asynccontextmanager
async def _ticking(reports: Reports) -> AsyncIterator[None]:
    """Let the console show that time passes."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(reports.interval)
            reports.tick()

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()


def _say_why_nothing_ran(result: Any, *, quiet: bool) -> None:
    if result.problem is not None:
        click.echo(f"nbrun: {result.problem.message}\n  {result.problem.hint}", err=True)
    elif not result.runs and not quiet:
        click.echo(f"nbrun: nothing to run here: {result.left_out} left out", err=True)
