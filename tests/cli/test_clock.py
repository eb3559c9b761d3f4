"""The time that a run is for, and its time zone."""

from datetime import UTC, datetime
from typing import Any

import pytest

from nbrun.cli.clock import in_zone, time_of_run
from nbrun.errors import UsageError

STARTED = datetime(2026, 11, 30, 23, 20, tzinfo=UTC)
NONE: dict[str, Any] = dict.fromkeys(("scheduled", "schedule", "timezone", "grace", "if_due"))
NIGHTLY = {**NONE, "schedule": "0 0 * * *", "timezone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("given", "environment", "time"),
    [
        (NONE, "", None),
        (NIGHTLY, "", "2026-11-30T23:00+00:00"),
        ({**NIGHTLY, "grace": 600.0}, "", None),
        ({**NIGHTLY, "if_due": "10 23 * * *"}, "", "2026-11-30T23:10+00:00"),
        (NIGHTLY, "2026-11-01T06:00+01:00", "2026-11-01T05:00+00:00"),
        ({**NIGHTLY, "scheduled": datetime(2026, 10, 1, tzinfo=UTC)}, "2026-11-01", "2026-10-01T00:00+00:00"),
    ],
    ids=["start", "schedule", "too late", "cron line", "environment", "option"],
)
def test_the_time_of_a_run(
    given: dict[str, Any], environment: str, time: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBRUN_SCHEDULED", environment)
    assert time_of_run(given, STARTED) == (time and datetime.fromisoformat(time))


def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBRUN_SCHEDULED", "soon")
    with pytest.raises(UsageError, match="NBRUN_SCHEDULED takes a time"):
        time_of_run(NONE, STARTED)


def test_the_date_of_a_run_is_that_of_its_time_zone() -> None:
    assert f"{in_zone(STARTED, NIGHTLY):%Y-%m-%d}" == "2026-12-01"
    assert in_zone(STARTED, {**NONE, "schedule": "0 0 * * *"}).tzinfo is UTC
    assert in_zone(STARTED, NONE).utcoffset() == STARTED.astimezone().utcoffset()
