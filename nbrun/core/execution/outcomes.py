"""The outcome of a run, and whether the next cell runs after a failed one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from msgspec import Struct, structs

from nbrun.core.execution.cell import CellExecution, Stop
from nbrun.core.formats.units import spell_duration
from nbrun.core.planning.plan import CellPlan, Plan
from nbrun.core.protocol.messages import Message
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome, Problem

SHOWN_HINT = (
    "%run, a nested run_cell() and showtraceback() show an error without raising it, and the cells after it run. "
    "Tag the cell raises-exception if the error is expected."
)
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
"""Execution states of a kernel that has ended, as phrases for :func:`kernel_lost`."""


class Ending(Struct, frozen=True):
    """How the run ended; ``problem`` is None for a success."""

    outcome: Outcome
    problem: Problem | None = None


INPUT_HINT = (
    "Nobody can answer input() or getpass() in a run. Set the value before it: -p NAME VALUE for a parameter, "
    "--secret NAME for a password."
)


def place_of(cell: CellExecution, total: int) -> str:
    """Return the position of a cell as text, ``in cell 7 of 12``, among the cells that the run executes."""
    return f"in cell {cell.number} of {total}"


def problem_in(cell: CellExecution, total: int, what: str, hint: str = "", *, then: str = "") -> Problem:
    """Return a problem in a cell: `what`, the cell's position, and `then`."""
    return Problem(f"{what} {place_of(cell, total)}{then}", hint, cell.plan.index)


def limit_reached(stop: Stop, run_timeout: float | None, cell: CellPlan | None) -> str:
    """Return a description of the limit that was reached: of the run or of the running cell."""
    if stop is Stop.RUN_TIMEOUT or cell is None:
        return f"the run took longer than its limit of {spell_duration(run_timeout or 0)}"
    if stop is Stop.IDLE_TIMEOUT:
        return f"no output for {spell_duration(cell.idle_timeout or 0)}"
    return f"exceeded the cell's limit of {spell_duration(cell.timeout or 0)}"


def ending_after(cell: CellExecution, total: int) -> Ending | None:
    """Return the ending after a finished cell, or None if the next cell may run.

    An error that the cell or the call allows does not end the run. With ``--allow-errors`` a time-out does not end it
    either if the kernel reacted to the interrupt. The time limit of the run always ends it. An error that only the
    outputs show does not end it; :func:`ending_of_all` counts it.
    """
    problem = partial(problem_in, cell, total)
    is_shown = cell.error is not None and cell.error.shown
    match cell.outcome:
        case CellOutcome.FAILED if cell.reply is None:
            hint = "Outputs may be missing too. The cell was not run again: cells are not safe to repeat."
            return Ending(Outcome.SERVER_FAILED, problem("the kernel's reply was lost", hint))
        case CellOutcome.PASSED | CellOutcome.FAILED if cell.exited_well:
            return Ending(Outcome.PASSED)
        case CellOutcome.PASSED | CellOutcome.FAILED if cell.asks_exit:
            if cell.number == total:
                return Ending(Outcome.PASSED)
            return Ending(Outcome.KERNEL_DIED, problem("the kernel was told to exit", EXIT_HINT))
        case CellOutcome.TIMED_OUT if cell.stop is Stop.RUN_TIMEOUT or not cell.plan.allows_error:
            return Ending(Outcome.TIMED_OUT, problem(cell.stop_reason))
        case CellOutcome.FAILED if not (cell.plan.allows_error or is_shown):
            asks = cell.error is not None and cell.error.ename == "StdinNotImplementedError"
            return Ending(Outcome.FAILED, problem(_named(cell), INPUT_HINT if asks else ""))
        case CellOutcome.NOT_RUN:
            return Ending(Outcome.KERNEL_DIED, problem("the kernel refused again and again to run the code"))
        case _:
            return None


def ending_of_all(ending: Ending, cells: Iterable[CellExecution], total: int) -> Ending:
    """Return the ending of a run that reached its end, if a cell failed without ending the run.

    With ``--allow-errors`` a run continues after a time-out, but the time-out still fails the run, because it is not an
    error. An error that only the outputs show also fails the run. The first such cell is named.
    """
    faults = [cell for cell in cells if cell.result().is_fault]
    if ending.outcome is not Outcome.PASSED or not faults:
        return ending
    first, others = faults[0], len(faults) - 1
    more = f" (and in {others} more)" if others else ""
    if first.outcome is CellOutcome.TIMED_OUT:
        return Ending(Outcome.TIMED_OUT, problem_in(first, total, first.stop_reason, then=more))
    then = f"{more}: its outputs show the error, though the kernel's reply was ok"
    return Ending(Outcome.FAILED, problem_in(first, total, _named(first), SHOWN_HINT, then=then))


def ending_with_losses(ending: Ending, results: Sequence[CellResult], *, private: bool) -> Ending:
    """Return the ending of a run that lost output but has no other problem.

    A server that is `private` to the run has no limits to lift.
    """
    lossy = [result for result in results if result.incomplete]
    if ending.outcome is not Outcome.PASSED or not lossy:
        return ending
    first = lossy[0]
    more = f" (and in {len(lossy) - 1} more)" if len(lossy) > 1 else ""
    all_passed = all(result.outcome in (CellOutcome.PASSED, CellOutcome.SKIPPED) for result in results)
    passed = "Every cell passed." if all_passed else "No cell failed but where errors are allowed."
    hint = f"{passed} {NONE_TO_LIFT_HINT if private else LIFT_HINT}"
    total = sum(result.number is not None for result in results)
    where = f"in cell {first.number} of {total}{more}"
    return Ending(Outcome.INCOMPLETE, Problem(f"{first.incomplete}, {where}", hint, first.index))


def ending_without_artefacts(ending: Ending, missing: Sequence[str]) -> Ending:
    """Return the ending of a run that has no other problem and lacks artefacts, a sentence for each."""
    if ending.outcome is not Outcome.PASSED or not missing:
        return ending
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    hint = "The notebook passed. --tolerate-loss makes this a warning."
    return Ending(Outcome.INCOMPLETE, Problem(f"an artefact is missing: {missing[0]}{more}", hint))


_KEPT = (Outcome.INTERRUPTED, Outcome.SEAT_LOST)
"""The outcomes that a failed save does not replace."""


def with_failed_save(
    result: NotebookResult, failure: Problem, path: str | None, *, under_way: bool = False
) -> NotebookResult:
    """Return the result of a run whose notebook could not be saved; `path` is the rescue file, if any.

    The failed save becomes the run's problem, unless the server was lost, which is its cause. A save that was
    `under_way` may still take effect.
    """
    is_lost = result.outcome in (Outcome.SERVER_FAILED, Outcome.SEAT_LOST)
    first = result.problem if is_lost and result.problem else failure
    where = f"The executed notebook is in {path}." if path else "No rescue file could be written either."
    late = "What was sent to the server may still arrive there." if under_way else ""
    return replace(
        result,
        outcome=result.outcome if result.outcome in _KEPT else Outcome.SERVER_FAILED,
        problem=structs.replace(first, hint=" ".join(filter(None, (where, late, first.hint)))),
        output=path,
        rescued=path is not None,
    )


def results_of(plan: Plan, cells: Mapping[int, CellExecution], ending: Ending | None) -> list[CellResult]:
    """Return the result of every code cell of a plan; `cells` are those sent, by index in the notebook."""
    ended_early = ending is not None and any(cell.is_over and cell.exited_well for cell in cells.values())
    unsent = CellOutcome.SKIPPED if ended_early else CellOutcome.NOT_RUN
    return [cells[each.index].result() if each.index in cells else each for each in unrun(plan, unsent)]


def unrun(plan: Plan, outcome: CellOutcome = CellOutcome.NOT_RUN) -> list[CellResult]:
    """Return the results of a plan without sent cells: `outcome` for each cell that was to run."""
    numbers = plan.numbers
    return [
        CellResult(
            cell.index,
            cell.id,
            outcome if cell.index in numbers else CellOutcome.SKIPPED,
            number=numbers.get(cell.index),
        )
        for cell in plan.cells
    ]


def cut_off(ending: Ending) -> tuple[CellOutcome, CellError]:
    """Return outcome and error of a cell that still ran when the run ended with another cell."""
    died = ending.outcome is Outcome.KERNEL_DIED
    text = ending.problem.message if ending.problem else "the run ended"
    if died:
        return CellOutcome.KERNEL_DIED, CellError("KernelDied", text)
    return CellOutcome.INTERRUPTED, CellError("Interrupted", text)


def ending_of_stopped(cell: CellExecution, total: int, hint: str) -> Ending:
    """Return the ending of a run whose kernel was lost when nbrun interrupted its cell."""
    problem = problem_in(cell, total, cell.stop_reason, hint)
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
    found = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return found if found.endswith("..") else found.removesuffix(":").removesuffix(".")


def is_of_another_kernel(message: Message, kernel_session: str | None, own_session: str) -> bool:
    """Return whether a message has the session of a new kernel; False if the kernel's session is unknown (None).

    Servers and gateways add streams and death notices with their own sessions.
    """
    if kernel_session is None or message.session in (kernel_session, own_session, ""):
        return False
    return message.type != "stream" and str(message.content.get("execution_state")) not in GONE


def ended_by_rest(message: Message) -> str:
    """Return what another client did to the kernel, according to its shutdown_reply."""
    return "restarted" if message.content.get("restart") else "shut down"


def kernel_lost(how: str, cell: CellExecution | None, total: int, now: float) -> Ending:
    """Return the ending of a run whose kernel is gone; `how` completes the sentence "the kernel ..."."""
    if cell is None:
        return Ending(Outcome.KERNEL_DIED, Problem(f"the kernel {how}", DEATH_HINT))
    after = spell_duration(now - cell.sent_at)
    problem = problem_in(cell, total, f"the kernel {how}", DEATH_HINT, then=f", {after} after it started")
    return Ending(Outcome.KERNEL_DIED, problem)
