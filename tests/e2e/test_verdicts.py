"""Verdicts that the kernel's reply alone does not decide, in every report."""

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import assert_exit, code, notebook, read_notebook, run_nbrun, write_notebook
from tests.support.servers import RunningServer

pytestmark = pytest.mark.timeout(300)

SHOW = "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()"
NESTED = "done = get_ipython().run_cell('1 / 0')"
GROUP = (
    "import asyncio\nasync def boom(): raise ValueError('the real cause')\n"
    "async with asyncio.TaskGroup() as tg:\n    tg.create_task(boom())"
)
REPR = "class Odd:\n    def __repr__(self): raise ValueError('no text')\nOdd()"
EXPECTED = ["raises-exception"]


@dataclass(frozen=True)
class Case:
    """Cells, and what is to come of them."""

    cells: list[Any]
    outcomes: list[str]
    ename: str | None = None


CASES = {
    "script": Case(
        ["%%writefile left.py\nimport sys; sys.exit(2)", "%run left.py", "print('on')"],
        ["passed", "failed", "passed"],
        "SystemExit",
    ),
    "script-fails": Case(
        ["%%writefile broken.py\n1 / 0", "%run broken.py", "2"], ["passed", "failed", "passed"], "ZeroDivisionError"
    ),
    "nested": Case([NESTED, "2"], ["failed", "passed"], "ZeroDivisionError"),
    "showtraceback": Case([SHOW, "2"], ["failed", "passed"], "ZeroDivisionError"),
    "nested-exit-0": Case(["done = get_ipython().run_cell('import sys; sys.exit(0)')", "2"], ["passed", "passed"]),
    "script-exit-0": Case(["%%writefile well.py\nimport sys; sys.exit()", "%run well.py", "2"], ["passed"] * 3),
    "expected": Case([code(NESTED, tags=EXPECTED), "2"], ["passed", "passed"], "ZeroDivisionError"),
    "cleared": Case([f"{NESTED}\nfrom IPython.display import clear_output; clear_output()", "2"], ["passed", "passed"]),
    "exit-behind": Case([SHOW, "import sys; sys.exit(0)", "3"], ["failed", "passed", "skipped"], "ZeroDivisionError"),
    "raised-behind": Case([SHOW, "raise KeyError('a')", "3"], ["failed", "failed", "not-run"], "KeyError"),
    "group-first": Case([GROUP, "2"], ["failed", "not-run"], "ExceptionGroup"),
    "group-later": Case([code("1 / 0", tags=EXPECTED), GROUP], ["passed", "failed"], "ExceptionGroup"),
    "odd-before": Case(
        [code(REPR, tags=EXPECTED), "import asyncio\nawait asyncio.sleep(0)"], ["passed", "passed"], "ValueError"
    ),
}
FAILED = [name for name, case in CASES.items() if "failed" in case.outcomes]


@dataclass(frozen=True)
class Batch:
    """What a batch of all cases said and wrote."""

    folder: Path
    runs: dict[str, dict[str, Any]]
    said: str
    cases: dict[tuple[str, str], ET.Element]
    summary: str

    def executed(self, name: str) -> list[dict[str, Any]]:
        cells: list[dict[str, Any]] = read_notebook(self.folder / "out" / "in" / f"{name}.ipynb")["cells"]
        return cells


def run_all(folder: Path, *options: str) -> Batch:
    for name, case in CASES.items():
        write_notebook(folder / "in" / f"{name}.ipynb", notebook(*case.cells))
    said = run_nbrun(
        "run", *(f"in/{name}.ipynb" for name in CASES), "-o", "out", "--json", "result.json", "--junit", "junit.xml",
        *options, cwd=folder, env={"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(folder / "summary.md")},
    )  # fmt: skip
    assert_exit(said, ExitCode.NOTEBOOK_FAILED)
    result = json.loads((folder / "result.json").read_text("utf-8"))
    runs = {Path(run["notebook"]).stem: run for run in result["runs"]}
    cases = {
        (Path(suite.get("file", "")).stem, case.get("name", "").partition(":")[0]): case
        for suite in ET.parse(folder / "junit.xml").getroot()
        for case in suite.iter("testcase")
    }
    return Batch(folder, runs, said.stderr, cases, (folder / "summary.md").read_text("utf-8"))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return run_all(tmp_path_factory.mktemp("private"), "--html", "site")


@pytest.fixture(scope="module", params=[[], ["--pipeline", "8"]], ids=["one by one", "ahead"])
def remote(request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("remote")
    options = ["--server", server.url, "--token-file", str(folder / "token"), "--upload", *request.param]
    (folder / "token").write_text(server.token)
    return run_all(folder, *options)


def check(batch: Batch, name: str) -> None:
    case, run = CASES[name], batch.runs[name]
    assert [cell["outcome"] for cell in run["cells"]] == case.outcomes, batch.said
    assert run["outcome"] == ("failed" if "failed" in case.outcomes else "passed")
    errors = [cell["error"]["ename"] for cell in run["cells"] if cell["error"]]
    assert errors[-1:] == ([case.ename] if case.ename else [])


@pytest.mark.parametrize("name", CASES)
def test_a_private_kernel_has_the_right_verdicts(private: Batch, name: str) -> None:
    check(private, name)


@pytest.mark.parametrize("name", CASES)
def test_another_servers_kernel_has_the_right_verdicts(remote: Batch, name: str) -> None:
    check(remote, name)


@pytest.mark.parametrize("name", FAILED)
def test_the_problem_names_the_cell_that_every_report_points_at(private: Batch, name: str) -> None:
    run = private.runs[name]
    cell = next(cell for cell in run["cells"] if cell["index"] == run["problem"]["cell"])
    place = f"in cell {cell['number']} of {len(run['cells'])}"
    assert cell["outcome"] == "failed"
    assert place in run["problem"]["message"]
    assert private.cases[name, f"cell {cell['number']}"].find("failure") is not None
    annotation = next(line for line in private.said.splitlines() if line.startswith(f"::error file=in/{name}.ipynb"))
    assert place in annotation
    assert f"<summary>cell {cell['number']} " in private.summary.partition(f"### in/{name}.ipynb")[2]
    page = (private.folder / "site" / "in" / f"{name}.html").read_text("utf-8")
    assert place in page


@pytest.mark.parametrize("name", ["group-first", "group-later"])
def test_every_report_shows_what_an_exception_group_holds(private: Batch, name: str) -> None:
    cause = "ValueError: the real cause"
    failures = [case.findtext("failure") or "" for (suite, _), case in private.cases.items() if suite == name]
    assert any(cause in text for text in failures)
    assert not any("ZeroDivisionError" in text for text in failures), "not the traceback of another cell"
    assert cause in next(line for line in private.said.splitlines() if line.startswith(f"::error file=in/{name}.ipynb"))
    assert cause in private.summary.partition(f"### in/{name}.ipynb")[2].partition("###")[0]
    for page in (f"site/in/{name}.html", "site/index.html"):
        assert cause in (private.folder / page).read_text("utf-8")
    assert f"    | {cause}" in private.said
    assert all(cell["output_type"] != "error" for cell in private.executed(name)[-1]["outputs"])


def test_an_error_that_was_shown_is_said_to_have_been(private: Batch) -> None:
    run = private.runs["script"]
    assert run["problem"]["message"] == (
        "SystemExit: 2 in cell 2 of 3: its outputs show the error, though the kernel's reply was ok"
    )
    assert run["cells"][1]["error"]["shown"] is True
    assert "raises-exception" in run["problem"]["hint"]
    assert private.executed("script")[1]["metadata"]["nbrun"]["outcome"] == "failed"
    assert private.executed("script")[2]["outputs"], "the cells behind it ran"


def test_shown_errors_are_allowed_like_any_other(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", notebook(SHOW, GROUP, "3"))
    found = run_nbrun(
        "run", path, "-o", tmp_path / "out.ipynb", "--allow-errors", "--json", tmp_path / "r.json",
        "--junit", tmp_path / "j.xml", "--retries", "2",
    )  # fmt: skip
    assert_exit(found, ExitCode.OK)
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert [(cell["outcome"], cell["allowed"]) for cell in result["cells"]] == [
        ("failed", True),
        ("failed", True),
        ("passed", False),
    ]
    assert result["attempts"] == 1
    assert ET.parse(tmp_path / "j.xml").getroot().get("failures") == "0"
    assert "passed: 3 cells, 2 with allowed errors, in" in found.stderr


def test_of_a_time_out_and_a_later_allowed_error_every_report_names_the_time_out(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", notebook("import time\ntime.sleep(60)", "1 / 0", "3"))
    found = run_nbrun(
        "run", path.name, "-o", "out.ipynb", "--allow-errors", "--cell-timeout", "1", "--junit", "j.xml",
        "--json", "r.json", "--html", "site", "--github", cwd=tmp_path,
        env={"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")},
    )  # fmt: skip
    assert_exit(found, ExitCode.NOTEBOOK_FAILED)
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert [cell["outcome"] for cell in result["cells"]] == ["timed-out", "failed", "passed"]
    assert result["problem"]["cell"] == 0
    root = ET.parse(tmp_path / "j.xml").getroot()
    assert [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None] == [
        "cell 1: import time"
    ]
    annotations = [line for line in found.stderr.splitlines() if line.startswith("::error")]
    assert len(annotations) == 1
    assert "time.sleep(60)" in annotations[0]
    assert "ZeroDivisionError" not in found.stderr
    summary = (tmp_path / "summary.md").read_text("utf-8")
    assert "<summary>cell 1 " in summary
    assert "ZeroDivisionError" not in summary


def test_a_result_out_of_the_cache_has_the_same_verdicts(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", notebook(SHOW, "2"))
    given = ("run", path, "-o", tmp_path / "out.ipynb", "--json", tmp_path / "r.json", "--cache", tmp_path / "cache")
    for options, expected in [((), ExitCode.NOTEBOOK_FAILED), (("--allow-errors",), ExitCode.OK)]:
        found = [run_nbrun(*given, *options) for _ in range(2)]
        assert [each.returncode for each in found] == [expected, expected], found[1].stderr
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert result["cached"] is True
    assert [(cell["outcome"], cell["allowed"], cell["number"]) for cell in result["cells"]] == [
        ("failed", True, 1),
        ("passed", False, 2),
    ]
