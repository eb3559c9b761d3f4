"""Options of ``nbrun run`` that say when the notebook is saved, and what becomes of it as it was before."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from nbrun.cli.options.server import Duration

Function = TypeVar("Function", bound=Callable[..., Any])


class Pause(Duration):
    """Seconds between two saves; ``0`` is papermill's word for never."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds; infinity for ``never``."""
        return super().convert("never" if str(value) == "0" else value, param, ctx)


def saving_options(function: Function) -> Function:
    """Add the options."""
    for decorate in reversed(
        (
            click.option(
                "--save-every",
                "--autosave-cell-every",
                type=Pause(),
                help="Save the notebook at this interval during the run, within 5 % of the run's time; "
                "never disables it. By default nbrun chooses the interval.",
            ),
            click.option(
                "--checkpoint",
                is_flag=True,
                help="Keep the original notebook as a checkpoint that JupyterLab can restore.",
            ),
            click.option(
                "--restore-on-failure",
                is_flag=True,
                help="If the run fails, restore the original notebook from a checkpoint; the executed "
                "notebook is written next to it.",
            ),
        )
    ):
        function = decorate(function)
    return function


def saving_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say, as a run takes it."""
    return {name: given[name] for name in ("save_every", "checkpoint", "restore_on_failure")}
