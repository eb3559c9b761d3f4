"""Refused authentication, also during a run or for websockets only; no message shows a secret."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.jupyter.doubles import Heard, Reply, double, page, passed_on
from tests.support.live_runs import Place, outcomes, place_on, text_of
from tests.support.notebooks import assert_exit, notebook, read_notebook, run_nbrun
from tests.support.servers import RunningServer, jupyter_server, python_path

WRONG = "wrong-4f2a9c71"
WAITS = "import pathlib, time\nprint('here', flush=True)\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)"
"""A cell that says that it has begun, and ends when a file ``go`` is there."""

EXPIRING = """
import os
from jupyter_server.auth.identity import IdentityProvider


class ExpiringTokens(IdentityProvider):
    def get_user(self, handler):
        return None if os.path.exists(os.environ["EXPIRED"]) else super().get_user(handler)
"""
"""A way of identifying people whose tokens expire all at once: when a file is there."""


@dataclass(frozen=True)
class Expiring:
    """A server whose tokens expire when a file is there."""

    server: RunningServer
    sign: Path


@pytest.fixture
def expiring(tmp_path: Path) -> Iterator[Expiring]:
    root, modules, sign = tmp_path / "root", tmp_path / "modules", tmp_path / "expired"
    root.mkdir()
    modules.mkdir()
    (modules / "expiring.py").write_text(EXPIRING)
    env = {**python_path(modules), "EXPIRED": str(sign)}
    args = ["--ServerApp.identity_provider_class=expiring.ExpiringTokens"]
    with jupyter_server(root, args=args, env=env) as server:
        yield Expiring(server, sign)


@pytest.mark.parametrize("token", [WRONG, ""], ids=["wrong", "missing"])
def test_the_command_says_clearly_that_a_token_is(token: str, on_stock: Place, tmp_path: Path) -> None:
    server = on_stock.server
    assert server is not None
    path = on_stock.write(notebook("1"))
    before = (on_stock.folder / "notebook.ipynb").read_bytes()

    run = run_nbrun(
        "run",
        path,
        "--server",
        server.url,
        "--json",
        "-",
        cwd=tmp_path,
        env={"NBRUN_TOKEN": token, "JUPYTER_TOKEN": ""},
    )

    assert_exit(run, ExitCode.SERVER)
    assert "token" in run.stderr
    assert "Traceback" not in run.stderr
    assert WRONG not in run.stdout + run.stderr
    assert server.token not in run.stdout + run.stderr
    assert json.loads(run.stdout)["outcome"] == "server-failed"
    assert (on_stock.folder / "notebook.ipynb").read_bytes() == before
    assert server.sessions() == []


def test_a_token_in_a_pasted_address_opens_the_door_and_is_shown_nowhere(on_stock: Place, tmp_path: Path) -> None:
    server = on_stock.server
    assert server is not None
    path = on_stock.write(notebook("6 * 7"))
    address = f"{server.url}lab/tree/somewhere?token={server.token}"

    run = run_nbrun("run", path, "--server", address, "--json", "-", cwd=tmp_path, env={"NBRUN_TOKEN": ""})

    assert_exit(run, ExitCode.OK)
    assert server.token not in run.stdout + run.stderr
    assert server.token not in (on_stock.folder / "notebook.ipynb").read_text()
    assert server.token not in server.log.read_text(errors="replace")


async def test_a_token_that_expires_during_the_run_costs_the_place_and_not_the_result(
    expiring: Expiring, here: Path
) -> None:
    place = Place(expiring.server.root, expiring.server)
    async with place.live(WAITS, "6 * 7") as run:
        await run.watch.printed("here")
        expiring.sign.touch()
        (place.folder / "go").touch()
        result = await run.result()
    expiring.sign.unlink()

    assert result.exit_code == ExitCode.SERVER
    assert outcomes(result) == ["passed", "passed"], "the open connection stays open"
    assert result.rescued
    assert result.output is not None
    assert Path(result.output).parent == here
    assert read_notebook(Path(result.output))["cells"][1]["outputs"][0]["data"]["text/plain"] == "42"
    assert result.problem is not None
    assert "token" in f"{result.problem.message} {result.problem.hint}"
    assert expiring.server.token not in json.dumps(result.as_dict())
    assert any("kernel may still run" in warning for warning in result.warnings)


async def test_on_a_server_that_lets_everybody_in_a_notebook_runs_too(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with jupyter_server(root, token="") as server:
        place = Place(root, server)
        result = await place.run("6 * 7")

    assert result.exit_code == ExitCode.OK
    assert place.outputs()[0][0]["data"]["text/plain"] == "42"


@pytest.mark.parametrize("reply", [Reply(400), Reply(426), page("Welcome")], ids=["400", "426", "a web page"])
async def test_a_proxy_that_passes_no_websockets_is_told_of_and_no_kernel_is_left(
    reply: Reply, on_stock: Place
) -> None:
    server = on_stock.server
    assert server is not None
    path = on_stock.write(notebook("1"))

    async def answer(heard: Heard) -> Reply:
        return reply if heard.path.endswith("/channels") else await passed_on(heard, server)

    async with double(answer) as proxy:
        with pytest.raises(nbrun.NbrunError) as caught:
            await asyncio.wait_for(nbrun.run_async(path, server=proxy.url, token=server.token), 60)

    assert caught.value.exit_code == ExitCode.SERVER
    assert "websocket" in f"{caught.value} {caught.value.hint}"
    assert on_stock.nothing_is_left()


async def test_a_private_server_is_open_to_its_run_only(tmp_path: Path) -> None:
    """The kernel's own environment and arguments hold nothing that opens the server it runs on."""
    looking = (
        "import os, psutil\nparent = psutil.Process().parent()\nprint(os.environ, parent.cmdline(), parent.environ())"
    )
    place = place_on(None, tmp_path)
    result = await place.run(looking)

    assert result.exit_code == ExitCode.OK
    said = text_of(place.outputs()[0])
    assert "process.boot" in said
    assert "token" not in said.casefold()
