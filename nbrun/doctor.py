"""The examination behind ``nbrun doctor``: the steps of a run, each tried and told of."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nbrun.core.codec import Subprotocol
from nbrun.core.sizes import MAX_FRAME, MAX_RESPONSE
from nbrun.errors import ExitCode, NbrunError, NotFound
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.embedded import EmbeddedServer
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http import HttpOptions
from nbrun.jupyter.server import Server

RATE_LIMIT_HINT = (
    "A stock server drops output beyond 1000 messages or 1 MB of text a second, and does not tell the kernel. Its "
    "administrator lifts that with --ZMQChannelsWebsocketConnection.limit_rate=False "
    "(jupyter_server 2; on 1.x --ServerApp.iopub_msg_rate_limit=1e10 --ServerApp.iopub_data_rate_limit=1e10). "
    "Until then a run that loses output ends with exit code 6 and says where."
)
QUEUE_HINT = (
    "While the server is busy (somebody saves a large notebook), ipykernel drops output beyond 1000 waiting messages. "
    "It has no setting for that; `nbrun run --lift-limits` lifts it for the run."
)
SAVE_HINT = (
    "A stock server takes bodies up to 512 MB (--ServerApp.max_body_size), nginx before it 1 MB "
    "(client_max_body_size). What is refused goes to a rescue file here; "
    "`nbrun run --max-output 50MB` keeps each cell's outputs small."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: good, bad, or (None) just worth knowing."""

    good: bool | None
    text: str
    hint: str = ""


Show = Callable[[Finding], None]


async def examine(
    address: str | None,
    *,
    token: str | None = None,
    password: str | None = None,
    ca_file: Path | None = None,
    verify: bool = True,
    limits: tuple[int | None, int | None] = (MAX_RESPONSE, MAX_FRAME),
    kernel: str | None = None,
    show: Show,
) -> ExitCode | None:
    """Try everything that a run needs and `show` what is found; return the exit code of what is bad, or None.

    `limits` are those of a response body and of a kernel's message, in bytes.
    """
    try:
        if address is None:
            opening = _private(show)
        else:
            options = HttpOptions(ca_file, verify=verify, max_response=limits[0], max_frame=limits[1])
            opening = _existing(address, token, password, options, show)
        async with opening as server:
            await _examine_kernels(server, kernel, show)
            if address is not None:
                show(Finding(None, "limits on output cannot be read over the API", RATE_LIMIT_HINT))
                show(Finding(None, "neither can the size of a notebook that may be saved", SAVE_HINT))
    except NbrunError as error:
        show(Finding(good=False, text=str(error), hint=error.hint))
        return error.exit_code
    return None


@contextlib.asynccontextmanager
async def _private(show: Show) -> AsyncIterator[Server]:
    show(Finding(None, f"Python {sys.version.split()[0]}, nbrun {version('jupyter-nbrun')}"))
    for package in ("jupyter-server", "jupyter-client", "ipykernel"):
        with contextlib.suppress(PackageNotFoundError):
            show(Finding(None, f"{package} {version(package)}"))
    began = _now()
    with tempfile.TemporaryDirectory(prefix="nbrun-") as folder:
        async with EmbeddedServer(Path(folder)) as embedded, Client(embedded.endpoint) as client:
            show(Finding(good=True, text=f"a private server starts, in {_now() - began:.1f} s"))
            yield Server.private(client, embedded.log_tail)


@contextlib.asynccontextmanager
async def _existing(
    address: str, token: str | None, password: str | None, options: HttpOptions, show: Show
) -> AsyncIterator[Server]:
    began = _now()
    async with connect(Endpoint.parse(address, token, password), options=options) as client:
        text = (
            f"{client.endpoint} answers, in {1000 * (_now() - began):.0f} ms: Jupyter Server {await client.version()}"
        )
        show(Finding(good=True, text=text))
        endpoint, who = client.endpoint, ""
        how = "the token" if endpoint.token else "the password" if endpoint.password else "us without a token"
        with contextlib.suppress(NbrunError):  # servers before 2.0 know nobody
            who = f" and takes us for {(await client.me()).username}"
        show(Finding(good=True, text=f"it accepts {how}{who}"))
        try:
            await client.contents.directory()
        except NotFound:
            hint = "Is it a kernel gateway? nbrun loads notebooks from the server, those that it uploads too."
            raise NotFound("it serves no files, so no notebook can be run on it", hint=hint) from None
        show(Finding(good=True, text="it serves files"))
        yield Server(client)


async def _examine_kernels(server: Server, wanted: str | None, show: Show) -> None:
    specs = await server.client.kernelspecs()
    listed = ", ".join(f"{spec.name} ({spec.language})" for spec in specs.specs.values())
    show(Finding(good=bool(specs.specs), text=f"kernels: {listed or 'none'}; default: {specs.default or 'none'}"))
    spec = specs.choose(wanted, {})
    began = _now()

    def warn(text: str) -> None:
        show(Finding(None, text))

    async with server.session("nbrun-doctor.ipynb", spec, startup=60.0, warn=warn) as running:
        info = running.info
        show(Finding(good=True, text=f"kernel {spec.name} answers, in {_now() - began:.1f} s: {info.implementation}"))
        modern = running.kernel.subprotocol is Subprotocol.V1
        form = "as binary frames (v1)" if modern else "as JSON (the server does not speak the v1 subprotocol)"
        show(Finding(good=True, text=f"its messages come {form}"))
        if not server.is_private:
            lifted = info.implementation == "ipython" and await running.kernel.lift_limits()
            word = "can be lifted" if lifted else "cannot be lifted: it is not ipykernel"
            show(Finding(None, f"its own limit on output {word}", QUEUE_HINT if lifted else ""))
        if info.session is None:
            text = "this kernel does not name its session: a restart by somebody else is noticed only by the server"
            show(Finding(None, text))


def _now() -> float:
    return asyncio.get_running_loop().time()
