"""Schedules: cron expressions in a time zone, their starts, and late or missing runs.

A *start* is a time at which the schedule wants a run. Around the change of daylight saving time, starts are those of
Debian's cron: a time of day that does not exist is moved to the end of the gap, and one that exists twice counts once.
The clock is an argument of every function. Times are in UTC.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PORTABLE = re.compile(r"[0-9A-Z*,/ -]+")
_SPECIAL = re.compile(r"#|(?:^|[ ,\d])LW?(?=$|[ ,/])")
_LONGEST_PAUSE: Final = timedelta(days=366 * 50)
"""cronsim refuses expressions with longer pauses between starts."""
_YEARS_AHEAD: Final = 10
_DAY = timedelta(days=1)
_WEEK = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def zone_of(name: str) -> tzinfo:
    """Return the time zone with this IANA name; raise ValueError."""
    from zoneinfo import ZoneInfo

    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # an unknown name, an invalid one, the name of a folder
        from difflib import get_close_matches
        from zoneinfo import available_timezones

        near = get_close_matches(name, sorted(available_timezones()), 1, 0.6)
        raise ValueError(
            f"{name[:60]!r} is no time zone; write {near[0] if near else 'Europe/Berlin or UTC'}"
        ) from None


def spell_moment(text: str, timezone: str = "") -> str:
    """Return a time for display in a time zone: ``2026-11-30 06:00 CET``. The default is UTC."""
    when = datetime.fromisoformat(text)
    try:
        zone = zone_of(timezone or "UTC")
    except ValueError:  # the record is from a machine with more time zones
        zone = UTC
    return f"{when.replace(tzinfo=when.tzinfo or UTC).astimezone(zone):%Y-%m-%d %H:%M %Z}"


def read_cron(text: str) -> str:
    """Return a cron expression of five fields, with names such as ``@daily`` resolved; raise ValueError."""
    from cronsim import CronSim, CronSimError

    fields = _MACROS.get(text.strip().lower(), text).upper().split()
    shown = f"{text[:60]!r} is no cron expression"
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{shown}: it has {len(fields)} fields, not 5 ({', '.join(_FIELDS)})")
    expression = " ".join(fields)
    try:
        if next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
            raise CronSimError("no day ever matches")
    except CronSimError as error:
        raise ValueError(f"{shown}: {str(error).replace('-', ' ').lower()}; an example is '0 6 * * 1-5'") from None
    return expression


def read_zone(text: str) -> str:
    """Return the name of a time zone; raise ValueError if there is no such zone."""
    zone_of(text)
    return text


@dataclass(frozen=True, slots=True)
class OddStart:
    """A start that schedulers handle differently: its time of day does not exist on this day, or exists twice."""

    start: datetime
    missing: bool


class Schedule:
    """A cron expression in a time zone. Raises ValueError for a wrong one."""

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        from cronsim import CronSim

        self.expression = read_cron(expression)
        self.zone = zone
        self.tzinfo = zone_of(zone)
        self._sim: Any = CronSim(self.expression, datetime(2000, 1, 1, tzinfo=UTC))

    def starts(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Return the starts later than `after` and not later than `until`, in order."""
        from cronsim import CronSim

        # The search begins earlier, because cronsim takes a time in a repeated hour for the first of the two.
        last, begin = after, (after - timedelta(hours=3)).astimezone(self.tzinfo)
        found = CronSim(self.expression, begin)
        while (start := next(found).astimezone(UTC)) <= until:
            if start > last:
                last = start
                yield start

    def last_start(self, now: datetime, days: int = 1) -> datetime:
        """Return the newest start that is not later than `now`, searched in as many days at first."""
        found = [*self.starts(now - days * _DAY, now)]
        return found[-1] if found else self.last_start(now, 8 * days)

    def next_start(self, now: datetime) -> datetime:
        """Return the first start later than `now`."""
        return next(self.starts(now, now + _LONGEST_PAUSE))

    def is_start(self, when: datetime) -> bool:
        """Return whether there is a start in the minute that begins at `when`."""
        return next(self.starts(when - timedelta(seconds=1), when), None) == when

    @property
    def is_portable(self) -> bool:
        """Return whether the expression has only what every scheduler knows: no ``L``, ``LW`` or ``#``."""
        return bool(_PORTABLE.fullmatch(self.expression)) and not _SPECIAL.search(self.expression)

    def odd_starts(self, now: datetime) -> list[OddStart]:
        """Return the starts of the next ten years at a time of day that does not exist or exists twice."""
        found, at, end = [], now, now + _YEARS_AHEAD * 366 * _DAY
        while at < end:
            change = self._offset(at + _DAY) - self._offset(at)
            if change:
                found += self._around(at, missing=change > timedelta())
            at += _DAY
        return found

    def _around(self, day: datetime, *, missing: bool) -> list[OddStart]:
        minute, hour = self.expression.split()[:2]
        if minute.startswith("*") or hour.startswith("*"):  # such starts follow the time that passes
            return []
        starts = [start.astimezone(self.tzinfo) for start in self.starts(day - timedelta(hours=4), day + _DAY)]
        if missing:
            odd = [at for at in starts if at.hour not in self._sim.hours or at.minute not in self._sim.minutes]
        else:
            odd = [at for at in starts if at.replace(fold=1 - at.fold).utcoffset() != at.utcoffset()]
        return [OddStart(at.astimezone(UTC), missing) for at in odd]

    def _offset(self, when: datetime) -> timedelta:
        return when.astimezone(self.tzinfo).utcoffset() or timedelta()

    def utc_lines(self, now: datetime) -> tuple[list[str], bool]:
        """Return cron lines in UTC that cover all starts, and whether each of their starts is one of the schedule.

        There are lines for each offset of the zone in the next ten years. If the second value is false, the lines start
        too often, and :func:`is_due` decides at each start.
        """
        offsets = sorted({self._offset(now + days * _DAY) for days in range(0, _YEARS_AHEAD * 366, 7)})
        if offsets == [timedelta()] and self.is_portable:
            return [self.expression], True
        each, exact = [], self.is_portable
        for offset in offsets:
            lines, same_days = self._lines_at(int(offset.total_seconds()) // 60)
            each.append(lines)
            exact &= same_days
        exact &= all(lines == each[0] for lines in each)
        moved = [one.start for one in self.odd_starts(now) if one.missing]
        each.append(sorted({f"{at.minute} {at.hour} * {at.month} {at.isoweekday() % 7}" for at in moved}))
        return list(dict.fromkeys(line for lines in each for line in lines)), exact

    def _lines_at(self, offset: int) -> tuple[list[str], bool]:
        """Return the lines for an offset in minutes, and whether their days are exact."""
        times: dict[tuple[int, int], set[int]] = {}
        for hour in self._sim.hours:
            for minute in self._sim.minutes:
                shift, rest = divmod(hour * 60 + minute - offset, 24 * 60)
                times.setdefault((shift, rest // 60), set()).add(rest % 60)
        grouped: dict[tuple[str, str], set[int]] = {}
        exact = True
        for (shift, hour), minutes in times.items():
            days, same = self._days(shift)
            exact &= same
            grouped.setdefault((spell_field(minutes, range(60)), days), set()).add(hour)
        return sorted(f"{m} {spell_field(hours, range(24))} {days}" for (m, days), hours in grouped.items()), exact

    def _days(self, shift: int) -> tuple[str, bool]:
        """Return the three fields of the day, `shift` days later, and whether they are exact."""
        day, month, weekday = self.expression.split()[2:]
        if not self.is_portable:
            return "* * *", False
        if shift == 0 or (day, month, weekday) == ("*", "*", "*"):
            return f"{day} {month} {weekday}", True
        if (day, month) != ("*", "*"):
            return "* * *", False
        return f"* * {spell_field({(one + shift) % 7 for one in self._sim.weekdays}, range(7))}", True

    def calendar(self, now: datetime) -> list[str]:
        """Return the schedule as calendar events of systemd (``OnCalendar=``).

        systemd skips a time of day that does not exist, so those of the next ten years are added.
        """
        lines, exact = self.utc_lines(now)
        if exact and self.zone != "UTC" and len(lines) == 1 and lines[0] == self.expression:
            return Schedule(self.expression).calendar(now)
        moved = [one.start for one in self.odd_starts(now) if one.missing]
        return [*self._calendar(), *(f"{at:%Y-%m-%d %H:%M}:00 UTC" for at in moved)]

    def _calendar(self) -> list[str]:
        days, weekdays = self._sim.days, self._sim.weekdays
        months = _listed(self._sim.months, range(1, 13))
        any_day, any_weekday = (
            days >= {*range(1, 32)},
            {one % 7 for one in weekdays if isinstance(one, int)} >= {*range(7)},
        )
        dates = []
        if not any_day or any_weekday:
            only = "" if any_weekday or not self._sim.day_and else _weekdays(weekdays)
            dates += [f"{only}{date}" for date in _days_of(days, months)]
        if not any_weekday and (any_day or not self._sim.day_and):
            dates += _weekdays_of(weekdays, months)
        times = f"{_listed(self._sim.hours, range(24))}:{_listed(self._sim.minutes, range(60))}:00"
        return [f"{date} {times} {self.zone}" for date in dates]


def _days_of(days: Iterable[int], months: str) -> list[str]:
    from cronsim import CronSim

    plain = {day for day in days if day > 0}
    dates = [f"*-{months}-{_listed(plain, range(1, 32))}"] if plain else []
    dates += [f"*-{months}~01"] if CronSim.LAST in days else []
    if CronSim.LAST_WEEKDAY in days:  # the last day if it is a weekday, or else the Friday before
        dates += [f"Mon..Fri *-{months}~01", f"Fri *-{months}~02", f"Fri *-{months}~03"]
    return dates


def _weekdays(weekdays: Iterable[Any]) -> str:
    return ",".join(_WEEK[day] for day in sorted({one % 7 for one in weekdays})) + " "


def _weekdays_of(weekdays: Iterable[Any], months: str) -> list[str]:
    """Return calendar dates for days of the week: numbers, and pairs such as the second or the last Monday."""
    plain = [one for one in weekdays if isinstance(one, int)]
    dates = [f"{_weekdays(plain)}*-{months}-*"] if plain else []
    for day, which in sorted(one for one in weekdays if not isinstance(one, int)):
        when = "~07/1" if which < 0 else f"-{7 * which - 6:02}..{min(7 * which, 31):02}"
        dates.append(f"{_WEEK[day % 7]} *-{months}{when}")
    return dates


def _listed(values: Iterable[int], every: range) -> str:
    return "*" if {*values} >= {*every} else ",".join(f"{value:02}" for value in sorted(values))


def spell_field(values: Iterable[int], every: range) -> str:
    """Return numbers as a field of a cron expression: ``*``, ``*/5``, ``1-5`` or ``4,16``."""
    numbers = sorted(values)
    if numbers == [*every]:
        return "*"
    step = numbers[1] - numbers[0] if len(numbers) > 2 else 0
    if step > 1 and numbers == [*every][::step]:
        return f"*/{step}"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
    return ",".join(parts)


def is_due(schedule: Schedule, line: str, now: datetime) -> bool:
    """Return whether a call by the cron line `line` in UTC is a start of the schedule.

    The call belongs to the newest start of the line, because schedulers call late. Raises ValueError for a wrong line.
    """
    return schedule.is_start(Schedule(line).last_start(now))


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run of a history: when it was to start, if that is known, and when it started."""

    scheduled: datetime | None
    started: datetime


@dataclass(frozen=True, slots=True)
class Overdue:
    """A start whose run began too late, or has not begun."""

    scheduled: datetime
    started: datetime | None


def overdue(
    schedule: Schedule, grace: timedelta, runs: Sequence[StartedRun], now: datetime, since: datetime | None = None
) -> list[Overdue]:
    """Return the starts whose runs are late or missing.

    They are those later than `since`, or only the newest start whose `grace` has passed. A run without a scheduled time
    belongs to the newest start before it.
    """
    due = now - grace
    starts = [schedule.last_start(due)] if since is None else schedule.starts(since, due)
    found = []
    for start in starts:
        following = schedule.next_start(start)
        began = [run.started for run in runs if _belongs(run, start, following)]
        if not began:
            found.append(Overdue(start, None))
        elif min(began) > start + grace:
            found.append(Overdue(start, min(began)))
    return found


def _belongs(run: StartedRun, start: datetime, following: datetime) -> bool:
    if run.scheduled is not None:
        return run.scheduled == start
    return start <= run.started < following


def dates(first: str, last: str, cron: str | None = None) -> list[str]:
    """Return the dates from `first` to `last`, or those on which the cron expression has a start; raise ValueError."""
    begin, end = (datetime.fromisoformat(_date(text)).replace(tzinfo=UTC) for text in (first, last))
    if end < begin:
        raise ValueError(f"{first}..{last} ends before it begins")
    starts: Callable[[datetime, datetime], Iterable[datetime]] = Schedule(cron or "0 0 * * *").starts
    found = starts(begin - timedelta(seconds=1), end + _DAY - timedelta(seconds=1))
    return list(dict.fromkeys(start.date().isoformat() for start in found))


def _date(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(f"{text[:40]!r} is no date; write 2026-11-01")
    return text
