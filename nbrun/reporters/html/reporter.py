"""The reporter that has each executed notebook rendered as an HTML page, and an index.

A failed notebook gets a page too. A separate process renders the pages during the runs. It reads its tasks from a pipe
and ends with the pipe, also when nbrun is killed. A thread waits for its answers. The index is written at the end.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Self
from urllib.parse import quote

from nbrun.core.events import CellFinished, Event, RunFinished, StageEntered, Warned
from nbrun.core.formats.json_text import dumps
from nbrun.core.formats.tracebacks import plain
from nbrun.core.formats.units import spell_duration
from nbrun.core.results import DELIVERED, NotebookResult, Outcome
from nbrun.reporters import phrases
from nbrun.reporters.html.visibility import Code, Failures
from nbrun.reporters.run_log import Record, RunRecord, fault_of

PAGE_LIMIT = 300.0
"""Time limit for one page in seconds."""
_Answer = tuple[str, str]
"""The answer of the process for a page: an error message or "", and the page's title."""
_ODD = re.compile(r"[^\w.+-]+")


def is_page(target: Path) -> bool:
    """Return whether the target is a page of one notebook, not a folder."""
    return target.suffix.lower() in (".html", ".htm") and not os.path.isdir(target)  # noqa: PTH112


@dataclass(frozen=True, slots=True)
class Look:
    """What pages show of sources (``show``, ``fold``, ``hide``) and of failed cells (``show``, ``hide``).

    By default sources are shown, and hidden for a run in report mode.
    """

    code: str | None = None
    failures: str = Failures.SHOW.value

    def code_of(self, *, report_mode: bool) -> str:
        """Return what the page of a run shows of sources."""
        return self.code or (Code.HIDE if report_mode else Code.SHOW).value


class Html:
    """Writes pages into a folder or one page to a file; `local` if executed notebooks are files of this machine."""

    def __init__(self, target: Path, *, local: bool, scripts: bool = False, look: Look | None = None) -> None:
        self._page = target.name if is_page(target) else ""
        self.name = f"the page {target}" if self._page else f"the pages in {target}"
        self._folder = target.absolute().parent if self._page else target.absolute()
        self._here = Path.cwd()  # now, because a notebook may delete the folder
        self._local = local
        self._scripts = scripts
        self._look = look or Look()
        self._record = Record()
        self._pages: dict[str, str] = {}
        self._made: dict[str, Future[_Answer]] = {}
        self._codes: dict[str, str] = {}
        self._problems: list[str] = []
        self._maker: _Maker | None = None
        self._spool = tempfile.TemporaryDirectory(prefix="nbrun-html-", ignore_cleanup_errors=True)

    def observe(self, event: Event) -> None:
        """Handle an event."""
        self._record.observe(event)
        match event:
            case StageEntered() if self._maker is None:
                self._maker = _Maker()  # it does its imports during the first run
            case RunFinished(notebook, result, content, report_mode):
                self._codes[notebook] = self._look.code_of(report_mode=report_mode)
                self._order(self._record.runs[notebook], result, content)
            case Warned() | CellFinished() | _:
                pass

    def _order(self, run: RunRecord, result: NotebookResult, content: Mapping[str, Any] | None) -> None:
        source = self._source(result, content)
        if source is None and self._page:
            source = Path(self._spool.name) / "nothing.ipynb"  # the page shows the error before the first cell
            source.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
        if source is None:
            return
        page = self._page or self._pages.setdefault(run.name, self._free_name(run.name))
        maker = self._maker = self._maker or _Maker()
        facts = {**self._facts(run, result), "index": "" if self._page else "../" * page.count("/") + "index.html"}
        self._made[run.name] = maker.order(self._folder / page, source, facts, scripts=self._scripts)

    def _facts(self, run: RunRecord, result: NotebookResult) -> dict[str, Any]:
        return facts_of(run, result, self._codes[run.name], self._look.failures)

    def _source(self, result: NotebookResult, content: Mapping[str, Any] | None) -> Path | None:
        """Return the file of the executed notebook, or write a temporary one if it is not on this machine."""
        if result.output and result.output != DELIVERED and (self._local or result.rescued):
            return self._here / result.output
        if content is None:
            return None
        path = Path(self._spool.name) / f"{len(self._made)}.ipynb"
        path.write_bytes(dumps(content))
        return path

    def _free_name(self, name: str) -> str:
        """Return the page's path in the folder: like the notebook's, but always within the folder."""
        path = PurePath(name)
        parts = [_ODD.sub("-", part).strip("-.") for part in path.parts if part not in ("..", ".", path.anchor)]
        stem = "/".join(part for part in parts if part).removesuffix(".ipynb") or "notebook"
        page, number = f"{stem}.html", 2
        while page.lower() in {taken.lower() for taken in self._pages.values()} | {"index.html"}:
            page, number = f"{stem}-{number}.html", number + 1
        return page

    def close(self) -> None:
        """Wait for the pages, and write the index."""
        maker = self._maker or _Maker()
        with self._spool, maker:
            titles = {}
            for name, made in self._made.items():
                problem, titles[name] = maker.result(made)
                if problem:
                    self._problems.append(f"{name}: {problem}")
            if not self._page:
                runs = [(self._facts(run, result), run, result) for run, result in self._record.finished()]
                facts = index_facts(self._record, runs, self._pages, titles)
                problem, _ = maker.result(maker.order(self._folder / "index.html", None, facts, scripts=False))
                if problem:
                    self._problems.append(problem)
            elif not self._made:
                self._problems.append("there is no executed notebook to make it of")
        if self._problems:
            raise RuntimeError("; ".join(self._problems[:5]))


class _Maker:
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

    def order(self, target: Path, source: Path | None, facts: Mapping[str, Any], *, scripts: bool) -> "Future[_Answer]":
        """Request a page."""
        asked = {
            "target": str(target),
            "source": None if source is None else str(source),
            "facts": facts,
            "scripts": scripts,
        }
        return self._thread.submit(self._ask, json.dumps(asked).encode() + b"\n")

    def result(self, made: "Future[_Answer]") -> _Answer:
        """Wait for a requested page and return its answer."""
        try:
            return made.result(PAGE_LIMIT)
        except TimeoutError:
            self._process.kill()
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
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


def facts_of(run: RunRecord, result: NotebookResult, code: str, failures: str) -> dict[str, Any]:
    """Return the values of a run for the head of its page and its row of the index; with no code, less of it all."""
    hidden, told = code == Code.HIDE, failures != Failures.HIDE
    fault = fault_of(run, result) if told else None
    problem, hint = (result.problem.message, result.problem.hint) if result.problem else ("", "")
    if problem and not told:
        problem, hint = f"The report is incomplete: {phrases.outcome(result)}.", ""
    return {
        "name": plain(run.name),
        "outcome": result.outcome.value,
        "well": result.went_well,
        "said": phrases.outcome(result),
        "tally": phrases.tally(result),
        "seconds": result.seconds,
        "took": spell_duration(result.seconds),
        "started": result.started,
        "kernel": "" if hidden else result.kernel or "",
        "attempts": result.attempts,
        "cached": result.cached,
        "problem": plain(problem),
        "hint": plain(hint),
        "warnings": [] if hidden else [plain(warning) for warning in result.warnings],
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


Run = tuple[Mapping[str, Any], RunRecord, NotebookResult]
"""A finished run and the facts for its page."""


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
