"""The pages about published runs: index of a report, latest run, index of all reports; pure.

They are computed from the records alone. All links are relative, so the pages work below any address and in a folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any
from urllib.parse import quote

from nbrun.core.batch.schedule import spell_moment
from nbrun.core.formats.tracebacks import plain
from nbrun.core.formats.units import spell_duration
from nbrun.publishing.comparison import MOST_CHANGES, Change, all_changes
from nbrun.publishing.history import NotebookRecord, RunRecord, latest_of
from nbrun.reporters.html.templates import HISTORY, LATEST, NO_SCRIPTS, REPORTS, fill
from nbrun.version import __version__

MOST_BARS = 60
"""Maximum runs in the trend."""
MOST_ARTEFACTS = 10
"""Maximum artefacts of a notebook in the index; its page links them all."""
_HEIGHT = 48


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """A report in the index of all reports: its newest start, its latest run, and the number of its runs."""

    report: str
    newest: RunRecord
    latest: RunRecord | None
    runs: int


def report_index(report: str, records: Sequence[RunRecord]) -> bytes:
    """Return the index page of a report; `records` have the latest run first."""
    changes, latest = all_changes(records), latest_of(records)
    rows = []
    for record in records:
        before, found = changes.get(record.run_id, (None, []))
        rows.append(
            {
                **_row(record),
                "page": quote(f"{record.run_id}/index.html"),
                "is_latest": record is latest,
                "before": before and {"id": before.run_id, "when": spell_moment(before.when, before.timezone)},
                "changes": [Change(*map(plain, astuple(each))) for each in found[:MOST_CHANGES]],
                "more": max(0, len(found) - MOST_CHANGES),
            }
        )
    passed = sum(record.passed for record in records)
    values = {"report": plain(report), "rows": rows, "passed": passed, "latest": latest and _row(latest)}
    longest = max((record.seconds for record in records[:MOST_BARS]), default=0.0)
    return _filled(HISTORY, {**values, "trend": trend(records), "longest": spell_duration(longest)})


def latest_page(report: str, record: RunRecord | None) -> bytes:
    """Return the page that leads to the latest run of a report."""
    row = record and {**_row(record), "page": quote(f"../{record.run_id}/index.html")}
    return _filled(LATEST, {"report": plain(report), "row": row})


def reports_index(reports: Sequence[ReportSummary]) -> bytes:
    """Return the index page of all reports."""
    rows = [
        {
            **_row(each.newest),
            "report": plain(each.report),
            "page": quote(f"{each.report}/index.html"),
            "latest": each.latest and quote(f"{each.report}/{each.latest.run_id}/index.html"),
            "runs": each.runs,
        }
        for each in reports
    ]
    return _filled(REPORTS, {"rows": rows})


def trend(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the bars of the trend, the oldest run first: durations as heights, the outcome as class."""
    shown = [*reversed(records[:MOST_BARS])]
    longest = max((record.seconds for record in shown), default=0.0) or 1.0
    bars = []
    for place, record in enumerate(shown):
        height = round(max(2.0, _HEIGHT * record.seconds / longest), 1)
        title = (
            f"{spell_moment(record.when, record.timezone)}: {_words(record.outcome)}, {spell_duration(record.seconds)}"
        )
        bar = {"x": 10 * place, "y": _HEIGHT - height, "height": height, "title": title, "outcome": record.outcome}
        bars.append({**bar, "id": record.run_id})
    return bars


def _words(outcome: str) -> str:
    return outcome.replace("-", " ")


def _row(record: RunRecord) -> dict[str, Any]:
    failed = sum(notebook.outcome != "passed" for notebook in record.notebooks)
    several = len(record.notebooks) > 1
    cells = record.cells
    of_all = f"{cells.get('passed', 0)} of {sum(cells.values()) - cells.get('skipped', 0)} cells passed"
    return {
        "id": record.run_id,
        "outcome": record.outcome,
        "said": _words(record.outcome),
        "when": spell_moment(record.when, record.timezone),
        "moment": record.when,
        "started": spell_moment(record.started, record.timezone) if record.when != record.started else "",
        "took": spell_duration(record.seconds),
        "message": plain(record.message),
        "parameters": {plain(name): plain(str(value)) for name, value in record.parameters.items()},
        "tally": f"{len(record.notebooks) - failed} of {len(record.notebooks)} notebooks passed" if several else of_all,
        "files": [
            _file(record, path)
            for notebook in record.notebooks
            for path in (notebook.pdf, notebook.file, *notebook.artefacts[:MOST_ARTEFACTS])
            if path
        ],
        "pages": [_page(record, notebook) for notebook in record.notebooks if several and notebook.page],
    }


def _file(record: RunRecord, path: str) -> dict[str, str]:
    return {"name": path.rpartition("/")[2], "link": quote(f"{record.run_id}/{path}")}


def _page(record: RunRecord, notebook: NotebookRecord) -> dict[str, str]:
    name = plain(notebook.title or notebook.name)
    return {"name": name, "link": quote(f"{record.run_id}/{notebook.page}"), "outcome": notebook.outcome}


def _filled(template: str, values: Mapping[str, Any]) -> bytes:
    text = fill(template, {"policy": NO_SCRIPTS, "version": __version__, **values}, None)
    return text.encode("utf-8", "replace")
