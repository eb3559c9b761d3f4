"""The plan of a run: which cells run, and the time limit of each cell.

Only code cells with code run. A cell with the tag ``skip-execution`` keeps its outputs. A code cell without code loses
its outputs, as in JupyterLab. Errors can be expected in one cell (tag ``raises-exception``) or allowed in all cells
(``--allow-errors``, or ``execution.allow_errors`` in the notebook's metadata).

A limit is searched in the cell's own metadata (``nbrun.timeout``, ``nbrun.idle_timeout``), then in the call, then in
the notebook's metadata (``nbrun.timeout``, ``nbrun.cell_timeout``, ``nbrun.idle_timeout``, or ``execution.timeout``,
which nbmake and jupyter-cache use as the limit of a cell). Values are seconds, or text such as ``"5m"``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from msgspec import Struct, structs

from nbrun.core.formats.json_text import as_object
from nbrun.core.formats.units import parse_duration
from nbrun.core.notebook.document import Cell, Document
from nbrun.core.notebook.tags import RAISES_TAG, SKIP_TAG, tags_of
from nbrun.core.planning.artefacts import patterns_in
from nbrun.core.planning.job import Job, Limits
from nbrun.errors import NotANotebook

LARGEST_SOURCE = 9_500_000
"""Maximum bytes of a cell's source. Servers close the socket after a message over 10 MiB."""


class Action(Enum):
    """What the run does with a code cell."""

    RUN = "run"
    CLEAR = "clear"
    """The cell has no code. Its old outputs are removed, and nothing is sent."""
    KEEP = "keep"
    """The cell is skipped and stays unchanged."""


class CellPlan(Struct, frozen=True):
    """The plan for one code cell; ``index`` is its position among all cells.

    ``before`` is code that the kernel runs silently before the cell, without a trace in the notebook.
    """

    index: int
    id: str | None
    source: str
    action: Action
    expects_error: bool = False
    allows_error: bool = False
    timeout: float | None = None
    idle_timeout: float | None = None
    before: Sequence[str] = ()


class Plan(Struct, frozen=True):
    """The plan for a notebook's code cells, in order."""

    cells: Sequence[CellPlan]
    run_timeout: float | None = None
    artefacts: Sequence[str] = ()
    """Patterns of the files that the run writes and nbrun collects."""

    @property
    def to_run(self) -> Sequence[CellPlan]:
        """Return the cells that are sent to the kernel."""
        return [cell for cell in self.cells if cell.action is Action.RUN]

    @property
    def numbers(self) -> Mapping[int, int]:
        """Return the cell numbers used in messages, by the position among all cells.

        Only cells that run are counted, from 1. So the number equals the execution count in a new kernel.
        """
        return {cell.index: number for number, cell in enumerate(self.to_run, 1)}


def make_plan(document: Document, job: Job) -> Plan:
    """Plan a run; raise :class:`NotANotebook` for invalid limits in the metadata and for cells that are too large."""
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
    cells: list[CellPlan] = []
    number = 0
    for index, cell in document.code_cells():
        runs = _action_of(cell) is Action.RUN
        number += runs
        named = f"cell {number}" if runs else f"the cell at index {index}"
        cells.append(_plan_cell(index, cell, limits, f"{where}: {named}", allow_errors=allow_errors))
    return Plan(cells, limits.run, artefact_patterns(document, job))


def artefact_patterns(document: Document, job: Job) -> Sequence[str]:
    """Return the patterns of the call and those of the notebook's metadata (``nbrun.artefacts``).

    Raises :class:`NotANotebook` for invalid metadata.
    """
    try:
        patterns = patterns_in(as_object(document.metadata.get("nbrun")).get("artefacts"))
    except ValueError as error:
        where = f"{job.notebook}: metadata nbrun.artefacts"
        raise NotANotebook(f"{where}: {error}", hint="Mend the notebook's metadata, or take the key out.") from None
    return tuple(dict.fromkeys([*job.artefacts, *patterns]))


def with_preparation(plan: Plan, first: str, again: str, after: int | None) -> Plan:
    """Return the plan with silent code: `first` before its first cell, `again` after the cell at index `after`."""
    places = [cell.index for cell in plan.to_run]
    behind = [index for index in places if after is not None and index > after]
    wanted = [(first, places[:1]), (again, behind[:1])]
    cells = [
        structs.replace(cell, before=[*cell.before, *(code for code, where in wanted if code and cell.index in where)])
        for cell in plan.cells
    ]
    return structs.replace(plan, cells=cells)


def _plan_cell(index: int, cell: Cell, limits: Limits, where: str, *, allow_errors: bool) -> CellPlan:
    source, action = cell["source"], _action_of(cell)
    own = as_object(cell["metadata"].get("nbrun"))
    if action is Action.RUN:
        _refuse_oversize(source, where)
    cell_id = cell.get("id")
    return CellPlan(
        index,
        cell_id if isinstance(cell_id, str) else None,
        source,
        action,
        expects_error=RAISES_TAG in tags_of(cell),
        allows_error=allow_errors,
        timeout=_first(_seconds(own.get("timeout"), f"{where}: metadata nbrun.timeout"), limits.cell),
        idle_timeout=_first(_seconds(own.get("idle_timeout"), f"{where}: metadata nbrun.idle_timeout"), limits.silence),
    )


def _action_of(cell: Cell) -> Action:
    if SKIP_TAG in tags_of(cell):
        return Action.KEEP
    return Action.RUN if cell["source"].strip() else Action.CLEAR


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
