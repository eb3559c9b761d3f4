"""Options of ``nbrun run`` that make it faster, and nothing else."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import click

from nbrun.cli.options.server import Function
from nbrun.core.formats.units import parse_count
from nbrun.errors import UsageError


class Speed(TypedDict):
    """The options of the private server, as :class:`nbrun.api.RunOptions` has them."""

    zygote: bool | None
    preload: tuple[str, ...]


class Depth(click.ParamType[int | str]):
    """A number of cells, or ``auto``."""

    name = "depth"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        """Return the number, or ``auto``."""
        if value == "auto":
            return "auto"
        return parse_count(str(value)) or self.fail(
            f"{value!r} is neither a number of cells, 1 or more, nor auto", param, ctx
        )


def speed_options(function: Function) -> Function:
    """Add the options."""
    for decorate in reversed(
        (
            click.option(
                "--pipeline",
                type=Depth(),
                metavar="N|auto",
                default="auto",
                show_default=True,
                help="Send up to N cells to the kernel before the first one ends. auto chooses N from the "
                "server's latency; 1 sends one cell at a time.",
            ),
            click.option(
                "--zygote/--no-zygote",
                default=None,
                help="Fork Python kernels of the private server from a process that has already imported "
                "ipykernel. The default is on where that is safe (Linux), unless NBRUN_ZYGOTE is 0.",
            ),
            click.option(
                "--preload",
                metavar="MODULES",
                help="Import these modules before kernels are forked (example: pandas,matplotlib).",
            ),
        )
    ):
        function = decorate(function)
    return function


def read_speed(given: Mapping[str, Any]) -> Speed:
    """Read what was given for the private server; raises :class:`UsageError`."""
    names = tuple(name.strip() for name in (given["preload"] or "").split(",") if name.strip())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"--preload: {name!r} is no name of a module", hint="As in  --preload pandas,matplotlib")
    if names and given["zygote"] is False:
        raise UsageError("--preload needs --zygote", hint="Without it every kernel imports for itself.")
    return Speed(zygote=given["zygote"], preload=names)
