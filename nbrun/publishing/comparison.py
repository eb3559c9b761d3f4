"""Find what changed between two runs of a report: numbers in tables, and text outputs; pure.

The values of a run are taken from what its page shows. They are stored in the record of the run, so that the index
needs no notebook. Each number of an HTML table has a key and a label from the headers of its row and its column. Other
outputs are compared line by line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html.parser import HTMLParser
from typing import Any

from nbrun.core.formats.json_text import as_object
from nbrun.core.formats.tracebacks import plain
from nbrun.publishing.history import NotebookRecord, RunRecord, Value

MOST_NUMBERS = 400
"""Maximum numbers of a notebook that are stored for the comparison."""
MOST_TEXTS = 60
LONGEST_TEXT = 4000
"""Maximum characters of an output that are stored for the comparison."""
LONGEST_LABEL = 80
MOST_CHANGES = 20
"""Maximum changes that are shown for a notebook."""
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_NUMBER = re.compile(r"[^\d\w]{0,3}\d[\d\s,.'\u2019_]*(?:[eE][-+]?\d+)?\s*[^\d\w]{0,3}")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True, slots=True)
class Change:
    """A change since an earlier run. Without ``before`` the value is new, without ``after`` it is gone."""

    label: str
    before: str
    after: str
    difference: str = ""


def values_of(notebook: Mapping[str, Any]) -> tuple[list[Value], list[Value]]:
    """Return the numbers in the tables of an executed notebook, and its text outputs."""
    numbers: list[Value] = []
    texts: list[Value] = []
    heading = ""
    for index, cell in enumerate(notebook["cells"]):
        source = cell.get("source", "")
        if cell.get("cell_type") == "markdown" and (found := _HEADING.findall(source)):
            heading = _short(found[-1])
        streams: list[str] = []
        for number, output in enumerate(cell.get("outputs", ())):
            key = f"{cell.get('id') or index}/{number}"
            if output.get("output_type") == "stream":
                streams += [output.get("text", "")] if output.get("name") == "stdout" else []
                continue
            tables, text = _output(output)
            for place, table in enumerate(tables):
                numbers += [
                    Value(f"{key}/{place}/{label}", _label(heading, label), number) for label, number in table.items()
                ]
            if text:
                texts.append(Value(key, heading, text))
        if text := _text("".join(streams)):
            texts.append(Value(f"{cell.get('id') or index}/stdout", heading, text))
    return numbers[:MOST_NUMBERS], texts[:MOST_TEXTS]


def _output(output: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Return the numbers of the tables in an output, or the text that is shown instead."""
    data = as_object(output.get("data"))
    markup = data.get("text/html")
    tables = numbers_in_tables(markup) if isinstance(markup, str) and "<table" in markup.lower() else []
    if tables or any(kind.startswith("image/") for kind in data):
        return tables, ""
    text = data.get("text/plain")
    return [], _text(text) if isinstance(text, str) else ""


def _text(text: str) -> str:
    return _ADDRESS.sub("0x…", plain(text).strip())[:LONGEST_TEXT]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def _label(heading: str, label: str) -> str:
    return f"{heading} · {label}" if heading else label


class _Tables(HTMLParser):
    """Collects the cells of the outermost tables: for each row, its cells as (is a header, text, columns, rows)."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[tuple[bool, str, int, int]]]] = []
        self._depth = 0
        self._cell: tuple[bool, list[str], int, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._depth += 1
            if self._depth == 1:
                self.tables.append([])
        elif self._depth == 1 and tag == "tr":
            self._end_cell()
            self.tables[-1].append([])
        elif self._depth == 1 and tag in ("td", "th"):
            self._end_cell()
            if not self.tables[-1]:
                self.tables[-1].append([])
            given = dict(attrs)
            self._cell = (tag == "th", [], _span(given.get("colspan")), _span(given.get("rowspan")))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr") and self._depth == 1:
            self._end_cell()
        elif tag == "table" and self._depth:
            self._end_cell()
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell[1].append(data)

    def _end_cell(self) -> None:
        if self._cell is not None and self._depth == 1:
            is_header, words, columns, rows = self._cell
            self.tables[-1][-1].append((is_header, _short(" ".join("".join(words).split())), columns, rows))
            self._cell = None


def _span(text: str | None) -> int:
    return min(int(text), 100) if text and re.fullmatch(r"[1-9]\d{0,3}", text) else 1


def numbers_in_tables(markup: str) -> list[dict[str, str]]:
    """Return for each table its numbers as written, by the headers of their row and their column."""
    parser = _Tables()
    parser.feed(markup)
    parser.close()
    return [numbers for table in parser.tables if (numbers := _numbers(_grid(table)))]


def _grid(rows: Sequence[Sequence[tuple[bool, str, int, int]]]) -> list[list[tuple[bool, str]]]:
    """Return the cells of a table in their columns, each as often as it spans columns and rows."""
    grid: list[list[tuple[bool, str]]] = []
    below: dict[int, tuple[tuple[bool, str], int]] = {}
    for row in rows:
        line: list[tuple[bool, str]] = []
        cells = iter(row)
        while True:
            if (above := below.pop(len(line), None)) is not None:
                if above[1] > 1:
                    below[len(line)] = (above[0], above[1] - 1)
                line.append(above[0])
                continue
            cell = next(cells, None)
            if cell is None:
                break
            for _ in range(cell[2]):
                if cell[3] > 1:
                    below[len(line)] = ((cell[0], cell[1]), cell[3] - 1)
                line.append((cell[0], cell[1]))
        grid.append(line)
    return grid


def _numbers(grid: Sequence[Sequence[tuple[bool, str]]]) -> dict[str, str]:
    heads: dict[int, list[str]] = {}
    found: dict[str, str] = {}
    for line, row in enumerate(grid, 1):
        if row and all(is_header for is_header, _ in row):
            for column, (_, text) in enumerate(row):
                if text and text not in heads.setdefault(column, []):
                    heads[column].append(text)
            continue
        names = [text for is_header, text in row if is_header and text]
        first = next((column for column, (is_header, _) in enumerate(row) if not is_header), 0)
        if not names and len(row) > 1 and not _is_number(row[0][1]):
            names, first = [row[0][1]], 1
        for column, (_, text) in enumerate(row[first:], first):
            if _is_number(text):
                parts = [" ".join(names) or f"row {line}", " ".join(heads.get(column, ())) or f"column {column + 1}"]
                label, number = " · ".join(parts), 2
                while label in found:
                    label, number = f"{' · '.join(parts)} ({number})", number + 1
                found[label] = text
    return found


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def changes(earlier: RunRecord, later: RunRecord) -> list[Change]:
    """Return what changed from an earlier to a later run."""
    found: list[Change] = []
    for before, after in _pairs(earlier, later):
        complete = before.outcome == after.outcome == "passed"
        found += _changes_of(before, after, complete=complete)
    return found


def _pairs(earlier: RunRecord, later: RunRecord) -> Iterator[tuple[NotebookRecord, NotebookRecord]]:
    """Yield the notebooks of two runs that are the same, because their names or positions are."""
    of_earlier = {notebook.name: notebook for notebook in earlier.notebooks}
    for position, notebook in enumerate(later.notebooks):
        before = of_earlier.get(notebook.name)
        if before is None and len(earlier.notebooks) == len(later.notebooks):
            before = earlier.notebooks[position]
        if before is not None:
            yield before, notebook


def _changes_of(before: NotebookRecord, after: NotebookRecord, *, complete: bool) -> Iterator[Change]:
    """Yield the changes of a notebook; values that only one run has only if both runs are `complete`."""
    for earlier, later, is_number in ((before.numbers, after.numbers, True), (before.texts, after.texts, False)):
        old, new = {value.key: value for value in earlier}, {value.key: value for value in later}
        for key, value in new.items():
            if key in old:
                yield from _changed(value.label, old[key].text, value.text, is_number=is_number)
            elif complete:
                yield Change(value.label, "", _first_line(value.text))
        for key, value in old.items() if complete else ():
            if key not in new:
                yield Change(value.label, _first_line(value.text), "")


def _changed(label: str, before: str, after: str, *, is_number: bool) -> Iterator[Change]:
    if before == after:
        return
    if is_number:
        yield Change(label, before, after, difference(before, after))
        return
    old, new = before.splitlines(), after.splitlines()
    for kind, start, end, from_, to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            removed, added = old[start:end], new[from_:to]
            for index in range(max(len(removed), len(added))):
                gone = removed[index] if index < len(removed) else ""
                come = added[index] if index < len(added) else ""
                yield Change(label, _short(gone), _short(come), difference(gone, come))


def _first_line(text: str) -> str:
    return _short(next(iter(text.splitlines()), ""))


def difference(before: str, after: str) -> str:
    """Return the difference of two numbers in per cent, or "" if the texts are none or there is none."""
    old, new = _float(before), _float(after)
    if old is None or new is None or old in (new, 0):
        return ""
    return f"{100 * (new - old) / abs(old):+.1f} %"


def _float(text: str) -> float | None:
    if not _is_number(text):
        return None
    bare = re.sub(r"[^\d.,eE+-]", "", text.replace("\u2212", "-"))
    if re.search(r",\d{3}(?:\D|$)", bare) or ("," in bare and "." in bare):
        bare = bare.replace(",", "")  # separates thousands, as pandas writes them
    try:
        return float(bare.replace(",", "."))
    except ValueError:
        return None


def all_changes(records: Sequence[RunRecord]) -> dict[str, tuple[RunRecord, list[Change]]]:
    """Return for each run the passed run before it and the changes since then; `records` have the latest run first.

    The run before is the newest with the same notebooks and parameters, apart from those with templates, or else the
    newest with the same notebooks.
    """
    found = {}
    passed: list[RunRecord] = []
    for record in reversed(records):
        same = (before for before in reversed(passed) if any(_pairs(before, record)))
        nearest = next(same, None)
        if nearest is not None and nearest.kind != record.kind:
            nearest = next((before for before in same if before.kind == record.kind), nearest)
        if nearest is not None:
            found[record.run_id] = (nearest, changes(nearest, record))
        passed += [record] if record.passed else []
    return found
