"""Publish runs in a folder: pages, the latest run, retention, several publishers, killed publishers."""

import asyncio
import hashlib
import json
import os
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from nbrun.core.batch.terms import Keep
from nbrun.publishing.history import RunRecord, Value
from nbrun.publishing.publish import publish, rebuild, rebuild_base
from nbrun.storage.object_stores.base import ObjectExists, StoreError
from nbrun.storage.object_stores.folder import FolderStore
from tests.publishing.histories import FAILED, InterruptedStore, Killed, files_of, night, published, record


class Links(HTMLParser):
    """The links and the texts of a page."""

    def __init__(self, page: Path | str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page if isinstance(page, str) else page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a" and (link := given.get("href")):
            self.links.append(link)
        if tag == "meta" and given.get("http-equiv") == "refresh":
            self.links.append((given["content"] or "").partition("url=")[2])
        if name := given.get("id"):
            self.ids.append(name)


def broken_links(base: Path) -> list[str]:
    """Return the links of all pages that lead nowhere."""
    broken = []
    for page in base.rglob("*.html"):
        parsed = Links(page)
        for link in parsed.links:
            path, _, fragment = link.partition("#")
            if (path and not (page.parent / unquote(path)).is_file()) or (fragment and fragment not in parsed.ids):
                broken.append(f"{page.relative_to(base)}: {link}")
    return broken


def listed(base: Path, report: str = "sales") -> list[str]:
    """Return the ids of the runs in the index, in order."""
    return [name for name in Links(base / report / "index.html").ids if "Z-" in name]


def pointer(base: Path) -> str:
    """Return the id of the latest run in the pointer."""
    return str(json.loads((base / "sales" / "latest.json").read_text())["run_id"])


def latest(base: Path) -> str:
    """Return the id of the latest run, which the pointer and the page agree on."""
    links = Links(base / "sales" / "latest" / "index.html").links
    assert {link for link in links if link.startswith("../2")} == {f"../{pointer(base)}/index.html"}
    return pointer(base)


def test_forty_nights_are_in_the_index_in_order_and_all_links_resolve(tmp_path: Path) -> None:
    """Pass, fail, recover; night 20 is missed and made up for on night 25; runs are kept for 30 days."""
    base, store = tmp_path / "site", FolderStore(tmp_path / "site")
    failed, keep = (17, 18, 39), Keep(seconds=30 * 86400.0)
    latest_nights = []

    async def publish_all() -> None:
        for number in range(40):
            if number != 20:
                value = Value("a/0", "north · amount", str(100 + number))
                outcome = FAILED if number in failed else "passed"
                await published(store, record(number, outcome, values=[value]), tmp_path / "made", keep=keep)
            if number == 25:
                late = record(
                    25,
                    scheduled=20,
                    run_id="20261126T070000Z-0000ff",
                    started=(night(25) + timedelta(hours=1)).isoformat(),
                )
                await published(store, late, tmp_path / "made", keep=keep)
            latest_nights.append(int(latest(base)[-6:], 16))

    asyncio.run(publish_all())
    order = [*range(39, 20, -1), 255, *range(19, 9, -1)]
    assert [int(run_id[-6:], 16) for run_id in listed(base)] == order
    assert latest_nights == [16 if night in (17, 18) else 19 if night == 20 else min(night, 38) for night in range(40)]
    assert broken_links(base) == []
    assert sorted(path.name for path in (base / "sales").iterdir() if "Z-" in path.name) == sorted(listed(base))
    index = (base / "sales" / "index.html").read_text()
    assert index.count("<rect") == 30
    assert "<del>137</del> <ins>138</ins>" in index
    assert "started 2026-11-26 07:00 UTC" in index


def test_the_files_of_a_run_are_those_that_its_record_lists(tmp_path: Path) -> None:
    asyncio.run(published(FolderStore(tmp_path / "site"), record(0), tmp_path / "made"))
    folder = tmp_path / "site" / "sales" / record(0).run_id
    stored = RunRecord.decoded((folder / "run.json").read_bytes())
    assert {file.path: file.sha256 for file in stored.files} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "run.json"
    }


def test_a_published_run_is_not_replaced(tmp_path: Path) -> None:
    store, run = FolderStore(tmp_path / "site"), record(0)
    asyncio.run(published(store, run, tmp_path / "made"))
    asyncio.run(published(store, run, tmp_path / "again"))  # the same content is no conflict
    other = files_of(record(0, FAILED), tmp_path / "other")
    (tmp_path / "other" / "index.html").write_text("other")
    with pytest.raises(ObjectExists):
        asyncio.run(publish(store, [(other, tmp_path / "other")], keep=Keep(), now=night(1)))
    assert listed(tmp_path / "site") == [run.run_id]
    assert "other" not in (tmp_path / "site" / "sales" / run.run_id / "index.html").read_text()


def test_only_the_files_in_the_record_are_deleted_and_never_outside_of_its_folder(tmp_path: Path) -> None:
    base, store = tmp_path / "site", FolderStore(tmp_path / "site")
    asyncio.run(published(store, record(0), tmp_path / "made"))
    folder = base / "sales" / record(0).run_id
    (folder / "mine.txt").write_text("mine")
    (base / "precious.txt").write_text("precious")
    stored = json.loads((folder / "run.json").read_bytes())
    stored["files"] += [{"path": path, "size": 0, "sha256": ""} for path in ("../../precious.txt", "/etc/hostname")]
    (folder / "run.json").write_text(json.dumps(stored))
    asyncio.run(published(store, record(1), tmp_path / "made", keep=Keep(runs=1)))
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert (base / "precious.txt").exists()
    assert Path("/etc/hostname").exists()
    assert listed(base) == [record(1).run_id]


def test_the_index_of_all_reports_lists_each_with_its_newest_run(tmp_path: Path) -> None:
    base, store = tmp_path / "site", FolderStore(tmp_path / "site")
    for run in (record(0), record(1, FAILED), record(2, FAILED, report="a & b")):
        asyncio.run(published(store, run, tmp_path / "made"))
    index = (base / "index.html").read_text()
    assert [link for link in Links(base / "index.html").links if link.count("/") == 1] == [
        "a%20%26%20b/index.html",
        "sales/index.html",
    ]
    assert "a &amp; b" in index
    assert broken_links(base) == []
    assert asyncio.run(rebuild_base(store)) == ["a & b", "sales"]


@pytest.mark.parametrize("keep", [Keep(), Keep(runs=2)], ids=["all", "two"])
def test_after_a_publisher_is_killed_at_any_operation_the_next_one_repairs(tmp_path: Path, keep: Keep) -> None:
    def prepared(name: str) -> Path:
        base = tmp_path / name / "site"
        for number in range(2):
            asyncio.run(published(FolderStore(base), record(number), tmp_path / name / "made"))
        return base

    counted = InterruptedStore(prepared("counted"))
    asyncio.run(published(counted, record(2), tmp_path / "counted" / "more", keep=keep))
    assert counted.operations > 15
    seen = set()
    for operation in range(counted.operations):
        name = str(operation)
        base = prepared(name)
        with pytest.raises(Killed):
            asyncio.run(published(InterruptedStore(base, operation), record(2), tmp_path / name / "more", keep=keep))
        assert broken_links(base) == []
        assert pointer(base) in (record(1).run_id, record(2).run_id)
        was_published = (base / "sales" / record(2).run_id / "run.json").exists()
        seen.add(was_published)
        asyncio.run(published(FolderStore(base), record(3), tmp_path / name / "next", keep=keep))
        expected = [3, *([2] if was_published else []), 1, 0][: keep.runs]
        assert [int(run_id[-6:], 16) for run_id in listed(base)] == expected
        assert latest(base) == record(3).run_id
        assert broken_links(base) == []
        records = {path.parent.name for path in base.glob("sales/*/run.json")}
        assert records == set(listed(base))
    assert seen == {False, True}


def test_two_publishers_at_once_lose_no_run_and_the_latest_never_goes_back(tmp_path: Path) -> None:
    base = tmp_path / "site"
    seen: list[str] = []

    async def one(store: FolderStore, number: int) -> None:
        await published(store, record(number), tmp_path / "made")
        seen.append(pointer(base))

    async def both() -> None:
        for pair in range(20):
            await asyncio.gather(one(FolderStore(base), 2 * pair), one(FolderStore(base), 2 * pair + 1))

    asyncio.run(both())
    assert [int(run_id[-6:], 16) for run_id in listed(base)] == [*range(39, -1, -1)]
    assert seen == sorted(seen)
    assert latest(base) == record(39).run_id
    assert broken_links(base) == []


def test_two_processes_that_publish_and_delete_at_once_agree(tmp_path: Path) -> None:
    base = tmp_path / "site"
    children = []
    for child in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for number in range(child, 20, 2):
                    made = tmp_path / "made"
                    asyncio.run(published(FolderStore(base), record(number), made, keep=Keep(runs=5), now=night(20)))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    asyncio.run(rebuild(FolderStore(base), "sales", keep=Keep(runs=5), now=night(20)))
    records = {path.parent.name for path in base.glob("sales/*/run.json")}
    assert set(listed(base)) == records
    assert record(19).run_id in records
    assert broken_links(base) == []


def test_a_store_in_which_the_index_always_changes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbrun.publishing.publish.TRIES", 3)

    class Contested(InterruptedStore):
        async def put(self, key: str, data: bytes, **given: Any) -> str:
            if key.endswith("index.html") and given.get("if_version"):
                self.refused += 1
                given["if_version"] = "another"
            return await super().put(key, data, **given)

        refused = 0

    asyncio.run(published(FolderStore(tmp_path / "site"), record(0), tmp_path / "made"))
    contested = Contested(tmp_path / "site")
    with pytest.raises(StoreError, match="other publishers replaced the index"):
        asyncio.run(published(contested, record(1), tmp_path / "made"))
    assert contested.refused == 3
