"""Helpers for tests of the private server: plain HTTP, a kernel that ignores signals, a driver process."""

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from nbrun.jupyter.endpoint import Endpoint
from tests.support.servers import pause

STUBBORN = """
import json, os, signal, subprocess, sys, threading
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
report = {"pid": os.getpid(), "child": child.pid, "environment": dict(os.environ),
          "descriptors": sorted(os.listdir("/proc/self/fd"))}
path = sys.argv[2]
with open(path + ".part", "w") as file:
    json.dump(report, file)
os.rename(path + ".part", path)
threading.Event().wait()
"""

DRIVER = """
import asyncio, json, os, sys
from pathlib import Path
import httpx
from nbrun.local_server.launcher import EmbeddedServer

async def main(root, how, *kernels):
    async with EmbeddedServer(Path(root), tcp=how == "tcp", zygote=True if how == "zygote" else None) as server:
        at = server.endpoint
        transport = httpx.AsyncHTTPTransport(uds=at.socket)
        headers = {"Authorization": f"token {at.token}"}
        async with httpx.AsyncClient(transport=transport, base_url=at.base_url, headers=headers, timeout=60) as client:
            for name in kernels:
                body = {"path": f"{name}-kernel", "name": "", "type": "console", "kernel": {"name": name}}
                answer = await client.post("api/sessions", json=body)
                answer.raise_for_status()
        folder = str(server._folder)
        print(json.dumps({"folder": folder, "token": at.token, "environment": dict(os.environ)}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(*sys.argv[1:]))
"""


def http(endpoint: Endpoint) -> httpx.AsyncClient:
    """Return an authenticated client."""
    transport = httpx.AsyncHTTPTransport(uds=endpoint.socket) if endpoint.socket else None
    headers = {"Authorization": f"token {endpoint.token}"}
    return httpx.AsyncClient(transport=transport, base_url=endpoint.base_url, headers=headers, timeout=60)


async def start_kernel(client: httpx.AsyncClient, name: str = "python3", folder: str = "") -> dict[str, Any]:
    """Start a session on a new kernel, and return the session's model."""
    path = f"{folder}/{uuid.uuid4()}".lstrip("/")
    body = {"path": path, "name": "", "type": "console", "kernel": {"name": name}}
    answer = await client.post("api/sessions", json=body)
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


@contextlib.asynccontextmanager
async def channels(endpoint: Endpoint, kernel_id: str) -> AsyncIterator[ClientConnection]:
    """Open a kernel's websocket in the plain JSON protocol."""
    url = endpoint.websocket_url(kernel_id, uuid.uuid4().hex)
    headers = {"Authorization": f"token {endpoint.token}"}
    if endpoint.socket:
        opening = unix_connect(endpoint.socket, url, additional_headers=headers, max_size=None)
    else:
        opening = connect(url, additional_headers=headers, max_size=None)
    async with opening as websocket:
        yield websocket


async def send_code(websocket: ClientConnection, code: str) -> str:
    """Ask for execution; returns the request's message id."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "session": "s",
        "username": "",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    content |= {"stop_on_error": False}  # else what is sent right behind an error may be thrown away with it
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await websocket.send(json.dumps(message))
    return header["msg_id"]


async def execute(websocket: ClientConnection, code: str) -> list[dict[str, Any]]:
    """Execute code; return all messages that belong to it, up to the reply and the idle."""
    request = await send_code(websocket, code)
    answers: list[dict[str, Any]] = []
    ends = {"execute_reply", "idle"}
    async for text in websocket:
        message = json.loads(text)
        if message["parent_header"].get("msg_id") == request:
            answers.append(message)
            ends -= {message["header"]["msg_type"], message["content"].get("execution_state")}
            if not ends:
                break
    return answers


def install_stubborn_kernel(data: Path, report: Path) -> None:
    """Install a kernelspec `stubborn`: its kernel ignores signals, has a child and reports what it receives."""
    folder = data / "kernels" / "stubborn"
    folder.mkdir(parents=True)
    script = folder / "stubborn.py"
    script.write_text(STUBBORN)
    argv = [sys.executable, str(script), "{connection_file}", str(report)]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Stubborn", "language": "none"}))


def wait_for(path: Path, seconds: float = 20.0) -> dict[str, Any]:
    """Wait for a JSON file that another process renames into place."""
    for _ in range(int(seconds / 0.05)):
        if path.exists():
            content: dict[str, Any] = json.loads(path.read_text())
            return content
        pause()
    raise AssertionError(f"{path} did not appear")


@contextlib.contextmanager
def driver(
    root: Path, *kernels: str, tcp: bool = False, zygote: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a process with a private server and these kernels; return it and its report."""
    command = [sys.executable, "-c", DRIVER, str(root), "tcp" if tcp else "zygote" if zygote else "socket", *kernels]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=dict(env) if env else None) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the driver did not come up"
            yield process, json.loads(line)
        finally:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            _, alive = psutil.wait_procs(family, timeout=5)
            for member in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
