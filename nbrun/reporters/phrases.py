"""Sentences about runs and outcomes, shared by all reporters."""

import textwrap
from collections.abc import Mapping

from nbrun.core.formats.units import spell_duration, spell_size
from nbrun.core.outputs.mimebundle import Output
from nbrun.core.results import DELIVERED, BatchResult, CellOutcome, CellResult, NotebookResult, Outcome

_WORDS = {
    Outcome.PASSED: "passed",
    Outcome.PREPARED: "prepared",
    Outcome.FAILED: "failed",
    Outcome.TIMED_OUT: "timed out",
    Outcome.KERNEL_DIED: "kernel died",
    Outcome.INTERRUPTED: "interrupted",
    Outcome.INCOMPLETE: "incomplete",
    Outcome.SERVER_FAILED: "server failed",
    Outcome.SEAT_LOST: "seat lost",
    Outcome.NOT_RUN: "not run",
    Outcome.SKIPPED: "skipped",
}


def summary(result: NotebookResult) -> str:
    """Return one line about the end of a run: ``passed: 12 cells in 3.4 s, saved in out/report.ipynb``."""
    cells = tally(result)
    took = "" if result.outcome is Outcome.PREPARED else f" in {spell_duration(result.seconds)}"
    took = " from the cache" if result.cached else took
    comma = "," if took and "," in cells else ""
    parts = [f"{_WORDS[result.outcome]}: {cells}{comma}{took}"]
    if result.output == DELIVERED:
        parts.append("delivered")
    elif result.output and not result.rescued:
        parts.append(f"saved in {result.output}")
    elif result.rescued:
        parts.append(f"rescued in {result.output}")
    if result.artefacts:
        size = spell_size(sum(artefact.size for artefact in result.artefacts))
        parts.append(f"{len(result.artefacts)} {'artefact' if len(result.artefacts) == 1 else 'artefacts'} ({size})")
    kept = next((number for number, attempt in enumerate(result.tries, 1) if attempt.kept), None)
    if kept is not None:
        parts.append(f"attempt {kept} of {len(result.tries)}")
    return ", ".join(parts)


def outcome(result: NotebookResult) -> str:
    """Return the outcome in a word or two."""
    return _WORDS[result.outcome]


def tally(result: NotebookResult) -> str:
    """Return the number of cells: ``12 cells``, ``11 of 15 cells passed, 3 not run``, or ``12 cells to run``.

    Cells with the outcome of the run are not counted separately, because the outcome is shown beside it.
    """
    cells = [cell for cell in result.cells if cell.outcome is not CellOutcome.SKIPPED]
    found = [cell.outcome for cell in cells if not cell.allowed]
    counts = {each: found.count(each) for each in CellOutcome if each in found and each.value != result.outcome.value}
    passed, allowed = found.count(CellOutcome.PASSED), len(cells) - len(found)
    if result.outcome is Outcome.PREPARED:
        return f"{_cells(len(cells))} to run"
    all_well = passed + allowed == len(cells) or result.outcome in (Outcome.NOT_RUN, Outcome.SKIPPED)
    parts = [_cells(len(cells)) if all_well else f"{passed} of {_cells(len(cells))} passed"]
    if allowed:
        parts.append(f"{allowed} with {'an allowed error' if allowed == 1 else 'allowed errors'}")
    counts.pop(CellOutcome.PASSED, None)
    return ", ".join([*parts, *(f"{number} {each.value.replace('-', ' ')}" for each, number in counts.items())])


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"


def problem(result: NotebookResult) -> list[str]:
    """Return the problem as lines: the message, then the indented hint."""
    if result.problem is None:
        return []
    lines = [f"{result.path}: {result.problem.message}"]
    return [*lines, f"  {result.problem.hint}"] if result.problem.hint else lines


def cell_line(result: CellResult, number: int, total: int) -> str:
    """Return a line about a finished cell: ``cell 3 of 12 passed in 0.4 s``."""
    took = f" in {spell_duration(result.seconds)}" if result.seconds is not None else ""
    allowed = ", which is allowed" if result.allowed else ""
    return f"cell {number} of {total} {result.outcome.value.replace('-', ' ')}{took}{allowed}"


def wrapped(line: str, width: int) -> list[str]:
    """Split a line into lines of at most `width` columns between words. A longer word is not split."""
    indent = line[: len(line) - len(line.lstrip())]
    broken = textwrap.wrap(
        line,
        max(width, 1),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return broken or [line]


def batch_summary(batch: BatchResult) -> str:
    """Return one line about the end of a batch: ``40 notebooks in 3 min 2 s: 38 passed, 2 failed``."""
    notebooks = "1 notebook" if len(batch.runs) == 1 else f"{len(batch.runs)} notebooks"
    return f"{notebooks} in {spell_duration(batch.seconds)}: {counts(batch.tally())}"


def counts(tally: Mapping[Outcome, int]) -> str:
    """Return the number of runs by outcome: ``38 passed, 2 failed``."""
    return ", ".join(f"{number} {_WORDS[outcome]}" for outcome, number in tally.items()) or "nothing was run"


def output_text(output: Output) -> str:
    """Return an output other than a stream as text: its text/plain form, or its MIME types."""
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}"
    data = output.get("data", {})
    plain = data.get("text/plain")
    if plain is not None:
        return "".join(plain) if isinstance(plain, list) else str(plain)
    return "<" + ", ".join(data) + ">"
