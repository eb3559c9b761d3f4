"""The reporter that collects what a run makes, and publishes it at the end.

The files are collected in a temporary folder. If the store fails at the end, the folder is kept where the command was
called, and the message names it.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from msgspec import structs

from nbrun.core.batch.terms import Keep
from nbrun.core.events import BatchFinished, Event, RunFinished
from nbrun.core.notebook.file_reading import read_notebook
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.results import BatchResult, NotebookResult, Outcome, gravest, moment
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.publishing.comparison import values_of
from nbrun.publishing.history import MANIFEST, NotebookRecord, RunRecord, Value, new_run_id, safe_name
from nbrun.publishing.publish import publish, stored_files
from nbrun.reporters.html.reporter import Html, Look, PageMaker
from nbrun.reporters.html.visibility import Code, Failures, Rules
from nbrun.storage.object_stores.base import ObjectStore, StoreError
from nbrun.storage.object_stores.by_url import open_store
from nbrun.version import __version__


def report_name(job: str | None, notebook: str | None) -> str:
    """Return the name of a report: its job's, or the stem of its only notebook; raise :class:`UsageError`."""
    name = job or (PurePath(notebook).stem if notebook is not None else "")
    if not name:
        raise UsageError(
            "--publish: a report of several notebooks needs a name",
            hint="Define a job in [tool.nbrun.batch.NAME], and run it with nbrun batch NAME.",
        )
    return safe_name(name)


def _unmasked(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Publishing:
    """How a report is published.

    ``mask`` replaces secrets in a JSON value. ``scheduled`` is the time that the run is for.
    ``timezone`` is the zone in which times are shown; the default is UTC.
    ``parameters`` are those of all notebooks, and ``templated`` the names of those that differ from run to run.
    ``locate`` turns the path of a notebook into the one that is recorded.
    ``confirm`` raises :class:`StoreError` if the run has lost its lock.
    ``printer`` is the program that prints PDF files, or "" for none.
    """

    report: str
    keep: Keep = field(default_factory=Keep)
    always_latest: bool = False
    scheduled: datetime | None = None
    timezone: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    templated: Sequence[str] = ()
    locate: Callable[[str], str] = str
    look: Look = field(default_factory=Look)
    printer: str = ""
    mask: Callable[[Any], Any] = _unmasked
    confirm: Callable[[], Awaitable[None]] | None = None


def reachable_store(base: str) -> ObjectStore:
    """Return the store at `base`, which is reachable and writable; raise :class:`UsageError`."""
    store = open_store(base)

    async def check() -> None:
        await store.check()
        await store.keys(".nbrun-check/")  # publishing lists the records, which needs a right of its own

    try:
        asyncio.run(check())
    except StoreError as error:
        raise UsageError(f"--publish: {error}", hint=error.hint) from None
    return store


class Publication:
    """Collects a run with its pages and notebooks, and publishes it when it is closed.

    `notebook` is the notebook of a single run. A given `maker` makes the pages, and stays open. ``folder`` contains all
    files until `discard`. After `close`, ``record`` is the record of the run, ``files`` are its pages and PDF files by
    names for them, and ``published`` is its address if it is published.
    """

    def __init__(
        self,
        store: ObjectStore,
        how: Publishing,
        notebook: str | None,
        *,
        clock: Callable[[], datetime],
        maker: PageMaker | None = None,
    ) -> None:
        self.name = f"the report at {store.url}"
        self.published: str | None = None
        self.record: RunRecord | None = None
        self.files: dict[str, Path] = {}
        self._store = store
        self._how = how
        self._clock = clock
        self._began = self._ended = clock()
        self._here = Path.cwd()  # now, because a notebook may delete the folder
        self.run_id = new_run_id(self._began)
        self._scratch = tempfile.TemporaryDirectory(prefix="nbrun-publish-", ignore_cleanup_errors=True)
        self.folder = Path(self._scratch.name) / how.report
        self._stem = safe_name(PurePath(notebook).stem) if notebook is not None else ""
        self.folder.mkdir()
        self._html = Html(
            self.folder / "index.html" if self._stem else self.folder,
            local=False,
            look=how.look,
            pdf=(self.folder / f"{self._stem}.pdf" if self._stem else self.folder) if how.printer else None,
            printer=how.printer,
            home="../index.html",
            artefacts=self.folder / "artefacts",
            maker=maker,
        )
        self._results: dict[str, NotebookResult] = {}
        self._files: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._batch: BatchResult | None = None

    def observe(self, event: Event) -> None:
        """Handle an event. A secret that was passed as a parameter too is masked in notebook and page."""
        if isinstance(event, RunFinished):
            masked = replace(event.result, parameters=self._how.mask(event.result.parameters))
            event = structs.replace(event, result=masked, content=self._how.mask(event.content))
        self._html.observe(event)
        match event:
            case RunFinished(notebook, result, content, report_mode):
                self._ended = self._clock()
                self._results[notebook] = result
                self._codes[notebook] = self._how.look.code_of(report_mode=report_mode)
                if content is not None:
                    self._keep(notebook, content)
            case BatchFinished(result):
                self._batch = result
            case _:
                pass

    def _keep(self, notebook: str, content: Mapping[str, Any]) -> None:
        """Write the executed notebook beside its page."""
        stem = self._stem or self._html.stems.get(notebook)
        if stem is None:
            return
        path = self._files[notebook] = f"{stem}.ipynb"
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(notebook_text(content), encoding="utf-8")

    def close(self) -> None:
        """Publish the run; raise an error that says where its files are if that was not possible."""
        _close([self], self._store, self._how, self._clock)

    def discard(self) -> None:
        """Remove the files on this machine."""
        self._scratch.cleanup()

    def finish(self) -> None:
        """Complete the files and the record, if there is a run; raise RuntimeError if a page could not be made."""
        try:
            self._html.close()
        finally:  # a page that could not be made says so, and is published
            if not self._ran_nothing():
                self._complete()

    def _complete(self) -> None:
        record = self.record = self._record()
        for made in record.notebooks:
            for path in filter(None, (made.page, made.pdf)):
                name = f"{self._stem}.html" if self._stem and path == made.page else path.replace("/", "-")
                self.files[name] = self.folder / path
        (self.folder / MANIFEST).write_bytes(record.encoded())

    def _ran_nothing(self) -> bool:
        """Return whether there is no run to publish: all notebooks were left out, or another run held the lock."""
        if self._results:
            return all(result.outcome is Outcome.SKIPPED for result in self._results.values())
        return self._batch is not None and self._batch.exit_code is ExitCode.OK

    def rescue(self) -> Path:
        """Copy the files of the run to where the command was called, or to another temporary folder."""
        name = f"nbrun-unpublished-{self._how.report}-{self.run_id}"
        try:
            return Path(shutil.copytree(self.folder, self._here / name))
        except OSError:
            return Path(shutil.copytree(self.folder, Path(tempfile.mkdtemp(prefix="nbrun-")) / name))

    def _record(self) -> RunRecord:
        results, batch = [*self._results.values()], self._batch
        codes = [result.exit_code for result in results] or [ExitCode.USAGE]
        code = batch.exit_code if batch else gravest(*codes)
        worst = next((result for result in results if result.exit_code == code), None)
        problem = batch.problem if batch and batch.problem else worst.problem if worst else None
        shows = self._how.look.failures != Failures.HIDE
        outcome = worst.outcome.value if worst else Outcome.NOT_RUN.value
        scheduled, given = self._how.scheduled, [result.parameters for result in results]
        record = RunRecord(
            report=self._how.report,
            run_id=self.run_id,
            started=moment(self._began),
            ended=moment(self._ended),
            seconds=round((self._ended - self._began).total_seconds(), 3),
            outcome=outcome,
            exit_code=int(code),
            scheduled=moment(scheduled.astimezone(UTC)) if scheduled else None,
            timezone=self._how.timezone,
            message=problem.message if problem and shows else "",
            parameters=_common(given if any(given) else [self._how.parameters]),
            templated=tuple(self._how.templated),
            notebooks=tuple(self._notebook(name, result) for name, result in self._results.items()),
            promotes=self._how.always_latest or outcome == Outcome.PASSED.value,
            version=__version__,
        )
        return replace(_masked(record, self._how.mask), files=tuple(stored_files(self.folder)))

    def _notebook(self, name: str, result: NotebookResult) -> NotebookRecord:
        file, hidden = self._files.get(name, ""), self._codes[name] == Code.HIDE
        numbers, texts = self._values(name, result) if file else ([], [])
        shows = self._how.look.failures != Failures.HIDE
        return NotebookRecord(
            name=name,
            outcome=result.outcome.value,
            parameters=recordable(result.parameters),
            message=result.problem.message if result.problem and shows else "",
            seconds=round(result.seconds, 3),
            cells={outcome.value: number for outcome, number in result.tally().items()},
            title=self._html.titles.get(name, ""),
            path=self._how.locate(result.path),
            page=self._made(name, ".html"),
            pdf=self._made(name, ".pdf"),
            file="" if hidden else file,
            artefacts=tuple(path.relative_to(self.folder).as_posix() for _, path in self._html.files.get(name, ())),
            numbers=tuple(numbers),
            texts=tuple(texts),
        )

    def _made(self, name: str, suffix: str) -> str:
        """Return the path of the page or of the PDF file of a notebook, or "" if there is none."""
        stem = "index" if self._stem and suffix == ".html" else self._stem or self._html.stems.get(name, "")
        return f"{stem}{suffix}" if stem and (self.folder / f"{stem}{suffix}").is_file() else ""

    def _values(self, name: str, result: NotebookResult) -> tuple[list[Value], list[Value]]:
        """Return the numbers and texts of a notebook, without what its page does not show."""
        notebook = read_notebook((self.folder / self._files[name]).read_text(encoding="utf-8"))
        failing = [cell.index if cell.id is None else cell.id for cell in result.cells if cell.is_fault]
        Rules(Code(self._codes[name]), Failures(self._how.look.failures), failing).apply(notebook)
        return values_of(notebook)


class DatedPublications:
    """Collects a batch over dates, and publishes the run of each date when it is closed.

    `dates` are the notebooks of the runs of the batch and the times that they are for, by the names of the runs.
    """

    def __init__(
        self,
        store: ObjectStore,
        how: Publishing,
        dates: Mapping[str, tuple[str, datetime]],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.name = f"the report at {store.url}"
        self.published: str | None = None
        self._store = store
        self._how = how
        self._dates = dates
        self._clock = clock
        self._maker: PageMaker | None = None
        self._all: dict[datetime, Publication] = {}

    @property
    def record(self) -> RunRecord | None:
        """Return the record of the newest date."""
        return self._all[max(self._all)].record if self._all else None

    @property
    def files(self) -> dict[str, Path]:
        """Return the pages and PDF files by names for them."""
        every = self._all.items()
        return {f"{when:%Y-%m-%d}-{name}": file for when, one in every for name, file in one.files.items()}

    def observe(self, event: Event) -> None:
        """Pass an event to the run of its date."""
        _, when = self._dates.get(getattr(event, "notebook", ""), ("", None))
        if when is None or (isinstance(event, RunFinished) and not event.result.attempts):
            return  # an event of the batch, or the end of a run that never began
        if when not in self._all:
            self._maker = self._maker or PageMaker()
            notebooks = [notebook for notebook, time in self._dates.values() if time == when]
            notebook = notebooks[0] if len(notebooks) == 1 else None
            how = replace(self._how, scheduled=when)
            self._all[when] = Publication(self._store, how, notebook, clock=self._clock, maker=self._maker)
        self._all[when].observe(event)

    def close(self) -> None:
        """Publish the runs; raise an error that says where their files are if that was not possible."""
        with self._maker or nullcontext():
            _close([self._all[when] for when in sorted(self._all)], self._store, self._how, self._clock)
        if self._all:
            self.published = f"{self._store.url.rstrip('/')}/{self._how.report}/index.html"

    def discard(self) -> None:
        """Remove the files on this machine."""
        for one in self._all.values():
            one.discard()


def _close(
    publications: Sequence[Publication], store: ObjectStore, how: Publishing, clock: Callable[[], datetime]
) -> None:
    """Publish runs of one report; raise RuntimeError for what is missing. After an error no other run is tried."""
    problems, base = [], f"{store.url.rstrip('/')}/{how.report}"
    for one in publications:
        try:
            one.finish()
        except RuntimeError as error:
            problems.append(str(error))

    made = [one for one in publications if one.record is not None]
    runs = [(one.record, one.folder) for one in made if one.record is not None]
    try:
        if runs:
            asyncio.run(publish(store, runs, keep=how.keep, now=clock(), confirm=how.confirm))
    except NbrunError as error:
        raise RuntimeError(f"{error}; its files are in {', '.join(str(one.rescue()) for one in made)}") from None
    for one in made:
        one.published = f"{base}/{one.run_id}/index.html"
    if problems:
        raise RuntimeError("; ".join(problems[:5]))


def _common(parameters: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters that all notebooks of a run have, with the same value."""
    first, *others = parameters
    same = {name: value for name, value in first.items() if all(name in one and one[name] == value for one in others)}
    return dict(recordable(same))


def _masked(record: RunRecord, mask: Callable[[Any], Any]) -> RunRecord:
    """Return a record without secrets."""
    notebooks = tuple(
        replace(
            notebook,
            message=mask(notebook.message),
            title=mask(notebook.title),
            parameters=mask(notebook.parameters),
            numbers=tuple(replace(value, label=mask(value.label), text=mask(value.text)) for value in notebook.numbers),
            texts=tuple(replace(value, label=mask(value.label), text=mask(value.text)) for value in notebook.texts),
        )
        for notebook in record.notebooks
    )
    return replace(record, message=mask(record.message), parameters=mask(record.parameters), notebooks=notebooks)
