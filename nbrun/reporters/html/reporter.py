"""The reporter that has each executed notebook rendered as an HTML page, and an index.

A failed notebook gets a page too. A separate process renders the pages during the runs. It reads its tasks from a pipe
and ends with the pipe, also when nbrun is killed. A thread waits for its answers. The index is written at the end.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Self
from urllib.parse import quote

from nbrun.core.batch.output_paths import free_stem
from nbrun.core.batch.schedule import spell_moment
from nbrun.core.events import CellFinished, Event, RunFinished, StageEntered, Warned
from nbrun.core.formats.json_text import dumps
from nbrun.core.formats.tracebacks import plain
from nbrun.core.formats.units import spell_duration, spell_size
from nbrun.core.planning.destinations import is_store_url
from nbrun.core.results import DELIVERED, Artefact, NotebookResult, Outcome
from nbrun.reporters import phrases
from nbrun.reporters.composite import IncompleteReport
from nbrun.reporters.html.visibility import Code, Failures
from nbrun.reporters.run_log import Record, RunRecord, fault_of

PAGE_LIMIT = 300.0
"""Time limit for one page in seconds."""
_Answer = tuple[str, str]
"""The answer of the process for a page: an error message or "", and the page's title."""


def is_page(target: Path) -> bool:
    """Return whether the target is a page of one notebook, not a folder."""
    return target.suffix.lower() in (".html", ".htm") and not os.path.isdir(target)  # noqa: PTH112


def is_pdf(target: Path) -> bool:
    """Return whether the target of PDF files is one file, and not a folder."""
    return target.suffix.lower() == ".pdf" and not os.path.isdir(target)  # noqa: PTH112


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder, or one `file` in it; ``name`` is for messages."""

    folder: Path
    file: str
    name: str
    suffix: str

    @classmethod
    def of(cls, target: Path, what: str, suffix: str, is_file: bool) -> Self:
        whole = target.absolute()
        if is_file:
            return cls(whole.parent, whole.name, f"the {what} {target}", suffix)
        return cls(whole, "", f"the {what}s in {target}", suffix)

    def target(self, stem: str) -> Path:
        """Return the file of a run."""
        return self.folder / (self.file or f"{stem}{self.suffix}")

    def files(self, stem: str) -> Path:
        """Return the folder for the artefacts of a run, beside its page."""
        return self.folder / f"{self.target(stem).relative_to(self.folder).with_suffix('')}_files"


@dataclass(frozen=True, slots=True)
class Look:
    """What pages show of sources (``show``, ``fold``, ``hide``) and of failed cells (``show``, ``hide``).

    By default sources are shown, and hidden for a run in report mode. ``scripts`` lets outputs run their scripts, with
    libraries from the environment of ``python_of`` the kernel's name, the path of its program or "". ``template`` is a
    folder with templates of the user, ``timezone`` the zone of times; the default is UTC.
    """

    code: str | None = None
    failures: str = Failures.SHOW.value
    scripts: bool = False
    template: Path | None = None
    timezone: str = ""
    python_of: Callable[[str], str] = field(default=lambda _: "", compare=False)

    def code_of(self, *, report_mode: bool) -> str:
        """Return what the page of a run shows of sources."""
        return self.code or (Code.HIDE if report_mode else Code.SHOW).value


class Html:
    """Writes pages into a folder or one page to a file; `local` if executed notebooks are files of this machine.

    With `pdf`, a folder or a file, pages are printed as PDF too, by the program `printer`. `home` is the index that a
    single page links to, if there is one. Artefacts are copied into `artefacts`, or by default beside each page. A
    given `maker` is used and stays open.
    """

    def __init__(
        self,
        target: Path | None,
        *,
        local: bool,
        look: Look | None = None,
        pdf: Path | None = None,
        printer: str = "",
        home: str = "",
        artefacts: Path | None = None,
        maker: "PageMaker | None" = None,
    ) -> None:
        pages = [_Place.of(target, "page", ".html", is_page(target))] if target else []
        pdfs = [_Place.of(pdf, "PDF", ".pdf", is_pdf(pdf))] if pdf else []
        self._places = [*pages, *pdfs]
        self._printer = printer
        self.name = " and ".join(place.name for place in self._places)
        self._here = Path.cwd()  # now, because a notebook may delete the folder
        self._local = local
        self._look = look or Look()
        self._record = Record()
        self._home = home
        self._artefacts = artefacts
        self.files: dict[str, list[tuple[Artefact, Path]]] = {}
        """The artefacts of each run with their copies beside the pages, by the names of the runs."""
        self.stems: dict[str, str] = {}
        """The paths of the files in the folder, without suffix, by the names of their runs."""
        self.titles: dict[str, str] = {}
        """The titles of the pages by the names of their runs, after `close`."""
        self._made: list[tuple[str, Future[_Answer]]] = []
        self._codes: dict[str, str] = {}
        self._problems: list[str] = []
        self._maker = maker
        self._owns_maker = maker is None
        self._spool = tempfile.TemporaryDirectory(prefix="nbrun-html-", ignore_cleanup_errors=True)

    def observe(self, event: Event) -> None:
        """Handle an event."""
        self._record.observe(event)
        match event:
            case StageEntered() if self._maker is None:
                self._maker = PageMaker()  # it does its imports during the first run
            case RunFinished(notebook, result, content, report_mode):
                self._codes[notebook] = self._look.code_of(report_mode=report_mode)
                self._order(self._record.runs[notebook], result, content)
            case Warned() | CellFinished() | _:
                pass

    def _order(self, run: RunRecord, result: NotebookResult, content: Mapping[str, Any] | None) -> None:
        source = self._source(result, content)
        if source is None and any(place.file for place in self._places):
            source = Path(self._spool.name) / "nothing.ipynb"  # the page shows the error before the first cell
            source.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
        if source is None:
            return
        stem = self._stem(run.name)
        maker = self._maker = self._maker or PageMaker()
        facts = self._facts(run, result)
        for place in self._places:
            target = place.target(stem)
            printer = self._printer if place.suffix == ".pdf" else ""
            index = "../" * stem.count("/") + "index.html"
            index = "" if printer else self._home if place.file else index
            links: dict[str, Any] = {"index": index, "up": "All runs" if place.file else "All notebooks"}
            if not printer:
                self._copy(run.name, result, place, stem)
                links["artefacts"] = self._shown(run, result, target.parent)
            made = maker.order(target, source, {**facts, **links}, self._look, printer, result.kernel or "")
            self._made.append((run.name, made))

    def _stem(self, name: str) -> str:
        """Return the path of a run's files without suffix: like the notebook's, but it stays in the folder."""
        path = PurePath(name)
        parts = [part for part in path.parts if part != path.anchor]
        return self.stems.setdefault(name, free_stem(parts, [*self.stems.values(), "index"]))

    def _facts(self, run: RunRecord, result: NotebookResult) -> dict[str, Any]:
        return facts_of(run, result, self._codes[run.name], self._look.failures, self._look.timezone)

    def _copy(self, name: str, result: NotebookResult, place: _Place, stem: str) -> None:
        """Copy the artefacts of a run to its page, before the next run may change them."""
        folder = place.files(stem)
        if self._artefacts is not None:
            folder = self._artefacts if place.file else self._artefacts / stem
        copied = self.files.setdefault(name, [])
        for artefact in result.artefacts:
            target = folder / artefact.path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._here / artefact.file, target)
                with target.open("rb") as file:
                    is_same = hashlib.file_digest(file, "sha256").hexdigest() == artefact.sha256
            except FileNotFoundError:
                continue  # a merged result names a file of another machine
            except OSError as error:
                self._problems.append(f"{name}: the artefact {artefact.path} cannot be copied: {error.strerror}")
                continue
            if is_same:
                copied.append((artefact, target))
            else:
                hint = "--cwd @scratch keeps the files of runs apart"
                self._problems.append(f"{name}: the artefact {artefact.path} was changed after the run; {hint}")

    def _shown(self, run: RunRecord, result: NotebookResult, folder: Path) -> list[dict[str, str]]:
        """Return the artefacts of a run for a page in `folder`, with links to those that were copied."""
        files = {artefact.path: file for artefact, file in self.files.get(run.name, ())}
        links = {path: quote(Path(os.path.relpath(file, folder)).as_posix()) for path, file in files.items()}
        return [{**_shown(artefact), "link": links.get(artefact.path, "")} for artefact in result.artefacts]

    def _source(self, result: NotebookResult, content: Mapping[str, Any] | None) -> Path | None:
        """Return the file of the executed notebook, or write a temporary one if it is not on this machine."""
        is_file = result.output and result.output != DELIVERED and not is_store_url(result.output)
        if result.output and is_file and (self._local or result.rescued):
            executed = self._here / result.output
            if content is None or executed.is_file():  # a merged result names a rescue file of another machine
                return executed
        if content is None:
            return None
        path = Path(self._spool.name) / f"{len(self._made)}.ipynb"
        path.write_bytes(dumps(content))
        return path

    def close(self) -> None:
        """Wait for the pages, and write the index."""
        maker = self._maker or PageMaker()
        with self._spool, maker if self._owns_maker else contextlib.nullcontext():
            for name, made in self._made:
                problem, title = maker.result(made)
                self.titles.setdefault(name, title)
                if problem:
                    self._problems.append(f"{name}: {problem}")
            for place in self._places:
                if place.file and not self._made:
                    self._problems.append("there is no executed notebook to make it of")
                elif not place.file and place.suffix == ".html":
                    runs = [
                        ({**self._facts(run, result), "artefacts": self._shown(run, result, place.folder)}, run, result)
                        for run, result in self._record.finished()
                    ]
                    pages = {name: f"{stem}.html" for name, stem in self.stems.items()}
                    facts = index_facts(self._record, runs, pages, self.titles)
                    problem, _ = maker.result(maker.order(place.folder / "index.html", None, facts, self._look))
                    if problem:
                        self._problems.append(problem)
        if self._problems:
            raise IncompleteReport("; ".join(self._problems[:5]))


class PageMaker:
    """The process that renders pages one after the other, as a context manager.

    If the process dies or takes too long for a page, the next page starts a new process.
    """

    def __init__(self) -> None:
        # Libraries print text of the notebook, which must not reach a terminal.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (it lasts as long as the maker)
        self._process = self._started()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbrun pages")

    def _started(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "nbrun.reporters.html.pages"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C ends the run, but its pages are still rendered
        )

    def order(
        self,
        target: Path,
        source: Path | None,
        facts: Mapping[str, Any],
        look: Look,
        printer: str = "",
        kernel: str = "",
    ) -> "Future[_Answer]":
        """Request a page, the index (without a source), or with a `printer` a PDF file; `kernel` is the kernel."""
        asked = {
            "target": str(target),
            "source": None if source is None else str(source),
            "facts": facts,
            "scripts": look.scripts,
            "template": None if look.template is None else str(look.template),
            "printer": printer,
            "python": look.python_of(kernel) if look.scripts and kernel else "",
        }
        return self._thread.submit(self._ask, json.dumps(asked).encode() + b"\n")

    def result(self, made: "Future[_Answer]") -> _Answer:
        """Wait for a requested page and return its answer."""
        try:
            return made.result(PAGE_LIMIT)
        except TimeoutError:
            self._end()
            return f"given up after {spell_duration(PAGE_LIMIT)}", ""

    def _ask(self, line: bytes) -> _Answer:
        if self._process.poll() is not None:
            self._closed()
            self._process = self._started()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = b""
        if not answer:
            self._process.wait()
            return self._why_ended(), ""
        problem, title = json.loads(answer)
        return problem, title

    def _closed(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _why_ended(self) -> str:
        self._said.seek(0)
        said = plain(self._said.read().decode(errors="replace")).strip().splitlines()
        return f"the process that makes pages ended: {said[-1][:200]}" if said else "the process that makes pages ended"

    def _end(self) -> None:
        """End the process early: it ends a browser that is printing at the end of its input."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._end()
        self._thread.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._closed()
        self._said.close()


def facts_of(run: RunRecord, result: NotebookResult, code: str, failures: str, timezone: str = "") -> dict[str, Any]:
    """Return the values of a run for the head of its page and its row of the index; with no code, less of it all.

    Times are in the zone `timezone`; the default is UTC.
    """
    hidden, told = code == Code.HIDE, failures != Failures.HIDE
    fault = fault_of(run, result) if told else None
    problem, hint = (result.problem.message, result.problem.hint) if result.problem else ("", "")
    if problem and not told:
        problem, hint = "The report is incomplete, because its run did not pass.", ""
    return {
        "name": plain(run.name),
        "outcome": result.outcome.value,
        "well": result.went_well,
        "said": phrases.outcome(result),
        "tally": phrases.tally(result),
        "seconds": result.seconds,
        "took": spell_duration(result.seconds),
        "started": result.started,
        "when": spell_moment(result.started, timezone) if result.started else "",
        "kernel": "" if hidden else result.kernel or "",
        "attempts": result.attempts,
        "cached": result.cached,
        "problem": plain(problem),
        "hint": plain(hint),
        "warnings": [] if hidden else [plain(warning) for warning in result.warnings],
        "artefacts": [_shown(artefact) for artefact in result.artefacts],
        "parameters": {name: str(value) for name, value in result.parameters.items()},
        "code": code,
        "failures": failures,
        "failing": [cell.index if cell.id is None else cell.id for cell in result.cells if cell.is_fault],
        "fault": {
            "id": quote(f"cell-id={fault.cell.id}", safe="=") if fault.cell.id else "",
            "title": run.title(fault.cell),
            "lines": fault.excerpt(),
            "traceback": "\n".join(fault.traceback()),
        }
        if fault
        else None,
    }


def _shown(artefact: Artefact) -> dict[str, str]:
    return {"name": plain(artefact.path), "size": spell_size(artefact.size), "link": ""}


Run = tuple[Mapping[str, Any], RunRecord, NotebookResult]
"""A finished run and the facts for its page."""


def template_problem(folder: Path) -> str:
    """Return what is wrong with a user's folder of templates, or an empty text."""
    from nbrun.reporters.html.templates import INDEX, PAGE, problem_of

    started = "2026-01-01T00:00:00+00:00"
    result = NotebookResult("0", "sample.ipynb", None, "python3", Outcome.PASSED, started, 1.0)
    run = RunRecord("sample.ipynb", result=result)
    facts = facts_of(run, result, Code.SHOW, Failures.SHOW)
    record = Record()
    record.runs[run.name] = run
    page = {
        "title": "",
        "body": {"html": "", "title_id": "", "headings": []},
        "frame": "",
        "policy": "",
        "index": "",
    }
    page |= {"colours": {"light": "", "dark": ""}}
    index = index_facts(record, [(facts, run, result)], {}, {})
    return problem_of(folder.absolute(), {PAGE: {**facts, **page}, INDEX: {**index, "policy": ""}})


def index_facts(
    record: Record, finished: Sequence[Run], pages: Mapping[str, str], titles: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values for the index page of the `finished` runs."""
    runs = [(run, result) for _, run, result in finished]
    began = {run.name: _moment(result.started) for run, result in runs}
    first = min(began.values(), default=0.0)
    last = max((began[run.name] + result.seconds for run, result in runs), default=1.0)
    span = max(last - first, 0.001)
    rows = []
    for facts, run, result in finished:
        left = 100 * (began[run.name] - first) / span
        width = max(0.4, min(100 - left, 100 * result.seconds / span))
        page, title = quote(pages[run.name]) if run.name in pages else "", titles.get(run.name, "")
        rows.append({**facts, "page": page, "title": title, "left": f"{left:.2f}", "width": f"{width:.2f}"})
    tally = {outcome: sum(result.outcome is outcome for _, result in runs) for outcome in Outcome}
    batch = record.batch
    return {
        "rows": rows,
        "tally": [(outcome.value, number) for outcome, number in tally.items() if number],
        "failed": sum(not result.went_well for _, result in runs),
        "done": "prepared" if runs and tally[Outcome.PREPARED] == len(runs) else "passed",
        "took": spell_duration(batch.seconds if batch else span),
        "span": spell_duration(span),
        "started": batch.started if batch else min((result.started for _, result in runs), default=""),
        "version": batch.version if batch else next((result.version for _, result in runs), ""),
    }


def _moment(started: str) -> float:
    try:
        return datetime.fromisoformat(started).timestamp()
    except ValueError:
        return 0.0
