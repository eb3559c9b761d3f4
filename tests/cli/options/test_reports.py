"""The report options: several at once, checks before the run, and failed reports."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner

from nbrun.cli.main import cli
from nbrun.cli.options.reports import ReportOptions, settle_pdf
from nbrun.errors import ExitCode
from tests.support.notebooks import notebook, run_nbrun, write_notebook


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "failing.ipynb", notebook("print('one')", "x = 2\nraise ValueError('two')", "3"))


def test_all_reports_are_written_of_one_run_and_agree(failing: Path, tmp_path: Path) -> None:
    before = failing.read_text().splitlines()
    found = run_nbrun(
        "run", "failing.ipynb", "--json", "r.json", "--junit", "j.xml", "--events", "-", "--html", "html", "--github",
        "--no-save",
        cwd=tmp_path, env={"GITHUB_WORKSPACE": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "out")},
    )  # fmt: skip
    assert found.returncode == ExitCode.NOTEBOOK_FAILED, found.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert events[-1]["result"] == result
    assert ET.parse(tmp_path / "j.xml").getroot().get("failures") == "1"
    assert "ValueError" in (tmp_path / "html" / "failing.html").read_text()
    line = re.search(r"^::error file=failing\.ipynb,line=(\d+),", found.stderr, re.MULTILINE)
    assert line is not None
    assert "raise ValueError" in before[int(line[1]) - 1]
    assert "exit-code" in (tmp_path / "out").read_text()


def test_a_job_on_github_is_told_by_itself(tmp_path: Path) -> None:
    for environ, option, told in (("true", (), True), ("true", ("--no-github",), False), ("", (), False)):
        env = {"GITHUB_ACTIONS": environ, "GITHUB_STEP_SUMMARY": "", "GITHUB_OUTPUT": ""}
        found = run_nbrun("run", "missing.ipynb", *option, env=env, cwd=tmp_path)
        assert found.returncode == ExitCode.USAGE
        assert ("::error title=missing.ipynb%3A not run::" in found.stderr) == told


def test_a_run_that_could_not_begin_is_in_every_report(tmp_path: Path) -> None:
    found = run_nbrun("run", "no.ipynb", "--junit", "j.xml", "--events", "e.jsonl", "--json", "r.json", cwd=tmp_path)
    assert found.returncode == ExitCode.USAGE
    assert ET.parse(tmp_path / "j.xml").getroot().get("errors") == "1"
    assert json.loads((tmp_path / "e.jsonl").read_text())["result"] == json.loads((tmp_path / "r.json").read_text())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "-", "--events", "-"], "only one of them"),
        (["--junit", "."], "--junit .: cannot be written"),
        (["--events", "."], "--events .: cannot be written"),
        (["--events", "failing.ipynb/deeper/e"], "--events failing.ipynb/deeper/e: cannot be written"),
        (["--json", "r", "--stdout-file", "./r"], "--json and --stdout-file name the same file"),
        (["--html", "failing.ipynb"], "this is a file"),
        (["--pdf", "failing.ipynb"], "this is a file"),
        (["--html", "html", "--html-template", "nowhere"], "--html-template nowhere: there is no such folder"),
        (["--html", "html", "--html-template", "."], "--html-template .: there is none of page.html.j2"),
        (["--config", "beside.toml"], "pdf = true writes PDF files beside the pages"),
    ],
    ids=[
        "two on standard output",
        "a folder for a file",
        "another",
        "below a file",
        "one file",
        "a file for a folder",
        "a file for PDFs",
        "no templates",
        "empty templates",
        "beside no page",
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_runs(
    options: list[str], said: str, failing: Path, tmp_path: Path
) -> None:
    before = failing.read_bytes()
    (tmp_path / "beside.toml").write_text("pdf = true\n")
    found = run_nbrun("run", "failing.ipynb", *options, cwd=tmp_path)
    assert (found.returncode, said in found.stderr) == (ExitCode.USAGE, True), found.stderr
    assert failing.read_bytes() == before


def test_without_nbconvert_pages_are_refused_with_what_to_install(failing: Path, tmp_path: Path) -> None:
    program = "import sys; sys.modules['nbconvert'] = None\nfrom nbrun.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", program, "run", "failing.ipynb", "--html", "html"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ},
    )  # fmt: skip
    assert found.returncode == ExitCode.USAGE, found.stderr
    assert "pip install 'jupyter-nbrun[html]'" in found.stderr


FULL = "could not be written: No space left on device"


def test_a_report_that_is_lost_is_told_in_every_other_and_by_the_exit_code(tmp_path: Path) -> None:
    write_notebook(tmp_path / "fine.ipynb", notebook("print(1)"))
    found = run_nbrun(
        "run", "fine.ipynb", "-q", "--events", "/dev/full", "--stdout-file", "/dev/full", "--stderr-file", "e",
        "--junit", "j.xml", "--json", "r.json", "--github", cwd=tmp_path, env={"GITHUB_OUTPUT": "outputs"},
    )  # fmt: skip
    assert found.returncode == ExitCode.SERVER
    assert found.stderr.count(f"\nfine.ipynb: the log of events in /dev/full {FULL}") == 1
    assert found.stderr.count(FULL) == 4  # each also as an annotation
    assert (tmp_path / "j.xml").exists()
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["outcome"], result["exit_code"]) == ("passed", ExitCode.SERVER)
    assert len(result["lost_reports"]) == 2
    assert re.search(r"^exit-code<<\S+\n4\n", (tmp_path / "outputs").read_text(), re.MULTILINE)


@pytest.mark.parametrize("option", ["--json", "--junit", "--events"])
@pytest.mark.parametrize("named", [("a.ipynb",), ("a.ipynb", "b.ipynb")], ids=len)
def test_a_lost_report_counts_for_one_and_for_many(
    named: tuple[str, ...], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in named:
        write_notebook(tmp_path / name, notebook("1"))
    arguments = ["run", *named, "--in-place", "--prepare-only", "-q", option, "/dev/full"]
    found = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert (found.exception, found.return_value) == (None, ExitCode.SERVER)


def test_a_report_whose_folder_is_taken_away_meanwhile_is_lost(tmp_path: Path) -> None:
    source = "import pathlib\npathlib.Path('reports').write_text('a file')"
    write_notebook(tmp_path / "fine.ipynb", notebook(source))
    found = run_nbrun("run", "fine.ipynb", "--json", "reports/r.json", "--html", "reports", "-q", cwd=tmp_path)
    assert found.returncode == ExitCode.SERVER
    assert "the result in reports/r.json could not be written: File exists" in found.stderr
    assert "the pages in reports: incomplete: fine.ipynb: " in found.stderr


def test_forced_colours_do_not_make_a_log_a_terminal(tmp_path: Path) -> None:
    write_notebook(tmp_path / "fine.ipynb", notebook("1"))
    said = run_nbrun(
        "run", "fine.ipynb", cwd=tmp_path, env={"FORCE_COLOR": "1", "NO_COLOR": "", "TERM": "xterm"}
    ).stderr
    assert "\x1b[1;32m" in said
    assert not re.search(r"\x1b\[(\?25|\d*[AKJ])", said)


def test_a_browser_that_is_not_there_is_found_before_anything_runs(failing: Path, tmp_path: Path) -> None:
    before = failing.read_bytes()
    found = run_nbrun("run", "failing.ipynb", "--pdf", "pdf", cwd=tmp_path, env={"NBRUN_BROWSER": "no-such-browser"})
    assert found.returncode == ExitCode.USAGE
    assert "NBRUN_BROWSER=no-such-browser names no program" in found.stderr
    assert failing.read_bytes() == before


@pytest.mark.parametrize(
    ("pages", "pdf"),
    [("site", "site"), ("report.html", "report.pdf"), ("out/x.HTM", "out/x.pdf")],
)
def test_pdf_files_go_beside_the_pages(pages: str, pdf: str) -> None:
    given = SimpleNamespace(html_folder=pages, pdf=True, publish=None)
    settle_pdf(cast(ReportOptions, given))
    assert given.pdf == pdf
