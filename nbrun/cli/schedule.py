"""``nbrun schedule``: timers and cron lines for scheduled batches, and a check of their runs."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from nbrun.cli import clock
from nbrun.cli.config.files import Project, from_here, options_of, place_from_here, project_of, settings_of
from nbrun.cli.options.generated import Value
from nbrun.core.batch.schedule import Overdue, Schedule, StartedRun, overdue
from nbrun.core.formats.units import spell_duration
from nbrun.core.planning.destinations import CLOUD_SCHEMES, scheme_of
from nbrun.core.planning.option_types import Duration
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.publishing.around_run import Report
from nbrun.publishing.local_history import LocalHistory, PastRun
from nbrun.publishing.notifications.targets import environment_names
from nbrun.publishing.schedule_export import TARGETS, ScheduledBatch, cron, github, kubernetes, systemd, warnings_of

Function = TypeVar("Function", bound=Callable[..., Any])
_LONGEST = 10 * 366 * 86400.0
"""The longest time, in seconds, that is checked."""
_HINT = 'Write schedule = "0 6 * * 1-5" and timezone = "Europe/Berlin" into [tool.nbrun.batch.NAME].'


@click.group("schedule", short_help="Write timers and cron lines for scheduled batches, and check their runs.")
def command() -> None:
    """Write timers and cron lines for batches with a schedule, and check that their runs were on time.

    The schedule of a batch is in the settings: schedule, timezone and grace in [tool.nbrun.batch.NAME]. nbrun has no
    daemon: systemd, cron, GitHub Actions or Kubernetes calls nbrun batch NAME.
    """


def _config(function: Function) -> Function:
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read settings from this file instead of the nearest nbrun.toml or pyproject.toml.",
    )(function)


@command.command("export", short_help="Write the files that make a scheduler run a batch.")
@click.argument("target", type=click.Choice(TARGETS))
@click.argument("name", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the files into this folder instead of to standard output.",
)
@click.option(
    "--command", "program", metavar="PATH", help="The nbrun that systemd or cron calls. The default is this one."
)
@click.option("--cron-tz", is_flag=True, help="For a cron that knows CRON_TZ, such as cronie.")
@click.option(
    "--image",
    metavar="IMAGE",
    help="The container image for Kubernetes, with nbrun as a command and the notebooks in its working directory.",
)
@_config
def export(target: str, name: str | None, **given: Any) -> None:
    """Write the files for the batch NAME, or for all batches with a schedule."""
    if target == "kubernetes" and not given["image"]:
        raise UsageError("kubernetes needs --image", hint="Name an image with nbrun and the notebooks.")
    now, files = clock.now(), dict[str, str]()
    for batch in _batches(given["config"], name, given["program"]):
        written = _files_of(batch, target, now, given)
        if taken := files.keys() & written.keys():
            raise UsageError(f"two batches would have the unit {min(taken)}", hint="Rename one of them.")
        files |= written
        for warning in warnings_of(batch, target, now):
            click.echo(f"nbrun: warning: {warning}", err=True)
    folder: Path | None = given["output"]
    if folder is None:
        separator = "---\n" if target == "kubernetes" else ""
        click.echo("\n".join(f"{separator}# {file}\n{text}" for file, text in files.items()), nl=False)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
            click.echo(f"nbrun: wrote {folder / file}", err=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


@command.command("check", short_help="Exit with code 7 if a scheduled run is late or missing.")
@click.argument("name", required=False)
@click.option(
    "--since",
    metavar="DURATION",
    type=Value(Duration()),
    help="Check all starts of this time, such as 7d. The default is the newest start whose grace has passed.",
)
@_config
def check(name: str | None, **given: Any) -> int:
    """Check that the batch NAME, or each batch with a schedule, was run when its schedule said so.

    The exit code is 7 if a run is late or missing, and the targets of notify in the settings are notified. The history
    is the published one, or that of this machine in $XDG_STATE_HOME/nbrun for a batch without publish.
    """
    now, late, failures = clock.now(), dict[str, list[str]](), list[NbrunError]()
    options = _options(given["config"])
    since = now - timedelta(seconds=min(given["since"], _LONGEST)) if given["since"] else None
    for batch in _batches(given["config"], name, None):
        try:
            runs = _runs_of(batch, options[batch.name].get("publish"))
        except NbrunError as error:
            failures.append(error)
            continue
        if found := overdue(batch.schedule, batch.grace, runs, now, since):
            late[batch.name] = [_spelled(batch, one) for one in found]
            click.echo("\n".join(f"nbrun: {line}" for line in late[batch.name]), err=True)
    for warning in _notify(late, options):
        click.echo(f"nbrun: warning: {warning}", err=True)
    for failure in failures:  # the first one is raised when the others have been checked
        raise failure
    return ExitCode.OVERDUE if late else ExitCode.OK


def _spelled(batch: ScheduledBatch, one: Overdue) -> str:
    scheduled = f"{one.scheduled.astimezone(batch.schedule.tzinfo):%Y-%m-%d %H:%M} {batch.schedule.zone}"
    if one.started is None:
        return f"{batch.name}: the run of {scheduled} is missing"
    late = spell_duration((one.started - one.scheduled).total_seconds())
    return f"{batch.name}: the run of {scheduled} began {late} late"


def _notify(late: Mapping[str, Sequence[str]], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Notify about late and missing runs, by batch, as about failures; return warnings."""
    notified = {name: given.get("notify", ()) for name, given in options.items() if name in late}
    if not any(notified.values()):
        return []
    from nbrun.publishing.notifications.delivery import NOTIFY_LIMIT, Delivery
    from nbrun.publishing.notifications.message import Message
    from nbrun.publishing.notifications.senders import check_service, send
    from nbrun.publishing.notifications.targets import read_target

    delivery, warnings = Delivery(), list[str]()
    for name, targets in notified.items():
        if not {"failure", "always"} & {*options[name].get("notify-on", ("failure",))}:
            continue
        text = "\n".join(late[name])
        payload = {"report": name, "causes": ["failure"], "outcome": "overdue", "text": text}
        message = Message(f"nbrun: {name} is late or missing", details=[text], payload=payload)
        for given in targets:
            try:
                # A copy: two batches can name the same variable.
                target = read_target("--notify", given, {**os.environ}, typed=False)
                check_service(target)
            except UsageError as error:
                warnings.append(str(error))
                continue
            delivery.post(target, partial(send, target, message))
    return [*warnings, *delivery.finish(NOTIFY_LIMIT)]


def _runs_of(batch: ScheduledBatch, publish: str | None) -> list[StartedRun]:
    """Return the runs of a batch: the published ones, or those on this machine where nothing is published."""
    if not publish:
        return [run.as_started for run in LocalHistory(Report(batch.name, batch.folder).key).runs()]
    from nbrun.publishing.history import PublishedHistory, safe_name
    from nbrun.storage.object_stores.by_url import open_store

    records = asyncio.run(PublishedHistory(open_store(publish)).records(safe_name(batch.name)))
    return [PastRun(one.started, one.seconds, one.outcome, one.exit_code, one.scheduled).as_started for one in records]


def _files_of(batch: ScheduledBatch, target: str, now: datetime, given: Mapping[str, Any]) -> dict[str, str]:
    match target:
        case "systemd":
            return systemd(batch, now)
        case "cron":
            return cron(batch, now, zone=zone_of_machine(), cron_tz=given["cron_tz"])
        case "github":
            return github(batch, now)
        case _:
            return kubernetes(batch, given["image"])


def _project(config: Path | None) -> Project:
    from nbrun.cli.run import command as run

    return project_of(config, settings_of(run))


def _options(config: Path | None) -> dict[str, Mapping[str, Any]]:
    """Return the options of each batch; a ``file:PATH`` is relative to the current folder."""
    project = _project(config)
    found = dict[str, Mapping[str, Any]]()
    for name, job in project.settings.jobs.items():
        options = dict(options_of(Project(project.folder, project.settings, job)))
        if isinstance(base := options.get("publish"), str) and "://" not in base:
            options["publish"] = from_here(project.folder, base)
        if "notify" in options:
            options["notify"] = [place_from_here(project.folder, one) for one in options["notify"]]
        found[name] = options
    return found


def _batches(config: Path | None, name: str | None, program: str | None) -> list[ScheduledBatch]:
    """Return the batch `name`, or all batches with a schedule; raise :class:`UsageError` if there is none."""
    project = _project(config)
    jobs, options = project.settings.jobs, _options(config)
    if name is not None and name not in jobs:
        raise UsageError(f"there is no batch {name!r}", hint=f"There are: {', '.join(jobs) or 'none'}.")
    scheduled = [one for one in jobs if options[one].get("schedule")]
    if name is not None and name not in scheduled:
        raise UsageError(f"the batch {name!r} has no schedule", hint=_HINT)
    if not scheduled:
        raise UsageError("no batch has a schedule", hint=_HINT)
    called = [program] if program else _this_program()
    return [_batch(one, options[one], project.folder, called) for one in ([name] if name is not None else scheduled)]


def _batch(name: str, options: Mapping[str, Any], folder: Path, called: Sequence[str]) -> ScheduledBatch:
    schedule = Schedule(options["schedule"], options.get("timezone", "UTC"))
    grace = timedelta(seconds=options.get("grace", clock.GRACE))
    root = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), folder)
    secrets = environment_names([*options.get("notify", ()), options.get("ping")])
    subfolder = folder.relative_to(root).as_posix()
    return ScheduledBatch(name, schedule, grace, str(folder), subfolder, called, secrets, _extras(options))


def _extras(options: Mapping[str, Any]) -> list[str]:
    """Return the extras of nbrun that a batch with these options needs."""
    schemes = {scheme_of(value) for value in options.values() if isinstance(value, str)}
    return ["local", "html", *(["cloud"] if schemes & {*CLOUD_SCHEMES} else [])]


def _this_program() -> list[str]:
    found = shutil.which("nbrun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "nbrun"]


def zone_of_machine(environment: Mapping[str, str] = os.environ, etc: Path = Path("/etc")) -> str:
    """Return the name of the time zone in which cron runs on this machine; UTC if the machine has none."""
    if name := environment.get("TZ", "").removeprefix(":"):
        found = name
    else:
        link = etc / "localtime"
        target = str(link.resolve()) if link.exists() else ""
        found = target.partition("zoneinfo/")[2]
        if not found and (etc / "timezone").is_file():
            found = (etc / "timezone").read_text(encoding="utf-8").strip()
    found = found.removeprefix("posix/").removeprefix("right/")
    return (
        "UTC" if found in ("", "Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu") else found
    )
