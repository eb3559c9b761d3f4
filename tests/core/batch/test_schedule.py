"""A schedule has the starts that its cron expression and its time zone define, also where the clock changes."""

from datetime import UTC, datetime, timedelta

import pytest

from nbrun.core.batch.schedule import (
    Overdue,
    Schedule,
    StartedRun,
    dates,
    is_due,
    overdue,
    read_cron,
    read_zone,
    spell_field,
    spell_moment,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
CHANGES = [
    # zone, expression, the day before the change, the starts of three days in UTC
    (BERLIN, "0 6 * * *", "2026-03-28", ["28 05:00", "29 04:00", "30 04:00"]),
    (BERLIN, "30 2 * * *", "2026-03-28", ["28 01:30", "29 01:00", "30 00:30"]),  # 02:30 does not exist: 03:00
    (BERLIN, "0 */8 * * *", "2026-03-28", ["27 23:00", "28 07:00", "28 15:00", "28 23:00", "29 06:00", "29 14:00",
                                          "29 22:00", "30 06:00", "30 14:00"]),
    (BERLIN, "0 6 * * *", "2026-10-24", ["24 04:00", "25 05:00", "26 05:00"]),
    (BERLIN, "30 2 * * *", "2026-10-24", ["24 00:30", "25 00:30", "26 01:30"]),  # 02:30 exists twice: the first
    (BERLIN, "0 0 * * *", "2026-10-24", ["23 22:00", "24 22:00", "25 23:00"]),
    (NEW_YORK, "0 6 * * *", "2026-03-07", ["07 11:00", "08 10:00", "09 10:00"]),
    (NEW_YORK, "30 2 * * *", "2026-03-07", ["07 07:30", "08 07:00", "09 06:30"]),
    (NEW_YORK, "0 22 * * *", "2026-03-07", ["08 03:00", "09 02:00", "10 02:00"]),
    (NEW_YORK, "0 6 * * *", "2026-10-31", ["31 10:00", "01 11:00", "02 11:00"]),
    (NEW_YORK, "30 1 * * *", "2026-10-31", ["31 05:30", "01 05:30", "02 06:30"]),
    (NEW_YORK, "0 22 * * *", "2026-10-31", ["01 02:00", "02 03:00", "03 03:00"]),
]  # fmt: skip
AT_CHANGES = pytest.mark.parametrize(
    ("zone", "cron", "day", "expected"), CHANGES, ids=[f"{a}-{b}-{c}" for a, b, c, _ in CHANGES]
)


def three_days(schedule: Schedule, day: str) -> tuple[datetime, datetime]:
    begin = datetime.fromisoformat(day).replace(tzinfo=schedule.tzinfo)
    return begin.astimezone(UTC) - timedelta(seconds=1), (begin + timedelta(days=3)).astimezone(UTC) - timedelta(
        seconds=1
    )


@AT_CHANGES
def test_the_starts_around_a_change_of_the_clock(zone: str, cron: str, day: str, expected: list[str]) -> None:
    schedule = Schedule(cron, zone)
    starts = [*schedule.starts(*three_days(schedule, day))]
    assert [f"{start:%d %H:%M}" for start in starts] == expected
    assert all(schedule.is_start(start) and schedule.last_start(start) == start for start in starts)
    assert [schedule.next_start(start) for start in starts[:-1]] == starts[1:]


@AT_CHANGES
def test_cron_lines_in_utc_with_their_check_have_the_same_starts(
    zone: str, cron: str, day: str, expected: list[str]
) -> None:
    schedule = Schedule(cron, zone)
    begin, end = three_days(schedule, day)
    lines, exact = schedule.utc_lines(begin)
    assert not exact
    delay = timedelta(minutes=40)  # schedulers call late
    calls = [
        start for line in lines for start in Schedule(line).starts(begin, end) if is_due(schedule, line, start + delay)
    ]
    assert [f"{start:%d %H:%M}" for start in sorted(calls)] == expected


@pytest.mark.parametrize(
    ("cron", "zone", "lines", "exact"),
    [
        ("0 6 * * 1-5", "UTC", ["0 6 * * 1-5"], True),
        ("0 6 * * 1-5", BERLIN, ["0 5 * * 1-5", "0 4 * * 1-5"], False),
        ("0 1 * * 1-5", BERLIN, ["0 0 * * 1-5", "0 23 * * 0-4"], False),
        ("0 1 1 * *", BERLIN, ["0 0 1 * *", "0 23 * * *"], False),
        ("*/5 * * * *", BERLIN, ["*/5 * * * *"], True),
        ("0 6 * * *", "Asia/Kolkata", ["30 0 * * *"], True),
        ("0,30 6 * * 7", "Asia/Kolkata", ["0 1 * * 7", "30 0 * * 7"], True),
        ("0 6 L * *", "UTC", ["0 6 * * *"], False),
        ("0 6 * * mon#1", "UTC", ["0 6 * * *"], False),
        ("30 2 * jul *", BERLIN, ["30 1 * JUL *", "30 0 * JUL *"], False),
    ],
)
def test_cron_lines_in_utc(cron: str, zone: str, lines: list[str], exact: bool) -> None:
    assert Schedule(cron, zone).utc_lines(NOW) == (lines, exact)


@pytest.mark.parametrize(
    ("cron", "zone", "events"),
    [
        ("0 6 * * 1-5", BERLIN, ["Mon,Tue,Wed,Thu,Fri *-*-* 06:00:00 Europe/Berlin"]),
        ("0 6 * * *", "UTC", ["*-*-* 06:00:00 UTC"]),
        ("0 * * * *", BERLIN, ["*-*-* *:00:00 UTC"]),
        ("0 0 13 * 5", "UTC", ["*-*-13 00:00:00 UTC", "Fri *-*-* 00:00:00 UTC"]),
        ("0 0 */2 1,7 5", "UTC", [f"Fri *-01,07-{','.join(f'{day:02}' for day in range(1, 32, 2))} 00:00:00 UTC"]),
        ("0 0 1,L * *", "UTC", ["*-*-01 00:00:00 UTC", "*-*~01 00:00:00 UTC"]),
        ("0 0 LW * *", "UTC", [f"{day} 00:00:00 UTC" for day in ("Mon..Fri *-*~01", "Fri *-*~02", "Fri *-*~03")]),
        ("0 0 * * 1#2,5L", "UTC", ["Mon *-*-08..14 00:00:00 UTC", "Fri *-*~07/1 00:00:00 UTC"]),
        ("0 0 * * 0,1#5", "UTC", ["Sun *-*-* 00:00:00 UTC", "Mon *-*-29..31 00:00:00 UTC"]),
    ],
)
def test_calendar_events_of_systemd(cron: str, zone: str, events: list[str]) -> None:
    assert Schedule(cron, zone).calendar(NOW) == events


def test_systemd_gets_the_starts_that_the_clock_skips() -> None:
    first, *moved = Schedule("30 2 * * *", BERLIN).calendar(NOW)
    assert (first, len(moved)) == ("*-*-* 02:30:00 Europe/Berlin", 10)
    assert moved[0] == "2027-03-28 01:00:00 UTC"


def test_starts_at_hours_that_are_missing_or_exist_twice_are_found() -> None:
    odd = Schedule("30 2 * * *", BERLIN).odd_starts(NOW)
    assert [(f"{one.start:%Y-%m-%d %H:%M}", one.missing) for one in odd[:2]] == [
        ("2027-03-28 01:00", True),
        ("2027-10-31 00:30", False),
    ]
    assert Schedule("0 6 * * *", BERLIN).odd_starts(NOW) == []


def test_a_start_in_the_second_of_two_equal_hours_is_followed_by_that_of_the_next_day() -> None:
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    assert Schedule("45 2 * * *", BERLIN).next_start(second) == datetime(2026, 10, 26, 1, 45, tzinfo=UTC)


def test_the_last_start_may_be_years_ago() -> None:
    assert Schedule("0 0 29 2 *").last_start(NOW) == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 6 * *", "it has 4 fields, not 5"),
        ("61 6 * * *", "bad minute"),
        ("0 0 30 2 *", "bad day of month"),
        ("0 0 * * 8", "bad day of week"),
        ("@never", "it has 1 fields"),
        ("0 0 */31 * 1#2", "no day ever matches"),
    ],
)
def test_a_wrong_expression_is_explained(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_cron(text)


def test_names_of_schedules_are_read() -> None:
    assert (read_cron("@daily"), read_cron(" 0  6 * * mon-fri ")) == ("0 0 * * *", "0 6 * * MON-FRI")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Europe/Berln", "write Europe/Berlin"),
        ("", "write Europe/Berlin or UTC"),
        ("../etc", "no time zone"),
        ("Europe", "no time zone"),
    ],
)
def test_a_wrong_zone_is_explained(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_zone(text)
    assert read_zone("UTC") == "UTC"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (range(24), "*"), (range(0, 24, 6), "*/6"), ([1, 2, 3, 7], "1-3,7"), ([4, 5], "4,5"), ([3], "3"),
        ([1, 3, 5], "1,3,5"), ([0, 5], "0,5"),
    ],
)  # fmt: skip
def test_numbers_are_spelled_as_a_field(values: list[int], text: str) -> None:
    assert spell_field(values, range(24)) == text


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


GRACE = timedelta(minutes=30)


@pytest.mark.parametrize(
    ("runs", "now", "found"),
    [
        ([], at(30, 6, 31), [Overdue(at(30, 6), None)]),
        ([], at(30, 6, 29), [Overdue(at(29, 6), None)]),
        ([StartedRun(None, at(30, 6, 2))], at(30, 6, 31), []),
        ([StartedRun(None, at(30, 6, 40))], at(30, 7), [Overdue(at(30, 6), at(30, 6, 40))]),
        ([StartedRun(None, at(29, 6))], at(30, 7), [Overdue(at(30, 6), None)]),
        ([StartedRun(at(30, 6), at(30, 9))], at(30, 10), [Overdue(at(30, 6), at(30, 9))]),
        ([StartedRun(at(28, 6), at(30, 6))], at(30, 7), [Overdue(at(30, 6), None)]),  # a run of another day, made up
        ([StartedRun(None, at(30, 6, 50)), StartedRun(None, at(30, 6, 1))], at(30, 7), []),
    ],
)
def test_the_newest_start_is_late_or_missing(runs: list[StartedRun], now: datetime, found: list[Overdue]) -> None:
    assert overdue(Schedule("0 6 * * *"), GRACE, runs, now) == found


def test_all_starts_of_some_time_are_compared() -> None:
    runs = [StartedRun(None, at(27, 6)), StartedRun(None, at(29, 7))]
    found = overdue(Schedule("0 6 * * *"), GRACE, runs, at(30, 12), since=at(26, 12))
    assert found == [Overdue(at(28, 6), None), Overdue(at(29, 6), at(29, 7)), Overdue(at(30, 6), None)]


def test_dates_of_a_range() -> None:
    assert dates("2026-11-29", "2026-12-01") == ["2026-11-29", "2026-11-30", "2026-12-01"]
    assert dates("2026-11-27", "2026-11-30", "0 6,18 * * 1-5") == ["2026-11-27", "2026-11-30"]
    with pytest.raises(ValueError, match="ends before it begins"):
        dates("2026-11-02", "2026-11-01")
    with pytest.raises(ValueError, match="is no date"):
        dates("2026-11", "2026-12-01")
    with pytest.raises(ValueError, match="day"):
        dates("2026-11-31", "2026-12-01")


@pytest.mark.parametrize(
    ("text", "timezone", "shown"),
    [
        ("2026-10-24T22:30:00.000+00:00", "Europe/Berlin", "2026-10-25 00:30 CEST"),
        ("2026-10-25T05:00:00+00:00", "Europe/Berlin", "2026-10-25 06:00 CET"),
        ("2026-10-25T05:00:00", "", "2026-10-25 05:00 UTC"),
        ("2026-10-25T05:00:00+00:00", "Mars/Olympus", "2026-10-25 05:00 UTC"),
    ],
)
def test_times_are_shown_in_a_time_zone(text: str, timezone: str, shown: str) -> None:
    assert spell_moment(text, timezone) == shown
