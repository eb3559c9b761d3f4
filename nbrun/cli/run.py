"""``nbrun run``: one notebook or many, told of on the terminal or in a log, with its result as JSON if wanted."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from nbrun.cli.batching import batch_options, is_plain, is_single, is_the_one, read_batch_options
from nbrun.cli.parameters import Duration, find_password, find_token, server_options
from nbrun.cli.saving import saving_of, saving_options
from nbrun.cli.settings import current_project, overrides_for, settings_options
from nbrun.cli.signals import signals
from nbrun.errors import ExitCode, NbrunError, UsageError


@click.command("run", short_help="Run notebooks and save them with their outputs.")
@click.argument("notebooks", nargs=-1, metavar="PATH...")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="Write the executed notebook here, not in place; of many, a folder, or 'out/{folder}/{stem}.ipynb'.",
)
@batch_options
@settings_options
@server_options
@click.option("--upload", is_flag=True, help="PATH is on this machine: upload it to --server, bring the result back.")
@click.option("-k", "--kernel", metavar="NAME", help="Run with this kernelspec instead of the notebook's own.")
@click.option("--timeout", type=Duration(), help="Limit of the whole run, from its first cell: 90, 90s, 5m, 1h30m.")
@click.option("--cell-timeout", type=Duration(), help="Limit of each cell.")
@click.option("--idle-timeout", type=Duration(), help="Limit of a running cell's silence.")
@click.option(
    "--startup-timeout", type=Duration(), default="60s", show_default=True, help="Limit of the kernel's start."
)
@click.option("--allow-errors", is_flag=True, help="Go on after a cell that raised; an error then fails nothing.")
@click.option("--no-save", is_flag=True, help="Do not write the executed notebook.")
@click.option("--force", is_flag=True, help="Overwrite the notebook even if somebody changed it during the run.")
@saving_options
@click.option("--raw-streams", is_flag=True, help="Keep carriage returns and backspaces in text as they were written.")
@click.option("--no-timing", is_flag=True, help="Write no times into the notebook, so that reruns differ less.")
@click.option("--tolerate-loss", is_flag=True, help="Let a run pass although output is known to be lost.")
@click.option("--no-loss-note", is_flag=True, help="Do not say at the end of a cell's outputs that some are missing.")
@click.option("--json", "json_file", metavar="FILE", help="Write the result as JSON; - for standard output.")
@click.option("--log-output", is_flag=True, help="Show the outputs of cells as they come.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what went wrong.")
def command(notebooks: tuple[str, ...], json_file: str | None, *, log_output: bool, quiet: bool, **given: Any) -> int:
    """Run notebooks and save them with their outputs.

    PATH is a notebook, a folder that is searched for notebooks, or a pattern ('reports/**/*.ipynb'). Without --server,
    it is on this machine, and a private Jupyter server is started for the length of the run. With --server, it is on
    that server. Everything that is said goes to standard error.
    """
    project = current_project()
    named = list(notebooks) or project.notebooks(on_server=bool(given["server"]) and not given["upload"])
    if not named:
        raise click.MissingParameter(param_hint="'PATH...'", param_type="argument")
    if given["upload"] and not given["server"]:
        raise UsageError("--upload needs --server", hint="Without --server the notebook is run where it is.")
    if json_file not in (None, "-"):
        _check_writable(Path(json_file))
    single = is_single(named, given) and not project.matrix
    try:
        overrides = overrides_for(click.get_current_context(), project, {})
        plain = single and not project.parameters and is_plain(given, overrides)
        batch = None if plain else {**read_batch_options(given, project.matrix), "overrides": overrides}
        if batch is not None:
            batch["parameters"] = dict(project.parameters)
        result = asyncio.run(_run(named, given, batch, log_output=log_output, quiet=quiet))
    except NbrunError as error:
        failed = _failed_before_it_began(named[0], error) if single else _nothing_was_run(error)
        _write_json(json_file, failed)
        raise
    if plain:
        record, exit_code = result.as_dict(), int(result.exit_code)
    else:
        _say_why_nothing_ran(result, quiet=quiet)
        single = single or is_the_one(named, given, result)
        record = (result.runs[0] if single and result.runs else result).as_dict()
        exit_code = ExitCode.OK if given["allow_empty"] and not result.runs else int(result.exit_code)
    _write_json(json_file, record)
    return exit_code


async def _run(
    notebooks: list[str], given: dict[str, Any], batch: dict[str, Any] | None, *, log_output: bool, quiet: bool
) -> Any:
    """Run one notebook, or, where there are options of a `batch`, many."""
    # What a run needs is imported here, so that a wrong call is answered at once.
    from nbrun.api import run_async
    from nbrun.reporters.console import Console
    from nbrun.stopping import StopSwitch

    stop = StopSwitch()
    console = Console(log_output=log_output, quiet=quiet)
    async with signals(stop), _ticking(console):
        options: dict[str, Any] = dict(
            output=given["output"],
            server=given["server"],
            token=find_token(given["token_file"]) if given["server"] else None,
            password=find_password() if given["server"] else None,
            upload=given["upload"],
            kernel=given["kernel"],
            timeout=given["timeout"],
            cell_timeout=given["cell_timeout"],
            idle_timeout=given["idle_timeout"],
            startup_timeout=given["startup_timeout"],
            allow_errors=given["allow_errors"],
            save=not given["no_save"],
            force=given["force"],
            **saving_of(given),
            raw_streams=given["raw_streams"],
            record_timing=not given["no_timing"],
            tolerate_loss=given["tolerate_loss"],
            note_loss=not given["no_loss_note"],
            ca_file=given["ca_file"],
            verify=not given["insecure"],
            observe=console.observe,
            stop=stop,
        )
        if batch is None:
            return await run_async(notebooks[0], **options)
        from nbrun.many import run_many_async

        return await run_many_async(notebooks, **options, **batch)


@asynccontextmanager
async def _ticking(console: Any) -> AsyncIterator[None]:
    """Let the console show that time passes, and leave the terminal as it was."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(console.interval)
            console.tick()

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        console.close()


def _failed_before_it_began(notebook: str, error: NbrunError) -> dict[str, Any]:
    """Give the JSON object of a run that could not begin."""
    from datetime import UTC, datetime

    from nbrun.core.results import NotebookResult, Problem, outcome_of
    from nbrun.version import __version__

    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    return NotebookResult(
        __version__, notebook, None, None, outcome_of(error), started, 0.0, problem=Problem.of(error)
    ).as_dict()


def _nothing_was_run(error: NbrunError) -> dict[str, Any]:
    """Give the JSON object of a batch that could not begin."""
    from datetime import UTC, datetime

    from nbrun.core.results import BatchResult, Problem
    from nbrun.version import __version__

    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = BatchResult(__version__, started, 0.0, problem=Problem.of(error)).as_dict()
    return {**record, "exit_code": int(error.exit_code)}


def _say_why_nothing_ran(result: Any, *, quiet: bool) -> None:
    if result.problem is not None:
        click.echo(f"nbrun: {result.problem.message}\n  {result.problem.hint}", err=True)
    elif not result.runs and not quiet:
        click.echo(f"nbrun: nothing to run here: {result.left_out} left out", err=True)


def _check_writable(path: Path) -> None:
    """Find out before the run, not after it, that the result cannot be written."""
    if path.is_dir() or (path.parent.exists() and not os.access(path.parent, os.W_OK)):
        raise UsageError(f"--json {path}: cannot be written there")


def _write_json(target: str | None, record: dict[str, Any]) -> None:
    if target is None:
        return
    text = json.dumps(record, indent=2, ensure_ascii=target == "-") + "\n"
    if target == "-":
        click.echo(text, nl=False)
        return
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"--json {target}: cannot be written: {error.strerror}") from None
