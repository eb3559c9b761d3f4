"""Servers that disappear or refuse the result: a rescue file is written and named."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import nbrun
from nbrun.core.events import CellStarted, Event, Journal
from nbrun.core.planning.job import Job
from nbrun.errors import ExitCode, UsageError
from nbrun.jupyter.client import connect
from nbrun.jupyter.http.retry import RECONNECT
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.run import run_notebook
from nbrun.storage.base import Notebook
from nbrun.storage.on_server import ServerNotebook
from tests.support.live_runs import Place, Watch, outcomes, place_on, text_of
from tests.support.notebooks import notebook, read_notebook
from tests.support.permissions import read_only
from tests.support.processes import await_gone, await_no_process_of, live_nbrun, of_cells_behind
from tests.support.servers import RunningServer, jupyter_server

LONG = notebook(
    "import os, pathlib, time\nprint('one')",
    "print(f'pid {os.getpid()}.', flush=True)\npathlib.Path('running').touch()\ntime.sleep(120)",
    "print('never')",
)

SHORT_PATIENCE = replace(RECONNECT, tries=3, total=2.0)
"""How long a lost server is waited for here: the usual two minutes are for people, not for tests."""


def check_rescued(output: str | None, here: Path) -> None:
    """Check that all of :data:`LONG` that ran is in a file in the current folder."""
    assert output is not None
    assert Path(output).parent == here
    one, two, three = (cell["outputs"] for cell in read_notebook(Path(output))["cells"])
    assert text_of(one) == "one\n"
    assert "pid" in text_of(two)
    if of_cells_behind("interrupted") == "not-run":
        assert three == []
    else:
        assert [output["ename"] for output in three] == ["Interrupted"]


def test_when_its_private_server_is_killed_what_ran_is_rescued_and_the_kernel_goes(tmp_path: Path, here: Path) -> None:
    place = place_on(None, tmp_path)
    path = place.write(LONG)
    before = Path(path).read_bytes()
    printed = tmp_path / "printed.txt"
    with live_nbrun(path, "--stdout-file", printed, cwd=here, json_file=tmp_path / "result.json") as run:
        run.await_file(printed, words="pid")  # what is still on its way from the kernel dies with the server
        run.await_other("nbrun.local_server.process.boot").kill()

        assert run.end(within=45) == ExitCode.SERVER
        await_no_process_of(run.mark, within=1)
        said = run.said()

    report = run.report()
    assert run.outcomes() == ["passed", "interrupted", of_cells_behind("interrupted")]
    assert report["rescued"] is True
    check_rescued(report["output"], here)
    assert report["output"] in said
    assert "Traceback" not in said
    assert Path(path).read_bytes() == before


@contextlib.asynccontextmanager
async def opening(server: RunningServer, path: str, journal: Journal) -> AsyncIterator[tuple[Server, Notebook]]:
    """Open a server that is not waited for as long as usual once it is gone."""
    async with connect(server.url, token=server.token) as client:
        yield (
            Server(client, reconnect=SHORT_PATIENCE, save=SHORT_PATIENCE),
            ServerNotebook(client.contents, path, path, warn=journal.warn),
        )


async def run_impatiently(server: RunningServer, path: str, watch: Watch) -> nbrun.NotebookResult:
    """Run a notebook on a server, and return it up soon when it is gone."""
    journal = Journal(path, watch.observe)
    return await run_notebook(Job(path), opening(server, path, journal), journal=journal, stop=nbrun.StopSwitch())


async def test_when_a_server_is_killed_what_ran_is_rescued(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with jupyter_server(root) as server:
        path = Place(root, server).write(LONG)
        before = (root / path).read_bytes()
        watch = Watch()
        run = asyncio.create_task(run_impatiently(server, path, watch))
        pid = int(await watch.printed(r"pid (\d+)\."))
        server.kill()
        result = await asyncio.wait_for(run, 60)

    assert result.exit_code == ExitCode.SERVER
    assert outcomes(result) == ["passed", "interrupted", of_cells_behind("interrupted")]
    assert result.rescued
    assert result.problem is not None
    assert "cell 2 of 3" in result.problem.message
    assert str(result.output) in result.problem.hint
    assert server.token not in json.dumps(result.as_dict())
    check_rescued(result.output, here)
    assert (root / path).read_bytes() == before
    await await_gone(pid)


async def test_a_server_that_restarts_has_forgotten_the_kernel_and_takes_the_result(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    place = Place(root)
    with jupyter_server(root) as server:
        port, path = int(server.url.rsplit(":", 1)[1].strip("/")), Place(root, server).write(LONG)
        async with Place(root, server).live(*LONG["cells"]) as run:
            await run.watch.printed("pid")
            server.kill()
            with jupyter_server(root, token=server.token, port=port):
                result = await run.result()

    assert result.exit_code == ExitCode.SERVER
    assert outcomes(result) == ["passed", "interrupted", of_cells_behind("interrupted")]
    assert result.problem is not None
    assert "the server was restarted" in result.problem.message
    assert "in cell 2 of 3" in result.problem.message
    assert not result.rescued
    assert result.output == path
    assert text_of(place.outputs()[0]) == "one\n"
    assert list(here.iterdir()) == []


def wrapper(folder: Path, limits: str) -> str:
    """Make a Python that has the limits of ``ulimit``."""
    script = folder / "limited-python"
    script.write_text(f'#!/bin/sh\nulimit {limits}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on which no file can be larger than 256 blocks of half a kilobyte, as on a disk that is full then."""
    root = tmp_path_factory.mktemp("full")
    with jupyter_server(root, python=wrapper(tmp_path_factory.mktemp("limited"), "-f 256")) as server:
        yield server


async def test_a_notebook_that_the_servers_disk_does_not_hold_is_rescued(
    full_server: RunningServer, tmp_path: Path, here: Path
) -> None:
    place = place_on(full_server, tmp_path)
    before = place.write(notebook("print('x' * 400_000)"))
    text = (place.folder / "notebook.ipynb").read_bytes()

    result = await nbrun.run_async(before, **place.options)

    assert result.exit_code == ExitCode.SERVER
    assert outcomes(result) == ["passed"]
    assert result.rescued
    assert result.problem is not None
    assert "not saved" in result.problem.message
    assert result.output is not None
    assert Path(result.output).parent == here
    assert text_of(read_notebook(Path(result.output))["cells"][0]["outputs"]) == "x" * 400_000 + "\n"
    assert (place.folder / "notebook.ipynb").read_bytes() == text, "the old content is whole"
    assert place.nothing_is_left()


async def test_a_notebook_that_nobody_may_write_is_refused_before_its_kernel_starts(
    on_stock: Place, here: Path
) -> None:
    path = on_stock.write(notebook("6 * 7"))
    events: list[Event] = []
    with read_only(on_stock.folder / "notebook.ipynb"):
        with pytest.raises(UsageError, match="the server says that this cannot be written"):
            await nbrun.run_async(path, **on_stock.options, observe=events.append)
        assert (await nbrun.run_async(path, save=False, **on_stock.options)).exit_code is ExitCode.OK
    assert not any(isinstance(event, CellStarted) for event in events)
    assert on_stock.nothing_is_left()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("output", ["sealed/out.ipynb", "sealed/deep/out.ipynb", "sealed"])
async def test_an_output_folder_that_nobody_may_write_is_refused_before_the_kernel_starts(
    output: str, on_stock: Place, here: Path
) -> None:
    path = on_stock.write(notebook("6 * 7"))
    sealed = on_stock.folder / "sealed"
    sealed.mkdir()
    with read_only(sealed), pytest.raises(UsageError, match="the server says that this cannot be written"):
        await nbrun.run_async(path, output=on_stock.name(output), **on_stock.options)
    sealed.rmdir()
    assert on_stock.nothing_is_left()
    assert list(here.iterdir()) == []


async def test_an_output_below_a_file_of_the_server_is_refused(on_stock: Place, here: Path) -> None:
    path = on_stock.write(notebook("6 * 7"))
    with pytest.raises(UsageError, match=r"notebook\.ipynb is a file on the server, not a folder"):
        await nbrun.run_async(path, output=on_stock.name("notebook.ipynb/out.ipynb"), **on_stock.options)


@pytest.mark.parametrize("word", ["out/", "out"])
async def test_an_output_that_is_a_folder_of_the_server_takes_the_notebook_in(
    word: str, on_stock: Place, here: Path
) -> None:
    path = on_stock.write(notebook("6 * 7"))
    (on_stock.folder / "out").mkdir()
    result = await nbrun.run_async(path, output=on_stock.name(word), **on_stock.options)
    assert result.output == f"{on_stock.name('out')}/{path}"
    assert result.exit_code is ExitCode.OK


async def test_a_notebook_that_nobody_may_write_any_more_is_left_as_it_is_and_the_result_is_rescued(
    on_stock: Place, here: Path
) -> None:
    path = on_stock.write(notebook("6 * 7"))
    file = on_stock.folder / "notebook.ipynb"
    before = file.read_bytes()
    with contextlib.ExitStack() as stack:

        def seal(event: Event) -> None:
            if isinstance(event, CellStarted):
                stack.enter_context(read_only(file))

        result = await nbrun.run_async(path, save_every=float("inf"), **on_stock.options, observe=seal)

    assert (result.exit_code, outcomes(result), result.rescued) == (ExitCode.SERVER, ["passed"], True)
    assert result.problem is not None
    assert "not saved" in result.problem.message
    assert file.read_bytes() == before
    assert result.output is not None
    assert Path(result.output).parent == here
    assert read_notebook(Path(result.output))["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"
    assert on_stock.nothing_is_left()


async def test_a_server_that_does_not_take_a_hidden_file_makes_no_file_and_loses_nothing(
    on_stock: Place, here: Path
) -> None:
    path = on_stock.write(notebook("6 * 7"))

    result = await nbrun.run_async(path, output=on_stock.name(".hidden.ipynb"), **on_stock.options)

    assert (result.exit_code, outcomes(result)) == (ExitCode.SERVER, ["passed"])
    assert result.output is not None
    [rescued] = here.iterdir()
    assert Path(result.output) == rescued
    assert read_notebook(rescued)["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"
    assert result.problem is not None
    assert ".hidden.ipynb: not saved" in result.problem.message
    assert not (on_stock.folder / ".hidden.ipynb").exists()


async def test_a_notebook_whose_folder_is_removed_by_the_run_is_saved_where_its_folder_was(on_stock: Place) -> None:
    result = await on_stock.run("import os, shutil\nshutil.rmtree(os.getcwd())\n6 * 7")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed"])
    assert on_stock.outputs("notebook-nbrun.ipynb")[0][0]["data"]["text/plain"] == "42"
    assert any("deleted or renamed" in warning for warning in result.warnings)


async def test_a_notebook_whose_servers_root_is_removed_by_the_run_is_rescued(tmp_path: Path, here: Path) -> None:
    result = await place_on(None, tmp_path).run("import os, shutil\nshutil.rmtree(os.getcwd())\n6 * 7")

    assert (result.exit_code, outcomes(result)) == (ExitCode.SERVER, ["passed"])
    assert result.rescued
    assert result.output is not None
    assert Path(result.output).parent == here
    assert read_notebook(Path(result.output))["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"


async def test_where_no_rescue_file_can_be_written_either_that_is_said(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_on(None, tmp_path)
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/no-folder")
    result = await place.run(f"import os, shutil\nshutil.rmtree(os.getcwd())\nshutil.rmtree({str(here)!r})")

    assert result.exit_code == ExitCode.SERVER
    assert result.output is None
    assert not result.rescued
    assert result.problem is not None
    assert "No rescue file could be written either" in result.problem.hint
