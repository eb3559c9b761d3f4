"""Records of runs on a fake clock, and a store that fails, for the tests of publishing."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nbrun.core.batch.terms import Keep
from nbrun.publishing.history import NotebookRecord, RunRecord, Value
from nbrun.publishing.publish import Published, publish, stored_files
from nbrun.storage.object_stores.base import ObjectState, ObjectStore, StoredObject
from nbrun.storage.object_stores.folder import FolderStore

FIRST = datetime(2026, 11, 1, 6, tzinfo=UTC)
PASSED, FAILED = "passed", "failed"


def night(number: int) -> datetime:
    """Return six o'clock of a night, counted from 0."""
    return FIRST + timedelta(days=number)


def record(
    number: int,
    outcome: str = PASSED,
    *,
    scheduled: int | None = None,
    values: Sequence[Value] = (),
    texts: Sequence[Value] = (),
    **given: Any,
) -> RunRecord:
    """Return the record of the run of a night, for that night or for the one that is `scheduled`."""
    started = night(number)
    notebook = NotebookRecord(
        "sales.ipynb",
        outcome,
        page="index.html",
        file="sales.ipynb",
        cells={"passed": 3},
        numbers=tuple(values),
        texts=tuple(texts),
    )
    fields = {
        "report": "sales",
        "run_id": f"{started:%Y%m%dT%H%M%SZ}-{number:06x}",
        "started": started.isoformat(timespec="milliseconds"),
        "ended": (started + timedelta(minutes=5)).isoformat(timespec="milliseconds"),
        "seconds": 60.0 + number,
        "outcome": outcome,
        "exit_code": int(outcome != PASSED),
        "scheduled": None if scheduled is None else night(scheduled).isoformat(timespec="milliseconds"),
        "parameters": {"day": number},
        "notebooks": (notebook,),
        "promotes": outcome == PASSED,
    }
    return RunRecord(**{**fields, **given})


def files_of(run: RunRecord, folder: Path) -> RunRecord:
    """Write a page and a notebook, and return the record with them."""
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<a href="../index.html">{run.run_id}</a>')
    (folder / "sales.ipynb").write_text(json.dumps({"run": run.run_id}))
    fields = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return RunRecord(**{**fields, "files": tuple(stored_files(folder))})


async def published(
    store: ObjectStore, run: RunRecord, folder: Path, *, keep: Keep | None = None, now: datetime | None = None
) -> Published:
    """Publish a run whose files are written to a new folder."""
    run = files_of(run, folder / run.report / run.run_id)
    return await publish(
        store,
        [(run, folder / run.report / run.run_id)],
        keep=keep or Keep(),
        now=now or run.start + timedelta(minutes=5),
    )


class Killed(BaseException):
    """Ends a publisher between two operations of its store, as SIGKILL does."""


class InterruptedStore:
    """A folder whose user is killed before an operation, counted from 0; ``operations`` counts them."""

    def __init__(self, folder: Path, killed_before: int | None = None) -> None:
        self._store = FolderStore(folder)
        self._killed_before = killed_before
        self.url = self._store.url
        self.operations = 0

    def _count(self) -> None:
        if self.operations == self._killed_before:
            raise Killed
        self.operations += 1

    async def get(self, key: str) -> StoredObject | None:
        self._count()
        return await self._store.get(key)

    async def stat(self, key: str) -> ObjectState | None:
        self._count()
        return await self._store.stat(key)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        only_new: bool = False,
        if_version: str | None = None,
    ) -> str:
        self._count()
        return await self._store.put(key, data, content_type=content_type, only_new=only_new, if_version=if_version)

    async def keys(self, prefix: str = "") -> list[str]:
        self._count()
        return await self._store.keys(prefix)

    async def delete(self, key: str) -> None:
        self._count()
        await self._store.delete(key)

    async def check(self, key: str = "") -> None:
        self._count()
        await self._store.check(key)
