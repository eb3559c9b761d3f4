"""Real servers, one of each way to be let in, shared by all tests of the REST client."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from jupyter_server.auth import passwd

from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.endpoint import Endpoint
from tests.support.servers import START_LIMIT, RunningServer, jupyter_server, pause, stop

PASSWORD = "correct horse; battery & staple"


@pytest.fixture(scope="session")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a token, under a prefix."""
    with jupyter_server(tmp_path_factory.mktemp("files"), base_url="/pre/fix/") as server:
        yield server


@pytest.fixture(scope="session")
def password_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a password and no token, under a prefix."""
    hashed = passwd(PASSWORD, algorithm="sha1")
    args = [f"--PasswordIdentityProvider.hashed_password={hashed}"]
    with jupyter_server(tmp_path_factory.mktemp("files"), token="", base_url="/pw/", args=args) as server:
        yield server


@pytest.fixture(scope="session")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that lets everybody in, and takes bodies of up to 2 MB."""
    args = ["--ServerApp.max_body_size=2000000"]
    with jupyter_server(tmp_path_factory.mktemp("files"), token="", args=args) as server:
        yield server


@pytest.fixture(scope="session")
def socket_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server with a token on a Unix socket, in a folder of a short name: the path may have 107 bytes."""
    token = "0123456789abcdef0123456789abcdef"
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")}
    environment |= {"JUPYTER_TOKEN": token, "JUPYTER_NO_CONFIG": "1", "HOME": str(home)}
    environment |= {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.sock")
        options = ["--no-browser", "--allow-root", f"--ServerApp.sock={path}"]
        command = [sys.executable, "-m", "jupyter_server", *options]
        environment["TMPDIR"] = folder
        process = subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_until_listening(path)
            yield Endpoint("http://localhost/", token=token, socket=str(path))
        finally:
            stop(process)


def wait_until_listening(path: Path) -> None:
    """Poll a Unix socket until something listens on it."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        pause()
    raise AssertionError(f"nothing listens on {path}")


@pytest.fixture
async def client(token_server: RunningServer) -> AsyncIterator[Client]:
    """A client of the server with a token."""
    async with connect(token_server.url, token=token_server.token) as client:
        yield client


@pytest.fixture
def root(token_server: RunningServer) -> Path:
    """The folder that the server with a token serves."""
    return token_server.root
