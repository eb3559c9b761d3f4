"""The preview of a run: its parameters, its kernel, and the cells with their limits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nbrun.core.notebook.document import Document
from nbrun.core.notebook.tags import INJECTED_TAG, tags_of
from nbrun.core.parameters.declarations import Declaration
from nbrun.core.parameters.inject import declared
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.parameters.types import UNKNOWN
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.planning.preparation import FindWriter, prepare

SPELT = {Action.RUN: "run", Action.CLEAR: "empty", Action.KEEP: "skip"}


@dataclass(frozen=True, slots=True)
class Preview:
    """The preview of a run.

    ``kernel`` is None if the notebook's kernel was not found. ``values`` are the given parameters, ``secrets`` the
    names of the given secrets. ``injected`` is the index of the cell that would set the parameters. ``artefacts`` are
    the patterns of the files that would be collected.
    """

    notebook: str
    kernel: str | None
    language: str
    declarations: Sequence[Declaration]
    values: Mapping[str, Any]
    secrets: Sequence[str]
    cells: Sequence[CellPlan]
    injected: int | None
    run_timeout: float | None
    warnings: Sequence[str]
    artefacts: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``nbrun plan --json`` writes."""
        numbers = Plan(self.cells).numbers
        return {
            "notebook": self.notebook,
            "kernel": self.kernel,
            "language": self.language,
            "parameters": [self._parameter(each) for each in self.parameters],
            "secrets": list(self.secrets),
            "run_timeout": seconds(self.run_timeout),
            "artefacts": list(self.artefacts),
            "cells": [self._cell(cell, numbers.get(cell.index)) for cell in self.cells],
            "warnings": list(self.warnings),
        }

    @property
    def parameters(self) -> Sequence[Declaration]:
        """Return the declared parameters, then the given ones that are not declared."""
        known = {each.name for each in self.declarations}
        return [*self.declarations, *(Declaration(name, UNKNOWN) for name in self.values if name not in known)]

    def _parameter(self, parameter: Declaration) -> dict[str, Any]:
        given = {"value": recordable(self.values[parameter.name])} if parameter.name in self.values else {}
        return {
            "name": parameter.name,
            "type": str(parameter.type) or None,
            "default": parameter.default or None,
            "comment": parameter.comment,
            "declared": parameter in self.declarations,
            "given": bool(given),
            **given,
        }

    def _cell(self, cell: CellPlan, number: int | None) -> dict[str, Any]:
        return {
            "index": cell.index,
            "number": number,
            "id": cell.id,
            "action": SPELT[cell.action],
            "injected": cell.index == self.injected,
            "source": cell.source,
            "timeout": seconds(cell.timeout),
            "idle_timeout": seconds(cell.idle_timeout),
            "expects_error": cell.expects_error,
            "allows_error": cell.allows_error,
        }


def make_preview(
    document: Document,
    job: Job,
    kernel: str | None,
    language: str,
    find_writer: FindWriter,
    *,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Preview:
    """Prepare `document` like a run and return the preview; raises the same errors as the run."""
    prepared = prepare(document, job, kernel or "", language, find_writer, env=env)
    injected = next((index for index, cell in document.code_cells() if INJECTED_TAG in tags_of(cell)), None)
    return Preview(
        job.notebook,
        kernel,
        language,
        declared(document, language).parameters,
        prepared.parameters,
        sorted(job.secrets),
        prepared.plan.cells,
        injected,
        prepared.plan.run_timeout,
        [*document.notes, *prepared.warnings],
        prepared.plan.artefacts,
    )


def seconds(limit: float | None) -> float | None:
    """Return a limit for JSON; None means no limit."""
    return limit if limit is not None and math.isfinite(limit) else None
