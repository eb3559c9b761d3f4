"""The options that say what is kept of a notebook's outputs, and what their loss means."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from nbrun.cli.options.server import Size

Function = TypeVar("Function", bound=Callable[..., Any])


def output_options(function: Function) -> Function:
    """Add the options."""
    for decorate in reversed(
        (
            click.option(
                "--raw-streams", is_flag=True, help="Keep carriage returns and backspaces in text output unprocessed."
            ),
            click.option(
                "--max-output",
                type=Size(),
                help="Truncate a cell's outputs beyond this number of characters (example: 50MB) and add a"
                " note. The default is no limit.",
            ),
            click.option(
                "--lift-limits",
                is_flag=True,
                help="Remove ipykernel's output queue limit on --server. By default it drops output when "
                "1000 messages are waiting.",
            ),
            click.option(
                "--no-resend",
                is_flag=True,
                help="Do not use a replay buffer in the kernel on --server; output lost in transit stays lost.",
            ),
            click.option("--tolerate-loss", is_flag=True, help="Exit with code 0 even if output is known to be lost."),
            click.option(
                "--no-loss-note",
                is_flag=True,
                help="Do not add a note to a cell's outputs when some are missing.",
            ),
        )
    ):
        function = decorate(function)
    return function


def output_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options said, as a run is told."""
    return {
        "raw_streams": given["raw_streams"],
        "max_output": given["max_output"],
        "lift_limits": given["lift_limits"],
        "resend": not given["no_resend"],
        "tolerate_loss": given["tolerate_loss"],
        "note_loss": not given["no_loss_note"],
    }
