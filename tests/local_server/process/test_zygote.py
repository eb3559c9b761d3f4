"""Forked kernels: equal to started ones, and started if a fork would be wrong."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import pytest_asyncio
from httpx import AsyncClient

from nbrun.local_server.launcher import EmbeddedServer
from nbrun.local_server.process.provisioner import may_be_forked
from nbrun.local_server.process.zygote import can_fork
from tests.support.private import channels, driver, execute, http, send_code, start_kernel

GONE_WITHIN = 5.0

ABOUT_ITSELF = """
import gc, json, locale, os, random, signal, sys, threading, time
print(json.dumps({
    "argv": [word for word in sys.argv if not word.startswith("/")],
    "command": [len(sys.orig_argv), sys.orig_argv[0], sys.orig_argv[1]],
    "path": sys.path, "flags": repr(sys.flags), "cwd": os.getcwd(), "stdin": os.read(0, 1).decode(),
    "environment": {name: value for name, value in os.environ.items() if not name.startswith("JPY_")},
    "parent": os.getppid() == int(os.environ["JPY_PARENT_PID"]),
    "session": os.path.basename(os.path.dirname(os.environ["JPY_SESSION_NAME"])),
    "leads": [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()],
    "threads": sorted(thread.name.rpartition("-")[0] or thread.name for thread in threading.enumerate()),
    "main": [__name__, threading.current_thread() is threading.main_thread()],
    "file": hasattr(sys.modules[__name__], "__file__"),
    "signals": {name: repr(signal.getsignal(getattr(signal, name))).partition(" at ")[0]
                for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGPIPE")},
    "gc": [gc.isenabled(), gc.get_threshold()], "ours": [name for name in sys.modules if name.startswith("nbrun")],
    "encoding": [sys.stdout.encoding, locale.getpreferredencoding(), time.tzname], "hidden": sorted(globals())[:3],
    "umask": os.umask(0o22), "scheduling": os.getpriority(os.PRIO_PROCESS, 0), "hook": sys.excepthook.__name__,
    "finders": [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path],
}))
"""


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(each["content"]["text"] for each in messages if each["header"]["msg_type"] == "stream")


async def said(server: EmbeddedServer, kernel_id: str, code: str) -> str:
    async with channels(server.endpoint, kernel_id) as websocket:
        return text_of(await execute(websocket, code)).strip()


async def fresh(server: EmbeddedServer, client: AsyncClient, code: str, folder: str = "") -> str:
    """Start a kernel, give what `code` prints in it, end it."""
    session = await start_kernel(client, folder=folder)
    answer = await said(server, session["kernel"]["id"], code)
    assert (await client.delete(f"api/sessions/{session['id']}")).status_code == 204
    return answer


@pytest_asyncio.fixture
async def forking(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedServer, AsyncClient]]:
    async with EmbeddedServer(tmp_path, zygote=True) as server, http(server.endpoint) as client:
        yield server, client


def is_forked(server: EmbeddedServer) -> bool:
    return "is started, not forked" not in server.log_tail(1000)


def server_process(server: EmbeddedServer) -> psutil.Process:
    assert server._process is not None
    return psutil.Process(server._process.pid)


async def test_a_forked_kernel_is_like_a_started_one(tmp_path: Path) -> None:
    (tmp_path / "in here").mkdir()
    told = []
    for zygote in (False, True):
        async with EmbeddedServer(tmp_path, zygote=zygote) as server, http(server.endpoint) as client:
            told.append(json.loads(await fresh(server, client, ABOUT_ITSELF, folder="in here")))
            assert is_forked(server)
            assert len(server_process(server).children()) == zygote
    started, forked = told
    assert forked == started
    assert forked["cwd"] == str(tmp_path / "in here")
    assert forked["ours"] == []


async def test_each_forked_kernel_has_chance_of_its_own_and_what_was_preloaded(tmp_path: Path) -> None:
    code = """if True:
        import sys
        print("numpy" in sys.modules, end=" ")
        import multiprocessing, numpy, random, tempfile, uuid
        print(random.random(), numpy.random.rand(), numpy.random.default_rng().random(), uuid.uuid4(),
              next(tempfile._get_candidate_names()), bytes(multiprocessing.current_process().authkey))"""
    async with EmbeddedServer(tmp_path, zygote=True, preload=["numpy"]) as server, http(server.endpoint) as client:
        drawn = [(await fresh(server, client, code)).split(maxsplit=1) for _ in range(2)]
        assert is_forked(server)
    assert [preloaded for preloaded, _ in drawn] == ["True", "True"]
    first, second = (numbers.split() for _, numbers in drawn)
    assert not set(first) & set(second)


async def test_plots_are_shown_inline_though_matplotlib_was_imported_before_the_kernel_was(tmp_path: Path) -> None:
    code = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print(plt.get_backend())"
    async with (
        EmbeddedServer(tmp_path, zygote=True, preload=["matplotlib.pyplot"]) as server,
        http(server.endpoint) as client,
    ):
        kernel_id = (await start_kernel(client))["kernel"]["id"]
        async with channels(server.endpoint, kernel_id) as websocket:
            answers = await execute(websocket, code)
        assert is_forked(server)
    shown = [each["content"]["data"] for each in answers if each["header"]["msg_type"] == "display_data"]
    assert ["image/png" in data for data in shown] == [True]
    assert "inline" in text_of(answers)


async def interrupt(client: AsyncClient, kernel_id: str) -> None:
    """Interrupt a kernel until it is enough: one that comes into the midst of a finalizer is ignored by Python."""
    while True:
        assert (await client.post(f"api/kernels/{kernel_id}/interrupt")).status_code == 204
        await asyncio.sleep(2)


async def test_a_forked_kernel_is_interrupted_and_its_death_is_noticed_soon(
    forking: tuple[EmbeddedServer, AsyncClient],
) -> None:
    server, client = forking
    kernel_id = (await start_kernel(client))["kernel"]["id"]
    async with asyncio.timeout(30), channels(server.endpoint, kernel_id) as websocket:
        await send_code(websocket, "print('here', flush=True)\nwhile True: pass")
        async for text in websocket:
            message = json.loads(text)
            if message["header"]["msg_type"] == "stream":
                interrupting = asyncio.create_task(interrupt(client, kernel_id))
            if message["header"]["msg_type"] == "execute_reply":
                assert message["content"]["ename"] == "KeyboardInterrupt"
                interrupting.cancel()
                break
        begin = asyncio.get_running_loop().time()
        await send_code(websocket, "import os; os._exit(7)")
        async for text in websocket:
            if json.loads(text)["content"].get("execution_state") == "dead":
                break
    assert asyncio.get_running_loop().time() - begin < 3.0
    assert (await client.get("api/kernels")).json() == []


async def test_atexit_handlers_of_a_forked_kernel_run_when_its_session_ends(
    forking: tuple[EmbeddedServer, AsyncClient], tmp_path: Path
) -> None:
    server, client = forking
    await fresh(server, client, "import atexit, pathlib; atexit.register(pathlib.Path('ended').write_text, 'in order')")
    assert (tmp_path / "ended").read_text() == "in order"
    assert is_forked(server)


async def test_a_forked_kernel_imports_nothing_when_it_ends(
    forking: tuple[EmbeddedServer, AsyncClient], tmp_path: Path
) -> None:
    server, client = forking
    session = await start_kernel(client)
    leave = "print(sorted({*sys.modules} - before), file=open('new', 'w'))"
    code = f"import atexit, sys; before = {{*sys.modules}}; atexit.register(lambda: {leave})"
    assert await said(server, session["kernel"]["id"], f"{code}; print('faulthandler' in sys.modules)") == "True"
    assert (await client.delete(f"api/sessions/{session['id']}")).status_code == 204
    assert (tmp_path / "new").read_text() == "[]\n"


async def test_ten_kernels_in_a_row_leave_nothing(forking: tuple[EmbeddedServer, AsyncClient]) -> None:
    server, client = forking
    await fresh(server, client, "1")
    process = server_process(server)
    [zygote] = process.children()
    before = process.num_fds(), zygote.num_fds(), process.num_threads()
    for _ in range(10):
        session = await start_kernel(client)
        assert (await client.delete(f"api/sessions/{session['id']}")).status_code == 204
    assert is_forked(server)
    assert process.children(recursive=True) == [zygote]
    assert (process.num_fds() <= before[0] + 2, zygote.num_fds(), process.num_threads()) == (True, *before[1:])


async def test_an_orphan_that_a_notebook_leaves_does_not_become_the_servers_child(
    forking: tuple[EmbeddedServer, AsyncClient],
) -> None:
    server, client = forking
    orphan = int(await fresh(server, client, "!(sleep 60 > /dev/null 2>&1 & echo $!)"))
    try:
        assert psutil.Process(orphan).ppid() != server_process(server).pid
    except psutil.NoSuchProcess:
        return  # it was in the kernel's group and went with it
    psutil.Process(orphan).kill()


def test_when_nbrun_is_killed_the_zygote_and_its_kernel_go(tmp_path: Path) -> None:
    with driver(tmp_path, "python3", zygote=True) as (process, told):
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 3  # the server, the zygote and a kernel
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=GONE_WITHIN)
        assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
        assert not Path(told["folder"]).exists()


def test_they_go_too_when_the_server_is_killed(tmp_path: Path) -> None:
    with driver(tmp_path, "python3", zygote=True) as (process, told):
        [server] = psutil.Process(process.pid).children()
        family = server.children(recursive=True)
        assert len(family) == 2
        server.kill()
        _, alive = psutil.wait_procs(family, timeout=GONE_WITHIN)
        assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
    shutil.rmtree(told["folder"], ignore_errors=True)  # nobody is left who could


async def test_kernels_are_started_as_usual_once_the_zygote_is_gone(
    forking: tuple[EmbeddedServer, AsyncClient],
) -> None:
    server, client = forking
    [zygote] = server_process(server).children()
    zygote.send_signal(signal.SIGKILL)
    assert await fresh(server, client, "print(6 * 7)") == "42"
    assert not is_forked(server)


async def test_a_preloaded_module_that_starts_a_thread_keeps_kernels_from_being_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "busy.py").write_text(
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    async with EmbeddedServer(tmp_path, zygote=True, preload=["busy"]) as server, http(server.endpoint) as client:
        assert await fresh(server, client, "import sys; print('busy' in sys.modules)") == "False"
        assert "not forked: 1 threads are running" in server.log_tail(1000)


async def test_a_module_that_cannot_be_preloaded_is_told_in_the_log_and_kernels_run(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path, zygote=True, preload=["nowhere_at_all"]) as server:
        async with http(server.endpoint) as client:
            assert await fresh(server, client, "print(6 * 7)") == "42"
        assert "nowhere_at_all could not be preloaded" in server.log_tail(1000)
        assert is_forked(server)


@pytest.mark.parametrize(
    ("argv", "more", "forked"),
    [
        (["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], {}, True),
        (["python3", "-Xfrozen_modules=off", "-m", "ipykernel", "-f", "{connection_file}"], {}, True),
        (["/elsewhere/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], {}, False),
        (["python", "-O", "-m", "ipykernel_launcher", "-f", "{connection_file}"], {}, False),
        (["python", "-m", "other_kernel", "-f", "{connection_file}"], {}, False),
        (["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], {"env": {"OMP_NUM_THREADS": "1"}}, False),
        (
            ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            {"metadata": {"kernel_provisioner": {"provisioner_name": "remote"}}},
            False,
        ),
        ([], {}, False),
    ],
    ids=["python", "known options", "another one", "optimised", "another kernel", "its own env", "remote", "nothing"],
)
def test_only_this_interpreters_own_ipykernel_is_forked(argv: list[str], more: dict[str, Any], forked: bool) -> None:
    assert may_be_forked(SimpleNamespace(**{"argv": argv, "env": {}, "metadata": {}, **more})) is forked


def test_nothing_is_forked_where_the_import_path_would_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/somewhere", ""]))
    assert can_fork()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/somewhere", "src"]))
    assert not can_fork()
