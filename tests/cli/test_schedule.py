"""``nbrun schedule``, and the settings that it reads."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nbrun.cli.schedule import zone_of_machine
from nbrun.core.batch.schedule import Schedule
from nbrun.errors import ExitCode
from nbrun.publishing.around_run import Report
from nbrun.publishing.history import RunRecord
from nbrun.publishing.local_history import LocalHistory, PastRun
from nbrun.publishing.locks import FileLock
from tests.publishing.notifications.servers import hook_server
from tests.support.notebooks import notebook, run_nbrun, write_notebook

SETTINGS = """
timezone = "Europe/Berlin"

[batch.sales]
notebooks = ["sales.ipynb"]
no-save = true
schedule = "0 6 * * 1-5"
grace = "30m"

[batch.other]
notebooks = ["sales.ipynb"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    folder = tmp_path / "reports"
    write_notebook(folder / "sales.ipynb", notebook("1"))
    (folder / "nbrun.toml").write_text(SETTINGS)
    return folder


def test_files_are_written_or_printed(project: Path) -> None:
    found = run_nbrun("schedule", "export", "github", cwd=project)
    assert found.returncode == 0, found.stderr
    assert 'working-directory: "reports"' in found.stdout
    assert "0 4 * * 1-5" in found.stdout
    assert "pip install 'jupyter-nbrun[local,html]'" in found.stdout
    settings = (project / "nbrun.toml").read_text()
    (project / "nbrun.toml").write_text(settings.replace("no-save = true", 'publish = "s3://reports"'))
    found = run_nbrun("schedule", "export", "github", cwd=project)
    assert "pip install 'jupyter-nbrun[local,html,cloud]'" in found.stdout
    found = run_nbrun("schedule", "export", "systemd", "sales", "-o", "units", cwd=project)
    assert found.returncode == 0, found.stderr
    assert sorted(path.name for path in (project / "units").iterdir()) == ["nbrun-sales.service", "nbrun-sales.timer"]
    assert f"WorkingDirectory={project}\n" in (project / "units" / "nbrun-sales.service").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "systemd", "nothing"], "there is no batch 'nothing'"),
        (["export", "systemd", "other"], "the batch 'other' has no schedule"),
        (["export", "kubernetes", "sales"], "kubernetes needs --image"),
        (["export", "windows"], "'windows' is not one of"),
    ],
)
def test_a_wrong_call_is_explained(arguments: list[str], said: str, project: Path) -> None:
    found = run_nbrun("schedule", *arguments, cwd=project)
    assert (found.returncode, said in found.stderr) == (ExitCode.USAGE, True), found.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('schedule = "0 25 * * *"', "line 4: batch.sales.schedule: '0 25 * * *' is no cron expression: bad hour"),
        ('timezone = "Europe/Berln"', "line 4: batch.sales.timezone: 'Europe/Berln' is no time zone"),
        ('grace = "soon"', "line 4: batch.sales.grace: 'soon' is no duration"),
    ],
)
def test_a_wrong_setting_is_reported_with_its_place(setting: str, said: str, project: Path) -> None:
    (project / "nbrun.toml").write_text(f'[batch.sales]\nnotebooks = ["sales.ipynb"]\nno-save = true\n{setting}\n')
    for call in (["batch", "sales"], ["schedule", "export", "systemd"]):
        found = run_nbrun(*call, cwd=project)
        assert (found.returncode, said in found.stderr) == (ExitCode.USAGE, True), found.stderr


def test_the_secrets_of_notifications_are_named_in_the_units(project: Path) -> None:
    with (project / "nbrun.toml").open("a") as settings:
        settings.write('schedule = "@daily"\nnotify = ["env:REPORT_MAIL"]\nping = "env:REPORT_PING"\n')
    found = run_nbrun("schedule", "export", "systemd", "other", cwd=project)
    assert "# Set REPORT_MAIL in this file.\n# Set REPORT_PING in this file.\n" in found.stdout, found.stderr


def test_a_schedule_on_the_command_line_starts_nothing(project: Path) -> None:
    found = run_nbrun("run", "sales.ipynb", "--schedule", "0 6 * * *", cwd=project)
    assert (found.returncode, "is a setting of a batch" in found.stderr) == (ExitCode.USAGE, True)
    assert "--schedule " not in run_nbrun("run", "--help").stdout


def test_a_call_at_another_time_runs_nothing(project: Path) -> None:
    found = run_nbrun("batch", "sales", "--if-due", "0 3 * * *", cwd=project)  # 04:00 or 05:00 in Berlin
    assert (found.returncode, "nbrun: not due" in found.stderr, "passed" in found.stderr) == (0, True, False)
    found = run_nbrun("batch", "other", "--if-due", "0 3 * * *", cwd=project)
    assert (found.returncode, "--if-due needs a schedule" in found.stderr) == (ExitCode.USAGE, True)


def test_a_check_finds_missing_and_late_runs(project: Path, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    settings = SETTINGS.replace("0 6 * * 1-5", "0 0 * * *").replace('"30m"', '"12h"')
    (project / "nbrun.toml").write_text(settings)
    found = run_nbrun("schedule", "check", cwd=project, env=env)
    assert (found.returncode, "00:00 Europe/Berlin is missing" in found.stderr) == (ExitCode.OVERDUE, True)
    schedule = Schedule("0 0 * * *", "Europe/Berlin")
    start = schedule.last_start(datetime.now(UTC) - timedelta(hours=12))
    history = LocalHistory(Report("sales", str(project)).key, tmp_path / "state" / "nbrun")
    history.add(PastRun((start + timedelta(hours=13)).isoformat(), 1, "passed", 0, start.isoformat()))
    found = run_nbrun("schedule", "check", "sales", cwd=project, env=env)
    assert (found.returncode, "began 13 h 0 min late" in found.stderr) == (ExitCode.OVERDUE, True)
    history.add(PastRun(start.isoformat(), 1, "failed", 1, start.isoformat()))
    found = run_nbrun("schedule", "check", cwd=project, env=env)
    assert (found.returncode, found.stderr) == (ExitCode.OK, "")
    found = run_nbrun("schedule", "check", "--since", "3d", cwd=project, env=env)
    missing, earlier = 0, start
    while (earlier := schedule.last_start(earlier - timedelta(seconds=1))) > datetime.now(UTC) - timedelta(days=3):
        missing += 1
    assert missing in (1, 2)  # today's start is not late before noon
    assert (found.returncode, found.stderr.count("missing")) == (ExitCode.OVERDUE, missing)


def test_published_runs_are_compared_with_the_schedule(project: Path, tmp_path: Path) -> None:
    with (project / "nbrun.toml").open("a") as settings:
        settings.write('schedule = "@daily"\ngrace = "12h"\npublish = "site"\n')
    config, env = str(project / "nbrun.toml"), {"XDG_STATE_HOME": str(tmp_path / "state")}
    call = ["schedule", "check", "other", "--config", config]
    assert run_nbrun(*call, cwd=tmp_path, env=env).returncode == ExitCode.OVERDUE
    start = Schedule("@daily", "Europe/Berlin").last_start(datetime.now(UTC) - timedelta(hours=12)).isoformat()
    record = RunRecord("other", "20261130T060000Z-1a2b3c", start, start, 1, "passed", 0, scheduled=start)
    file = project / "site" / "other" / record.run_id / "run.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(record.encoded())
    found = run_nbrun(*call, cwd=tmp_path, env=env)
    assert found.returncode == ExitCode.OK, found.stderr


def test_a_missing_run_is_notified(project: Path, tmp_path: Path) -> None:
    with (project / "nbrun.toml").open("a") as settings:
        settings.write('schedule = "@daily"\nnotify = ["file:url", "env:MISSING"]\n')
    with hook_server() as hook:
        (project / "url").write_text(hook.url)
        config = str(project / "nbrun.toml")
        env = {"XDG_STATE_HOME": str(tmp_path / "state")}
        found = run_nbrun("schedule", "check", "other", "--config", config, cwd=tmp_path, env=env)
    assert found.returncode == ExitCode.OVERDUE, found.stderr
    ((_, body),) = hook.requests
    assert "00:00 Europe/Berlin is missing" in json.loads(body)["text"]
    assert "nbrun: warning: --notify env:MISSING: the variable is not set" in found.stderr
    assert "planted" not in found.stderr


def test_a_run_of_a_batch_with_a_schedule_is_recorded_however_it_ends(project: Path, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    history = LocalHistory(Report("sales", str(project)).key, tmp_path / "state" / "nbrun")
    assert run_nbrun("batch", "sales", "-k", "none", cwd=project, env=env).returncode == ExitCode.USAGE
    assert run_nbrun("batch", "sales", "--server", "http://127.0.0.1:9", cwd=project, env=env).returncode == 4
    assert [(run.outcome, run.exit_code) for run in history.runs()] == [("server-failed", 4), ("not-run", 2)]


def test_an_overlapping_run_is_skipped_or_refused(project: Path, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    key = Report("sales", str(project)).key
    lock = FileLock(tmp_path / "state" / "nbrun" / "locks" / f"{key}.lock")
    assert lock.acquire()
    found = run_nbrun("batch", "sales", "--lock", "skip", "--json", "-", cwd=project, env=env)
    result = json.loads(found.stdout)
    assert (found.returncode, result["exit_code"], result["outcome"]) == (0, 0, "skipped")
    assert "skipped: sales is being run by process" in found.stderr
    assert LocalHistory(key, tmp_path / "state" / "nbrun").runs()[0].outcome == "skipped"
    found = run_nbrun("batch", "sales", "--lock", "fail", cwd=project, env=env)
    assert (found.returncode, "sales is being run by process" in found.stderr) == (ExitCode.USAGE, True)
    lock.release()
    found = run_nbrun("batch", "sales", "--lock", "fail", cwd=project, env=env)
    assert found.returncode == 0, found.stderr


def test_the_zone_of_cron_is_that_of_the_machine(tmp_path: Path) -> None:
    assert zone_of_machine({"TZ": ":Asia/Tokyo"}, tmp_path) == "Asia/Tokyo"
    assert zone_of_machine({}, tmp_path) == "UTC"
    (tmp_path / "timezone").write_text("Europe/Paris\n")
    assert zone_of_machine({}, tmp_path) == "Europe/Paris"
    (tmp_path / "zoneinfo" / "Etc").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "Etc" / "UTC").touch()
    (tmp_path / "localtime").symlink_to(tmp_path / "zoneinfo" / "Etc" / "UTC")
    assert zone_of_machine({}, tmp_path) == "UTC"
