"""Open the server of a run, private or existing, and the notebooks on it.

A :class:`Host` is an open server, which opens notebooks by their :class:`~nbrun.runner.job.NotebookPaths`. A private
server's root is the folder that contains all notebooks and outputs. It is at least the git root of the notebooks, so
that each kernel starts in its notebook's own folder, as in JupyterLab.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from nbrun.core.planning.artefacts import SCRATCH
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.endpoint import contents_path
from nbrun.jupyter.http.client import UNBOUNDED, Explain, HttpOptions, import_transport
from nbrun.jupyter.kernel_session import Server
from nbrun.jupyter.trace import Trace
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.runner.job import Access, NotebookPaths, endpoint_of, path_on_server, private_root
from nbrun.storage.base import Notebook
from nbrun.storage.on_server import ServerNotebook
from nbrun.storage.paths import absolute, shown
from nbrun.storage.uploaded import UploadedNotebook

_NOWHERE = ""
"""The output path of a notebook that is passed to ``deliver``."""


class Host(Struct, frozen=True):
    """An open server; ``notebook`` returns the notebook with the given paths.

    For a private server, ``gone`` returns whether it has ended by itself, and ``ended`` waits until it does.
    """

    server: Server
    notebook: Callable[[NotebookPaths, Callable[[str], None]], Notebook]
    gone: Callable[[], bool] = lambda: False
    ended: Callable[[], Awaitable[object]] | None = None


@contextlib.asynccontextmanager
async def connect_to(
    access: Access, explain: Explain | None = None, read_ahead: Callable[[Client], None] = lambda _: None
) -> AsyncIterator[Client]:
    """Connect to an existing server for the length of a block; arguments and errors as in :func:`connect`."""
    options = HttpOptions(
        access.ca_file,
        verify=access.verify,
        headers=access.headers,
        max_response=access.max_response,
        max_frame=access.max_frame,
        trace=access.trace,
    )
    connecting = connect(endpoint_of(access), options=options, explain=explain, read_ahead=read_ahead)
    async with _closing(access.trace), connecting as client:
        yield client


@contextlib.asynccontextmanager
async def _closing(trace: Trace | None) -> AsyncIterator[None]:
    with contextlib.nullcontext() if trace is None else contextlib.closing(trace):
        yield


def open_host(
    access: Access, paths: Sequence[NotebookPaths], started: EmbeddedServer | None = None
) -> AbstractAsyncContextManager[Host]:
    """Open the server of these runs: the existing one, or a private one, which may have been `started` before."""
    return existing_host(access, paths) if access.server else private_host(access, private_root(paths), started)


@contextlib.asynccontextmanager
async def existing_host(
    access: Access,
    runs: Sequence[NotebookPaths] = (),
    *,
    on_engine: bool = False,
    explain: Explain | None = None,
) -> AsyncIterator[Host]:
    """Connect to an existing server for the length of the block; `on_engine` if an engine provides it.

    The first notebook of `runs`, if any are known, is read while the server is checked. `explain` returns a more
    specific error for a failed connection.
    """

    def read_ahead(client: Client) -> None:
        client.read_kernelspecs_ahead()
        if runs and not runs[0].upload and runs[0].content is None:
            _on_server(client, runs[0], lambda _: None).read_ahead()

    async with connect_to(access, explain, read_ahead) as client:

        def find(paths: NotebookPaths, warn: Callable[[str], None]) -> Notebook:
            notebook: Notebook
            if paths.upload:
                local, _ = paths.local_pair()
                output = Path(local if paths.stored else paths.output or local)
                notebook = UploadedNotebook(
                    client.contents, local, output, warn=warn, on_conflict=paths.on_conflict, cwd=_folder(paths)
                )
            else:
                notebook = _on_server(client, paths, warn)
            return _elsewhere(notebook, client, paths, warn, _folder(paths))

        yield Host(Server.of_engine(client) if on_engine else Server(client), find)


@contextlib.asynccontextmanager
async def private_host(access: Access, root: Path, started: EmbeddedServer | None = None) -> AsyncIterator[Host]:
    """Start a private server with this root folder, for the length of the block; it may be `started` already."""
    here = Path.cwd()  # now, because a notebook may delete the folder
    embedded = started or EmbeddedServer(root, zygote=access.zygote, preload=access.preload)
    options = replace(UNBOUNDED, trace=access.trace)
    if started is None:
        await embedded.start()
    import_transport()  # while the server starts
    async with _closing(access.trace), embedded, Client(embedded.endpoint, options, explain=embedded.explain) as client:

        def find(paths: NotebookPaths, warn: Callable[[str], None]) -> Notebook:
            local = absolute(here / paths.notebook)
            output = local if paths.stored else absolute(here / (paths.output or paths.notebook))
            cwd = _below(root, absolute(here / paths.cwd)) if paths.cwd and paths.cwd != SCRATCH else None
            notebook = ServerNotebook(
                client.contents,
                local.relative_to(root).as_posix(),
                _NOWHERE if paths.deliver or paths.stored else output.relative_to(root).as_posix(),
                warn=warn,
                on_conflict=paths.on_conflict,
                checkpoint=paths.checkpoint,
                name_for_user=lambda path: shown(root / path, here),
                cwd=cwd,
            )
            return _elsewhere(notebook, client, paths, warn, cwd)

        yield Host(
            Server.private(client, embedded.kernels_log_tail, root), find, lambda: embedded.has_ended, embedded.ended
        )


def _on_server(client: Client, paths: NotebookPaths, warn: Callable[[str], None]) -> ServerNotebook:
    """Return the notebook with these paths of an existing server."""
    path = path_on_server(paths.notebook)
    is_elsewhere = bool(paths.deliver or paths.stored)
    target = _NOWHERE if is_elsewhere else contents_path(paths.output) if paths.output else path
    notebook = ServerNotebook(
        client.contents,
        path,
        target,
        warn=warn,
        on_conflict=paths.on_conflict,
        checkpoint=paths.checkpoint,
        cwd=_folder(paths),
    )
    notebook.check_output = paths.save and not is_elsewhere
    return notebook


def _folder(paths: NotebookPaths) -> str | None:
    """Return the kernel's folder on an existing server, or None if it is the notebook's."""
    return contents_path(paths.cwd) if paths.cwd and paths.cwd != SCRATCH else None


def local_notebook_of(paths: NotebookPaths, warn: Callable[[str], None]) -> Notebook:
    """Return the notebook with these paths of this machine, without a server's files."""
    from nbrun.storage.local import LocalNotebook

    local, _ = paths.local_pair()
    output = Path(local if paths.stored else paths.output or local)
    notebook = LocalNotebook(local, output, warn=warn, on_conflict=paths.on_conflict)
    return _elsewhere(notebook, None, paths, warn, None)


def folder_of(paths: NotebookPaths) -> str:
    """Return the absolute path of the kernel's working directory; a scratch folder is made later."""
    return str(absolute(paths.cwd) if paths.cwd and paths.cwd != SCRATCH else absolute(paths.notebook).parent)


def _elsewhere(
    notebook: Notebook, client: Client | None, paths: NotebookPaths, warn: Callable[[str], None], cwd: str | None
) -> Notebook:
    """Return the notebook with input or output in memory, or output in a store, if its paths require it."""
    if paths.in_memory:
        from nbrun.storage.in_memory import InMemoryNotebook

        notebook = InMemoryNotebook(
            notebook,
            None if client is None else client.contents,
            paths.notebook,
            warn=warn,
            content=paths.content,
            deliver=paths.deliver,
            cwd=cwd,
        )
    if not (paths.save and paths.stored):
        return notebook
    from nbrun.storage.in_object_store import StoredNotebook

    version = paths.version if paths.stored == paths.origin else ""
    return StoredNotebook(notebook, paths.stored, version=version, warn=warn, on_conflict=paths.on_conflict)


def _below(root: Path, folder: Path) -> str:
    """Return a folder's path on a server with that root; the root's own path is empty."""
    return "" if folder == root else folder.relative_to(root).as_posix()
