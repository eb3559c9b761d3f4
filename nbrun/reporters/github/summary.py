"""The job summary for GitHub: a table of all runs, the failed cells, and the slowest cells.

GitHub accepts one megabyte per step and drops larger summaries. So the parts are added by importance while there is
space: the table, the failures, the slowest cells. A note mentions omitted failures.
"""

from collections.abc import Iterator, Sequence

from nbrun.core.formats.tracebacks import plain
from nbrun.core.formats.units import spell_duration
from nbrun.core.results import DELIVERED, BatchResult, CellOutcome, NotebookResult, Outcome
from nbrun.reporters import phrases
from nbrun.reporters.run_log import Fault, Record, RunRecord, fault_of, is_fault

LIMIT = 1024 * 1024 - 4096
"""Maximum bytes of the file, including what other steps of an action wrote into it."""
_SLOWEST = 10
_SIGNS = {
    Outcome.PASSED: "✅",
    Outcome.PREPARED: "📝",
    Outcome.INTERRUPTED: "🛑",
    Outcome.INCOMPLETE: "⚠️",
    Outcome.NOT_RUN: "🚫",
    Outcome.SKIPPED: "⏭️",
}
_MARKUP = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]<>|#~&"})


def summary(record: Record, room: int = LIMIT) -> str:
    """Return the summary as Markdown of at most `room` bytes, the space left in the file."""
    runs = list(record.finished())
    parts = [_heading(runs, record.batch), *_table(runs, room * 3 // 4)]
    slowest = _slowest(runs)
    left = room - _size(parts) - _size(slowest) - 200
    for run, result in runs:
        if not is_fault(result):
            continue
        failure = _failure(run, result)
        if _size([failure]) > left:
            parts.append("\nMore failures had no room here; the log has them.\n")
            break
        left -= _size([failure])
        parts.append(failure)
    text = "".join([*parts, *slowest])
    return text if len(text.encode()) <= room else ""


def _size(parts: Sequence[str]) -> int:
    return sum(len(part.encode("utf-8", "replace")) for part in parts)


def _heading(runs: Sequence[tuple[RunRecord, NotebookResult]], batch: BatchResult | None) -> str:
    well = sum(result.went_well for _, result in runs)
    all_well = "all prepared" if all(result.outcome is Outcome.PREPARED for _, result in runs) else "all passed"
    seconds = batch.seconds if batch else sum(result.seconds for _, result in runs)
    notebooks = "1 notebook" if len(runs) == 1 else f"{len(runs)} notebooks"
    outcome = all_well if well == len(runs) else f"{len(runs) - well} did not pass"
    return f"## {notebooks}: {outcome} in {spell_duration(seconds)}\n\n"


def _table(runs: Sequence[tuple[RunRecord, NotebookResult]], room: int) -> Iterator[str]:
    yield "| | notebook | outcome | cells | time |\n|---|---|---|---|--:|\n"
    # Failed runs come first, because readers look for them.
    ordered = sorted(runs, key=lambda pair: pair[1].went_well)
    for number, (run, result) in enumerate(ordered):
        sign = _SIGNS.get(result.outcome, "❌")
        outcome = phrases.outcome(result) + (" (cached)" if result.cached else "")
        if result.attempts > 1:
            outcome += f", {result.attempts} attempts"
        time = spell_duration(result.seconds)
        row = f"| {sign} | {_text(run.name)} | {outcome} | {phrases.tally(result)} | {time} |\n"
        room -= len(row.encode("utf-8", "replace"))
        if room < 0:
            yield f"\n… and {len(runs) - number} more.\n"
            return
        yield row


def _failure(run: RunRecord, result: NotebookResult) -> str:
    fault = fault_of(run, result)
    lines = [f"\n### {_text(run.name)}\n\n"]
    if result.problem:
        lines.append(f"{_text(result.problem.message)}\n\n")
        if result.problem.hint:
            lines.append(f"{_text(result.problem.hint)}\n\n")
    if result.output and result.output != DELIVERED:
        lines.append(f"{'Rescued' if result.rescued else 'Saved'} in {_text(result.output)}\n\n")
    if fault:
        lines += _cell(fault)
    return "".join(lines)


def _cell(fault: Fault) -> Iterator[str]:
    took = f", {spell_duration(fault.cell.seconds)}" if fault.cell.seconds is not None else ""
    count = f" <code>[{fault.cell.execution_count}]</code>" if fault.cell.execution_count is not None else ""
    yield f"<details open><summary>{fault.run.name_of(fault.cell)}{count}{took}</summary>\n\n"
    marked = "\n".join(f"{'>' if hit else ' '} {number:3} {text}" for number, text, hit in fault.excerpt())
    yield _fenced(marked, "text")
    if lines := fault.traceback():
        yield _fenced("\n".join(lines), "text")
    yield "</details>\n"


def _slowest(runs: Sequence[tuple[RunRecord, NotebookResult]]) -> list[str]:
    timed = [
        (cell.seconds, run.name, run.title(cell))
        for run, result in runs
        for cell in result.cells
        if cell.seconds is not None and cell.seconds >= 0.1 and cell.outcome is not CellOutcome.NOT_RUN
    ]
    if not timed:
        return []
    timed.sort(reverse=True)
    rows = [f"| {spell_duration(took)} | {_text(name)} | {_text(title)} |\n" for took, name, title in timed[:_SLOWEST]]
    head = "\n<details><summary>Slowest cells</summary>\n\n| time | notebook | cell |\n|--:|---|---|\n"
    return [head, *rows, "\n</details>\n"]


def _text(text: str) -> str:
    """Return untrusted text escaped for Markdown, on one line."""
    return " ".join(plain(text).split()).translate(_MARKUP)


def _fenced(text: str, language: str) -> str:
    """Return text as a shortened code block, with a fence longer than any in the text."""
    text = plain(text)[:20_000]
    fence = "`" * max(3, *(len(run) + 1 for run in _backticks(text)), 3)
    return f"{fence}{language}\n{text}\n{fence}\n\n"


def _backticks(text: str) -> Iterator[str]:
    return (run for run in "".join(mark if mark == "`" else " " for mark in text).split())
