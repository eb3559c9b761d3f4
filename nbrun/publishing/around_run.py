"""What happens before and after a call of ``nbrun run`` or ``nbrun batch``: lock and history.

The command line creates a :class:`RunWatch` if an option or setting asks for one. It enters ``locked`` before anything
is run, and calls ``finish`` with whatever ended the invocation, at the outermost level.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nbrun.core.batch.schedule import Schedule
from nbrun.core.results import BatchResult, NotebookResult, Outcome, moment, outcome_of
from nbrun.errors import ExitCode, NbrunError, RunSkipped
from nbrun.publishing.local_history import LocalHistory, PastRun, report_key, state_folder
from nbrun.publishing.locks import FileLock, locked
from nbrun.runner.stop import StopSwitch

GRACE = 3600.0
"""Default seconds that a scheduled run may be late."""
_OUTCOMES = {
    ExitCode.OK: Outcome.PASSED.value,
    ExitCode.NOTEBOOK_FAILED: Outcome.FAILED.value,
    ExitCode.NOTHING_TO_RUN: Outcome.NOT_RUN.value,
    ExitCode.BUG: "bug",
    ExitCode.TERMINATED: Outcome.INTERRUPTED.value,
}


@dataclass(frozen=True, slots=True)
class Report:
    """What is run: a batch or a notebook.

    ``name`` is the name of the batch or the stem of the notebook, ``place`` what runs of it share: the folder of the
    settings, or the path of the output.
    """

    name: str
    place: str

    @property
    def key(self) -> str:
        """Return the name of its files in the state folder."""
        return report_key(self.name, self.place)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an invocation ended: its exit code, its result if there is one, and the error that ended it otherwise."""

    code: int
    result: NotebookResult | BatchResult | None = None
    error: BaseException | None = None

    @property
    def outcome(self) -> str:
        """Return the outcome as in the result, or ``bug``."""
        if isinstance(self.error, RunSkipped):
            return Outcome.SKIPPED.value
        code = ExitCode(self.code) if self.code in list(ExitCode) else ExitCode.BUG
        if isinstance(self.result, NotebookResult) and self.result.exit_code == code:
            return self.result.outcome.value
        if code in _OUTCOMES:
            return _OUTCOMES[code]
        error = NbrunError("")
        error.exit_code = code
        return outcome_of(error).value


class RunWatch:
    """One invocation, with its options by name; ``now`` is its start."""

    def __init__(self, report: Report, options: Mapping[str, Any], now: datetime) -> None:
        self.report = report
        self.started = now
        self.history = LocalHistory(report.key)
        self.result: NotebookResult | BatchResult | None = None
        self._options = options

    def locked(self, stop: StopSwitch) -> AbstractAsyncContextManager[None]:
        """Return a context that holds the lock, if the options ask for one."""
        how = self._options.get("lock")
        if how is None:
            return nullcontext()
        lock = FileLock(state_folder() / "locks" / f"{self.report.key}.lock")
        return locked(lock, how, self._options["lock_timeout"], self.report.name, stop)

    def scheduled(self) -> datetime | None:
        """Return the start of the schedule that this invocation is for, or None if none is near."""
        expression = self._options.get("schedule")
        if expression is None:
            return None
        if line := self._options.get("if_due"):
            return Schedule(line).last_start(self.started)
        schedule = Schedule(expression, self._options.get("timezone") or "UTC")
        grace = timedelta(seconds=self._options.get("grace") or GRACE)
        start = schedule.last_start(self.started)
        return start if self.started - start <= grace else None

    def finish(self, code: int, error: BaseException | None) -> list[str]:
        """Record the end of the invocation, and return warnings."""
        ending = Ending(code, self.result, error)
        scheduled = self.scheduled()
        run = PastRun(
            moment(self.started),
            round((datetime.now(UTC) - self.started).total_seconds(), 3),
            ending.outcome,
            code,
            None if scheduled is None else moment(scheduled),
        )
        try:
            self.history.add(run)
        except OSError as failure:
            return [f"{self.history.file}: the run cannot be recorded: {failure.strerror}"]
        return []
