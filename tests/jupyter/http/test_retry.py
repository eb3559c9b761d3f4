"""A policy limits attempts and time, and respects Retry-After."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from nbrun.errors import AccessDenied, RequestRefused, ServerUnreachable, Throttled
from nbrun.jupyter.http.retry import (
    ONCE,
    PATIENT_GET,
    PROBE,
    RECONNECT,
    SAVE,
    START,
    TEARDOWN,
    RetryPolicy,
    pause_after,
)

SWIFT = RetryPolicy(tries=4, total=5.0, first=0.001, longest=0.002)


class Work:
    """Fails with the given errors, one a call, and succeeds from then on."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_an_unreachable_server_is_tried_again() -> None:
    work = Work(ServerUnreachable("a"), ServerUnreachable("b"))
    assert await SWIFT.call(work) == "done"
    assert work.calls == 3


async def test_each_retry_is_logged_with_its_reason_and_wait(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "nbrun.jupyter.http.retry"):
        await SWIFT.call(Work(ServerUnreachable("no answer"), ServerUnreachable("no answer")))
    assert [message.partition(" in ")[0] for message in caplog.messages] == [
        "attempt 1: no answer; retrying",
        "attempt 2: no answer; retrying",
    ]


async def test_what_comes_out_in_the_end_is_the_last_error() -> None:
    work = Work(*(ServerUnreachable(str(number)) for number in range(9)))
    with pytest.raises(ServerUnreachable, match="3"):
        await SWIFT.call(work)
    assert work.calls == 4


@pytest.mark.parametrize("error", [AccessDenied("no"), RequestRefused("no", status=500), ValueError("bug")])
async def test_any_other_error_passes_at_once(error: Exception) -> None:
    work = Work(error)
    with pytest.raises(type(error)):
        await SWIFT.call(work)
    assert work.calls == 1


async def test_a_status_that_the_policy_names_is_tried_again() -> None:
    work = Work(RequestRefused("mourning", status=500))
    assert await replace(SWIFT, statuses=TEARDOWN.statuses).call(work) == "done"


async def test_cancellation_is_no_reason_to_try_again() -> None:
    work = Work(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await SWIFT.call(work)
    assert work.calls == 1


async def test_the_time_that_a_server_asks_for_is_given() -> None:
    began = time.monotonic()
    await SWIFT.call(Work(Throttled("later", retry_after=0.2)))
    assert time.monotonic() - began >= 0.2


async def test_more_time_than_the_policy_has_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(Throttled):
        await SWIFT.within(30).call(Work(Throttled("tomorrow", retry_after=86_400)))
    assert time.monotonic() - began < 1


async def test_once_is_once() -> None:
    work = Work(ServerUnreachable("gone"))
    with pytest.raises(ServerUnreachable):
        await ONCE.call(work)
    assert work.calls == 1


async def test_attempts_can_be_entered_one_by_one() -> None:
    work = Work(ServerUnreachable("a"))
    async for attempt in SWIFT.attempts():
        with attempt:
            found = await work()
    assert (found, work.calls) == ("done", 2)


async def test_a_policy_can_be_used_by_many_at_a_time() -> None:
    works = [Work(*(ServerUnreachable("x") for _ in range(number))) for number in range(4)]
    assert await asyncio.gather(*(SWIFT.call(work) for work in works)) == ["done"] * 4
    assert [work.calls for work in works] == [1, 2, 3, 4]


@pytest.mark.parametrize("policy", [ONCE, PROBE, PATIENT_GET, SAVE, TEARDOWN, START, RECONNECT])
def test_every_named_policy_ends(policy: RetryPolicy) -> None:
    assert 1 <= policy.tries <= 30
    assert 0 <= policy.total <= 300
    assert policy.first <= policy.longest


def test_runs_back_off_with_jitter_up_to_a_limit() -> None:
    pauses = [[pause_after(attempt) for _ in range(50)] for attempt in (1, 2, 3, 4, 20)]
    for least, waits in zip((0.5, 1.0, 2.0, 4.0, 60.0), pauses, strict=True):
        assert all(least <= wait <= least + 0.5 for wait in waits)
    assert len(set(pauses[0])) > 1
