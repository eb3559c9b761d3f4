"""Write results, outputs and marks (such as "output incomplete") into the notebook.

This happens during the run for the finished cells, and at the end for all. Everything is masked once more, because an
output that was merged from several messages may contain a secret that none of the messages contains. If a bug prevents
this for one cell, :meth:`Recording.salvage` still writes the others.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from nbrun.core.execution.cell import CellExecution
from nbrun.core.execution.machine import Execution
from nbrun.core.notebook.document import RUNNING, Document
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.notebook.tags import INJECTED_TAG, tags_of
from nbrun.core.outputs.masking import Mask
from nbrun.core.outputs.mimebundle import Output, stream_output
from nbrun.core.planning.job import Job
from nbrun.core.results import CellResult, NotebookResult, Outcome


class Recording:
    """Writes the results of one run into its document."""

    def __init__(self, document: Document, job: Job, mask: Mask, version: str) -> None:
        """Write to `document` according to `job`; `version` is nbrun's.

        A secret that is a parameter too is masked in the source of the injected cell. The plan has the real source.
        """
        self.document = document
        self._job = job
        self._mask = mask
        self._version = version
        self._done: set[int] = set()
        """The cells whose final results are in the document."""
        self._saves = 0
        for cell in document.cells:
            if INJECTED_TAG in tags_of(cell):
                cell["source"] = self._masked(cell["source"])

    def so_far(self, execution: Execution, started: str) -> Iterator[None]:
        """Write the results so far, one cell per step. Cells that were written in their final state are skipped."""
        for index, sent in tuple(execution.cells.items()):
            if index in self._done:
                continue
            self._put(sent, sent.execution_count)
            if sent.outcome is not None:
                self.document.mark(index, sent.outcome, sent.incomplete(), sent.area.truncated)
                self._done.add(index)
            elif sent.seen:
                self.document.mark_running(index)
            yield
        self._put_widgets(execution)
        times = {"started": started} if self._job.record_timing else {}
        self._saves += 1  # so that two saves are never identical
        self.document.mark_run({"version": self._version, "outcome": RUNNING, "saves": self._saves, **times})

    def finish(self, execution: Execution, result: NotebookResult) -> None:
        """Write the results of the finished run."""
        for cell in result.cells:
            self.document.mark(cell.index, cell.outcome, cell.incomplete, cell.truncated)
            if sent := execution.cells.get(cell.index):
                self._put(sent, cell.execution_count, self._note_of(cell))
        self._put_widgets(execution)
        times = {"started": result.started, "seconds": round(result.seconds, 3)} if self._job.record_timing else {}
        given = {"parameters": result.parameters} if result.parameters else {}
        self.document.mark_run({"version": self._version, "outcome": result.outcome.value, **times, **given})

    def salvage(self, execution: Execution) -> list[int]:
        """Write as much as possible after a bug in :meth:`finish`; return the cells whose outputs are missing.

        Such a cell keeps its earlier outputs and gets a note about the missing ones.
        """
        lost = [index for index, sent in execution.cells.items() if not self._is_salvaged(index, sent)]
        for put in (self._put_marks, self._put_widgets):
            with contextlib.suppress(Exception):
                put(execution)
        return lost

    def _is_salvaged(self, index: int, sent: CellExecution) -> bool:
        cell = self.document.cells[index]
        before = cell["outputs"]
        try:
            self._put(sent, sent.execution_count)
            _check(cell["outputs"])
        except Exception as error:  # noqa: BLE001 - the other cells must keep their outputs
            note = f"nbrun: outputs of this cell may be missing, by a bug in nbrun: {type(error).__name__}\n"
            cell["outputs"] = [*filter(_can_be_written, before), stream_output("stderr", note)]
            return False
        return True

    def _put_marks(self, execution: Execution) -> None:
        outcome = execution.ending.outcome if execution.ending else Outcome.INTERRUPTED
        self.document.mark_run({"version": self._version, "outcome": outcome.value})
        for cell in execution.results():
            self.document.mark(cell.index, cell.outcome, cell.incomplete, cell.truncated)

    def _put(self, sent: CellExecution, execution_count: int | None, notes: Sequence[Output] = ()) -> None:
        outputs = [*self._masked(sent.area.render()), *notes]
        timing = sent.timing if self._job.record_timing else {}
        self.document.record(sent.plan.index, outputs, execution_count, timing)

    def _put_widgets(self, execution: Execution) -> None:
        self.document.set_widgets(self._masked(execution.widgets(self.document.shown())))

    def _note_of(self, cell: CellResult) -> list[Output]:
        if not cell.incomplete or not self._job.note_loss:
            return []
        return [cell.incomplete.as_output()]

    def _masked(self, value: Any) -> Any:
        return self._mask.value(value) if self._mask else value


def _check(outputs: Sequence[Output]) -> None:
    """Raise an exception if outputs cannot be encoded."""
    cell: dict[str, Any] = {"cell_type": "code", "source": "", "metadata": {}}
    cell |= {"execution_count": None, "outputs": outputs}
    notebook_text({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]})


def _can_be_written(output: Output) -> bool:
    try:
        _check([output])
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
