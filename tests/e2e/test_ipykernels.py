"""The agent in older and newer ipykernels: all abilities, and the same results."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nbrun.core.protocol.agent import REPLAY_BUFFER, Ability, AgentOptions
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.runner.pipelining import SharedProgress
from tests.support.environments import environment
from tests.support.notebooks import joined, notebook, outputs_of, read_notebook, run_nbrun, write_notebook
from tests.support.servers import RunningServer, jupyter_server

CELLS = (
    "print('one')",
    "await __import__('asyncio').sleep(0)",
    *["pass"] * 100,  # ipykernel 7.0 to 7.3 may not read a request that arrives while it sends a reply
    "import threading\nthreading.Timer(0.1, print, ['late']).start()",
)


@pytest.fixture(scope="module", params=["ipykernel-6.29", "ipykernel-6.31", "ipykernel-7.0"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A stock server with a kernel of another environment, which has no nbrun in it."""
    root = tmp_path_factory.mktemp(request.param)
    spec = root / "jupyter" / "kernels" / "other" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(environment(request.param).python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "other", "language": "python"}))
    (root / "files").mkdir()
    env = {"JUPYTER_PATH": str(root / "jupyter"), "IPYTHONDIR": str(root / "ipython")}
    with jupyter_server(root / "files", env=env) as running:
        yield running


async def test_the_agent_has_all_of_its_abilities(server: RunningServer) -> None:
    name = server.call("POST", "api/kernels", {"name": "other"})["id"]
    async with Client(Endpoint(server.url, server.token)) as client, client.kernel(name) as kernel:
        await kernel.handshake()
        progress = SharedProgress()
        options = AgentOptions(REPLAY_BUFFER, lift_limits=True, quiet=True, freeze=True, progress=progress.address)
        agent = await kernel.meet_agent(options)
        progress.close_address()
        assert agent.abilities == frozenset(Ability)
    server.call("DELETE", f"api/kernels/{name}")


@pytest.mark.parametrize("options", [(), ("--pipeline", "3")], ids=["in lists", "ahead"])
def test_a_run_comes_to_the_same(server: RunningServer, options: tuple[str, ...]) -> None:
    path = write_notebook(Path(server.root) / "nb.ipynb", notebook(*CELLS))
    command = ("run", path.name, "--server", server.url, "--kernel", "other", *options)
    found = run_nbrun(*command, env={"NBRUN_TOKEN": server.token})
    assert found.returncode == 0, found.stderr
    first, *_, last = outputs_of(read_notebook(path))
    assert [joined(outputs[0]["text"]) for outputs in (first, last)] == ["one\n", "late\n"]
    assert "one by one" not in found.stderr


def test_all_cells_are_in_the_history_on_disk(server: RunningServer) -> None:
    path = write_notebook(Path(server.root) / "history.ipynb", notebook(*(f"'cell {number}'" for number in range(100))))
    found = run_nbrun("run", path.name, "--server", server.url, "--kernel", "other", env={"NBRUN_TOKEN": server.token})
    assert found.returncode == 0, found.stderr
    with closing(sqlite3.connect(server.root.parent / "ipython" / "profile_default" / "history.sqlite")) as history:
        cells = history.execute("SELECT source FROM history WHERE source LIKE '%cell %' ORDER BY line").fetchall()
    assert [cell for (cell,) in cells] == [f"'cell {number}'" for number in range(100)]


LEFT = """\
import atexit
from pathlib import Path

class Cycle:
    def __init__(self):
        self.own = self
    def __del__(self, write=Path("deleted").write_text):
        write("x")

file = open("open", "w")
file.write("x")
cycle = Cycle()
atexit.register(Path("exited").write_text, "x")"""


def test_what_a_notebook_leaves_open_is_closed_at_the_end(server: RunningServer) -> None:
    """Objects of the kernel itself are not collected; those of the notebook are."""
    path = write_notebook(Path(server.root) / "left" / "nb.ipynb", notebook(LEFT))
    command = ("run", "left/nb.ipynb", "--server", server.url, "--kernel", "other")
    found = run_nbrun(*command, env={"NBRUN_TOKEN": server.token})
    assert found.returncode == 0, found.stderr
    assert {name: (path.parent / name).read_text() for name in ("open", "deleted", "exited")} == dict.fromkeys(
        ("open", "deleted", "exited"), "x"
    )
