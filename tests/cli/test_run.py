"""``nbrun run``: arguments and written files."""

import json
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import code, notebook, read_notebook, run_nbrun, write_notebook


@pytest.fixture
def three_cells(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "three.ipynb", notebook("print('one')", "raise ValueError('two')", "3"))


def test_a_notebook_is_written_back_in_place_and_its_result_as_json(three_cells: Path, tmp_path: Path) -> None:
    found = run_nbrun("run", three_cells, "--json", tmp_path / "deep" / "result.json")
    assert found.returncode == ExitCode.NOTEBOOK_FAILED, found.stderr
    result: dict[str, Any] = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert [cell["outcome"] for cell in result["cells"]] == ["passed", "failed", "not-run"]
    assert result["cells"][1]["error"]["ename"] == "ValueError"
    assert (result["outcome"], result["exit_code"], result["kernel"]) == ("failed", 1, "python3")
    cells = read_notebook(three_cells)["cells"]
    assert cells[0]["outputs"][0]["text"] == "one\n"
    assert cells[1]["metadata"]["nbrun"] == {"outcome": "failed"}
    assert found.stdout == ""


def test_json_on_standard_output_is_all_that_stands_there(three_cells: Path) -> None:
    found = run_nbrun("run", three_cells, "--json", "-", "--allow-errors", "--no-save")
    assert found.returncode == ExitCode.OK, found.stderr
    result = json.loads(found.stdout)
    assert [cell["outcome"] for cell in result["cells"]] == ["passed", "failed", "passed"]
    assert (result["outcome"], result["output"]) == ("passed", None)
    assert read_notebook(three_cells)["cells"][0]["outputs"] == []


def test_a_log_gets_plain_lines_and_the_outputs_if_asked(three_cells: Path, tmp_path: Path) -> None:
    found = run_nbrun("run", three_cells, "-o", tmp_path / "new" / "out.ipynb", "--log-output")
    lines = found.stderr.splitlines()
    assert "[cell 1] one" in lines
    assert any(line.endswith("three.ipynb: ValueError: two in cell 2 of 3") for line in lines)
    assert "1 of 3 cells passed, 1 not run" in lines[-1]
    assert lines[-1].endswith("out.ipynb")
    assert "\x1b" not in found.stderr
    assert (tmp_path / "new" / "out.ipynb").exists()


def test_colours_can_be_forced_and_forbidden(three_cells: Path) -> None:
    assert "\x1b[" in run_nbrun("run", three_cells, "--no-save", env={"FORCE_COLOR": "1", "NO_COLOR": ""}).stderr
    bare = run_nbrun("run", three_cells, "--no-save", env={"NO_COLOR": "1", "FORCE_COLOR": "1"}).stderr
    assert "\x1b[3" not in bare


def test_quiet_says_nothing_of_a_run_that_passed(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "fine.ipynb", notebook("1"))
    found = run_nbrun("run", path, "-q")
    assert (found.returncode, found.stdout, found.stderr) == (ExitCode.OK, "", "")


def test_a_run_without_times_leaves_none_in_the_notebook(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "fine.ipynb", notebook("1"))
    run_nbrun("run", path, "--no-timing")
    first = path.read_bytes()
    run_nbrun("run", path, "--no-timing")
    assert path.read_bytes() == first
    assert b"iopub" not in first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cell-timeout", "soon"], "no duration"),
        (["--timeout", "0"], "no time at all"),
        (["--upload"], "--upload needs --server"),
        (["--json", "."], "cannot be written"),
        (["--token-file", "missing"], "does not exist"),
        (["--server", "ftp://host/"], "ftp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_call_is_told_before_anything_is_run(arguments: list[str], said: str, three_cells: Path) -> None:
    before = three_cells.read_bytes()
    found = run_nbrun("run", three_cells, *arguments)
    assert found.returncode == ExitCode.USAGE
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert three_cells.read_bytes() == before


def test_json_is_written_of_a_run_that_could_not_begin_too(tmp_path: Path) -> None:
    found = run_nbrun("run", tmp_path / "missing.ipynb", "--json", "-")
    result = json.loads(found.stdout)
    assert found.returncode == result["exit_code"] == ExitCode.USAGE
    assert result["outcome"] == "not-run"
    assert "no such file" in result["problem"]["message"]


def test_templates_of_parameters_have_the_date_in_the_time_zone_of_the_batch(tmp_path: Path) -> None:
    write_notebook(tmp_path / "sales.ipynb", notebook(code("day = note = ''", tags=["parameters"])))
    settings = (
        'parameter-templates = {day = "{date:%Y-%m-%d}", note = "{stem}"}\nno-save = true\ntimezone = "Asia/Tokyo"\n'
    )
    (tmp_path / "nbrun.toml").write_text(f'[batch.sales]\nnotebooks = ["sales.ipynb"]\n{settings}')
    for options, day in (
        ([], "2026-12-01"),
        (["-r", "day", "today"], "today"),
        (["--parameter-template", "day={date:%d.%m.}"], "01.12."),
    ):
        call = ["batch", "sales", "--scheduled", "2026-11-30T15:00Z", "--help-notebook", *options]
        found = run_nbrun(*call, cwd=tmp_path)
        assert f"""  day: str = ''  ->  "{day}"\n""" in found.stdout, found.stderr
    run_nbrun("batch", "sales", "--scheduled", "2026-11-30T15:00Z", "--json", "{date}.json", cwd=tmp_path)
    assert json.loads((tmp_path / "2026-12-01.json").read_text())["parameters"]["day"] == "2026-12-01"
    found = run_nbrun("plan", "sales.ipynb", "--parameter-template", "note={stem}", cwd=tmp_path)
    assert '->  "sales"' in found.stdout, found.stderr
