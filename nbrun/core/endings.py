"""How a run ends, and what a finished cell means for the cells after it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nbrun.core.cells import CellExecution, Stop
from nbrun.core.durations import spell_duration
from nbrun.core.messages import Message
from nbrun.core.plan import Action, CellPlan, Plan
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem

EXIT_HINT = (
    "exit() and quit() end the kernel, and the cells after them cannot run; "
    "to end a notebook early and with success, call sys.exit(0)."
)
NONE_TO_LIFT_HINT = "A private server limits no output, so there is no limit to lift."
LIFT_HINT = "`nbrun doctor --server URL` tells how to lift the server's limits on output."
DEATH_HINT = (
    "The outputs up to that cell are kept. A kernel that ends without a traceback was usually killed for its "
    "memory: look for the host's out-of-memory log line."
)
GONE = {
    "dead": "died",
    "restarting": "died, and the server put a fresh one in its place,",
    "autorestarting": "died, and the server put a fresh one in its place,",
}
"""Execution states of a kernel that is no more, in the words of :func:`kernel_lost`."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the run ended; ``problem`` is None where all went well."""

    outcome: Outcome
    problem: Problem | None = None


def place_of(cell: CellExecution, total: int) -> str:
    """Say where a cell is: ``in cell 7 of 12``, counting the cells that are run."""
    return f"in cell {cell.number} of {total}"


def limit_reached(stop: Stop, run_timeout: float | None, cell: CellPlan | None) -> str:
    """Say which limit was reached: of the run, or of the cell that is running."""
    if stop is Stop.RUN_TIMEOUT or cell is None:
        return f"the run took longer than its limit of {spell_duration(run_timeout or 0)}"
    if stop is Stop.IDLE_TIMEOUT:
        return f"no output for {spell_duration(cell.idle_timeout or 0)}"
    return f"longer than the cell's limit of {spell_duration(cell.timeout or 0)}"


def ending_after(cell: CellExecution, total: int) -> Ending | None:
    """Give the ending that a finished cell brings, or None when the next cell may run.

    An error that the cell or the call allows ends nothing, and neither does a time-out under ``--allow-errors`` as long
    as the kernel obeyed the interrupt; the limit of the whole run always ends it.
    """
    place, last = place_of(cell, total), cell.number == total
    match cell.outcome:
        case CellOutcome.PASSED if cell.exited_well:
            return Ending(Outcome.PASSED)
        case CellOutcome.PASSED if cell.asks_exit:
            if last:
                return Ending(Outcome.PASSED)
            return Ending(Outcome.KERNEL_DIED, Problem(f"the kernel was told to exit {place}", EXIT_HINT))
        case CellOutcome.TIMED_OUT if cell.stop is Stop.RUN_TIMEOUT or not cell.plan.allows_error:
            return Ending(Outcome.TIMED_OUT, Problem(f"{cell.stop_reason} {place}"))
        case CellOutcome.FAILED if cell.reply is None:
            hint = "Outputs may be missing too. The cell was not run again: cells are not safe to repeat."
            return Ending(Outcome.SERVER_FAILED, Problem(f"the kernel's reply was lost {place}", hint))
        case CellOutcome.FAILED if not cell.plan.allows_error:
            return Ending(Outcome.FAILED, Problem(f"{_named(cell)} {place}"))
        case CellOutcome.NOT_RUN:
            return Ending(Outcome.KERNEL_DIED, Problem(f"the kernel refused again and again to run the code {place}"))
        case _:
            return None


def ending_of_all(ending: Ending, cells: Iterable[CellExecution], total: int) -> Ending:
    """Give the ending of a run that came to its end: a cell that was timed out on the way did not pass.

    ``--allow-errors`` lets a run go on after a time-out, as it does after an error; but a cell that was cut off half
    way is no error that anybody allowed.
    """
    late = next((cell for cell in cells if cell.outcome is CellOutcome.TIMED_OUT), None)
    if ending.outcome is not Outcome.PASSED or late is None:
        return ending
    return Ending(Outcome.TIMED_OUT, Problem(f"{late.stop_reason} {place_of(late, total)}"))


def ending_with_losses(ending: Ending, results: Sequence[CellResult], *, private: bool) -> Ending:
    """Give the ending of a run that lost output: where nothing else went wrong, that is what it has to say.

    A server that is `private` to the run has no limits that anybody could lift.
    """
    lossy = [result for result in results if result.incomplete]
    if ending.outcome is not Outcome.PASSED or not lossy:
        return ending
    first = lossy[0]
    more = f" (and in {len(lossy) - 1} more)" if len(lossy) > 1 else ""
    all_passed = all(result.outcome in (CellOutcome.PASSED, CellOutcome.SKIPPED) for result in results)
    passed = "Every cell passed." if all_passed else "No cell failed but where errors are allowed."
    hint = f"{passed} {NONE_TO_LIFT_HINT if private else LIFT_HINT}"
    return Ending(Outcome.INCOMPLETE, Problem(f"{first.incomplete}, in the cell at index {first.index}{more}", hint))


def kept_elsewhere(
    result: NotebookResult, failure: Problem, path: str | None, *, under_way: bool = False
) -> NotebookResult:
    """Give the result of a run whose notebook could not be saved, but is in the rescue file at `path`, if anywhere.

    That is now what the run has to say first, unless it lost its server, of which this only follows. A save that was
    still `under_way` when it was given up may have its effect all the same.
    """
    first = result.problem if result.outcome is Outcome.SERVER_FAILED and result.problem else failure
    where = f"The executed notebook is in {path}." if path else "No rescue file could be written either."
    late = "What was sent to the server may still arrive there." if under_way else ""
    return replace(
        result,
        outcome=Outcome.INTERRUPTED if result.outcome is Outcome.INTERRUPTED else Outcome.SERVER_FAILED,
        problem=Problem(first.message, " ".join(filter(None, (where, late, first.hint)))),
        output=path,
        rescued=path is not None,
    )


def results_of(plan: Plan, cells: Mapping[int, CellExecution], ending: Ending | None) -> list[CellResult]:
    """Give what came of every code cell of a plan, of which `cells` were sent; the key is the place in the notebook."""
    passed = ending is not None and ending.outcome is Outcome.PASSED
    unsent = CellOutcome.SKIPPED if passed else CellOutcome.NOT_RUN
    return [
        cells[each.index].result()
        if each.index in cells
        else CellResult(each.index, each.id, unsent if each.action is Action.RUN else CellOutcome.SKIPPED)
        for each in plan.cells
    ]


def cut_off(ending: Ending) -> tuple[CellOutcome, CellError]:
    """Give outcome and error of a cell that was still running behind the one with which the run ended."""
    died = ending.outcome is Outcome.KERNEL_DIED
    text = ending.problem.message if ending.problem else "the run ended"
    if died:
        return CellOutcome.KERNEL_DIED, CellError("KernelDied", text)
    return CellOutcome.INTERRUPTED, CellError("Interrupted", text)


def ending_of_stopped(cell: CellExecution, total: int, hint: str) -> Ending:
    """Give the ending of a run with whose cell the kernel was lost, too, when nbrun interrupted it."""
    problem = Problem(f"{cell.stop_reason} {place_of(cell, total)}", hint)
    match cell.outcome:
        case CellOutcome.INTERRUPTED:
            return Ending(Outcome.INTERRUPTED, problem)
        case CellOutcome.TIMED_OUT:
            return Ending(Outcome.TIMED_OUT, problem)
        case _:
            return Ending(Outcome.FAILED, problem)


def _named(cell: CellExecution) -> str:
    error = cell.error
    if error is None or not error.ename:
        return "an error"
    return error.evalue if cell.stop else _first_line(f"{error.ename}: {error.evalue}") or "an error"


def _first_line(text: str) -> str:
    return next((line.strip().removesuffix(":") for line in text.splitlines() if line.strip()), "")


def is_of_another_kernel(message: Message, kernel_session: str | None, own_session: str) -> bool:
    """Tell whether a fresh kernel speaks where ours should; never where its session is not known (None).

    Servers, and gateways behind servers, put in streams and death notices under sessions of their own.
    """
    if kernel_session is None or message.session in (kernel_session, own_session, ""):
        return False
    return message.type != "stream" and str(message.content.get("execution_state")) not in GONE


def ended_by_rest(message: Message) -> str:
    """Say what somebody did to the kernel, by its shutdown_reply."""
    return "restarted" if message.content.get("restart") else "shut down"


def kernel_lost(how: str, cell: CellExecution | None, total: int, now: float) -> Ending:
    """Give the ending of a run whose kernel is no more; `how` completes the sentence "the kernel ..."."""
    if cell is None:
        return Ending(Outcome.KERNEL_DIED, Problem(f"the kernel {how}", DEATH_HINT))
    after = spell_duration(now - cell.sent_at)
    return Ending(
        Outcome.KERNEL_DIED,
        Problem(f"the kernel {how} {place_of(cell, total)}, {after} after it started", DEATH_HINT),
    )
