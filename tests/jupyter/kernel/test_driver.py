"""A connected kernel: requests, handshake, runs, interrupts, and its loss."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from nbrun.core.events import CellStarted, Event, OutputArrived
from nbrun.core.execution.machine import Execution
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.protocol.codec import Subprotocol
from nbrun.core.protocol.messages import Message, Requests
from nbrun.core.results import CellOutcome, Outcome
from nbrun.errors import KernelDied, KernelStartFailed, ServerUnreachable
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.retry import ONCE, RetryPolicy
from nbrun.jupyter.kernel.driver import Kernel, connect_kernel
from tests.support.frames import websocket_frame
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer, jupyter_server

LIMIT = 30.0
BRISK = RetryPolicy(tries=100, total=20.0, first=0.02, longest=0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone; kernels that die stay dead, and a deaf one is not waited for long."""
    args = [
        "--KernelRestarter.restart_limit=0",
        "--KernelRestarter.time_to_dead=0.3",
        "--KernelManager.shutdown_wait_time=0.5",
    ]
    with jupyter_server(tmp_path_factory.mktemp("files"), args=args) as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: RunningServer) -> str:
    """A kernel that tests share which leave it as it was."""
    kernel: str = server.call("POST", "api/kernels", {"name": "python3"})["id"]
    return kernel


@pytest.fixture
def own(server: RunningServer) -> Iterator[str]:
    """A kernel of the test's own."""
    kernel: str = server.call("POST", "api/kernels", {"name": "python3"})["id"]
    yield kernel
    with contextlib.suppress(OSError):  # the test has deleted it
        server.call("DELETE", f"api/kernels/{kernel}")


@contextlib.asynccontextmanager
async def connected(
    server: RunningServer, kernel_id: str, at: str | None = None, patience: RetryPolicy = BRISK
) -> AsyncIterator[Kernel]:
    """Connect to a kernel, by the address `at` or the server's own."""
    async with (
        Client(Endpoint(at or server.url, token=server.token)) as client,
        connect_kernel(client.http, client.kernels, kernel_id, patience=patience) as kernel,
    ):
        yield kernel


class Watched:
    """A run of some cells, and a way to wait for what one of them prints."""

    def __init__(self, kernel: Kernel, *sources: str, timeout: float | None = None) -> None:
        self.text = ""
        self._changed = asyncio.Event()
        plans = [CellPlan(index, f"cell-{index}", source, Action.RUN) for index, source in enumerate(sources)]
        self.execution = Execution(Plan(plans, timeout), kernel.requests, observe=self._observe)

    def _observe(self, event: Event) -> None:
        if isinstance(event, OutputArrived):
            self.text += str(event.output.get("text", ""))
        if isinstance(event, OutputArrived | CellStarted):
            self._changed.set()

    async def printed(self, words: str) -> None:
        """Wait until `words` have been printed."""
        async with asyncio.timeout(LIMIT):
            while words not in self.text:
                self._changed.clear()
                await self._changed.wait()

    @property
    def outcome(self) -> Outcome:
        assert self.execution.ending is not None
        return self.execution.ending.outcome

    @property
    def problem(self) -> str:
        assert self.execution.ending is not None
        assert self.execution.ending.problem is not None
        return self.execution.ending.problem.message

    @property
    def outcomes(self) -> list[CellOutcome]:
        return [cell.outcome for cell in self.execution.results()]


@contextlib.asynccontextmanager
async def running(kernel: Kernel, *sources: str, timeout: float | None = None) -> AsyncIterator[Watched]:
    """Run cells beside the block; when it ends, the run is waited for, and has left no task behind."""
    watched = Watched(kernel, *sources, timeout=timeout)
    run = asyncio.create_task(kernel.run(watched.execution))
    try:
        yield watched
        await asyncio.wait_for(asyncio.shield(run), LIMIT)
    finally:
        run.cancel()
        await asyncio.wait([run])
    assert not at_work()


def at_work() -> list[str]:
    """Return what a run's driver still does in this loop."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("Kernel.")]


async def test_code_is_executed_and_its_messages_come_as_they_are_sent(server: RunningServer, shared: str) -> None:
    async with connected(server, shared) as kernel:
        assert kernel.subprotocol is Subprotocol.V1
        messages = [message async for message in kernel.execute("print('one')\n6 * 7", limit=LIMIT)]
    assert {"status", "execute_input", "stream", "execute_result", "execute_reply"} == {m.type for m in messages}
    [result] = [message for message in messages if message.type == "execute_result"]
    assert result.content["data"]["text/plain"] == "42"


async def test_a_request_of_the_server_cannot_have_the_id_of_one_of_ours(server: RunningServer, shared: str) -> None:
    """Servers with jupyter_client 6 send requests of their own as SESSION_NUMBER, with the session of the address."""
    async with connected(server, shared) as kernel:
        session = kernel._channel._session_id
        request = kernel.requests.kernel_info()
        assert request.header["session"] == session  # messages of the server have it too, such as its notices
        assert not request.id.startswith(session)


async def test_silent_code_takes_no_count_and_shows_no_result(server: RunningServer, shared: str) -> None:
    async with connected(server, shared) as kernel:
        messages = [message async for message in kernel.execute("6 * 7", silent=True, limit=LIMIT)]
    assert {message.type for message in messages} == {"status", "execute_reply"}


async def test_names_are_completed_and_inspected_at_a_position_in_code_points(
    server: RunningServer, shared: str
) -> None:
    async with connected(server, shared) as kernel:
        completed = await kernel.complete("'😀'; prin")
        assert (completed["matches"], completed["cursor_start"]) == (["print"], 5)
        completed = await kernel.complete("import strin; 1", 12)
        assert "string" in completed["matches"]
        inspected = await kernel.inspect("'😀'; len + 1", 9)
        assert "number of items" in inspected["data"]["text/plain"]
        inspected = await kernel.inspect("len", detail_level=1)
        assert inspected["found"]


async def test_a_kernel_introduces_itself(server: RunningServer, shared: str) -> None:
    async with connected(server, shared) as kernel:
        info = await kernel.handshake()
        assert info.implementation == "ipython"
        assert info.language_info["name"] == "python"
        assert info.session not in (None, "", kernel.requests.session)


@pytest.mark.parametrize(
    ("nudge", "subprotocol", "arrived", "expected"),
    [
        pytest.param(True, Subprotocol.V1, False, 1, id="a silent server"),
        pytest.param(True, Subprotocol.V1, True, 0, id="a message has arrived"),
        pytest.param(True, Subprotocol.LEGACY, False, 0, id="perhaps in front of a gateway"),
        pytest.param(False, Subprotocol.V1, False, 0, id="a far or a private server"),
    ],
)
async def test_a_server_is_nudged_if_it_delivers_nothing(
    nudge: bool, subprotocol: Subprotocol, arrived: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.jupyter.kernel.driver.NUDGE_AFTER", 0.0)
    nudges: list[None] = []

    async def send(_: Message) -> None:
        pass

    channel: Any = SimpleNamespace(arrivals=asyncio.Queue(), subprotocol=subprotocol, send=send)
    channel.nudge = lambda: nudges.append(None)
    if arrived:
        channel.arrivals.put_nowait(Message("iopub", {"msg_type": "status"}, {}, {"execution_state": "idle"}))
    with pytest.raises(KernelStartFailed):
        await Kernel("k", channel, Requests("c"), cast("Any", None)).handshake(0.01, nudge=nudge)
    assert len(nudges) == expected


@pytest.mark.parametrize("refused", [False, True])
async def test_a_nudge_is_a_connection_for_a_moment_that_may_be_refused(
    refused: bool, server: RunningServer, own: str, wire: Proxy
) -> None:
    async with connected(server, own, wire.url) as kernel:
        hold = wire.hold("GET", "/channels")
        if refused:
            wire.answer(503, "GET", "/channels")
        kernel._channel.nudge()
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        hold.release()
        assert (await kernel.handshake(LIMIT)).implementation == "ipython"
    assert server.get(f"api/kernels/{own}")["connections"] == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("nudge")]


async def test_a_kernel_that_never_answers_is_given_up_at_the_limit(server: RunningServer, own: str) -> None:
    async with connected(server, own) as kernel:
        info = await process_of(kernel)
        info.suspend()
        with pytest.raises(KernelStartFailed, match=r"did not answer within 0\.5 s"):
            await kernel.handshake(0.5)
        info.resume()


async def test_an_execution_without_an_answer_ends_at_its_limit(server: RunningServer, own: str) -> None:
    async with connected(server, own) as kernel:
        process = await process_of(kernel)
        process.suspend()
        with pytest.raises(ServerUnreachable, match=r"no complete_reply within 0\.3 s"):
            await kernel.complete("x", limit=0.3)
        process.resume()


async def test_a_kernel_that_dies_while_it_is_asked_has_died(server: RunningServer, own: str) -> None:
    async with connected(server, own) as kernel:
        with pytest.raises(KernelDied):
            async for _ in kernel.execute("import os; os._exit(1)", limit=LIMIT):
                pass


async def test_a_kernel_that_dies_during_its_introduction_did_not_start(server: RunningServer, own: str) -> None:
    async with connected(server, own) as kernel:
        process = await process_of(kernel)
        process.suspend()
        handshake = asyncio.create_task(kernel.handshake(LIMIT))
        process.kill()
        with pytest.raises(KernelStartFailed, match="died while it started"):
            await handshake


@pytest.mark.parametrize("asked", ["handshake", "execute"])
async def test_a_kernel_deleted_while_the_connection_is_away_has_died(
    asked: str, server: RunningServer, own: str, wire: Proxy
) -> None:
    async with connected(server, own, wire.url) as kernel:
        (await process_of(kernel)).suspend()
        work = asyncio.create_task(kernel.handshake(LIMIT) if asked == "handshake" else kernel.complete("x"))
        async with wire.outage():
            await asyncio.to_thread(server.call, "DELETE", f"api/kernels/{own}")
        with pytest.raises(KernelDied, match="gone from the server"):
            await work


async def test_a_server_that_is_lost_for_good_is_unreachable(server: RunningServer, shared: str, wire: Proxy) -> None:
    async with connected(server, shared, wire.url, ONCE) as kernel, wire.outage():
        with pytest.raises(ServerUnreachable):
            await kernel.complete("x", limit=LIMIT)


async def test_the_last_output_is_reported_before_a_wait_and_none_of_a_forked_child() -> None:
    numbers: list[int] = []
    channel: Any = SimpleNamespace(arrivals=asyncio.Queue())
    kernel = Kernel("k", channel, Requests("c"), cast("Any", None))
    kernel.report_received(numbers.append)
    for channel_name, name in [("iopub", "s_1_5"), ("iopub", "s_1_6"), ("iopub", "s_2_90"), ("shell", "s_1_7")]:
        channel.arrivals.put_nowait(Message(channel_name, {"msg_id": name, "session": "s"}, {}, {}))
    for _ in range(4):
        await kernel._next(0.0)
    assert numbers == []
    for _ in range(2):
        assert await kernel._next(0.0) is None
    assert numbers == [6]


async def test_cells_run_one_after_the_other_to_the_end(server: RunningServer, shared: str) -> None:
    async with connected(server, shared) as kernel, running(kernel, "x = 6", "print(x * 7)") as run:
        pass
    assert (run.outcome, run.text) == (Outcome.PASSED, "42\n")


async def test_a_run_that_is_asked_to_stop_interrupts_its_cell(server: RunningServer, shared: str) -> None:
    source = "print('here', flush=True)\nimport time; time.sleep(60)"
    async with connected(server, shared) as kernel, running(kernel, source, "print('no')") as run:
        await run.printed("here")
        kernel.stop("it is late")
    assert run.outcomes == [CellOutcome.INTERRUPTED, CellOutcome.NOT_RUN]
    assert run.outcome is Outcome.INTERRUPTED
    assert "it is late in cell 1 of 2" in run.problem
    assert "no" not in run.text


async def test_a_cell_that_awaits_is_interrupted_too(
    server: RunningServer, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "nbrun.core.execution.interruption.SIGNAL_GRACE", 20.0
    )  # also on a busy machine it shall obey, not be left
    began = asyncio.get_running_loop().time()
    async with connected(server, shared) as kernel:
        source = "import asyncio; print('here', flush=True)\nawait asyncio.sleep(60)"
        async with running(kernel, source) as run:
            await run.printed("here")
            kernel.stop("it is late")
    [cell] = run.execution.results()
    assert cell.outcome is CellOutcome.INTERRUPTED
    assert run.execution.cells[0].reply is not None, "the kernel obeyed; it was not given up"
    assert asyncio.get_running_loop().time() - began < LIMIT


async def test_a_run_that_is_cancelled_leaves_no_task_behind(server: RunningServer, own: str, wire: Proxy) -> None:
    async with connected(server, own, wire.url) as kernel:
        run = Watched(kernel, "print('here', flush=True)\nimport time; time.sleep(60)")
        work = asyncio.create_task(kernel.run(run.execution))
        await run.printed("here")
        hold = wire.hold("POST", "/interrupt")
        kernel.stop("it is late")
        await asyncio.wait_for(hold.reached.wait(), LIMIT)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not at_work()
        hold.release()


async def test_a_probe_finds_a_kernel_that_was_deleted_without_a_word(
    server: RunningServer, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.core.execution.machine.PROBE_EVERY", 0.2)
    async with connected(server, own) as kernel:
        process = await process_of(kernel)
        async with running(kernel, "print('here', flush=True)\nimport time; time.sleep(60)") as run:
            await run.printed("here")
            process.suspend()  # so that it says no farewell
            await asyncio.to_thread(server.call, "DELETE", f"api/kernels/{own}")
    assert run.outcome is Outcome.KERNEL_DIED
    assert "is gone" in run.problem


async def test_probes_that_find_the_kernel_or_nobody_to_ask_change_nothing(
    server: RunningServer, shared: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.core.execution.machine.PROBE_EVERY", 0.05)
    async with connected(server, shared, wire.url) as kernel:
        path = f"GET /api/kernels/{shared}"
        wire.answer(403, "GET", f"kernels/{shared}", times=2)
        async with running(kernel, "import time; time.sleep(1); print('done')") as run:
            pass
    assert wire.lines("GET").count(path) > 3
    assert (run.outcome, run.text) == (Outcome.PASSED, "done\n")


async def test_a_cut_during_a_run_is_survived_and_unreadable_frames_are_counted(
    server: RunningServer, shared: str, wire: Proxy
) -> None:
    source = "import time\nfor i in range(8): print(f'tick {i}', flush=True); time.sleep(0.15)"
    async with connected(server, shared, wire.url) as kernel, running(kernel, "1", source) as run:
        await run.printed("tick 1")
        wire.inject(websocket_frame(b"garbage"))
        await run.printed("tick 2")
        wire.cut()
    assert run.outcome is Outcome.PASSED
    assert run.text == "".join(f"tick {i}\n" for i in range(8))
    assert kernel.unreadable == 1


async def test_a_run_ends_when_the_server_is_lost_for_good(server: RunningServer, own: str, wire: Proxy) -> None:
    source = "print('here', flush=True)\nimport time; time.sleep(60)"
    async with connected(server, own, wire.url, ONCE) as kernel, running(kernel, source) as run:
        await run.printed("here")
        wire.close()
    assert run.outcome is Outcome.SERVER_FAILED
    assert run.outcomes == [CellOutcome.INTERRUPTED]


async def process_of(kernel: Kernel) -> psutil.Process:
    """Return the kernel's process."""
    async for message in kernel.execute("import os; print(os.getpid())", limit=LIMIT):
        if message.type == "stream":
            return psutil.Process(int(message.content["text"]))
    raise AssertionError("the kernel did not say who it is")


async def test_a_lost_server_is_noticed_as_soon_as_patience_says(
    server: RunningServer, shared: str, wire: Proxy
) -> None:
    clock = asyncio.get_running_loop().time
    async with connected(server, shared, wire.url, ONCE) as kernel:
        began = clock()
        async with wire.outage():
            with pytest.raises(ServerUnreachable):
                await kernel.complete("x", limit=LIMIT)
    assert clock() - began < 3, "one look, not one look with a patience of its own"


async def test_a_question_that_was_lost_with_the_connection_is_put_again(
    server: RunningServer, shared: str, wire: Proxy
) -> None:
    async with connected(server, shared, wire.url) as kernel:
        wire.black_hole = True
        handshake = asyncio.create_task(kernel.handshake(LIMIT))
        await wire.swallowed.wait()
        wire.black_hole = False
        wire.cut()
        assert (await handshake).implementation == "ipython"


async def test_a_frame_that_cannot_be_read_does_not_disturb_the_introduction(
    server: RunningServer, own: str, wire: Proxy
) -> None:
    async with connected(server, own, wire.url) as kernel:
        process = await process_of(kernel)
        process.suspend()
        handshake = asyncio.create_task(kernel.handshake(LIMIT))
        wire.inject(websocket_frame(b"garbage"))
        process.resume()
        await handshake
    assert kernel.unreadable == 1


async def test_a_request_that_was_lost_with_the_connection_is_told_and_not_repeated(
    server: RunningServer, shared: str, wire: Proxy
) -> None:
    async with connected(server, shared, wire.url) as kernel:
        await kernel.handshake(LIMIT)
        wire.black_hole = True
        work = asyncio.create_task(kernel.complete("x", limit=LIMIT))
        await wire.swallowed.wait()
        wire.black_hole = False
        wire.cut()
        with pytest.raises(ServerUnreachable, match="complete_reply was lost"):
            await work


async def test_an_answer_that_was_kept_by_the_server_is_given_after_the_cut(
    server: RunningServer, own: str, wire: Proxy
) -> None:
    source = "print('here', flush=True)\nimport time; time.sleep(0.5); print('there')"
    text = ""
    async with connected(server, own, wire.url) as kernel:
        async for message in kernel.execute(source, limit=LIMIT):
            if message.type == "stream":
                text += message.content["text"]
                if text == "here\n":
                    wire.cut()  # now that nothing is on its way
    assert text == "here\nthere\n"


async def test_a_cell_that_never_falls_silent_ends_at_its_limit_all_the_same(server: RunningServer, own: str) -> None:
    clock = asyncio.get_running_loop().time
    async with connected(server, own) as kernel:
        await kernel.handshake(LIMIT)
        began = clock()
        with pytest.raises(ServerUnreachable, match="no execute_reply within 1 s"):
            async for _ in kernel.execute("while True: display({'text/plain': 'x' * 9999}, raw=True)", limit=1):
                pass
        assert clock() - began < 5
