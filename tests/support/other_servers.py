"""Servers of other versions and kinds, each with its own names for the same options.

What differs on the wire, and so what a test with one of them is for:

=================  ==================================================================================================
server-1.24        no ``/api/me``, no content hashes
server-2.0         no content hashes
server-2.12        today's interface, before its later changes
notebook-6.5       the classic server: no ``/api/me``, and a websocket with no ``v1.kernel.websocket.jupyter.org``
gateway-client     files are the server's, kernels are a Kernel Gateway's behind it; the websocket speaks JSON only
=================  ==================================================================================================
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from tests.support.environments import environment
from tests.support.servers import RunningServer, free_port, jupyter_server, server_process

OTHER_SERVERS = ("server-1.24", "server-2.0", "server-2.12", "notebook-6.5", "gateway-client")


@contextlib.contextmanager
def other_server(kind: str, root: Path) -> Iterator[RunningServer]:
    """Run a server of one of :data:`OTHER_SERVERS` over the files in `root` for as long as the block lasts."""
    match kind:
        case "gateway-client":
            with kernel_gateway(root) as gateway, gateway_client(root, gateway) as server:
                yield server
        case "notebook-6.5":
            with jupyter_server(
                root,
                python=str(environment(kind).python),
                application="notebook",
                token_option="--NotebookApp.token",
                root_option="--NotebookApp.notebook_dir",
                base_url_option="--NotebookApp.base_url",
            ) as server:
                yield server
        case _:
            option = "--IdentityProvider.token" if kind == "server-2.12" else "--ServerApp.token"
            with jupyter_server(root, python=str(environment(kind).python), token_option=option) as server:
                yield server


@contextlib.contextmanager
def kernel_gateway(root: Path, *, lists: bool = True) -> Iterator[RunningServer]:
    """Run a Jupyter Kernel Gateway, which has kernels and sessions and no files, for as long as the block lasts.

    By default one refuses to list its kernels and sessions.
    """
    token, port = secrets.token_hex(16), free_port()
    command = [
        str(environment("gateway").python), "-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1",
        f"--KernelGatewayApp.port={port}", f"--KernelGatewayApp.auth_token={token}",
        f"--JupyterWebsocketPersonality.list_kernels={lists}", "--KernelRestarter.time_to_dead=0.5",
    ]  # fmt: skip
    with server_process(command, f"http://127.0.0.1:{port}/", token, root) as gateway:
        yield gateway


@contextlib.contextmanager
def enterprise_gateway(root: Path, *options: str) -> Iterator[RunningServer]:
    """Run a Jupyter Enterprise Gateway with kernels of this machine for as long as the block lasts."""
    token, port = secrets.token_hex(16), free_port()
    command = [
        str(environment("enterprise-gateway").python), "-m", "enterprise_gateway", "--ip=127.0.0.1",
        f"--port={port}", "--EnterpriseGatewayApp.port_retries=0", "--EnterpriseGatewayApp.list_kernels=True",
        f"--EnterpriseGatewayApp.auth_token={token}", "--EnterpriseGatewayApp.unauthorized_users=nobody",
        "--KernelRestarter.time_to_dead=0.5", *options,
    ]  # fmt: skip
    with server_process(command, f"http://127.0.0.1:{port}/", token, root) as gateway:
        yield gateway


@contextlib.contextmanager
def gateway_client(root: Path, gateway: RunningServer) -> Iterator[RunningServer]:
    """Run a stock server that has its kernels at `gateway` for as long as the block lasts."""
    options = [f"--gateway-url={gateway.url.rstrip('/')}", f"--GatewayClient.auth_token={gateway.token}"]
    with jupyter_server(root, args=options) as server:
        yield server
