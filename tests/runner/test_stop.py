"""The switch that ends a run early."""

import asyncio

import pytest

from nbrun.errors import ExitCode
from nbrun.runner.stop import Stopped, StopSwitch


def test_a_switch_that_was_not_pulled_has_no_reason() -> None:
    switch = StopSwitch()
    assert (switch.reason, switch.exit_code) == (None, None)


def test_only_the_first_pull_counts() -> None:
    switch = StopSwitch()
    heard: list[str] = []
    switch.listen(heard.append)
    switch.pull("interrupted by Ctrl-C", ExitCode.INTERRUPTED)
    switch.pull("terminated", ExitCode.TERMINATED)
    assert (switch.reason, switch.exit_code) == ("interrupted by Ctrl-C", ExitCode.INTERRUPTED)
    assert heard == ["interrupted by Ctrl-C"]


def test_who_listens_late_hears_at_once_and_who_has_left_hears_nothing() -> None:
    switch = StopSwitch()
    early: list[str] = []
    late: list[str] = []
    switch.listen(early.append)
    switch.forget(early.append)
    switch.pull("it is late", ExitCode.INTERRUPTED)
    switch.listen(late.append)
    assert (early, late) == ([], ["it is late"])


def test_a_listener_may_leave_while_it_is_told() -> None:
    switch = StopSwitch()
    heard: list[str] = []

    def first(reason: str) -> None:
        switch.forget(first)
        heard.append(f"first: {reason}")

    switch.listen(first)
    switch.listen(heard.append)
    switch.pull("now", ExitCode.INTERRUPTED)
    assert heard == ["first: now", "now"]


async def test_guarded_work_gives_its_value_or_its_error() -> None:
    switch = StopSwitch()

    async def value() -> int:
        return 42

    async def error() -> None:
        raise ZeroDivisionError

    assert await switch.guard(value()) == 42
    with pytest.raises(ZeroDivisionError):
        await switch.guard(error())
    switch.pull("later", ExitCode.INTERRUPTED)  # and cancels nobody


class Work:
    """Something that takes for ever, and a while to clean up."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = False

    async def do(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()
            self.ended = True


async def test_a_pull_cancels_guarded_work_and_waits_for_its_end() -> None:
    switch, work = StopSwitch(), Work()
    guarding = asyncio.create_task(switch.guard(work.do()))
    await work.begun.wait()
    switch.pull("it is late", ExitCode.INTERRUPTED)
    work.may_end.set()
    with pytest.raises(Stopped):
        await guarding
    assert work.ended


async def test_work_that_is_guarded_by_a_pulled_switch_does_not_begin() -> None:
    switch, work = StopSwitch(), Work()
    switch.pull("it was late", ExitCode.INTERRUPTED)
    with pytest.raises(Stopped):
        await switch.guard(work.do())
    assert not work.begun.is_set()


async def test_cancellation_from_outside_passes_on_when_the_work_has_ended() -> None:
    switch, work = StopSwitch(), Work()
    guarding = asyncio.create_task(switch.guard(work.do()))
    await work.begun.wait()
    guarding.cancel()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await guarding
    assert work.ended


async def test_work_that_cancels_itself_is_no_pull() -> None:
    async def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await StopSwitch().guard(cancel())


async def test_cancellation_is_not_swallowed_by_a_pull_at_the_same_time() -> None:
    switch, work = StopSwitch(), Work()
    guarding = asyncio.create_task(switch.guard(work.do()))
    await work.begun.wait()
    switch.pull("it is late", ExitCode.INTERRUPTED)
    guarding.cancel()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await guarding
