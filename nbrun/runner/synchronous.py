"""Runs for callers that cannot await: a coroutine to its end, or a server in a thread.

The work has an event loop of its own, and the caller waits: a test session, synchronous code, a notebook whose event
loop is running. If the wait is interrupted, the run is stopped and saves its results.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Self, TypeVar

from nbrun.errors import ExitCode
from nbrun.runner.stop import StopSwitch

S = TypeVar("S")
T = TypeVar("T")
NOT_OPEN = "the server is not open; use it inside its `with` or `async with` block"
_STOP_LIMIT = 60.0
"""Seconds for an interrupted run to save and to end."""


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result; in a separate thread if an event loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _run_in_thread(work)


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run in a thread. An exception in the waiting thread, such as Ctrl-C, cancels the run, which then saves."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def begin() -> T:
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


class ServerThread(Generic[S]):
    """The server of `open_server` in a thread, from :meth:`start` to :meth:`close`, or within a ``with`` block."""

    def __init__(self, open_server: Callable[[], AbstractAsyncContextManager[S]]) -> None:
        self._open_server = open_server
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbrun server")
        self._begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
        self._open: Future[tuple[asyncio.AbstractEventLoop, S, asyncio.Event]] = Future()
        self._serving: Future[None] | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Open the server and wait until it answers; raises the error of opening it."""
        self._serving = self._thread.submit(asyncio.run, self._serve())
        try:
            self._open.result()
        except BaseException:  # also Ctrl-C while the server is starting
            if not self._open.done():
                loop, task = self._begun.result()
                loop.call_soon_threadsafe(task.cancel)
                self._serving.result()
            self.close()
            raise

    async def _serve(self) -> None:
        ended, task = asyncio.Event(), asyncio.current_task()
        assert task is not None
        self._begun.set_result((asyncio.get_running_loop(), task))
        try:
            async with self._open_server() as server:
                self._open.set_result((asyncio.get_running_loop(), server, ended))
                await ended.wait()
        except BaseException as error:
            if not self._open.done():
                self._open.set_exception(error)
                return
            raise

    def run(self, work: Callable[[S], Coroutine[Any, Any, T]], stop: StopSwitch) -> T:
        """Return the result of `work` with the server; several threads may call this at the same time.

        Ctrl-C pulls `stop` and is raised again after `work` has ended.
        """
        loop, server, _ = self._open.result()
        if self._is_closed:
            raise RuntimeError(NOT_OPEN)
        running = asyncio.run_coroutine_threadsafe(work(server), loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(stop.pull, "interrupted by Ctrl-C", ExitCode.INTERRUPTED)
            with contextlib.suppress(Exception):
                running.result(_STOP_LIMIT)
            raise

    def close(self) -> None:
        """Close the server. A private server and its kernels end."""
        self._is_closed = True
        if self._serving is not None and self._open.done() and self._open.exception() is None:
            loop, _, ended = self._open.result()
            loop.call_soon_threadsafe(ended.set)
            self._serving.result()
        self._thread.shutdown()
