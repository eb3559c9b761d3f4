"""Merge the results of a run into a notebook that another client edited during the run.

All cells, texts and keys of the edited notebook stay. A code cell gets the results of our cell with the same id and
source. Without ids, cells with the same source are matched by their order. A cell that the other client changed,
removed or executed stays as it is. Its results are reported as unplaced, so that the caller can save them elsewhere.
"""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.document import Cell, Document
from nbrun.core.notebook.tags import INJECTED_TAG, SKIP_TAG, tags_of

"""The tag of the cell that a runner itself writes into the notebook, as papermill does."""

_MARKS = ("outcome", "incomplete")


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of it.

    ``placed`` counts the cells that have got results which they had not; ``unplaced`` are the positions, in ours, of
    those whose results found no place.
    """

    content: dict[str, Any]
    placed: int
    unplaced: Sequence[int]


def merge(theirs: Document, ours: Mapping[str, Any], known: Container[int]) -> Merged:
    """Put the results of `ours`, an executed notebook's content, into `theirs`, which is changed by it.

    `known` has the :func:`fingerprint` of each code cell as the file held it before they came: of a cell that has other
    results than that, they are theirs.
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
        # Results of other parameters than those that stand above them would be a lie.
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
    """Return a number for a code cell's source and results, which another run of it changes; good in this process only.

    Strings remember their hash, so that asking again costs next to nothing.
    """
    return hash((_joined(cell["source"]), _frozen(cell.get("execution_count")), _frozen(_outputs(cell))))


def fingerprints(content: Mapping[str, Any]) -> frozenset[int]:
    """Return the fingerprints of all code cells of a notebook; none for what is no notebook."""
    try:
        return frozenset(fingerprint(cell) for cell in content["cells"] if cell["cell_type"] == "code")
    except (TypeError, KeyError):  # what is wrong with it, Document says in words
        return frozenset()


def _pairs(ours: Sequence[Cell], theirs: Sequence[Cell]) -> dict[int, int]:
    """Return, for positions in `ours`, the positions in `theirs` of the same cells."""
    my_ids, their_ids = ({_id(cell): index for index, cell in enumerate(cells)} for cells in (ours, theirs))
    pairs = {
        index: their_ids[_id(cell)]
        for index, cell in enumerate(ours)
        if _id(cell) and _id(cell) in their_ids and _same(cell, theirs[their_ids[_id(cell)]])
    }
    mine_left, theirs_left = _by_source(ours, their_ids), _by_source(theirs, my_ids)
    for source, mine in mine_left.items():
        if len(mine) == len(theirs_left[source]):  # else nobody knows which of them is which
            pairs.update(zip(mine, theirs_left[source], strict=True))
    return pairs


def _by_source(cells: Sequence[Cell], others: Container[str]) -> defaultdict[tuple[str, str], list[int]]:
    """Return the positions of the cells that cannot be told by an id that the other notebook has, too."""
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
    """Return whether their cell may have its results replaced."""
    return not _has_results(other) or fingerprint(other) in known or fingerprint(other) == fingerprint(mine)


def _transplant(mine: Cell, other: Cell) -> None:
    if SKIP_TAG in tags_of(mine):
        # It did not run. Its outputs are as trustworthy as they were, where they are the same ones.
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
    """Put a cell that the run itself wrote in the place of the one of an earlier run, or after what it stood after."""
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
