"""Execute cells on conditions, and lists of cells.

This file runs in the kernel, see :mod:`nbrun.kernel_side.agent`.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .background_tasks import has_unread_streams, writing_tasks, writing_threads
from .backlog import Progress
from .output import Senders, flush, hand_over
from .replay import ReplayBuffer

PUBLISH_STATUS = "_publish_status"
"""Kernel: publishes the status of the channel's parent."""
EXECUTE_SLEEP = "_execute_sleep"
"""Kernel: seconds to wait before each reply, so that output is sent first."""
HISTORY_CACHE = "db_cache_size"
"""HistoryManager: the number of cells from which on its thread writes them; ``save_flag`` lets it write at once."""
SHELL_SOCKET = "_shell_socket"
"""SubshellManager of ipykernel 7.0 to 7.3: the socket on which replies are sent."""
POLLOUT = 2
"""zmq.POLLOUT."""
UNREAD_STEPS = 40
"""Maximum checks, every half millisecond, whether the kernel has read what was written to its file descriptors."""
TURNS = 3
"""Iterations of the event loop between two cells of a list."""
PAUSE = 0.005
"""Seconds between two cells of a list while the user's tasks or threads run, about as long as between two requests."""
WRITE_HISTORY_EVERY = 1.0
"""Seconds between two writes of IPython's history during a list."""


class ConditionalExecution:
    """Execute requests with a condition, so that cells can be sent ahead.

    After an error, ipykernel discards the requests that are *queued at that moment*, but it executes those that arrive
    later. So a cell that is sent before the reply of the previous one carries its condition::

        execute A            runs
        execute B, after A   runs if A has passed; otherwise the reply is "aborted", at once, and nothing was executed
        execute C, after B   ...
        recall B             nothing behind B starts any more; the reply says whether B runs, has ended or is unknown;
                             if it is unknown, it does not start any more either, however late it arrives
        close the progress   nothing starts any more; this works without a connection to the kernel

    A cell has *passed* if the reply was ``ok``, the cell did not call ``exit()``, it was not recalled, and no comm is
    open. (An Output widget needs its contents before the next cell runs.) A recall arrives on the control channel,
    before the queue.

    One request may carry a *list* of such cells, which saves most of ipykernel's work for a request.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._running: str | None = None
        self._passed: str | None = None
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._recalled: set[str] = set()
        self.progress: Progress | None = None
        self.replay: ReplayBuffer | None = None
        self._senders = Senders()
        self._history = History(kernel.shell)
        self._finish_metadata = kernel.finish_metadata
        # Raise an error here if something is missing.
        kernel.comm_manager.comms, kernel.iopub_thread.schedule, kernel.execute_request  # noqa: B018
        read_all_requests(kernel)
        kernel.shell_handlers["nbrun_execute_request"] = self.execute
        kernel.control_handlers["nbrun_recall_request"] = self.recall
        kernel.finish_metadata = self._finish

    async def execute(self, stream: Any, ident: Any, parent: Any) -> None:
        """Execute a cell, or reply that it was aborted."""
        if parent["metadata"].get("nbrun_after") is not None:
            # A crash in the first line of this cell would lose the output of the previous cell.
            self._let_go()
            await self._wait_for_client()
        await self._execute(stream, ident, parent)

    async def _execute(self, stream: Any, ident: Any, parent: Any) -> bool:
        """Execute a cell if its condition holds; return whether it did."""
        own, after = parent["header"]["msg_id"], parent["metadata"].get("nbrun_after")
        # First mark the request as started, then check for a recall. A recall, in another thread, does the reverse, so
        # at least one of the two sees the other.
        self._begun.add(own)
        if (
            own in self._recalled
            or after in self._recalled
            or (after is not None and after != self._passed)
            or not (self.progress is None or self.progress.start(own))
        ):
            self._refuse(stream, ident, parent)
            return False
        self._running, self._passed = own, None
        parent["header"]["msg_type"] = parent["msg_type"] = "execute_request"
        try:
            await self._kernel.execute_request(stream, ident, parent)
        finally:
            self._running = None
            self._ended.add(own)
        return True

    def _let_go(self) -> None:
        """Let the kernel's other threads send all messages so far."""
        hand_over(self._kernel.iopub_thread)
        self._senders.wait()

    async def _wait_for_client(self) -> None:
        """Wait until a client has received the output so far, or as much of it that no other output is dropped."""
        while self.replay is not None and self.replay.is_behind:  # noqa: ASYNC110  (other threads change it)
            await asyncio.sleep(PAUSE)

    # Lists ---------------------------------------------------------------------------------------------------------

    def offer_lists(self) -> None:
        """Accept lists of cells; raise :class:`AttributeError` if this kernel lacks what they need."""
        kernel = self._kernel
        getattr(kernel, PUBLISH_STATUS), kernel.set_parent, kernel.eventloop
        kernel.pre_handler_hook, kernel.post_handler_hook  # noqa: B018
        kernel.shell_handlers["nbrun_execute_list_request"] = self.execute_list

    async def execute_list(self, stream: Any, ident: Any, parent: Any) -> None:
        """Execute the cells of a list, each as ipykernel executes a request of its own.

        The list ends with the first cell whose condition does not hold. After ``limit`` seconds no other cell starts,
        so that the kernel handles requests of other clients. No other cell starts either after a cell that selects the
        event loop of a user interface (``%gui``), because that loop runs between two requests.
        """
        limit = parent["content"].get("limit")
        until = None if limit is None else time.monotonic() + limit
        # Between two cells an interrupt is ignored, as it is between two requests.
        self._kernel.post_handler_hook()
        self._let_go()
        pause = getattr(self._kernel, EXECUTE_SLEEP, None)
        setattr(self._kernel, EXECUTE_SLEEP, 0.0)  # the output is sent before the next cell starts
        try:
            with self._history.written_less_often():
                await self._execute_each(stream, ident, parent, until)
        finally:
            setattr(self._kernel, EXECUTE_SLEEP, pause)
        # ipykernel itself ends the last cell, as its parent is still that cell.

    async def _execute_each(self, stream: Any, ident: Any, parent: Any, until: float | None) -> None:
        for place, cell in enumerate(parent["content"]["cells"]):
            if place:
                await self._end_cell(stream)
                if (until is not None and time.monotonic() > until) or self._kernel.eventloop is not None:
                    self._passed = None
            header = {"date": parent["header"].get("date"), **cell["header"]}
            of_cell = {"msg_id": header["msg_id"], "msg_type": header["msg_type"], "parent_header": {}, "buffers": []}
            request = {**cell, **of_cell, "header": header}
            self._kernel.set_parent(ident, request)
            getattr(self._kernel, PUBLISH_STATUS)("busy", "shell")
            try:
                self._kernel.pre_handler_hook()
                if not await self._execute(stream, ident, request):
                    break
            except (Exception, KeyboardInterrupt):
                # As ipykernel does around each request.
                self._passed = None
                self._kernel.log.exception("Exception in the execution of a cell")
            finally:
                self._kernel.post_handler_hook()

    async def _end_cell(self, stream: Any) -> None:
        """Do what ipykernel does at the end of a request, and let tasks and threads run."""
        kernel = self._kernel
        flush()
        getattr(kernel, PUBLISH_STATUS)("idle", "shell")
        self._history.end_cell()
        if hasattr(stream, "flush"):
            stream.flush(POLLOUT)  # the reply
        self._let_go()
        if has_unread_streams():
            # Another thread is about to send it, with the current cell as its parent.
            for _ in range(UNREAD_STEPS):
                time.sleep(0.0005)
                if not has_unread_streams():
                    break
            time.sleep(0.0005)
            flush()
        if kernel.eventloop is None:  # the loop of a user interface returns only at the next request
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if any(True for _ in writing_threads()) or any(True for _ in writing_tasks()):
                await asyncio.sleep(PAUSE)
        await self._wait_for_client()

    async def execute_plain(self, stream: Any, ident: Any, parent: Any) -> None:
        """Execute a request without condition, of any client, unless it was recalled."""
        own = parent["header"]["msg_id"]
        self._begun.add(own)
        if own in self._recalled:
            self._refuse(stream, ident, parent)
            return
        try:
            await self._kernel.execute_request(stream, ident, parent)
        finally:
            self._ended.add(own)

    def _refuse(self, stream: Any, ident: Any, parent: Any) -> None:
        self._begun.discard(parent["header"]["msg_id"])
        self._kernel.session.send(stream, "execute_reply", {"status": "aborted"}, parent, ident=ident)

    def _finish(self, parent: Any, metadata: Any, content: Any) -> Any:
        own = parent["header"]["msg_id"]
        if own in self._begun:
            self._ended.add(own)  # before the reply, which a client may answer with a recall
        if self._running == own and content["status"] == "ok":
            exits = any(payload.get("source") == "ask_exit" for payload in content.get("payload") or ())
            self._passed = None if exits or self._kernel.comm_manager.comms else self._running
        return self._finish_metadata(parent, metadata, content)

    def recall(self, stream: Any, ident: Any, parent: Any) -> None:
        """Refuse the cells that were sent behind a request, and reply with the state of the request itself."""
        request = parent["content"]["request"]
        self._recalled.add(request)
        state = "ended" if request in self._ended else "running" if request in self._begun else "unknown"
        self._kernel.session.send(stream, "nbrun_recall_reply", {"status": "ok", "state": state}, parent, ident=ident)


def read_all_requests(kernel: Any) -> None:
    """Let the kernel send its replies through the stream that reads the requests.

    ipykernel 7.0 to 7.3 sends them on the stream's socket. A request that arrives meanwhile is not read until another
    client connects, see https://github.com/ipython/ipykernel/pull/1529.
    """
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is not None and hasattr(thread.manager, SHELL_SOCKET):
        setattr(thread.manager, SHELL_SOCKET, kernel.shell_stream)


class History:
    """IPython's history on disk: during a list it is written once a second instead of after each cell.

    IPython's thread holds a lock while it writes, and the next cell waits for this lock.
    """

    def __init__(self, shell: Any) -> None:
        self._manager = getattr(shell, "history_manager", None)
        self._written_at = -math.inf

    @contextmanager
    def written_less_often(self) -> Iterator[None]:
        """Let IPython write the history only when it is asked to, within the block and at its end."""
        size = getattr(self._manager, HISTORY_CACHE, None)
        if size is not None:
            setattr(self._manager, HISTORY_CACHE, sys.maxsize)
        try:
            yield
        finally:
            if size is not None:
                setattr(self._manager, HISTORY_CACHE, size)
                self._write()

    def end_cell(self) -> None:
        """Write the cells so far if the last time was a second ago."""
        if time.monotonic() > self._written_at + WRITE_HISTORY_EVERY:
            self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        flag = getattr(self._manager, "save_flag", None)
        if flag is not None:
            flag.set()
