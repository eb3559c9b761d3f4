"""The JUnit report: valid, complete, and readable by the usual viewers."""

import xml.etree.ElementTree as ET
from pathlib import Path

import xmlschema
from msgspec.structs import replace

from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.events import Event, RunFinished
from nbrun.core.results import Attempt, CellError, CellOutcome, CellResult, Outcome, Problem
from nbrun.errors import ExitCode
from nbrun.reporters import junit as module
from nbrun.reporters.junit import JUnit
from tests.reporters.streams import PASSED, Speaker, batch, result

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[2] / "fixtures" / "junit.xsd")


def written(events: list[Event], folder: Path) -> ET.Element:
    target = folder / "deep" / "junit.xml"
    report = JUnit(target)
    for event in events:
        report.observe(event)
    report.close()
    SCHEMA.validate(target)
    return ET.parse(target).getroot()


def test_a_batch_has_a_suite_for_each_notebook_and_a_case_for_each_cell(tmp_path: Path) -> None:
    root = written(batch(), tmp_path)
    counts = {suite.get("name"): [suite.get(n) for n in ("tests", "failures", "errors", "skipped")] for suite in root}
    assert counts == {
        "a/good.ipynb": ["1", "0", "0", "0"],
        "a/bad.ipynb": ["3", "1", "0", "1"],
        "dead.ipynb": ["1", "0", "1", "0"],
        "never.ipynb": ["1", "0", "1", "0"],
    }
    assert [root.get(n) for n in ("tests", "failures", "errors", "time")] == ["6", "1", "2", "3.000"]
    bad = root.findall("testsuite")[1]
    assert [(case.get("name"), case.get("classname"), case.get("time")) for case in bad.iter("testcase")] == [
        ("cell 1: # begins", "a.bad", "0.250"),
        ("cell 2: total = 0", "a.bad", "0.500"),
        ("cell 3", "a.bad", "0.000"),  # it was not run, and has its number all the same
    ]
    failure = bad.find("testcase/failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("ValueError", 'ValueError: <no> & "data"')
    assert failure.text is not None
    assert "In[2], line 3" in failure.text
    assert "\x1b" not in failure.text


def test_what_a_cell_said_is_its_output_without_colours_and_pieces_of_lines_are_joined(tmp_path: Path) -> None:
    said = [element.text for element in written(batch(), tmp_path).iter("system-out")]
    assert said == ["fine", "::error::mine"]


def test_only_the_end_of_a_long_output_is_kept(tmp_path: Path) -> None:
    run = Speaker("n.ipynb")
    lines = [run.says(0, f"line {number} {'x' * 90}\n") for number in range(2000)]
    root = written(
        [run.starts(0, "1"), *lines, run.ends(PASSED), run.is_over(result("n", Outcome.PASSED, [PASSED]))], tmp_path
    )
    said = root.findtext(".//system-out") or ""
    assert len(said) == module.LONGEST_OUTPUT
    assert said.endswith("x" * 90)
    assert "line 1999 " in said


def test_what_went_wrong_outside_of_the_cells_is_a_case_of_its_own(tmp_path: Path) -> None:
    case = written(batch(), tmp_path).findall("testsuite")[3].find("testcase")
    assert case is not None
    assert case.get("name") == "the run"
    assert case.findtext("error") == "never.ipynb: there is no such file\nnbrun looked."


def test_an_error_that_was_allowed_fails_nothing(tmp_path: Path) -> None:
    cell = CellResult(0, None, CellOutcome.FAILED, 1, 0.1, CellError("E", "v"))
    root = written([Speaker("n.ipynb").is_over(result("n.ipynb", Outcome.PASSED, [cell]))], tmp_path)
    assert root.get("failures") == "0"
    assert root.findtext(".//testcase/system-err") == "an error that was allowed: E: v"


def test_of_a_run_that_was_timed_out_only_the_cell_that_was_is_a_failure(tmp_path: Path) -> None:
    late = CellResult(0, "a", CellOutcome.TIMED_OUT, 1, 3.0, CellError("CellTimeout", "longer than 3 s"), number=1)
    allowed = CellResult(1, "b", CellOutcome.FAILED, 2, 0.1, CellError("E", "v"), number=2, allowed=True)
    again = replace(late, index=2, id="c", number=3)
    problem = Problem("longer than 3 s in cell 1 of 3", cell=0)
    over = result("n.ipynb", Outcome.TIMED_OUT, [late, allowed, again], problem=problem)
    root = written([Speaker("n.ipynb").is_over(over)], tmp_path)
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["cell 1", "cell 3"]
    assert cases["cell 1"].findtext("failure") == "longer than 3 s in cell 1 of 3"
    assert cases["cell 3"].findtext("failure") == "timed-out", "the run's problem is another cell's"
    assert cases["cell 2"].findtext("system-err") == "an error that was allowed: E: v"


def test_an_error_that_was_shown_says_so_and_one_without_a_traceback_shows_standard_error(tmp_path: Path) -> None:
    shown = CellResult(0, "a", CellOutcome.FAILED, 1, 0.1, CellError("SystemExit", "2", ["SystemExit: 2"], shown=True))
    group = replace(shown, index=1, error=CellError("ExceptionGroup", "1 sub-exception", stderr="| ValueError: why"))
    over = result("n.ipynb", Outcome.FAILED, [shown, group], problem=Problem("SystemExit: 2 in cell 1 of 2", cell=0))
    root = written([Speaker("n.ipynb").is_over(over)], tmp_path)
    assert [failure.text for failure in root.iter("failure")] == [
        "The cell's outputs show this error, though the kernel's reply was ok.\nSystemExit: 2",
        "| ValueError: why",
    ]


def test_that_a_result_could_not_be_saved_is_told_beside_a_cell_that_failed(tmp_path: Path) -> None:
    cell = CellResult(0, "a", CellOutcome.FAILED, 1, 0.1, CellError("E", "v"), number=1)
    over = result("n.ipynb", Outcome.SERVER_FAILED, [cell], problem=Problem("not saved"))
    root = written([Speaker("n.ipynb").is_over(over)], tmp_path)
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["2", "1", "1"]
    assert root.findtext(".//error") == "not saved"


def test_a_cell_that_is_not_to_run_has_a_name_of_its_own(tmp_path: Path) -> None:
    cells = [CellResult(index, None, CellOutcome.SKIPPED) for index in (2, 5)]
    root = written([Speaker("n.ipynb").is_over(result("n.ipynb", Outcome.PASSED, cells))], tmp_path)
    assert [case.get("name") for case in root.iter("testcase")] == [
        "skipped cell at index 2",
        "skipped cell at index 5",
    ]


def test_lost_output_is_a_failure_of_the_cell_that_lost_it(tmp_path: Path) -> None:
    lost = Incomplete((Cause.RATE_LIMIT,), 5, exact=True)
    cell = CellResult(0, None, CellOutcome.PASSED, 1, 0.1, incomplete=lost)
    over = result("n.ipynb", Outcome.INCOMPLETE, [cell], problem=Problem("lost"))
    root = written([Speaker("n.ipynb").is_over(over)], tmp_path)
    assert [element.get("type") for element in root.iter("failure")] == ["incomplete"]


def test_a_batch_that_ran_nothing_is_an_empty_report(tmp_path: Path) -> None:
    assert len(written([], tmp_path)) == 0


def test_a_run_whose_turn_never_came_is_skipped(tmp_path: Path) -> None:
    over = result("n.ipynb", Outcome.NOT_RUN, problem=Problem("an earlier notebook failed"), attempts=0)
    root = written([Speaker("n.ipynb").is_over(over)], tmp_path)
    assert root.get("errors") == "0"
    assert [element.get("message") for element in root.iter("skipped")] == ["an earlier notebook failed"]


def test_the_attempts_of_a_run_are_properties(tmp_path: Path) -> None:
    tries = [
        Attempt(Outcome.KERNEL_DIED, ExitCode.KERNEL, "", 1.0, 2, kept=True),
        Attempt(Outcome.SERVER_FAILED, ExitCode.SERVER, "", 1.0, 0),
    ]
    found = result("n.ipynb", Outcome.KERNEL_DIED, attempts=2, tries=tries)
    root = written([RunFinished("n.ipynb", found)], tmp_path)
    listed = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert (listed["attempt 1"], listed["attempt 2"]) == ("kernel-died, kept", "server-failed")
