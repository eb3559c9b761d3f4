"""The cache key of a run, and how cached outputs are put back into the notebook; pure.

The key covers everything that decides the outputs: the sources of the code cells, the tags that affect their execution,
the parameters, the kernel, the files that the notebook declares (``nbrun.depends`` in its metadata), and nbrun's major
version. Text cells, titles and ids are not part of the key. Outputs are put back by the order of the code cells.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from nbrun.core.formats.json_text import as_object, dumps
from nbrun.core.notebook.document import Cell, Document
from nbrun.core.notebook.tags import INJECTED_TAG, PARAMETERS_TAG, RAISES_TAG, SKIP_TAG, tags_of
from nbrun.core.outputs.mimebundle import Output
from nbrun.core.planning.job import Job
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome

FORMAT = 2
"""The format of cache entries. A new number invalidates all older entries."""
_STEERING = (SKIP_TAG, RAISES_TAG, PARAMETERS_TAG)


class Ingredients(Struct, frozen=True):
    """The parts of the key besides the notebook and the job.

    ``kernel`` describes the kernel as far as it is known. ``inputs`` contains the hash of each declared file by its
    path. ``cwd`` is the kernel's working folder relative to the notebook's.
    """

    parameters: Mapping[str, Any]
    kernel: Mapping[str, Any]
    inputs: Mapping[str, str]
    version: str
    cwd: str = "."


def declared_inputs(document: Document) -> list[str]:
    """Return the patterns of the files that a notebook declares as inputs, relative to its folder."""
    declared = as_object(document.metadata.get("nbrun")).get("depends")
    declared = [declared] if isinstance(declared, str) else declared
    return [pattern for pattern in declared if isinstance(pattern, str)] if isinstance(declared, list) else []


def run_hash(document: Document, job: Job, ingredients: Ingredients) -> str:
    """Return the key of a run: 64 hexadecimal digits."""
    known = {
        "format": FORMAT,
        "version": ingredients.version.split(".")[0],
        "cells": [
            [cell["source"], [tag for tag in sorted(_STEERING) if tag in tags_of(cell)]]
            for cell in _written_cells(document)
        ],
        "parameters": {name: repr(value) for name, value in sorted(ingredients.parameters.items())},
        "kernel": ingredients.kernel,
        "inputs": dict(sorted(ingredients.inputs.items())),
        **({"env": sorted(job.env.items())} if job.env else {}),
        "options": [job.allow_errors, job.raw_streams, job.report_mode, job.language or "", ingredients.cwd],
    }
    return hashlib.sha256(dumps(known)).hexdigest()


def cached_outputs(document: Document) -> dict[str, Any]:
    """Return the part of an executed notebook that is cached."""
    kept: list[dict[str, Any]] = []
    for _, cell in document.code_cells():
        entry: dict[str, Any] = {name: cell[name] for name in ("outputs", "execution_count")}
        if _is_injected(cell):
            entry["injected"] = {name: value for name, value in cell.items() if name != "id"}
        kept.append(entry)
    metadata = {
        name: document.metadata[name]
        for name in ("kernelspec", "language_info", "widgets")
        if name in document.metadata
    }
    run = as_object(as_object(document.metadata.get("nbrun")).get("run"))
    return {"format": FORMAT, "run": run, "metadata": metadata, "cells": kept}


def cached_results(result: NotebookResult) -> dict[str, Any]:
    """Return the part of a result that is cached."""
    return {"kernel": result.kernel, "cells": [cell.as_dict() for cell in result.cells]}


def is_cacheable(result: NotebookResult) -> bool:
    """Return whether a result may be cached: it passed, and no output was lost."""
    return result.outcome is Outcome.PASSED and not any(cell.incomplete for cell in result.cells)


class Restored(Struct, frozen=True):
    """The cached results of the cells, and the kernel's name."""

    kernel: str | None
    cells: Sequence[CellResult] = field(default_factory=tuple)


def restore(document: Document, outputs: Mapping[str, Any], results: Mapping[str, Any]) -> Restored | None:
    """Put cached outputs into a notebook; return None, without a change, if they do not match."""
    kept, cell_results = outputs.get("cells"), results.get("cells")
    if outputs.get("format") != FORMAT or not isinstance(kept, list) or not isinstance(cell_results, list):
        return None
    written = [cell for cell in kept if "injected" not in cell]
    if len(written) != len(_written_cells(document)) or len(kept) != len(cell_results):
        return None
    _inject(document, kept)
    found = []
    for (index, cell), held, result in zip(document.code_cells(), kept, cell_results, strict=True):
        shown: list[Output] = held["outputs"]
        cell["outputs"], cell["execution_count"] = shown, held["execution_count"]
        found.append(_result(index, cell, result))
        document.mark(index, found[-1].outcome)
    document.metadata.update(outputs["metadata"])
    document.mark_run(outputs["run"])
    return Restored(results["kernel"], found)


def _inject(document: Document, kept: Sequence[Mapping[str, Any]]) -> None:
    """Replace the injected cells by those of the cached run, each after the same number of other code cells."""
    document.cells[:] = [cell for cell in document.cells if cell["cell_type"] != "code" or not _is_injected(cell)]
    places = [index for index, _ in document.code_cells()]
    before = 0
    added = 0
    for held in kept:
        if "injected" not in held:
            before += 1
            continue
        cell = {**held["injected"]}
        if document.has_ids:
            cell["id"] = f"injected-{added + 1}"
        place = places[before - 1] + 1 if before else (places[0] if places else 0)
        document.cells.insert(place + added, cell)
        added += 1


def _result(index: int, cell: Cell, held: Mapping[str, Any]) -> CellResult:
    error = held["error"]
    return CellResult(
        index,
        cell.get("id"),
        CellOutcome(held["outcome"]),
        held["execution_count"],
        held["seconds"],
        CellError.from_dict(error) if error else None,
        number=held["number"],
        allowed=held["allowed"],
    )


def _written_cells(document: Document) -> list[Cell]:
    return [cell for _, cell in document.code_cells() if not _is_injected(cell)]


def _is_injected(cell: Cell) -> bool:
    return INJECTED_TAG in tags_of(cell)
