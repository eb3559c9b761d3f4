"""Find the line numbers of a cell's source in the notebook file, for annotations.

A notebook is JSON. Jupyter writes each line of a source as a string on a line of its own. Other tools write a whole
source as one string, or the whole file as one line. So the text is read token by token, which takes linear time and
copies none of the outputs. Cells are found by their id, or else by their source, because a run may have inserted a cell
between them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nbrun.core.formats.tracebacks import plain

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|,', re.DOTALL)


@dataclass(frozen=True, slots=True)
class CellLocation:
    """A cell in a file: ``lines[k]`` is the line of the file, from 1, in which line k of the source, from 0, begins."""

    id: str | None
    source: str
    lines: Sequence[int]


def cell_locations(text: str) -> list[CellLocation]:
    """Return the positions of all cells in a notebook's file, or an empty list for another file."""
    places: list[CellLocation] = []
    found: dict[str, list[tuple[str, int]]] = {}
    for path, string, line in _strings(text):
        match path:
            case ("cells", int(), "id" | "source" as key) | ("cells", int(), "source" as key, int()):
                found.setdefault(key, []).append((string, line))
            case ("cells", int()) if string == "":
                places.append(_place(found))
                found = {}
    return places


def _place(found: dict[str, list[tuple[str, int]]]) -> CellLocation:
    ids = found.get("id", [])
    pieces = found.get("source", [])
    lines: list[int] = []
    begins = True
    for piece, line in pieces:
        # A piece may contain several lines of the source, and a line may be split into several pieces.
        starts = piece.count("\n") - piece.endswith("\n") + bool(piece)
        lines += [line] * (starts if begins else max(0, starts - 1))
        begins = piece.endswith("\n") if piece else begins
    return CellLocation(ids[0][0] if ids else None, "".join(piece for piece, _ in pieces), lines)


def _strings(text: str) -> Iterator[tuple[tuple[str | int, ...], str, int]]:
    """Yield every id and source, with its path and line, and an empty string at the end of each cell."""
    path: list[str | int] = []
    opened: list[str] = []
    key_next = False
    key: str | int = ""
    line, seen = 1, 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        match mark[0]:
            case "{" | "[":
                if opened:
                    path.append(key)
                opened.append(mark)
                key_next, key = mark == "{", 0
            case "}" | "]":
                if not opened:
                    return
                opened.pop()
                if len(path) == 2 and path[0] == "cells" and mark == "}":
                    yield tuple(path), "", line
                key, key_next = (path.pop() if path else ""), False
            case ",":
                key_next = bool(opened) and opened[-1] == "{"
                key = key + 1 if isinstance(key, int) else key
            case _ if key_next:
                key, key_next = mark[1:-1], False
            case _ if key == "id" or (path[:1] == ["cells"] and "source" in (key, *path[2:])):
                line, seen = line + text.count("\n", seen, token.start()), token.start()
                yield (*path, key), _value(mark), line


def _value(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return plain(token[1:-1])


def file_line(
    places: Sequence[CellLocation], *, index: int, cell_id: str | None, source: str, line: int | None
) -> int | None:
    """Return the line of the file with line `line` (from 1) of a cell's source, or None if the cell is not found.

    Without `line` it is the cell's first line. `index` is the cell's position if neither id nor source are unique.
    """
    place = _find(places, index, cell_id, source)
    if place is None or not place.lines:
        return None
    if line is None or place.source != source:
        return place.lines[0]
    return place.lines[min(line, len(place.lines)) - 1]


def _find(places: Sequence[CellLocation], index: int, cell_id: str | None, source: str) -> CellLocation | None:
    same_id = [place for place in places if cell_id is not None and place.id == cell_id]
    if same_id:
        return next((place for place in same_id if place.source == source), same_id[0])
    same_source = [number for number, place in enumerate(places) if place.source == source]
    nearest = min(same_source, key=lambda number: abs(number - index), default=None)
    return None if nearest is None else places[nearest]
