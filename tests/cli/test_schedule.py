"""``nbrun schedule``, and the settings that it reads."""

from pathlib import Path

import pytest

from nbrun.cli.schedule import zone_of_machine
from nbrun.errors import ExitCode
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


def test_a_schedule_on_the_command_line_starts_nothing(project: Path) -> None:
    found = run_nbrun("run", "sales.ipynb", "--schedule", "0 6 * * *", cwd=project)
    assert (found.returncode, "is a setting of a batch" in found.stderr) == (ExitCode.USAGE, True)
    assert "--schedule" not in run_nbrun("run", "--help").stdout


def test_a_call_at_another_time_runs_nothing(project: Path) -> None:
    found = run_nbrun("batch", "sales", "--if-due", "0 3 * * *", cwd=project)  # 04:00 or 05:00 in Berlin
    assert (found.returncode, "nbrun: not due" in found.stderr, "passed" in found.stderr) == (0, True, False)
    found = run_nbrun("batch", "other", "--if-due", "0 3 * * *", cwd=project)
    assert (found.returncode, "--if-due needs a schedule" in found.stderr) == (ExitCode.USAGE, True)


def test_the_zone_of_cron_is_that_of_the_machine(tmp_path: Path) -> None:
    assert zone_of_machine({"TZ": ":Asia/Tokyo"}, tmp_path) == "Asia/Tokyo"
    assert zone_of_machine({}, tmp_path) == "UTC"
    (tmp_path / "timezone").write_text("Europe/Paris\n")
    assert zone_of_machine({}, tmp_path) == "Europe/Paris"
    (tmp_path / "zoneinfo" / "Etc").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "Etc" / "UTC").touch()
    (tmp_path / "localtime").symlink_to(tmp_path / "zoneinfo" / "Etc" / "UTC")
    assert zone_of_machine({}, tmp_path) == "UTC"
