"""The way in from Python: :func:`run`, :func:`run_async` and :func:`connect`.

A run needs a server. Where none is named, a private one is started for the length of the run, with its root at the
notebook's git root, or at its folder where there is none, so that kernels start in the notebook's own folder as they
do in JupyterLab.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict, Unpack

from nbrun.core.events import Journal, Observer, Stage
from nbrun.core.job import STARTUP_LIMIT, Job, Limits
from nbrun.core.results import NotebookResult
from nbrun.errors import NoSuchNotebook, NotANotebook, UsageError
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.embedded import EmbeddedServer
from nbrun.jupyter.endpoint import Endpoint, contents_path
from nbrun.jupyter.http import HttpOptions
from nbrun.jupyter.saving import ServerNotebook
from nbrun.jupyter.server import Server
from nbrun.jupyter.undo import Undo
from nbrun.jupyter.upload import UploadedNotebook
from nbrun.pipeline import Notebook, run_notebook
from nbrun.stopping import StopSwitch

__all__ = ["RunOptions", "connect", "run", "run_async"]


class RunOptions(TypedDict, total=False):
    """What a run may be told; every key may be left out. Times are seconds, and None sets no limit."""

    output: str | os.PathLike[str] | None
    """Where the executed notebook goes; the notebook's own place if left out. Parents are created."""
    server: str | None
    """The address of a running server, as pasted from a browser; a private server is started if left out."""
    token: str | None
    """The token of `server`."""
    password: str | None
    """The password of `server`."""
    upload: bool
    """The notebook is on this machine and `server` is not: upload it, run it there, bring the result back."""
    kernel: str | None
    """The kernelspec to run with instead of the one that the notebook names."""
    timeout: float | None
    """The limit of the whole run, from its first cell."""
    cell_timeout: float | None
    """The limit of each cell, unless the cell's own metadata sets one."""
    idle_timeout: float | None
    """How long a running cell may be silent."""
    startup_timeout: float
    """The limit for the start of the kernel (60)."""
    allow_errors: bool
    """Go on after a cell that raised."""
    save: bool
    """Write the executed notebook (True)."""
    force: bool
    """Overwrite the notebook even if somebody changed it during the run."""
    save_every: float | None
    """Seconds between two saves while it runs: chosen here if left out; ``math.inf`` saves at the end only."""
    checkpoint: bool
    """Keep the notebook as it was before the run as its checkpoint, to which JupyterLab reverts."""
    restore_on_failure: bool
    """Bring the notebook back from that checkpoint when the run does not pass; the executed one goes beside it."""
    raw_streams: bool
    r"""Keep ``\r`` and ``\b`` in stream outputs as they were written."""
    record_timing: bool
    """Write the standard ``execution`` times into the cells' metadata (True)."""
    tolerate_loss: bool
    """Let a run pass although output is known to be lost; it is a warning then."""
    note_loss: bool
    """Say at the end of a cell's outputs that some are missing (True)."""
    ca_file: str | os.PathLike[str] | None
    """A file of certificates to trust, for https."""
    verify: bool
    """Check the server's certificate (True)."""
    observe: Observer
    """Called with each event of the run."""
    stop: StopSwitch
    """Ends the run early when it is pulled."""


def run(notebook: str | os.PathLike[str], **options: Unpack[RunOptions]) -> NotebookResult:
    """Run a notebook and give what came of it; see :class:`RunOptions` for what may be said.

    A notebook that fails is no exception: look at the result's ``outcome``. Raises :class:`~nbrun.errors.NbrunError`
    when nothing could be run, and nothing was changed then. May be called where an event loop is already running (in
    a notebook, say); the run then has a thread of its own.
    """
    work = run_async(notebook, **options)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _run_beside(work)


def _run_beside(work: Coroutine[Any, Any, NotebookResult]) -> NotebookResult:
    """Run in a thread; what interrupts the waiting (Ctrl-C in a notebook, say) cancels the run, which then saves."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def begin() -> NotebookResult:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1, thread_name_prefix="nbrun") as pool:
        running = pool.submit(asyncio.run, begin())
        try:
            return running.result()
        except BaseException:
            if not running.done():
                loop, task = begun.result()
                loop.call_soon_threadsafe(task.cancel)
            raise


async def run_async(notebook: str | os.PathLike[str], **options: Unpack[RunOptions]) -> NotebookResult:
    """Run a notebook as :func:`run` does, in the loop that is running. Cancellation saves what there is first."""
    if unknown := options.keys() - RunOptions.__annotations__.keys():
        raise TypeError(f"there is no such option of a run: {', '.join(sorted(unknown))}")
    _undo(options)
    name = os.fspath(notebook)
    journal = Journal(name, options.get("observe") or (lambda _: None))
    opening = (
        _on_server(name, options, journal) if options.get("server") else _on_private_server(name, options, journal)
    )
    job = Job(
        name,
        kernel=options.get("kernel"),
        limits=Limits(
            run=options.get("timeout"),
            cell=options.get("cell_timeout"),
            silence=options.get("idle_timeout"),
            startup=options.get("startup_timeout", STARTUP_LIMIT),
        ),
        allow_errors=options.get("allow_errors", False),
        save=options.get("save", True),
        save_every=options.get("save_every"),
        raw_streams=options.get("raw_streams", False),
        record_timing=options.get("record_timing", True),
        tolerate_loss=options.get("tolerate_loss", False),
        note_loss=options.get("note_loss", True),
    )
    return await run_notebook(job, opening, journal=journal, stop=options.get("stop") or StopSwitch())


@contextlib.asynccontextmanager
async def _on_server(name: str, options: RunOptions, journal: Journal) -> AsyncIterator[tuple[Server, Notebook]]:
    """Open a server that exists."""
    destination = Endpoint.parse(options.get("server") or "", options.get("token"), options.get("password"))
    ca_file = options.get("ca_file")
    http = HttpOptions(Path(ca_file) if ca_file else None, verify=options.get("verify", True))
    journal.enter(Stage.CONNECTING)
    async with connect(destination, options=http) as client:
        output = options.get("output")
        if options.get("upload"):
            local = _local_notebook(name)
            notebook = UploadedNotebook(
                client.contents, local, Path(output or local), warn=journal.warn, force=options.get("force", False)
            )
            yield Server(client), notebook
        else:
            path = contents_path(name)
            target = contents_path(os.fspath(output)) if output else path
            yield (
                Server(client),
                ServerNotebook(
                    client.contents,
                    path,
                    target,
                    warn=journal.warn,
                    force=options.get("force", False),
                    undo=_undo(options),
                ),
            )


@contextlib.asynccontextmanager
async def _on_private_server(
    name: str, options: RunOptions, journal: Journal
) -> AsyncIterator[tuple[Server, Notebook]]:
    """Start a server of our own, with a root that holds the notebook and its output."""
    local = _local_notebook(name)
    output = _local_output(options.get("output") or local)
    root = _root_for(local, output)
    here = Path.cwd()  # asked for now: the notebook may take it away
    journal.enter(Stage.STARTING_SERVER)
    async with EmbeddedServer(root) as embedded, Client(embedded.endpoint) as client:
        notebook = ServerNotebook(
            client.contents,
            local.relative_to(root).as_posix(),
            output.relative_to(root).as_posix(),
            warn=journal.warn,
            force=options.get("force", False),
            name_for_user=lambda path: _shown(root / path, here),
            undo=_undo(options),
        )
        yield Server.private(client, embedded.log_tail), notebook


def _undo(options: RunOptions) -> Undo:
    """Read what is to be done about the notebook as it was; raises :class:`UsageError` for what cannot be."""
    undo = Undo.CHECKPOINT if options.get("checkpoint") else Undo.NONE
    undo = Undo.RESTORE if options.get("restore_on_failure") else undo
    if undo is not Undo.NONE and options.get("upload"):
        raise UsageError("an uploaded notebook has no checkpoint", hint="With --output the local file stays as it is.")
    if undo is not Undo.NONE and not options.get("save", True):
        raise UsageError("a notebook that is not saved needs no checkpoint")
    return undo


def _local_notebook(name: str) -> Path:
    path = _absolute(name)
    if path.is_dir():
        raise NotANotebook(f"{name}: this is a folder", hint="Name the notebook in it.")
    if not path.exists():
        hint = f"nbrun looked in {path.parent}. For a notebook on a server, say --server URL."
        raise NoSuchNotebook(f"{name}: there is no such file", hint=hint)
    return path


def _local_output(output: str | os.PathLike[str]) -> Path:
    path = _absolute(output)
    if path.is_dir():
        raise UsageError(f"{output}: this is a folder", hint="Name the file in it.")
    return path


def _absolute(name: str | os.PathLike[str]) -> Path:
    """Give the path from the root of the disk, without the ``..`` of which a server's paths know nothing."""
    path = Path(name).absolute()
    return path.parent.resolve() / path.name if ".." in path.parts else path


def _root_for(notebook: Path, output: Path) -> Path:
    """Give the folder that is the server's root: the notebook's git root or folder, or what holds the output too."""
    root = next((folder for folder in notebook.parents if (folder / ".git").exists()), notebook.parent)
    try:
        return Path(os.path.commonpath([root, output.parent]))
    except ValueError:
        raise UsageError(f"{output}: on another drive than the notebook") from None


def _shown(path: Path, here: Path) -> str:
    """Give a path as a person would write it from the folder `here`."""
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
