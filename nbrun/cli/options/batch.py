"""Options of a batch: selection, order, number of workers, retries and cache."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from nbrun.cli.options.generated import OF_BATCH, declared
from nbrun.core.batch.matrix import notes_of, read_axes

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--allow-empty", is_flag=True, help="Exit with code 0 if no notebook is found."),
    click.option("--fail-fast", is_flag=True, help="Start no further notebook after the first failure."),
    click.option(
        "--matrix",
        multiple=True,
        metavar="NAME=V,V",
        help="Run each notebook once per value; several --matrix options run every combination. "
        "day=2026-11-01..2026-11-30 is a value for each date, and with every 0 6 * * 1-5 for each date of this cron "
        "expression.",
    ),
)


def batch_options(function: Function) -> Function:
    """Add the options of a batch."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return declared(*OF_BATCH)(function)


def read_matrix(texts: Sequence[str], *, quiet: bool) -> dict[str, Sequence[Any]]:
    """Return the values of ``--matrix`` by name; unless `quiet`, print a note for ambiguous values."""
    axes = read_axes(texts)
    for note in () if quiet else notes_of(axes):
        click.echo(f"nbrun: note: {note}", err=True)
    return axes
