"""What is said of a run, in words: the same sentences on a terminal and in a log."""

from collections.abc import Mapping

from nbrun.core.bundles import Output
from nbrun.core.durations import spell_duration
from nbrun.core.results import DELIVERED, BatchResult, CellOutcome, CellResult, NotebookResult, Outcome

_SAID = {
    Outcome.PASSED: "passed",
    Outcome.PREPARED: "prepared",
    Outcome.FAILED: "failed",
    Outcome.TIMED_OUT: "timed out",
    Outcome.KERNEL_DIED: "kernel died",
    Outcome.INTERRUPTED: "interrupted",
    Outcome.INCOMPLETE: "incomplete",
    Outcome.SERVER_FAILED: "server failed",
    Outcome.NOT_RUN: "not run",
}


def summary(result: NotebookResult) -> str:
    """Give the one line that says how a run ended: ``passed: 12 cells in 3.4 s, saved in out/report.ipynb``."""
    took = "" if result.outcome is Outcome.PREPARED else f" in {spell_duration(result.seconds)}"
    took = " from the cache" if result.cached else took
    parts = [f"{_SAID[result.outcome]}: {tally(result)}{took}"]
    if result.output == DELIVERED:
        parts.append("delivered")
    elif result.output and not result.rescued:
        parts.append(f"saved in {result.output}")
    elif result.rescued:
        parts.append(f"rescued in {result.output}")
    else:
        parts.append("not saved")
    kept = next((number for number, attempt in enumerate(result.tries, 1) if attempt.kept), None)
    if kept is not None:
        parts.append(f"attempt {kept} of {len(result.tries)}")
    return ", ".join(parts)


def outcome(result: NotebookResult) -> str:
    """Give the outcome in a word or two."""
    return _SAID[result.outcome]


def tally(result: NotebookResult) -> str:
    """Count the cells by outcome: ``12 cells``, ``11 passed, 1 failed, 3 not run``, or ``12 cells to run``."""
    counts = {outcome: number for outcome, number in result.tally().items() if outcome is not CellOutcome.SKIPPED}
    passed = counts.get(CellOutcome.PASSED, 0)
    if result.outcome is Outcome.PREPARED:
        return f"{_cells(counts.get(CellOutcome.NOT_RUN, 0))} to run"
    if set(counts) <= {CellOutcome.PASSED}:
        return _cells(passed)
    return ", ".join(f"{number} {outcome.value.replace('-', ' ')}" for outcome, number in counts.items())


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"


def problem(result: NotebookResult) -> list[str]:
    """Give what went wrong as lines: a sentence, then, indented, what to do about it."""
    if result.problem is None:
        return []
    lines = [f"{result.notebook}: {result.problem.message}"]
    return [*lines, f"  {result.problem.hint}"] if result.problem.hint else lines


def cell_line(result: CellResult, number: int, total: int) -> str:
    """Say how a cell went: ``cell 3 of 12 passed in 0.4 s``."""
    took = f" in {spell_duration(result.seconds)}" if result.seconds is not None else ""
    return f"cell {number} of {total} {result.outcome.value.replace('-', ' ')}{took}"


def batch_summary(batch: BatchResult) -> str:
    """Give the one line that says how a batch ended: ``40 notebooks in 3 min 2 s: 38 passed, 2 failed``."""
    notebooks = "1 notebook" if len(batch.runs) == 1 else f"{len(batch.runs)} notebooks"
    return f"{notebooks} in {spell_duration(batch.seconds)}: {counts(batch.tally())}"


def counts(tally: Mapping[Outcome, int]) -> str:
    """Count runs by outcome: ``38 passed, 2 failed``."""
    return ", ".join(f"{number} {_SAID[outcome]}" for outcome, number in tally.items()) or "nothing was run"


def output_text(output: Output) -> str:
    """Give an output that is no stream as text: its plain form, or what kinds of it there are."""
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}"
    data = output.get("data", {})
    plain = data.get("text/plain")
    if plain is not None:
        return "".join(plain) if isinstance(plain, list) else str(plain)
    return "<" + ", ".join(data) + ">"
