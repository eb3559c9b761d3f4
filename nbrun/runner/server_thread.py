"""A server in a thread for callers without an event loop; it runs one notebook at a time.

The server and the runs live in a thread with its own event loop, and the caller waits. If the wait is interrupted, the
run is stopped and saves its results.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Self

from nbrun.core.events import Journal, Observer
from nbrun.core.planning.job import Job
from nbrun.core.results import NotebookResult
from nbrun.errors import ExitCode
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.job import NotebookPaths
from nbrun.runner.run import run_notebook
from nbrun.runner.servers import Host
from nbrun.runner.stop import StopSwitch
from nbrun.storage.base import Notebook

_STOP_LIMIT = 60.0
"""Seconds for an interrupted run to save and to end."""


class NotebookServer:
    """The server of `open_host` in a thread, from :meth:`start` to :meth:`close`, or within a ``with`` block."""

    def __init__(self, open_host: Callable[[], AbstractAsyncContextManager[Host]]) -> None:
        self._open_host = open_host
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbrun server")
        self._open: Future[tuple[asyncio.AbstractEventLoop, Host, asyncio.Event]] = Future()
        self._serving: Future[None] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Open the server and wait until it answers; raises the error of opening it."""
        self._serving = self._thread.submit(asyncio.run, self._serve())
        self._open.result()

    async def _serve(self) -> None:
        ended = asyncio.Event()
        try:
            async with self._open_host() as host:
                self._open.set_result((asyncio.get_running_loop(), host, ended))
                await ended.wait()
        except BaseException as error:
            if not self._open.done():
                self._open.set_exception(error)
                return
            raise

    def run(self, job: Job, paths: NotebookPaths, *, observe: Observer) -> NotebookResult:
        """Run the notebook at `paths`, one of those of this server; raises :class:`NbrunError` like a run."""
        loop, host, _ = self._open.result()
        stop = StopSwitch()
        journal = Journal(job.notebook, observe)
        opening = self._notebook(host, paths, journal)
        running = asyncio.run_coroutine_threadsafe(run_notebook(job, opening, journal=journal, stop=stop), loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(stop.pull, "interrupted by Ctrl-C", ExitCode.INTERRUPTED)
            with contextlib.suppress(Exception):
                running.result(_STOP_LIMIT)
            raise

    @contextlib.asynccontextmanager
    async def _notebook(
        self, host: Host, paths: NotebookPaths, journal: Journal
    ) -> AsyncIterator[tuple[Server, Notebook]]:
        yield host.server, host.notebook(paths, journal.warn)

    def close(self) -> None:
        """Close the server. A private server and its kernels end."""
        if self._serving is not None and self._open.done() and self._open.exception() is None:
            loop, _, ended = self._open.result()
            loop.call_soon_threadsafe(ended.set)
            self._serving.result()
        self._thread.shutdown()
