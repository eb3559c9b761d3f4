"""The files that make systemd, cron, GitHub Actions or Kubernetes call ``nbrun batch NAME``.

nbrun has no daemon. Each function returns the texts of files for one batch, by their names. Where the scheduler has no
time zones, the cron lines are in UTC and ``--if-due`` decides at each call. ``warnings_of`` returns the days on which
the scheduler starts the batch at another time than its schedule.
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nbrun.core.batch.schedule import Schedule
from nbrun.errors import UsageError

TARGETS = ("systemd", "cron", "github", "kubernetes")
_LONGEST_CRONJOB = 52
"""The longest name of a CronJob; Kubernetes appends 11 characters to the names of its jobs."""


@dataclass(frozen=True, slots=True)
class ScheduledBatch:
    """A batch with a schedule.

    ``folder`` is that of the settings file and ``subfolder`` the same below the repository's root. ``command`` calls
    nbrun. ``secrets`` are the names of the environment variables that the settings refer to. ``extras`` are those of
    nbrun that the batch needs.
    """

    name: str
    schedule: Schedule
    grace: timedelta
    folder: str
    subfolder: str = "."
    command: Sequence[str] = ("nbrun",)
    secrets: Sequence[str] = ()
    extras: Sequence[str] = ("local", "html")

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for names that no unit can contain."""
        if not (self.name + self.folder).isprintable():
            raise UsageError(f"{self.name!r} in {self.folder!r}: a unit cannot contain control characters")

    @property
    def call(self) -> list[str]:
        """Return the arguments of the command that runs the batch."""
        return [*self.command, "batch", self.name]

    @property
    def unit(self) -> str:
        """Return the name of its units and files."""
        return f"nbrun-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.name)}"


def systemd(batch: ScheduledBatch, now: datetime) -> dict[str, str]:
    """Return a service and its timer."""
    secrets = "".join(f"# Set {name} in this file.\n" for name in batch.secrets)
    secrets += f"EnvironmentFile=%h/.config/nbrun/{batch.unit}.env\n" if secrets else ""
    events = "".join(f"OnCalendar={event}\n" for event in batch.schedule.calendar(now))
    service = f"""\
[Unit]
Description=nbrun batch {_percent(batch.name)}

[Service]
Type=oneshot
WorkingDirectory={_percent(batch.folder)}
ExecStart={" ".join(_quoted(word) for word in batch.call)}
KillMode=mixed
TimeoutStopSec=60
{secrets}"""
    timer = f"""\
[Unit]
Description=Schedule of nbrun batch {_percent(batch.name)}

[Timer]
{events}Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{batch.unit}.service": service, f"{batch.unit}.timer": timer}


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return an argument for ``ExecStart``, in which ``%`` and ``$`` have a meaning."""
    escaped = _percent(word).replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./$-]+", word) else json.dumps(escaped, ensure_ascii=False)


def cron(batch: ScheduledBatch, now: datetime, *, zone: str, cron_tz: bool = False) -> dict[str, str]:
    """Return a crontab for a cron that runs in the time zone `zone`, or that knows ``CRON_TZ``.

    Raises :class:`UsageError` if cron runs neither in the zone of the schedule nor in UTC.
    """
    schedule, call = batch.schedule, batch.call
    head = f"# nbrun batch {batch.name}: {schedule.expression} in {schedule.zone}\n"
    if not schedule.is_portable and (cron_tz or zone == schedule.zone):
        raise UsageError(f"{schedule.expression}: cron knows no L and #", hint="Export to systemd, which does.")
    if cron_tz:
        return {f"{batch.unit}.cron": f"{head}CRON_TZ={schedule.zone}\n{_cron_line(schedule.expression, batch, call)}"}
    if zone == schedule.zone:
        return {f"{batch.unit}.cron": head + _cron_line(schedule.expression, batch, call)}
    if zone != "UTC":
        raise UsageError(
            f"cron on this machine runs in {zone}, and the schedule of {batch.name} is in {schedule.zone}",
            hint="--cron-tz writes CRON_TZ, which cronie knows (Fedora, RHEL, Arch, SUSE) and Debian's cron does not. "
            "Elsewhere export to systemd.",
        )
    lines, exact = schedule.utc_lines(now)
    guarded = (_cron_line(line, batch, call if exact else [*call, "--if-due", line]) for line in lines)
    return {f"{batch.unit}.cron": f"{head}# The lines are in UTC.\n" + "".join(guarded)}


def _cron_line(line: str, batch: ScheduledBatch, call: Sequence[str]) -> str:
    command = f"cd {shlex.quote(batch.folder)} && {shlex.join(call)}"
    return f"{line} {command.replace('%', chr(92) + '%')}\n"


def github(batch: ScheduledBatch, now: datetime) -> dict[str, str]:
    """Return a workflow for GitHub Actions, whose schedules are in UTC."""
    lines, exact = batch.schedule.utc_lines(now)
    crons = "".join(f"    - cron: {json.dumps(line)}\n" for line in lines)
    name = json.dumps(f"nbrun batch {batch.name}", ensure_ascii=False)
    call = f"nbrun batch {shlex.quote(batch.name)}"
    env = "".join(f"          {one}: ${{{{ secrets.{one} }}}}\n" for one in batch.secrets)
    if not exact:
        call += ' ${LINE:+--if-due "$LINE"}'
        env = f"          LINE: ${{{{ github.event.schedule }}}}\n{env}"
    env = f"        env:\n{env}" if env else ""
    where = "" if batch.subfolder == "." else f"        working-directory: {json.dumps(batch.subfolder)}\n"
    workflow = f"""\
# {batch.schedule.expression} in {batch.schedule.zone}; the lines below are in UTC.
name: {name}
on:
  schedule:
{crons}  workflow_dispatch:
permissions:
  contents: read
concurrency:
  group: {json.dumps(batch.unit)}
jobs:
  report:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v6
      - uses: actions/setup-python@v6
        with:
          python-version: "3.13"
      - run: pip install 'jupyter-nbrun[{",".join(batch.extras)}]' # and what the notebooks import
      - run: {json.dumps(call, ensure_ascii=False)}
{where}{env}"""
    return {f"{batch.unit}.yml": workflow}


def kubernetes(batch: ScheduledBatch, image: str) -> dict[str, str]:
    """Return a CronJob that runs the batch in a container of `image`; raise :class:`UsageError`."""
    schedule = batch.schedule
    if not schedule.is_portable:
        raise UsageError(f"{schedule.expression}: Kubernetes knows no L and #", hint="Export to systemd, which does.")
    name = re.sub(r"[^a-z0-9]+", "-", batch.unit.lower()).strip("-")[:_LONGEST_CRONJOB].rstrip("-")
    env = [{"name": one, "valueFrom": {"secretKeyRef": {"name": name, "key": one}}} for one in batch.secrets]
    args = json.dumps(["batch", batch.name])
    container_env = f"              env: {json.dumps(env)}\n" if env else ""
    return {
        f"{name}.yaml": f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {name}
spec:
  schedule: {json.dumps(schedule.expression)}
  timeZone: {json.dumps(schedule.zone)}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {max(10, round(batch.grace.total_seconds()))}
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: nbrun
              image: {json.dumps(image)}
              command: ["nbrun"]
              args: {args}
{container_env}"""
    }


def warnings_of(batch: ScheduledBatch, target: str, now: datetime) -> list[str]:
    """Return the next days on which the scheduler differs from the schedule, at changes of daylight saving time."""
    if target != "kubernetes":
        return []
    found = dict[bool, str]()
    for odd in batch.schedule.odd_starts(now):
        day = f"{odd.start.astimezone(batch.schedule.tzinfo):%Y-%m-%d}"
        found.setdefault(
            odd.missing,
            f"{batch.name}: Kubernetes skips the run on {day}, whose clock has no such time"
            if odd.missing
            else f"{batch.name}: Kubernetes runs twice on {day}, whose clock has this time twice",
        )
    return [f"{text}; choose another hour" for text in found.values()]
