"""Folders on a real server, for the tests of what is read and written there."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from tests.storage.places import Place
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer, jupyter_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of which a test needs a folder; modules that ask for more have one of that name of their own."""
    with jupyter_server(tmp_path_factory.mktemp("files"), base_url="/pre/") as server:
        yield server


@pytest.fixture
async def place(wire: Proxy, server: RunningServer, tmp_path: Path) -> AsyncIterator[Place]:
    """A folder of the test's own on the server, with a notebook in it, reached through the proxy."""
    folder = server.root / tmp_path.name
    folder.mkdir()
    async with Client(Endpoint(wire.url, token=server.token)) as client:
        yield Place(client, folder)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait a second for a reader who is the test itself."""
    monkeypatch.setattr("nbrun.storage.conflicts.SETTLE", 0.05)
    monkeypatch.setattr("nbrun.storage.guarded_file.SETTLE", 0.05)
