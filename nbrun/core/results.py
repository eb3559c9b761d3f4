"""The results of cells, notebooks and batches, and the exit code of a result.

``nbrun run --json`` writes ``NotebookResult.as_dict``, or ``BatchResult.as_dict`` for a batch. ``docs/json.md``
documents both, and their fields do not change.

``NotebookResult.check`` and ``BatchResult.check`` raise what went wrong, for callers who prefer exceptions. These
errors carry the results, and so they are here and not in :mod:`nbrun.errors`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from msgspec import Struct

from nbrun.core.delivery.loss_mark import Incomplete
from nbrun.core.formats.tracebacks import plain
from nbrun.core.outputs.limit import Truncated
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.version import __version__


class CellOutcome(StrEnum):
    """The outcome of a code cell."""

    PASSED = "passed"
    """The kernel replied ok, or with an error that the cell's ``raises-exception`` tag expects."""
    FAILED = "failed"
    """The kernel replied with an error, the outputs show one, or the reply was lost."""
    TIMED_OUT = "timed-out"
    """A time limit was reached while it ran, and it was interrupted."""
    KERNEL_DIED = "kernel-died"
    """The kernel ended or was restarted while it ran."""
    INTERRUPTED = "interrupted"
    """Ctrl-C, SIGTERM or the loss of the server stopped it."""
    SKIPPED = "skipped"
    """Not run: tagged to be skipped, without code, or after a cell that ended the notebook deliberately."""
    NOT_RUN = "not-run"
    """The run ended before this cell."""


class Outcome(StrEnum):
    """The outcome of a notebook."""

    PASSED = "passed"
    PREPARED = "prepared"
    """Written with its parameters and not executed (``--prepare-only``)."""
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    KERNEL_DIED = "kernel-died"
    INTERRUPTED = "interrupted"
    INCOMPLETE = "incomplete"
    """No cell failed that was not allowed to, but output is known to be lost, or an artefact is missing."""
    SERVER_FAILED = "server-failed"
    SEAT_LOST = "seat-lost"
    """The place where an engine ran it is gone: a worker, its machine or its server."""
    NOT_RUN = "not-run"
    """It could not be run because of wrong usage."""
    SKIPPED = "skipped"
    """Another run held the lock (``--lock skip``)."""


_EXIT_CODES = {
    Outcome.PASSED: ExitCode.OK,
    Outcome.PREPARED: ExitCode.OK,
    Outcome.FAILED: ExitCode.NOTEBOOK_FAILED,
    Outcome.TIMED_OUT: ExitCode.NOTEBOOK_FAILED,
    Outcome.KERNEL_DIED: ExitCode.KERNEL,
    Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    Outcome.SERVER_FAILED: ExitCode.SERVER,
    Outcome.SEAT_LOST: ExitCode.SERVER,
    Outcome.INCOMPLETE: ExitCode.INCOMPLETE,
    Outcome.NOT_RUN: ExitCode.USAGE,
    Outcome.SKIPPED: ExitCode.OK,
}
_NEVER_OF_AN_ERROR = (Outcome.PASSED, Outcome.PREPARED, Outcome.TIMED_OUT, Outcome.SEAT_LOST)
_OUTCOMES = {code: outcome for outcome, code in _EXIT_CODES.items() if outcome not in _NEVER_OF_AN_ERROR}


class CellError(Struct, frozen=True):
    """The error of a cell, in the format of nbformat's ``error`` output.

    ``shown`` is true if only the outputs show the error and the kernel's reply was ok. ``stderr`` is the end of the
    cell's standard error for an error without a traceback, because some kernels print the traceback there.
    """

    ename: str
    evalue: str
    traceback: Sequence[str] = ()
    shown: bool = False
    stderr: str = ""

    @property
    def details(self) -> Sequence[str]:
        """Return the traceback, or the last lines of standard error if there is none."""
        return self.traceback or self.stderr.splitlines()

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result."""
        return {
            "ename": self.ename,
            "evalue": self.evalue,
            "traceback": list(self.traceback),
            "shown": self.shown,
            "stderr": self.stderr,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "CellError":
        """Return the error from the result of :meth:`as_dict`."""
        return cls(
            content["ename"],
            content["evalue"],
            content["traceback"],
            shown=bool(content.get("shown")),
            stderr=content.get("stderr") or "",
        )


class CellResult(Struct, frozen=True):
    """The result of one code cell.

    ``index`` is its position among all cells of the notebook, from 0. ``number`` is its position among the cells that
    the run executes, from 1; messages use it. It is None for a cell without code and for a skipped one. ``seconds`` is
    the wall time of the cell, or None if it never started. A passed cell may have an ``error`` if the error was
    expected. ``allowed`` is true for a failed cell whose error ``--allow-errors`` permits. No report counts such a cell
    as a failure.
    """

    index: int
    id: str | None
    outcome: CellOutcome
    execution_count: int | None = None
    seconds: float | None = None
    error: CellError | None = None
    incomplete: Incomplete | None = None
    truncated: Truncated | None = None
    number: int | None = None
    allowed: bool = False

    @property
    def is_fault(self) -> bool:
        """Return whether the cell failed without being allowed to."""
        return self.outcome not in _NO_FAULT and not self.allowed

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result."""
        return {
            "index": self.index,
            "number": self.number,
            "id": self.id,
            "outcome": self.outcome.value,
            "allowed": self.allowed,
            "execution_count": self.execution_count,
            "seconds": None if self.seconds is None else round(self.seconds, 6),
            "error": self.error.as_dict() if self.error else None,
            "incomplete": self.incomplete.as_dict() if self.incomplete else None,
            "truncated": self.truncated.as_dict() if self.truncated else None,
        }


class Problem(Struct, frozen=True):
    """The problem of a run as a whole: a sentence for the user, and a hint.

    ``cell`` is the index of the cell that the sentence is about, among all cells from 0.
    """

    message: str
    hint: str = ""
    cell: int | None = None

    @classmethod
    def of(cls, error: NbrunError) -> "Problem":
        """Return the problem for an error."""
        return cls(str(error), error.hint)

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result."""
        return {"message": self.message, "hint": self.hint, "cell": self.cell}


class Attempt(Struct, frozen=True):
    """One attempt of a retried run.

    ``verdicts`` counts the cells that passed, failed, timed out or had their kernel die. ``output`` is the path of this
    attempt's notebook, or None if it was not saved. ``kept`` is true for the attempt whose result and notebook were
    kept.
    """

    outcome: Outcome
    exit_code: ExitCode
    started: str
    seconds: float
    verdicts: int
    problem: Problem | None = None
    output: str | None = None
    kept: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result."""
        return {
            "outcome": self.outcome.value,
            "exit_code": int(self.exit_code),
            "started": self.started,
            "seconds": round(self.seconds, 6),
            "verdicts": self.verdicts,
            "problem": {"message": self.problem.message, "hint": self.problem.hint} if self.problem else None,
            "output": self.output,
            "kept": self.kept,
        }


_VERDICTS = (CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.TIMED_OUT, CellOutcome.KERNEL_DIED)


def is_verdict(outcome: CellOutcome) -> bool:
    """Return whether a cell with this outcome finished by itself."""
    return outcome in _VERDICTS


class Artefact(Struct, frozen=True):
    """A file that the run wrote and nbrun collected.

    ``path`` is relative to the kernel's working directory, ``file`` is the file on this machine. ``size`` is in bytes.
    """

    path: str
    file: str
    size: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result."""
        return {"path": self.path, "file": self.file, "size": self.size, "sha256": self.sha256}


DELIVERED = "-"
"""The output path of a run whose executed notebook was delivered as text."""


@dataclass(frozen=True, slots=True)
class NotebookResult:
    """The result of one notebook.

    ``path`` is the notebook as the caller named it, ``notebook`` in the JSON result. ``output`` is the path of the
    executed notebook: the requested path, the rescue file if that could not be written (``rescued`` is then true),
    ``-`` if its text was delivered, or None if nothing was saved. ``started`` is ISO 8601 in UTC, ``seconds`` wall
    time. ``signal`` is the exit code of a run that was stopped by a signal. ``parameters`` are those given to the run,
    without secrets. ``attempts`` is the number of attempts of a retried run, and 0 for a run that never started.
    ``tries`` lists the attempts, and is empty for a run that was not retried; the result is that of the best one.
    ``cached`` is true if nothing was executed, because the results of an earlier run are still valid. ``artefacts``
    are the collected files. ``load`` returns the executed notebook.
    """

    version: str
    path: str
    output: str | None
    kernel: str | None
    outcome: Outcome
    started: str
    seconds: float
    cells: Sequence[CellResult] = ()
    problem: Problem | None = None
    rescued: bool = False
    warnings: Sequence[str] = ()
    signal: ExitCode | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 1
    cached: bool = False
    tries: Sequence[Attempt] = ()
    artefacts: Sequence[Artefact] = ()
    load: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def notebook(self) -> Any:
        """Return the executed notebook as an ``nbformat.NotebookNode``.

        The result of one run keeps the notebook. The result of a run in a batch reads the file at ``output``. Raise
        :class:`UsageError` where it can do neither: nothing was saved, or the file is on a server.
        """
        if self.load is None:
            raise UsageError(
                f"{self.path}: the result does not have the executed notebook",
                hint="A batch keeps no notebooks in memory. Save them on this machine, or read them with observe=.",
            )
        return self.load()

    def check(self) -> Self:
        """Return this result if the run passed; raise :class:`CellFailed` or :class:`RunFailed` if not."""
        if self.went_well:
            return self
        raise _error_of(self)

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code for this outcome."""
        if self.outcome in (Outcome.INTERRUPTED, Outcome.NOT_RUN) and self.signal is not None:
            return self.signal
        if self.outcome is Outcome.NOT_RUN and not self.attempts:
            return ExitCode.NOTHING_TO_RUN
        return _EXIT_CODES[self.outcome]

    @property
    def went_well(self) -> bool:
        """Return whether everything requested was done."""
        return self.outcome in (Outcome.PASSED, Outcome.PREPARED, Outcome.SKIPPED)

    @property
    def failing(self) -> CellResult | None:
        """Return the failed cell that the problem is about, or the last failed cell."""
        named = self.problem.cell if self.problem else None
        faults = [cell for cell in self.cells if cell.is_fault and named in (None, cell.index)]
        return faults[-1] if faults else None

    @property
    def verdicts(self) -> int:
        """Return how many cells passed, failed, timed out or had their kernel die."""
        return sum(is_verdict(cell.outcome) for cell in self.cells)

    def goes_further(self, other: "NotebookResult") -> bool:
        """Return whether this attempt is better than the earlier one: it passed, or at least as many cells ended."""
        mine, others = self.outcome is Outcome.PASSED, other.outcome is Outcome.PASSED
        return mine if mine != others else self.verdicts >= other.verdicts

    def tally(self) -> dict[CellOutcome, int]:
        """Return the number of cells for each outcome that occurs."""
        found = [cell.outcome for cell in self.cells]
        return {outcome: found.count(outcome) for outcome in CellOutcome if outcome in found}

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` writes."""
        return {
            "version": self.version,
            "notebook": self.path,
            "output": self.output,
            "kernel": self.kernel,
            "outcome": self.outcome.value,
            "exit_code": int(self.exit_code),
            "started": self.started,
            "seconds": round(self.seconds, 6),
            "problem": self.problem.as_dict() if self.problem else None,
            "rescued": self.rescued,
            "warnings": list(self.warnings),
            "parameters": dict(self.parameters),
            "attempts": self.attempts,
            "tries": [attempt.as_dict() for attempt in self.tries],
            "cached": self.cached,
            "artefacts": [artefact.as_dict() for artefact in self.artefacts],
            "cells": [cell.as_dict() for cell in self.cells],
        }


_GRAVEST_FIRST = (
    ExitCode.BUG,
    ExitCode.TERMINATED,
    ExitCode.INTERRUPTED,
    ExitCode.KERNEL,
    ExitCode.SERVER,
    ExitCode.USAGE,
    ExitCode.NOTEBOOK_FAILED,
    ExitCode.INCOMPLETE,
    ExitCode.OVERDUE,
    ExitCode.NOTHING_TO_RUN,
    ExitCode.OK,
)


def gravest(*codes: int) -> ExitCode:
    """Return the most severe of several exit codes."""
    return min(map(ExitCode, codes), key=_GRAVEST_FIRST.index)


def with_lost_reports(code: int, lost: Sequence[str]) -> ExitCode:
    """Return the exit code of a call, given the reports that could not be written."""
    return gravest(code, ExitCode.SERVER) if lost else ExitCode(code)


class Part(Struct, frozen=True):
    """The part of a batch that ``--shard K/N`` selects: the ``number``-th of ``total``, counted from 1.

    ``batch`` is the same for all parts of a batch, which has ``size`` runs. ``positions`` are those of this part's runs
    in the whole batch, from 0, and ``names`` their names in events.
    """

    number: int
    total: int
    batch: str
    size: int
    positions: Sequence[int] = ()
    names: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result."""
        return {
            "number": self.number,
            "total": self.total,
            "batch": self.batch,
            "size": self.size,
            "positions": list(self.positions),
            "names": list(self.names),
        }


class BatchResult(Struct, frozen=True):
    """The results of many notebooks, in the order in which they were requested.

    ``started`` is ISO 8601 in UTC, ``seconds`` wall time. ``left_out`` counts the runs that were found and deliberately
    left out: those of other shards, unchanged and skipped ones. ``problem`` explains why there are no runs, and
    ``failure`` is the exit code of a batch that could not start. ``shard`` is the part of the batch that was run, or
    None for all of it.
    """

    version: str
    started: str
    seconds: float
    runs: Sequence[NotebookResult] = ()
    left_out: int = 0
    problem: Problem | None = None
    failure: ExitCode | None = None
    shard: Part | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Return the most severe exit code of all runs, or that of an empty batch."""
        if self.failure is not None:
            return self.failure
        codes = [run.exit_code for run in self.runs] or [ExitCode.OK if self.left_out else ExitCode.NOTHING_TO_RUN]
        return gravest(*codes)

    @property
    def failed(self) -> Sequence[NotebookResult]:
        """Return the runs that did not pass."""
        return [run for run in self.runs if not run.went_well]

    def check(self) -> Self:
        """Return this result if all runs passed; raise :class:`BatchFailed` if not, or if nothing was found."""
        if self.exit_code is ExitCode.OK:
            return self
        raise BatchFailed(self)

    def tally(self) -> dict[Outcome, int]:
        """Return the number of runs for each outcome that occurs."""
        found = [run.outcome for run in self.runs]
        return {outcome: found.count(outcome) for outcome in Outcome if outcome in found}

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` writes for a batch."""
        return {
            "version": self.version,
            "started": self.started,
            "seconds": round(self.seconds, 6),
            "exit_code": int(self.exit_code),
            "tally": {outcome.value: number for outcome, number in self.tally().items()},
            "left_out": self.left_out,
            "problem": {"message": self.problem.message, "hint": self.problem.hint} if self.problem else None,
            "shard": self.shard.as_dict() if self.shard else None,
            "runs": [run.as_dict() for run in self.runs],
        }


_NO_FAULT = (CellOutcome.PASSED, CellOutcome.SKIPPED, CellOutcome.NOT_RUN)


def outcome_of(error: NbrunError) -> Outcome:
    """Return the outcome of a run that ended with `error`, by the error's exit code."""
    return _OUTCOMES.get(error.exit_code, Outcome.SERVER_FAILED)


def unexecuted(notebook: str, outcome: Outcome, problem: Problem | None, began: datetime) -> NotebookResult:
    """Return the result of a run that executed no cell; `began` is in UTC."""
    return NotebookResult(__version__, notebook, None, None, outcome, moment(began), 0.0, problem=problem)


def moment(when: datetime) -> str:
    """Return a time as in results and events: ISO 8601 with milliseconds."""
    return when.isoformat(timespec="milliseconds")


class RunFailed(NbrunError):
    """A run did not pass, and no single cell is the reason: the server failed, output was lost, it was stopped.

    ``result`` is the result of the run. The exit code is the result's.
    """

    def __init__(self, result: NotebookResult) -> None:
        problem = result.problem or Problem(f"the outcome is {result.outcome.value}")
        super().__init__(f"{result.path}: {problem.message}", hint=problem.hint)
        self.result = result
        self.exit_code = result.exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what :mod:`pickle` needs to create the error again."""
        return type(self), (self.result,)


class CellFailed(RunFailed):
    """A cell raised an error, timed out, was interrupted or lost its kernel.

    ``cell`` is the result of the cell and ``index`` its position among all cells, from 0. ``ename``, ``evalue`` and
    ``traceback`` describe the error as nbformat does; they are empty where there was none, for example after a
    time-out. The traceback is also a note of the exception, so Python prints it.
    """

    def __init__(self, result: NotebookResult, cell: CellResult) -> None:
        super().__init__(result)
        self.cell = cell
        error = cell.error or CellError("", "")
        self.index = cell.index
        self.ename, self.evalue, self.traceback = error.ename, error.evalue, tuple(error.traceback)
        if error.details:
            self.add_note("\n".join(plain(line) for line in error.details))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what :mod:`pickle` needs to create the error again."""
        return type(self), (self.result, self.cell)


class BatchFailed(NbrunError):
    """Runs of a batch did not pass, or there was nothing to run.

    ``result`` is the result of the batch. ``errors`` contains the error of :meth:`NotebookResult.check` for each run
    that did not pass, in the order of the runs. The message of each is a note of this exception.
    """

    def __init__(self, result: BatchResult) -> None:
        self.errors: Sequence[RunFailed] = [_error_of(run) for run in result.failed]
        if self.errors:
            runs = "notebook" if len(result.runs) == 1 else "notebooks"
            problem = Problem(f"{len(self.errors)} of {len(result.runs)} {runs} did not pass")
        else:
            problem = result.problem or Problem("the batch could not be run")
        super().__init__(problem.message, hint=problem.hint)
        self.result = result
        self.exit_code = result.exit_code
        for error in self.errors:
            self.add_note(str(error))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what :mod:`pickle` needs to create the error again."""
        return type(self), (self.result,)


def _error_of(run: NotebookResult) -> RunFailed:
    cell = run.failing
    return RunFailed(run) if cell is None else CellFailed(run, cell)
