"""What happens before and after a call of nbrun: lock, history and notifications.

The command line creates a :class:`RunWatch` if an option or setting asks for one. It calls ``begin`` before anything is
run, ``release`` after the reports were written and published, and ``finish`` with whatever ended the invocation, at the
outermost level.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbrun.core.batch.schedule import spell_moment
from nbrun.core.events import Event, RunFinished
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.planning.destinations import without_credentials
from nbrun.core.results import BatchResult, NotebookResult, Outcome, gravest, moment, outcome_of
from nbrun.errors import ExitCode, NbrunError, RunSkipped, UsageError
from nbrun.publishing.local_history import LocalHistory, PastRun, report_key, state_folder
from nbrun.publishing.locks import FileLock, acquire
from nbrun.runner.stop import StopSwitch
from nbrun.storage.wait_budget import WaitBudget

if TYPE_CHECKING:
    from nbrun.publishing.missing import IsThere
    from nbrun.publishing.notifications.delivery import Delivery
    from nbrun.publishing.notifications.targets import Target
    from nbrun.publishing.reporter import DatedPublications, Publication
    from nbrun.publishing.store_lock import StoreLock
    from nbrun.storage.object_stores.base import ObjectStore

_LEAST_LIMIT = 7.0
"""Seconds for notifications and pings after stores that did not answer, whose time is taken from theirs."""
_TERMINATED_LIMIT = 4.5
"""Seconds for notifications after SIGTERM, where the sender of the signal does not wait long."""
_HISTORY_LIMIT = 3.0
"""Seconds of them to read the published history, for the causes ``recovery`` and ``slow``."""
_MOST_PICTURES = 6
_OUTCOMES = {
    ExitCode.OK: Outcome.PASSED.value,
    ExitCode.NOTEBOOK_FAILED: Outcome.FAILED.value,
    ExitCode.NOTHING_TO_RUN: Outcome.NOT_RUN.value,
    ExitCode.BUG: "bug",
    ExitCode.TERMINATED: Outcome.INTERRUPTED.value,
}


@dataclass(frozen=True, slots=True)
class Report:
    """What is run: a batch or a notebook.

    ``name`` is the name of the batch or the stem of the notebook, ``place`` what runs of it share: the folder of the
    settings, or the path of the output.
    """

    name: str
    place: str

    @property
    def key(self) -> str:
        """Return the name of its files in the state folder."""
        return report_key(self.name, self.place)


def report_of(job: str | None, notebook: str, output: str | None, folder: Path) -> Report:
    """Return what is run: the batch `job` of the settings in `folder`, or a notebook."""
    name = job or os.path.basename(notebook).removesuffix(".ipynb") or "run"  # noqa: PTH119  (may be on a server)
    return Report(name, str(folder) if job else os.path.abspath(output or notebook))  # noqa: PTH100


@dataclass(frozen=True, slots=True)
class Ending:
    """How an invocation ended: its exit code, its result if there is one, and the error that ended it otherwise."""

    code: int
    result: NotebookResult | BatchResult | None = None
    error: BaseException | None = None

    @property
    def outcome(self) -> str:
        """Return the outcome as in the result, or ``bug``."""
        if isinstance(self.error, RunSkipped):
            return Outcome.SKIPPED.value
        code = ExitCode(self.code) if self.code in list(ExitCode) else ExitCode.BUG
        if isinstance(self.result, NotebookResult) and self.result.exit_code == code:
            return self.result.outcome.value
        if code in _OUTCOMES:
            return _OUTCOMES[code]
        error = NbrunError("")
        error.exit_code = code
        return outcome_of(error).value


def _alike(run: PastRun, before: list[PastRun]) -> list[PastRun]:
    """Return the earlier runs with the parameters of `run`, or all if there are none or these are not known."""
    return [one for one in before if not run.kind or one.kind in ("", run.kind)] or before


class RunWatch:
    """One invocation, with its options by name.

    ``typed`` contains the names of the options on the command line. Raises :class:`UsageError` for invalid targets of
    notifications.
    """

    def __init__(
        self, report: Report, options: Mapping[str, Any], clock: Callable[[], datetime], typed: Container[str] = ()
    ) -> None:
        self.report = report
        self.started = clock()
        self._clock = clock
        self.history = LocalHistory(report.key)
        self.result: NotebookResult | BatchResult | None = None
        self.scheduled: datetime | None = None
        """The time that the run is for, in UTC; None for its start."""
        self.dates: Mapping[str, tuple[str, datetime]] | None = None
        """The notebooks of a batch over dates and the times that they are for, by the names of the runs."""
        self.kind: Mapping[str, Any] | None = None
        """The parameters without those that differ from run to run; None as long as they are not known."""
        self.locate: Callable[[str], str] = str
        """Returns the path of a notebook that is recorded."""
        self.pages: Sequence[Any] = ()
        """The paths of the pages and PDF files of the run."""
        self.publication: Publication | DatedPublications | None = None
        """What is published of the run."""
        self.budget = WaitBudget()
        """The time that the command waits for stores."""
        self._options = options
        self._sources: dict[str, str] = {}
        self._pictures: list[bytes] = []
        self._by_date: dict[datetime, list[NotebookResult]] = {}
        self._targets, self._ping = self._read_targets(typed)
        self._secrets = [text for one in (*self._targets, *self._ping) for text in one.secrets]
        self._delivery: Delivery | None = None
        self._lock: FileLock | None = None
        self._store_lock: StoreLock | None = None
        self._id = str(uuid.uuid4())

    def _read_targets(self, typed: Container[str]) -> tuple[list["Target"], list["Target"]]:
        notify, address = self._options.get("notify") or (), self._options.get("ping")
        if not notify and not address:
            return [], []
        from nbrun.publishing.notifications.senders import check_service
        from nbrun.publishing.notifications.targets import read_target

        targets = [read_target("--notify", one, os.environ, typed="notify" in typed) for one in notify]
        for target in targets:
            check_service(target)
        pings = [read_target("--ping", address, os.environ, typed="ping" in typed)] if address else []
        for target in pings:
            if not target.is_web:
                raise UsageError(f"{target.label}: no address on the web", hint="It begins with https://.")
        return targets, pings

    @property
    def _timezone(self) -> str:
        return self._options.get("timezone") or ""

    @property
    def secrets(self) -> Sequence[str]:
        """Return the parts of URLs that must not appear in a log."""
        return self._secrets

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these values in notifications too."""
        self._secrets += [secret for secret in secrets if secret]

    def plan(self) -> dict[str, Any]:
        """Return what the invocation would use, for ``nbrun plan``: places without credentials and names of targets."""
        from nbrun.publishing.reporter import report_name
        from nbrun.publishing.store_lock import LOCK

        base, lock = self._options.get("publish"), self._options.get("lock")
        place = f"{without_credentials(base).rstrip('/')}/{report_name(self.report.name, None)}/" if base else None
        return {
            "name": self.report.name,
            "publish": place,
            "keep": list(self._options.get("keep") or ()),
            "history": place or str(self.history.file),
            "lock": lock,
            "lock_files": [str(self._lock_file), *([f"{place}{LOCK}"] if place else [])] if lock else [],
            "notify": [target.name for target in self._targets],
            "notify_on": list(self._options.get("notify_on") or ()) if self._targets else [],
            "ping": next((target.name for target in self._ping), None),
        }

    @property
    def _lock_file(self) -> Path:
        return state_folder() / "locks" / f"{self.report.key}.lock"

    async def begin(self, stop: StopSwitch, store: "ObjectStore | None" = None, report: str = "") -> None:
        """Acquire the locks that the options ask for, and report the start; :meth:`release` is due in each case.

        `store` is where the run is published as a run of `report`. Raises :class:`UsageError` or :class:`RunSkipped` if
        another run holds a lock.
        """
        if how := self._options.get("lock"):
            end = time.monotonic() + (self._options.get("lock_timeout") or 0.0)
            self._lock = FileLock(self._lock_file)
            is_held = await acquire(self._lock, how, end, self.report.name, stop)
            if is_held and store is not None:
                from nbrun.publishing.store_lock import StoreLock

                lock = StoreLock(store, report, ended=self._lock.left_mark)
                # Before the attempt: if this process is killed, the next one on this machine knows that it has ended.
                self._lock.leave(lock.owner)
                if await acquire(lock, how, end, self.report.name, stop):
                    self._store_lock = lock
        self._report_start()

    @property
    def confirm_lock(self) -> Callable[[], Awaitable[None]] | None:
        """Return what raises an error if another run has taken the lock in the store, or None without such a lock."""
        return None if self._store_lock is None else self._store_lock.confirm

    def release(self) -> None:
        """Release the locks."""
        if self._store_lock is not None:
            self._store_lock.release()
        if self._lock is not None:
            self._lock.release()

    def observe(self, event: Event) -> None:
        """Keep the results of dates, and what messages show of a notebook: pictures and the source of a failure."""
        if isinstance(event, RunFinished) and self.dates and event.result.attempts:
            _, when = self.dates[event.notebook]
            self._by_date.setdefault(when, []).append(event.result)
        if isinstance(event, RunFinished) and event.content is not None and self._targets:
            from nbrun.publishing.notifications.message import pictures_in, source_of_failure

            self._sources[event.result.path] = source_of_failure(event.result, event.content)
            if len(self._pictures) < _MOST_PICTURES:
                self._pictures += pictures_in(event.content)[: _MOST_PICTURES - len(self._pictures)]

    def finish(self, code: int, error: BaseException | None) -> list[str]:
        """Record the end of the invocation, notify, and return warnings."""
        ending = Ending(code, self.result, error)
        took = round((self._clock() - self.started).total_seconds(), 3)
        scheduled = None if self.scheduled is None else moment(self.scheduled)
        results = self._results()
        kind, passed = self._kind(), self._passed(results)
        run = PastRun(moment(self.started), took, ending.outcome, code, scheduled, passed, kind)
        warnings = [] if self._store_lock is None else self._store_lock.warnings()
        try:
            before = self.history.runs()
            for one in [run] if self.dates is None else self._dated(kind):
                self.history.add(one)
        except OSError as failure:
            before = []
            warnings.append(f"{self.history.file}: the run cannot be recorded: {failure.strerror}")
        if self._targets or self._ping:
            from nbrun.publishing.notifications.delivery import NOTIFY_LIMIT

            limit = max(_LEAST_LIMIT, NOTIFY_LIMIT - self.budget.spent)
            limit = min(limit, _TERMINATED_LIMIT) if code == ExitCode.TERMINATED else limit
            end = time.monotonic() + limit
            try:
                before = (self._published(limit) if self._targets else []) or _alike(run, before)
            except Exception as failure:  # noqa: BLE001  (a store that fails never changes the run)
                warnings.append(f"the published runs cannot be compared: {type(failure).__name__}")
            try:
                self._notify(run, before, ending)
            except Exception as failure:  # noqa: BLE001  (a notification never changes the run)
                warnings.append(f"notifications: {type(failure).__name__}")
            warnings += self._deliver.finish(end - time.monotonic())
        return warnings

    def is_there(self) -> "IsThere":
        """Return the test whether a run passed before on this machine, for ``--missing-only``; raise OSError."""
        from nbrun.publishing.missing import in_digests

        return in_digests((digest for run in self.history.runs() for digest in run.passed), self.locate)

    def _results(self) -> Sequence[NotebookResult]:
        if isinstance(self.result, BatchResult):
            return self.result.runs
        return [] if self.result is None else [self.result]

    def _passed(self, results: Iterable[NotebookResult]) -> list[str]:
        from nbrun.publishing.missing import digest_of

        return [digest_of(self.locate(one.path), one.parameters) for one in results if one.outcome is Outcome.PASSED]

    def _kind(self) -> str:
        if self.kind is None:
            return ""
        from nbrun.core.outputs.masking import Mask
        from nbrun.publishing.missing import digest_of

        return digest_of("", Mask(self._secrets).value(recordable(self.kind)))

    def _dated(self, kind: str) -> Iterable[PastRun]:
        """Yield the run of each date of a batch over dates, without those that did not begin."""
        for when, runs in sorted(self._by_date.items()):
            code = gravest(*(one.exit_code for one in runs))
            outcome = next(one.outcome.value for one in runs if one.exit_code == code)
            started, took = min(one.started for one in runs), sum(one.seconds for one in runs)
            yield PastRun(started, round(took, 3), outcome, code, moment(when), self._passed(runs), kind)

    def _published(self, limit: float) -> list[PastRun]:
        """Return the published runs that began before this one, the newest first.

        They are those with the same parameters, apart from those with templates, if there are any. `limit` are the
        seconds for the history and the notifications together.
        """
        base = self._options.get("publish")
        if not base:
            return []
        from nbrun.publishing.history import PublishedHistory, safe_name
        from nbrun.storage.object_stores.by_url import open_store

        async def read() -> list[PastRun]:
            reading = PublishedHistory(open_store(base)).records(safe_name(self.report.name))
            records = await asyncio.wait_for(reading, min(_HISTORY_LIMIT, limit / 3))
            earlier = sorted((one for one in records if one.start < self.started), key=lambda one: one.start)
            this = None if self.publication is None else self.publication.record
            if this is not None:
                earlier = [one for one in earlier if one.kind == this.kind or one.is_unknown] or earlier
            return [PastRun(one.started, one.seconds, one.outcome, one.exit_code) for one in reversed(earlier)]

        return asyncio.run(read())

    @property
    def _deliver(self) -> "Delivery":
        if self._delivery is None:
            from nbrun.publishing.notifications.delivery import Delivery

            self._delivery = Delivery()
        return self._delivery

    def _report_start(self) -> None:
        if not self._targets and not self._ping:
            return
        from nbrun.publishing.notifications.message import Message
        from nbrun.publishing.notifications.senders import ping, send

        for target in self._ping:
            self._deliver.post(target, partial(ping, target, "start", self._id))
        if "start" in self._options["notify_on"] or "always" in self._options["notify_on"]:
            facts = {"started": spell_moment(moment(self.started), self._timezone)}
            payload = {"report": self.report.name, "causes": ["start"], "started": moment(self.started)}
            message = Message(f"nbrun: {self.report.name} started", facts, payload=payload)
            for target in self._targets:
                self._deliver.post(target, partial(send, target, message))

    def _notify(self, run: PastRun, before: Sequence[PastRun], ending: Ending) -> None:
        from nbrun.core.outputs.masking import Mask
        from nbrun.publishing.notifications.message import (
            Message,
            causes_of,
            details_of,
            facts_of,
            title,
            written_since,
        )
        from nbrun.publishing.notifications.senders import ping, send

        causes = causes_of(run, before)
        show = self._options.get("html_failures") != "hide"
        mask = Mask(self._secrets).text if self._secrets else str
        details = [mask(text) for text in details_of(ending.result, ending.error, self._sources, show=show)]
        if ending.error is None and ending.result is not None and ending.result.exit_code != run.exit_code:
            details.append("A report could not be written; the log of the run names it.")
        published = self.publication.published if self.publication is not None else None
        facts = facts_of(
            run.outcome, run.exit_code, run.started, run.seconds, timezone=self._timezone, published=published
        )
        log = "\n\n".join([f"{run.outcome}, exit code {run.exit_code}", *details])
        for target in self._ping:
            if run.outcome != Outcome.SKIPPED.value:
                what = str(run.exit_code) if run.exit_code else ""
                self._deliver.post(target, partial(ping, target, what, self._id, log))
        wanted = [cause for cause in causes if cause in self._options["notify_on"]]
        if not wanted:
            return
        subject = title(self.report.name, run.outcome, causes)
        payload = {
            "report": self.report.name,
            "causes": causes,
            **{name: value for name, value in asdict(run).items() if name != "passed"},
            "published": published,
            "text": "\n\n".join([subject, *details]),
        }
        made = self.publication.files if self.publication is not None else {}
        files = {**made, **written_since(self.pages, self.started.timestamp())}
        message = Message(subject, facts, details, self._pictures, files, payload)
        for target in self._targets:
            self._deliver.post(target, partial(send, target, message))
