"""Retry policies of HTTP requests (GET, save, reconnect): statuses, attempts and waits.

This is the only module that imports tenacity. A policy states the number of attempts, the total time, and the waits,
which double from ``first`` to ``longest``. Waits are randomised, so that many clients do not retry at the same moment.
Retried are :class:`~nbrun.errors.ServerUnreachable` and the HTTP statuses of the policy (such as 502). Every other
error is raised at once. A Retry-After header of the server is respected. If it exceeds the policy's time, the error is
raised without waiting.

There are two ways to use a policy. Both raise the error of the last attempt::

    answer = await PATIENT_GET.call(lambda: fetch(url))

    async for attempt in RECONNECT.attempts():
        with attempt:
            connection = await connect(url)
"""

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Self, TypeVar

import tenacity
from msgspec import Struct
from msgspec.structs import replace

from nbrun.errors import PrivateServerEnded, RequestRefused, ServerUnreachable, Throttled

T = TypeVar("T")
_log = logging.getLogger(__name__)


class RetryPolicy(Struct, frozen=True):
    """Try up to ``tries`` times; start no attempt later than ``total`` seconds after the first.

    ``first`` and ``longest`` bound the wait between attempts in seconds. ``statuses`` are the HTTP statuses of a
    :class:`~nbrun.errors.RequestRefused` that are retried.
    """

    tries: int
    total: float
    first: float = 0.25
    longest: float = 8.0
    statuses: frozenset[int] = frozenset()

    def within(self, total: float) -> Self:
        """Return the same policy with another total time in seconds."""
        return replace(self, total=total)

    def retries(self, error: BaseException) -> bool:
        """Return whether `error` is retried."""
        if isinstance(error, RequestRefused):
            return error.status in self.statuses
        return isinstance(error, ServerUnreachable) and not isinstance(error, PrivateServerEnded)

    def attempts(self) -> AsyncIterable[AbstractContextManager[object]]:
        """Return the attempts, each a context manager. The loop ends after the first block without an error."""
        return tenacity.AsyncRetrying(
            sleep=asyncio.sleep,
            stop=tenacity.stop_after_attempt(self.tries) | tenacity.stop_before_delay(self.total),
            wait=self._wait,
            retry=tenacity.retry_if_exception(self.retries),
            before_sleep=_log_retry,
            reraise=True,
        )

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await ``work()`` until it succeeds; raise the error of the last attempt."""
        async for attempt in self.attempts():
            with attempt:
                return await work()
        raise AssertionError("the attempts end in a value or in an error")

    def _wait(self, state: tenacity.RetryCallState) -> float:
        doubling = tenacity.wait_exponential(multiplier=self.first, max=self.longest)
        backoff = doubling(state) + tenacity.wait_random(0, self.first)(state)
        error = state.outcome.exception() if state.outcome else None
        return max(backoff, error.retry_after) if isinstance(error, Throttled) else backoff


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.info("attempt %d: %s; retrying in %.1f s", state.attempt_number, error, state.upcoming_sleep)


def pause_after(attempt: int, *, first: float = 0.5, longest: float = 60.0) -> float:
    """Return the seconds to wait after the `attempt`-th failed run, counted from 1: doubling, with jitter."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return tenacity.wait_exponential(multiplier=first, max=longest)(state) + tenacity.wait_random(0, first)(state)


ONCE = RetryPolicy(tries=1, total=0.0)
"""For requests that must not be repeated: POST, PATCH, the restart of a kernel."""

PROBE = RetryPolicy(tries=3, total=10.0, first=0.2, longest=1.0)
"""The first request. It is short, because an error in the address should be reported soon."""

PATIENT_GET = RetryPolicy(tries=6, total=60.0)
"""A GET changes nothing, so it is repeated while a proxy restarts."""

SAVE = RetryPolicy(tries=8, total=180.0, first=0.5, longest=20.0)
"""The save of a notebook: a PUT of a whole file is idempotent, and its content may be hours of work."""

TEARDOWN = RetryPolicy(tries=6, total=30.0, first=0.3, longest=5.0, statuses=frozenset({500}))
"""DELETE until the kernel is gone. A server answers 500 for a short time after a kernel has died."""

START = RetryPolicy(tries=4, total=300.0, first=0.5, longest=10.0)
"""POST of a private session. Each repetition first looks for a session that the previous attempt created."""

RECONNECT = RetryPolicy(tries=30, total=120.0, first=0.1, longest=5.0)
"""A kernel's websocket that was cut. The total is the time that a laptop needs to find its network again."""

RETURN = RetryPolicy(tries=1_000_000, total=120.0, first=0.5, longest=5.0)
"""Between two attempts of a run: until a lost server answers."""
