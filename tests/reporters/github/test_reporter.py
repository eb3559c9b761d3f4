"""GitHub Actions: annotations at the right line, groups, summary, outputs."""

import io
import re
from pathlib import Path

import pytest

from nbrun.core.events import BatchStarted, Event, RunFinished, StageEntered, Warned
from nbrun.core.results import CellResult, Outcome, Problem
from nbrun.reporters.github import summary
from nbrun.reporters.github.reporter import ANNOTATIONS, GitHub, assignments, command
from tests.reporters.streams import BAD, FAILED, FAILING, PASSED, Speaker, batch, result, write_notebooks
from tests.support.notebooks import notebook, write_notebook


class Runner:
    """A runner's workspace and files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stream = io.StringIO()
        self.summary_file, self.output_file = folder / "summary", folder / "output"

    def told(self, events: list[Event], **places: str) -> list[str]:
        environ = {
            "GITHUB_WORKSPACE": str(self.folder),
            "GITHUB_STEP_SUMMARY": str(self.summary_file),
            "GITHUB_OUTPUT": str(self.output_file),
        }
        github = GitHub(places, environ=environ, stream=self.stream)
        for event in events:
            github.observe(event)
        github.close()
        return self.stream.getvalue().splitlines()

    def outputs(self) -> dict[str, str]:
        found = re.findall(
            r"^([\w-]+)<<(nbrun-\w+)\n(.*?)\n\2$", self.output_file.read_text(), re.MULTILINE | re.DOTALL
        )
        return {name: value for name, _, value in found}


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    write_notebooks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Runner(tmp_path)


def test_an_error_is_annotated_at_the_failing_line_of_the_input_file(runner: Runner) -> None:
    (error,) = [line for line in runner.told(batch()) if line.startswith(f"::error file={BAD}")]
    found = re.match(r"::error file=a/bad.ipynb,line=(\d+),title=a/bad.ipynb%3A failed::(.*)", error)
    assert found is not None
    line = (runner.folder / BAD).read_text().splitlines()[int(found[1]) - 1]
    assert "raise ValueError" in line
    assert found[2].startswith("ValueError: <no> in cell 2 of 3%0A%0ACell In[2], line 3%0A")


def test_the_line_is_right_for_sources_of_lines_and_although_the_run_overwrites_the_file(runner: Runner) -> None:
    document = notebook("a", FAILING)
    document["cells"][1]["source"] = FAILING.splitlines(keepends=True)
    path = write_notebook(runner.folder / "n.ipynb", document)
    before = path.read_text().splitlines()
    run = Speaker("n.ipynb")
    over = result("n.ipynb", Outcome.FAILED, [PASSED, FAILED], problem=Problem("no"))

    def events() -> list[Event]:
        return [run.stage(), run.starts(1, FAILING), run.ends(FAILED), run.is_over(over)]

    github = GitHub({}, environ={"GITHUB_WORKSPACE": str(runner.folder)}, stream=runner.stream)
    for event in events():
        github.observe(event)
        path.write_text("overwritten")
    found = re.search(r"line=(\d+)", runner.stream.getvalue())
    assert found is not None
    assert before[int(found[1]) - 1].strip().startswith('"raise ValueError')


def test_a_run_whose_name_says_more_than_its_path_is_annotated_at_the_path(runner: Runner) -> None:
    run = Speaker(f"{BAD}[region=EU]")
    over = result(BAD, Outcome.FAILED, [PASSED, FAILED], problem=Problem("no"))
    said = runner.told([run.stage(), run.starts(1, FAILING), run.is_over(over)])
    assert any(line.startswith(f"::error file={BAD},line=") for line in said)


def test_what_is_not_in_the_workspace_has_no_file(runner: Runner) -> None:
    over = result("on/server.ipynb", Outcome.SERVER_FAILED, problem=Problem("gone, 100%\nreally"))
    said = runner.told([RunFinished("on/server.ipynb", over)])
    assert "::error title=on/server.ipynb%3A server failed::gone, 100%25%0Areally" in said


def test_a_batch_has_a_group_for_each_notebook_and_none_within_another(runner: Runner) -> None:
    said = runner.told(batch())
    kinds = [line.split("::")[1].split(" ")[0] for line in said if line.startswith(("::group", "::endgroup"))]
    assert kinds == ["group", "endgroup"] * 4
    start = said.index(next(line for line in said if line.startswith(f"::group::{BAD}")))
    assert said[start + 1 : start + 4] == ["cell 1 of 2 passed in 0.2 s", "cell 2 of 2 failed in 0.5 s", "::endgroup::"]


def test_one_run_is_a_group_that_is_open_while_it_goes(runner: Runner) -> None:
    run = Speaker("a/good.ipynb")
    said = runner.told([run.stage(), run.is_over(result("a/good.ipynb", Outcome.PASSED, [PASSED]))])
    assert said == ["::group::a/good.ipynb", "::endgroup::"]


def test_a_warning_is_one(runner: Runner) -> None:
    assert "::warning file=a/good.ipynb,title=a/good.ipynb::the file is old" in runner.told(batch())


@pytest.mark.parametrize(("failures", "shown"), [(ANNOTATIONS, ANNOTATIONS), (ANNOTATIONS + 5, ANNOTATIONS)])
def test_the_tenth_annotation_says_how_many_more_there_are(failures: int, shown: int, runner: Runner) -> None:
    names = [f"n{number}.ipynb" for number in range(failures)]
    over = [RunFinished(name, result(name, Outcome.FAILED, problem=Problem("no"))) for name in names]
    said = runner.told([BatchStarted(names), *over])
    errors = [line for line in said if line.startswith("::error")]
    assert len(errors) == shown
    assert ("6 more notebooks" in errors[-1]) == (failures > ANNOTATIONS)


def test_warnings_beyond_what_github_shows_are_left_out(runner: Runner) -> None:
    said = runner.told([Warned("a", str(number)) for number in range(30)])
    assert len([line for line in said if line.startswith("::warning")]) == ANNOTATIONS - 1


def test_the_outputs_are_those_of_the_action(runner: Runner) -> None:
    runner.told(batch(), **{"results-json": "/r.json", "html-dir": "/x\nEOF\n"})
    assert runner.outputs() == {
        "outcome": "kernel-died",
        "exit-code": "5",
        "passed": "1",
        "failed": "3",
        "results-json": "/r.json",
        "html-dir": "/x\nEOF\n",
    }


def test_the_summary_has_a_table_the_failing_cells_and_the_slowest(runner: Runner) -> None:
    runner.summary_file.write_text("before\n")
    runner.told(batch())
    text = runner.summary_file.read_text()
    assert text.startswith("before\n## 4 notebooks: 3 did not pass in 3.0 s\n")
    rows = [line.split(" | ")[1] for line in text.splitlines() if line.startswith(("| ❌", "| ✅", "| 🚫"))]
    assert rows == ["a/bad.ipynb", "dead.ipynb", "never.ipynb", "a/good.ipynb"]
    assert "\n>   3 raise ValueError('<no> & \"data\"')\n" in text
    assert "| 0.5 s | a/bad.ipynb | cell 2: total = 0 |" in text
    assert "ValueError: \\<no\\> in cell 2 of 3" in text


def test_a_summary_never_grows_over_the_limit(runner: Runner) -> None:
    names = [f"folder/notebook-with-a-long-name-{number:05}.ipynb" for number in range(9000)]
    long = CellResult(1, None, FAILED.outcome, 2, 0.5, FAILED.error)
    over = [RunFinished(name, result(name, Outcome.FAILED, [long], problem=Problem("`" * 900))) for name in names]
    runner.summary_file.write_text("x" * 200_000)
    runner.told([BatchStarted(names), *over])
    size = runner.summary_file.stat().st_size
    assert 700_000 < size <= summary.LIMIT
    assert "more.\n" in runner.summary_file.read_text()


def test_a_fence_is_longer_than_any_in_the_text(runner: Runner) -> None:
    source = "'''\n`````\n'''\nboom"
    run = Speaker("n.ipynb")
    over = result("n.ipynb", Outcome.FAILED, [FAILED], problem=Problem("no"))
    runner.told([run.starts(1, source), run.is_over(over)])
    assert "\n``````text\n" in runner.summary_file.read_text()


def test_commands_are_escaped_as_the_runner_wants() -> None:
    said = command("error", "100%\r\nno: really, no", file="a:b,c%.ipynb", line=None, title="t\n")
    assert said == "::error file=a%3Ab%2Cc%25.ipynb,title=t%0A::100%25%0Ano: really, no"
    assert command("endgroup") == "::endgroup::"


def test_text_of_notebooks_is_no_command() -> None:
    hostile = "x\r::error::y\x0b\u2028\x1b]0;t\x07\x9b2J"
    assert command("error", hostile, title=hostile) == "::error title=x %3A%3Aerror%3A%3Ay  ::x ::error::y  "
    assert "##[" not in command("error", "##[add-mask]x", title="##[add-mask]x", file="##[add-mask]x")


def test_a_value_cannot_end_itself() -> None:
    first, second = (assignments({"a": "1"}).splitlines()[0] for _ in range(2))
    assert first != second


def test_stages_of_a_notebook_that_cannot_be_read_are_no_matter(runner: Runner) -> None:
    (runner.folder / "broken.ipynb").write_bytes(b"\xff\xfe")
    assert runner.told([StageEntered("broken.ipynb", Speaker("x").stage().stage)])[0] == "::group::broken.ipynb"  # type: ignore[union-attr]


def test_a_run_whose_turn_never_came_is_in_the_table_and_not_annotated(runner: Runner) -> None:
    over = result("n.ipynb", Outcome.NOT_RUN, problem=Problem("an earlier notebook failed"), attempts=0)
    said = runner.told([BatchStarted(["n.ipynb"]), RunFinished("n.ipynb", over)])
    assert [line for line in said if line.startswith("::error")] == []
    summary = runner.summary_file.read_text()
    assert "n.ipynb | not run" in summary
    assert "an earlier notebook failed" not in summary
