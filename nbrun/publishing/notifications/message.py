"""The message about a run: its causes, text, HTML, pictures and files."""

import base64
import binascii
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from nbrun.core.batch.schedule import spell_moment
from nbrun.core.formats.json_text import as_object
from nbrun.core.formats.tracebacks import trimmed
from nbrun.core.formats.units import spell_duration, spell_size
from nbrun.core.notebook.tags import tags_of
from nbrun.core.results import BatchResult, NotebookResult, Outcome
from nbrun.publishing.local_history import PastRun

MAIL_LIMIT = 10_000_000
"""Maximum bytes of the files and pictures of a mail together."""
_MOST_PICTURES = 6
_MOST_RUNS = 50
_TRACEBACK = 30
_HIDDEN = ("remove-output", "hide-output", "remove-cell", "hide-cell", "remove_output", "remove_cell")
_WORDS = {"failure": "failed", "recovery": "passed again", "slow": "passed, slowly", "success": "passed"}
_COMPARED = 10
"""Number of the last passed runs with which the duration of a run is compared."""
_ENOUGH = 3
_FACTOR = 2.0
_LEAST = 10.0
"""A slow run takes so many seconds longer than usual at least."""


@dataclass(slots=True)
class Message:
    """A message; ``details`` are paragraphs of lines, ``facts`` are shown as a table."""

    subject: str
    facts: Mapping[str, str] = field(default_factory=dict)
    details: Sequence[str] = ()
    pictures: Sequence[bytes] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """The attachments by their names."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """The object that HTTP hooks get."""

    @property
    def text(self) -> str:
        """Return the message as plain text."""
        width = max((len(name) for name in self.facts), default=0)
        table = "\n".join(f"{name:<{width}}  {value}" for name, value in self.facts.items())
        return "\n\n".join([self.subject, table, *self.details]) + "\n"

    def html(self, cids: Sequence[str]) -> str:
        """Return the message as HTML; `cids` are the content ids of the pictures."""
        rows = "".join(
            f'<tr><th style="text-align:left;padding-right:1em">{html.escape(name)}</th>'
            f"<td>{html.escape(value)}</td></tr>"
            for name, value in self.facts.items()
        )
        details = "".join(f'<pre style="white-space:pre-wrap">{html.escape(text)}</pre>' for text in self.details)
        pictures = "".join(f'<p><img src="cid:{cid}" alt="" style="max-width:100%"></p>' for cid in cids)
        return (
            f'<!DOCTYPE html><html><head><meta charset="utf-8"></head><body style="font-family:sans-serif">'
            f'<h1 style="font-size:1.2em">{html.escape(self.subject)}</h1><table>{rows}</table>{details}{pictures}'
            "</body></html>"
        )


def causes_of(run: PastRun, before: Sequence[PastRun]) -> list[str]:
    """Return the causes that apply to the end of `run`; `before` are the earlier runs, the newest first.

    A run recovers if the one before it failed. It is slow if it takes more than twice the median of the last ten runs
    that passed, of which there must be three. A skipped run only counts for ``always``.
    """
    found = []
    if run.outcome != Outcome.SKIPPED.value:
        found.append("failure" if run.exit_code else "success")
        counted = [one for one in before if one.outcome != Outcome.SKIPPED.value]
        if not run.exit_code and counted and counted[0].exit_code:
            found.append("recovery")
        usual = [one.seconds for one in counted if not one.exit_code][:_COMPARED]
        if len(usual) >= _ENOUGH and run.seconds > max(_FACTOR * median(usual), median(usual) + _LEAST):
            found.append("slow")
    return [*found, "always"]


def title(report: str, outcome: str, causes: Sequence[str]) -> str:
    """Return the subject of the message about the end of a run."""
    cause = next((one for one in ("failure", "recovery", "slow", "success") if one in causes), "")
    words = _WORDS.get(cause, outcome)
    shown = f" ({outcome})" if cause == "failure" and outcome != Outcome.FAILED.value else ""
    return f"nbrun: {report} {words}{shown}"


def facts_of(
    outcome: str, code: int, started: str, seconds: float, *, timezone: str = "", published: str | None = None
) -> dict[str, str]:
    """Return the facts about a run that are shown in a table, with its time in a zone and its published page."""
    when = spell_moment(started, timezone)
    facts = {"outcome": outcome, "exit code": str(code), "started": when, "took": spell_duration(seconds)}
    return facts | ({"published": published} if published else {})


def details_of(
    result: NotebookResult | BatchResult | None, error: BaseException | None, sources: Mapping[str, str], *, show: bool
) -> list[str]:
    """Return what went wrong, as paragraphs. Unless `show`, they contain no source, traceback or error message.

    `sources` are the sources of the failing cells, by notebook.
    """
    if isinstance(result, NotebookResult):
        return _details_of_run(result, sources, show=show)
    if isinstance(result, BatchResult) and result.runs:
        lines = [f"{run.path}: {run.outcome.value}" for run in result.runs[:_MOST_RUNS]]
        if len(result.runs) > _MOST_RUNS:
            lines.append(f"… and {len(result.runs) - _MOST_RUNS} more")
        failed = [one for run in result.failed[:3] for one in _details_of_run(run, sources, show=show)]
        return ["\n".join(lines), *failed]
    if error is not None and show:
        hint = getattr(error, "hint", "")
        return [getattr(error, "message", None) or str(error) or type(error).__name__, *([hint] if hint else [])]
    return []


def _details_of_run(result: NotebookResult, sources: Mapping[str, str], *, show: bool) -> list[str]:
    cell = result.failing
    if result.went_well or (cell is None and not show):
        return []
    if not show:
        assert cell is not None
        return [f"{result.path}: cell {cell.number or cell.index + 1} {cell.outcome.value}"]
    parts = [f"{result.path}: {result.problem.message}"] if result.problem else []
    if cell is not None:
        parts += [source] if (source := sources.get(result.path, "").strip()) else []
        lines = trimmed(cell.error.details) if cell.error else []
        parts += ["\n".join(lines[-_TRACEBACK:])] if lines else []
    return parts


def source_of_failure(result: NotebookResult, content: Mapping[str, Any]) -> str:
    """Return the source of the failing cell of an executed notebook, or ""."""
    cell, cells = result.failing, content.get("cells", ())
    if cell is None or cell.index >= len(cells):
        return ""
    source = cells[cell.index].get("source", "")
    return source if isinstance(source, str) else "".join(source)


def pictures_in(content: Mapping[str, Any]) -> list[bytes]:
    """Return the PNG pictures in the outputs of a notebook, without those that a page hides."""
    found: list[bytes] = []
    for cell in content.get("cells", ()):
        jupyter = as_object(as_object(cell.get("metadata")).get("jupyter"))
        if any(tag in _HIDDEN for tag in tags_of(cell)) or jupyter.get("outputs_hidden"):
            continue
        for output in cell.get("outputs", ()):
            data = output.get("data", {}).get("image/png")
            if data and len(found) < _MOST_PICTURES:
                try:
                    found.append(base64.b64decode(data if isinstance(data, str) else "".join(data)))
                except (binascii.Error, ValueError):
                    continue
    return found


def within_limit(
    files: Mapping[str, Path], pictures: Sequence[bytes]
) -> tuple[dict[str, Path], list[bytes], list[str]]:
    """Return the files and pictures that fit into a mail, and a note for each file that does not."""
    room, notes = MAIL_LIMIT, []
    kept_files, kept_pictures = {}, []
    for name, file in files.items():
        size = file.stat().st_size
        if size <= room:
            kept_files[name] = file
            room -= size
        else:
            notes.append(f"{name} ({spell_size(size)}) is too large for a mail.")
    for picture in pictures:
        if len(picture) <= room:
            kept_pictures.append(picture)
            room -= len(picture)
    return kept_files, kept_pictures, notes


def written_since(paths: Sequence[object], started: float) -> dict[str, Path]:
    """Return the pages and PDF files below `paths` that were written since `started`, in seconds since 1970.

    The keys are their names.
    """
    found = dict[str, Path]()
    for path in paths:
        place = Path(str(path)) if path else None
        if place is None or not place.exists():
            continue
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            is_page = file.suffix in (".html", ".pdf") and file.name != "index.html"
            if is_page and file.stat().st_mtime >= started - 1:
                found[_free_name(file, found)] = file
    return found


def _free_name(file: Path, taken: Mapping[str, Path]) -> str:
    """Return a name for an attachment: that of the file, or with a number if another one has it."""
    name, number = file.name, 2
    while name in taken and taken[name] != file:
        name, number = f"{file.stem}-{number}{file.suffix}", number + 1
    return name
