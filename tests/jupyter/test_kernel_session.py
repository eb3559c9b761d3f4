"""A kernel for the length of a block: separate, and always deleted."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from nbrun.errors import KernelNotLaunched, KernelStartFailed, RequestRefused
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.retry import ONCE
from nbrun.jupyter.kernel_session import Server
from nbrun.jupyter.kernelspecs import KernelSpec
from tests.support.faults import Hold
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer, jupyter_server, python_path

LIMIT = 30.0
PROGRAMS = {
    "dies": "import sys; sys.exit(1)",
    "hangs": "import threading; threading.Event().wait()",
    "dies-then-hangs": "import pathlib, sys, threading; called = pathlib.Path('called'); "
    "called.exists() or sys.exit(called.touch()); threading.Event().wait()",
}
FIRST_CALLS = {
    "hangs-once": PROGRAMS["hangs"],
    "loses-its-port": "port = json.load(open(sys.argv[1]))['shell_port']; "
    "taken = socket.create_server(('127.0.0.1', port)); sys.exit(subprocess.run(ipykernel).returncode)",
}
"""What the first call of a kernelspec does; the later ones start ipykernel."""
LATER_CALLS = """
import json, os, pathlib, socket, subprocess, sys
ipykernel = [sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]]
called = pathlib.Path("called")
if not called.exists():
    called.touch()
    FIRST
os.execv(sys.executable, ipykernel)
"""
LATE = """
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


class LateManager(AsyncMappingKernelManager):
    def start_watching_activity(self, kernel_id):
        if self._kernels[kernel_id].kernel_name != "late":
            super().start_watching_activity(kernel_id)

    def notify_connect(self, kernel_id):
        super().notify_connect(kernel_id)
        if self._kernels[kernel_id].kernel_name == "late" and self._kernel_connections[kernel_id] == 2:
            super().start_watching_activity(kernel_id)
"""
"""A kernel manager that misses what a kernel called late answers before its second client connects.

A stock server does so if its socket for such messages is not connected yet, because libzmq tries again only every 0.1
to 0.2 s. It then takes the kernel for starting, and delivers nothing.
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, so that its sessions can be counted, with kernels that do not come up."""
    folder = tmp_path_factory.mktemp("jupyter-path")
    replaced = {name: LATER_CALLS.replace("FIRST", first) for name, first in FIRST_CALLS.items()}
    for name, program in (PROGRAMS | replaced).items():
        place = folder / "kernels" / name
        place.mkdir(parents=True)
        argv = [sys.executable, "-c", program, "{connection_file}"]
        (place / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))
    late = folder / "kernels" / "late"
    late.mkdir()
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (late / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "late", "language": "python"}))
    (folder / "late_manager.py").write_text(LATE)
    missing = folder / "kernels" / "missing"
    missing.mkdir()
    spec = {"argv": ["/no/such/program", "{connection_file}"], "display_name": "missing", "language": "python"}
    (missing / "kernel.json").write_text(json.dumps(spec))
    arguments = ["--KernelRestarter.restart_limit=0", "--KernelRestarter.time_to_dead=0.5"]
    arguments += ["--MappingKernelManager.kernel_info_timeout=3", "--ServerKernelManager.shutdown_wait_time=0.2"]
    arguments += ["--ServerApp.kernel_manager_class=late_manager.LateManager"]
    variables = {"JUPYTER_PATH": str(folder), **python_path(folder)}
    with jupyter_server(tmp_path_factory.mktemp("files"), args=arguments, env=variables) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: RunningServer) -> Iterator[None]:
    """After every test there is neither a session nor a kernel."""
    (server.root / "called").unlink(missing_ok=True)
    yield
    assert server.sessions() == []
    assert server.get("api/kernels") == []


@pytest.fixture
async def there(wire: Proxy, server: RunningServer) -> AsyncIterator[Server]:
    """The server as a run has it, through the proxy."""
    async with Client(Endpoint(wire.url, token=server.token)) as client:
        yield Server(client)


async def spec(there: Server, name: str = "python3") -> KernelSpec:
    return (await there.client.kernelspecs()).specs[name]


async def test_a_kernel_runs_for_the_length_of_a_block(there: Server, server: RunningServer) -> None:
    warnings: list[str] = []
    python = await spec(there)
    async with there.session("nb.ipynb", python, startup=LIMIT, warn=warnings.append) as running:
        [session] = await asyncio.to_thread(server.sessions)
        assert session["kernel"]["id"] == running.kernel.id
        assert session["path"] != "nb.ipynb", "a path that nobody else has"
        assert (running.info.implementation, running.spec) == ("ipython", python)
    assert warnings == []


async def test_a_server_that_has_missed_the_first_answer_of_a_kernel_is_nudged(
    there: Server, wire: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nbrun.jupyter.http.client.NEAR", LIMIT)  # on a busy machine too
    late = await spec(there, "late")
    with caplog.at_level(logging.INFO, "nbrun"):
        async with there.session("nb.ipynb", late, startup=LIMIT, warn=print) as running:
            assert running.info.implementation == "ipython"
    assert sum(line.endswith("/channels") for line in wire.lines("GET")) == 2
    assert "is cut" not in caplog.text, "the server would close a connection that it cannot use after 3 s"


async def test_a_block_that_ends_in_an_error_ends_the_kernel_too(there: Server) -> None:
    with pytest.raises(ZeroDivisionError):
        async with there.session("nb.ipynb", await spec(there), startup=LIMIT, warn=print):
            raise ZeroDivisionError


async def test_a_kernel_that_dies_at_its_start_did_not_start(there: Server, wire: Proxy) -> None:
    there = Server(there.client, log_tail=lambda: "the last lines of a log\n")
    with pytest.raises(KernelStartFailed) as raised:
        async with there.session("nb.ipynb", await spec(there, "dies"), startup=LIMIT, warn=print):
            pass
    assert str(raised.value).startswith("kernel dies: it died while it started")
    assert str(raised.value).endswith("; nbrun has started it twice\nthe last lines of a log")
    assert raised.value.hint
    assert starts(wire) == 2


async def test_a_death_is_reported_though_the_second_kernel_does_not_answer(there: Server) -> None:
    both = await spec(there, "dies-then-hangs")
    with pytest.raises(KernelStartFailed, match="died while it started; nbrun has started it twice"):
        async with there.session("nb.ipynb", both, startup=3.0, warn=print):
            pass


def starts(wire: Proxy, what: str = "sessions") -> int:
    """Return how many kernels were asked for."""
    return sum(line.endswith(f"/api/{what}") for line in wire.lines("POST"))


@pytest.mark.parametrize("api", ["sessions", "kernels"])
async def test_a_kernel_that_finds_a_port_taken_is_replaced(
    api: str, there: Server, wire: Proxy, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    loses = await spec(there, "loses-its-port")
    there = there if api == "sessions" else Server.gateway(there.client, {})
    warnings: list[str] = []
    with caplog.at_level(logging.INFO, "nbrun"):
        async with there.session("nb.ipynb", loses, startup=LIMIT, warn=warnings.append) as running:
            [kernel] = await asyncio.to_thread(server.get, "api/kernels")
            assert kernel["id"] == running.kernel.id
    assert "Address already in use" in server.log.read_text()
    assert "died while it started; starting another one" in caplog.text  # a server may report it or not
    assert warnings == []
    assert starts(wire, api) == 2


async def test_a_kernel_that_does_not_answer_is_replaced_while_there_is_time(
    there: Server, wire: Proxy, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.jupyter.kernel_session.FIRST_START", 0.0)
    monkeypatch.setattr("nbrun.jupyter.kernel_session.SECOND_START", LIMIT - 1)
    hangs = await spec(there, "hangs-once")
    async with there.session("nb.ipynb", hangs, startup=LIMIT, warn=print) as running:
        [session] = await asyncio.to_thread(server.sessions)
        assert session["kernel"]["id"] == running.kernel.id
    assert starts(wire) == 2


async def cancel_at(hold: Hold, work: Coroutine[Any, Any, object]) -> None:
    """Cancel `work` when the proxy holds its request."""
    task = asyncio.create_task(work)
    await asyncio.wait_for(hold.reached.wait(), LIMIT)
    task.cancel()
    hold.release()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_kernel_is_not_replaced_after_a_cancellation(there: Server, wire: Proxy) -> None:
    dies = await spec(there, "dies")
    hold = wire.hold("DELETE", "api/sessions")
    await cancel_at(hold, entered(there, dies))
    assert starts(wire) == 1
    assert len(wire.lines("DELETE")) == 2


async def test_of_a_program_that_is_not_there_the_servers_log_says_nothing_more(there: Server) -> None:
    there = Server(there.client, log_tail=lambda: "Traceback (most recent call last)\n")
    with pytest.raises(KernelNotLaunched, match=r"missing: cannot be launched: .*/no/such/program$"):
        async with there.session("nb.ipynb", await spec(there, "missing"), startup=LIMIT, warn=print):
            pass


async def test_a_kernel_that_hangs_at_its_start_is_given_up_at_the_limit(there: Server) -> None:
    hangs = await spec(there, "hangs")
    with pytest.raises(KernelStartFailed, match=r"hangs did not start within 1 s") as raised:
        async with there.session("nb.ipynb", hangs, startup=1.0, warn=print):
            pass
    assert "--startup-timeout" in raised.value.hint


async def test_a_request_for_a_kernel_that_is_refused_is_told(there: Server, wire: Proxy) -> None:
    wire.answer(500, "POST", "api/sessions", body=b'{"message": "no more kernels for you"}')
    with pytest.raises(KernelStartFailed, match="no more kernels"):
        async with there.session("nb.ipynb", await spec(there), startup=LIMIT, warn=print):
            pass
    wire.answer(418, "POST", "api/sessions", body=b'{"message": "a teapot"}')
    with pytest.raises(RequestRefused, match="teapot"):
        async with there.session("nb.ipynb", await spec(there), startup=LIMIT, warn=print):
            pass


async def test_a_session_without_a_kernel_did_not_start(there: Server, wire: Proxy) -> None:
    async def answer_the_path_that_was_asked_for() -> None:
        await hold.reached.wait()
        asked = json.loads(wire.heard[-1].body)
        body = json.dumps({"id": "no-such-session", "path": asked["path"], "kernel": None}).encode()
        wire.answer(201, "POST", "api/sessions", body=body, headers={"Content-Type": "application/json"})
        hold.release()

    python = await spec(there)
    hold = wire.hold("POST", "api/sessions")
    answering = asyncio.create_task(answer_the_path_that_was_asked_for())
    with pytest.raises(KernelStartFailed, match="without one"):
        async with there.session("nb.ipynb", python, startup=LIMIT, warn=print):
            pass
    await answering


async def test_a_start_that_is_cancelled_leaves_no_session(there: Server, wire: Proxy) -> None:
    python = await spec(there)
    hold = wire.hold("POST", "api/sessions")
    await cancel_at(hold, entered(there, python))


async def test_a_start_that_takes_too_long_leaves_no_session(there: Server, wire: Proxy) -> None:
    python = await spec(there)
    hold = wire.hold("POST", "api/sessions")
    starting = asyncio.create_task(entered(there, python, startup=0.2))
    await asyncio.wait_for(hold.reached.wait(), LIMIT)
    await asyncio.sleep(0.3)  # the limit itself
    hold.release()
    with pytest.raises(KernelStartFailed, match=r"within 0\.2 s"):
        await starting


async def test_a_session_whose_request_is_never_answered_is_looked_for_and_told_of(
    there: Server, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.jupyter.kernel_session.CALL_OFF_LIMIT", 0.2)
    warnings: list[str] = []
    python = await spec(there)
    hold = wire.hold("POST", "api/sessions")
    starting = asyncio.create_task(entered(there, python, warnings=warnings))
    await asyncio.wait_for(hold.reached.wait(), LIMIT)
    starting.cancel()
    looked = wire.hold("GET", "api/sessions")  # the look comes when nobody waits for the answer any more
    await asyncio.wait_for(looked.reached.wait(), LIMIT)
    hold.release()
    looked.release()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert "a kernel may be left" in " ".join(warnings)


async def entered(there: Server, spec: KernelSpec, startup: float = LIMIT, warnings: list[str] | None = None) -> None:
    """Start a kernel and end it."""
    warn = [] if warnings is None else warnings
    async with there.session("nb.ipynb", spec, startup=startup, warn=warn.append):
        pass


async def test_a_session_that_cannot_be_deleted_is_told(there: Server, wire: Proxy, server: RunningServer) -> None:
    warnings: list[str] = []
    async with there.session("nb.ipynb", await spec(there), startup=LIMIT, warn=warnings.append):
        wire.answer(403, "DELETE", "api/sessions")
    assert "its kernel may still run" in warnings[0]
    await asyncio.to_thread(end_all, server)


async def test_a_server_that_is_gone_is_not_told_twice(there: Server, wire: Proxy, server: RunningServer) -> None:
    warnings: list[str] = []
    async with there.session("nb.ipynb", await spec(there), startup=LIMIT, warn=warnings.append) as running:
        running.kernel.is_lost = True  # as a run finds out that loses its server
        wire.close()
    assert warnings == [], "what ended the run says it already"
    await asyncio.to_thread(end_all, server)


def end_all(server: RunningServer) -> None:
    for session in server.sessions():
        with contextlib.suppress(OSError):
            server.call("DELETE", f"api/sessions/{session['id']}")


def test_a_private_server_that_is_gone_is_not_waited_for() -> None:
    private = Server.private(Client(Endpoint("http://localhost/")), lambda: "log")
    assert private.reconnect == ONCE
    assert private.save.total == 5.0
    assert private.log_tail() == "log"
