"""The options of many notebooks: which, in what order, how many at once, what is tried again, what is not run again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from nbrun.cli.options.server import Duration
from nbrun.core.batch.matrix import read_axes
from nbrun.core.batch.terms import Cause, Order, Shard
from nbrun.core.formats.units import parse_count
from nbrun.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
AUTO = "auto"


class Jobs(click.ParamType[str]):
    """A number from 1, or ``auto``."""

    name = "jobs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = str(value)
        if text != AUTO and parse_count(text) is None:
            self.fail(f"{text!r} is neither a number from 1 nor {AUTO}", param, ctx)
        return text


class Causes(click.ParamType[list[str]]):
    """Causes of failures, with commas between them."""

    name = "causes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the causes as a list."""
        causes = [cause.strip() for cause in value.split(",")] if isinstance(value, str) else list(value)
        for cause in causes:
            if cause not in list(Cause):
                self.fail(f"{cause!r} is none of {', '.join(Cause)}", param, ctx)
        return causes


_OPTIONS = (
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Skip notebooks that match this pattern (.gitignore syntax). May be repeated.",
    ),
    click.option("--allow-empty", is_flag=True, help="Exit with code 0 if no notebook is found."),
    click.option(
        "-j",
        "--jobs",
        type=Jobs(),
        default="1",
        metavar="N|auto",
        show_default=True,
        help="Run up to N notebooks at the same time; auto is the number of processors.",
    ),
    click.option("--fail-fast", is_flag=True, help="Start no further notebook after the first failure."),
    click.option(
        "--max-failures", type=click.IntRange(1), metavar="N", help="Start no further notebook after N failures."
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Retry a failed notebook up to N times, each time on a fresh kernel. The attempt that"
        " got furthest is kept.",
    ),
    click.option(
        "--retry-on",
        type=Causes(),
        default="kernel,server",
        metavar="CAUSES",
        show_default=True,
        help="Failures to retry, separated by commas: kernel, server, cell, timeout.",
    ),
    click.option(
        "--server-wait",
        type=Duration(),
        default="120s",
        show_default=True,
        help="Before a retry, wait up to this long for an unreachable server.",
    ),
    click.option(
        "--order",
        type=click.Choice([order.value for order in Order]),
        default="as-given",
        help="Order in which notebooks are started.",
    ),
    click.option(
        "--shard",
        metavar="K/N",
        help="Split the notebooks into N parts and run only part K. Each notebook is in exactly one part.",
    ),
    click.option(
        "--durations",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="JSON result of an earlier run; its durations balance --shard and sort by --order. "
        "Use the same file for all shards.",
    ),
    click.option(
        "--changed-since",
        metavar="REF",
        help="Run only notebooks that changed, or whose inputs changed, since this commit.",
    ),
    click.option(
        "--matrix",
        multiple=True,
        metavar="NAME=V,V",
        help="Run each notebook once per value; several --matrix options run every combination.",
    ),
    click.option(
        "--cache",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Cache results in this folder. Unchanged notebooks are not executed again; their "
        "outputs come from the cache.",
    ),
    click.option("--no-cache-read", is_flag=True, help="Execute every notebook and replace its result in --cache."),
)


def batch_options(function: Function) -> Function:
    """Add the options of many notebooks."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


def read_batch_options(given: Mapping[str, Any], matrix: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return what the options say, as keys of :class:`nbrun.BatchOptions`; `matrix` is the settings'."""
    if given["no_cache_read"] and not given["cache"]:
        raise UsageError("--no-cache-read needs --cache")
    if given["shard"]:
        Shard.parse(given["shard"])
    return {
        "exclude": given["exclude"],
        "jobs": None if given["jobs"] == AUTO else int(given["jobs"]),
        "max_failures": 1 if given["fail_fast"] else given["max_failures"],
        "retries": given["retries"],
        "retry_on": given["retry_on"],
        "server_wait": given["server_wait"],
        "order": given["order"],
        "shard": given["shard"],
        "durations": given["durations"],
        "changed_since": given["changed_since"],
        "matrix": {**matrix, **read_axes(given["matrix"])},
        "cache": given["cache"],
        "refresh": given["no_cache_read"],
    }
