"""``nbrun run``: run one notebook or many."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nbrun._lazy_imports import put_off_imports
from nbrun.cli import clock
from nbrun.cli.backfill import check_missing_only, date_parameter, dates_of, locator, missing_only
from nbrun.cli.call import Call, read_call
from nbrun.cli.config.files import JOB, Project, current_project, overrides_for, settings_options
from nbrun.cli.destinations import Paths
from nbrun.cli.options.batch import batch_options
from nbrun.cli.options.generated import OF_RUN, declared
from nbrun.cli.options.log import hide_in_log, log_option, start_log
from nbrun.cli.options.parameters import (
    named_templates,
    parameter_options,
    read_env,
    read_parameters,
    read_templates,
)
from nbrun.cli.options.reports import Reports, reporting_options
from nbrun.cli.options.server import server_options
from nbrun.cli.plan import show_plan
from nbrun.cli.signals import signals
from nbrun.core.batch.matrix import date_axis
from nbrun.core.planning.destinations import without_credentials
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.runner.job import is_on_server
from nbrun.storage.wait_budget import WaitBudget

if TYPE_CHECKING:
    from nbrun.core.events import Event, Observer
    from nbrun.core.results import BatchResult, NotebookResult
    from nbrun.local_server.launcher import EmbeddedServer
    from nbrun.publishing.around_run import RunWatch
    from nbrun.runner.batch.plan import BatchPlan
    from nbrun.runner.batch.resume import RunJournal

_WATCHED = ("schedule", "lock", "notify", "ping")
"""Options of which each asks for a :class:`nbrun.publishing.around_run.RunWatch`."""
_ABOVE = (
    "output",
    "in_place",
    "engine",
    "server",
    "ca_file",
    "verify",
    "max_response",
    "max_frame",
    "allow_new",
    "language",
)


@click.command("run", short_help="Run notebooks and save them with their outputs.")
@click.argument("notebooks", nargs=-1, metavar="PATH...")
@declared("output", "in_place")
@batch_options
@settings_options
@declared("engine")
@server_options
@parameter_options
@declared(*[name for name in OF_RUN if name not in _ABOVE])
@declared("schedule", "timezone", "grace", "notify", "notify_on", "ping", "lock", "lock_timeout", "if_due")
@click.option("--help-notebook", is_flag=True, help="Show what would be run, as nbrun plan does, and run nothing.")
@reporting_options
@log_option
def command(notebooks: tuple[str, ...], **given: Any) -> int:
    """Run notebooks and save them with their outputs.

    PATH is a notebook, a folder to search for notebooks, a glob pattern ('reports/**/*.ipynb'), or the URL of a
    notebook (s3://, gs://, az://, https://, git+https://). Use - to read a notebook from standard input; the result is
    written to standard output unless -o is given.

    Without --server, PATH is on this machine and nbrun starts a private Jupyter server for the run. With --server, PATH
    is on that server.

    A single notebook is overwritten with its result. Several PATHs, a folder, a pattern or --matrix need -o, --no-save
    or --in-place. All messages go to standard error.
    """
    start_log(given)
    context, project = click.get_current_context(), current_project()
    if given["if_due"] is not None and not _is_due(given):
        return ExitCode.OK
    watch = _watch(context, notebooks, given, project, context.with_resource(WaitBudget().shared()))
    started = clock.now() if watch is None else watch.started
    scheduled = clock.time_of_run(given, started)
    call = read_call(context, notebooks, given, project)
    options = call.options
    has_history = call.reports.publish is not None or watch is not None
    check_missing_only(call, wanted=given["missing_only"], has_history=has_history)
    when = clock.in_zone(scheduled or started, given)
    paths = Paths(options, call.reports, call.notebook, when)
    reports = Reports(call.reports, options, call.notebook)
    reports.timezone = given["timezone"] or ""
    reports.dates = {} if date_parameter(options["matrix"], given) else None
    reports.locate = locator(project.folder, on_server=is_on_server(options))
    context.ensure_object(list).append(reports.discard)
    if watch is not None:
        watch.locate, watch.dates = reports.locate, reports.dates
    try:
        if not call.only_plan:
            reports.reach_store(context.meta.get(JOB), scheduled)
        parameters = _read_parameters(call)
        reports.templated = _fill_parameters(call, project, parameters, paths)
        if watch is not None:
            watch.hide(options["secrets"].values())
            asked = {**options["matrix"], **options["parameters"]}
            watch.kind = {name: value for name, value in asked.items() if name not in reports.templated}
        options["overrides"] = overrides_for(context, project, parameters)
        if paths.fill_in(options["parameters"]):
            reports.check()
        if call.only_plan:
            show_plan(call.named[0], options, watch)
            return ExitCode.OK
        if watch is not None:
            watch.pages = (call.reports.html_folder, call.reports.pdf)
        result, journal = asyncio.run(_run(call, reports, watch, given))
        if watch is not None:
            watch.result = result
    except NbrunError as error:
        reports.could_not_begin(call.notebook, error)
        raise
    finally:
        try:
            reports.close()
        finally:
            if watch is not None:
                watch.publication = reports.publication
                watch.release()
    lost = reports.lost()
    if journal is not None and not lost:
        journal.finish(getattr(result, "runs", ()))
    return _exit_code(result, call, lost, missing_only=given["missing_only"])


def _read_parameters(call: Call) -> dict[str, Any]:
    """Return the parameters on the command line; set secrets and environment variables in the options."""
    options = call.options
    output = None if options["output"] is None else without_credentials(os.fspath(options["output"]))
    parameters, options["secrets"] = read_parameters(
        call.parameters, call.notebook, output, on_seats=options["engine"] is not None
    )
    options["env"] = read_env(call.parameters)
    hide_in_log(options["secrets"].values())
    return parameters


def _fill_parameters(
    call: Call,
    project: Project,
    typed: dict[str, Any],
    paths: Paths,
) -> Sequence[str]:
    """Set the parameters of the call, and return the names of those that differ from run to run.

    They are those with templates, and the date of a batch over dates. Those of templates on the command line are added
    to the `typed` ones.
    """
    literal = {**project.parameters, **typed}
    templates = read_templates(call.parameters, {**typed, **call.options["matrix"]})
    typed |= paths.fill_templates(templates, literal)
    ours = {name: text for name, text in project.parameter_templates.items() if name not in typed}
    filled = paths.fill_templates(named_templates(ours), literal)
    call.options["parameters"] = {**project.parameters, **filled, **typed}
    axis = date_axis(call.options["matrix"])
    return [*filled, *templates, *([axis] if axis else [])]


def _is_due(given: Mapping[str, Any]) -> bool:
    """Return whether the cron line ``--if-due`` called at a time of the schedule; print a line if not."""
    from nbrun.core.batch.schedule import Schedule, is_due

    if given["schedule"] is None:
        raise UsageError("--if-due needs a schedule", hint='Write schedule = "0 6 * * *" into the batch\'s settings.')
    schedule = Schedule(given["schedule"], given["timezone"] or "UTC")
    if is_due(schedule, given["if_due"], clock.now()):
        return True
    if not given["quiet"]:
        click.echo(f"nbrun: not due: {schedule.expression} in {schedule.zone} has no start now", err=True)
    return False


def _exit_code(result: "NotebookResult | BatchResult", call: Call, lost: Sequence[str], *, missing_only: bool) -> int:
    """Return the exit code of a run or a batch; print why a batch ran nothing."""
    from nbrun.core.results import BatchResult, with_lost_reports

    code = result.exit_code
    if isinstance(result, BatchResult):
        _say_why_nothing_ran(result, quiet=call.reports.quiet or missing_only)
        code = ExitCode.OK if call.allow_empty and not result.runs else code
    return int(with_lost_reports(code, lost))


def _watch(
    context: click.Context,
    notebooks: Sequence[str],
    given: Mapping[str, Any],
    project: Project,
    budget: WaitBudget,
) -> "RunWatch | None":
    """Return what watches over this invocation, or None if no option asks for it; :mod:`nbrun.cli.main` ends it."""
    only_plan = given["help_notebook"]
    if not any(given[name] for name in _WATCHED) and not (only_plan and given["publish"]):
        return None
    from nbrun.publishing.around_run import RunWatch, report_of

    typed = [name for name in ("notify", "ping") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    report = report_of(context.meta.get(JOB), [*notebooks, ""][0], given["output"], project.folder)
    watch = RunWatch(report, given, clock.now, typed)
    watch.budget = budget
    if not only_plan:
        context.ensure_object(list).append(watch.finish)
    hide_in_log(watch.secrets)
    watch.scheduled = clock.time_of_run(given, watch.started)
    return watch


async def _run(
    call: Call, reports: Reports, watch: "RunWatch | None", given: Mapping[str, Any]
) -> "tuple[NotebookResult | BatchResult, RunJournal | None]":
    """Plan the runs and start the private server, then do the slow imports while it starts."""
    put_off_imports()
    from nbrun.runner.batch.plan import plan_runs
    from nbrun.runner.stop import StopSwitch

    stop = StopSwitch()
    async with signals(stop):
        call.options["observe"], call.options["stop"] = reports.observe, stop
        if watch is not None:
            call.options["observe"] = _observing(reports, watch)
            await watch.begin(stop, *reports.published_in)
            reports.confirm_lock = watch.confirm_lock
        await reports.check_stores()
        missing = await missing_only(reports, watch) if given["missing_only"] else None
        wanted = {} if missing is None else {"wanted": missing}
        plan = await plan_runs(call.named, call.options, one=call.one, **wanted)
        if missing is not None:
            missing.show(quiet=call.reports.quiet)
        if axis := date_parameter(call.options["matrix"], given):
            reports.dates = dates_of(plan, axis, given)
            if watch is not None:
                watch.dates = reports.dates
                watch.scheduled = max((when for _, when in reports.dates.values()), default=watch.scheduled)
        started = await _private_server(plan)
        try:
            from nbrun.api.planned import run_planned

            reports.open()
            async with _ticking(reports):
                return await run_planned(plan, started), plan.journal
        finally:
            if started is not None:
                await started.stop()


def _observing(reports: Reports, watch: "RunWatch") -> "Observer":
    def observe(event: "Event") -> None:
        reports.observe(event)
        watch.observe(event)

    return observe


async def _private_server(plan: "BatchPlan") -> "EmbeddedServer | None":
    """Start the private server of the runs, or return None if none is needed or a cache may make it unnecessary."""
    if not plan.runs or plan.access.server or plan.engine is not None:
        return None
    if plan.cache is not None or plan.options["prepare_only"]:
        return None
    if plan.journal is not None and plan.journal.has_runs:
        return None  # perhaps no run is left
    from nbrun.local_server.launcher import EmbeddedServer
    from nbrun.runner.job import private_root

    server = EmbeddedServer(private_root(plan.paths), zygote=plan.access.zygote, preload=plan.access.preload)
    await server.start()
    return server


@asynccontextmanager
async def _ticking(reports: Reports) -> AsyncIterator[None]:
    """Update the console regularly."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(reports.interval)
            reports.tick()

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()


def _say_why_nothing_ran(result: "BatchResult", *, quiet: bool) -> None:
    if result.problem is not None:
        click.echo(f"nbrun: {result.problem.message}\n  {result.problem.hint}", err=True)
    elif not result.runs and not quiet:
        click.echo(f"nbrun: nothing to run here: {result.left_out} left out", err=True)
