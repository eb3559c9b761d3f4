"""Runs for earlier dates: which combinations of a matrix are missing, and their time."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from nbrun.cli import clock
from nbrun.cli.call import Call
from nbrun.core.batch.matrix import date_axis
from nbrun.errors import UsageError
from nbrun.runner.job import PlannedRun

if TYPE_CHECKING:
    from nbrun.cli.options.reports import Reports
    from nbrun.publishing.around_run import RunWatch
    from nbrun.publishing.missing import IsThere
    from nbrun.runner.batch.plan import BatchPlan


class MissingOnly:
    """Selects the runs that have not passed before."""

    def __init__(self, is_there: "IsThere") -> None:
        self._is_there = is_there
        self._present = 0
        self._missing = 0

    def __call__(self, planned: PlannedRun) -> bool:
        """Return whether a run is missing."""
        is_missing = not self._is_there(planned.job.notebook, planned.parameters)
        self._missing += is_missing
        self._present += not is_missing
        return is_missing

    def __str__(self) -> str:
        """Return a sentence about all runs."""
        total = self._missing + self._present
        if self._missing:
            return f"{self._missing} of {total} runs {'is' if self._missing == 1 else 'are'} missing"
        return f"nothing is missing: {'the only run' if total == 1 else f'all {total} runs'} passed before"

    def show(self, *, quiet: bool) -> None:
        """Print the sentence, if there are runs at all."""
        if not quiet and self._missing + self._present:
            click.echo(f"nbrun: {self}", err=True)


def check_missing_only(call: Call, *, wanted: bool, has_history: bool) -> None:
    """Raise :class:`UsageError` if ``--missing-only`` is `wanted` and has no matrix or no history."""
    if not wanted:
        return
    if not call.options["matrix"]:
        hint = "Write --matrix 'day=2026-11-01..2026-11-30'."
        raise UsageError("--missing-only needs --matrix, whose combinations can be missing", hint=hint)
    if call.options["shard"]:
        raise UsageError("--missing-only: the parts of --shard would not see the same history")
    if not has_history:
        hint = "Add --publish BASE, or write publish or schedule into the batch: nbrun then records its runs."
        raise UsageError("--missing-only needs a history", hint=hint)


async def missing_only(reports: "Reports", watch: "RunWatch | None") -> MissingOnly:
    """Return what selects the missing runs, by the published runs or else by those of this machine."""
    published = await reports.published_before()
    if published is not None:
        return MissingOnly(published)
    assert watch is not None
    try:
        return MissingOnly(watch.is_there())
    except OSError as error:
        raise UsageError(f"{watch.history.file}: the history cannot be read: {error.strerror}") from None


def date_parameter(matrix: Mapping[str, Sequence[Any]], given: Mapping[str, Any]) -> str | None:
    """Return the parameter of a batch over dates, or None for another one or if ``--scheduled`` names one time."""
    return None if given["scheduled"] is not None else date_axis(matrix)


def dates_of(plan: "BatchPlan", axis: str, given: Mapping[str, Any]) -> dict[str, tuple[str, datetime]]:
    """Return the notebooks of the runs and the times that they are for, by the names of the runs."""
    times = {date: clock.time_of_date(date, given) for date in {run.parameters[axis] for run in plan.runs}}
    return {run.name: (run.job.notebook, times[run.parameters[axis]]) for run in plan.runs}


def locator(folder: Path, *, on_server: bool) -> Callable[[str], str]:
    """Return the function that turns the path of a notebook into the one from `folder`.

    Paths of a server and URLs stay. Other paths are relative to the folder that is the current one now.
    """
    here = Path.cwd()

    def locate(path: str) -> str:
        if on_server or "://" in path:
            return path
        try:
            return PurePath(os.path.relpath(here / path, folder)).as_posix()
        except ValueError:  # on another drive of Windows
            return (here / path).as_posix()

    return locate
