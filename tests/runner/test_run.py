"""A run from start to end: its result and what it leaves, for every ending."""

import asyncio
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import Stage
from nbrun.core.execution.effects import Effects
from nbrun.core.execution.machine import Execution
from nbrun.core.protocol.codec import Subprotocol, decode
from nbrun.core.protocol.messages import Message
from nbrun.core.results import Outcome
from nbrun.errors import AccessDenied, ExitCode, NoSuchKernel, NoSuchNotebook, NotANotebook, ServerUnreachable
from nbrun.jupyter.client import Client
from nbrun.jupyter.http.retry import SAVE
from nbrun.jupyter.kernel.websocket import KernelChannel
from nbrun.jupyter.kernel_session import Server
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.runner import pipelining
from nbrun.runner.pipelining import FAR_DEPTH
from nbrun.runner.stop import StopSwitch
from tests.support.live_runs import live_run, outcomes, text_in
from tests.support.notebooks import FIXTURES, code, notebook, read_notebook, stdout, write_notebook
from tests.support.processes import FORCED_DEPTH, of_cells_behind
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer

LIMIT = 30.0
OLD = notebook(code("print('one')", outputs=[stdout("old")], count=7))
SLOW = notebook("print('one')", "print('here\\n', end='', flush=True)\nimport time; time.sleep(60)", "print('three')")


@pytest.fixture(autouse=True)
def nothing_is_left(server: RunningServer) -> Iterator[None]:
    """After every test there is neither a session nor a kernel."""
    yield
    assert (server.sessions(), server.get("api/kernels")) == ([], [])


async def test_a_run_leaves_its_mark_and_its_results(file: Path, options: Any) -> None:
    write_notebook(file, OLD)
    result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.outcome, result.exit_code, result.output, result.kernel) == (
        Outcome.PASSED, ExitCode.OK, "nb.ipynb", "python3",
    )  # fmt: skip
    saved = read_notebook(file)
    assert text_in(file) == "one\n"
    assert saved["cells"][0]["metadata"]["execution"]
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "passed"
    assert saved["metadata"]["language_info"]["name"] == "python"


async def test_without_timing_two_runs_write_the_same_bytes(file: Path, options: Any) -> None:
    write_notebook(file, OLD)
    await nbrun.run_async("nb.ipynb", record_timing=False, **options)
    first = file.read_bytes()
    await nbrun.run_async("nb.ipynb", record_timing=False, **options)
    assert file.read_bytes() == first


async def test_a_near_server_is_recognised_by_its_fastest_answer(
    file: Path, options: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that connects to a new kernel answers a ping late."""

    async def late(_channel: KernelChannel, _limit: float) -> float:
        return 1.0

    monkeypatch.setattr(KernelChannel, "round_trip", late)
    monkeypatch.setattr(pipelining, "NEAR_WITH_AGENT", 0.0)
    write_notebook(file, notebook("1", "2"))
    caplog.set_level(logging.DEBUG, "nbrun.runner.run")
    await nbrun.run_async("nb.ipynb", **{**options, "pipeline": None})
    assert str(FAR_DEPTH) not in next(line for line in caplog.messages if "slot free" in line)


async def test_what_the_document_has_to_say_is_among_the_warnings(file: Path, options: Any) -> None:
    shutil.copy(FIXTURES / "old" / "nbformat_3.ipynb", file)
    result = await nbrun.run_async("nb.ipynb", **options)
    assert "nbformat 3" in " ".join(result.warnings)


async def test_what_cannot_be_run_is_an_error_and_changes_nothing(file: Path, options: Any, wire: Proxy) -> None:
    before = write_notebook(file, OLD).read_bytes()
    with pytest.raises(NoSuchKernel):
        await nbrun.run_async("nb.ipynb", kernel="cobol", **options)
    assert file.read_bytes() == before
    file.write_text("{}")
    with pytest.raises(NotANotebook):
        await nbrun.run_async("nb.ipynb", **options)
    assert wire.lines("PUT") + wire.lines("POST") == []


async def test_requests_that_do_not_depend_on_each_other_are_sent_at_once(
    server: RunningServer, file: Path, options: Any, wire: Proxy
) -> None:
    """A request that waited for the answer to another one would not arrive while that one is held."""
    write_notebook(file, OLD)
    new = "api/contents/new/nb.ipynb?content=0"
    (server.root / "new").mkdir()
    for_loading = [wire.hold("GET", words) for words in ("kernelspecs", "contents/nb.ipynb", new, "contents/new?")]
    for_saving = [wire.hold("GET", f"{new}&hash=1"), wire.hold("GET", "contents/new?"), wire.hold("DELETE", "sessions")]
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(nbrun.run_async("nb.ipynb", output="new/nb.ipynb", **options))
        for holds, before in ((for_loading, {"GET"}), (for_saving, {"GET", "POST", "PATCH"})):
            for hold in holds:
                await hold.reached.wait()
            assert {heard.method for heard in wire.heard} - {"DELETE"} == before
            for hold in holds:
                hold.release()
    assert run.result().outcome is Outcome.PASSED
    assert "GET /api/me" not in wire.lines()


async def test_a_wrong_token_is_reported_before_a_missing_notebook(options: Any, wire: Proxy) -> None:
    with pytest.raises(AccessDenied, match="token"):
        await nbrun.run_async("missing.ipynb", **{**options, "token": "wrong"})
    assert {heard.method for heard in wire.heard} == {"GET"}


async def test_an_upload_is_cleaned_up_when_the_kernels_cannot_be_listed(
    server: RunningServer, options: Any, wire: Proxy, here: Path
) -> None:
    write_notebook(here / "local.ipynb", OLD)
    wire.answer(403, "GET", "kernelspecs")
    hold = wire.hold("PUT", "nbrun-")
    run = asyncio.create_task(nbrun.run_async("local.ipynb", upload=True, **options))
    await asyncio.wait_for(hold.reached.wait(), LIMIT)
    while "GET /api/kernelspecs" not in wire.lines():
        await asyncio.sleep(0.01)
    hold.release()
    with pytest.raises(nbrun.NbrunError):
        await run
    assert list(server.root.glob("nbrun-*")) == []


@pytest.mark.parametrize(
    ("held", "stage"),
    [
        pytest.param(("GET", "api/contents/nb.ipynb"), Stage.LOADING, id="while the notebook is loaded"),
        pytest.param(("POST", "api/sessions"), Stage.STARTING_KERNEL, id="while the session is started"),
        pytest.param(("GET", "/channels"), Stage.STARTING_KERNEL, id="while the websocket is opened"),
    ],
)
@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_run_that_ends_before_its_first_cell_changes_nothing_and_leaves_no_session(
    how: str, held: tuple[str, str], stage: Stage, file: Path, options: Any, wire: Proxy
) -> None:
    before = write_notebook(file, OLD).read_bytes()
    hold = wire.hold(*held)
    stop = StopSwitch()
    async with live_run("nb.ipynb", stop=stop, **options) as run:
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        await run.watch.stage(stage)
        if how == "stop":
            stop.pull("it is late", ExitCode.TERMINATED)
            hold.release()
            result = await run.result()
            assert (result.outcome, result.exit_code) == (Outcome.INTERRUPTED, ExitCode.TERMINATED)
            assert result.problem is not None
            assert "before the first cell" in result.problem.message
            assert outcomes(result) == ([] if stage is Stage.LOADING else ["not-run"])
        else:
            run.task.cancel()
            hold.release()
            with pytest.raises(asyncio.CancelledError):
                await run.task
    assert file.read_bytes() == before
    assert wire.lines("PUT") == []


async def test_a_run_that_is_stopped_before_it_begins_does_not_begin(options: Any, wire: Proxy) -> None:
    stop = StopSwitch()
    stop.pull("it was late", ExitCode.INTERRUPTED)
    result = await nbrun.run_async("nb.ipynb", stop=stop, **options)
    assert (result.outcome, result.cells) == (Outcome.INTERRUPTED, [])
    assert wire.heard == []


async def test_a_run_that_is_stopped_in_a_cell_saves_what_there_is(file: Path, options: Any) -> None:
    write_notebook(file, SLOW)
    stop = StopSwitch()
    async with live_run("nb.ipynb", stop=stop, **options) as run:
        await run.watch.printed("here")
        stop.pull("it is late", ExitCode.TERMINATED)
        result = await run.result()
    assert outcomes(result) == ["passed", "interrupted", "not-run"]
    assert (result.exit_code, result.output) == (ExitCode.TERMINATED, "nb.ipynb")
    assert text_in(file) == "one\nhere\n"


async def test_a_bug_while_cells_run_costs_nothing_that_was_put_out_before(
    file: Path, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Execution.receive

    def broken(execution: Execution, message: Message, now: float) -> Effects:
        if str(message.content.get("text")).startswith("boom"):  # its line break may come by itself
            raise ZeroDivisionError("a bug")
        return receive(execution, message, now)

    monkeypatch.setattr(Execution, "receive", broken)
    write_notebook(file, notebook("print('ran')", "print('boom', flush=True)", "print('never')"))
    with pytest.raises(ZeroDivisionError):
        await nbrun.run_async("nb.ipynb", **options)
    saved = read_notebook(file)
    assert saved["cells"][0]["outputs"] == [stdout("ran\n")]
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "interrupted"


async def test_messages_that_cannot_be_read_are_told(file: Path, options: Any, wire: Proxy) -> None:
    source = "print('here', flush=True)\nimport pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)"
    write_notebook(file, notebook(source))
    async with live_run("nb.ipynb", **options) as run:
        await run.watch.printed("here")
        wire.inject(b"\x82\x03abc")
        (file.parent / "go").touch()
        result = await run.result()
    (file.parent / "go").unlink()
    assert result.outcome is Outcome.PASSED
    assert any("1 messages of the kernel could not be read" in warning for warning in result.warnings)


async def test_a_server_that_goes_away_during_the_run_leaves_a_rescue_file(
    file: Path, options: Any, wire: Proxy, server: RunningServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = SAVE.within(0.5)
    monkeypatch.setattr("nbrun.jupyter.sessions.TEARDOWN", impatient)
    monkeypatch.setattr("nbrun.jupyter.http.client.PATIENT_GET", impatient)
    monkeypatch.setattr("nbrun.runner.servers.Server", lambda client: Server(client, reconnect=impatient))
    monkeypatch.setattr("nbrun.runner.saving.SHORT_RETRY", 0.5)
    write_notebook(file, SLOW)
    depth = int(os.environ.get(FORCED_DEPTH, "1"))  # auto would send cells ahead where a busy machine answers late
    async with live_run("nb.ipynb", **options, pipeline=depth) as run:
        await run.watch.printed("here")
        wire.close()
        result = await run.result()
    assert (result.outcome, result.exit_code, result.rescued) == (Outcome.SERVER_FAILED, ExitCode.SERVER, True)
    assert outcomes(result) == ["passed", "interrupted", of_cells_behind("interrupted")]
    assert result.output is not None
    assert text_in(Path(result.output)) == "one\nhere\n"
    assert result.problem is not None
    assert "in cell 2 of 3" in result.problem.message, "the loss comes first, and not that the save failed for it"
    await asyncio.to_thread(end_all, server)


def end_all(server: RunningServer) -> None:
    for session in server.sessions():
        server.call("DELETE", f"api/sessions/{session['id']}")


async def test_a_notebook_that_cannot_be_loaded_cancels_no_request_whose_answer_comes(
    options: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancelled read of a Unix socket whose data is there makes asyncio log a traceback."""
    answered: list[object] = []

    async def later(client: Client) -> KernelSpecs:
        await asyncio.sleep(0.3)
        answered.append(specs := await ask(client))
        return specs

    ask = Client.kernelspecs
    monkeypatch.setattr(Client, "kernelspecs", later)
    with pytest.raises(NoSuchNotebook):
        await nbrun.run_async("missing.ipynb", **options)
    assert len(answered) == 1


async def test_a_server_that_is_not_there_is_an_error(here: Path) -> None:
    with pytest.raises(ServerUnreachable):
        await nbrun.run_async("nb.ipynb", server="http://127.0.0.1:9/", token="t")


async def test_an_observer_that_raises_costs_the_run_nothing_and_is_warned_of(file: Path, options: Any) -> None:
    write_notebook(file, OLD)

    def observe(event: object) -> None:
        if getattr(event, "stage", None) is Stage.STOPPING:
            raise ZeroDivisionError

    result = await nbrun.run_async("nb.ipynb", observe=observe, **options)
    assert text_in(file) == "one\n"
    assert any("an observer of the run raised ZeroDivisionError" in warning for warning in result.warnings)


async def test_a_bug_in_the_reading_ends_the_run_instead_of_letting_it_wait_for_ever(
    file: Path, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(file, OLD)

    def decode_until_the_cell_runs(frame: Any, subprotocol: Subprotocol) -> Message:
        message = decode(frame, subprotocol)
        if message.type == "execute_input":
            raise ZeroDivisionError("a bug")
        return message

    monkeypatch.setattr("nbrun.jupyter.kernel.websocket.decode", decode_until_the_cell_runs)
    result = await asyncio.wait_for(nbrun.run_async("nb.ipynb", **options), LIMIT)
    assert (result.outcome, outcomes(result)) == (Outcome.SERVER_FAILED, ["interrupted"])
    assert result.problem is not None
    assert "bug in nbrun: ZeroDivisionError('a bug')" in result.problem.message
