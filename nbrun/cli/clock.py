"""The clock of the command line, and the time that a run is for.

Code for publishing and schedules gets both as arguments.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from nbrun.core.planning.option_types import Moment
from nbrun.errors import UsageError

GRACE = 3600.0
"""Default seconds that a scheduled run may be late."""
_SCHEDULED = "NBRUN_SCHEDULED"
"""The environment variable with the time that a run is for."""


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def time_of_run(given: Mapping[str, Any], started: datetime) -> datetime | None:
    """Return the time that a run is for, in UTC, or None if it is its start; raise :class:`UsageError`.

    It is ``--scheduled``, or ``$NBRUN_SCHEDULED``, or the newest start of the schedule if its grace has not passed.
    `given` contains the options by name.
    """
    named: datetime | None = given["scheduled"] or _named_by_scheduler()
    if named is not None:
        return named.astimezone(UTC)
    if given["schedule"] is None:
        return None
    from nbrun.core.batch.schedule import Schedule

    if line := given["if_due"]:
        return Schedule(line).last_start(started)
    start = Schedule(given["schedule"], given["timezone"] or "UTC").last_start(started)
    return start if started - start <= timedelta(seconds=given["grace"] or GRACE) else None


def time_of_date(date: str, given: Mapping[str, Any]) -> datetime:
    """Return the time that a run for a date is for: the first start of the schedule on it, or else its midnight.

    Raises ValueError for a date that does not exist.
    """
    begin = datetime.fromisoformat(date).replace(tzinfo=in_zone(now(), given).tzinfo).astimezone(UTC)
    if given["schedule"] is None:
        return begin
    from nbrun.core.batch.schedule import Schedule

    schedule = Schedule(given["schedule"], given["timezone"] or "UTC")
    starts = schedule.starts(begin - timedelta(seconds=1), begin + timedelta(days=1))
    return next((start for start in starts if in_zone(start, given).date().isoformat() == date), begin)


def _named_by_scheduler() -> datetime | None:
    """Return the time that the scheduler says the run is for; raise :class:`UsageError`."""
    text = os.environ.get(_SCHEDULED)
    if not text:
        return None
    try:
        return Moment().read(text)
    except ValueError as error:
        raise UsageError(f"{_SCHEDULED} {error}") from None


def in_zone(when: datetime, given: Mapping[str, Any]) -> datetime:
    """Return a time in the zone of the batch: ``timezone``, or UTC with a schedule, or else that of this machine."""
    name = given["timezone"] or ("UTC" if given["schedule"] else None)
    if name is None:
        return when.astimezone()
    from nbrun.core.batch.schedule import zone_of

    return when.astimezone(zone_of(name))
