"""Which cells of a notebook run, and under which limits.

Only code cells with code run. A cell tagged ``skip-execution`` keeps what it shows; one without code is emptied, as
JupyterLab does. Errors may be expected of a cell (tag ``raises-exception``) or allowed throughout (``--allow-errors``,
or the notebook's own ``execution.allow_errors``).

A limit is looked for in the cell's own metadata (``nbrun.timeout``, ``nbrun.idle_timeout``), then in the call, then
in the notebook's metadata (``nbrun.timeout``, ``nbrun.cell_timeout``, ``nbrun.idle_timeout``, or ``execution.timeout``,
which nbmake and jupyter-cache read as the limit of a cell). Values are seconds, or text such as ``"5m"``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from nbrun.core.document import Cell, Document
from nbrun.core.durations import parse_duration
from nbrun.core.job import Job, Limits
from nbrun.core.jsontext import as_object
from nbrun.errors import NotANotebook

SKIP_TAG = "skip-execution"
RAISES_TAG = "raises-exception"
LARGEST_SOURCE = 9_500_000
"""Bytes. Servers close the socket on a message over 10 MiB."""


class Action(Enum):
    """What is done with a code cell."""

    RUN = "run"
    CLEAR = "clear"
    """It has no code: its old outputs go, nothing is sent."""
    KEEP = "keep"
    """It is to be skipped: nothing of it is touched."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What is to happen with one code cell; ``index`` is its position among all cells.

    ``before`` is code that the kernel is to run in silence before it, leaving no trace in the notebook.
    """

    index: int
    id: str | None
    source: str
    action: Action
    expects_error: bool = False
    allows_error: bool = False
    timeout: float | None = None
    idle_timeout: float | None = None
    before: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen with a notebook's code cells, in order."""

    cells: Sequence[CellPlan]
    run_timeout: float | None = None

    @property
    def to_run(self) -> Sequence[CellPlan]:
        """Give the cells that are sent to the kernel."""
        return [cell for cell in self.cells if cell.action is Action.RUN]


def make_plan(document: Document, job: Job) -> Plan:
    """Plan a run; raises :class:`NotANotebook` for limits that are none and for cells too large to send."""
    where = job.notebook
    settings = as_object(document.metadata.get("nbrun"))
    shared = as_object(document.metadata.get("execution"))
    theirs = Limits(
        run=_seconds(settings.get("timeout"), f"{where}: metadata nbrun.timeout"),
        cell=_first(
            _seconds(settings.get("cell_timeout"), f"{where}: metadata nbrun.cell_timeout"),
            _seconds(shared.get("timeout"), f"{where}: metadata execution.timeout"),
        ),
        silence=_seconds(settings.get("idle_timeout"), f"{where}: metadata nbrun.idle_timeout"),
    )
    limits = replace(
        job.limits,
        run=_first(job.limits.run, theirs.run),
        cell=_first(job.limits.cell, theirs.cell),
        silence=_first(job.limits.silence, theirs.silence),
    )
    allow_errors = job.allow_errors or shared.get("allow_errors") is True
    cells = [
        _plan_cell(index, cell, limits, f"{where}: cell {index}", allow_errors=allow_errors)
        for index, cell in document.code_cells()
    ]
    return Plan(cells, limits.run)


def with_preparation(plan: Plan, first: str, again: str, after: int | None) -> Plan:
    """Give the plan with silent code, `first` before its first cell, `again` behind the one at `after`."""
    places = [cell.index for cell in plan.to_run]
    behind = [index for index in places if after is not None and index > after]
    wanted = [(first, places[:1]), (again, behind[:1])]
    cells = [
        replace(cell, before=[code for code, where in wanted if code and cell.index in where]) for cell in plan.cells
    ]
    return replace(plan, cells=cells)


def _plan_cell(index: int, cell: Cell, limits: Limits, where: str, *, allow_errors: bool) -> CellPlan:
    tags = cell["metadata"].get("tags")
    tags = tags if isinstance(tags, list) else []
    source = cell["source"]
    own = as_object(cell["metadata"].get("nbrun"))
    if SKIP_TAG in tags:
        action = Action.KEEP
    elif source.strip():
        action = Action.RUN
        _refuse_oversize(source, where)
    else:
        action = Action.CLEAR
    cell_id = cell.get("id")
    return CellPlan(
        index,
        cell_id if isinstance(cell_id, str) else None,
        source,
        action,
        expects_error=RAISES_TAG in tags,
        allows_error=allow_errors,
        timeout=_first(_seconds(own.get("timeout"), f"{where}: metadata nbrun.timeout"), limits.cell),
        idle_timeout=_first(_seconds(own.get("idle_timeout"), f"{where}: metadata nbrun.idle_timeout"), limits.silence),
    )


def _refuse_oversize(source: str, where: str) -> None:
    size = len(source.encode("utf-8", "replace"))
    if size > LARGEST_SOURCE:
        raise NotANotebook(
            f"{where}: its source is {size / 1e6:.1f} MB; Jupyter servers take messages up to 10 MB",
            hint="Move the data that stands in the cell into a file, and read that.",
        )


def _seconds(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # nbmake and jupyter-cache write 0 or -1 for "no limit".
        return float(value) if value > 0 else math.inf
    try:
        return parse_duration(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise NotANotebook(f"{where}: {error}", hint="Mend the notebook's metadata, or take the key out.") from None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
