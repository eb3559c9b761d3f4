"""A private server that runs one notebook after the other for a caller without an event loop: a test session, say.

Server and runs live in a thread with a loop of its own; the caller waits. What interrupts the waiting stops the run,
which saves what there is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from nbrun.core.events import Journal, Observer
from nbrun.core.job import Job
from nbrun.core.results import NotebookResult
from nbrun.errors import ExitCode
from nbrun.jupyter.client import Client
from nbrun.jupyter.embedded import EmbeddedServer
from nbrun.jupyter.saving import ServerNotebook
from nbrun.jupyter.server import Server
from nbrun.pipeline import Notebook, run_notebook
from nbrun.stopping import StopSwitch

_STOP_LIMIT = 60.0
"""Seconds that an interrupted run may take to save and to end."""


class NotebookServer:
    """A private server with its root at `root`, from :meth:`start` to :meth:`close`; a context that does both."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbrun server")
        self._open: Future[tuple[asyncio.AbstractEventLoop, Server, asyncio.Event]] = Future()
        self._serving: Future[None] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it answers; raises what :class:`EmbeddedServer` raises."""
        self._serving = self._thread.submit(asyncio.run, self._serve())
        self._open.result()

    async def _serve(self) -> None:
        ended = asyncio.Event()
        try:
            async with EmbeddedServer(self._root) as embedded, Client(embedded.endpoint) as client:
                server = Server.private(client, embedded.log_tail)
                self._open.set_result((asyncio.get_running_loop(), server, ended))
                await ended.wait()
        except BaseException as error:
            if not self._open.done():
                self._open.set_exception(error)
                return
            raise

    def run(self, job: Job, path: Path, *, observe: Observer) -> NotebookResult:
        """Run the notebook at `path`, which lies below the root; raises :class:`NbrunError` as a run does."""
        loop, server, _ = self._open.result()
        stop = StopSwitch()
        journal = Journal(job.notebook, observe)
        opening = self._notebook(server, path, journal)
        running = asyncio.run_coroutine_threadsafe(run_notebook(job, opening, journal=journal, stop=stop), loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(stop.pull, "interrupted by Ctrl-C", ExitCode.INTERRUPTED)
            with contextlib.suppress(Exception):
                running.result(_STOP_LIMIT)
            raise

    @contextlib.asynccontextmanager
    async def _notebook(self, server: Server, path: Path, journal: Journal) -> AsyncIterator[tuple[Server, Notebook]]:
        place = path.relative_to(self._root).as_posix()
        yield server, ServerNotebook(server.client.contents, place, place, warn=journal.warn)

    def close(self) -> None:
        """End the server and its kernels."""
        if self._serving is not None and self._open.done() and self._open.exception() is None:
            loop, _, ended = self._open.result()
            loop.call_soon_threadsafe(ended.set)
            self._serving.result()
        self._thread.shutdown()
