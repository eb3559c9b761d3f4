"""Options of ``nbrun run`` that say what becomes of a notebook before it runs, and where; papermill's spellings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def preparing_options(function: Function) -> Function:
    """Add the options."""
    for decorate in reversed(
        (
            click.option(
                "--cwd",
                metavar="DIR",
                help="Working directory of the kernel; with --server, a directory of the server. The "
                "default is the notebook's.",
            ),
            click.option(
                "--prepare-only/--prepare-execute",
                help="Write the notebook with its parameters and without outputs; execute nothing.",
            ),
            click.option(
                "--report-mode/--no-report-mode", help="Hide the code of all cells when the notebook is opened."
            ),
        )
    ):
        function = decorate(function)
    return function


def prepared_as(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say, as a run takes it."""
    return {name: given[name] for name in ("cwd", "prepare_only", "report_mode")}


def working_folders(given: Mapping[str, Any]) -> list[Path]:
    """Return the folder of this machine that the kernel is to work in, if one was named; raises :class:`UsageError`."""
    from nbrun.storage.paths import local_folder

    return [local_folder(given["cwd"])] if given["cwd"] else []
