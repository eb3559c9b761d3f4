"""The checks of ``nbrun doctor``: try and report each step of a run.

On an existing server it also lists the sessions that killed nbrun processes left, and ends them on request.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nbrun.core.planning.job import STARTUP_LIMIT
from nbrun.core.protocol.agent import Ability, AgentOptions
from nbrun.core.protocol.codec import Subprotocol
from nbrun.errors import ExitCode, NbrunError, NotAJupyterServer, NotFound, ServerUnreachable
from nbrun.jupyter.client import Client
from nbrun.jupyter.contents import NO_FILES_HINT, ContentsModel
from nbrun.jupyter.kernel_session import Server
from nbrun.jupyter.local_kernelspecs import defects
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.runner.job import Access, endpoint_of
from nbrun.runner.left_sessions import SECONDS_BETWEEN_LOOKS, Cleaned, LeftSession, end_left, find_left, is_upload
from nbrun.runner.servers import connect_to

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
BROKEN_SPEC_HINT = "Remove it with `jupyter kernelspec remove NAME`, or install that kernel anew."
NOT_JUPYTER_HINT = (
    "Another program answers there. Look at the address in a browser: it should show JupyterLab or a login."
)
UNREACHABLE_HINT = (
    "Is this the server's address, and does it begin with https:// where the server speaks TLS? "
    "A firewall or a proxy on the way can swallow requests."
)
UNLISTED_HINT = (
    "A kernel gateway lists its sessions only with --JupyterWebsocketPersonality.list_kernels=True; "
    "elsewhere the token may lack the permission."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: ``good`` is true, false, or None for information only."""

    good: bool | None
    text: str
    hint: str = ""


Show = Callable[[Finding], None]
Wait = Callable[[float], Awaitable[object]]


async def examine(
    access: Access, *, kernel: str | None = None, clean: Wait | None = None, show: Show
) -> ExitCode | None:
    """Check everything that a run needs, `show` the results, and return the exit code of a failure or None.

    With `clean`, end the sessions that killed nbrun processes left, with a wait between the two checks of each.
    """
    failure: ExitCode | None = None
    try:
        if access.server is None:
            async with _private(show) as server:
                await _examine_kernels(server, kernel, show)
            return None
        async with _existing(access, show) as server:
            files = await examine_files(server.client, show)
            failure = await examine_left(server.client, files or (), show, clean)
            await _examine_kernels(server if files is not None else replace(server, kernels_only=True), kernel, show)
            show(Finding(None, "limits on output cannot be read over the API", RATE_LIMIT_HINT))
            if files is not None:
                show(Finding(None, "neither can the size of a notebook that may be saved", SAVE_HINT))
    except NbrunError as error:
        show(Finding(good=False, text=str(error), hint=error.hint or _hint_for(error)))
        return error.exit_code
    return failure


def _hint_for(error: NbrunError) -> str:
    """Return a hint for an error that has none."""
    if isinstance(error, ServerUnreachable):
        return UNREACHABLE_HINT
    return NOT_JUPYTER_HINT if isinstance(error, NotAJupyterServer) else ""


@contextlib.asynccontextmanager
async def _private(show: Show) -> AsyncIterator[Server]:
    show(Finding(None, f"Python {sys.version.split()[0]}, nbrun {version('jupyter-nbrun')}"))
    for package in ("jupyter-server", "jupyter-client", "ipykernel"):
        with contextlib.suppress(PackageNotFoundError):
            show(Finding(None, f"{package} {version(package)}"))
    for defect in defects():
        show(Finding(None, f"a kernelspec is broken: {defect}", BROKEN_SPEC_HINT))
    began = _now()
    with tempfile.TemporaryDirectory(prefix="nbrun-") as folder:
        async with (
            EmbeddedServer(Path(folder)) as embedded,
            Client(embedded.endpoint, explain=embedded.explain) as client,
        ):
            show(Finding(good=True, text=f"a private server starts, in {_now() - began:.1f} s"))
            yield Server.private(client, embedded.kernels_log_tail)


@contextlib.asynccontextmanager
async def _existing(access: Access, show: Show) -> AsyncIterator[Server]:
    show(Finding(None, f"connecting to {endpoint_of(access).endpoint}"))
    began = _now()
    async with connect_to(access) as client:
        text = (
            f"{client.endpoint} answers, in {1000 * (_now() - began):.0f} ms: Jupyter Server {await client.version()}"
        )
        show(Finding(good=True, text=text))
        endpoint, who = client.endpoint, ""
        how = "the token" if endpoint.token else "the password" if endpoint.password else "us without a token"
        with contextlib.suppress(NbrunError):  # servers before 2.0 have no identity
            who = f" and takes us for {(await client.me()).username}"
        show(Finding(good=True, text=f"it accepts {how}{who}"))
        yield Server(client)


async def examine_files(client: Client, show: Show) -> Sequence[ContentsModel] | None:
    """Return the entries of the server's root folder, or None if the server has no contents API."""
    try:
        entries = await client.contents.directory()
    except NotFound:
        show(Finding(None, "it serves no files, as a gateway: notebooks are run with --engine", NO_FILES_HINT))
        return None
    show(Finding(good=True, text="it serves files"))
    return entries


async def examine_left(
    client: Client,
    files: Sequence[ContentsModel],
    show: Show,
    clean: Wait | None,
) -> ExitCode | None:
    """List the sessions of nbrun, and with `clean`, the wait between the two checks, end those that were left.

    `files` are the entries of the server's root folder. Return the exit code of a failure, or None.
    """
    try:
        found = await find_left(client)
        if clean is None:
            _show_left(client, found, show)
            cleaned: Sequence[Cleaned] = ()
        else:
            if any(not left.obstacle for left in found):
                show(Finding(None, f"sessions of killed nbruns are looked at again in {SECONDS_BETWEEN_LOOKS:.0f} s"))
            cleaned = await end_left(client, found, clean)
            _show_cleaned(cleaned, show)
    except ServerUnreachable:
        raise
    except NbrunError as error:
        text = f"its sessions cannot be listed, so those that killed nbruns left are unknown: {error}"
        show(Finding(None if clean is None else False, text, UNLISTED_HINT))
        return None if clean is None else error.exit_code
    used = {left.session.path.strip("/").partition("/")[0] for left in found}
    gone = {one.left.session.path.strip("/").partition("/")[0] for one in cleaned if one.is_ended and not one.files}
    for entry in files:
        if entry.type == "directory" and is_upload(entry.name) and entry.name not in used | gone:
            when = f", last changed {entry.last_modified:%Y-%m-%d %H:%M} UTC" if entry.last_modified else ""
            hint = "A run with --upload and --cwd may still need it. If there is none, delete the folder yourself."
            show(Finding(None, f"{entry.name}/ is a folder that --upload made, without a session{when}", hint))
    return next((one.error.exit_code for one in cleaned if one.error), None)


def _show_left(client: Client, found: Sequence[LeftSession], show: Show) -> None:
    for left in found:
        if left.obstacle:
            show(Finding(None, f"a session of nbrun: {left}: {left.obstacle}"))
        else:
            hint = f"`nbrun doctor --server {client.endpoint.base_url} --clean` ends it."
            show(Finding(None, f"a killed nbrun left a session: {left}", hint))
    if not found:
        show(Finding(good=True, text="no nbrun has left a session on it"))


def _show_cleaned(cleaned: Sequence[Cleaned], show: Show) -> None:
    for one in cleaned:
        if one.error is not None:
            show(Finding(good=False, text=f"could not be ended: {one.left}: {one.error}", hint=one.error.hint))
        elif one.left.obstacle:
            show(Finding(None, f"left alone: {one.left}: {one.left.obstacle}"))
        else:
            show(Finding(good=True, text=f"ended: {one.left}"))
            if one.files:
                show(Finding(None, f"files that its notebook wrote are left in {one.files}"))
    if not any(one.is_ended or one.error for one in cleaned):
        show(Finding(good=True, text="no session of a killed nbrun is there to be ended"))


async def _examine_kernels(server: Server, wanted: str | None, show: Show) -> None:
    specs = await server.client.kernelspecs()
    listed = ", ".join(f"{spec.name} ({spec.language})" for spec in specs.specs.values())
    show(Finding(good=bool(specs.specs), text=f"kernels: {listed or 'none'}; default: {specs.default or 'none'}"))
    spec = specs.choose(wanted, {})
    began = _now()

    def warn(text: str) -> None:
        show(Finding(None, text))

    async with server.session("nbrun-doctor.ipynb", spec, startup=STARTUP_LIMIT, warn=warn) as running:
        info = running.info
        show(Finding(good=True, text=f"kernel {spec.name} answers, in {_now() - began:.1f} s: {info.implementation}"))
        modern = running.kernel.subprotocol is Subprotocol.V1
        form = "as binary frames (v1)" if modern else "as JSON (the server does not speak the v1 subprotocol)"
        show(Finding(good=True, text=f"its messages come {form}"))
        if not server.is_private:
            agent = await server.meet_agent(running, AgentOptions(lift_limits=True))
            lifted = Ability.LIFT_LIMITS in agent.abilities
            word = "can be lifted" if lifted else "cannot be lifted: it is not ipykernel"
            show(Finding(None, f"its own limit on output {word}", QUEUE_HINT if lifted else ""))
        if info.session is None:
            text = "this kernel does not name its session: a restart by somebody else is noticed only by the server"
            show(Finding(None, text))


def _now() -> float:
    return asyncio.get_running_loop().time()
