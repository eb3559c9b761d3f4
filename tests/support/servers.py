"""Real Jupyter servers for the tests: processes on loopback, ended by their pid."""

import contextlib
import ipaddress
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

START_LIMIT = 60.0
LOG_QUOTED = 4000
"""Maximum characters of a log in an error."""


ABSENT = Path(__file__).with_name("absent")
"""The folder of modules that servers and their kernels do without, since these are slow to import."""


def python_path(*folders: Path) -> dict[str, str]:
    """Return the variable PYTHONPATH with :data:`ABSENT` and these folders, for a server or a kernel."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (ABSENT, *folders)))}


@dataclass
class RunningServer:
    """A running server and its token."""

    url: str
    token: str
    root: Path
    process: subprocess.Popen[bytes]
    log: Path
    kill_signal: int = field(default=signal.SIGTERM)

    @property
    def port(self) -> int:
        """Return the TCP port it listens on."""
        return int(urlsplit(self.url).port or 0)

    def get(self, path: str) -> Any:
        """GET an API path with the token and return the JSON; for checks made beside nbrun's own client."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send one API request with the token; returns the JSON, or None for an empty answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def sessions(self) -> list[dict[str, Any]]:
        """Return the server's live sessions."""
        sessions: list[dict[str, Any]] = self.get("api/sessions")
        return sessions

    def kill(self) -> None:
        """End the server as SIGKILL does."""
        self.process.kill()
        self.process.wait(10)


def free_port() -> int:
    """Return a loopback port that is free now.

    Systems choose the ports of others, such as those of kernels, from 32768 on.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def jupyter_server(
    root: Path,
    *,
    python: str = sys.executable,
    application: str = "jupyter_server",
    token: str | None = None,
    token_option: str = "--IdentityProvider.token",
    root_option: str = "--ServerApp.root_dir",
    base_url_option: str = "--ServerApp.base_url",
    base_url: str = "/",
    port: int | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Run a stock server on a free loopback port for as long as the block lasts.

    It reads no configuration and has a runtime, config and data folder of its own beside `root`
    (kernelspecs of `python`'s own environment are found all the same). Servers of other ages have other names for
    the same options; :mod:`tests.support.other_servers` knows them.
    """
    token = secrets.token_hex(16) if token is None else token
    port = port or free_port()
    command = [
        python, "-m", application, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        f"{token_option}={token}", f"{root_option}={root}", f"{base_url_option}={base_url}", *args,
    ]  # fmt: skip
    with server_process(command, f"http://127.0.0.1:{port}{base_url}", token, root, env=env) as server:
        yield server


@contextlib.contextmanager
def server_process(
    command: Sequence[str], url: str, token: str, root: Path, *, env: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """Run a command that serves at `url` until the block ends; it is ready when the block begins."""
    home = root.parent / f"{root.name}-server-home"
    for name in ("config", "data", "runtime", "ipython", "tmp"):
        (home / name).mkdir(parents=True, exist_ok=True)
    log = home / f"server-{urllib.parse.urlsplit(url).port}.log"
    # Where it sees that pytest runs it, ipykernel does not collect what child processes write.
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment = {name: value for name, value in kept.items() if not name.startswith("JUPYTER_")}
    environment |= {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_NO_CONFIG": "1",
        "IPYTHONDIR": str(home / "ipython"),
        "TMPDIR": str(home / "tmp"),  # where each Jupyter process makes an empty configuration and leaves it
        **python_path(),
        **(env or {}),
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=root,
        )
    server = RunningServer(url, token, root, process, log)
    try:
        wait_until_ready(server)
        yield server
    finally:
        stop(process, server.kill_signal)


def wait_until_ready(server: RunningServer) -> None:
    """Poll ``/api`` until it answers; fail early when the process ends.

    A Jupyter server answers there without asking for the token; a Kernel Gateway does not.
    """
    deadline = time.monotonic() + START_LIMIT
    request = urllib.request.Request(server.url + "api", headers={"Authorization": f"token {server.token}"})
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=5):
            return
        if server.process.poll() is not None or time.monotonic() > deadline:
            end_of_log = server.log.read_text(errors="replace")[-LOG_QUOTED:]
            raise AssertionError(f"the server did not start; its log ends:\n{end_of_log}")
        pause()


def pause(seconds: float = 0.05) -> None:
    """Wait a moment between two polls of something outside this process that has no event."""
    threading.Event().wait(seconds)


def stop(process: subprocess.Popen[bytes], with_signal: int = signal.SIGTERM) -> None:
    """End a process by a signal, and by SIGKILL after 10 s."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def write_certificate(cert: Path, key: Path) -> None:
    """Write a certificate of this machine that is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nbrun's tests")])
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    public = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(public.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, plain))
