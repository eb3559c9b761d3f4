"""Results are saved in every case: at their path, or in a rescue file that is named."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.events import Stage
from nbrun.core.execution.cell import CellExecution
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.write_back import Recording
from nbrun.core.outputs.area import OutputArea
from nbrun.core.results import NotebookResult, Outcome
from nbrun.errors import ExitCode, UsageError
from nbrun.jupyter.http.messages import Patience
from nbrun.jupyter.http.retry import SAVE
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.saving import SHORT_LIMIT
from nbrun.runner.stop import StopSwitch
from nbrun.storage.on_server import ServerNotebook
from tests.support.live_runs import LoopClock, live_run, outcomes, text_in, text_of
from tests.support.notebooks import code, notebook, read_notebook, stdout, write_notebook
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer

LIMIT = 30.0
OLD = notebook(code("print('one')", outputs=[stdout("old")], count=7))
SLOW = notebook("print('one')", "print('here\\n', end='', flush=True)\nimport time; time.sleep(60)", "print('three')")
RAN = notebook("print('ran')")
UNTIL_GO = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)"
"""The source of a cell that waits for the file `go` beside the notebook."""
SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def nothing_is_left(server: RunningServer) -> Iterator[None]:
    """After every test there is neither a session nor a kernel."""
    (server.root / "go").unlink(missing_ok=True)
    yield
    assert (server.sessions(), server.get("api/kernels")) == ([], [])


async def until_the_kernel_is_gone(server: RunningServer) -> None:
    """Wait until the session has ended, which goes on beside the save."""
    while await asyncio.to_thread(server.sessions):
        await asyncio.sleep(0.05)


def raise_a_bug(*_: object, **__: object) -> Any:
    raise ZeroDivisionError("a bug")


# The server will not have it -----------------------------------------------------------------------------------------


async def test_a_result_that_the_server_refuses_is_rescued(file: Path, options: Any, wire: Proxy, here: Path) -> None:
    before = write_notebook(file, RAN).read_bytes()
    wire.answer(403, "PUT", times=9)
    result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.outcome, result.exit_code, result.rescued) == (Outcome.SERVER_FAILED, ExitCode.SERVER, True)
    assert result.problem is not None
    assert "not saved" in result.problem.message
    assert result.output is not None
    assert result.output in result.problem.hint
    assert text_in(Path(result.output)) == "ran\n"
    assert Path(result.output).parent == here
    assert file.read_bytes() == before


async def test_a_failing_cell_is_still_told_when_its_result_had_to_be_rescued(
    file: Path, options: Any, wire: Proxy, here: Path
) -> None:
    write_notebook(file, notebook("1 / 0"))
    wire.answer(403, "PUT", times=9)
    result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.outcome, outcomes(result)) == (Outcome.SERVER_FAILED, ["failed"])
    assert any("ZeroDivisionError" in warning for warning in result.warnings)


async def test_that_nothing_could_be_rescued_is_told_too(
    file: Path, options: Any, wire: Proxy, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(file, notebook("1"))
    wire.answer(403, "PUT", times=9)
    monkeypatch.setattr("nbrun.runner.saving.rescue", lambda *_: None)
    result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.output, result.rescued) == (None, False)
    assert result.problem is not None
    assert "No rescue file" in result.problem.hint


async def test_whatever_keeps_the_result_from_being_saved_it_is_rescued(
    file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(file, OLD)

    async def refuse(*_: object, **__: object) -> str:
        raise UsageError("the notebook holds what JSON cannot")

    monkeypatch.setattr("nbrun.storage.on_server.ServerNotebook.save", refuse)
    result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.outcome, result.rescued) == (Outcome.SERVER_FAILED, True)
    [rescued] = here.glob("*.rescued-*.ipynb")
    assert text_of(read_notebook(rescued)["cells"][0]["outputs"]) == "one\n"


# It takes too long ---------------------------------------------------------------------------------------------------


async def test_an_interrupted_run_whose_server_swallows_the_save_is_rescued_soon(
    file: Path, options: Any, wire: Proxy, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.saving.SHORT_LIMIT", 0.5)
    write_notebook(file, SLOW)
    stop = StopSwitch()
    async with live_run("nb.ipynb", stop=stop, **options) as run:
        await run.watch.printed("here")
        wire.hold("PUT", "nb.ipynb")  # not released: it would replace the notebook of the next test
        stop.pull("it is late", ExitCode.TERMINATED)
        result = await run.result()
    assert (result.outcome, result.exit_code, result.rescued) == (Outcome.INTERRUPTED, ExitCode.TERMINATED, True)
    assert result.output is not None
    assert text_in(Path(result.output)) == "one\nhere\n"
    assert result.problem is not None
    assert "may still arrive" in result.problem.hint
    assert any("it is late" in warning for warning in result.warnings)


@pytest.fixture
def save_limit(monkeypatch: pytest.MonkeyPatch) -> float:
    """Limit the save of a small notebook, and return the seconds. Each of its requests may take longer."""
    monkeypatch.setattr("nbrun.runner.servers.Server", lambda client: Server(client, save=SAVE.within(10.0)))
    monkeypatch.setattr("nbrun.runner.saving.LONG", Patience(read=10.0, total=10.0))
    return 20.0


@pytest.mark.parametrize("way", ["never answers", "takes it at a trickle"])
async def test_a_save_that_takes_for_ever_is_given_up_for_a_rescue_file_and_may_still_arrive(
    way: str, file: Path, options: Any, wire: Proxy, server: RunningServer, here: Path, save_limit: float
) -> None:
    clock, before = LoopClock(), write_notebook(file, RAN).read_bytes()
    hold = wire.hold("PUT", "nb.ipynb")
    async with live_run("nb.ipynb", **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        await until_the_kernel_is_gone(server)
        if way == "takes it at a trickle":
            wire.line.rate = 20
            hold.release()
        clock.advance(save_limit)
        result = await run.result()
    assert (result.outcome, result.exit_code, result.rescued) == (Outcome.SERVER_FAILED, ExitCode.SERVER, True)
    assert result.output is not None
    assert text_in(Path(result.output)) == "ran\n"
    assert result.problem is not None
    assert "did not take the result within 2" in result.problem.message
    assert "may still arrive" in result.problem.hint
    assert file.read_bytes() == before
    if way == "never answers":
        hold.release()
        while file.read_bytes() == before:
            await asyncio.sleep(0.02)  # it did arrive: the hint has not said too much
    assert len(wire.lines("PUT")) == 1


async def test_a_large_result_has_more_time(
    file: Path, options: Any, wire: Proxy, server: RunningServer, save_limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.saving.SLOWEST_LINE", 1_000)
    write_notebook(file, notebook("for _ in range(6): print('x' * 10_000)"))
    clock, hold = LoopClock(), wire.hold("PUT", "nb.ipynb")
    async with live_run("nb.ipynb", **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        await until_the_kernel_is_gone(server)
        clock.advance(save_limit)
        hold.release()
        result = await run.result()
    assert (result.outcome, result.output) == (Outcome.PASSED, "nb.ipynb")


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_signal_during_the_save_makes_it_hurry(
    arrives: bool, file: Path, options: Any, wire: Proxy, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.saving.SHORT_LIMIT", 20.0 if arrives else 0.3)
    write_notebook(file, RAN)
    hold, stop = wire.hold("PUT", "nb.ipynb"), StopSwitch()
    async with live_run("nb.ipynb", stop=stop, **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        stop.pull("it is late", ExitCode.TERMINATED)
        if arrives:
            hold.release()
        result = await run.result()
    assert result.outcome is (Outcome.PASSED if arrives else Outcome.SERVER_FAILED)
    assert result.rescued is not arrives
    assert result.output is not None
    assert text_in(file if arrives else Path(result.output)) == "ran\n"


async def test_a_signal_while_a_save_meanwhile_is_under_way_makes_it_hurry(
    file: Path, options: Any, wire: Proxy, here: Path
) -> None:
    write_notebook(file, notebook(f"print('ran', flush=True)\n{UNTIL_GO}"))
    clock, hold, stop = LoopClock(), wire.hold("PUT", "nb.ipynb"), StopSwitch()
    async with live_run("nb.ipynb", stop=stop, save_every=0.1, **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        file.with_name("go").touch()
        await run.watch.stage(Stage.STOPPING)
        stop.pull("it is late", ExitCode.TERMINATED)
        clock.advance(SHORT_LIMIT)
        result = await run.result()
    assert (result.outcome, result.output) == (Outcome.PASSED, "nb.ipynb")
    assert text_in(file) == "ran\n"


async def test_a_run_that_is_cancelled_while_the_server_swallows_the_save_names_its_rescue_file(
    file: Path, options: Any, wire: Proxy, server: RunningServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.saving.SHORT_LIMIT", 0.3)
    write_notebook(file, RAN)
    hold = wire.hold("PUT", "nb.ipynb")
    async with live_run("nb.ipynb", **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run.task, LIMIT)
        [rescued] = here.glob("*.rescued-*")
        assert text_in(rescued) == "ran\n"
        assert any(str(rescued) in warning for warning in run.watch.warnings)
    await until_the_kernel_is_gone(server)  # which is asked to end, and not waited for in a run that was cancelled


@pytest.mark.parametrize("times", [1, 2])
async def test_a_run_that_is_cancelled_while_it_is_saved_keeps_what_it_computed(
    times: int, file: Path, options: Any, wire: Proxy, server: RunningServer, here: Path
) -> None:
    write_notebook(file, RAN)
    hold = wire.hold("PUT", "nb.ipynb")
    async with live_run("nb.ipynb", **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        await until_the_kernel_is_gone(server)
        await asyncio.sleep(0.2)
        for _ in range(times):
            run.task.cancel()
            await asyncio.sleep(0.1)
        if times == 1:
            hold.release()  # otherwise it would replace the notebook of the next test
        with pytest.raises(asyncio.CancelledError):
            await run.task
    rescued = [*here.glob("*.rescued-*")]
    assert len(rescued) == times - 1
    assert text_in(rescued[0] if rescued else file) == "ran\n"


# A bug ---------------------------------------------------------------------------------------------------------------


async def test_a_bug_in_the_save_leaves_a_rescue_file(
    file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ServerNotebook, "save", broken)
    write_notebook(file, RAN)
    with pytest.raises(ZeroDivisionError):
        await nbrun.run_async("nb.ipynb", **options)
    [rescued] = here.glob("*.rescued-*")
    assert text_in(rescued) == "ran\n"


STEPS = {
    "giving the results": "nbrun.core.execution.machine.Execution.results",
    "weighing the losses": "nbrun.runner.saving.ending_with_losses",
    "making the result": "nbrun.runner.run.recordable",
    "recording": "nbrun.core.execution.write_back.Recording.finish",
    "marking cells": "nbrun.core.notebook.document.Document.mark",
    "keeping widgets": "nbrun.core.notebook.document.Document.set_widgets",
    "marking the run": "nbrun.core.notebook.document.Document.mark_run",
    "limiting the save": "nbrun.core.notebook.document.Document.size",
}
"""What is done between the last cell and the save, and a function of ours that has part in it."""


@pytest.mark.parametrize("function", STEPS.values(), ids=STEPS.keys())
async def test_a_bug_on_the_way_to_the_save_passes_on_and_leaves_a_rescue_file(
    function: str, file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_notebook(file, notebook("print('ran')", f"print('too', flush=True)\n{UNTIL_GO}"))
    old = before.read_bytes()
    async with live_run("nb.ipynb", **options) as run:
        await run.watch.printed("too")
        with monkeypatch.context() as patched:
            patched.setattr(function, raise_a_bug)
            file.with_name("go").touch()
            with pytest.raises(ZeroDivisionError) as raised:
                await asyncio.wait_for(asyncio.shield(run.task), LIMIT)
    [rescued] = here.glob("*.rescued-*")
    assert text_in(rescued) == "ran\ntoo\n"
    assert file.read_bytes() == old
    assert str(rescued) in "".join(raised.value.__notes__)
    assert any("a bug" in warning and str(rescued) in warning for warning in run.watch.warnings)


@pytest.mark.parametrize("save", [False, True])
async def test_a_bug_costs_no_file_where_nothing_was_to_be_saved(
    save: bool, file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recording, "finish", raise_a_bug)
    write_notebook(file, notebook() if save else RAN)
    with pytest.raises(ZeroDivisionError):
        await nbrun.run_async("nb.ipynb", save=save, **options)
    assert [*here.iterdir()] == []


async def test_a_cell_whose_outputs_cannot_be_rendered_costs_no_other_cell_its_own(
    file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = OutputArea.render

    def broken(area: OutputArea) -> list[Any]:
        outputs = render(area)
        return raise_a_bug() if text_of(outputs) == "two\n" else outputs

    monkeypatch.setattr(OutputArea, "render", broken)
    write_notebook(file, notebook("print('one')", "print('two')", "1 / 0"))
    async with live_run("nb.ipynb", allow_errors=True, **options) as run:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.shield(run.task), LIMIT)
    [rescued] = here.glob("*.rescued-*")
    one, two, three = read_notebook(rescued)["cells"]
    assert text_of(one["outputs"]) == "one\n"
    assert "outputs of this cell may be missing, by a bug in nbrun: ZeroDivisionError" in text_of(two["outputs"])
    assert [output["output_type"] for output in three["outputs"]] == ["error"]
    assert three["metadata"]["nbrun"]["outcome"] == "failed"
    assert any("outputs may be missing" in warning and "in cell 2" in warning for warning in run.watch.warnings)


async def test_what_cannot_be_written_costs_no_other_cell_its_own(
    file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Recording.finish

    def broken(recording: Recording, execution: Execution, result: NotebookResult) -> None:
        finish(recording, execution, result)
        recording.document.cells[1]["outputs"].append({"output_type": "stream", "name": "stdout", "text": object()})

    monkeypatch.setattr(Recording, "finish", broken)
    write_notebook(file, notebook("print('one')", "print('two')"))
    result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.outcome, result.rescued) == (Outcome.SERVER_FAILED, True)
    assert result.output is not None
    assert text_in(Path(result.output)) == "one\ntwo\n"
    assert read_notebook(Path(result.output))["metadata"]["nbrun"]["run"]["outcome"] == "passed"


async def test_a_bug_in_the_masking_lets_no_secret_into_the_rescue_file(
    file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = "print(PASS[:-1] + 'x\\b' + PASS[-1])"  # which are the secret only when they are put together
    write_notebook(file, notebook(pieces, f"print('ran', flush=True)\n{UNTIL_GO}"))
    async with live_run("nb.ipynb", secrets={"PASS": SECRET}, **options) as run:
        await run.watch.printed("ran")
        monkeypatch.setattr("nbrun.core.outputs.masking.Mask.value", raise_a_bug)
        file.with_name("go").touch()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.shield(run.task), LIMIT)
    [rescued] = here.glob("*.rescued-*")
    assert SECRET not in rescued.read_text()
    assert SECRET not in file.read_text()
    assert "may be missing" in text_in(rescued)


async def test_a_run_that_cannot_even_be_ended_is_kept_as_it_stands(
    file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(file, SLOW)
    async with live_run("nb.ipynb", **options) as run:
        await run.watch.printed("here")
        monkeypatch.setattr(Execution, "abandon", raise_a_bug)
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run.task, LIMIT)
    [rescued] = here.glob("*.rescued-*")
    assert text_in(rescued) == "one\nhere\n"
    assert read_notebook(rescued)["metadata"]["nbrun"]["run"]["outcome"] == "interrupted"


async def test_of_a_run_that_a_bug_ended_and_the_server_refuses_the_rescue_file_is_named(
    file: Path, options: Any, wire: Proxy, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(file, SLOW)
    wire.answer(403, "PUT", times=9)
    async with live_run("nb.ipynb", **options) as run:
        await run.watch.printed("here")
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run.task, LIMIT)
    [rescued] = here.glob("*.rescued-*")
    assert any(str(rescued) in warning for warning in run.watch.warnings)


# What is said of losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False])
async def test_what_is_said_of_lost_output_fits_the_server_and_the_cells(
    private: bool, file: Path, options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Incomplete((Cause.MISSING_MESSAGES,), 3, exact=True)
    monkeypatch.setattr(CellExecution, "incomplete", lambda _: lost)
    write_notebook(here / "nb.ipynb" if private else file, notebook("1 / 0", "print('ran')"))
    result = await nbrun.run_async("nb.ipynb", allow_errors=True, **({} if private else options))
    assert (result.exit_code, outcomes(result)) == (ExitCode.INCOMPLETE, ["failed", "passed"])
    assert result.problem is not None
    assert "Every cell passed" not in result.problem.hint
    assert ("nbrun doctor" in result.problem.hint) is not private
