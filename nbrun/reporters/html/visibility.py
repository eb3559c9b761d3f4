"""Remove the cells, sources, outputs and tracebacks that a page does not show; pure.

The tags are those of Jupyter Book: ``remove-…`` leaves something out, ``hide-…`` folds it away. The metadata
``jupyter.source_hidden``, ``jupyter.outputs_hidden`` and nbformat's older ``collapsed`` fold too, as in JupyterLab.

What is not shown is removed from the notebook before it is rendered, so that it is in no byte of the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.tags import INJECTED_TAG, tags_of

VIEW = "nbrun_view"
"""The metadata key of a cell for its :class:`View`, which the template uses."""
NOT_SAID = "This cell failed. The page does not show why."


class Code(StrEnum):
    """What a page shows of sources."""

    SHOW = "show"
    FOLD = "fold"
    HIDE = "hide"


class Failures(StrEnum):
    """What a page shows of a failed cell."""

    SHOW = "show"
    HIDE = "hide"


class _Part(StrEnum):
    SHOW = "show"
    FOLD = "fold"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class View:
    """How a cell is shown; ``prompts`` are ``In [3]:`` and ``Out[3]:``, ``box`` limits the height of long outputs."""

    cell: _Part = _Part.SHOW
    source: _Part = _Part.SHOW
    outputs: _Part = _Part.SHOW
    prompts: bool = True
    box: bool = True


@dataclass(frozen=True, slots=True)
class Rules:
    """What a page shows. ``failing`` are the ids of the failed cells, or their indexes if they have no id."""

    code: Code = Code.SHOW
    failures: Failures = Failures.SHOW
    failing: Sequence[str | int] = ()

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Rules":
        """Return the rules in the facts of a run."""
        return cls(Code(facts["code"]), Failures(facts["failures"]), facts["failing"])

    def apply(self, notebook: Any) -> None:
        """Remove from a notebook what the page does not show, and set the view of each other cell."""
        shown = []
        for index, cell in enumerate(notebook["cells"]):
            failed = cell.get("id", index) in self.failing
            view = self._view(cell, failed=failed)
            if view.cell is _Part.REMOVE:
                continue
            self._prune(cell, view, failed=failed)
            cell["metadata"] = {VIEW: asdict(view)}
            shown.append(cell)
        notebook["cells"] = shown
        language = as_object(notebook["metadata"].get("language_info"))
        notebook["metadata"] = {"language_info": language} if language else {}

    def _view(self, cell: Any, *, failed: bool) -> View:
        tags, metadata = tags_of(cell), as_object(cell.get("metadata"))
        box = metadata.get("scrolled") is not False
        hidden = self.code is Code.HIDE
        if failed and self.failures is Failures.SHOW:
            return View(prompts=not hidden, box=box)
        is_injected = hidden and INJECTED_TAG in tags
        if "remove-cell" in tags or is_injected:
            return View(_Part.REMOVE)
        whole = _Part.FOLD if "hide-cell" in tags else _Part.SHOW
        if cell["cell_type"] != "code":
            return View(whole)
        jupyter = as_object(metadata.get("jupyter"))
        folds = self.code is Code.FOLD or "hide-input" in tags or jupyter.get("source_hidden") is True
        source = _part(removed=hidden or "remove-input" in tags, folded=folds)
        folds = "hide-output" in tags or jupyter.get("outputs_hidden") is True or metadata.get("collapsed") is True
        outputs = _part(removed="remove-output" in tags, folded=folds)
        if source is _Part.REMOVE and (outputs is _Part.REMOVE or not cell["outputs"]):
            return View(_Part.REMOVE)
        return View(whole, source, outputs, prompts=not hidden, box=box)

    def _prune(self, cell: Any, view: View, *, failed: bool) -> None:
        if cell["cell_type"] != "code":
            return
        if view.source is _Part.REMOVE:
            cell["source"] = ""
        if view.outputs is _Part.REMOVE:
            cell["outputs"] = []
        if not view.prompts:
            cell["execution_count"] = None
        if failed and self.failures is Failures.HIDE:
            cell["outputs"] = [
                _error(NOT_SAID) if _is_error(output) else output
                for output in cell["outputs"]
                if not _is_stderr(output)
            ]
        elif not failed:
            cell["outputs"] = self._shown(cell["outputs"])

    def _shown(self, outputs: list[Any]) -> list[Any]:
        """Return the outputs of a cell that passed, or of a widget; without code, what could quote it is left out."""
        if self.code is not Code.HIDE:
            return outputs
        return [_without_source(output) for output in outputs if not _is_stderr(output)]

    def apply_to_widgets(self, models: Mapping[str, Any]) -> None:
        """Remove from the saved state of output widgets what the page does not show."""
        for model in models.values():
            state = as_object(as_object(model).get("state"))
            if isinstance(outputs := state.get("outputs"), list):
                state["outputs"] = self._shown([output for output in outputs if isinstance(output, dict)])


def _part(*, removed: bool, folded: bool) -> _Part:
    return _Part.REMOVE if removed else _Part.FOLD if folded else _Part.SHOW


def _is_error(output: Mapping[str, Any]) -> bool:
    return output.get("output_type") == "error"


def _is_stderr(output: Mapping[str, Any]) -> bool:
    """Return whether an output is standard error, in which Python's warnings quote the source."""
    return output.get("output_type") == "stream" and output.get("name") == "stderr"


def _without_source(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output without traceback. An error that the run allowed is shown by its name and message."""
    return _error(f"{output.get('ename')}: {output.get('evalue')}") if _is_error(output) else output


def _error(text: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": "", "evalue": "", "traceback": [text]}
