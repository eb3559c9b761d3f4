"""The records of published runs, from which all other pages follow.

The record of a run is the JSON object ``{report}/{run-id}/run.json``. It is written last, so a run without a record is
not published. It lists the other files of the run with their hashes. A record never changes, except that a run is
marked as retired before its files are deleted.

Runs are ordered by the time for which they were scheduled, or by their start. A run for an earlier day that is made up
for later has its place among the runs of that day.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from nbrun.core.batch.terms import Keep
from nbrun.core.formats.json_text import dumps, loads
from nbrun.core.results import Outcome
from nbrun.errors import BadFrame
from nbrun.storage.object_stores.base import ObjectStore, StoredObject

MANIFEST = "run.json"
_AT_ONCE = 16
"""Records that are read at the same time."""
_ODD = re.compile(r"[^\w.+-]+")
_LONGEST_NAME = 100
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def safe_name(name: str) -> str:
    """Return the name of a report or a notebook as one part of a path or a URL."""
    return _ODD.sub("-", name).strip("-.")[:_LONGEST_NAME] or "notebook"


def new_run_id(started: datetime) -> str:
    """Return the id of a run that starts now: ``20261130T060000Z-1a2b3c``."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Value:
    """A number in a table or the text of an output; ``key`` names its place in the notebook, ``label`` describes it."""

    key: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class NotebookRecord:
    """One notebook of a run. ``page``, ``pdf``, ``file`` and ``artefacts`` are paths in the folder of the run.

    ``name`` contains the values of a matrix. ``path`` does not, and is relative to the folder of the settings.
    """

    name: str
    outcome: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    cells: Mapping[str, int] = field(default_factory=dict)
    title: str = ""
    path: str = ""
    page: str = ""
    pdf: str = ""
    file: str = ""
    numbers: Sequence[Value] = ()
    texts: Sequence[Value] = ()
    artefacts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a run; ``path`` is relative to the folder of the run."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One invocation of a report. Times are ISO 8601 in UTC; ``scheduled`` is None for a run without a schedule.

    ``promotes`` is true if the run may become the latest one. ``retired`` is true while its files are being deleted.
    ``templated`` are the names of parameters whose values are meant to differ from run to run, such as a date.
    ``timezone`` is the name of the time zone in which times are shown; the default is UTC.
    """

    report: str
    run_id: str
    started: str
    ended: str
    seconds: float
    outcome: str
    exit_code: int
    scheduled: str | None = None
    timezone: str = ""
    message: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    templated: Sequence[str] = ()
    notebooks: Sequence[NotebookRecord] = ()
    files: Sequence[StoredFile] = ()
    promotes: bool = False
    retired: bool = False
    version: str = ""

    @property
    def passed(self) -> bool:
        """Return whether all notebooks of the run passed."""
        return self.outcome == Outcome.PASSED.value

    @property
    def when(self) -> str:
        """Return the time that the run is for."""
        return self.scheduled or self.started

    @property
    def kind(self) -> Mapping[str, Any]:
        """Return the parameters without those that differ from run to run."""
        return {name: value for name, value in self.parameters.items() if name not in self.templated}

    @property
    def is_unknown(self) -> bool:
        """Return whether the run ended before its parameters were known."""
        return self.outcome == Outcome.NOT_RUN.value and not self.parameters

    @property
    def start(self) -> datetime:
        """Return the time of the start."""
        return _time(self.started)

    @property
    def position(self) -> tuple[datetime, datetime, str]:
        """Return the position of the run in the order of runs."""
        return _time(self.when), self.start, self.run_id

    @property
    def cells(self) -> dict[str, int]:
        """Return the number of cells for each outcome."""
        total: dict[str, int] = {}
        for notebook in self.notebooks:
            for outcome, number in notebook.cells.items():
                total[outcome] = total.get(outcome, 0) + number
        return total

    def encoded(self) -> bytes:
        """Return the record as JSON."""
        return dumps(asdict(self))

    @classmethod
    def decoded(cls, data: bytes) -> Self:
        """Return the record in `data`; raise ValueError if it is none. Unknown fields are ignored."""
        try:
            known = _known(cls, loads(data))
            notebooks = [_known(NotebookRecord, each) for each in known.get("notebooks", ())]
            for notebook in notebooks:
                for name in ("numbers", "texts"):
                    notebook[name] = tuple(Value(**_known(Value, each)) for each in notebook.get(name, ()))
                notebook["artefacts"] = tuple(notebook.get("artefacts", ()))
            known["templated"] = tuple(known.get("templated", ()))
            known["notebooks"] = tuple(NotebookRecord(**each) for each in notebooks)
            known["files"] = tuple(StoredFile(**_known(StoredFile, each)) for each in known.get("files", ()))
            record = cls(**known)
            is_record = _RUN_ID.fullmatch(record.run_id) and record.position
        except (AttributeError, KeyError, TypeError, ValueError, BadFrame) as error:
            raise ValueError("not a record of a run") from error
        if not is_record:
            raise ValueError("not a record of a run")
        return record


def _known(kind: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name in kind.__dataclass_fields__}


def _time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def run_of(key: str) -> tuple[str, str] | None:
    """Return the report and the run id of the key of a record, or None for the key of another object."""
    match key.split("/"):
        case [report, run_id, name] if name == MANIFEST and _RUN_ID.fullmatch(run_id):
            return report, run_id
    return None


class PublishedHistory:
    """The records in a store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.unreadable: list[str] = []
        """The keys of records that could not be read as such."""

    async def reports(self) -> dict[str, list[str]]:
        """Return the reports and the ids of their runs, the latest start first."""
        found: dict[str, list[str]] = {}
        for key in sorted(await self.store.keys(), reverse=True):
            if run := run_of(key):
                found.setdefault(run[0], []).append(run[1])
        return dict(sorted(found.items()))

    async def records(self, report: str) -> list[RunRecord]:
        """Return the records of a report, the latest run first, without retired runs."""
        return [record for record, _ in await self.all_records(report) if not record.retired]

    async def all_records(self, report: str) -> list[tuple[RunRecord, str]]:
        """Return the records of a report with their versions, the latest run first, with retired runs."""
        keys = [key for key in await self.store.keys(f"{report}/") if (run := run_of(key)) and run[0] == report]
        limit = asyncio.Semaphore(_AT_ONCE)

        async def read(key: str) -> tuple[RunRecord, str] | None:
            async with limit:
                return self._record(key, await self.store.get(key))

        read_all = [one for one in await asyncio.gather(*map(read, keys)) if one is not None]
        return sorted(read_all, key=lambda one: one[0].position, reverse=True)

    async def record(self, report: str, run_id: str) -> RunRecord | None:
        """Return the record of a run, or None if there is none."""
        key = f"{report}/{run_id}/{MANIFEST}"
        found = self._record(key, await self.store.get(key))
        return None if found is None or found[0].retired else found[0]

    def _record(self, key: str, stored: StoredObject | None) -> tuple[RunRecord, str] | None:
        if stored is None:  # deleted since it was listed
            return None
        try:
            record = RunRecord.decoded(stored.data)
        except ValueError:
            self.unreadable.append(key)
            return None
        # A copied folder keeps the record of its origin; the place of an object decides.
        if (record.report, record.run_id) != run_of(key):
            self.unreadable.append(key)
            return None
        return record, stored.version


def latest_of(records: Sequence[RunRecord]) -> RunRecord | None:
    """Return the latest of the runs that may become the latest one; `records` have the latest run first."""
    return next((record for record in records if record.promotes), None)


def expired(records: Sequence[RunRecord], keep: Keep, now: datetime) -> list[RunRecord]:
    """Return the runs that are no longer kept; `records` have the latest run first.

    The age of a run counts from its start, so a run that was made up for is kept as long as others. The newest passed
    run and the latest run are always kept.
    """
    newest = next((record for record in records if record.passed), None)
    always = {record.run_id for record in (newest, latest_of(records)) if record is not None}
    found = []
    for place, record in enumerate(records):
        too_many = keep.runs is not None and place >= keep.runs
        too_old = keep.seconds is not None and (now - record.start).total_seconds() > keep.seconds
        if (too_many or too_old) and record.run_id not in always:
            found.append(record)
    return found
