"""Interval saves: one at a time, only with new output, and without effect on the run if they fail."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nbrun.core.events import OutputArrived
from nbrun.errors import NbrunError, RequestRefused, ServerUnreachable
from nbrun.runner.autosave import Autosave, Pacing

LIMIT = 10.0


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save at once and look often."""
    monkeypatch.setattr("nbrun.runner.autosave.TICK", 0.01)
    monkeypatch.setattr("nbrun.runner.autosave.Pacing", lambda began, every: Pacing(began, every, cost=0.0))


class Scene:
    """An autosave, what it warned of, and news that a test makes."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.autosave = Autosave(self.warnings.append)
        self.news = 1
        self.saved = asyncio.Event()

    def start(self, save: Callable[[], Awaitable[bool]], every: float = 0.01) -> None:
        async def saving() -> bool:
            try:
                return await save()
            finally:
                self.saved.set()

        self.autosave.start(saving, lambda: self.news, every)

    async def next_save(self) -> None:
        self.saved.clear()
        await asyncio.wait_for(self.saved.wait(), LIMIT)


async def well() -> bool:
    return True


async def test_it_saves_when_there_is_news_and_not_without() -> None:
    scene = Scene()
    async with scene.autosave:
        scene.start(well)
        await scene.next_save()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert scene.autosave.saves == 1
        scene.news += 1
        await scene.next_save()
    assert scene.autosave.saves == 2


async def test_a_run_without_intermediate_saves_ends_as_well() -> None:
    async with Autosave(print) as autosave:
        pass
    assert autosave.saves == 0


async def test_the_end_waits_for_a_save_that_is_under_way() -> None:
    scene, begun, go, done = Scene(), asyncio.Event(), asyncio.Event(), []

    async def save() -> bool:
        begun.set()
        await go.wait()
        done.append(True)
        return True

    async with scene.autosave:
        scene.start(save)
        await asyncio.wait_for(begun.wait(), LIMIT)
        ending = asyncio.create_task(scene.autosave.end())
        await asyncio.sleep(0)
        scene.news += 1
        assert not ending.done()
        go.set()
        await asyncio.wait_for(ending, LIMIT)
    assert (done, scene.autosave.saves) == ([True], 1)


async def test_in_a_hurry_a_save_that_does_not_end_is_given_up() -> None:
    scene, begun = Scene(), asyncio.Event()

    async def save() -> bool:
        begun.set()
        await asyncio.Event().wait()
        return True

    async with scene.autosave:
        scene.start(save)
        await asyncio.wait_for(begun.wait(), LIMIT)
        await asyncio.wait_for(scene.autosave.end(0.01), LIMIT)
    assert scene.warnings == []


async def test_it_stops_where_it_is_told_that_somebody_changed_the_file() -> None:
    scene = Scene()

    async def save() -> bool:
        return False

    async with scene.autosave:
        scene.start(save)
        await scene.next_save()
        scene.news += 1
        for _ in range(20):
            await asyncio.sleep(0.01)
    assert (scene.autosave.saves, scene.warnings) == (1, [])


@pytest.mark.parametrize(
    ("error", "warns"),
    [
        (ServerUnreachable("gone"), ""),
        (RequestRefused("no", status=403), "cannot be saved while it runs: no"),
        (ZeroDivisionError("oops"), "by a bug in nbrun"),
    ],
    ids=["unreachable", "refused", "a bug"],
)
async def test_its_failures_are_no_failures_of_the_run(error: Exception, warns: str) -> None:
    scene = Scene()

    async def save() -> bool:
        raise error

    async with scene.autosave:
        scene.start(save)
        await scene.next_save()
        if isinstance(error, NbrunError) and not warns:
            scene.news += 1
            await scene.next_save()
            assert scene.autosave.saves == 2
    assert [warns in warning for warning in scene.warnings] == [True] * bool(warns)


async def test_much_output_brings_the_next_save_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbrun.runner.autosave.SOON", 0.01)
    monkeypatch.setattr("nbrun.runner.autosave.MUCH", 1000)
    scene = Scene()
    async with scene.autosave:
        scene.autosave.start(lambda: scene_saved(scene), lambda: scene.news, None)
        scene.autosave.observe(OutputArrived("nb", 0, {"output_type": "stream", "name": "stdout", "text": "x" * 600}))
        scene.autosave.observe(
            OutputArrived("nb", 0, {"output_type": "display_data", "data": {"text/html": "x" * 600}})
        )
        scene.autosave.observe(OutputArrived("nb", 0, {"output_type": "error"}))
        await asyncio.wait_for(scene.saved.wait(), LIMIT)


async def scene_saved(scene: Scene) -> bool:
    scene.saved.set()
    return True
