"""The private server as seen by kernels and notebooks: what it uses and leaves of the user's files."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tornado.iostream import IOStream

import nbrun
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.local_server.process.app import PrivateHttpServer
from nbrun.local_server.process.kernel_environment import INTERPRETER_VARIABLES, SECRET_VARIABLES
from tests.support import notebooks
from tests.support.private import (
    channels,
    driver,
    execute,
    http,
    install_stubborn_kernel,
    send_code,
    start_kernel,
    wait_for,
)
from tests.support.servers import jupyter_server

POISON = """
raise SystemExit("the user's configuration was read")
"""

PNG = {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>1</script>"}}


def notebook(cells: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def code_cell(source: str = "", outputs: list[dict[str, Any]] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": "one",
        "source": source,
        "outputs": outputs or [],
        "execution_count": 1,
        "metadata": metadata,
    }


def body(content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "notebook", "format": "json", "content": content}


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(each["content"]["text"] for each in messages if each["header"]["msg_type"] == "stream")


def is_trusted(model: dict[str, Any]) -> bool:
    return all(cell["metadata"]["trusted"] for cell in model["content"]["cells"])


def test_kernels_see_the_environment_that_nbrun_was_called_with_and_no_descriptor_of_the_server(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    install_stubborn_kernel(tmp_path / "share", report)
    environment = {
        **os.environ,
        "JUPYTER_PATH": str(tmp_path / "share"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "theirs"),
        **dict.fromkeys(SECRET_VARIABLES, "the-users-own"),
        **dict.fromkeys(INTERPRETER_VARIABLES & {"PYTHONOPTIMIZE", "PYTHONNODEBUGRANGES"}, "1"),
        "JUPYTER_PORT": "no number",
        "JUPYTER_GATEWAY_URL": "http://127.0.0.1:1",
        "ODD": "line\nbreak and é",
    }
    with driver(tmp_path, "stubborn", env=environment) as (_, told):
        seen = wait_for(report)
    assert told["token"] not in str(seen)
    assert "the-users-own" not in str(seen)
    expected = {name: value for name, value in told["environment"].items() if name not in SECRET_VARIABLES}
    added = {name: value for name, value in seen["environment"].items() if name not in told["environment"]}
    assert set(added) == {"JPY_SESSION_NAME", "JPY_PARENT_PID"}
    assert {name: value for name, value in seen["environment"].items() if name not in added} == expected
    assert set(seen["descriptors"]) <= {"0", "1", "2", "3"}  # the fourth is the listing of the folder itself


def test_the_users_configuration_is_neither_read_nor_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    config = home / ".jupyter"
    (config / "jupyter_server_config.d").mkdir(parents=True)
    for name in ("jupyter_config.py", "jupyter_server_config.py"):
        (config / name).write_text(POISON)
    (config / "jupyter_server_config.d" / "x.json").write_text(
        '{"ServerApp": {"jpserver_extensions": {"no_such_extension": true}}}'
    )
    before = sorted(home.rglob("*"))
    root = tmp_path / "root"
    root.mkdir()
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XDG_DATA_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | {"HOME": str(home)}
    with driver(root, "python3", env=environment) as (_, told):
        assert "no_such_extension" not in (Path(told["folder"]) / "log").read_text()
        appeared = {path.relative_to(home).parts for path in home.rglob("*") if path not in before}
    outside = {parts for parts in appeared if parts[0] != ".ipython" and ".cache" not in parts}
    assert outside <= {(".local",), (".local", "share"), (".local", "share", "jupyter")}


async def test_a_notebook_it_saved_opens_trusted_in_the_users_own_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(data))
    async with EmbeddedServer(root) as server, http(server.endpoint) as client:
        await client.put("api/contents/yes.ipynb", json=body(notebook([code_cell("x", [PNG], trusted=True)])))
        await client.put("api/contents/no.ipynb", json=body(notebook([code_cell("y", [PNG])])))
    with jupyter_server(root, env={"JUPYTER_DATA_DIR": str(data)}) as users:
        assert is_trusted(users.get("api/contents/yes.ipynb"))
        assert not is_trusted(users.get("api/contents/no.ipynb"))
    assert sorted(path.name for path in root.iterdir()) == ["no.ipynb", "yes.ipynb"]


@pytest.mark.parametrize("fault", ["no home", "a locked database", "a broken database"])
async def test_notebooks_are_saved_even_where_they_cannot_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    match fault:
        case "no home":
            data = Path("/proc/no/such/home")
        case "a locked database":
            (data / "nbsignatures.db").mkdir()
        case _:
            (data / "nbsignatures.db").write_bytes(b"no database" * 100)
    monkeypatch.setenv("HOME", str(data))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(data))
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        answer = await client.put("api/contents/a.ipynb", json=body(notebook([code_cell("x", [PNG], trusted=True)])))
        assert answer.status_code == 201
        assert is_trusted((await client.get("api/contents/a.ipynb")).json())


async def test_a_dead_kernel_is_reported_as_dead_within_two_seconds_and_not_restarted(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            pid = int(text_of(await execute(websocket, "import os; print(os.getpid())")))
            os.kill(pid, signal.SIGKILL)
            states = []
            async with asyncio.timeout(2):
                while "dead" not in states:
                    states.append(json.loads(await websocket.recv())["content"].get("execution_state"))
        assert not {"restarting", "starting"} & set(states)
        assert (await client.get("api/kernels")).json() == []


async def test_only_ipykernel_talks_over_unix_sockets_and_its_history_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stubborn_kernel(tmp_path / "share", tmp_path / "report.json")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        assert server.endpoint.socket is not None
        folder = Path(server.endpoint.socket).parent
        transports = {}
        for name in ("python3", "stubborn"):
            session = await start_kernel(client, name)
            connection = json.loads((folder / f"kernel-{session['kernel']['id']}.json").read_text())
            transports[name] = connection["transport"]
            if name == "python3":
                async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
                    history = await execute(websocket, "print(get_ipython().history_manager.hist_file)")
    assert transports == {"python3": "ipc", "stubborn": "tcp"}
    assert text_of(history).strip() == ":memory:"


async def test_any_number_of_outputs_may_wait_in_the_kernel_and_no_trace_of_that_is_left(tmp_path: Path) -> None:
    source = (
        "import zmq; socket = get_ipython().kernel.iopub_thread.socket; "
        "print(socket.getsockopt(zmq.SNDHWM), len(In), "
        "[name for name in globals() if name in ('thread', 'address')])"
    )
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            answers = await execute(websocket, source)
            flood = text_of(await execute(websocket, "for i in range(4000): print(i, flush=True)"))
    counts = [answer["content"].get("execution_count") for answer in answers]
    assert text_of(answers).strip() == "0 2 []"
    assert {count for count in counts if count is not None} == {1}
    assert flood.split() == [str(number) for number in range(4000)]


async def test_hidden_folders_can_be_read_and_deleted_files_are_gone(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        place = "api/contents/.hidden/a.ipynb"
        assert (await client.put(place, json=body(notebook([code_cell("x")])))).status_code == 201
        assert (await client.get(place)).status_code == 200
        assert [path.name for path in (tmp_path / ".hidden").iterdir()] == ["a.ipynb"]
        assert (await client.delete(place)).status_code == 204
    assert list((tmp_path / ".hidden").iterdir()) == []


async def test_a_checkpoint_is_made_where_it_is_asked_for_and_not_by_the_way(tmp_path: Path) -> None:
    place, kept = "api/contents/a.ipynb", tmp_path / ".ipynb_checkpoints" / "a-checkpoint.ipynb"
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        for source in ("x", "y"):
            await client.put(place, json=body(notebook([code_cell(source)])))
        assert [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]
        before = (tmp_path / "a.ipynb").read_bytes()
        assert (await client.post(f"{place}/checkpoints")).json()["id"] == "checkpoint"
        assert kept.read_bytes() == before
        await client.put(place, json=body(notebook([code_cell("z")])))
        assert [each["id"] for each in (await client.get(f"{place}/checkpoints")).json()] == ["checkpoint"]
        assert (await client.post(f"{place}/checkpoints/checkpoint")).status_code == 204
        assert (tmp_path / "a.ipynb").read_bytes() == before


async def test_requests_and_outputs_of_many_megabytes_pass(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            answers = await execute(websocket, f"x = '{'x' * 12_000_000}'; print(x)")
        assert len(text_of(answers)) == 12_000_001


def test_sockets_connect_to_a_new_kernel_early_and_have_no_limit() -> None:
    """ZeroMQ's default of 0.1 s between two attempts was a third of a run on a warm server."""
    code = """
import zmq
from nbrun.local_server.process.app import PrivateKernels
kernels = PrivateKernels()
with kernels.context.socket(zmq.DEALER) as socket:
    print(socket.getsockopt(zmq.RECONNECT_IVL), socket.getsockopt(zmq.RCVHWM))"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert printed.stdout == "5 0\n"


async def test_no_output_is_dropped_while_the_server_is_busy_saving(tmp_path: Path) -> None:
    """By ZeroMQ's default 1000 messages may wait for a server whose loop is busy; the rest is lost without a word."""
    rows = "\n".join(f"row {number}" for number in range(100_000))
    large = body(notebook([{**code_cell(rows), "id": f"c{number}"} for number in range(30)]))
    count = 6000
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            await execute(websocket, "from IPython.display import display")
            save = asyncio.create_task(client.put("api/contents/large.ipynb", json=large))
            answers = await execute(websocket, f"for n in range({count}): display(n)")
            assert (await save).status_code == 201
    shown = [each for each in answers if each["header"]["msg_type"] == "display_data"]
    assert len(shown) == count


async def test_it_answers_soon_after_its_start(tmp_path: Path) -> None:
    """A guard against importing or building something slow; the limit leaves room for a busy machine."""
    begin = time.monotonic()
    async with EmbeddedServer(tmp_path):
        took = time.monotonic() - begin
    assert took < 4.0


async def test_a_kernel_that_is_busy_when_its_session_is_deleted_leaves_the_list(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            await execute(websocket, "1")
            await send_code(websocket, "while True: pass")
            assert (await client.delete(f"api/sessions/{session['id']}")).status_code == 204
        assert (await client.get("api/kernels")).json() == []
        async with asyncio.timeout(5):
            while server._kernels:
                await asyncio.sleep(0.01)


LAST_WORDS = """
import atexit, os
app = get_ipython().kernel.parent
steps = (app.close, app.iopub_thread.stop)  # in the order in which ipykernel registers them: the last goes first
for step in steps:
    atexit.unregister(step)
for step in (lambda: open(f"ended-{os.getpid()}", "w"), *steps):
    atexit.register(step)
"""


def test_kernels_end_by_themselves_every_time(tmp_path: Path) -> None:
    # Without the order in which a private server's kernel ends, one in four got stuck, and was killed.
    paths = [
        notebooks.write_notebook(tmp_path / f"{number}.ipynb", notebooks.notebook(LAST_WORDS)) for number in range(12)
    ]
    assert nbrun.run_many(paths, jobs=2, in_place=True).exit_code == 0
    assert len([*tmp_path.glob("ended-*")]) == 12


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
async def test_it_sends_more_at_a_time_through_a_unix_socket_than_by_default() -> None:
    ours, theirs = socket.socketpair()
    stream = IOStream(ours)
    PrivateHttpServer(lambda _: None).handle_stream(stream, "")
    sizes = [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (ours, theirs)]
    assert sizes[0] > sizes[1]
    stream.close()
    theirs.close()
