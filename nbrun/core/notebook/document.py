"""The notebook of a run as nbformat 4 data: outputs, ids, and the marks in its metadata.

A run changes only the outputs, execution counts, standard execution times, the kernel in the metadata, and the metadata
key ``nbrun``. Everything else, unknown keys included, is kept in the same minor version.

Three things are repaired, because otherwise the server's signature would not verify and the executed notebook would
open untrusted: missing or duplicate cell ids (4.5 and later), ``trusted`` flags on cells other than code, and the keys
that a server adds when it upgrades an nbformat 3 file.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbrun.core.delivery.loss_mark import Incomplete
from nbrun.core.formats.json_text import as_object
from nbrun.core.outputs.limit import Truncated
from nbrun.core.outputs.mimebundle import Output
from nbrun.core.outputs.widgets import merged_state
from nbrun.core.results import CellOutcome
from nbrun.errors import NotANotebook

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FIRST_MINOR_WITH_IDS = 5
_NOT_ON_DISK = ("orig_nbformat", "orig_nbformat_minor", "signature")

Cell = dict[str, Any]

RUNNING = "running"
"""The outcome in a notebook that was saved while the run, or the cell, was still running."""


class Document:
    """The notebook of a run."""

    def __init__(self, content: Mapping[str, Any], *, name: str = "the notebook") -> None:
        """Wrap a notebook's content without copying it; raise :class:`NotANotebook`."""
        self._content, self.cells, self.metadata = _checked(content, name)
        self.notes: list[str] = []
        """Repairs, as sentences for the user."""
        self._tidy()

    @property
    def content(self) -> dict[str, Any]:
        """Return the whole notebook in the server's format."""
        return self._content

    @property
    def has_ids(self) -> bool:
        """Return whether cells of this minor version have ids."""
        return bool(self._content["nbformat_minor"] >= _FIRST_MINOR_WITH_IDS)

    def code_cells(self) -> list[tuple[int, Cell]]:
        """Return the code cells with their positions among all cells."""
        return [(index, cell) for index, cell in enumerate(self.cells) if cell["cell_type"] == "code"]

    def clear(self, index: int) -> None:
        """Remove the results of an earlier run from a code cell, and mark it as trusted."""
        cell = self.cells[index]
        cell["outputs"] = []
        cell["execution_count"] = None
        cell["metadata"].pop("execution", None)
        cell["metadata"]["trusted"] = True
        self.mark(index, None)

    def hide_sources(self) -> None:
        """Set the metadata that hides the sources of all code cells, as in a report."""
        for _, cell in self.code_cells():
            cell["metadata"]["jupyter"] = {**as_object(cell["metadata"].get("jupyter")), "source_hidden": True}

    def record(
        self, index: int, outputs: Sequence[Output], execution_count: int | None, timing: Mapping[str, str]
    ) -> None:
        """Write the current results of this run into a code cell."""
        cell = self.cells[index]
        cell["outputs"] = list(outputs)
        cell["execution_count"] = execution_count
        if timing:
            cell["metadata"]["execution"] = dict(timing)

    def mark(
        self,
        index: int,
        outcome: CellOutcome | None,
        incomplete: Incomplete | None = None,
        truncated: Truncated | None = None,
    ) -> None:
        """Write the outcome into the cell's ``nbrun`` metadata. A cell that passed without loss gets no mark."""
        metadata = self.cells[index]["metadata"]
        ours = as_object(metadata.get("nbrun"))
        ours.pop("outcome", None)
        ours.pop("incomplete", None)
        ours.pop("truncated", None)
        if incomplete is not None:
            ours["incomplete"] = incomplete.as_dict()
        if truncated is not None:
            ours["truncated"] = truncated.as_dict()
        if outcome not in (None, CellOutcome.PASSED, CellOutcome.SKIPPED):
            ours["outcome"] = outcome.value
        _put_or_drop(metadata, "nbrun", ours)

    def mark_running(self, index: int) -> None:
        """Mark the cell as running in its ``nbrun`` metadata."""
        metadata = self.cells[index]["metadata"]
        metadata["nbrun"] = {**as_object(metadata.get("nbrun")), "outcome": RUNNING}

    def mark_run(self, record: Mapping[str, Any]) -> None:
        """Write the outcome of the run into the notebook's ``nbrun`` metadata."""
        self.metadata["nbrun"] = {**as_object(self.metadata.get("nbrun")), "run": dict(record)}

    def shown(self) -> list[Output]:
        """Return the current outputs of all code cells."""
        return [output for _, cell in self.code_cells() for output in cell["outputs"] if isinstance(output, dict)]

    def size(self) -> int:
        """Return the approximate size in characters: sources, and the texts and images of outputs."""
        return sum(len(cell["source"]) for cell in self.cells) + sum(map(_size, self.shown()))

    def set_widgets(self, state: Mapping[str, Any] | None) -> None:
        """Write the widgets' state into the notebook. Of an earlier state, only the widgets in the outputs are kept."""
        merged = merged_state(as_object(self.metadata.get("widgets")), state, self.shown())
        if merged:
            self.metadata["widgets"] = merged
        else:
            self.metadata.pop("widgets", None)

    def set_kernel(self, kernelspec: Mapping[str, str], language_info: Mapping[str, Any]) -> None:
        """Write the kernel into the metadata, as JupyterLab does when it connects to one."""
        self.metadata["kernelspec"] = dict(kernelspec)
        if language_info:
            self.metadata["language_info"] = dict(language_info)

    def _tidy(self) -> None:
        if self.metadata.get("orig_nbformat") not in (None, self._content["nbformat"]):
            self.notes.append(
                f"the file is nbformat {self.metadata['orig_nbformat']}; saving it writes nbformat "
                f"4.{self._content['nbformat_minor']}"
            )
        for key in _NOT_ON_DISK:
            self.metadata.pop(key, None)
        for cell in self.cells:
            if cell["cell_type"] == "code":
                cell.setdefault("outputs", [])
                cell.setdefault("execution_count", None)
            else:
                cell["metadata"].pop("trusted", None)
        if self.has_ids:
            self._repair_ids()
        elif any("id" in cell for cell in self.cells):
            self.notes.append(f"cells have ids, which nbformat 4.{self._content['nbformat_minor']} does not know")

    def _repair_ids(self) -> None:
        """Make the ids of all cells valid and unique. The first of two cells with the same id keeps it."""
        taken: set[str] = set()
        used = {str(cell.get("id")) for cell in self.cells}
        repaired = 0
        for index, cell in enumerate(self.cells):
            found = cell.get("id")
            if not isinstance(found, str) or not _ID.fullmatch(found) or found in taken:
                cell["id"] = _new_id(f"{index}:{cell['source']}", used)
                used.add(cell["id"])
                repaired += 1
            taken.add(cell["id"])
        if repaired:
            cells = "cell" if repaired == 1 else "cells"
            self.notes.append(f"{repaired} {cells} had no valid id of their own; saving the notebook writes new ones")


def _new_id(seed: str, used: set[str]) -> str:
    """Return an id derived from the cell, so that the same file always gets the same ids."""
    while (made := hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:8]) in used:
        seed += "'"
    return made


def _checked(content: Any, name: str) -> tuple[dict[str, Any], list[Cell], dict[str, Any]]:
    hint = "Check that the file is a Jupyter notebook (.ipynb) and not cut off or half merged."
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise NotANotebook(f"{name}: no notebook; it has no list of cells", hint=hint)
    minor = content.setdefault("nbformat_minor", 0)
    if content.get("nbformat") != 4 or not isinstance(minor, int):
        shown = f"{content.get('nbformat')}.{minor}"
        raise NotANotebook(f"{name}: nbformat {shown} is not one that nbrun knows; it runs nbformat 4", hint=hint)
    for index, cell in enumerate(content["cells"]):
        problem = _cell_problem(cell)
        if problem:
            raise NotANotebook(f"{name}: the cell at index {index}, counted from 0, {problem}", hint=hint)
        cell["metadata"] = as_object(cell.get("metadata"))
        if cell.get("source") is None:
            cell["source"] = ""  # only in a text cell: _cell_problem refuses a code cell without one
        if isinstance(cell["source"], list):
            cell["source"] = "".join(cell["source"])
    content["metadata"] = as_object(content.get("metadata"))
    return content, content["cells"], content["metadata"]


def _cell_problem(cell: Any) -> str:
    if not isinstance(cell, dict):
        return "is no object"
    if not isinstance(cell.get("cell_type"), str):
        return "does not say of which type it is"
    source = cell.get("source")
    if source is None and cell["cell_type"] != "code":
        return ""  # nbclient and papermill run such a notebook, too
    lines = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        return "has a source that is no text"
    return ""


def _size(output: Output) -> int:
    values = [output.get("text"), *as_object(output.get("data")).values()]
    return sum(len(value) for value in values if isinstance(value, str))


def _put_or_drop(metadata: dict[str, Any], key: str, value: dict[str, Any]) -> None:
    if value:
        metadata[key] = value
    else:
        metadata.pop(key, None)
