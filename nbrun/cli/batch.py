"""``nbrun batch NAME``: run a job that is defined in the project's settings."""

import click

from nbrun.cli.config.files import JOB
from nbrun.cli.run import command as run
from nbrun.errors import UsageError


@click.command(
    "batch",
    short_help="Run a named job from the project's settings.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("name")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
@click.pass_context
def command(context: click.Context, name: str, options: tuple[str, ...]) -> int:
    """Run the job NAME from the project's settings.

    A job is defined in [tool.nbrun.batch.NAME] of pyproject.toml or in [batch.NAME] of nbrun.toml. It contains
    notebooks, a matrix, parameters, and any option of nbrun run. OPTIONS are those of nbrun run and override the job's.
    """
    if name.startswith("-"):
        raise UsageError(f"{name}: the job's name comes first", hint="Use nbrun batch NAME [OPTIONS].")
    context.meta[JOB] = name
    with run.make_context(f"batch {name}", list(options), parent=context) as inner:
        code: int = run.invoke(inner)
    return code
