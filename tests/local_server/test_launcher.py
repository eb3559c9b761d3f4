"""The private server as seen by nbrun: start, isolation, and its end with nbrun."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nbrun.errors import PrivateServerEnded, ServerError, ServerUnreachable, UsageError
from nbrun.local_server.launcher import EmbeddedServer, without_entries_of_server
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

GONE_WITHIN = 5.0


STRANGERS: set[psutil.Process] = set()
"""What other tests of the same process have started and still use."""


@pytest.fixture(autouse=True)
def _strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count what is there before; and have no zygote, whose processes tests.local_server.process.test_zygote
    counts."""
    monkeypatch.setenv("NBRUN_ZYGOTE", "0")
    STRANGERS.update(psutil.Process().children(recursive=True))
    yield
    STRANGERS.clear()


def family(pid: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children(recursive=True) if each not in STRANGERS]


def own_server() -> psutil.Process:
    [server] = [each for each in psutil.Process().children() if each not in STRANGERS]
    return server


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def assert_gone(processes: list[psutil.Process], seconds: float = GONE_WITHIN) -> None:
    """Wait until all have ended; a zombie that somebody else has to reap counts as ended."""
    _, alive = psutil.wait_procs([each for each in processes if each.is_running()], timeout=seconds)
    alive = [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert alive == []


@pytest.fixture
def stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the stubborn kernel; returns the file in which it reports."""
    report = tmp_path / "report.json"
    install_stubborn_kernel(tmp_path / "share", report)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    return report


@pytest.mark.parametrize("tcp", [False, True], ids=["on a Unix socket", "on loopback"])
async def test_it_answers_who_has_the_token_and_nobody_else(tmp_path: Path, tcp: bool) -> None:
    async with EmbeddedServer(tmp_path, tcp=tcp) as server:
        assert (server.endpoint.socket is None) == tcp
        async with http(server.endpoint) as client:
            assert (await client.get("api/contents")).status_code == 200
            session = await start_kernel(client)
        async with http(replace(server.endpoint, token="wrong")) as stranger:
            assert (await stranger.get("api/contents")).status_code == 403
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            answers = await execute(websocket, "6 * 7")
        assert {answer["content"].get("status") for answer in answers} >= {"ok"}


async def test_its_folder_and_socket_are_this_users_alone(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        assert server.endpoint.socket is not None
        place = Path(server.endpoint.socket)
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert stat.S_IMODE(place.parent.stat().st_mode) & 0o077 == 0


async def test_its_token_is_in_no_argument_no_environment_no_log_and_no_repr(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        token = server.endpoint.token or ""
        async with http(server.endpoint) as client:
            session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            await execute(websocket, "1")
        processes = family(os.getpid())
        assert len(processes) == 2
        for process in processes:
            assert token not in " ".join(process.cmdline())
            assert token not in str(process.environ())
        assert token not in repr(server)
        assert token not in server.log_tail(10_000)


async def test_it_boots_while_its_caller_does_something_else(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    try:
        await server.start()
        endpoint = await server.ready()
        async with http(endpoint) as client:
            assert (await client.get("api")).status_code == 200
    finally:
        await server.stop()


async def test_stopping_ends_kernels_that_ignore_every_signal_and_leaves_no_file(
    tmp_path: Path, stubborn: Path
) -> None:
    clock = asyncio.get_running_loop()
    async with EmbeddedServer(tmp_path) as server:
        assert server.endpoint.socket is not None
        folder = Path(server.endpoint.socket).parent
        async with http(server.endpoint) as client:
            await start_kernel(client, "stubborn")
        wait_for(stubborn)
        processes = family(os.getpid())
        assert len(processes) == 3
        begin = clock.time()
    assert clock.time() - begin < 1.0
    assert_gone(processes, 0.5)
    assert not folder.exists()
    assert server.log_tail() == ""


async def test_eight_starts_and_stops_leave_no_process_no_task_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    root = tmp_path / "root"
    root.mkdir()
    descriptors = open_descriptors()
    for _ in range(8):
        async with EmbeddedServer(root, tcp=True) as server:
            assert server.endpoint.base_url
            assert list(temporary.iterdir()) != []
    assert family(os.getpid()) == []
    assert list(temporary.iterdir()) == []
    assert list(root.iterdir()) == []
    assert len(asyncio.all_tasks()) == 1
    assert open_descriptors() <= descriptors + 2


@pytest.mark.parametrize("tcp", [False, True], ids=["on a Unix socket", "on loopback"])
def test_when_nbrun_is_killed_server_kernels_and_folder_go(tmp_path: Path, stubborn: Path, tcp: bool) -> None:
    with driver(tmp_path, "python3", "stubborn", tcp=tcp) as (process, told):
        wait_for(stubborn)
        processes = family(process.pid)
        assert len(processes) == 4  # the server, ipykernel, the stubborn one and its child
        process.kill()
        assert_gone(processes)
        assert not Path(told["folder"]).exists()


async def test_a_busy_kernel_goes_too_when_nbrun_is_killed(tmp_path: Path) -> None:
    code = """if True:
        import signal, subprocess
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"])
        print("spinning", flush=True)
        while True: pass
    """
    script = f"""
import asyncio
from pathlib import Path
from nbrun.local_server.launcher import EmbeddedServer
from tests.support.private import channels, http, send_code, start_kernel

async def main():
    async with EmbeddedServer(Path({str(tmp_path)!r})) as server, http(server.endpoint) as client:
        session = await start_kernel(client)
        async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
            await send_code(websocket, {code!r})
            async for message in websocket:
                if "spinning" in str(message) and '"stream"' in str(message):
                    print("spinning", flush=True)

asyncio.run(main())
"""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=pipe)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"spinning\n"
    processes = family(process.pid)
    assert len(processes) == 3
    process.kill()
    await process.wait()
    assert_gone(processes)


async def test_when_the_server_is_killed_its_kernels_go_and_nbrun_is_told(tmp_path: Path, stubborn: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        assert server.endpoint.socket is not None
        folder = Path(server.endpoint.socket).parent
        async with http(server.endpoint) as client:
            await start_kernel(client)
            await start_kernel(client, "stubborn")
        wait_for(stubborn)
        processes = family(os.getpid())
        assert len(processes) == 4
        watch = asyncio.create_task(server.ended())
        own_server().kill()
        error = await asyncio.wait_for(watch, GONE_WITHIN)
        assert_gone(processes)
    assert isinstance(error, ServerError)
    assert str(error) == "the private server was killed by SIGKILL"
    assert "too much memory" in error.hint
    assert "Kernel started" in error.hint
    assert not folder.exists()


def test_kernels_go_even_when_server_and_nbrun_are_killed_together(tmp_path: Path, stubborn: Path) -> None:
    with driver(tmp_path, "python3", "stubborn") as (process, told):
        seen = wait_for(stubborn)
        server = psutil.Process(process.pid).children()[0]
        kernels = server.children()
        assert seen["pid"] in [kernel.pid for kernel in kernels]
        psutil.Process(process.pid).suspend()  # so that it cannot clear up before it is killed
        server.kill()
        process.kill()
        try:
            assert_gone(kernels)
        finally:
            psutil.Process(seen["child"]).kill()
            shutil.rmtree(told["folder"])


async def test_a_server_that_hangs_is_stopped_by_force(
    tmp_path: Path, stubborn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.local_server.launcher.STOP_LIMIT", 1.0)
    clock = asyncio.get_running_loop()
    async with EmbeddedServer(tmp_path) as server:
        async with http(server.endpoint) as client:
            await start_kernel(client, "stubborn")
        wait_for(stubborn)
        processes = family(os.getpid())
        own_server().suspend()
        begin = clock.time()
    assert clock.time() - begin < 2.0
    assert_gone(processes, 0.5)


async def test_signals_for_everybody_leave_the_server_to_nbrun(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        process = own_server()
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(each)
        async with http(server.endpoint) as client:
            assert (await client.get("api/status")).status_code == 200
            assert (await client.get("api/status")).status_code == 200


async def test_a_save_under_way_is_finished_when_nbrun_is_killed(tmp_path: Path) -> None:
    rows = "\n".join(f"row {number}" for number in range(100_000))
    script = f"""
import asyncio, json
from pathlib import Path
from nbrun.local_server.launcher import EmbeddedServer
from tests.support.private import http

rows = "\\n".join(f"row {{number}}" for number in range(100_000))
cells = [{{"cell_type": "code", "id": f"c{{n}}", "metadata": {{}}, "source": rows, "execution_count": 1, "outputs": []}}
         for n in range(20)]
notebook = {{"cells": cells, "metadata": {{}}, "nbformat": 4, "nbformat_minor": 5}}

async def main():
    root = Path({str(tmp_path)!r})
    async with EmbeddedServer(root) as server, http(server.endpoint) as client:
        body = {{"type": "notebook", "format": "json", "content": notebook}}
        save = asyncio.create_task(client.put("api/contents/large.ipynb", json=body))
        while not save.done() and not (root / "large.ipynb").exists():
            await asyncio.sleep(0)
        print("answered" if save.done() else "saving", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=pipe)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"saving\n"
    processes = family(process.pid)
    process.kill()
    await process.wait()
    assert_gone(processes)
    cells = json.loads((tmp_path / "large.ipynb").read_text())["cells"]
    assert len(cells) == 20
    assert "".join(cells[-1]["source"]) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["large.ipynb"]


async def test_a_server_that_does_not_come_up_in_time_is_reported_and_removed(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"did not answer within 0\.05 s"):
        async with EmbeddedServer(tmp_path, start_limit=0.05):
            raise AssertionError("it cannot be up")
    assert family(os.getpid()) == []


COUNTED_STARTS = """
import os, sys
if "-c" in sys.orig_argv and any("process.boot" in word for word in sys.orig_argv):
    with open({starts!r}, "a") as file:
        file.write(".")
    if os.path.getsize({starts!r}) <= {failures}:
        os.write(2, b"this installation is broken\\n")
        {end}
"""


def install_failing_start(folder: Path, monkeypatch: pytest.MonkeyPatch, failures: int, end: str) -> Path:
    """Let the private server end as it starts, so many times; return the file whose size is the number of starts."""
    starts = folder / "starts"
    (folder / "sitecustomize.py").write_text(COUNTED_STARTS.format(starts=str(starts), failures=failures, end=end))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return starts


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os._exit(3)", r"ended while it started \(exit status 3\)"),
        ("os.kill(os.getpid(), 9)", r"was killed by SIGKILL while it started"),
    ],
    ids=["exits", "is killed"],
)
async def test_a_server_that_fails_to_start_three_times_is_reported_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, how: str
) -> None:
    starts = install_failing_start(tmp_path, monkeypatch, failures=99, end=end)
    with pytest.raises(PrivateServerEnded, match=how) as caught:
        async with EmbeddedServer(tmp_path):
            raise AssertionError("it cannot be up")
    assert caught.value.hint.splitlines()[-1] == "this installation is broken"
    assert starts.read_text() == "..."
    assert family(os.getpid()) == []


async def test_a_server_that_ends_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = install_failing_start(tmp_path, monkeypatch, failures=2, end="os.kill(os.getpid(), 9)")
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        assert (await client.get("api/status")).status_code == 200
    assert starts.read_text() == "..."


async def test_a_package_in_pythonpath_that_breaks_the_server_is_passed_over_when_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jupyter_server").mkdir()
    (tmp_path / "jupyter_server" / "__init__.py").write_text("raise RuntimeError('this installation is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        assert (await client.get("api/status")).status_code == 200


@pytest.mark.parametrize("module", ["token", "types", "json", "logging", "secrets", "selectors"])
async def test_a_module_of_the_standard_librarys_name_in_pythonpath_does_not_break_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('not the real one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server = EmbeddedServer(tmp_path, zygote=True)
    async with server, http(server.endpoint) as client:
        assert (await client.get("api/status")).status_code == 200
        assert len(family(os.getpid())) == 1  # the server alone: kernels that see this module cannot be forked


async def test_files_in_the_working_folder_do_not_break_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "random", "tornado"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the real one')")
    monkeypatch.chdir(tmp_path)
    async with EmbeddedServer(Path()) as server, http(server.endpoint) as client:
        names = {item["name"] for item in (await client.get("api/contents")).json()["content"]}
        assert "random.py" in names


async def test_what_the_interpreter_prints_at_its_start_does_not_confuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('ready, steady, go'); print(); print('kernels \\u00b2')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
        assert (await client.get("api/status")).status_code == 200


async def test_a_root_that_is_no_folder_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        await EmbeddedServer(tmp_path / "nowhere").start()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    script = """
import asyncio
from pathlib import Path
from nbrun.errors import UsageError
from nbrun.local_server.launcher import EmbeddedServer
try:
    asyncio.run(EmbeddedServer(Path(".")).start())
except UsageError as error:
    print(error, error.hint, sep="|")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    said = subprocess.run(
        [venv / "bin" / "python", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "no jupyter_server and no ipykernel" in said
    assert 'pip install "jupyter-nbrun[local]"' in said
    assert "--server URL" in said


def test_it_runs_in_a_loop_of_a_thread_other_than_the_main_one(tmp_path: Path) -> None:
    answers: list[int] = []

    async def ask() -> None:
        async with EmbeddedServer(tmp_path) as server, http(server.endpoint) as client:
            session = await start_kernel(client)
            async with channels(server.endpoint, session["kernel"]["id"]) as websocket:
                await send_code(websocket, "1")
            answers.append((await client.get("api/status")).status_code)

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    thread.join(60)
    assert answers == [200]
    assert family(os.getpid()) == []


def test_what_kernels_wrote_is_told_from_the_servers_own_log() -> None:
    lines = [
        "[I 2026-11-30 07:15:35.576 PrivateServer] Kernel started",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in <module>',
        "    import nothing",
        "[E 2026-11-30 07:15:35.576 PrivateServer] Uncaught exception",
        "    Traceback (most recent call last):",
        '      File "y.py", line 1, in <module>',
        "ModuleNotFoundError: nothing",
    ]
    assert without_entries_of_server(lines) == [*lines[1:4], lines[7]]


async def test_a_server_that_does_not_answer_is_told_from_one_that_has_ended(tmp_path: Path) -> None:
    late = ServerUnreachable("GET http://localhost/api/contents: no answer in time (ReadTimeout)")
    async with EmbeddedServer(tmp_path) as server:
        error = await server.explain(late)
        assert str(error) == "the private server does not answer"
        assert not isinstance(error, PrivateServerEnded)
        own_server().kill()
        error = await server.explain(late)
        assert str(error) == "the private server was killed by SIGKILL"
        assert isinstance(error, PrivateServerEnded)
