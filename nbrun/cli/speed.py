"""Options of ``nbrun run`` that make it faster, and nothing else."""

from collections.abc import Mapping
from typing import Any, TypedDict

import click

from nbrun.cli.parameters import Function
from nbrun.errors import UsageError


class Speed(TypedDict):
    """The options as :class:`nbrun.api.RunOptions` has them."""

    zygote: bool | None
    preload: tuple[str, ...]


def speed_options(function: Function) -> Function:
    """Add the options."""
    for decorate in reversed(
        (
            click.option(
                "--zygote/--no-zygote",
                default=None,
                help="Fork the private server's Python kernels from a process that has imported ipykernel, or start "
                "each by itself. If left out: forked where that is safe (Linux), unless NBRUN_ZYGOTE is 0.",
            ),
            click.option(
                "--preload", metavar="MODULES", help="Import these in that process too, as in pandas,matplotlib."
            ),
        )
    ):
        function = decorate(function)
    return function


def read_speed(given: Mapping[str, Any]) -> Speed:
    """Read what was given; raises :class:`UsageError`."""
    names = tuple(name.strip() for name in (given["preload"] or "").split(",") if name.strip())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"--preload: {name!r} is no name of a module", hint="As in  --preload pandas,matplotlib")
    if names and given["zygote"] is False:
        raise UsageError("--preload needs --zygote", hint="Without it every kernel imports for itself.")
    return Speed(zygote=given["zygote"], preload=names)
