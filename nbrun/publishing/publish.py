"""Publish a run in a store, rebuild the pages about all runs, and delete old runs.

::

    BASE/index.html                       all reports
    BASE/{report}/index.html              all kept runs of a report
    BASE/{report}/latest/index.html       leads to the latest run
    BASE/{report}/latest.json             the latest run, for programs
    BASE/{report}/{run-id}/…              the files of a run, never changed
    BASE/{report}/{run-id}/run.json       its record, written last

A publisher that is killed before it wrote the record leaves objects that nothing refers to. One that is killed later
leaves an old index, which the next publisher replaces, because each derives all pages from all records.

Several publishers may work at once. A derived object is replaced only if its version is the one from before the records
were listed. A publisher whose record another one did not see has a later version, so the other one's put is refused,
and it starts again. The order of a deletion is: mark the record as retired, replace the pages, delete the files, delete
the record. Whoever finds a retired record continues there.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

from nbrun.core.batch.terms import Keep
from nbrun.core.formats.json_text import dumps
from nbrun.publishing.history import MANIFEST, PublishedHistory, RunRecord, StoredFile, expired, latest_of
from nbrun.publishing.pages import ReportSummary, latest_page, report_index, reports_index
from nbrun.storage.object_stores.base import ObjectExists, ObjectStore, StoredObject, StoreError, VersionChanged

Result = TypeVar("Result")
TRIES = 40
"""How often the pages are derived again if other publishers replace them meanwhile."""
_LONGEST_PAUSE = 0.5
INDEX, LATEST, LATEST_PAGE = "index.html", "latest.json", "latest/index.html"


@dataclass(frozen=True, slots=True)
class Published:
    """The state of a report after publishing: kept runs, latest run, deleted runs, and unreadable records."""

    report: str
    records: Sequence[RunRecord]
    latest: RunRecord | None
    deleted: Sequence[RunRecord]
    unreadable: Sequence[str] = ()


def stored_files(folder: Path) -> list[StoredFile]:
    """Return the files in a folder with their hashes, for the record of the run."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        found.append(StoredFile(name, len(data), hashlib.sha256(data).hexdigest()))
    return [each for each in found if each.path != MANIFEST]


async def publish(
    store: ObjectStore,
    runs: Sequence[tuple[RunRecord, Path]],
    *,
    keep: Keep,
    now: datetime,
    confirm: Callable[[], Awaitable[None]] | None = None,
) -> Published:
    """Publish runs of one report with the folders of their files, and rebuild the pages; raise :class:`StoreError`.

    `confirm` raises an error if the run has lost the lock of the report. It is called before the first object of a run
    is put, and again before its record, without which the run is not published.
    """
    for record, folder in runs:
        await _put_run(store, record, folder, confirm)
    published = await rebuild(store, runs[0][0].report, keep=keep, now=now)
    await rebuild_base(store)
    return published


async def _put_run(
    store: ObjectStore, record: RunRecord, folder: Path, confirm: Callable[[], Awaitable[None]] | None
) -> None:
    base = f"{record.report}/{record.run_id}"
    if confirm is not None:
        await confirm()
    for file in record.files:
        data = await asyncio.to_thread((folder / file.path).read_bytes)
        await _put_new(store, f"{base}/{file.path}", data)
    if confirm is not None:
        await confirm()
    await _put_new(store, f"{base}/{MANIFEST}", record.encoded())


async def _put_new(store: ObjectStore, key: str, data: bytes) -> None:
    try:
        await store.put(key, data, only_new=True)
    except ObjectExists:
        there = await store.get(key)
        if there is None or there.data != data:  # the same content is that of a put whose answer was lost
            raise


async def rebuild(store: ObjectStore, report: str, *, keep: Keep, now: datetime) -> Published:
    """Derive the pages of a report from its records, and delete runs that are not kept; raise :class:`StoreError`."""

    async def once() -> Published:
        there = {name: await store.get(f"{report}/{name}") for name in (LATEST, LATEST_PAGE, INDEX)}
        history = PublishedHistory(store)
        listed = await history.all_records(report)
        records = [record for record, _ in listed if not record.retired]
        gone = {record.run_id for record in expired(records, keep, now)}
        retired = [(await _retired(store, record, version)) for record, version in listed if record.run_id in gone]
        retired += [record for record, _ in listed if record.retired]
        kept = [record for record in records if record.run_id not in gone]
        latest = latest_of(kept)
        contents = {
            LATEST: dumps(_summary(latest)),
            LATEST_PAGE: latest_page(report, latest),
            INDEX: report_index(report, kept),
        }
        for name, content in contents.items():
            await _replace(store, f"{report}/{name}", there[name], content)
        for record in retired:
            await _delete(store, record)
        return Published(report, kept, latest, retired, history.unreadable)

    return await _repeated(once, f"{store.url}: {report}")


def _summary(latest: RunRecord | None) -> Mapping[str, str | None]:
    if latest is None:
        return {"run_id": None}
    page = f"{latest.run_id}/index.html"
    return {"run_id": latest.run_id, "outcome": latest.outcome, "when": latest.when, "page": page}


async def rebuild_base(store: ObjectStore) -> list[str]:
    """Derive the index of all reports, and return their names; raise :class:`StoreError`."""

    async def once() -> list[str]:
        there = await store.get(INDEX)
        history = PublishedHistory(store)
        found = []
        for report, run_ids in (await history.reports()).items():
            newest = None
            for run_id in run_ids:
                if newest := await history.record(report, run_id):
                    break
            if newest is not None:
                found.append(ReportSummary(report, newest, await _latest(history, report, newest), len(run_ids)))
        await _replace(store, INDEX, there, reports_index(found))
        return [each.report for each in found]

    return await _repeated(once, store.url)


async def _latest(history: PublishedHistory, report: str, newest: RunRecord) -> RunRecord | None:
    """Return the latest run of a report; only if the newest one is not eligible, all records are read."""
    return newest if newest.promotes and not newest.scheduled else latest_of(await history.records(report))


async def _replace(store: ObjectStore, key: str, there: StoredObject | None, content: bytes) -> None:
    if there is None:
        await store.put(key, content, only_new=True)
    elif there.data != content:
        await store.put(key, content, if_version=there.version)


async def _repeated(once: Callable[[], Awaitable[Result]], what: str) -> Result:
    """Return the result of `once`, which is repeated while other publishers replace the same objects."""
    for attempt in range(TRIES):
        try:
            return await once()
        except (ObjectExists, VersionChanged):
            await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.01 * 2**attempt)))  # noqa: S311
    raise StoreError(
        f"{what}: other publishers replaced the index {TRIES} times",
        hint="The run is published; nbrun publish BASE completes the index.",
    )


async def _retired(store: ObjectStore, record: RunRecord, version: str) -> RunRecord:
    """Mark a record as retired, and return it."""
    retired = replace(record, retired=True)
    await store.put(f"{record.report}/{record.run_id}/{MANIFEST}", retired.encoded(), if_version=version)
    return retired


async def _delete(store: ObjectStore, record: RunRecord) -> None:
    """Delete the files that the record lists, and then the record."""
    base = f"{record.report}/{record.run_id}"
    for file in record.files:
        path = PurePosixPath(file.path)
        if not path.is_absolute() and ".." not in path.parts:
            await store.delete(f"{base}/{file.path}")
    await store.delete(f"{base}/{MANIFEST}")
