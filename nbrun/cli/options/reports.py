"""Options for console output and reports, and the reporters that they create."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nbrun.cli import clock
from nbrun.cli.options.generated import declared, read_fields
from nbrun.cli.standard_streams import closed
from nbrun.cli.stdio import STANDARD_ERROR, STANDARD_OUTPUT
from nbrun.core.planning.destinations import is_store_url, is_url, refuse_unreachable
from nbrun.errors import NbrunError, ServerError, UsageError
from nbrun.reporters.safe_stream import is_on_runner, own_stream
from nbrun.runner.job import BatchOptions, is_on_server, read_batch_options
from nbrun.storage.writable import check_file, check_folder, check_trace, is_file, is_folder, is_there

if TYPE_CHECKING:
    from nbrun.cli.stored_reports import StoredReports
    from nbrun.publishing.missing import IsThere
    from nbrun.publishing.reporter import DatedPublications, Publication
    from nbrun.reporters.composite import Composite, Listener
    from nbrun.reporters.console.reporter import Console

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIONS = {
    "json": click.option("--json", "json_file", metavar="FILE", help="Write the result as JSON; - is standard output."),
    "junit": click.option(
        "--junit", "junit_file", metavar="FILE", help="Write a JUnit XML report with one test case per code cell."
    ),
    "events": click.option(
        "--events",
        "events_file",
        metavar="FILE",
        help="Write each event as one line of JSON when it happens; - is standard output.",
    ),
    "html": click.option(
        "--html",
        "html_folder",
        metavar="DIR|FILE.html",
        help="Write each executed notebook as an HTML page into this folder, with an index. For a "
        "single notebook, FILE.html names the page.",
    ),
    "look": declared("html_code", "html_failures", "html_template"),
    "scripts": click.option(
        "--html-scripts", is_flag=True, help="Run scripts of outputs in HTML pages, for interactive plots."
    ),
    "pdf": declared("pdf"),
    "publish": declared("publish", "latest", "keep", "scheduled", "missing_only"),
    "github": click.option(
        "--github/--no-github",
        default=None,
        help="Write groups, annotations, the job summary and step outputs for GitHub Actions. The "
        "default is on in a job of GitHub Actions.",
    ),
    "log": click.option("--log-output/--no-log-output", help="Show the outputs of cells while they run."),
    "stdout": click.option(
        "--stdout-file", metavar="FILE", help="Write the standard output of cells to this file; - is standard output."
    ),
    "stderr": click.option(
        "--stderr-file",
        metavar="FILE",
        help="Write the standard error of cells to this file, which may be the same as --stdout-file.",
    ),
    "progress": click.option(
        "--progress-bar/--no-progress-bar",
        default=True,
        help="Show live progress on a terminal, or write plain log lines instead. The default is live progress.",
    ),
    "quiet": click.option("-q", "--quiet", is_flag=True, help="Show errors only."),
}
_OF_RUNNING = ("events", "log", "stdout", "stderr", "progress", "publish")
"""Options that show what happens while notebooks run; a merged result has none of it."""


_FILES = {
    "json_file": "--json",
    "junit_file": "--junit",
    "events_file": "--events",
    "stdout_file": "--stdout-file",
    "stderr_file": "--stderr-file",
}
TARGETS = {"html_folder": "--html", "pdf": "--pdf", **_FILES}
"""The options whose value is the path of a report."""


@dataclass(slots=True)
class ReportOptions:
    """The report options, by the names of click's parameters."""

    json_file: str | None
    junit_file: str | None
    events_file: str | None
    html_folder: str | None
    html_code: str | None
    html_failures: str
    html_template: str | None
    html_scripts: bool
    pdf: str | bool | None
    github: bool | None
    log_output: bool
    stdout_file: str | None
    stderr_file: str | None
    progress_bar: bool
    quiet: bool
    publish: str | None
    latest: str
    keep: Sequence[str]
    publishes_pdf: bool = field(default=False, init=False)

    def targets(self, options: Mapping[str, str] = TARGETS) -> dict[str, str | None]:
        """Return the paths of the reports, by their flags."""
        return {option: getattr(self, name) for name, option in options.items()}


_PAGE, _PDF = (".html", ".htm"), (".pdf",)
_HISTORY_LIMIT = 60.0
"""Seconds to read the published runs for ``--missing-only``."""
_SHOWN = (*STANDARD_OUTPUT, STANDARD_ERROR)
_STREAMS = (("stdout", "standard output", STANDARD_OUTPUT), ("stderr", "standard error", (STANDARD_ERROR,)))


def reporting_options(function: Function) -> Function:
    """Add the options for console output and reports, which :class:`Reports` uses."""
    for decorate in reversed(_OPTIONS.values()):
        function = decorate(function)
    return function


def merging_options(function: Function) -> Function:
    """Add the options for reports on runs that have ended."""
    for name in reversed(_OPTIONS):
        function = function if name in _OF_RUNNING else _OPTIONS[name](function)
    return function


def merged_reports(given: Mapping[str, Any]) -> "Reports":
    """Return the reporters of a merged batch, whose executed notebooks come with the events."""
    rest = {"events_file": None, "log_output": False, "stdout_file": None, "stderr_file": None, "progress_bar": False}
    unpublished = {"publish": None, "latest": "passed", "keep": ()}
    options = read_fields(ReportOptions, {**given, **rest, **unpublished})
    settle_pdf(options)
    for option, path in options.targets().items():
        if isinstance(path, str):
            refuse_unreachable(option, path)
    return Reports(options, read_batch_options({}), local=False)


@dataclass(frozen=True, slots=True)
class _Reporters:
    """The reporters that exist: all as one, the console, and those that the user asked for.

    ``ends`` are the types of the events that begin a batch, end a run and end a batch.
    """

    every: "Composite"
    console: "Console"
    asked: "Sequence[Listener]"
    ends: tuple[type, type, type]


class Reports:
    """All reporters of a command. `observe` and `tick` need an `open` before.

    `notebook` is the notebook of a single run, and `local` whether the executed notebooks are files of this machine;
    the default follows from the options. Raises :class:`UsageError` if a report could not be written at the end.
    """

    def __init__(
        self, given: ReportOptions, options: BatchOptions, notebook: str | None = None, *, local: bool | None = None
    ) -> None:
        self._notebook = notebook
        self._is_batch = False
        self._has_ended = False
        self._printer = ""
        self._github = _on_github() if given.github is None else given.github
        self._given = given
        self._options = options
        self._local = not is_on_server(options) if local is None else local
        self._opened: _Reporters | None = None
        self._stores: StoredReports | None = None
        self._store: Any = None
        self._report = ""
        self._publication: Publication | DatedPublications | None = None
        self.scheduled: datetime | None = None
        """The time that the run is for, or None for its start."""
        self.dates: Mapping[str, tuple[str, datetime]] | None = None
        """The notebooks of a batch over dates and the times that they are for, by the names of the runs."""
        self.timezone = ""
        """The time zone in which pages show times; the default is UTC."""
        self.templated: Sequence[str] = ()
        """The names of the parameters that differ from run to run, for the record of a published run."""
        self.locate: Callable[[str], str] = str
        """Returns the path of a notebook that is recorded."""
        self.confirm_lock: Callable[[], Awaitable[None]] | None = None
        """What raises an error before the run is published if it has lost its lock."""
        self.check()

    def reach_store(self, job: str | None, scheduled: datetime | None) -> None:
        """Open the store of the published report of a `job`; raise :class:`UsageError` if it is not reachable.

        `scheduled` is the time that the run is for, or None for its start.
        """
        self.scheduled = scheduled
        if self._given.publish is None:
            return
        from nbrun.publishing.reporter import reachable_store, report_name

        self._report = report_name(job, self._notebook)
        self._store = reachable_store(self._given.publish)

    @property
    def published_in(self) -> tuple[Any, str]:
        """Return the store where the run is published, or None, and the name of its report."""
        return self._store, self._report

    async def published_before(self) -> "IsThere | None":
        """Return the test whether a run is among the published ones and passed, or None if nothing is published."""
        if self._store is None:
            return None
        from nbrun.publishing.history import PublishedHistory
        from nbrun.publishing.missing import in_records

        try:
            async with asyncio.timeout(_HISTORY_LIMIT):
                records = await PublishedHistory(self._store).records(self._report)
        except TimeoutError:
            message = f"{self._store.url}: the published runs could not be read within {_HISTORY_LIMIT:g} s"
            raise ServerError(message) from None
        return in_records(records, self._mask(), self.locate)

    def check(self) -> None:
        """Raise :class:`UsageError` if a report could not be written at the end."""
        given = self._given
        self._keep_here()
        on_runner = self._github or is_on_runner()
        _check_streams(given, delivers=self._options["deliver"] is not None, on_runner=on_runner)
        for option, target in given.targets(_FILES).items():
            _check_file(option, target)
        if (trace := self._options["trace"]) is not None:
            check_trace("--trace", os.fspath(trace))
        _check_different(given, self._options, self._notebook)
        for option, pages, suffixes in (("--html", given.html_folder, _PAGE), ("--pdf", given.pdf, _PDF)):
            if isinstance(pages, str):
                _check_pages(option, Path(pages), suffixes, many=self._notebook is None)
        if given.publish is not None and not is_url(given.publish):
            check_folder("--publish", given.publish)
        elif given.publish is None and given.keep:
            raise UsageError("--keep needs --publish", hint="It says which published runs are kept.")
        if given.html_folder is not None or given.pdf is not None or given.publish is not None:
            self._printer = _check_look(given)

    def _keep_here(self) -> None:
        """Replace the URLs of stores by files of this machine, which are put into the stores at the end."""
        for name, option in TARGETS.items():
            target = getattr(self._given, name)
            if isinstance(target, str) and is_store_url(target):
                if self._stores is None:
                    from nbrun.cli.stored_reports import StoredReports

                    self._stores = StoredReports()
                setattr(self._given, name, self._stores.local(option, target))

    async def check_stores(self) -> None:
        """Raise :class:`UsageError` if a report's store cannot be written."""
        if self._stores is not None:
            await self._stores.check()

    def _storing(self, listener: "Listener", *paths: str | None) -> "Listener":
        return listener if self._stores is None else self._stores.storing(listener, paths)

    def open(self) -> None:
        """Import and create the reporters, once. This is separate because the imports are slow."""
        if self._opened is not None:
            return
        given = self._given
        from nbrun.core.events import BatchFinished, BatchStarted, RunFinished
        from nbrun.reporters.composite import Composite, Listener
        from nbrun.reporters.console.reporter import Console

        quiet, log_output = given.quiet, given.log_output
        progress, mask, runner = given.progress_bar, self._mask(), self._github or is_on_runner()
        console = Console(log_output=log_output, quiet=quiet, progress=progress, runner=runner, mask=mask)
        files: list[Listener] = []
        if given.json_file:
            from nbrun.reporters.jsonlines import Results

            files.append(self._storing(Results(given.json_file, lost=self.lost), given.json_file))
        if given.events_file:
            from nbrun.reporters.jsonlines import Events

            files.append(self._storing(Events(given.events_file), given.events_file))
        if given.junit_file:
            from nbrun.reporters.junit import JUnit

            files.append(self._storing(JUnit(Path(given.junit_file)), given.junit_file))
        if given.stdout_file or given.stderr_file:
            from nbrun.reporters.stream_files import stream_files

            files += stream_files(given.stdout_file, given.stderr_file)
        if given.html_folder or given.pdf:
            from nbrun.reporters.html.reporter import Html

            look = self._look()
            pages, pdf = (Path(str(target)) if target else None for target in (given.html_folder, given.pdf))
            html = Html(pages, local=self._local, look=look, pdf=pdf, printer=self._printer)
            files.append(self._storing(html, *(str(path) for path in (pages, pdf) if path)))
        if self._store is not None:
            self._publication = self._published(mask)
            files.append(self._publication)
        asked = tuple(files)
        if self._github:
            from nbrun.reporters.github.reporter import GitHub

            # Before the console, so that its group ends before the console prints the failure.
            places = {"results-json": given.json_file, "html-dir": given.html_folder}
            known = {name: str(Path(path).absolute()) for name, path in places.items() if path not in (None, "-")}
            if self._stores is not None:
                known = {name: self._stores.shown(path) for name, path in known.items()}
            files.insert(0, GitHub(known, lost=self.lost))
        every = Composite([*files[: int(self._github)], console, *files[int(self._github) :]])
        self._opened = _Reporters(every, console, asked, (BatchStarted, RunFinished, BatchFinished))

    @property
    def interval(self) -> float:
        """Return the seconds between two calls of `tick`."""
        assert self._opened is not None
        return self._opened.console.interval

    def tick(self) -> None:
        """Update the console."""
        if self._opened is not None:
            self._opened.console.tick()

    def _mask(self) -> Callable[[Any], Any]:
        """Return the function that masks secrets in a text or another JSON value."""
        if not self._options["secrets"]:
            return lambda value: value
        from nbrun.core.outputs.masking import Mask

        return Mask(self._options["secrets"].values()).value

    def _look(self) -> Any:
        from nbrun.reporters.html.reporter import Look

        given = self._given
        template = Path(given.html_template).absolute() if given.html_template else None
        look = Look(given.html_code, given.html_failures, given.html_scripts, template, self.timezone)
        if not given.html_scripts or self._options["server"]:
            return look
        from nbrun.jupyter.local_kernelspecs import other_python

        return replace(look, python_of=other_python)

    def _published(self, mask: Callable[[Any], Any]) -> "Publication | DatedPublications":
        """Return the reporter that publishes the run."""
        from nbrun.core.batch.terms import Keep
        from nbrun.publishing.reporter import DatedPublications, Publication, Publishing

        how = Publishing(
            self._report,
            Keep.parse(self._given.keep),
            always_latest=self._given.latest == "always",
            scheduled=self.scheduled,
            timezone=self.timezone,
            parameters=self._options["parameters"],
            templated=self.templated,
            locate=self.locate,
            look=self._look(),
            printer=self._printer if self._given.publishes_pdf else "",
            mask=mask,
            confirm=self.confirm_lock,
        )
        if self.dates is not None:
            return DatedPublications(self._store, how, self.dates, clock=clock.now)
        return Publication(self._store, how, self._notebook, clock=clock.now)

    def close(self) -> None:
        """Close all reporters, which write their reports."""
        if self._opened is not None:
            self._opened.every.close()
        if self._stores is not None:
            self._stores.close()
        if self._publication is not None and self._publication.published and not self._given.quiet:
            click.echo(f"nbrun: published at {self._publication.published}", err=True)

    @property
    def publication(self) -> "Publication | DatedPublications | None":
        """Return the published run, if a run is published; its files exist until `discard`."""
        return self._publication

    def discard(self, *_: object) -> list[str]:
        """Remove the temporary files of the published run, when everything that uses them has ended."""
        if self._publication is not None:
            self._publication.discard()
        return []

    def lost(self) -> list[str]:
        """Return the names of the requested reports that could not be written so far."""
        if self._opened is None:
            return []
        lost = [listener.name for listener in self._opened.every.dropped if listener in self._opened.asked]
        is_traced = getattr(self._options["trace"], "failure", None) is None
        return lost if is_traced else [*lost, "the trace"]

    def observe(self, event: Any) -> None:
        """Pass an event to all reporters."""
        assert self._opened is not None
        begins, *ends = self._opened.ends
        self._is_batch = self._is_batch or isinstance(event, begins)
        if isinstance(event, ends[self._is_batch]):
            self._has_ended = True
        # The command itself prints the error of a single run that could not start.
        is_said = not self._is_batch and getattr(event, "error", None) is not None
        self._opened.every.observe(event, all_but=self._opened.console if is_said else None)

    def could_not_begin(self, notebook: str | None, error: NbrunError) -> None:
        """Report a run or batch that could not start to all reporters except the console.

        The command prints its error itself.
        """
        from datetime import UTC, datetime

        from nbrun.core.events import BatchFinished, RunFinished
        from nbrun.core.results import BatchResult, Problem, moment, outcome_of, unexecuted
        from nbrun.version import __version__

        if self._has_ended:
            return
        if self._opened is None and self._store is not None and self.dates is not None:
            click.echo("nbrun: nothing is published, because no run of a date began", err=True)
        self.open()
        assert self._opened is not None
        every, console = self._opened.every, self._opened.console
        now, problem = datetime.now(UTC), Problem.of(error)
        if notebook is None:
            batch = BatchResult(__version__, moment(now), 0.0, problem=problem, failure=error.exit_code)
            every.observe(BatchFinished(batch), all_but=console)
            return
        result = unexecuted(notebook, outcome_of(error), problem, now)
        every.observe(RunFinished(notebook, result), all_but=console)


def _on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _check_streams(given: ReportOptions, *, delivers: bool, on_runner: bool) -> None:
    """Refuse two reports on standard output, and output of notebooks on a stream that a CI runner reads."""
    there = ["--output"] if delivers else []
    files = given.targets(_FILES)
    there += [option for option, target in files.items() if own_stream(target) == "stdout"]
    if len(there) > 1 and there != ["--stdout-file", "--stderr-file"]:
        raise UsageError(f"{' - and '.join(there)} -: only one of them can have standard output")
    for option, target in files.items():
        for stream, words, names in _STREAMS:
            if target in names and stream in closed:
                raise UsageError(f"{option} {target}: {words} is closed", hint="Name a file.")
    for option in ("--stdout-file", "--stderr-file", "--junit"):
        if on_runner and own_stream(files[option]):
            hint = "Name a file." if option == "--junit" else "--log-output shows outputs without that."
            raise UsageError(
                f"{option} {files[option]}: the CI runner would take commands from what notebooks write there",
                hint=hint,
            )


def _check_different(given: ReportOptions, options: BatchOptions, notebook: str | None) -> None:
    """Refuse two reports in one file, and a report in a notebook's file. The two streams of cells may share a file."""
    pages = {"html_folder": "--html"} if _is_file(given.html_folder, _PAGE) else {}
    pages |= {"pdf": "--pdf"} if _is_file(given.pdf, _PDF) else {}
    others = {"--trace": options["trace"], "--journal": options["journal"]}
    files = [
        (option, os.path.realpath(target))
        for option, target in {**given.targets({**_FILES, **pages}), **others}.items()
        if target is not None and target not in _SHOWN and (is_file(target) or not is_there(target))
    ]
    saved = () if is_on_server(options) else (notebook, options["output"])
    notebooks = [os.path.realpath(name) for name in saved if name is not None]
    for option, path in files:
        if path in notebooks or path.lower().endswith(".ipynb"):
            raise UsageError(f"{option} {path}: a report does not go into a notebook", hint="Name another file.")
    for option, path in files:
        also = next((other for other, same in files if same == path and other != option), None)
        if also and {option, also} != {"--stdout-file", "--stderr-file"}:
            raise UsageError(f"{option} and {also} name the same file, {path}")


def _check_file(option: str, target: str | None) -> None:
    """Raise :class:`UsageError` before the run if a report cannot be written."""
    if target is not None and target not in _SHOWN:
        check_file(option, target)


def settle_pdf(given: ReportOptions) -> None:
    """Replace ``pdf = true`` by a path beside the pages, if they are not only published.

    Raises :class:`UsageError` if there are no pages.
    """
    given.publishes_pdf = given.publish is not None and given.pdf is not None
    if given.pdf is not True:
        return
    pages = given.html_folder
    if pages is None and given.publishes_pdf:
        given.pdf = None
        return
    if pages is None:
        raise UsageError(
            "pdf = true writes PDF files beside the pages, and there is no --html and no --publish",
            hint="Name a folder.",
        )
    given.pdf = f"{pages.rpartition('.')[0]}.pdf" if _is_file(pages, _PAGE) else pages


def _is_file(target: str | bool | None, suffixes: tuple[str, ...]) -> bool:
    return isinstance(target, str) and target.lower().endswith(suffixes) and not is_folder(target)


def _check_pages(option: str, target: Path, suffixes: tuple[str, ...], *, many: bool) -> None:
    """Raise :class:`UsageError` for a place where pages or PDF files cannot be written."""
    if _is_file(str(target), suffixes):
        if many:
            what = "page" if suffixes is _PAGE else "PDF file"
            raise UsageError(f"{option} {target}: one {what} is for one notebook", hint="For several, name a folder.")
        check_file(option, target)
    else:
        check_folder(option, target)
        if suffixes is _PAGE:
            check_file(option, target / "index.html")


def _check_look(given: ReportOptions) -> str:
    """Raise :class:`UsageError` if pages could not be made; return the program that prints PDF files."""
    from importlib.util import find_spec

    asked = {"--html": given.html_folder, "--publish": given.publish, "--pdf": given.pdf}
    option = next(option for option, target in asked.items() if target is not None)
    missing = [name for name in ("nbconvert", "jinja2", "nh3", "tinycss2", "math_core") if find_spec(name) is None]
    if missing:
        hint = "pip install 'jupyter-nbrun[html]'"
        raise UsageError(f"{option} needs {missing[0]}, which is not installed", hint=hint)
    if given.html_template is not None:
        from nbrun.reporters.html.reporter import template_problem

        folder = Path(given.html_template)
        problem = template_problem(folder) if is_folder(folder) else "there is no such folder"
        if problem:
            raise UsageError(f"--html-template {folder}: {problem}", hint="docs/reporters.md describes the files.")
    return "" if given.pdf is None and not given.publishes_pdf else _printer()


def _printer() -> str:
    from nbrun.reporters.html.printing import PrintFailed, find_printer

    try:
        printer = find_printer(os.environ)
    except PrintFailed as error:
        raise UsageError(f"--pdf: {error}", hint="Name a browser of the Chromium family.") from None
    if printer is None:
        raise UsageError(
            "--pdf needs a browser of the Chromium family, or WeasyPrint",
            hint="Install Chromium, name a browser in NBRUN_BROWSER, or pip install 'jupyter-nbrun[pdf]'.",
        )
    return printer
