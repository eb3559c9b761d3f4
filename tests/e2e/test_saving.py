"""The notebook's file during and after a run: crashes, other clients, and checkpoints."""

import asyncio
import math
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import nbrun
from nbrun.core.protocol.agent import AgentOptions
from nbrun.errors import ExitCode, UsageError
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.owner_mark import OwnerMark
from nbrun.runner.left_sessions import end_left, find_left
from tests.support.hub import Hub, hub
from tests.support.live_runs import Place, live_run, outcomes, place_on, text_of
from tests.support.notebooks import markdown, notebook, read_notebook, write_notebook
from tests.support.processes import LiveNbrun, live_nbrun, of_cells_behind
from tests.support.proxy import FOR_EVER, proxy
from tests.support.servers import RunningServer, jupyter_server, pause, python_path

WAITS = "import pathlib, time\nprint('here', flush=True)\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)"
"""A cell that says that it has begun, and ends when a file ``go`` is there."""

COUNTS = "import time\nfor n in range(20): print(n, flush=True); time.sleep(0.1)"
LONG = notebook("print('one')", "print('so far', flush=True)\nimport time; time.sleep(120)", "print('never')")


def await_saved(run: LiveNbrun, path: Path, words: str) -> None:
    """Wait until a notebook that is being run has some text in its file."""
    deadline = time.monotonic() + 60
    while words not in path.read_text():
        assert run.process.poll() is None, f"nbrun ended first: {run.said()}"
        assert time.monotonic() < deadline, "nothing was saved"
        pause()


@pytest.mark.parametrize("kind", ["private", "stock"])
def test_when_everything_is_killed_the_file_says_how_far_the_run_had_come(
    kind: str, tmp_path: Path, here: Path, request: pytest.FixtureRequest
) -> None:
    server: RunningServer | None = request.getfixturevalue("stock_server") if kind == "stock" else None
    place = place_on(server, tmp_path)
    path = place.write(LONG)
    remote = ["--server", server.url] if server else []
    env = {"NBRUN_TOKEN": server.token} if server else {}
    options = (*remote, "--save-every", "100ms")
    with live_nbrun(path, *options, cwd=here, json_file=tmp_path / "result.json", env=env) as run:
        await_saved(run, place.folder / "notebook.ipynb", "so far\\n")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait(10)
    saved = place.read()
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "running"
    assert [text_of(cell["outputs"]) for cell in saved["cells"]] == ["one\n", "so far\n", ""]
    assert [cell["metadata"].get("nbrun") for cell in saved["cells"]] == [None, {"outcome": "running"}, None]
    assert [cell["execution_count"] for cell in saved["cells"]] == [1, 2, None]
    if server is not None:
        for session in server.sessions():
            server.call("DELETE", f"api/sessions/{session['id']}")


async def test_saves_meanwhile_leave_no_trace_in_the_end(on_stock: Place) -> None:
    assert on_stock.server is not None
    path = on_stock.write(notebook(COUNTS, "1 / 0", "3"))
    async with proxy(on_stock.server) as wire:
        result = await nbrun.run_async(path, server=wire.url, token=on_stock.server.token, save_every=0.1)
        puts = len(wire.lines("PUT"))
    assert puts > 1
    assert outcomes(result) == ["passed", "failed", "not-run"]
    saved = on_stock.read()
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "failed"
    assert [cell["metadata"].get("nbrun", {}).get("outcome") for cell in saved["cells"]] == [None, "failed", "not-run"]
    assert text_of(saved["cells"][0]["outputs"]) == "".join(f"{n}\n" for n in range(20))
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("options", "puts"), [({"save_every": float("inf")}, 1), ({"save": False, "save_every": 0.1}, 0)]
)
async def test_where_no_intermediate_saves_are_wanted_there_are_none(
    options: dict[str, float], puts: int, on_stock: Place
) -> None:
    assert on_stock.server is not None
    path = on_stock.write(notebook("import time\nprint('1', flush=True)\ntime.sleep(2)"))
    async with proxy(on_stock.server) as wire:
        await nbrun.run_async(path, server=wire.url, token=on_stock.server.token, **options)  # type: ignore[arg-type]
        assert len(wire.lines("PUT")) == puts


async def test_an_edit_made_during_the_run_and_its_results_come_together(place: Place) -> None:
    before = notebook(WAITS, "6 * 7", "1 + 1")
    edited = notebook(WAITS, "6 * 7", "1 + 1")
    edited["cells"].insert(1, markdown("Read this.") | {"id": "theirs"})
    async with place.live(*before["cells"], save_every=0.1) as run:
        await run.watch.printed("here")
        while "here\\n" not in (place.folder / "notebook.ipynb").read_text():
            await asyncio.sleep(0.05)  # until an intermediate save has been there
        place.write(edited)
        (place.folder / "go").touch()
        result = await run.result()
    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed"] * 3)
    cells = place.read()["cells"]
    assert [cell["source"] for cell in cells] == [cell["source"] for cell in edited["cells"]]
    assert text_of(cells[0]["outputs"]) == "here\n"
    assert [cell["outputs"][0]["data"]["text/plain"] for cell in cells[2:]] == ["42", "2"]
    assert [path.name for path in place.folder.glob("*.ipynb")] == ["notebook.ipynb"]
    assert any("their changes are kept" in warning for warning in result.warnings)


async def test_a_save_through_a_gateway_that_fails_twice_is_made_once(on_stock: Place) -> None:
    assert on_stock.server is not None
    path = on_stock.write(notebook("6 * 7"))
    async with proxy(on_stock.server) as wire:
        wire.answer(502, "PUT")
        wire.drop("PUT")
        result = await nbrun.run_async(path, server=wire.url, token=on_stock.server.token)
        assert len(wire.lines("PUT")) == 3
    assert (result.exit_code, result.output, result.warnings) == (ExitCode.OK, path, ())
    assert on_stock.outputs()[0][0]["data"]["text/plain"] == "42"
    log = on_stock.server.log.read_text(errors="replace")
    assert log.count(f"Saving file at /{path}") == 1


async def test_a_login_page_instead_of_a_save_is_not_followed(on_stock: Place, here: Path) -> None:
    assert on_stock.server is not None
    path = on_stock.write(notebook("6 * 7"))
    async with proxy(on_stock.server) as wire:
        wire.ask_to_log_in("PUT", times=FOR_EVER)
        result = await nbrun.run_async(path, server=wire.url, token=on_stock.server.token)
        assert [line for line in wire.lines() if "/login" in line] == []
        assert len(wire.lines("PUT")) == 1
    assert (result.exit_code, result.rescued) == (ExitCode.SERVER, True)
    [rescued] = here.iterdir()
    assert read_notebook(rescued)["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"


# A reader who comes into a save -------------------------------------------------------------------------------------

SLOW_FILES = """
import asyncio
import os
import nbformat
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


class SlowFiles(AsyncLargeFileManager):
    async def _save_notebook(self, os_path, nb, *args, **kwargs):
        with self.atomic_writing(os_path, encoding="utf-8") as file:
            await asyncio.sleep(float(os.environ["SAVING_TAKES"]))
            nbformat.write(nb, file, version=nbformat.NO_CONVERT)
"""
"""The stock files, of which a notebook's is being written for a while, as a large one is."""


def slow_server(root: Path, modules: Path, seconds: float) -> object:
    """Return a server on which a save takes so many seconds."""
    root.mkdir()
    modules.mkdir()
    (modules / "slow_files.py").write_text(SLOW_FILES)
    env = {**python_path(modules), "SAVING_TAKES": str(seconds)}
    return jupyter_server(root, args=["--ServerApp.contents_manager_class=slow_files.SlowFiles"], env=env)


@pytest.mark.parametrize(
    ("seconds", "times"),
    [(0.5, 2), pytest.param(3.0, 10, marks=[pytest.mark.slow, pytest.mark.soak])],
    ids=["briefly", "for 3 s, 10 times"],
)
async def test_a_reader_in_the_middle_of_the_save_does_not_bring_the_old_notebook_back(
    seconds: float, times: int, tmp_path: Path
) -> None:
    with slow_server(tmp_path / "root", tmp_path / "modules", seconds) as server:  # type: ignore[attr-defined]
        for number in range(times):
            place = Place(tmp_path / "root", server)
            name = f"notebook-{number}.ipynb"
            path, file = place.write(notebook(f"print({number}, 'executed')"), name), tmp_path / "root" / name
            run = asyncio.create_task(nbrun.run_async(path, save_every=math.inf, **place.options))
            while file.stat().st_size:  # the save has begun: the file is empty
                await asyncio.sleep(0.02)
            await asyncio.sleep(seconds / 3)
            await asyncio.to_thread(server.get, f"api/contents/{name}?type=notebook&content=1")
            result = await asyncio.wait_for(run, 60)
            assert (result.exit_code, result.output) == (ExitCode.OK, name)
            assert text_of(place.outputs(name)[0]) == f"{number} executed\n"
            assert any(f"{name}.invalid was left" in warning for warning in result.warnings)


# The way back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [True, False])
async def test_a_notebook_comes_back_when_the_run_does_not_pass(passes: bool, place: Place) -> None:
    async with place.live(COUNTS, "1" if passes else "1 / 0", save_every=0.1, restore_on_failure=True) as run:
        before = (place.folder / "notebook.ipynb").read_bytes()
        result = await run.result()
    after = (place.folder / "notebook.ipynb").read_bytes()
    checkpoint = place.folder / ".ipynb_checkpoints" / "notebook-checkpoint.ipynb"
    assert (after == before) is not passes
    assert checkpoint.read_bytes() == before
    assert result.output is not None
    executed = "notebook.ipynb" if passes else "notebook-nbrun.ipynb"
    assert result.output.endswith(executed)
    assert text_of(place.outputs(executed)[0]) == "".join(f"{n}\n" for n in range(20))
    assert any("is as it was before" in warning for warning in result.warnings) is not passes


async def test_a_private_server_makes_no_checkpoint_that_nobody_asked_for(tmp_path: Path) -> None:
    place = place_on(None, tmp_path)
    await place.run("1")
    assert [path.name for path in place.folder.iterdir()] == ["notebook.ipynb"]


@pytest.mark.parametrize("options", [{"upload": True, "server": "http://127.0.0.1:9/"}, {"save": False}])
async def test_a_checkpoint_that_makes_no_sense_is_a_wrong_call(options: dict[str, object], here: Path) -> None:
    write_notebook(here / "notebook.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="checkpoint"):
        await nbrun.run_async("notebook.ipynb", checkpoint=True, **options)  # type: ignore[arg-type]


# A hub ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    if sys.platform == "win32":
        pytest.skip("JupyterHub does not run on Windows")
    with hub(tmp_path_factory.mktemp("hub")) as found:
        yield found


async def test_on_a_hub_a_session_that_was_left_is_ended(a_hub: Hub) -> None:
    async def no_wait(_: float) -> None: ...

    async with Client(Endpoint(a_hub.server_url, token=a_hub.token)) as client:
        session = await client.sessions.start("short.ipynb", "python3")
        assert session.kernel
        async with client.kernel(session.kernel.id) as kernel:
            await kernel.handshake()
            await kernel.meet_agent(AgentOptions())  # something is run, so that the server knows the kernel to be idle
        mark = OwnerMark(str(uuid.uuid4()), datetime.now(UTC) - timedelta(minutes=5))
        await client.sessions.move(session.id, mark.segment)
        async with asyncio.timeout(30):
            while any(left.obstacle for left in await find_left(client)):  # until the connection is known to be gone
                await asyncio.sleep(0.05)
        [cleaned] = await end_left(client, await find_left(client), no_wait)
        assert cleaned.is_ended
        assert await client.sessions.list() == ()


async def test_on_a_hub_a_notebook_runs_and_a_server_that_is_stopped_is_told_of(a_hub: Hub, here: Path) -> None:
    write_notebook(a_hub.root / "short.ipynb", notebook("6 * 7"))
    write_notebook(a_hub.root / "long.ipynb", LONG)
    options = {"server": a_hub.server_url, "token": a_hub.token}
    short = await nbrun.run_async("short.ipynb", **options)  # type: ignore[arg-type]
    assert short.exit_code == ExitCode.OK
    assert read_notebook(a_hub.root / "short.ipynb")["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"

    async with live_run("long.ipynb", **options) as run:
        await run.watch.printed("so far")
        await asyncio.to_thread(a_hub.stop_server)
        result = await run.result()

    assert (result.exit_code, outcomes(result)) == (
        ExitCode.SERVER,
        ["passed", "interrupted", of_cells_behind("interrupted")],
    )
    assert result.problem is not None
    assert "the hub says that this server is not running" in result.problem.message
    assert "control panel" in result.problem.hint
    assert a_hub.token not in str(result.as_dict())
    [rescued] = here.iterdir()
    assert [text_of(cell["outputs"]) for cell in read_notebook(rescued)["cells"][:2]] == ["one\n", "so far\n"]
