"""The agent in a real kernel: accepted and refused cells, and kernels without pipelining."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.core.execution.pipelining import ONE_BY_ONE, Pipelining
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.protocol import agent
from nbrun.core.protocol.agent import Ability, Agent, AgentOptions
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Message
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.kernel.driver import Kernel
from nbrun.jupyter.kernel_session import RunningKernel
from nbrun.jupyter.kernelspecs import KernelSpec
from nbrun.kernel_side.backlog import Progress
from nbrun.kernel_side.replay import REPLIES
from nbrun.runner import pipelining
from nbrun.runner.pipelining import FAR_DEPTH, LIST_DEPTH, LIST_LIMIT, SharedProgress, choose_pipelining
from tests.support.servers import RunningServer, jupyter_server

TWO = Plan([CellPlan(index, None, "1", Action.RUN) for index in range(2)])
SPEC = KernelSpec("python3", "Python 3", "python")


@pytest.fixture(scope="module")
def kernel_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, str]]:
    """A kernel that all tests here share."""
    with jupyter_server(tmp_path_factory.mktemp("files")) as server:
        yield server, server.call("POST", "api/kernels", {"name": "python3"})["id"]


@pytest.fixture
async def running(kernel_id: tuple[RunningServer, str]) -> AsyncIterator[RunningKernel]:
    """The shared kernel, connected and introduced."""
    server, name = kernel_id
    async with Client(Endpoint(server.url, server.token)) as client, client.kernel(name) as kernel:
        yield RunningKernel(kernel, await kernel.handshake(), SPEC)


async def ask(kernel: Kernel, code: str, after: str = "") -> tuple[str, str]:
    """Execute on a condition, and wait for the reply; returns the request's id and the reply's status."""
    metadata = {"nbrun_after": after} if after else {}
    request = kernel.requests.execute(code, metadata=metadata, kind=CONDITIONAL_EXECUTE)
    await kernel._channel.send(request)
    return request.id, (await reply_to(kernel, request))["status"]


async def reply_to(kernel: Kernel, request: Message) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            match await kernel._channel.arrivals.get():
                case Message() as message if message.parent_id == request.id and message.type.endswith("_reply"):
                    return dict(message.content)


async def test_a_cell_begins_only_behind_one_that_passed_however_late_it_comes(running: RunningKernel) -> None:
    kernel = running.kernel
    assert Ability.CONDITIONAL in (await kernel.meet_agent(AgentOptions())).abilities
    first, status = await ask(kernel, "ran = ['first']")
    assert status == "ok"
    second, status = await ask(kernel, "ran.append('second'); 1 / 0", first)
    assert status == "error"
    # The error has been seen, so nothing is queued in the kernel any more: it would run this if nobody said no.
    third, status = await ask(kernel, "ran.append('third')", second)
    assert status == "aborted"
    assert (await ask(kernel, "ran.append('fourth')", third))[1] == "aborted"
    assert (await ask(kernel, "assert ran == ['first', 'second']"))[1] == "ok"


@pytest.mark.parametrize(
    "code",
    ["import sys; sys.exit(0)", "get_ipython().ask_exit()", "from comm import create_comm; c = create_comm('x')"],
    ids=["sys.exit(0)", "exit()", "an open comm"],
)
async def test_some_that_end_well_let_nothing_begin_behind_them(
    kernel_id: tuple[RunningServer, str], code: str
) -> None:
    server, _ = kernel_id
    own = server.call("POST", "api/kernels", {"name": "python3"})["id"]
    async with Client(Endpoint(server.url, server.token)) as client, client.kernel(own) as kernel:
        await kernel.handshake()
        assert Ability.CONDITIONAL in (await kernel.meet_agent(AgentOptions())).abilities
        await kernel._channel.send(first := kernel.requests.execute(code, kind=CONDITIONAL_EXECUTE))
        behind = kernel.requests.execute("1", metadata={"nbrun_after": first.id}, kind=CONDITIONAL_EXECUTE)
        await kernel._channel.send(behind)
        assert (await reply_to(kernel, behind))["status"] == "aborted"
    server.call("DELETE", f"api/kernels/{own}")


async def test_a_recall_tells_how_far_a_cell_is_and_passes_the_queue(running: RunningKernel) -> None:
    kernel = running.kernel
    assert Ability.CONDITIONAL in (await kernel.meet_agent(AgentOptions())).abilities

    async def recall(request: str) -> str:
        await kernel._channel.send(question := agent.recall(kernel.requests, request))
        return str((await reply_to(kernel, question))["state"])

    ended, _ = await ask(kernel, "1")
    assert await recall(ended) == "ended"
    assert await recall("of nobody") == "unknown"
    assert (await ask(kernel, "2", ended))[1] == "aborted"
    await kernel._channel.send(slow := kernel.requests.execute("import time; time.sleep(1)", kind=CONDITIONAL_EXECUTE))
    while True:
        match await kernel._channel.arrivals.get():
            case Message() as message if message.type == "execute_input" and message.parent_id == slow.id:
                break
    behind = kernel.requests.execute("3", metadata={"nbrun_after": slow.id}, kind=CONDITIONAL_EXECUTE)
    await kernel._channel.send(behind)
    assert await recall(slow.id) == "running"
    assert (await reply_to(kernel, behind))["status"] == "aborted"


async def test_each_cell_of_a_list_has_messages_of_its_own_and_what_it_wrote_to_a_descriptor(
    running: RunningKernel,
) -> None:
    kernel = running.kernel
    assert Ability.LIST in (await kernel.meet_agent(AgentOptions())).abilities
    await kernel._channel.send(leading := kernel.requests.execute("import os, asyncio", kind=CONDITIONAL_EXECUTE))
    codes = [
        "asyncio.get_running_loop().call_soon(lambda: turns.append(len(turns))); turns = []",
        *["os.write(1, b'x\\n')"] * 8,
        "assert turns == [0]",
    ]
    cells: list[Message] = []
    for code in codes:
        after = {"nbrun_after": (cells or [leading])[-1].id}
        cells.append(kernel.requests.execute(code, metadata=after, kind=CONDITIONAL_EXECUTE))
    await kernel._channel.send(agent.execute_list(kernel.requests, cells, None))
    heard: dict[str, list[str]] = {each.id: [] for each in cells}
    signs = 0
    async with asyncio.timeout(20):
        while signs < 2 * len(cells):
            arrival = await kernel._channel.arrivals.get()
            if not isinstance(arrival, Message) or arrival.parent_id not in heard:
                continue
            content = arrival.content
            said = str(content.get("execution_state") or content.get("status") or content.get("text") or "")
            heard[arrival.parent_id].append(f"{arrival.type} {said}".strip())
            signs += said == "idle" or arrival.type == "execute_reply"
    frame = ["status busy", "execute_input", "execute_reply ok", "status idle"]
    assert [sorted(each) for each in heard.values()] == [
        sorted([*frame, *(["stream x", "execute_result"] if "write" in code else [])]) for code in codes
    ]


async def test_the_agent_leaves_no_trace_in_what_the_user_sees(running: RunningKernel) -> None:
    kernel = running.kernel
    before = await ask_names(kernel)
    assert Ability.CONDITIONAL in (await kernel.meet_agent(AgentOptions())).abilities
    assert await ask_names(kernel) == before


async def ask_names(kernel: Kernel) -> str:
    code = "print(sorted(name for name in globals() if not name.startswith('_')), get_ipython().execution_count)"
    text = ""
    async for message in kernel.execute(code.replace(", get_ipython().execution_count", ""), limit=20):
        text += str(message.content.get("text", ""))
    return text


async def test_a_kernel_with_the_agent_gets_the_depth_that_is_wanted(running: RunningKernel) -> None:
    told: list[str] = []
    agent = await running.kernel.meet_agent(AgentOptions())
    assert choose_pipelining(running, agent, TWO, 7, told.append) == Pipelining(7)
    assert choose_pipelining(running, agent, TWO, 1, told.append) == ONE_BY_ONE
    assert choose_pipelining(running, agent, Plan(TWO.cells[:1]), 7, told.append) == ONE_BY_ONE
    assert told == []


def test_the_kernel_keeps_the_replies_of_all_cells_that_can_be_ahead() -> None:
    assert REPLIES > FAR_DEPTH


LISTS = Pipelining(LIST_DEPTH, in_lists=True, list_limit=LIST_LIMIT)


@pytest.mark.parametrize("shares_progress", [True, False])
@pytest.mark.parametrize(
    ("near", "near_with_agent", "is_near"), [(60.0, 60.0, True), (0.0, 60.0, True), (0.0, 0.0, False)]
)
async def test_lists_are_longer_where_the_server_is_far_and_need_the_progress_where_it_is_near(
    running: RunningKernel,
    monkeypatch: pytest.MonkeyPatch,
    near: float,
    near_with_agent: float,
    *,
    is_near: bool,
    shares_progress: bool,
) -> None:
    monkeypatch.setattr(pipelining, "NEAR", near)
    monkeypatch.setattr(pipelining, "NEAR_WITH_AGENT", near_with_agent)
    agent = await running.kernel.meet_agent(AgentOptions())
    assert agent.round_trip < agent.took + 1
    far = Pipelining(FAR_DEPTH, in_lists=True, list_limit=LIST_LIMIT)
    chosen = (LISTS if shares_progress else ONE_BY_ONE) if is_near else far
    sharing = {"shares_progress": shares_progress}
    assert choose_pipelining(running, agent, TWO, None, lambda _: None, **sharing) == chosen


async def test_an_agent_without_lists_gets_none(running: RunningKernel) -> None:
    agent = Agent(frozenset({Ability.CONDITIONAL}))
    lone = choose_pipelining(running, agent, TWO, None, lambda _: None, near=True, shares_progress=True)
    assert lone == ONE_BY_ONE
    far = choose_pipelining(running, replace(agent, took=1.0), TWO, None, lambda _: None)
    assert far == Pipelining(FAR_DEPTH)


async def test_a_list_may_take_longer_the_farther_the_server_is(running: RunningKernel) -> None:
    agent = Agent(frozenset({Ability.CONDITIONAL, Ability.LIST}), took=0.5, round_trip=0.2)
    far = choose_pipelining(running, agent, TWO, None, lambda _: None)
    assert far == Pipelining(FAR_DEPTH, in_lists=True, list_limit=4.0)


async def test_a_kernel_on_this_machine_records_what_it_starts_until_the_record_is_closed(
    running: RunningKernel,
) -> None:
    kernel, progress = running.kernel, SharedProgress()
    assert progress.last_started() is None
    agent = await kernel.meet_agent(AgentOptions(progress=progress.address))
    progress.close_address()
    assert Ability.PROGRESS in agent.abilities
    assert progress.is_shared
    first, _ = await ask(kernel, "1")
    second, status = await ask(kernel, "2", after=first)
    assert (status, progress.last_started()) == ("ok", second)
    assert (await ask(kernel, "3", after=second))[1] == "aborted"
    await kernel.meet_agent(AgentOptions(progress=SharedProgress().address))  # of the next run
    assert (await ask(kernel, "4"))[1] == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="memory without a file")
def test_the_kernel_sees_how_far_the_client_has_read() -> None:
    progress = SharedProgress()
    in_kernel = Progress(**progress.address or {})
    progress.close_address()
    assert in_kernel.received == 0
    progress.record_received(70_000)
    assert in_kernel.received == 70_000
    in_kernel.start("a request")
    assert (in_kernel.received, progress.last_started()) == (70_000, "a request")


async def test_a_kernel_that_does_not_find_the_memory_says_so(running: RunningKernel) -> None:
    progress = SharedProgress()
    await running.kernel.meet_agent(AgentOptions(progress={**(progress.address or {}), "name": "nbrun-other"}))
    progress.close_address()
    await running.kernel.meet_agent(AgentOptions(progress=progress.address))
    assert not progress.is_shared


async def test_a_kernel_of_another_kind_takes_no_cells_ahead_and_a_wish_for_it_is_answered(
    running: RunningKernel,
) -> None:
    told: list[str] = []
    other = RunningKernel(running.kernel, KernelInfo({}, "xeus-python", "5.3", "", "s"), SPEC)
    assert choose_pipelining(other, Agent(), TWO, None, told.append) == ONE_BY_ONE
    assert told == []
    assert choose_pipelining(other, Agent(), TWO, 7, told.append) == ONE_BY_ONE
    assert told == ["--pipeline 7: kernel python3 cannot take cells ahead; they are sent one by one"]
