"""Which runs a resumed batch takes from its journal."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.planning.job import Job, Limits
from nbrun.core.results import Artefact, NotebookResult, Outcome
from nbrun.errors import UsageError
from nbrun.runner.batch.resume import LONGEST_LINE, Delivered, JournalInUse, RunJournal
from nbrun.runner.job import NotebookPaths, PlannedRun
from tests.support.notebooks import notebook, write_notebook
from tests.support.permissions import read_only

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
    before, _ = journal.look(run)
    executed = notebook("1", nbrun={"run": {"started": STARTED}})
    write_notebook(Path(result.output or "nowhere.ipynb"), executed)
    journal.add(run, before, result)
    journal.close()
    return journal


def resumed(run: PlannedRun) -> Delivered | None:
    """Return what another batch takes from the journal of a run."""
    journal = a_journal(resume=True)
    try:
        return journal.look(run)[1]
    finally:
        journal.close()


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.KERNEL_DIED])
@pytest.mark.parametrize("output", ["out/a.ipynb", None])
def test_a_run_with_a_verdict_is_not_executed_again(outcome: Outcome, output: str | None) -> None:
    result = a_result(outcome, output or "a.ipynb")
    deliver(planned(output), result)
    found = resumed(planned(output))
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
    assert resumed(run) is None


@pytest.mark.parametrize(("text", "is_delivered"), [("1,2", True), ("1,3", False), (None, False)])
def test_a_run_is_executed_again_if_one_of_its_artefacts_changed(text: str | None, is_delivered: bool) -> None:
    artefact = Artefact("a.csv", "a.csv", 3, hashlib.sha256(b"1,2").hexdigest())
    deliver(planned(), a_result(artefacts=[artefact]))
    if text is not None:
        Path("a.csv").write_text(text)
    assert (resumed(planned()) is not None) is is_delivered


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
    assert resumed(planned()) is None


def test_without_resume_the_journal_begins_anew() -> None:
    deliver(planned(), a_result())
    journal = a_journal(resume=False)
    assert journal.look(planned())[1] is None
    assert not journal.has_runs
    journal.close()
    assert not Path("out/journal").exists()  # it has no runs


@pytest.mark.parametrize("broken", [b'{"run": "b.ipynb", "ke', b'"text"\n{"run": 1}\n', b"\xff\0\n\n[" + b"[" * 999])
def test_a_broken_line_is_ignored_and_the_next_one_is_whole(broken: bytes) -> None:
    deliver(planned(), a_result())
    path = Path("out/journal")
    path.write_bytes(path.read_bytes() + broken)
    journal = a_journal(resume=True)
    digest, found = journal.look(planned())
    assert found is not None
    journal.add(planned(), digest, a_result())
    journal.close()
    assert json.loads(path.read_bytes().splitlines()[-1])["run"] == "a.ipynb"
    assert resumed(planned()) is not None
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [0, 1, 10, 25])
def test_a_journal_with_a_broken_header_has_no_runs(size: int) -> None:
    deliver(planned(), a_result())
    path = Path("out/journal")
    path.write_bytes(path.read_bytes()[:size])
    assert resumed(planned()) is None


@pytest.mark.parametrize("resume", [True, False])
def test_a_journal_that_another_process_uses_is_refused(resume: bool) -> None:
    deliver(planned(), a_result())
    one = a_journal(resume=True)
    with pytest.raises(JournalInUse, match="another process runs a batch with this journal"):
        a_journal(resume=resume)
    assert one.look(planned())[1] is not None
    one.close()
    assert resumed(planned()) is not None


def test_a_journal_that_another_process_uses_by_now_is_not_removed() -> None:
    journal = deliver(planned(), a_result())
    other = a_journal(resume=True)
    journal.finish([a_result()])
    assert Path("out/journal").exists()
    other.close()
    journal.finish([a_result()])
    assert not Path("out/journal").exists()


def test_lines_of_several_threads_are_all_whole() -> None:
    journal = a_journal(resume=False)
    write_notebook(Path("out/a.ipynb"), notebook("1"))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: journal.add(planned(), "x", a_result(warnings=["w" * 30_000])), range(40)))
    journal.close()
    assert [json.loads(line).get("run") for line in Path("out/journal").read_text().splitlines()[1:]] == [
        "a.ipynb"
    ] * 40


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_leaves_no_broken_line() -> None:
    code = """if True:
        import resource, signal
        from tests.runner.batch.test_resume import *
        journal = deliver(planned(), a_result())
        journal = a_journal(resume=True)
        size = Path("out/journal").stat().st_size
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            journal.add(planned(), "x", a_result())
        except OSError as error:
            assert Path("out/journal").stat().st_size == size
            raise SystemExit(7)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 7
    assert resumed(planned()) is not None


@pytest.mark.parametrize(
    ("named", "shard", "text", "message"),
    [
        ("reports/", None, None, "this is the journal of another batch: nb/"),
        ("nb/", "1/2", None, "this is the journal of another batch: nb/"),
        ("nb/", None, "{}\n", "the file exists and is not a journal"),
        ("nb/", None, '{"nbrun_journal":0}\n', "not a journal that this nbrun can resume from"),
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


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "the journal cannot be used: Is a directory"),
        (os.mkfifo, "the journal must be a regular file"),
        (lambda path: path.symlink_to(os.devnull), "the journal must be a regular file"),
        (lambda path: path.write_text("precious"), "the file exists and is not a journal"),
        (lambda path: path.symlink_to("nowhere/else"), "the journal cannot be used: No such file or directory"),
    ],
    ids=["folder", "pipe", "device", "file", "link"],
)
def test_another_file_in_the_place_of_the_journal_is_kept_and_refused(
    make: Callable[[Path], object], message: str, resume: bool, here: Path
) -> None:
    (here / "out").mkdir()
    path = here / "out" / "journal"
    make(path)
    with pytest.raises(UsageError, match=message):
        a_journal(resume=resume)
    assert os.path.lexists(path)
    if path.is_file():
        assert path.read_text() == "precious"
    assert Path(os.devnull).exists()


def test_a_journal_in_a_read_only_folder_is_a_usage_error_before_the_batch(here: Path) -> None:
    (here / "out").mkdir()
    with read_only(here / "out"), pytest.raises(UsageError, match="the journal cannot be used: "):
        a_journal(resume=False)
