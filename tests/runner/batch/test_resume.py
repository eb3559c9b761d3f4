"""Which runs a resumed batch takes from its journal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.planning.job import Job, Limits
from nbrun.core.results import NotebookResult, Outcome
from nbrun.errors import UsageError
from nbrun.runner.batch.resume import LONGEST_LINE, RunJournal
from nbrun.runner.job import NotebookPaths, PlannedRun
from tests.support.notebooks import notebook, write_notebook

STARTED = "2026-01-01T00:00:00.000+00:00"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", notebook("1"))
    return tmp_path


def a_journal(*, resume: bool, named: str = "nb/", shard: str | None = None) -> RunJournal:
    return RunJournal(Path("out/journal"), [named], shard, resume=resume)


def planned(output: str | None = "out/a.ipynb", **changes: Any) -> PlannedRun:
    job = replace(Job("a.ipynb", parameters={"x": 1}, secrets={"KEY": "hunter2"}), **changes)
    return PlannedRun("a.ipynb", job, NotebookPaths("a.ipynb", output), job.parameters)


def a_result(outcome: Outcome = Outcome.PASSED, output: str | None = "out/a.ipynb", **changes: Any) -> NotebookResult:
    return replace(NotebookResult("1", "a.ipynb", output, "python3", outcome, STARTED, 1.0), **changes)


def deliver(run: PlannedRun, result: NotebookResult) -> RunJournal:
    """Act as a batch that executed one run, and was killed."""
    journal = a_journal(resume=False)
    before = journal.notebook_now(run)
    executed = notebook("1", nbrun={"run": {"started": STARTED}})
    write_notebook(Path(result.output or "nowhere.ipynb"), executed)
    journal.add(run, before, result)
    journal.close()
    return journal


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.KERNEL_DIED])
@pytest.mark.parametrize("output", ["out/a.ipynb", None])
def test_a_run_with_a_verdict_is_not_executed_again(outcome: Outcome, output: str | None) -> None:
    result = a_result(outcome, output or "a.ipynb")
    deliver(planned(output), result)
    journal = a_journal(resume=True)
    found = journal.look(planned(output))
    assert journal.has_runs
    assert found is not None
    assert found.result.as_dict() == result.as_dict()
    assert found.document.cells[0]["source"] == "1"
    assert "hunter2" not in Path("out/journal").read_text()


def edit(path: str) -> Callable[[], object]:
    return lambda: write_notebook(Path(path), notebook("2"))


@pytest.mark.parametrize(
    ("change", "run"),
    [
        (edit("a.ipynb"), planned()),
        (edit("out/a.ipynb"), planned()),
        (lambda: Path("out/a.ipynb").unlink(), planned()),
        (lambda: Path("a.ipynb").unlink(), planned()),
        (int, planned(parameters={"x": "1"})),
        (int, planned(limits=Limits(cell=5.0))),
        (int, planned(allow_errors=True)),
        (int, planned(env={"A": "1"})),
        (int, planned(secrets={"KEY": "x", "KEY2": "y"})),
        (int, planned("out/b.ipynb")),
        (int, replace(planned(), name="a.ipynb [x=2]")),
    ],
)
def test_a_run_is_executed_again_if_something_of_it_changed(change: Callable[[], object], run: PlannedRun) -> None:
    deliver(planned(), a_result())
    change()
    assert a_journal(resume=True).look(run) is None


@pytest.mark.parametrize(
    "result",
    [
        a_result(Outcome.INTERRUPTED),
        a_result(Outcome.SERVER_FAILED),
        a_result(Outcome.NOT_RUN, attempts=0),
        a_result(output=None),
        a_result(rescued=True),
        a_result(warnings=["x" * LONGEST_LINE]),
    ],
)
def test_a_run_without_a_delivery_is_executed_again(result: NotebookResult) -> None:
    deliver(planned(), result)
    assert a_journal(resume=True).look(planned()) is None


def test_without_resume_the_journal_begins_anew() -> None:
    deliver(planned(), a_result())
    assert a_journal(resume=False).look(planned()) is None
    assert not a_journal(resume=True).has_runs


def test_a_broken_line_is_ignored_and_removed() -> None:
    deliver(planned(), a_result())
    path = Path("out/journal")
    path.write_bytes(path.read_bytes() + b'{"run": "b.ipynb", "ke')
    journal = a_journal(resume=True)
    assert journal.look(planned()) is not None
    journal.add(planned(), journal.notebook_now(planned()), a_result())
    journal.close()
    assert [json.loads(line).get("run") for line in path.read_text().splitlines()] == [None, "a.ipynb", "a.ipynb"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("named", "shard", "text", "message"),
    [
        ("reports/", None, None, "this is the journal of another batch: nb/"),
        ("nb/", "1/2", None, "this is the journal of another batch: nb/"),
        ("nb/", None, "{}\n", "not a journal that this nbrun can resume from"),
        ("nb/", None, "", "not a journal that this nbrun can resume from"),
    ],
)
def test_the_journal_of_another_batch_is_refused(named: str, shard: str | None, text: str | None, message: str) -> None:
    deliver(planned(), a_result())
    if text is not None:
        Path("out/journal").write_text(text)
    with pytest.raises(UsageError) as caught:
        a_journal(resume=True, named=named, shard=shard)
    assert str(caught.value) == f"{Path('out/journal').absolute()}: {message}"


@pytest.mark.parametrize(
    ("results", "is_removed"),
    [
        ([a_result(), a_result(Outcome.FAILED)], True),
        ([a_result(), a_result(Outcome.NOT_RUN, None)], True),
        ([a_result(), a_result(Outcome.NOT_RUN, None, attempts=0)], False),
        ([a_result(), a_result(Outcome.INTERRUPTED)], False),
        ([a_result(), a_result(Outcome.SERVER_FAILED, None)], False),
    ],
)
def test_the_journal_is_removed_when_no_run_is_left(results: list[NotebookResult], is_removed: bool) -> None:
    deliver(planned(), a_result()).finish(results)
    assert Path("out/journal").exists() is not is_removed


def test_a_journal_in_the_place_of_a_folder_is_a_usage_error(here: Path) -> None:
    (here / "out" / "journal").mkdir(parents=True)
    with pytest.raises(UsageError, match="journal"):
        a_journal(resume=True)
