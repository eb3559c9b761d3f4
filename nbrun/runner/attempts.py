"""Select the best attempt of a retried run, for the result and the saved file.

A passed attempt is the best. Otherwise the attempt with most finished cells is, and on a tie the later one. An attempt
is saved only when it has got as far as the best earlier one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import Struct, field

from nbrun.core.events import CellFinished, Event, RunFinished
from nbrun.core.results import Attempt, NotebookResult, Outcome, is_verdict
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.storage.base import Notebook


class Attempts(Struct):
    """The results of the attempts so far."""

    results: list[NotebookResult] = field(default_factory=list)
    best: NotebookResult | None = None
    finished: RunFinished | None = None
    """The last event of the best attempt, which contains the notebook."""
    retirements: int = 0
    """The number of attempts whose seat was lost because its place was taken away in an orderly way."""

    def add(self, result: NotebookResult, finished: RunFinished | None) -> None:
        """Add an attempt and update the best one."""
        self.results.append(result)
        if self.best is None or result.goes_further(self.best):
            self.best, self.finished = result, finished

    @property
    def losses(self) -> int:
        """Return the number of attempts whose seat was lost."""
        return sum(result.outcome is Outcome.SEAT_LOST for result in self.results)

    def kept(self, warnings: Sequence[str]) -> NotebookResult:
        """Return the result of the best attempt, with a list of all attempts."""
        assert self.best is not None
        tries = [_listed(result, kept=result is self.best) for result in self.results]
        # A later attempt that got less far has replaced the files of the same names.
        artefacts = {one.path: one for result in self.results[self.number - 1 :] for one in result.artefacts}
        return replace(
            self.best,
            attempts=len(tries) if self.best.attempts else 0,
            tries=tuple(tries) if len(tries) > 1 else (),
            warnings=tuple(warnings),
            artefacts=tuple(artefacts.values()),
        )

    @property
    def number(self) -> int:
        """Return the number of the best attempt, from 1."""
        return next(number for number, result in enumerate(self.results, 1) if result is self.best)


def _listed(result: NotebookResult, *, kept: bool) -> Attempt:
    return Attempt(
        result.outcome,
        result.exit_code,
        result.started,
        result.seconds,
        result.verdicts,
        result.problem,
        result.output,
        kept,
    )


class LaterAttempt:
    """The notebook of a later attempt. It is saved only when it has got as far as the `best` one."""

    def __init__(self, inner: Notebook, best: NotebookResult) -> None:
        self.path = inner.path
        self._inner = inner
        self._best = best
        self._verdicts = 0
        self.is_withheld = False
        """Whether the executed notebook was not saved."""

    def observe(self, event: Event) -> None:
        """Count finished cells."""
        if isinstance(event, CellFinished) and is_verdict(event.result.outcome):
            self._verdicts += 1

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""
        return self._inner.kernel_path

    async def load(self) -> Mapping[str, Any]:
        """Load the notebook."""
        content = await self._inner.load()
        self.path = self._inner.path
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save the executed notebook, unless an earlier attempt got further."""
        if passed or self._has_caught_up:
            return await self._inner.save(content, retry, passed=passed)
        self.is_withheld = True
        return self._best.output or ""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save the running notebook, unless an earlier attempt got further."""
        return not self._has_caught_up or await self._inner.save_meanwhile(content)

    async def close(self) -> None:
        """Remove what :meth:`load` created on the server."""
        await self._inner.close()

    @property
    def _has_caught_up(self) -> bool:
        return self._verdicts >= self._best.verdicts
