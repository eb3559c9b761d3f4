"""``nbrun publish``: rebuild the pages about published runs, and delete old runs."""

import asyncio
from collections.abc import Sequence

import click

from nbrun.cli import clock
from nbrun.cli.options.generated import declared
from nbrun.cli.options.log import log_option, start_log
from nbrun.core.batch.terms import Keep
from nbrun.core.planning.destinations import refuse_unreachable
from nbrun.errors import ExitCode, UsageError


@click.command("publish", short_help="Rebuild the index of published reports, and delete old runs.")
@click.argument("base")
@click.option("--report", "reports", multiple=True, metavar="NAME", help="Only this report. May be repeated.")
@declared("keep")
@log_option
def command(base: str, reports: Sequence[str], keep: Sequence[str], verbose: int) -> int:
    """Rebuild what follows from the records of the runs published below BASE.

    These are the index of each report, its latest run, and the index of all reports. nbrun run --publish does the same
    after each run. Use this command to repair the pages after a publisher was killed, or to delete old runs.
    """
    start_log({"verbose": verbose})
    refuse_unreachable("BASE", base, stores=True)
    found = asyncio.run(_rebuilt(base, reports, Keep.parse(keep)))
    for line in found:
        click.echo(line, err=True)
    return ExitCode.OK


async def _rebuilt(base: str, wanted: Sequence[str], keep: Keep) -> list[str]:
    from nbrun.core.batch.schedule import spell_moment
    from nbrun.publishing.history import PublishedHistory
    from nbrun.publishing.publish import rebuild, rebuild_base
    from nbrun.storage.object_stores.by_url import open_store

    store = open_store(base)
    history = PublishedHistory(store)
    reports = await history.reports()
    if not reports:
        raise UsageError(f"{store.url}: there is no published report", hint="nbrun run --publish BASE publishes one.")
    if unknown := [name for name in wanted if name not in reports]:
        hint = f"There are: {', '.join(reports)}."
        raise UsageError(f"{store.url}: there is no published report {unknown[0]!r}", hint=hint)
    lines = []
    for report in wanted or reports:
        state = await rebuild(store, report, keep=keep, now=clock.now())
        newest = state.latest
        latest = f"latest {spell_moment(newest.when, newest.timezone)}" if newest else "none of them is the latest"
        deleted = f", {len(state.deleted)} deleted" if state.deleted else ""
        count = "1 run" if len(state.records) == 1 else f"{len(state.records)} runs"
        lines.append(f"nbrun: {report}: {count}, {latest}{deleted}")
        lines += [f"nbrun: {key} is not the record of a run" for key in state.unreadable]
    await rebuild_base(store)
    return lines
