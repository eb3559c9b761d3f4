"""A real JupyterHub with its proxy and one user, whose server can be started and stopped."""

import contextlib
import json
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.environments import environment
from tests.support.servers import LOG_QUOTED, START_LIMIT, free_port, pause, python_path, write_certificate

USER = "alice"
CONFIG = """
c.JupyterHub.bind_url = "{url}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.auth_token = "{proxy_token}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie-secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/homes/{{username}}"
c.Spawner.cmd = ["{singleuser}"]
c.Spawner.args = ["--allow-root"]
c.JupyterHub.services = [{{"name": "nbrun", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "nbrun", "services": ["nbrun"],
    "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "read:hub", "list:users"]}}]
"""


@dataclass(frozen=True)
class Hub:
    """A running hub; ``root`` is the folder of its user."""

    url: str
    token: str
    root: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    ca_file: Path | None = None

    @property
    def server_url(self) -> str:
        """Return the address of the user's server."""
        return f"{self.url}user/{USER}/"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the hub's API; returns the JSON, or None for an empty answer."""
        request = urllib.request.Request(
            f"{self.url}hub/api/{path}",
            None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def servers(self, user: str = USER) -> list[str]:
        """Return the names of a user's named servers, stopped ones included."""
        return [name for name in self.call("GET", f"users/{user}?include_stopped_servers=1")["servers"] if name]

    def token_of(self, user: str = USER, **wanted: Any) -> str:
        """Create a token of a user; `wanted` are the fields of the request, such as scopes."""
        token: str = self.call("POST", f"users/{user}/tokens", wanted)["token"]
        return token

    def start_server(self) -> None:
        """Start the user's server and wait until it is up."""
        self.call("POST", f"users/{USER}/server")
        deadline = time.monotonic() + START_LIMIT
        while not self.call("GET", f"users/{USER}")["servers"].get("", {}).get("ready"):
            assert time.monotonic() < deadline, "the user's server did not start"
            pause(0.2)

    def stop_server(self) -> None:
        """Stop the user's server."""
        self.call("DELETE", f"users/{USER}/server")


@contextlib.contextmanager
def hub(folder: Path, *, started: bool = True, config: str = "", name: str = "hub", tls: bool = False) -> Iterator[Hub]:
    """Run a hub for the length of the block, with a user, whose server is `started`.

    `config` is more of its configuration, and `name` that of its environment. With `tls` it has a certificate of an
    unknown authority.
    """
    made = environment(name)
    token, url = secrets.token_hex(16), f"http{'s' * tls}://127.0.0.1:{free_port()}/"
    if tls:
        write_certificate(folder / "cert.pem", folder / "key.pem")
        config += f"\nc.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = '{folder}/cert.pem', '{folder}/key.pem'\n"
    file = folder / "jupyterhub_config.py"
    file.write_text(
        CONFIG.format(
            url=url,
            hub_port=free_port(),
            proxy_port=free_port(),
            proxy=made.node_programs / "configurable-http-proxy",
            proxy_token=secrets.token_hex(16),
            folder=folder,
            singleuser=made.python.with_name("jupyterhub-singleuser"),
            token=token,
        )
        + config
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PYTEST"))}
    environ |= {"PATH": f"{made.python.parent}{os.pathsep}{os.environ['PATH']}", **python_path()}
    log = folder / "hub.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(made.python.with_name("jupyterhub")), "-f", str(file)],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Hub(url, token, folder / "homes" / USER, log, process, folder / "cert.pem" if tls else None)
    try:
        _await_hub(found, process, log)
        found.call("POST", f"users/{USER}")
        if started:
            found.start_server()
        yield found
    finally:
        process.send_signal(signal.SIGTERM)  # the hub ends its proxy and its servers
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _await_hub(found: Hub, process: subprocess.Popen[bytes], log: Path) -> None:
    """Poll the hub's API; before the hub is there its proxy answers 404 or 503."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            found.call("GET", "info")
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the hub did not start; its log ends:\n{log.read_text()[-LOG_QUOTED:]}")
        pause(0.1)
