"""Servers of other versions and kinds: load, run and save with the command."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.errors import ExitCode
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.owner_mark import OwnerMark, marked
from tests.support.notebooks import (
    Notebook,
    assert_exit,
    notebook,
    outputs_of,
    read_notebook,
    run_nbrun,
    write_notebook,
)
from tests.support.other_servers import OTHER_SERVERS, other_server
from tests.support.servers import RunningServer

pytestmark = pytest.mark.timeout(600)

PASSING = notebook(
    "print('one')\nprint('two')",
    "21 * 2",
    "from IPython.display import HTML, display\nshown = display(HTML('<b>before</b>'), display_id=True)",
    "shown.update(HTML('<b>after</b>'))",
)
FAILING = notebook("print('so far')", "1 / 0", "print('never')")


@pytest.fixture(scope="module", params=OTHER_SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server of each kind, with a passing and a failing notebook in a folder of it."""
    root = tmp_path_factory.mktemp(request.param) / "root"
    write_notebook(root / "reports" / "passing.ipynb", PASSING)
    write_notebook(root / "reports" / "failing.ipynb", FAILING)
    with other_server(request.param, root) as running:
        yield running


@dataclass(frozen=True)
class Run:
    """A run of a notebook that only the server has, from a folder where there is none, and what it left behind."""

    process: subprocess.CompletedProcess[str]
    saved: Notebook
    changed: bool
    """Whether the notebook that was run is another one now."""
    left: list[Any]
    """Sessions and kernels that are still there."""
    beside: list[Path]
    """What is in the folder now."""

    @property
    def outcomes(self) -> list[str]:
        return [cell["outcome"] for cell in json.loads(self.process.stdout)["cells"]]


def run_on(server: RunningServer, name: str, folder: Path) -> Run:
    source = server.root / "reports" / name
    before, output = source.read_bytes(), f"reports/executed-{name}"
    process = run_nbrun(
        "run", f"reports/{name}", "-o", output, "--server", server.url, "--json", "-",
        cwd=folder, env={"NBRUN_TOKEN": server.token},
    )  # fmt: skip
    return Run(
        process,
        read_notebook(server.root / output),
        source.read_bytes() != before,
        [*server.sessions(), *server.get("api/kernels")],
        list(folder.iterdir()),
    )


@pytest.fixture(scope="module")
def passing(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The passing notebook, run once on each server."""
    return run_on(server, "passing.ipynb", tmp_path_factory.mktemp("passing"))


@pytest.fixture(scope="module")
def failing(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The failing notebook, run once on each server."""
    return run_on(server, "failing.ipynb", tmp_path_factory.mktemp("failing"))


def test_the_executed_notebook_is_saved_on_the_server(passing: Run) -> None:
    assert_exit(passing.process, ExitCode.OK)
    assert passing.outcomes == ["passed"] * 4
    printed, result, shown, updating = outputs_of(passing.saved)
    assert printed == [{"output_type": "stream", "name": "stdout", "text": "one\ntwo\n"}]
    assert [output["data"]["text/plain"] for output in result] == ["42"]
    assert [output["data"]["text/html"] for output in shown] == ["<b>after</b>"]
    assert updating == []
    assert [cell["execution_count"] for cell in passing.saved["cells"]] == [1, 2, 3, 4]
    assert passing.beside == []


def test_a_cell_that_raises_ends_the_notebook_and_what_ran_is_saved(failing: Run) -> None:
    assert_exit(failing.process, ExitCode.NOTEBOOK_FAILED)
    assert failing.outcomes == ["passed", "failed", "not-run"]
    assert json.loads(failing.process.stdout)["cells"][1]["error"]["ename"] == "ZeroDivisionError"
    printed, raised, never = outputs_of(failing.saved)
    assert printed == [{"output_type": "stream", "name": "stdout", "text": "so far\n"}]
    assert [(output["output_type"], output["ename"]) for output in raised] == [("error", "ZeroDivisionError")]
    assert never == []


def test_no_session_and_no_kernel_is_left_behind(passing: Run, failing: Run) -> None:
    assert (passing.left, failing.left) == ([], [])


def test_the_notebook_that_was_run_stays_as_it_was(passing: Run, failing: Run) -> None:
    assert not passing.changed
    assert not failing.changed


def test_the_token_is_neither_told_nor_logged(server: RunningServer, passing: Run, failing: Run) -> None:
    for run in (passing, failing):
        assert server.token not in run.process.stdout + run.process.stderr
    assert server.token not in server.log.read_text(errors="replace")


def test_a_wrong_token_is_told_as_such(server: RunningServer, tmp_path: Path) -> None:
    run = run_nbrun("run", "reports/passing.ipynb", "--server", server.url, cwd=tmp_path, env={"NBRUN_TOKEN": "wrong"})

    assert_exit(run, ExitCode.SERVER)
    assert "token" in run.stderr
    assert server.sessions() == []


async def test_a_session_is_marked_without_a_trace_in_its_kernel(server: RunningServer) -> None:
    async with Client(Endpoint(server.url, token=server.token)) as client:
        session = await client.sessions.start("reports/passing.ipynb", "python3")
        started = await client.sessions.get(session.id)
        async with marked(client.sessions, session):
            async with asyncio.timeout(30):
                while (now := await client.sessions.get(session.id)).path == started.path:
                    await asyncio.sleep(0.01)
        await client.sessions.delete(session.id)
    mark = OwnerMark.read(now.path)
    assert mark
    assert mark.expiry
    assert replace(now, path=started.path) == started
