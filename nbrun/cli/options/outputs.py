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
                "--raw-streams", is_flag=True, help="Keep carriage returns and backspaces in text as they were written."
            ),
            click.option(
                "--max-output",
                type=Size(),
                help="Cut what a cell puts out beyond this, in characters (50MB), with a note; else nothing is cut.",
            ),
            click.option(
                "--lift-limits",
                is_flag=True,
                help="Let ipykernel on --server queue any amount of output, which it drops beyond 1000 messages.",
            ),
            click.option(
                "--no-resend",
                is_flag=True,
                help="Do not let ipykernel on --server keep its output and send again what was lost on the way.",
            ),
            click.option("--tolerate-loss", is_flag=True, help="Let a run pass although output is known to be lost."),
            click.option(
                "--no-loss-note",
                is_flag=True,
                help="Do not say at the end of a cell's outputs that some are missing.",
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
