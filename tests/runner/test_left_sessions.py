"""Sessions of killed nbrun processes: only those are ended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import nbrun
from nbrun.errors import ExitCode
from nbrun.jupyter.client import connect
from nbrun.jupyter.owner_mark import OwnerMark
from nbrun.jupyter.sessions import KernelModel, SessionModel
from nbrun.runner.doctor import Finding, examine_left
from nbrun.runner.left_sessions import SECONDS_BETWEEN_LOOKS, sessions_of_nbrun
from tests.support.live_runs import live_run
from tests.support.notebooks import notebook, write_notebook
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer, pause

ID = "3f2a9c1d-0000-4000-8000-0123456789ab"
NOW = datetime(2026, 11, 30, 6, 35, tzinfo=UTC)
KERNEL = KernelModel("k", "python3", "idle", 0, NOW - timedelta(hours=1))
LEFT = SessionModel("s", f"reports/nbrun-{ID}-until-20261130T061500Z", "weekly.ipynb", "console", KERNEL)
WAITING = """
import time
from pathlib import Path
Path("begun").touch()
print("begun")
while not Path("end").exists():
    time.sleep(0.01)
Path("over").touch()
"""
ALIVE = f"reports/nbrun-{ID}-until-20261130T064400Z"


@pytest.mark.parametrize(
    ("session", "obstacle"),
    [
        (LEFT, ""),
        (replace(LEFT, kernel=None), ""),
        (replace(LEFT, kernel=replace(KERNEL, execution_state="dead")), ""),
        (replace(LEFT, path=ALIVE), "may be alive"),
        (replace(LEFT, path=f"reports/nbrun-{ID}-until-20261130T063430Z"), "may be alive"),
        (replace(LEFT, path=f"reports/nbrun-{ID}"), "no owner mark"),
        (replace(LEFT, path=f"reports/{ID}"), "before owner marks"),
        (replace(LEFT, kernel=replace(KERNEL, connections=1)), "connected"),
        (replace(LEFT, kernel=replace(KERNEL, connections=None)), "does not say"),
        (replace(LEFT, kernel=replace(KERNEL, execution_state="busy")), "not idle: busy"),
        (replace(LEFT, kernel=replace(KERNEL, execution_state="starting")), "not idle: starting"),
        (replace(LEFT, kernel=replace(KERNEL, execution_state=None)), "unknown"),
    ],
    ids=lambda value: value or "none" if isinstance(value, str) else "",
)
def test_a_session_is_ended_only_where_nobody_can_come_back_for_it(session: SessionModel, obstacle: str) -> None:
    [found] = sessions_of_nbrun([session], NOW)
    assert obstacle in found.obstacle
    assert bool(obstacle) == bool(found.obstacle)
    assert "reports/weekly.ipynb" in str(found)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("reports/weekly.ipynb", "notebook"),
        ("reports/nbrun-report.ipynb", "notebook"),
        (f"console-1-{ID}", "console"),
        (f"reports/{ID}", "notebook"),
        (f"reports/nbrun-{ID}-until-20261130T061500Z/weekly.ipynb", "notebook"),
    ],
)
def test_another_clients_session_is_not_even_listed(path: str, kind: str) -> None:
    assert sessions_of_nbrun([replace(LEFT, path=path, type=kind)], NOW) == ()


def test_a_kernel_that_another_session_uses_is_left() -> None:
    theirs = replace(LEFT, id="t", path="mine.ipynb", type="notebook")
    [found] = sessions_of_nbrun([theirs, LEFT], NOW)
    assert "another session" in found.obstacle


class Found:
    """Takes findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def show(self, finding: Finding) -> None:
        self.findings.append(finding)

    def __contains__(self, words: str) -> bool:
        return any(words in f"{finding.text} {finding.hint}" for finding in self.findings)


@pytest.fixture(autouse=True)
def no_session_is_left_by_a_test(server: RunningServer) -> Iterator[None]:
    yield
    for session in server.sessions():
        server.call("DELETE", f"api/sessions/{session['id']}")


class Waits:
    """Takes the place of the wait between two looks, in which `meanwhile` happens; counts the seconds."""

    def __init__(self, meanwhile: Any = None) -> None:
        self.seconds: list[float] = []
        self._meanwhile = meanwhile

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self._meanwhile is not None:
            await asyncio.to_thread(self._meanwhile)


async def doctor(server: RunningServer, clean: Waits | None = None, url: str = "") -> tuple[ExitCode | None, Found]:
    found = Found()
    async with connect(url or server.url, token=server.token) as client:
        code = await examine_left(client, await client.contents.directory(), found.show, clean)
    return code, found


def start(server: RunningServer, path: str, kind: str = "console") -> dict[str, Any]:
    """Start a session as another client does, and let its kernel come to idle."""
    session: dict[str, Any] = server.call(
        "POST", "api/sessions", {"path": path, "name": "weekly.ipynb", "type": kind, "kernel": {"name": "python3"}}
    )
    return session


def expire(server: RunningServer) -> None:
    """Let ten minutes pass for the mark of the only session."""
    [session] = server.sessions()
    mark = OwnerMark.read(session["path"])
    assert mark
    assert mark.expiry, "the run has marked its session"
    mark = replace(mark, expiry=datetime.now(UTC) - timedelta(minutes=5))
    folder = session["path"].rpartition("/")[0]
    server.call("PATCH", f"api/sessions/{session['id']}", {"path": f"{folder}/{mark.segment}"})


def leave(server: RunningServer, folder: Path, *args: str, cell: str = "") -> dict[str, Any]:
    """Kill an nbrun in its notebook's only cell, which then ends; returns the session that it left."""
    path = write_notebook(folder / "weekly.ipynb", notebook(f"{cell}\n{WAITING}"))
    name = str(path) if args else f"{folder.name}/weekly.ipynb"
    process = subprocess.Popen(
        [sys.executable, "-m", "nbrun", "run", name, "--server", server.url, *args],
        env={**os.environ, "NBRUN_TOKEN": server.token},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: bool(server.sessions()))
        [session] = server.sessions()
        place = server.root / session["path"].rpartition("/")[0]
        wait_until((place / "begun").exists)
        wait_until(lambda: "-until-" in server.sessions()[0]["path"])
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    (place / "end").touch()
    wait_until((place / "over").exists)
    wait_until(lambda: idle(server))
    for name in ("begun", "end", "over"):
        (place / name).unlink()
    return server.sessions()[0]


def wait_until(is_so: Callable[[], bool], limit: float = 60.0) -> None:
    """Poll a server, which tells of no event; fail at the limit."""
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, is_so
        pause(0.02)


def idle(server: RunningServer) -> bool:
    [session] = server.sessions()
    kernel = session["kernel"]
    return bool(kernel["execution_state"] == "idle" and kernel["connections"] == 0)


@pytest.fixture
def folder(server: RunningServer, tmp_path: Path) -> Path:
    folder = server.root / tmp_path.name
    folder.mkdir()
    return folder


async def test_a_session_that_a_killed_nbrun_left_is_listed_and_then_ended(server: RunningServer, folder: Path) -> None:
    session = await asyncio.to_thread(leave, server, folder)
    theirs = start(server, f"{folder.name}/weekly.ipynb", "notebook")
    waits = Waits()

    code, found = await doctor(server, waits)
    assert code is None
    assert "its run may be alive" in found, "it was killed a moment ago"
    assert waits.seconds == []

    server.call("DELETE", f"api/sessions/{theirs['id']}")
    expire(server)
    theirs = start(server, f"{folder.name}/weekly.ipynb", "notebook")
    code, found = await doctor(server)
    assert code is None
    assert "a killed nbrun left a session" in found
    assert "--clean" in found
    assert session["id"] in {one["id"] for one in server.sessions()}

    code, found = await doctor(server, waits)
    assert code is None
    assert f"ended: {folder.name}/weekly.ipynb" in found, [finding.text for finding in found.findings]
    assert waits.seconds == [SECONDS_BETWEEN_LOOKS]
    assert [one["id"] for one in server.sessions()] == [theirs["id"]], "another client's stays"
    assert [one["id"] for one in server.get("api/kernels")] == [theirs["kernel"]["id"]]

    code, found = await doctor(server, waits)
    assert "no session of a killed nbrun is there" in found


async def test_an_uploaded_notebook_goes_with_its_session_and_what_it_wrote_stays(
    server: RunningServer, tmp_path: Path
) -> None:
    session = await asyncio.to_thread(leave, server, tmp_path / "here", "--upload")
    uploaded = server.root / session["path"].partition("/")[0]
    assert [path.name for path in uploaded.iterdir()] == ["weekly.ipynb"]
    expire(server)
    (server.root / "nbrun-0123456789ab").mkdir()
    code, found = await doctor(server, Waits())
    assert code is None
    assert not uploaded.exists(), [finding.text for finding in found.findings]
    assert "nbrun-0123456789ab/ is a folder that --upload made" in found
    assert (server.root / "nbrun-0123456789ab").exists()
    (server.root / "nbrun-0123456789ab").rmdir()

    session = await asyncio.to_thread(leave, server, tmp_path / "there", "--upload", cell="open('result', 'w').close()")
    uploaded = server.root / session["path"].partition("/")[0]
    expire(server)
    code, found = await doctor(server, Waits())
    assert [path.name for path in uploaded.iterdir() if path.name[0] != "."] == ["result"]
    assert f"{uploaded.name}/: result" in found


async def test_what_changes_between_the_looks_is_left(server: RunningServer, folder: Path) -> None:
    session = await asyncio.to_thread(leave, server, folder)
    expire(server)
    mark = OwnerMark.read(server.sessions()[0]["path"])
    assert mark
    renewed = replace(mark, expiry=datetime.now(UTC) + timedelta(minutes=5))

    def renew() -> None:
        server.call("PATCH", f"api/sessions/{session['id']}", {"path": f"{folder.name}/{renewed.segment}"})

    def share() -> None:
        body = {"path": "mine.ipynb", "name": "", "type": "notebook", "kernel": {"id": session["kernel"]["id"]}}
        server.call("POST", "api/sessions", body)

    _code, found = await doctor(server, Waits(renew))
    assert "left alone" in found
    expire(server)
    _code, found = await doctor(server, Waits(share))
    assert "another session uses its kernel" in found
    assert len(server.sessions()) == 2
    server.call("DELETE", f"api/sessions/{next(one['id'] for one in server.sessions() if one['id'] != session['id'])}")


async def test_a_cut_run_beside_clean_survives(wire: Proxy, server: RunningServer, folder: Path) -> None:
    write_notebook(folder / "nb.ipynb", notebook("1", WAITING, "print('after')"))
    access = {"server": wire.url, "token": server.token}
    async with live_run(f"{folder.name}/nb.ipynb", **access) as run:
        await run.watch.printed("begun")
        async with wire.outage():
            (folder / "end").touch()
            await asyncio.to_thread(wait_until, (folder / "over").exists)
            await asyncio.to_thread(wait_until, lambda: idle(server))  # its cell ends while nobody is connected
            waits = Waits()
            code, found = await doctor(server, waits)
            assert code is None
            assert "its run may be alive" in found
            assert waits.seconds == []
        result = await run.result()
    assert result.outcome is nbrun.Outcome.PASSED


async def test_a_run_that_is_connected_is_left_whatever_its_mark_says(
    wire: Proxy, server: RunningServer, folder: Path
) -> None:
    write_notebook(folder / "nb.ipynb", notebook(WAITING))
    async with live_run(f"{folder.name}/nb.ipynb", server=wire.url, token=server.token) as run:
        await run.watch.printed("begun")
        expire(server)
        _code, found = await doctor(server, Waits())
        assert "connected" in found
        async with wire.outage():
            await asyncio.to_thread(wait_until, lambda: server.sessions()[0]["kernel"]["connections"] == 0)
            _code, found = await doctor(server, Waits())
            assert "its kernel is not idle: busy" in found
        (folder / "end").touch()
        assert (await run.result()).outcome is nbrun.Outcome.PASSED


async def test_a_kernel_that_the_server_calls_idle_and_that_does_not_answer_is_left(
    server: RunningServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.left_sessions.ANSWER_LIMIT", 0.5)
    cell = "import os; Path = __import__('pathlib').Path; Path('pid').write_text(str(os.getpid()))"
    await asyncio.to_thread(leave, server, folder, cell=cell)
    expire(server)
    kernel = int((folder / "pid").read_text())
    os.kill(kernel, signal.SIGSTOP)
    try:
        _code, found = await doctor(server, Waits())
    finally:
        os.kill(kernel, signal.SIGCONT)
    assert "does not answer, so it may be busy" in found


async def test_a_session_that_cannot_be_ended_is_a_failure(wire: Proxy, server: RunningServer, folder: Path) -> None:
    await asyncio.to_thread(leave, server, folder)
    expire(server)
    wire.answer(403, "DELETE", "api/sessions", body=b'{"message": "read only"}')
    code, found = await doctor(server, Waits(), wire.url)
    assert code == ExitCode.SERVER
    assert "could not be ended" in found
    assert "read only" in found


async def test_sessions_that_cannot_be_listed_are_a_failure_only_to_clean(wire: Proxy, server: RunningServer) -> None:
    forbidden = b'{"message": "Forbidden"}'
    for clean, expected in ((None, None), (Waits(), ExitCode.SERVER)):
        wire.answer(403, "GET", "api/sessions", body=forbidden)
        code, found = await doctor(server, clean, wire.url)
        assert code == expected
        assert "cannot be listed" in found
