"""Other clients on the same notebook or kernel, and broken connections.

Whose kernel a cell ran on is never in doubt: nothing of another's session is touched, and no cell is sent twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode
from nbrun.jupyter.client import Client, connect
from tests.support.live_runs import LiveRun, Place, live_run, outcomes, text_of
from tests.support.notebooks import notebook
from tests.support.proxy import Proxy, proxy
from tests.support.servers import RunningServer

WAITS = "import pathlib, time\nprint('here', flush=True)\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)"
"""A cell that says that it has begun, and ends when a file ``go`` is there."""

SHUTS_DOWN_LATE = """
import asyncio

async def do_shutdown(restart):
    await asyncio.sleep(0.3)
    return {"status": "ok", "restart": restart}

get_ipython().kernel.do_shutdown = do_shutdown"""
"""After this code, a kernel replies to the interrupt of a restart before it shuts down, as on a busy machine."""


@asynccontextmanager
async def client_of(server: RunningServer) -> AsyncIterator[Client]:
    """Be somebody else on the server."""
    async with connect(server.url, token=server.token) as client:
        yield client


async def evaluate(client: Client, kernel_id: str, code: str) -> str:
    """Run code in a kernel as somebody else; returns what it printed."""
    async with client.kernel(kernel_id) as kernel:
        messages = [message async for message in kernel.execute(code, limit=30)]
    return "".join(str(message.content["text"]) for message in messages if message.type == "stream")


def path_of(place: Place) -> str:
    return f"{place.prefix}notebook.ipynb"


async def test_a_users_live_session_on_the_notebook_is_left_alone_with_all_its_state(on_stock: Place) -> None:
    server = on_stock.server
    assert server is not None
    path = on_stock.write(notebook("'secret' in globals()", "secret = 'of the run'"))
    body = {"path": path, "name": "notebook.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    users = server.call("POST", "api/sessions", body)
    try:
        async with client_of(server) as client:
            await evaluate(client, users["kernel"]["id"], "secret = 'of the user'")

            result = await nbrun.run_async(path, **on_stock.options)

            assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
            assert on_stock.outputs()[0][0]["data"]["text/plain"] == "False", "the run had a kernel of its own"
            [left] = server.sessions()
            assert (left["id"], left["path"]) == (users["id"], path)
            assert left["kernel"]["id"] == users["kernel"]["id"]
            assert await evaluate(client, left["kernel"]["id"], "print(secret)") == "of the user\n"
    finally:
        server.call("DELETE", f"api/sessions/{users['id']}")


async def test_a_user_who_opens_the_notebook_during_the_run_gets_another_kernel(on_stock: Place) -> None:
    server = on_stock.server
    assert server is not None
    async with on_stock.live(WAITS, "print('after')") as run:
        await run.watch.printed("here")
        [ours] = server.sessions()
        body = {"path": path_of(on_stock), "name": "", "type": "notebook", "kernel": {"name": "python3"}}
        users = await asyncio.to_thread(server.call, "POST", "api/sessions", body)
        assert users["kernel"]["id"] != ours["kernel"]["id"]
        (on_stock.folder / "go").touch()
        result = await run.result()

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert [session["id"] for session in server.sessions()] == [users["id"]]
    server.call("DELETE", f"api/sessions/{users['id']}")


async def test_two_runs_of_one_notebook_do_not_share_a_kernel(on_stock: Place) -> None:
    async with on_stock.live("mine = 'first'", WAITS, "mine") as first:
        await first.watch.printed("here")
        second = await nbrun.run_async(path_of(on_stock), output=on_stock.name("second.ipynb"), cell_timeout=2.0,
                                       **on_stock.options)  # fmt: skip
        (on_stock.folder / "go").touch()
        result = await first.result()

    assert outcomes(second) == ["passed", "timed-out", "not-run"]
    assert outcomes(result) == ["passed", "passed", "passed"]
    assert on_stock.outputs()[2][0]["data"]["text/plain"] == "'first'"


RESTART = "POST", "api/kernels/{}/restart", "restarted by somebody else"
TAKEN_AWAY = {
    "restarted": ("print('one')", *RESTART),
    "restarted after its reply": (f"print('one')\n{SHUTS_DOWN_LATE}", *RESTART),
    "shut down": ("print('one')", "DELETE", "api/kernels/{}", "shut down by somebody else|the kernel is gone"),
}


@pytest.mark.parametrize("how", TAKEN_AWAY)
async def test_a_run_whose_kernel_somebody_else_has(how: str, on_stock: Place) -> None:
    server = on_stock.server
    assert server is not None
    first, method, path, message = TAKEN_AWAY[how]
    async with on_stock.live(first, WAITS, "open('third', 'w')") as run:
        await run.watch.printed("here")
        [session] = server.sessions()
        await asyncio.to_thread(server.call, method, path.format(session["kernel"]["id"]))
        result = await run.result()

    assert result.exit_code == ExitCode.KERNEL
    assert outcomes(result) == ["passed", "kernel-died", "not-run"]
    assert result.problem is not None
    assert any(words in result.problem.message for words in message.split("|")), result.problem.message
    assert "cell 2 of 3" in result.problem.message
    assert text_of(on_stock.outputs()[0]) == "one\n"
    assert not (on_stock.folder / "third").exists()
    assert on_stock.nothing_is_left()


async def test_a_cell_that_somebody_else_interrupts_fails_as_interrupted(on_stock: Place) -> None:
    server = on_stock.server
    assert server is not None
    async with on_stock.live("print('one')", WAITS, "open('third', 'w')") as run:
        await run.watch.printed("here")
        [session] = server.sessions()
        await asyncio.to_thread(server.call, "POST", f"api/kernels/{session['kernel']['id']}/interrupt")
        result = await run.result()

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["passed", "failed", "not-run"]
    assert result.problem is not None
    assert "KeyboardInterrupt" in result.problem.message
    assert not (on_stock.folder / "third").exists()


async def test_a_connection_that_is_cut_in_a_cell_comes_back_and_nothing_is_lost(on_stock: Place) -> None:
    assert on_stock.server is not None
    counting = "import time\nfor n in range(40):\n    print(n, flush=True)\n    time.sleep(0.05)"
    async with proxy(on_stock.server) as wire, over(wire, on_stock, counting, "print('after')") as run:
        await run.watch.printed(r"^3\n")
        wire.cut()
        result = await run.result()

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert text_of(on_stock.outputs()[0]).split() == [str(n) for n in range(40)]
    assert text_of(on_stock.outputs()[1]) == "after\n"
    assert on_stock.nothing_is_left()


async def test_a_cell_that_ends_while_the_connection_is_away_is_known_afterwards(on_stock: Place) -> None:
    server = on_stock.server
    assert server is not None
    ending = f"{WAITS}\nprint('end')"
    async with (
        client_of(server) as client,
        proxy(server) as wire,
        over(wire, on_stock, ending, "print('after')") as run,
    ):
        await run.watch.printed("here")
        [session] = server.sessions()
        async with wire.outage():
            (on_stock.folder / "go").touch()
            async with asyncio.timeout(30):
                await idle(client, session["kernel"]["id"])
            # The server has two ears for the kernel. What the one that keeps things for us has not heard yet when we
            # come back is swallowed by the server's own question; that is told, but here it shall not be so.
            await client.kernels.get(session["kernel"]["id"])
        result = await run.result()

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert text_of(on_stock.outputs()[0]) == "here\nend\n"


@pytest.mark.parametrize("resend", [False, True], ids=["lost for good", "sent again"])
async def test_a_reply_that_somebody_elses_connection_swallowed_is_no_success_and_no_second_try(
    on_stock: Place, resend: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another client attached the server keeps nothing for one that is away; only the kernel itself may."""
    monkeypatch.setattr("nbrun.core.execution.barrier.BARRIER_GRACE", 1.0)
    server = on_stock.server
    assert server is not None
    counting = "import pathlib\nwith open('ran', 'a') as ran:\n    ran.write('x')"
    cells = (f"{counting}\n{WAITS}\nprint('end')", "open('third', 'w')")
    async with client_of(server) as client, proxy(server) as wire, over(wire, on_stock, *cells, resend=resend) as run:
        await run.watch.printed("here")
        [session] = server.sessions()
        async with client.kernel(session["kernel"]["id"]), wire.outage():
            (on_stock.folder / "go").touch()
            async with asyncio.timeout(30):
                await idle(client, session["kernel"]["id"])
        result = await run.result()

    assert (on_stock.folder / "ran").read_text() == "x", "it was not run again"
    if resend:
        assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
        assert text_of(on_stock.outputs()[0]) == "here\nend\n"
        return
    assert result.exit_code == ExitCode.SERVER
    # The second cell was in the same list. It has run, unless half a second had passed before.
    behind = "interrupted" if (on_stock.folder / "third").exists() else "not-run"
    assert outcomes(result) == ["failed", behind]
    assert result.problem is not None
    assert "the kernel's reply was lost in cell 1 of 2" in result.problem.message
    assert on_stock.nothing_is_left()


async def idle(client: Client, kernel_id: str) -> None:
    """Wait until the server says that a kernel is idle."""
    while (await client.kernels.get(kernel_id)).execution_state != "idle":
        await asyncio.sleep(0.05)


@asynccontextmanager
async def over(wire: Proxy, place: Place, *cells: str, **options: Any) -> AsyncIterator[LiveRun]:
    """Begin a run of these cells over a wire."""
    assert place.server is not None
    path = place.write(notebook(*cells))
    async with live_run(path, server=wire.url, token=place.server.token, **options) as run:
        yield run
