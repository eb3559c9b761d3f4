"""The agent in the user's kernel: replay of lost messages, run lists, drain.

nbrun adds it to an ipykernel for the length of a run. The sources of its modules (:data:`nbrun.kernel_side.AGENT`) are
sent in one silent request before the first cell; the kernels of a private server load the files. It leaves no name in
the user's namespace, no execution count and no history. It adds request types to the kernel. The reply to
``nbrun_hello_request`` lists what it can do in this kernel. An error in the agent never reaches a cell.

===========  ==========================================================================================================
ability      what the kernel can do with it
===========  ==========================================================================================================
replay       send output and replies again, by their numbers (``nbrun_resend_request``)
conditional  execute a cell only if the cell before it passed (``nbrun_execute_request``, ``nbrun_recall_request``)
once         report whether a request was started, and refuse it from then on (``nbrun_recall_request``)
list         execute the cells of one request in their order (``nbrun_execute_list_request``)
progress     record the cell that was started last in memory that outlives the kernel and the server; let a cell wait
             for the client of that memory, which records what it has received
unsent       report the message numbers that it used without sending a message
writers      report whether anything can still write after the last cell has ended (``nbrun_drain_request``)
traceback    forget the last traceback before each cell
quick        send output with fewer wake-ups of the thread of the socket; let a cell wait for that thread
lift_limits  queue any number of messages while a server is busy
quiet        write nothing to the server's log of what reaches the kernel's file descriptors
freeze       leave the objects of the kernel itself out of garbage collection
===========  ==========================================================================================================

These files must run on Python 3.8, the oldest Python that a supported ipykernel runs on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

from .background_tasks import unread_streams, writers
from .backlog import Backlog, Progress
from .execution import ConditionalExecution
from .output import QuickOutput, UnsentNumbers, be_quiet
from .replay import ReplayBuffer

# Undocumented names of ipykernel that the agent uses, here and in its other modules, tested with ipykernel 6.29, 6.31,
# 7.0 and 7.4. Names without an underscore: IPythonKernel.shell_handlers, control_handlers, session, iopub_thread,
# finish_metadata, execute_request, set_parent, pre_handler_hook, post_handler_hook, eventloop, comm_manager.comms,
# control_thread, shell_stream, shell_channel_thread.manager; IOPubThread.schedule, send_multipart, socket, thread,
# io_loop; OutStream.watch_fd_thread, pub_thread, echo.
TRACEBACK = ("_last_traceback", "_last_traceback_during_displayhook")
"""ZMQInteractiveShell: the traceback in a reply for an error that has none of its own."""
SEND_HIGH_WATER_MARK = 23
"""ZMQ_SNDHWM. libzmq applies it to existing connections."""
_WITHOUT_STATUS = ("nbrun_resend_request", "nbrun_recall_request", "nbrun_execute_list_request")
"""Requests without a status of their own.

Some are answered while a cell runs, and a server mistakes any idle for the end of the cell. In a list each cell has
its own status.
"""
_OF_CELLS = ("display_data", "update_display_data", "execute_result", "comm_open", "comm_msg", "comm_close")
"""Messages that wait while the backlog is large. An error or a status does not, so that a cell ends."""


def install(kernel: Any, options: Mapping[str, Any]) -> Agent:
    """Add the agent to a kernel. If the kernel already has one, only the options are applied."""
    present = getattr(kernel.shell_handlers.get("nbrun_hello_request"), "__self__", None)
    agent: Agent = Agent(kernel) if present is None else present
    agent.apply(options)
    return agent


class Agent:
    """The agent of one kernel. Parts that this kernel does not support are missing."""

    def __init__(self, kernel: Any) -> None:
        self.abilities: list[str] = []
        self.missing: dict[str, str] = {}
        """Why this kernel does not have the other abilities."""
        self.unsent: UnsentNumbers | None = None
        self.replay: ReplayBuffer | None = None
        self.conditional: ConditionalExecution | None = None
        self.backlog = Backlog(kernel)
        self._kernel = kernel
        self._session_send = kernel.session.send
        kernel.session.send = self._send
        self._offer("unsent", self._remember_unsent)
        self._offer("conditional", self._execute_on_conditions)
        self._offer("once", self._execute_once)
        self._offer("list", lambda: self._on_conditions().offer_lists())
        self._offer("traceback", self._forget_tracebacks)
        self._offer("quick", lambda: QuickOutput(kernel.iopub_thread, self.backlog))
        self._offer("writers", lambda: kernel.shell_handlers.update(nbrun_drain_request=self._drain))
        kernel.shell_handlers["nbrun_hello_request"] = self._hello

    def apply(self, options: Mapping[str, Any]) -> None:
        """Enable the options of a client: ``replay`` (bytes), ``lift_limits``, ``quiet``, ``freeze``, ``progress``."""
        if options.get("replay") and self.replay is None:
            self._offer("replay", lambda: self._keep_output(int(options["replay"])))
        if options.get("lift_limits"):
            self._offer("lift_limits", self._lift_limits)
        if options.get("quiet"):
            self._offer("quiet", be_quiet)
        if options.get("freeze"):
            # Python collects garbage several times at its end, which takes a quarter of the time of a short kernel.
            self._offer("freeze", gc.freeze)
        if options.get("progress"):
            self._offer("progress", lambda: self._share_progress(**options["progress"]))

    def _offer(self, ability: str, prepare: Callable[[], object]) -> None:
        try:
            prepare()
        except Exception as error:
            self.missing[ability] = repr(error)
        else:
            self.abilities = [*self.abilities, ability] if ability not in self.abilities else self.abilities

    def _remember_unsent(self) -> None:
        self.unsent = UnsentNumbers(self._kernel.session)

    def _execute_on_conditions(self) -> None:
        self.conditional = ConditionalExecution(self._kernel)

    def _execute_once(self) -> None:
        self._kernel.shell_handlers["execute_request"] = self._on_conditions().execute_plain

    def _share_progress(self, path: str, name: str) -> None:
        self._on_conditions().progress = self.backlog.progress = Progress(path, name)

    def _on_conditions(self) -> ConditionalExecution:
        if self.conditional is None:
            raise NotImplementedError("no conditional execution")
        return self.conditional

    def _keep_output(self, room: int) -> None:
        self.replay = ReplayBuffer(self._kernel, room)
        if self.conditional is not None:
            self.conditional.replay = self.replay

    def _forget_tracebacks(self) -> None:
        """Forget the last traceback before each cell.

        For a cell with ``await``, ipykernel keeps the traceback of an earlier cell. It would report an ExceptionGroup
        with it, could report a passed cell as failed, and would send no reply at all in the first cell.
        """
        shell = self._kernel.shell

        def forget() -> None:
            for name in TRACEBACK:
                setattr(shell, name, None)

        shell.events.register("pre_execute", forget)

    def _lift_limits(self) -> None:
        iopub = self._kernel.iopub_thread
        iopub.schedule(lambda: iopub.socket.setsockopt(SEND_HIGH_WATER_MARK, 0))

    # Messages ------------------------------------------------------------------------------------------------------

    def _send(self, stream: Any, msg_or_type: Any, *args: Any, **kwargs: Any) -> Any:
        if msg_or_type == "status" and is_without_status(kwargs.get("parent")):
            return None
        if self.backlog.is_large:
            kind = msg_or_type["header"]["msg_type"] if isinstance(msg_or_type, dict) else msg_or_type
            if kind in _OF_CELLS:
                self.backlog.wait()
        sent = self._session_send(stream, msg_or_type, *args, **kwargs)
        if self.replay is not None and isinstance(msg_or_type, str) and msg_or_type.endswith("_reply"):
            try:
                self.replay.keep_reply(sent)
            except Exception:  # a message that cannot be stored was sent all the same
                return sent
        return sent

    def _reply(self, stream: Any, ident: Any, parent: Any, content: dict[str, Any]) -> None:
        kind = parent["header"]["msg_type"].replace("_request", "_reply")
        self._kernel.session.send(stream, kind, {"status": "ok", **content}, parent, ident=ident)

    def _hello(self, stream: Any, ident: Any, parent: Any) -> None:
        self.apply(parent["content"])
        self._reply(stream, ident, parent, {"abilities": self.abilities, "missing": self.missing})

    def _drain(self, stream: Any, ident: Any, parent: Any) -> None:
        """Reply whether anything can still write, and which numbers were not sent."""
        answer: dict[str, Any] = {"writers": True, "unsent": []}
        try:
            numbers = [] if self.unsent is None else [*self.unsent.numbers]
            answer["unsent"] = [
                number for number in numbers if any(first <= number <= last for first, last in parent["content"]["of"])
            ]
            answer["writers"] = any(True for _ in writers()) or any(True for _ in unread_streams())
        except Exception as error:  # unknown, so something may still write
            answer["error"] = repr(error)
        self._reply(stream, ident, parent, answer)


def is_without_status(parent: Any) -> bool:
    """Return whether no status is published for a request."""
    return isinstance(parent, dict) and parent.get("header", {}).get("msg_type") in _WITHOUT_STATUS
