"""Run a coroutine from synchronous code, also where an event loop is already running."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


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
