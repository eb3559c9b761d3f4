"""One time limit for all stores of a command or a call that do not answer.

The module imports very little, because every command creates a budget.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple


class _Silence(NamedTuple):
    """How long a store has not answered, when the last request to it ended, and when it can be asked again."""

    seconds: float
    ended: float
    next_attempt: float


class WaitBudget:
    """The time that a command or a call waits for stores that do not answer, for all of them together.

    Each store has a part of what is left, so that stores that answer have some however many do not. A store that did
    not answer is asked a second time for a short time. After that, requests to it fail at once, except for a short
    attempt every ten seconds. With its next answer it is a usual store again.
    """

    def __init__(
        self,
        total: float = 16.0,
        *,
        short: float = 2.0,
        pause: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait `total` seconds together, up to `short` for each further attempt, and `pause` seconds between them."""
        self._total = total
        self._short = short
        self._pause = pause
        self._clock = clock
        self._silences: dict[str, _Silence] = {}
        self._answers: dict[str, float] = {}

    @property
    def spent(self) -> float:
        """Return the seconds that were spent on stores that have not answered since."""
        return sum(silence.seconds for silence in self._silences.values())

    def limit_for(self, url: str) -> float:
        """Return the seconds for a request to the store at `url`, or 0 if it is not to be asked now."""
        silence, left = self._silences.get(_host(url)), self._total - self.spent
        if silence is None:
            return max(left * 3 / 4, self._short / 2)
        if self._clock() < silence.next_attempt:
            return 0.0
        return min(self._short, max(left / 4, self._short / 4))

    def has_answered(self, url: str) -> bool:
        """Return whether the store at `url` has answered in the last seconds."""
        return self._clock() - self._answers.get(_host(url), -math.inf) < self._pause

    @contextlib.contextmanager
    def measure(self, url: str) -> Iterator[None]:
        """Measure the time of a request to the store at `url`.

        One that fails quickly with another error than TimeoutError was answered, or refused.
        """
        host, began = _host(url), self._clock()
        try:
            yield
        except BaseException as error:
            ended = self._clock()
            before = self._silences.get(host)
            if ended - began < min(1.0, self._short) and not isinstance(error, TimeoutError):
                pass
            elif before is None:
                self._silences[host] = _Silence(ended - began, ended, ended)
            elif began >= before.ended:  # not at the same time as one that is counted
                self._silences[host] = _Silence(before.seconds + ended - began, ended, ended + self._pause)
            raise
        self._silences.pop(host, None)
        self._answers[host] = self._clock()

    @contextlib.contextmanager
    def shared(self) -> Iterator["WaitBudget"]:
        """Use this budget for all requests in a block."""
        token = _budget.set(self)
        try:
            yield self
        finally:
            _budget.reset(token)


_budget: ContextVar[WaitBudget | None] = ContextVar("nbrun_wait_budget", default=None)


def current_budget() -> WaitBudget | None:
    """Return the budget of the block around the caller, or None."""
    return _budget.get()


def _host(url: str) -> str:
    """Return the scheme and the host or bucket of a URL; a folder is its own host."""
    return "/".join(url.split("/", 3)[:3]) if "://" in url else url
