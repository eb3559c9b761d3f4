"""Collect a run from its events, and publish it or keep its files."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.events import BatchFinished, Event
from nbrun.core.outputs.masking import Mask
from nbrun.core.results import BatchResult, Outcome
from nbrun.errors import UsageError
from nbrun.publishing.history import PublishedHistory, RunRecord
from nbrun.publishing.reporter import DatedPublications, Publication, Publishing, reachable_store, report_name
from nbrun.reporters.html.reporter import Look
from nbrun.storage.object_stores.base import StoreError
from nbrun.storage.object_stores.by_url import open_store
from nbrun.storage.object_stores.folder import FolderStore
from tests.publishing.histories import InterruptedStore, night
from tests.reporters.streams import Speaker, result
from tests.support.notebooks import code, markdown, notebook
from tests.support.stores import S3Server, faulty, s3_by_moto

TABLE = {
    "output_type": "display_data",
    "data": {"text/html": "<table><tr><td>a</td><td>7</td></tr></table>"},
    "metadata": {},
}
PRINTED = {"output_type": "stream", "name": "stdout", "text": "the secret is hunter2\n"}


def events(name: str = "reports/sales.ipynb", outcome: Outcome = Outcome.PASSED, **parameters: Any) -> list[Event]:
    hidden = code("1", outputs=[{**PRINTED, "text": "kept out"}], tags=["remove-output"])
    document = notebook(markdown("# Sales"), code("planted = 1", outputs=[TABLE, PRINTED]), hidden)
    run = Speaker(name)
    return [run.stage(), run.is_over(result(name, outcome, parameters=parameters), document)]


def closed(
    made: list[Event],
    how: Publishing,
    store: Any,
    notebook: str | None = "reports/sales.ipynb",
    clock: Callable[[], datetime] = lambda: night(3),
) -> Publication:
    publication = Publication(store, how, notebook, clock=clock)
    for event in made:
        publication.observe(event)
    publication.close()
    return publication


def record_in(base: Path) -> RunRecord:
    (found,) = base.glob("*/*/run.json")
    return RunRecord.decoded(found.read_bytes())


def test_a_run_is_published_with_page_notebook_and_record(tmp_path: Path) -> None:
    how = Publishing("sales", scheduled=night(2), mask=Mask(["hunter2"]).value)
    publication = closed(events(region="north", note="is hunter2"), how, FolderStore(tmp_path))
    record = record_in(tmp_path)
    assert publication.published == f"{tmp_path}/sales/{record.run_id}/index.html"
    page = tmp_path / "sales" / record.run_id / "index.html"
    assert {name: path.read_bytes() for name, path in publication.files.items()} == {"sales.html": page.read_bytes()}
    publication.discard()
    assert not any(path.exists() for path in publication.files.values())
    assert [file.path for file in record.files] == ["index.html", "sales.ipynb"]
    assert (record.outcome, record.exit_code, record.promotes) == ("passed", 0, True)
    assert (record.when, record.started) == ("2026-11-03T06:00:00.000+00:00", "2026-11-04T06:00:00.000+00:00")
    assert record.parameters == {"region": "north", "note": "is ***"}
    (made,) = record.notebooks
    assert (made.title, made.page, made.file) == ("Sales", "index.html", "sales.ipynb")
    assert [(value.label, value.text) for value in made.numbers] == [("Sales · a · column 2", "7")]
    assert [value.text for value in made.texts] == ["the secret is ***"]
    assert 'href="../index.html">All runs</a>' in page.read_text()
    assert not any(b"hunter2" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_with_hidden_code_the_pages_neither_show_nor_link_the_notebook(tmp_path: Path) -> None:
    closed(events(), Publishing("sales", look=Look("hide")), FolderStore(tmp_path))
    pages = [path.read_text() for path in (*tmp_path.rglob("*.html"), *tmp_path.rglob("run.json"))]
    assert not any("planted" in page or "kept out" in page for page in pages)
    assert 'sales.ipynb"' not in (tmp_path / "sales" / "index.html").read_text()
    assert record_in(tmp_path).notebooks[0].file == ""


def test_several_notebooks_have_an_index_and_the_parameters_that_all_share(tmp_path: Path) -> None:
    made = events("a/x.ipynb", day=1, region="north") + events("b/x.ipynb", Outcome.FAILED, day=1, region="south")
    publication = closed(made, Publishing("night"), FolderStore(tmp_path), notebook=None)
    record = record_in(tmp_path)
    paths = ["a/x.html", "a/x.ipynb", "b/x.html", "b/x.ipynb", "index.html"]
    assert [file.path for file in record.files] == paths
    assert [*publication.files] == ["a-x.html", "b-x.html"]
    assert record.parameters == {"day": 1}
    assert publication.published is not None
    assert "1 of 2 notebooks passed" in (tmp_path / "night" / "index.html").read_text()


def test_a_failed_run_is_published_and_the_latest_one_only_if_asked(tmp_path: Path) -> None:
    for name, always in (("sales", False), ("stock", True)):
        closed(events(outcome=Outcome.FAILED), Publishing(name, always_latest=always), FolderStore(tmp_path / name))
    pointers = [
        json.loads((tmp_path / name / name / "latest.json").read_text())["run_id"] for name in ("sales", "stock")
    ]
    assert pointers[0] is None
    assert pointers[1] == record_in(tmp_path / "stock").run_id


def test_a_batch_over_dates_is_a_run_for_each_date(tmp_path: Path) -> None:
    names = {number: f"sales.ipynb [day={number}]" for number in range(4)}
    dates = {name: ("sales.ipynb", night(number)) for number, name in names.items()}
    publications = DatedPublications(FolderStore(tmp_path), Publishing("sales"), dates, clock=lambda: night(9))
    runs = [(0, Outcome.PASSED), (2, Outcome.FAILED), (1, Outcome.PASSED)]
    for number, outcome in runs:
        for event in events(names[number], outcome, day=number):
            publications.observe(event)
    never = result(names[3], Outcome.NOT_RUN, attempts=0)
    publications.observe(Speaker(names[3]).is_over(never, None))
    publications.observe(BatchFinished(BatchResult("0.1.0", "2026-11-01T06:00:00+00:00", 0.0)))
    publications.close()
    records = [RunRecord.decoded(path.read_bytes()) for path in tmp_path.glob("*/*/run.json")]
    assert sorted((record.when[:10], record.outcome, record.exit_code) for record in records) == [
        ("2026-11-01", "passed", 0), ("2026-11-02", "passed", 0), ("2026-11-03", "failed", 1),
    ]  # fmt: skip
    assert all([file.path for file in record.files] == ["index.html", "sales.ipynb"] for record in records)
    assert json.loads((tmp_path / "sales" / "latest.json").read_text())["when"][:10] == "2026-11-02"
    assert publications.published == f"{tmp_path}/sales/index.html"
    assert [*publications.files] == ["2026-11-01-sales.html", "2026-11-03-sales.html", "2026-11-02-sales.html"]
    publications.discard()


def test_a_store_that_fails_is_not_tried_for_each_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(InterruptedStore):
        async def put(self, key: str, data: bytes, **_: Any) -> str:
            self.operations += 1
            raise StoreError(f"{self.url}: gone")

    monkeypatch.chdir(tmp_path)
    store = Dead(tmp_path / "site")
    dates = {f"{number}.ipynb": ("sales.ipynb", night(number)) for number in range(3)}
    publications = DatedPublications(store, Publishing("sales"), dates, clock=lambda: night(9))
    for name in dates:
        for event in events(name):
            publications.observe(event)
    with pytest.raises(RuntimeError, match="gone; its files are in "):
        publications.close()
    assert (store.operations, publications.published) == (1, None)
    assert len([*tmp_path.glob("nbrun-unpublished-sales-*/run.json")]) == 3


def test_a_run_without_a_notebook_has_a_page_that_says_why(tmp_path: Path) -> None:
    run = Speaker("sales.ipynb")
    closed([run.is_over(result("sales.ipynb", Outcome.NOT_RUN), None)], Publishing("sales"), FolderStore(tmp_path))
    record = record_in(tmp_path)
    assert record.outcome == "not-run"
    assert [file.path for file in record.files] == ["index.html"]


def test_a_call_that_ran_nothing_is_not_published(tmp_path: Path) -> None:
    skipped = Speaker("sales.ipynb")
    over = skipped.is_over(result("sales.ipynb", Outcome.SKIPPED), None)
    closed([over], Publishing("sales"), FolderStore(tmp_path))
    nothing = BatchFinished(BatchResult("0.1.0", "2026-11-01T06:00:00+00:00", 0.0, left_out=2))
    closed([nothing], Publishing("sales"), FolderStore(tmp_path), notebook=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after", [0, 4])
def test_if_the_store_fails_at_the_end_the_files_are_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    class Dead(InterruptedStore):
        def _count(self) -> None:
            if self.operations >= after:
                raise StoreError(f"{self.url}: gone")
            super()._count()

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="gone; its files are in ") as caught:
        closed(events(), Publishing("sales"), Dead(tmp_path / "site"))
    (rescued,) = tmp_path.glob("nbrun-unpublished-sales-*")
    assert str(rescued) in str(caught.value)
    assert sorted(path.name for path in rescued.iterdir()) == ["index.html", "run.json", "sales.ipynb"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_by_moto() as server:
        yield server


@pytest.mark.parametrize("failing", ["index.html", "run.json"])
async def test_a_store_that_fails_during_the_puts_shows_no_part_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server, failing: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    bucket, how = s3.bucket(), Publishing("sales")
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        store = open_store(f"s3://{bucket}/site")
        wire.drop("PUT", failing, times=100)
        with pytest.raises(RuntimeError, match=r"the store cannot be reached .*; its files are in "):
            await asyncio.to_thread(closed, events(), how, store)
        (rescued,) = tmp_path.glob("nbrun-unpublished-sales-*")
        assert sorted(path.name for path in rescued.iterdir()) == ["index.html", "run.json", "sales.ipynb"]
        assert await PublishedHistory(store).records("sales") == []
        assert await store.get("sales/index.html") is None
        wire.heal()
        wire.drop("PUT", failing, forward=True)  # the object arrives, but its answer is lost
        publication = await asyncio.to_thread(closed, events(), how, store)
    assert [run.run_id for run in await PublishedHistory(store_of(s3, bucket, monkeypatch)).records("sales")] == [
        publication.run_id
    ]


def store_of(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    return open_store(f"s3://{bucket}/site")


def test_a_store_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--publish"):
        reachable_store(str(tmp_path / "file" / "site"))
    assert asyncio.run(reachable_store(str(tmp_path / "site")).keys()) == []


@pytest.mark.parametrize(
    ("job", "notebook", "name"),
    [
        ("sales", None, "sales"),
        (None, "reports/weekly sales.ipynb", "weekly-sales"),
        ("a/../b", "x.ipynb", "a-..-b"),
        (None, "-", "notebook"),
    ],
)
def test_a_report_has_the_name_of_its_job_or_of_its_notebook(job: str | None, notebook: str | None, name: str) -> None:
    assert report_name(job, notebook) == name


def test_a_report_of_several_notebooks_needs_a_job() -> None:
    with pytest.raises(UsageError, match="needs a name"):
        report_name(None, None)
