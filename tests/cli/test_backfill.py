"""Runs for earlier dates: only those that a history lacks, in the place of their dates."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nbrun.cli.backfill import MissingOnly
from nbrun.cli.clock import time_of_date
from nbrun.errors import ExitCode
from nbrun.runner.job import PlannedRun, job_of, paths_of, read_run_options
from tests.support.notebooks import code, notebook, run_nbrun, write_notebook

NONE: dict[str, Any] = dict.fromkeys(("scheduled", "schedule", "timezone", "grace", "if_due"))
SOURCE = "assert day not in ('2026-11-02', 'x'), day"
DAYS = ["--matrix", "day=2026-11-01..2026-11-03"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "sales.ipynb", notebook(code("day = ''", tags=["parameters"]), SOURCE))
    (tmp_path / "nbrun.toml").write_text('[batch.sales]\nnotebooks = ["sales.ipynb"]\nno-save = true\njobs = 2\n')
    return tmp_path


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        (["1", "2"], "nothing is missing: all 2 runs passed before"),
        (["1"], "nothing is missing: the only run passed before"),
        (["1", "3"], "1 of 2 runs is missing"),
        (["3", "4"], "2 of 2 runs are missing"),
    ],
)
def test_missing_runs_are_counted(days: list[str], sentence: str, tmp_path: Path) -> None:
    options = read_run_options({})
    missing = MissingOnly(lambda path, parameters: path == "x.ipynb" and parameters["day"] in ("1", "2"))
    planned = [PlannedRun(day, job_of("x.ipynb", options), paths_of("x.ipynb", options), {"day": day}) for day in days]
    assert [one.name for one in planned if missing(one)] == [day for day in days if day in ("3", "4")]
    assert str(missing) == sentence


@pytest.mark.parametrize(
    ("given", "time"),
    [
        ({**NONE, "timezone": "Europe/Berlin"}, "2026-10-24T22:00+00:00"),
        ({**NONE, "schedule": "30 6 * * *"}, "2026-10-25T06:30+00:00"),
        ({**NONE, "schedule": "0 6,18 * * *", "timezone": "Europe/Berlin"}, "2026-10-25T05:00+00:00"),
        ({**NONE, "schedule": "0 6 * * 1-5", "timezone": "Europe/Berlin"}, "2026-10-24T22:00+00:00"),
    ],
    ids=["midnight", "UTC", "after the change of the clock", "no start on a Sunday"],
)
def test_the_time_of_a_date_is_its_first_start(given: dict[str, Any], time: str) -> None:
    found = time_of_date("2026-10-25", given)
    assert (found, found.tzinfo) == (datetime.fromisoformat(time), UTC)


def test_only_what_the_published_history_lacks_is_run(project: Path) -> None:
    call = ["batch", "sales", "--publish", "site", "--json", "-"]
    tonight = run_nbrun(*call, "-r", "day", "2026-11-04", "--scheduled", "2026-11-04", cwd=project)
    assert tonight.returncode == 0, tonight.stderr
    latest = json.loads((project / "site" / "sales" / "latest.json").read_text())
    first = run_nbrun(*call, *DAYS, cwd=project)
    assert first.returncode == ExitCode.NOTEBOOK_FAILED
    write_notebook(project / "sales.ipynb", notebook(code("day = ''", tags=["parameters"])))
    second = run_nbrun(*call, *DAYS, "--missing-only", cwd=project)
    assert "nbrun: 1 of 3 runs is missing" in second.stderr
    result = json.loads(second.stdout)
    assert ([run["parameters"] for run in result["runs"]], result["left_out"]) == ([{"day": "2026-11-02"}], 2)
    third = run_nbrun(*call, "--matrix", "day=2026-11-01..2026-11-04", "--missing-only", cwd=project)
    assert (third.returncode, json.loads(third.stdout)["runs"]) == (0, [])
    assert third.stderr == "nbrun: nothing is missing: all 4 runs passed before\n"
    records = [json.loads(path.read_text()) for path in project.glob("site/sales/*/run.json")]
    runs = sorted((record["scheduled"][:10], record["outcome"], record["parameters"]["day"]) for record in records)
    days = [f"2026-11-0{day}" for day in (1, 2, 2, 3, 4)]
    assert runs == list(zip(days, ["passed", "failed", *["passed"] * 3], days, strict=True))
    assert "nbrun: published at site/sales/index.html" in second.stderr
    assert json.loads((project / "site" / "sales" / "latest.json").read_text()) == latest


def test_without_publishing_the_history_of_this_machine_counts(project: Path, tmp_path: Path) -> None:
    with (project / "nbrun.toml").open("a") as settings:
        settings.write('schedule = "0 6 * * *"\n')
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    call = ["batch", "sales", *DAYS, "--missing-only"]
    assert run_nbrun(*call, cwd=project, env=env).returncode == ExitCode.NOTEBOOK_FAILED
    found = run_nbrun(*call, cwd=project, env=env)
    assert (found.returncode, "1 of 3 runs is missing" in found.stderr) == (ExitCode.NOTEBOOK_FAILED, True)
    (history,) = (tmp_path / "state" / "nbrun" / "history").iterdir()
    runs = [json.loads(line) for line in history.read_text().splitlines()]
    assert [(run["scheduled"][:16], run["outcome"], len(run["passed"])) for run in runs] == [
        ("2026-11-01T06:00", "passed", 1),
        ("2026-11-02T06:00", "failed", 0),
        ("2026-11-03T06:00", "passed", 1),
        ("2026-11-02T06:00", "failed", 0),
    ]


def test_two_notebooks_of_one_name_are_told_apart_from_each_folder(project: Path) -> None:
    passing = notebook(code("day = ''", tags=["parameters"]))
    for folder, source in ((".", passing), ("b", notebook(code("day = ''", tags=["parameters"]), "1 / 0"))):
        write_notebook(project / folder / "sales.ipynb", source)
    settings = '[batch.sales]\nnotebooks = ["sales.ipynb", "b/sales.ipynb"]\nno-save = true\npublish = "site"\n'
    (project / "nbrun.toml").write_text(settings)
    call = ["batch", "sales", "--matrix", "day=2026-11-01..2026-11-01"]
    assert run_nbrun(*call, cwd=project).returncode == ExitCode.NOTEBOOK_FAILED
    write_notebook(project / "b" / "sales.ipynb", passing)
    for folder, said in (("b", "1 of 2 runs is missing"), (".", "nothing is missing: all 2 runs passed before")):
        found = run_nbrun(*call, "--missing-only", cwd=project / folder)
        assert (found.returncode, f"nbrun: {said}" in found.stderr) == (0, True), found.stderr


def test_a_batch_over_dates_that_cannot_begin_is_no_run_of_a_date(project: Path, tmp_path: Path) -> None:
    with (project / "nbrun.toml").open("a") as settings:
        settings.write('publish = "site"\nschedule = "0 6 * * *"\n')
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    found = run_nbrun("batch", "sales", *DAYS, "-f", "no-such.yaml", cwd=project, env=env)
    assert found.returncode == ExitCode.USAGE
    assert "nbrun: nothing is published, because no run of a date began\nnbrun: " in found.stderr
    assert not [*project.glob("site/sales/*/run.json"), *tmp_path.glob("state/nbrun/history/*")]
    found = run_nbrun("batch", "sales", *DAYS, "-r", "no_such", "1", cwd=project, env=env)
    assert (found.returncode, "warning" in found.stderr) == (ExitCode.USAGE, False), found.stderr
    records = [json.loads(path.read_text()) for path in project.glob("site/sales/*/run.json")]
    assert sorted(record["scheduled"][:10] for record in records) == [f"2026-11-0{day}" for day in (1, 2, 3)]
    (history,) = tmp_path.glob("state/nbrun/history/*")
    runs = [json.loads(line) for line in history.read_text().splitlines()]
    assert [(run["scheduled"][:10], run["exit_code"]) for run in runs] == [
        (f"2026-11-0{day}", ExitCode.USAGE) for day in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--publish", "site"], "--missing-only needs --matrix"),
        ([*DAYS, "--publish", "site", "--shard", "1/2"], "the parts of --shard"),
        (DAYS, "--missing-only needs a history\n  Add --publish BASE"),
    ],
)
def test_without_a_history_or_a_matrix_nothing_can_be_missing(options: list[str], said: str, project: Path) -> None:
    found = run_nbrun("batch", "sales", "--missing-only", *options, cwd=project)
    assert (found.returncode, said in found.stderr) == (ExitCode.USAGE, True), found.stderr
