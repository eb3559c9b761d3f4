"""Merge the results of a run into a notebook that another client edited during the run.

All cells, texts and keys of the edited notebook stay. A code cell gets the results of our cell with the same id and
source. Without ids, cells with the same source are matched by their order. A cell that the other client changed,
removed or executed stays as it is. Its results are reported as unplaced, so that the caller can save them elsewhere.
"""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any

from msgspec import Struct

from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.document import Cell, Document
from nbrun.core.notebook.tags import INJECTED_TAG, SKIP_TAG, tags_of

_MARKS = ("outcome", "incomplete")


class Merged(Struct, frozen=True):
    """The result of a merge.

    ``placed`` is the number of cells that got new results. ``unplaced`` are the positions, in the executed notebook, of
    cells whose results have no place.
    """

    content: dict[str, Any]
    placed: int
    unplaced: Sequence[int]


def merge(theirs: Document, ours: Mapping[str, Any], known: Container[int]) -> Merged:
    """Merge the results of `ours`, the content of an executed notebook, into `theirs`, which is modified.

    `known` contains the :func:`fingerprint` of each code cell in the last version before the other client's edit. A
    cell with other results was executed by the other client.
    """
    cells, pairs = ours["cells"], _pairs(ours["cells"], theirs.cells)
    injected = [index for index, cell in enumerate(cells) if INJECTED_TAG in tags_of(cell) and index not in pairs]
    fitting, unplaced = [], []
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code" or index in injected:
            continue
        if index in pairs and _takes(theirs.cells[pairs[index]], cell, known):
            fitting.append((cell, theirs.cells[pairs[index]]))
        elif _was_run(cell):
            unplaced.append(index)
    if injected and unplaced:
        # The results must not appear below parameters that did not produce them.
        return Merged(theirs.content, 0, sorted(unplaced + injected))
    placed = len(injected)
    for cell, other in fitting:
        placed += _was_run(cell) and fingerprint(cell) != fingerprint(other)
        _transplant(cell, other)
    for index in reversed(injected):
        _inject(index, cells, theirs.cells, pairs)
    _merge_metadata(theirs, as_object(ours["metadata"]))
    return Merged(theirs.content, placed, unplaced)


def fingerprint(cell: Cell) -> int:
    """Return a number for a code cell's source and results; it is valid in this process only.

    Strings cache their hash, so a second call is fast.
    """
    return hash((_joined(cell["source"]), _frozen(cell.get("execution_count")), _frozen(_outputs(cell))))


def fingerprints(content: Mapping[str, Any]) -> frozenset[int]:
    """Return the fingerprints of all code cells of a notebook, or an empty set if it is invalid."""
    try:
        return frozenset(fingerprint(cell) for cell in content["cells"] if cell["cell_type"] == "code")
    except (TypeError, KeyError):  # Document reports the error
        return frozenset()


def _pairs(ours: Sequence[Cell], theirs: Sequence[Cell]) -> dict[int, int]:
    """Return the positions in `theirs` of the same cells, by positions in `ours`."""
    my_ids, their_ids = ({_id(cell): index for index, cell in enumerate(cells)} for cells in (ours, theirs))
    pairs = {
        index: their_ids[_id(cell)]
        for index, cell in enumerate(ours)
        if _id(cell) and _id(cell) in their_ids and _same(cell, theirs[their_ids[_id(cell)]])
    }
    mine_left, theirs_left = _by_source(ours, their_ids), _by_source(theirs, my_ids)
    for source, mine in mine_left.items():
        if len(mine) == len(theirs_left[source]):  # otherwise the assignment is ambiguous
            pairs.update(zip(mine, theirs_left[source], strict=True))
    return pairs


def _by_source(cells: Sequence[Cell], others: Container[str]) -> defaultdict[tuple[str, str], list[int]]:
    """Return the positions of cells without an id that both notebooks have, by type and source."""
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        if not _id(cell) or _id(cell) not in others:
            found[cell["cell_type"], _joined(cell["source"])].append(index)
    return found


def _id(cell: Cell) -> str:
    return str(cell.get("id") or "")


def _same(mine: Cell, other: Cell) -> bool:
    return bool(mine["cell_type"] == other["cell_type"] and _joined(mine["source"]) == _joined(other["source"]))


def _takes(other: Cell, mine: Cell, known: Container[int]) -> bool:
    """Return whether the other client's cell may get new results."""
    return not _has_results(other) or fingerprint(other) in known or fingerprint(other) == fingerprint(mine)


def _transplant(mine: Cell, other: Cell) -> None:
    if SKIP_TAG in tags_of(mine):
        # It did not run. The trust is kept only if the outputs are unchanged.
        if fingerprint(mine) == fingerprint(other):
            _take_over(mine["metadata"], other["metadata"], "trusted")
        return
    other["outputs"], other["execution_count"] = mine["outputs"], mine["execution_count"]
    _take_over(mine["metadata"], other["metadata"], "trusted")
    _take_over(mine["metadata"], other["metadata"], "execution")
    ours, theirs = (as_object(cell["metadata"].get("nbrun")) for cell in (mine, other))
    kept = {key: value for key, value in theirs.items() if key not in _MARKS}
    other["metadata"]["nbrun"] = {**ours, **kept}
    if not other["metadata"]["nbrun"]:
        del other["metadata"]["nbrun"]


def _take_over(mine: Mapping[str, Any], other: dict[str, Any], key: str) -> None:
    if key in mine:
        other[key] = mine[key]
    else:
        other.pop(key, None)


def _inject(index: int, ours: Sequence[Cell], theirs: list[Cell], pairs: Mapping[int, int]) -> None:
    """Insert a cell that the run injected: in place of an earlier injected one, or after the same cell as before."""
    earlier = [place for place, cell in enumerate(theirs) if INJECTED_TAG in tags_of(cell)]
    if earlier:
        theirs[earlier[0]] = ours[index]
        return
    before = next((pairs[place] for place in reversed(range(index)) if place in pairs), -1)
    theirs.insert(before + 1, ours[index])


def _merge_metadata(theirs: Document, ours: Mapping[str, Any]) -> None:
    for key in ("kernelspec", "language_info"):
        if key in ours:
            theirs.metadata.setdefault(key, ours[key])
    marks = as_object(ours.get("nbrun"))
    if marks:
        theirs.metadata["nbrun"] = {**marks, **as_object(theirs.metadata.get("nbrun"))}
        theirs.mark_run(as_object(marks.get("run")))
    theirs.set_widgets(as_object(ours.get("widgets")))


def _has_results(cell: Cell) -> bool:
    return bool(cell.get("outputs")) or cell.get("execution_count") is not None


def _was_run(cell: Cell) -> bool:
    return _has_results(cell) and SKIP_TAG not in tags_of(cell)


def _outputs(cell: Cell) -> list[Any]:
    """Return the outputs with each text as one string, as servers send them; files contain lists of lines."""
    return [_in_one_piece(as_object(output)) for output in cell.get("outputs") or ()]


def _in_one_piece(output: Mapping[str, Any]) -> dict[str, Any]:
    whole = {key: _joined(value) if key == "text" else value for key, value in output.items()}
    if isinstance(output.get("data"), dict):
        whole["data"] = {
            mime: value if mime.endswith("json") else _joined(value) for mime, value in output["data"].items()
        }
    return whole


def _joined(value: Any) -> Any:
    is_lines = isinstance(value, list) and all(isinstance(line, str) for line in value)
    return "".join(value) if is_lines else value


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _frozen(value[key])) for key in sorted(value))
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return value
