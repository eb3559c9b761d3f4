"""An option, to hold pipelined running to the same tests; and for whole modules, a server behind a proxy."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun.runner.run
from nbrun.core.planning.plan import Plan
from nbrun.jupyter.kernel_session import RunningKernel
from nbrun.runner.pipelining import find_depth
from tests.support.processes import FORCED_DEPTH
from tests.support.proxy import Proxy, proxy
from tests.support.servers import RunningServer, jupyter_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nbrun-pipeline", type=int, metavar="N", help="run every notebook with --pipeline N")


def pytest_configure(config: pytest.Config) -> None:
    depth = config.getoption("--nbrun-pipeline")
    if depth is None:
        return
    os.environ[FORCED_DEPTH] = str(depth)

    async def forced(
        running: RunningKernel, plan: Plan, wanted: int | None, warn: Callable[[str], None], *, near: bool
    ) -> int:
        return await find_depth(running, plan, wanted or depth, (lambda _: None) if wanted is None else warn, near=near)

    setattr(nbrun.runner.run, "find_depth", forced)  # noqa: B010  (it is no name that the module gives away)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, so that its sessions can be counted."""
    with jupyter_server(tmp_path_factory.mktemp("files")) as server:
        yield server


@pytest.fixture
async def wire(server: RunningServer) -> AsyncIterator[Proxy]:
    """A proxy before the server."""
    async with proxy(server) as wire:
        yield wire


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own, for rescue files."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(server: RunningServer) -> Path:
    """Where the notebook of a test is."""
    return server.root / "nb.ipynb"


@pytest.fixture
def options(wire: Proxy, server: RunningServer) -> dict[str, Any]:
    """How to run on the server, through the proxy."""
    return {"server": wire.url, "token": server.token}
