"""``nbrun plan``: show what a run would do, without starting or changing anything."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nbrun._lazy_imports import put_off_imports
from nbrun.cli import clock
from nbrun.cli.options.generated import OF_RUN, declared, read_declared, read_fields
from nbrun.cli.options.log import hide_in_log, log_option, start_log
from nbrun.cli.options.parameters import (
    ParameterTexts,
    fill_templates,
    parameter_options,
    read_env,
    read_parameters,
    read_templates,
)
from nbrun.cli.options.server import access_options, server_options
from nbrun.core.batch.output_paths import Stamp
from nbrun.core.formats.safe_text import safe_json
from nbrun.core.planning.destinations import (
    is_source_url,
    refuse_unreachable,
    require_choice,
    without_credentials,
)
from nbrun.errors import UsageError
from nbrun.runner.job import BatchOptions, access_of, is_on_server, job_of, read_batch_options

if TYPE_CHECKING:
    from nbrun.core.planning.preview import Preview
    from nbrun.publishing.around_run import RunWatch


@click.command("plan", short_help="Show what a run would do: parameters, kernel, cells and limits.")
@click.argument("notebooks", nargs=-1, required=True, metavar="NOTEBOOK")
@server_options
@parameter_options
@declared("kernel", "timeout", "cell_timeout", "idle_timeout", "allow_errors", "artefacts")
@declared("publish", "keep", "notify", "notify_on", "ping", "lock")
@click.option("--json", "as_json", is_flag=True, help="Write the plan as JSON.")
@log_option
def command(notebooks: tuple[str, ...], *, as_json: bool, **given: Any) -> None:
    """Show what a run of NOTEBOOK would do: its parameters, its kernel, its cells and their limits.

    Of a report it shows where the run would be published, its history, its locks and its notifications. The settings of
    a batch are not read: nbrun batch NAME --help-notebook shows the plan with them.

    Nothing is started or changed. Errors that a run would report, such as wrong parameters, are reported here too.
    """
    start_log(given)
    if len(notebooks) > 1:
        require_choice(notebooks, message=f"nbrun plan shows one notebook, not {len(notebooks)}")
    (notebook,) = notebooks
    refuse_unreachable("" if notebook else "NOTEBOOK", notebook, reads=True, stores=True)
    options = read_batch_options({**read_declared(OF_RUN, given), **access_options(given)})
    texts = read_fields(ParameterTexts, given)
    parameters, options["secrets"] = read_parameters(texts, without_credentials(notebook), None)
    templates, stamp = read_templates(texts, parameters), Stamp(clock.now().astimezone(), os.urandom(4).hex())
    options["parameters"] = parameters | fill_templates(templates, notebook.strip("/"), stamp, parameters)
    options["env"] = read_env(texts)
    hide_in_log(options["secrets"].values())
    show_plan(notebook, options, _watch(notebook, given), as_json=as_json)


def _watch(notebook: str, given: Mapping[str, Any]) -> "RunWatch | None":
    """Return what would watch over a run, or None if no option asks for it."""
    if not any(given[name] for name in ("publish", "notify", "ping", "lock")):
        return None
    from nbrun.publishing.around_run import RunWatch, report_of

    context = click.get_current_context()
    typed = [name for name in ("notify", "ping") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return RunWatch(report_of(None, notebook, None, Path.cwd()), given, clock.now, typed)


def show_plan(notebook: str, options: BatchOptions, watch: "RunWatch | None", *, as_json: bool = False) -> None:
    """Print the plan of a run of `notebook` with these options; `watch` would watch over it."""
    preview = _preview(notebook, options)
    report = None if watch is None else watch.plan()
    if as_json:
        plan = {**preview.as_dict(), "report": report}
        click.echo(safe_json(json.dumps(plan, indent=2, ensure_ascii=False)))
        return
    for line in _lines(preview, report or {}):
        click.echo(line)


def _preview(notebook: str, options: BatchOptions) -> "Preview":
    # Slow imports are here, so that usage errors are reported at once.
    put_off_imports()
    from nbrun.runner.preview import preview_local, preview_on_server

    if options["engine"] and is_on_server(options):
        hint = "nbrun plan starts nothing. With --server URL it reads a notebook on a server that runs."
        raise UsageError("--help-notebook: the notebook is on a server that the engine has yet to start", hint=hint)
    content, job = None, job_of(without_credentials(notebook), options)
    if is_source_url(notebook):
        from nbrun.storage.in_object_store import fetch

        content = asyncio.run(fetch(notebook)).data
    if not options["server"]:
        return preview_local(job, content)
    return asyncio.run(preview_on_server(job, access_of(options), content))


def _lines(preview: "Preview", report: Mapping[str, Any]) -> Iterator[str]:
    from nbrun.core.formats.units import spell_duration

    yield f"notebook    {preview.notebook}"
    yield f"kernel      {preview.kernel or 'none that is named'} ({preview.language or 'language not known'})"
    if preview.run_timeout is not None:
        yield f"time limit  {spell_duration(preview.run_timeout)}"
    if preview.artefacts:
        yield f"artefacts   {', '.join(preview.artefacts)}"
    yield from _report_lines(report)
    yield ""
    yield "parameters" if preview.parameters else "no parameters"
    yield from map(_parameter_line, preview.as_dict()["parameters"])
    for name in preview.secrets:
        yield f"  {name} = ***  (secret)"
    cells = preview.as_dict()["cells"]
    running = sum(cell["action"] == "run" for cell in cells)
    yield ""
    yield f"cells: {len(cells)} with code, of which {running} would run"
    yield from map(_cell_line, cells)
    for warning in preview.warnings:
        yield f"warning: {warning}"


def _report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    if not report:
        return
    yield f"report      {report['name']}"
    if report["publish"]:
        keep = f" (keep {', '.join(report['keep'])})" if report["keep"] else ""
        yield f"publish     {report['publish']}{keep}"
    yield f"history     {report['history']}"
    if report["lock"]:
        yield f"lock        {report['lock']} ({', '.join(report['lock_files'])})"
    if report["notify"]:
        yield f"notify      {', '.join(report['notify'])} on {', '.join(report['notify_on'])}"
    if report["ping"]:
        yield f"ping        {report['ping']}"


def _parameter_line(parameter: dict[str, Any]) -> str:
    declared = parameter["name"] + (f": {parameter['type']}" if parameter["type"] else "")
    default = " ".join((parameter["default"] or "").split())
    line = f"  {declared}{f' = {default}' if default else ''}"
    line += f"  ->  {json.dumps(parameter['value'], ensure_ascii=False)}" if parameter["given"] else ""
    line += "" if parameter["declared"] else "  (not declared)"
    return f"{line:<40}  # {parameter['comment']}" if parameter["comment"] else line


def _cell_line(cell: dict[str, Any]) -> str:
    from nbrun.core.formats.units import spell_duration

    lines = [line for line in cell["source"].splitlines() if line.strip()]
    notes = ["sets the parameters"] if cell["injected"] else []
    notes += [f"limit {spell_duration(cell['timeout'])}"] if cell["timeout"] else []
    notes += [f"silent for {spell_duration(cell['idle_timeout'])} at most"] if cell["idle_timeout"] else []
    notes += ["is expected to raise"] if cell["expects_error"] else ["may raise"] if cell["allows_error"] else []
    start = lines[1 if cell["injected"] and len(lines) > 1 else 0] if lines else ""
    shown = start if len(start) <= 50 else f"{start[:47]}..."
    suffix = f"  ({', '.join(notes)})" if notes else ""
    number = cell["number"] or ""
    return f"  {number:>3}  {cell['action']:<5}  {shown}{suffix}"
