"""Sessions and kernels of a real server: created separately and deleted."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from nbrun.errors import KernelNotLaunched, KernelStartFailed, NoSuchKernel, NotFound, RequestRefused, ServerError
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from tests.jupyter.doubles import CUT, Double, Heard, Reply, double, json_reply, passed_on
from tests.support.servers import RunningServer, jupyter_server


@pytest.fixture(scope="module")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, so that its sessions can be counted, with a kernel that cannot be launched."""
    root = tmp_path_factory.mktemp("files")
    spec = tmp_path_factory.mktemp("jupyter") / "kernels" / "broken"
    spec.mkdir(parents=True)
    broken = {"argv": ["/no/such/program", "{connection_file}"], "display_name": "Broken", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(broken))
    with jupyter_server(root, base_url="/pre/", env={"JUPYTER_PATH": str(spec.parents[1])}) as server:
        yield server


@pytest.fixture(autouse=True)
async def nothing_is_left_running(client: Client) -> AsyncIterator[None]:
    yield
    assert await client.sessions.list() == ()
    for kernel in await client.kernels.list():
        await client.kernels.delete(kernel.id)


def processes_of(server: RunningServer) -> list[psutil.Process]:
    """Return the kernels that run as the server's children."""
    return psutil.Process(server.process.pid).children()


async def test_the_kernels_of_a_server_are_listed_with_what_they_are(client: Client) -> None:
    found = await client.kernelspecs()
    python = found.specs[found.default]
    assert (python.language, python.interrupt_mode) == ("python", "signal")
    assert "{connection_file}" in python.argv
    assert found.specs["broken"].display_name == "Broken"


async def test_a_session_is_private_and_works_in_the_notebooks_folder(
    client: Client, token_server: RunningServer
) -> None:
    await client.contents.make_directory("some folder")
    session = await client.sessions.start("some folder/nb.ipynb", "python3")
    folder, _, name = session.path.rpartition("/")
    assert (folder, session.name, session.type) == ("some folder", "nb.ipynb", "console")
    assert name != "nb.ipynb"
    assert session.kernel
    assert session.kernel.name == "python3"
    assert [Path(process.cwd()) for process in processes_of(token_server)] == [token_server.root / "some folder"]
    assert await client.sessions.get(session.id) == await client.sessions.get(session.id)
    await client.sessions.delete(session.id)
    assert processes_of(token_server) == []


async def test_the_live_kernel_of_a_notebook_is_left_alone(client: Client, token_server: RunningServer) -> None:
    theirs = token_server.call(
        "POST",
        "api/sessions",
        {"path": "nb.ipynb", "name": "nb.ipynb", "type": "notebook", "kernel": {"name": "python3"}},
    )
    ours = await client.sessions.start("nb.ipynb", "python3")
    assert ours.kernel
    assert ours.kernel.id != theirs["kernel"]["id"]
    await client.sessions.delete(ours.id)
    assert [session.id for session in await client.sessions.list()] == [theirs["id"]]
    await client.sessions.delete(theirs["id"])


async def test_a_session_can_take_the_notebooks_own_path_later(client: Client) -> None:
    session = await client.sessions.start("nb.ipynb", "python3")
    renamed = await client.sessions.rename(session.id, "/nb.ipynb")
    assert (renamed.id, renamed.path, renamed.name) == (session.id, "nb.ipynb", "nb.ipynb")
    await client.sessions.delete(session.id)


async def test_a_session_attaches_to_a_kernel_that_runs(client: Client) -> None:
    kernel = await client.kernels.create("python3")
    session = await client.sessions.attach("nb.ipynb", kernel.id)
    assert session.kernel
    assert session.kernel.id == kernel.id
    await client.sessions.delete(session.id)
    with pytest.raises(NotFound):
        await client.kernels.get(kernel.id)


async def test_a_kernel_that_the_server_has_not_is_named(client: Client) -> None:
    with pytest.raises(NoSuchKernel, match="fortran"):
        await client.sessions.start("nb.ipynb", "fortran")


async def test_a_kernel_whose_program_is_missing_did_not_start(client: Client) -> None:
    with pytest.raises(KernelNotLaunched, match=r"kernel broken: cannot be launched: .*/no/such/program") as raised:
        await client.sessions.start("nb.ipynb", "broken")
    assert "kernelspec" in raised.value.hint
    with pytest.raises(KernelStartFailed):
        await client.kernels.create("fortran")


async def test_deleting_twice_is_no_error(client: Client) -> None:
    session = await client.sessions.start("nb.ipynb", "python3")
    assert session.kernel
    await client.sessions.delete(session.id)
    await client.sessions.delete(session.id)
    await client.kernels.delete(session.kernel.id)


async def test_a_session_whose_kernel_was_killed_is_deleted_all_the_same(
    client: Client, token_server: RunningServer
) -> None:
    session = await client.sessions.start("nb.ipynb", "python3")
    os.kill(processes_of(token_server)[0].pid, signal.SIGKILL)
    await client.sessions.delete(session.id)
    assert processes_of(token_server) == []


async def test_a_session_whose_kernel_was_deleted_is_gone(client: Client) -> None:
    session = await client.sessions.start("nb.ipynb", "python3")
    assert session.kernel
    await client.kernels.delete(session.kernel.id)
    with pytest.raises(NotFound):
        await client.kernels.get(session.kernel.id)
    await client.sessions.delete(session.id)


async def test_a_kernel_is_interrupted_and_restarted(client: Client) -> None:
    kernel = await client.kernels.create("python3", "folder/nb.ipynb")
    await client.kernels.interrupt(kernel.id)
    restarted = await client.kernels.restart(kernel.id)
    assert (restarted.id, restarted.name) == (kernel.id, "python3")
    assert [running.id for running in await client.kernels.list()] == [kernel.id]
    await client.kernels.delete(kernel.id)
    with pytest.raises(NotFound, match="Kernel does not exist"):
        await client.kernels.interrupt(kernel.id)


async def test_a_path_with_a_session_in_another_place_is_an_error() -> None:
    """The server answers 201 with whatever session it has."""
    theirs = {
        "id": "s",
        "path": "theirs.ipynb",
        "name": "",
        "type": "notebook",
        "kernel": {"id": "k", "name": "python3"},
    }
    async with double(lambda heard: json_reply(theirs, 201)) as server, connect_unprobed(server) as client:
        with pytest.raises(ServerError, match=r"theirs\.ipynb"):
            await client.sessions.start("nb.ipynb", "python3")
        assert server.lines() == ["POST /api/sessions"]


def connect_unprobed(server: Double, token: str | None = None, prefix: str = "") -> Client:
    return Client(Endpoint(server.url + prefix, token=token))


async def test_a_session_whose_announcement_was_lost_is_found_again(token_server: RunningServer) -> None:
    async def answer(heard: Heard) -> Reply | None:
        reply = await passed_on(heard, token_server)
        return CUT if heard.method == "POST" else reply

    async with double(answer) as proxy, connect_unprobed(proxy, token_server.token, "pre/") as client:
        session = await client.sessions.start("nb.ipynb", "python3")
        assert proxy.lines()[:2] == ["POST /pre/api/sessions", "GET /pre/api/sessions"]
        assert [one["id"] for one in token_server.sessions()] == [session.id]
        await client.sessions.delete(session.id)


async def test_a_session_that_was_never_asked_for_is_asked_for_again(token_server: RunningServer) -> None:
    async def answer(heard: Heard) -> Reply | None:
        return CUT if len(proxy.heard) == 1 else await passed_on(heard, token_server)

    async with double(answer) as proxy, connect_unprobed(proxy, token_server.token, "pre/") as client:
        session = await client.sessions.start("nb.ipynb", "python3")
        assert [one["id"] for one in token_server.sessions()] == [session.id]
        await client.sessions.delete(session.id)


async def test_a_start_that_is_cancelled_leaves_no_kernel(token_server: RunningServer) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def answer(heard: Heard) -> Reply | None:
        reply = await passed_on(heard, token_server)
        if heard.method == "POST":
            started.set()
            await release.wait()
        return reply

    async with double(answer) as proxy, connect_unprobed(proxy, token_server.token, "pre/") as client:
        starting = asyncio.create_task(client.sessions.start("nb.ipynb", "python3"))
        await asyncio.wait_for(started.wait(), 30)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        release.set()
    assert token_server.sessions() == []
    assert processes_of(token_server) == []


async def test_a_refusal_is_not_a_reason_to_delete_for_ever() -> None:
    async with (
        double(lambda heard: json_reply({"message": "read only"}, 403)) as server,
        connect_unprobed(server) as client,
    ):
        with pytest.raises(RequestRefused, match="read only"):
            await client.sessions.delete("s")
        assert server.lines() == ["DELETE /api/sessions/s"]


async def test_a_server_that_mourns_a_kernel_is_asked_again() -> None:
    def answer(heard: Heard) -> Reply:
        return (
            json_reply({"message": "Unhandled error"}, 500)
            if len(server.heard) < 3
            else json_reply({"message": "gone"}, 410)
        )

    async with double(answer) as server, connect_unprobed(server) as client:
        await client.sessions.delete("s")
        assert len(server.heard) == 3
