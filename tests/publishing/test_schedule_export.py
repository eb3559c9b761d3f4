"""The files for schedulers are accepted by the schedulers' own tools, and start the batch when its schedule says so."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from nbrun.core.batch.schedule import Schedule
from nbrun.errors import UsageError
from nbrun.publishing.schedule_export import ScheduledBatch, cron, github, kubernetes, systemd, warnings_of
from tests.core.batch.test_schedule import AT_CHANGES, three_days

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BERLIN = "Europe/Berlin"
SYSTEMD = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def batch(expression: str = "0 6 * * 1-5", zone: str = BERLIN, name: str = "sales", **more: object) -> ScheduledBatch:
    given = {"folder": "/srv/rep orts", "command": [sys.executable, "-m", "nbrun"], **more}
    return ScheduledBatch(name, Schedule(expression, zone), timedelta(minutes=30), **given)  # type: ignore[arg-type]


ODD = batch("30 2 L * 1#2", name='50 % of $HOME "x"', secrets=["REPORT_MAIL"], subfolder="reports")
PORTABLE = [batch(), batch("30 2 1,15 jan-jun 1-5", name=ODD.name, secrets=["REPORT_MAIL"], subfolder="reports")]


@SYSTEMD
@pytest.mark.parametrize("one", [batch(), ODD], ids=["plain", "odd"])
def test_systemd_accepts_the_units(one: ScheduledBatch, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name, text in systemd(batch(name=one.name, folder=str(folder), secrets=one.secrets), NOW).items():
        (tmp_path / name).write_text(text)
    units = sorted(map(str, tmp_path.glob("nbrun-*")))
    assert len(units) == 2
    found = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    said = [line for line in found.stderr.splitlines() if "nbrun" in line]
    assert (found.returncode, said) == (0, [])


@SYSTEMD
@AT_CHANGES
def test_systemd_has_the_same_starts_where_the_clock_changes(
    zone: str, cron: str, day: str, expected: list[str]
) -> None:
    schedule = Schedule(cron, zone)
    begin, end = three_days(schedule, day)
    found = set()
    for event in schedule.calendar(begin):
        told = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=10", f"--base-time={begin:%Y-%m-%d %H:%M:%S} UTC", event],
            capture_output=True,
            text=True,
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
            check=True,
        ).stdout
        times = re.findall(r"(?:elapse|#\d+): \w+ (\S+ \S+) UTC", told)
        found |= {datetime.fromisoformat(time).replace(tzinfo=UTC) for time in times}
    assert [f"{start:%d %H:%M}" for start in sorted(found) if begin < start <= end] == expected


@pytest.mark.parametrize("one", [batch(), ODD, batch("0 * * * *")], ids=["plain", "odd", "hourly"])
def test_actionlint_accepts_the_workflow(one: ScheduledBatch, tmp_path: Path) -> None:
    ((name, text),) = github(one, NOW).items()
    (tmp_path / name).write_text(text)
    linter = shutil.which("actionlint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("actionlint is not installed")
    found = subprocess.run([linter, "-shellcheck=", tmp_path / name], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    (job,) = yaml.safe_load(text)["jobs"].values()
    last = job["steps"][-1]
    assert last.get("working-directory") == ("reports" if one is ODD else None)
    assert ("--if-due" in last["run"]) == ("LINE" in last.get("env", {})) == (one.schedule.expression != "0 * * * *")


@pytest.mark.parametrize("line", ["", "0 4 * * 1-5"])
def test_a_workflow_passes_the_line_that_called_it(line: str, tmp_path: Path) -> None:
    program = tmp_path / "nbrun"
    program.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    (job,) = yaml.safe_load(github(batch(name="a b"), NOW)["nbrun-a-b.yml"])["jobs"].values()
    found = subprocess.run(
        ["bash", "-e", "-c", job["steps"][-1]["run"]],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LINE": line},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines() == ["batch", "a b", *(["--if-due", line] if line else [])]


@pytest.mark.parametrize("one", PORTABLE, ids=["plain", "odd"])
def test_kubernetes_accepts_the_cronjob(one: ScheduledBatch) -> None:
    ((_, text),) = kubernetes(one, "registry.example/reports:1").items()
    document = yaml.safe_load(text)
    pytest.importorskip("kubernetes_validate").validate(document, "1.31", strict=True)
    assert document["spec"]["timeZone"] == BERLIN
    container = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["batch", one.name]
    assert [entry["name"] for entry in container.get("env", [])] == list(one.secrets)


def test_kubernetes_differs_where_the_clock_changes() -> None:
    told = warnings_of(batch("30 2 * * *"), "kubernetes", NOW)
    assert ["skips the run on 2027-03-28" in told[0], "runs twice on 2027-10-31" in told[1], len(told)] == [1, 1, 2]
    assert warnings_of(batch("30 2 * * *"), "systemd", NOW) == warnings_of(batch(), "kubernetes", NOW) == []


CRON_LINE = re.compile(r"(\S+ \S+ \S+ \S+ \S+) (.+)")


@pytest.mark.parametrize("one", PORTABLE, ids=["plain", "odd"])
@pytest.mark.parametrize("how", ["utc", "same zone", "CRON_TZ"])
def test_a_crontab_calls_the_batch(one: ScheduledBatch, how: str) -> None:
    ((_, text),) = cron(one, NOW, zone=BERLIN if how == "same zone" else "UTC", cron_tz=how == "CRON_TZ").items()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert (lines[0] == f"CRON_TZ={BERLIN}") == (how == "CRON_TZ")
    calls = [match for line in lines if (match := CRON_LINE.fullmatch(line))]
    assert len(calls) == len(lines) - (how == "CRON_TZ")
    for call in calls:
        Schedule(call[1])
        assert not re.search(r"(?<!\\)%", call[2])  # cron takes % for a new line
        words = call[2].replace("\\%", "%").replace(sys.executable, "echo")
        shown = subprocess.run(
            ["sh", "-c", words.replace("cd '/srv/rep orts' && ", "")], capture_output=True, text=True
        )
        guard = f" --if-due {call[1]}" if how == "utc" else ""
        assert shown.stdout == f"-m nbrun batch {one.name}{guard}\n"


def test_a_crontab_in_a_third_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="cron on this machine runs in Asia/Tokyo"):
        cron(batch(), NOW, zone="Asia/Tokyo")


def test_what_a_scheduler_cannot_express_is_refused() -> None:
    with pytest.raises(UsageError, match="cron knows no L and #"):
        cron(ODD, NOW, zone=BERLIN)
    with pytest.raises(UsageError, match="Kubernetes knows no L and #"):
        kubernetes(ODD, "image")
    assert "--if-due" in cron(ODD, NOW, zone="UTC")["nbrun-50-of-HOME-x-.cron"]


def test_a_name_with_a_new_line_is_refused() -> None:
    with pytest.raises(UsageError, match="control characters"):
        batch(name="a\n* * * * * rm -r /")


def test_secrets_are_named_and_not_contained() -> None:
    one = batch(secrets=["REPORT_MAIL"])
    assert "EnvironmentFile=%h/.config/nbrun/nbrun-sales.env" in systemd(one, NOW)["nbrun-sales.service"]
    assert "REPORT_MAIL: ${{ secrets.REPORT_MAIL }}" in github(one, NOW)["nbrun-sales.yml"]
    assert json.dumps("REPORT_MAIL") in kubernetes(one, "image")["nbrun-sales.yaml"]
