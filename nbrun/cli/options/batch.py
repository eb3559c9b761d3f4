"""Options of a batch: selection, order, number of workers, retries and cache."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from nbrun.cli.options.declared import OF_BATCH, declared, read_declared
from nbrun.core.batch.matrix import notes_of, read_axes
from nbrun.core.batch.terms import Shard
from nbrun.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--allow-empty", is_flag=True, help="Exit with code 0 if no notebook is found."),
    click.option("--fail-fast", is_flag=True, help="Start no further notebook after the first failure."),
    click.option(
        "--matrix",
        multiple=True,
        metavar="NAME=V,V",
        help="Run each notebook once per value; several --matrix options run every combination.",
    ),
)


def batch_options(function: Function) -> Function:
    """Add the options of many notebooks."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return declared(*OF_BATCH)(function)


def options_of_batch(given: Mapping[str, Any], matrix: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return what the options say, as keys of :class:`nbrun.BatchOptions`; `matrix` is the settings'."""
    if given["refresh"] and not given["cache"]:
        raise UsageError("--no-cache-read needs --cache")
    if given["shard"]:
        Shard.parse(given["shard"])
    axes = read_axes(given["matrix"])
    for note in () if given["quiet"] else notes_of(axes):
        click.echo(f"nbrun: note: {note}", err=True)
    options = {**read_declared(OF_BATCH, given), "matrix": {**matrix, **axes}}
    return {**options, "max_failures": 1} if given["fail_fast"] else options
