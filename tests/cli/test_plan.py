"""``nbrun plan``: its output, and that it changes nothing."""

import json
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import code, notebook, run_nbrun, write_notebook
from tests.support.servers import jupyter_server

CELLS = (
    code('region = "EU"  # which region\nlimit: int | None = None', tags=["parameters"]),
    code("print(region)", tags=["raises-exception"]),
    code("1", tags=["skip-execution"]),
    "",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "nb.ipynb", notebook(*CELLS, nbrun={"timeout": "1h"}))


def test_a_plan_shows_parameters_kernel_cells_and_limits(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    found = run_nbrun(
        "plan", path.name, "-p", "region", "US", "--secret", "KEY", "--cell-timeout", "5m", "--idle-timeout", "30s",
        cwd=tmp_path, env={"KEY": "hunter2222"},
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (ExitCode.OK, "")
    assert found.stdout.splitlines() == [
        "notebook    nb.ipynb",
        "kernel      python3 (python)",
        "time limit  1 h 0 min",
        "",
        "parameters",
        '  region: str = "EU"  ->  "US"            # which region',
        "  limit: int | None = None",
        "  KEY = ***  (secret)",
        "",
        "cells: 5 with code, of which 3 would run",
        '    1  run    region = "EU"  # which region  (limit 5 min, silent for 30 s at most)',
        '    2  run    region = "US"  (sets the parameters, limit 5 min, silent for 30 s at most)',
        "    3  run    print(region)  (limit 5 min, silent for 30 s at most, is expected to raise)",
        "       skip   1  (limit 5 min, silent for 30 s at most)",
        "       empty    (limit 5 min, silent for 30 s at most)",
    ]
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["nb.ipynb"]


def test_help_notebook_is_papermills_name_for_it(path: Path) -> None:
    planned = run_nbrun("plan", path, "-p", "limit", "3")
    helped = run_nbrun("run", path, "-p", "limit", "3", "--help-notebook")
    assert (helped.returncode, helped.stdout) == (ExitCode.OK, planned.stdout)
    assert "limit: int | None = None  ->  3" in helped.stdout


def test_a_plan_as_json_is_data_on_standard_output(path: Path) -> None:
    found = run_nbrun("plan", path, "--json", "--kernel", "no-such-kernel")
    told = json.loads(found.stdout)
    assert [(each["name"], each["given"]) for each in told["parameters"]] == [("region", False), ("limit", False)]
    assert (told["kernel"], told["language"], told["run_timeout"]) == ("no-such-kernel", "python", 3600.0)
    assert "this machine has no kernel 'no-such-kernel'" in told["warnings"][0]


def test_a_plan_refuses_what_a_run_would_refuse(path: Path, tmp_path: Path) -> None:
    found = run_nbrun("plan", path, "-p", "regoin", "US")
    assert (found.returncode, found.stdout) == (ExitCode.USAGE, "")
    assert "there is no parameter 'regoin' (did you mean 'region'?)" in found.stderr
    assert run_nbrun("plan", path, "-p", "regoin", "US", "--allow-new").returncode == ExitCode.OK
    for name, said in {"missing.ipynb": "there is no such file", ".": "this is a folder"}.items():
        found = run_nbrun("plan", name, cwd=tmp_path)
        assert (found.returncode, said in found.stderr) == (ExitCode.USAGE, True), found.stderr
    (tmp_path / "cut.ipynb").write_text('{"cells": [')
    found = run_nbrun("plan", "cut.ipynb", cwd=tmp_path)
    assert (found.returncode, "cut.ipynb" in found.stderr) == (ExitCode.USAGE, True)


def test_a_plan_on_a_server_starts_no_kernel(tmp_path: Path) -> None:
    write_notebook(tmp_path / "nb.ipynb", notebook(*CELLS))
    with jupyter_server(tmp_path) as server:
        env = {"NBRUN_TOKEN": server.token}
        found = run_nbrun("plan", "nb.ipynb", "--server", server.url, "--json", env=env)
        missing = run_nbrun("plan", "no.ipynb", "--server", server.url, env=env)
        assert (server.sessions(), server.get("api/kernels")) == ([], [])
    assert json.loads(found.stdout)["kernel"] == "python3"
    assert (missing.returncode, "no such notebook on the server" in missing.stderr) == (ExitCode.USAGE, True)


def test_a_plan_shows_the_report_without_secrets(path: Path, tmp_path: Path) -> None:
    (tmp_path / "nbrun.toml").write_text(
        '[batch.sales]\nnotebooks = ["nb.ipynb"]\nartefacts = ["out/*.csv"]\npublish = "s3://reports/"\nkeep = "30d"\n'
        'lock = "skip"\nnotify = ["env:MAIL"]\nping = "file:ping.url"\nschedule = "0 6 * * *"\n'
    )
    (tmp_path / "ping.url").write_text("https://example.org/hunter2222\n")
    env = {
        "MAIL": "mailtos://ann:hunter2222@example.org/?to=bob@example.org",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    found = run_nbrun("batch", "sales", "--help-notebook", cwd=tmp_path, env=env)
    assert (found.returncode, found.stderr) == (ExitCode.OK, "")
    lines = found.stdout.partition("\n\n")[0].splitlines()[3:]
    lock = lines[4].removeprefix("lock        skip (").partition(",")[0]
    assert lines == [
        "artefacts   out/*.csv",
        "report      sales",
        "publish     s3://reports/sales/ (keep 30d)",
        "history     s3://reports/sales/",
        f"lock        skip ({lock}, s3://reports/sales/.lock)",
        "notify      env:MAIL on failure, recovery",
        "ping        file:ping.url",
    ]
    assert lock.startswith(str(tmp_path / "state" / "nbrun" / "locks" / "sales-"))
    assert not (tmp_path / "state").exists()
    options = ("--publish", "site", "--artefacts", "*.png", "--notify", "env:MAIL", "--notify-on", "success", "--json")
    told = json.loads(run_nbrun("plan", "nb.ipynb", *options, cwd=tmp_path, env=env).stdout)
    assert (told["artefacts"], told["report"]["publish"], told["report"]["lock"]) == (["*.png"], "site/nb/", None)
    assert (told["report"]["notify"], told["report"]["notify_on"]) == (["env:MAIL"], ["success"])
    found = run_nbrun("plan", "nb.ipynb", "--notify", "env:NOTHING", cwd=tmp_path)
    assert (found.returncode, "env:NOTHING: the variable is not set" in found.stderr) == (ExitCode.USAGE, True)
