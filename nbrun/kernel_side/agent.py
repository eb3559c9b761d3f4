"""The agent in the user's kernel: replay of lost messages, run lists, drain.

nbrun adds it to an ipykernel for the length of a run. Its source is sent in one silent request before the first cell;
the kernels of a private server load this file. It leaves no name in the user's namespace, no execution count and no
history. It adds request types to the kernel. The reply to ``nbrun_hello_request`` lists what it can do in this kernel.
An error in the agent never reaches a cell.

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

This file must run on Python 3.8, the oldest Python that a supported ipykernel runs on.
"""

from __future__ import annotations

import asyncio
import gc
import math
import mmap
import os
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Undocumented names of ipykernel that are used, tested with ipykernel 6.29, 6.31, 7.0 and 7.4. Names without an
# underscore: IPythonKernel.shell_handlers, control_handlers, session, iopub_thread, finish_metadata, execute_request,
# set_parent, pre_handler_hook, post_handler_hook, eventloop, comm_manager.comms, control_thread; IOPubThread.schedule,
# send_multipart, socket, thread, io_loop; OutStream.watch_fd_thread, pub_thread, echo.
PUBLISH_STATUS = "_publish_status"
"""Kernel: publishes the status of the channel's parent."""
REALLY_SEND = "_really_send"
"""IOPubThread: sends a message, in the thread of the socket."""
TRACEBACK = ("_last_traceback", "_last_traceback_during_displayhook")
"""ZMQInteractiveShell: the traceback in a reply for an error that has none of its own."""
STREAM_COPY = "_original_stdstream_copy"
"""OutStream: the file descriptor to which it copies standard output or standard error."""
FLUSH_PENDING = "_flush_pending"
"""OutStream: whether anything was written since the last flush."""
REALLY_FLUSH = "_flush"
"""OutStream: creates the messages of what was written, in the thread of the socket."""
EXECUTE_SLEEP = "_execute_sleep"
"""Kernel: seconds to wait before each reply, so that output is sent first."""
# And of IPython:
HISTORY_CACHE = "db_cache_size"
"""HistoryManager: the number of cells from which on its thread writes them; ``save_flag`` lets it write at once."""
# And of Python:
SCHEDULED = "_scheduled"
"""BaseEventLoop: the timers."""
TARGET = "_target"
"""Thread: the function that it runs."""

ROOM_FOR_UNSENT = 10_000
"""Maximum remembered numbers without a message; the newest are kept."""
PORTION = 4_000_000
"""Maximum bytes of one answer with messages that are sent again, unless a single message is larger."""
TIMES_WHILE_ASKED = 8
"""How many times as much output is stored while a client asks for it; a kernel can be seconds ahead of the client."""
ASKED_FOR = 30.0
"""Seconds after a request in which a message that the client does not have yet counts as asked for."""
WAIT_FOR_CLIENT = 5.0
"""Maximum seconds without a request that a cell waits until the client has the output before it."""
FEW = 10
"""A client that receives more new messages than this in one answer asks again (``nbrun.core.delivery``)."""
REPLIES = 300
"""Maximum stored replies, more than cells can be ahead; the agent's own are stored without messages."""
SEND_HIGH_WATER_MARK = 23
"""ZMQ_SNDHWM. libzmq applies it to existing connections."""
POLLOUT = 2
"""zmq.POLLOUT."""
THREADS = "/proc/self/task"
"""The threads of this process, with their names and states, see proc(5)."""
SENDER = b"ZMQbg/IO"
"""The beginning of the names of ZeroMQ's threads for input and output."""
SENDER_STEPS = 40
"""Maximum checks, about every tenth of a millisecond, whether these threads sleep."""
UNREAD_STEPS = 40
"""Maximum checks, every half millisecond, whether the kernel has read what was written to its file descriptors."""
MOST_EVENTS = 1000
"""Maximum events that the thread of the socket handles before its loop continues."""
BACKLOG = 16_000_000
"""Bytes of output on their way to the client from which on a cell waits."""
MARK = 250_000
"""Bytes of output from one message whose number is remembered to the next."""
LARGEST_UNSENT = 4_000_000
"""Characters of text, or bytes of messages, after which a cell waits until the thread of the socket has sent them."""
SEND_LIMIT = 10.0
"""Maximum seconds of that wait, as of ipykernel's flush."""
PATIENCE = 60.0
"""Seconds without anything received after which a cell no longer waits; the next time it waits twice as long."""
TURNS = 3
"""Iterations of the event loop between two cells of a list."""
PAUSE = 0.005
"""Seconds between two cells of a list while the user's tasks or threads run, about as long as between two requests."""
WRITE_HISTORY_EVERY = 1.0
"""Seconds between two writes of IPython's history during a list."""
PROGRESS_CLOSED, PROGRESS_READY, PROGRESS_RECEIVED, PROGRESS_ID, PROGRESS_SIZE = 0, 1, 8, 16, 144
"""Shared memory of the progress: two flags, a number of 8 bytes, the id of a request in ASCII, and the end."""
FORGET_LIMIT = 1.0
"""Seconds to wait until the sockets have sent everything."""

_WITHOUT_STATUS = ("nbrun_resend_request", "nbrun_recall_request", "nbrun_execute_list_request")
"""Requests without a status of their own.

Some are answered while a cell runs, and a server mistakes any idle for the end of the cell. In a list each cell has
its own status.
"""
_OF_CELLS = ("display_data", "update_display_data", "execute_result", "comm_open", "comm_msg", "comm_close")
"""Messages that wait while the backlog is large. An error or a status does not, so that a cell ends."""
_DELIMITER = b"<IDS|MSG>"
_PARTS = (b'{"header":', b',"parent_header":', b',"metadata":', b',"content":')
_OF_THE_KERNEL = ("ipykernel", "IPython", "tornado", "zmq")


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


def hand_over(iopub: Any, limit: float | None = None) -> bool:
    """Wait until the sockets have sent all messages so far; return whether they have."""
    taken = threading.Event()
    iopub.schedule(taken.set)
    return taken.wait(FORGET_LIMIT if limit is None else limit)


def flush() -> None:
    """Flush standard output and standard error; each flush waits for the thread of the socket, so only if needed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and getattr(stream, FLUSH_PENDING, True):
            stream.flush()


class Senders:
    """The threads of ZeroMQ, which write the messages of all sockets to their connections.

    ZeroMQ does not say when a message is written. But Linux shows whether a thread sleeps. Then it has nothing left to
    write, or the client does not keep up: a message wakes it before the call that sends the message returns.
    """

    def __init__(self) -> None:
        self._states: list[int] = []
        try:
            for thread in os.listdir(THREADS):
                with open(f"{THREADS}/{thread}/comm", "rb") as name:
                    if name.read().startswith(SENDER):
                        self._states.append(os.open(f"{THREADS}/{thread}/stat", os.O_RDONLY))
        except OSError:  # another system than Linux, or a thread that has just ended
            return

    def wait(self) -> None:
        """Wait, for a few milliseconds at most, until they sleep; where this is unknown, for half a millisecond."""
        for _ in range(SENDER_STEPS):
            try:
                states = [os.pread(state, 64, 0).partition(b") ") for state in self._states]
            except OSError:  # the user has closed all files
                states = []
            if not states or not all(SENDER in name for name, _, _ in states):
                time.sleep(0.0005)
                return
            if all(state.startswith(b"S") for _, _, state in states):
                return
            time.sleep(0.00005)


class QuickOutput:
    """Hand output to the thread of the socket with fewer wake-ups.

    ipykernel wakes this thread with a ZeroMQ message for each output and each flush, and the thread reads them one by
    one. Here it is woken once for everything that waits. Events keep their order.

    A flush waits for that thread, and ipykernel flushes both streams before each display and at the end of each cell.
    Here a stream is not flushed if nothing was written to it.
    """

    def __init__(self, iopub: Any, backlog: Backlog) -> None:
        self._iopub = iopub
        self._backlog = backlog
        self._events: deque[Callable[[], object]] = deque()
        self._unsent = 0
        """About the bytes of messages since a thread has last waited until they were sent."""
        self._sent = self._seen = 0
        """The number of the last wake-up, and of the last one that the thread has seen."""
        # Raise an error here if something is missing.
        iopub.thread.is_alive, iopub.io_loop.add_callback, getattr(iopub, REALLY_SEND)
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "pub_thread", None) is iopub and getattr(stream, "echo", None) is None:
                skip_empty_flushes(stream)
                wait_before_writes(stream, backlog)
        iopub.schedule, iopub.send_multipart = self.schedule, self.send_multipart

    def send_multipart(self, message: list[Any], *args: Any, **kwargs: Any) -> None:
        """Send a message in the thread of the socket; send it here if that thread has ended, as in a forked child."""
        thread, send = self._iopub.thread, getattr(self._iopub, REALLY_SEND)
        if not thread.is_alive():
            send(message, *args, **kwargs)
            return

        def send_and_count() -> None:
            send(message, *args, **kwargs)
            self._backlog.count(message, size)

        size = size_of(message)
        self.schedule(send_and_count)
        if threading.current_thread() is not thread:
            self._unsent += size
            if self._unsent > LARGEST_UNSENT:
                self._unsent = 0
                hand_over(self._iopub, SEND_LIMIT)

    def schedule(self, event: Callable[[], object]) -> None:
        """Let the thread of the socket call `event`; call it here if that thread has ended."""
        if not self._iopub.thread.is_alive():
            event()
            return
        self._events.append(event)
        if self._sent <= self._seen:
            number = self._seen + 1
            self._iopub.io_loop.add_callback(self._run, number)
            self._sent = number  # afterwards, because an interrupt of the cell may come between the two

    def _run(self, number: int) -> None:
        self._seen = max(self._seen, number)  # first, so that an event that is not seen below wakes the thread again
        try:
            for _ in range(MOST_EVENTS):
                if not self._events:
                    break
                self._events.popleft()()
        finally:
            if self._events:
                self._iopub.io_loop.add_callback(self._run, number)


def skip_empty_flushes(stream: Any) -> None:
    """Let a flush of a stream return at once if everything that was written has been handed over."""
    flush, really_flush = stream.flush, getattr(stream, REALLY_FLUSH)
    getattr(stream, FLUSH_PENDING)
    is_flushing = False

    def note_and_flush() -> None:
        nonlocal is_flushing
        is_flushing = True  # before the stream forgets that anything was written
        try:
            really_flush()
        finally:
            is_flushing = False

    def flush_if_needed() -> None:
        if getattr(stream, FLUSH_PENDING) or is_flushing:
            flush()

    setattr(stream, REALLY_FLUSH, note_and_flush)
    stream.flush = flush_if_needed


def size_of(message: list[Any]) -> int:
    """Return the size of a message in bytes."""
    return sum([part.nbytes if isinstance(part, memoryview) else len(part) for part in message])


class Backlog:
    """The output that the client has not received yet; while it is large, the code of a cell waits before each output.

    Without this, a cell that writes faster than the client reads fills the memory of kernel and server, because no
    queue between the two has a limit. A client on the same machine reports the number of the last output that it has
    received, in the memory of the progress. Of any other client, all output that was sent counts as received.

    The thread of the socket counts, and there is no lock: a signal handler of the user may write at any time.
    """

    def __init__(self, kernel: Any) -> None:
        self.is_large = False
        self.progress: Progress | None = None
        self._kernel = kernel
        self._number = number_in_header(kernel.session)
        self._sent = self._received = 0
        """Bytes so far."""
        self._marks: deque[tuple[int, int]] = deque()
        """Numbers of sent messages, and the bytes that were sent up to each."""
        self._limit, self._patience = BACKLOG, PATIENCE

    def count(self, message: list[Any], size: int) -> None:
        """Count a message that was sent."""
        self._sent += size
        if self._sent > MARK + (self._marks[-1][1] if self._marks else self._received) and _DELIMITER in message:
            found = self._number.search(message[message.index(_DELIMITER) + 2])
            if found is not None:
                self._marks.append((int(found[1]), self._sent))
        if self._sent - self._received > self._limit:
            self._check()

    def _check(self) -> None:
        number = 0 if self.progress is None else self.progress.received
        while self._marks and (number == 0 or self._marks[0][0] <= number):
            self._received = self._marks.popleft()[1]
        if number == 0:
            self._received = self._sent
        if self._sent - self._received <= BACKLOG:
            self._limit, self._patience = BACKLOG, PATIENCE
        self.is_large = self._sent - self._received > self._limit

    def _allow_more(self) -> None:
        self._limit, self._patience = self._sent - self._received + BACKLOG, 2 * self._patience
        self.is_large = False

    def wait(self) -> None:
        """Wait until the client has received enough, except in the threads of the sockets.

        If the wait is interrupted, or if the client receives nothing, as much output again may follow.
        """
        iopub, control = self._kernel.iopub_thread, getattr(self._kernel, "control_thread", None)
        if threading.current_thread() in (iopub.thread, control) or not iopub.thread.is_alive():
            return
        received, until = self._received, time.monotonic() + self._patience
        try:
            while self.is_large and time.monotonic() < until:
                iopub.schedule(self._check)
                time.sleep(PAUSE)
                if self._received != received:
                    received, until = self._received, time.monotonic() + self._patience
        finally:
            if self.is_large:
                self.is_large = False
                iopub.schedule(self._allow_more)


def wait_before_writes(stream: Any, backlog: Backlog) -> None:
    """Let each write to a stream wait while the backlog is large, and flush text that is long."""
    really_write, unsent = stream.write, 0

    def write(string: str) -> Any:
        nonlocal unsent
        if backlog.is_large:
            backlog.wait()
        written = really_write(string)
        unsent += len(string)
        if unsent > LARGEST_UNSENT:
            unsent = 0
            stream.flush()
        return written

    stream.write = write


class UnsentNumbers:
    """Numbers that ipykernel used without sending a message, so nothing is lost.

    ipykernel numbers a message before it knows whether it will send one. It sends none for a result that displays
    itself (``_ipython_display_``, as in plotly's figures), for a result without any representation, for an interrupted
    representation, and for one that a hook of the display publisher drops. A number counts as sent once its message is
    prepared for the socket. A message may be sent later than one with a higher number, for example by another thread.
    Its number is remembered until then.

    A kernel that exits on request cannot be asked any more, so its last reply contains the numbers in its metadata.
    """

    def __init__(self, session: Any) -> None:
        self.numbers: dict[int, None] = {}
        # A forked child has its own numbers, and must not take a lock that a thread held during the fork.
        self._own = f"{session.session}_{os.getpid()}"
        self._following: int = session.message_count
        self._lock = threading.RLock()
        self._serialize = session.serialize
        session.serialize = self._note_and_serialize

    def _note_and_serialize(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            self._note(message["header"]["msg_id"])
            if any(each["source"] == "ask_exit" for each in message["content"].get("payload", ())):
                message["metadata"]["nbrun_unsent"] = [*self.numbers]
        except Exception:
            return self._serialize(message, *args, **kwargs)
        return self._serialize(message, *args, **kwargs)

    def _note(self, name: str) -> None:
        process, _, digits = name.rpartition("_")
        if process != self._own:
            return
        number = int(digits)
        with self._lock:
            first, self._following = self._following, max(self._following, number + 1)
            for skipped in range(max(first, number - ROOM_FOR_UNSENT), number):
                self.numbers[skipped] = None
            self.numbers.pop(number, None)
            while len(self.numbers) > ROOM_FOR_UNSENT:
                del self.numbers[next(iter(self.numbers))]


class ReplayBuffer:
    """The messages that ipykernel has sent, to send them again by number.

    Every output message is stored by reference, in the thread that sends it, up to a number of bytes; as long as a
    client asks, up to eight times as many, and no cell that was sent ahead starts. The last replies are stored too. The
    request arrives on the control channel, which a kernel answers while it runs a cell::

        numbers [[45, 47], [60, null]]   the requested numbers; null means up to the newest, as far as one answer holds
        messages [...] until 62          the messages themselves, as text, with their buffers as the answer's own;
                                         nothing else up to 62 is available, and later numbers can be requested again
        after [44, ...]                  for each of them the number of the output message that was sent just before it:
                                         ipykernel numbers a result before it sends the text that was printed earlier
        newest 80  evicted 12            the kernel's last number, and the last number that the buffer has dropped
        others 0                         the number of messages from forked children, which have other numbers

    Only the client that asked receives the answer. So other clients receive no duplicates, and no output limit of a
    server applies.
    """

    def __init__(self, kernel: Any, room: int) -> None:
        session, iopub = kernel.session, kernel.iopub_thread
        self.portion = PORTION
        self.last_replies = REPLIES
        self._session = session
        self._iopub = iopub
        self._room = room
        self._has_until = -1
        """The client has all messages up to this number, as its last request shows."""
        self._asked_at = -math.inf
        self._asks_again = False
        self._numbered = number_in_header(session)
        self._kept: OrderedDict[int, tuple[int | None, tuple[bytes, ...]]] = OrderedDict()
        """The number that was sent just before each message, and the message."""
        self._last: int | None = None
        self._replies: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()
        self._size = self._others = 0
        self._newest = self._evicted = -1
        self._really_send = getattr(iopub, REALLY_SEND)
        iopub.schedule  # noqa: B018  (raise here where there is none)
        kernel.control_handlers["nbrun_resend_request"] = self.resend
        setattr(iopub, REALLY_SEND, self._keep_and_send)

    def _keep_and_send(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            self._keep(message)
        except Exception:  # a message that cannot be stored is sent all the same
            return self._really_send(message, *args, **kwargs)
        return self._really_send(message, *args, **kwargs)

    def _keep(self, message: Any) -> None:
        start = message.index(_DELIMITER) + 2
        found = self._numbered.search(message[start])
        if found is None:
            self._others += 1
            return
        number = int(found[1])
        parts = tuple([bytes(part) for part in message[start:]])
        self._kept[number] = self._last, parts
        self._last = number
        self._newest = max(self._newest, number)
        self._size += sum(map(len, parts)) + 300
        if self._size > self._room:
            self._drop()

    def _drop(self) -> None:
        """Drop the oldest messages, in the thread of the socket."""
        while self._size > self._room:
            oldest = next(iter(self._kept))
            is_wanted = oldest > self._has_until and time.monotonic() < self._asked_at + ASKED_FOR
            if is_wanted and self._size <= self._room * TIMES_WHILE_ASKED:
                break
            _, parts = self._kept.pop(oldest)
            self._size -= sum(map(len, parts)) + 300
            self._evicted = max(self._evicted, oldest)

    @property
    def is_behind(self) -> bool:
        """Return whether a client is about to ask for more output than is stored otherwise."""
        return self._size > self._room and self._asks_again and time.monotonic() < self._asked_at + WAIT_FOR_CLIENT

    def keep_reply(self, sent: Any) -> None:
        """Store a reply that :meth:`Session.send` returned."""
        header = sent["header"]
        number = int(header["msg_id"].rpartition("_")[2])
        content = {} if header["msg_type"] == "nbrun_resend_reply" else sent["content"]
        parts = (header, sent["parent_header"], sent["metadata"], content)
        self._replies[number] = tuple([self._session.pack(part) for part in parts])
        self._newest = max(self._newest, number)
        if len(self._replies) > self.last_replies:
            self._replies.popitem(last=False)

    def _numbers_of(self, ranges: Any, until: int) -> Iterator[int]:
        for first, last in ranges:
            last = until if last is None else min(last, until)  # noqa: PLW2901
            start = max(first, self._evicted + 1)
            yield from sorted(number for number in list(self._replies) if first <= number < start and number <= last)
            yield from range(start, last + 1)

    def resend(self, stream: Any, ident: Any, parent: Any) -> None:
        """Reply with the requested messages."""
        ranges = parent["content"]["numbers"]
        self._asked_at, self._asks_again = time.monotonic(), True
        self._has_until = min((first for first, _ in ranges), default=0) - 1
        until = end = self._newest  # first, because a reply may overtake the output of its cell meanwhile
        self._iopub.schedule(self._drop)
        if not hand_over(self._iopub):
            until = end = -1 if self._last is None else self._last
        messages: list[str] = []
        buffers: list[bytes] = []
        after: list[int | None] = []
        length = 0
        for number in self._numbers_of(ranges, end):
            previous, parts = self._kept.get(number) or (None, self._replies.get(number))
            if parts is None:
                continue
            length += sum(map(len, parts))
            if messages and length > self.portion:
                until = number - 1
                break
            messages.append(text_of("shell" if number in self._replies else "iopub", parts))
            after.append(previous)
            buffers += parts[4:]
        self._asks_again = until < end or (len(messages) > FEW and ranges[-1][1] is None)
        content = {
            "status": "ok",
            "messages": messages,
            "after": after,
            "until": until,
            "newest": end,
            "evicted": self._evicted,
            "others": self._others,
        }
        self._session.send(stream, "nbrun_resend_reply", content, parent, ident=ident, buffers=buffers)


def number_in_header(session: Any) -> re.Pattern[bytes]:
    """Return the pattern that finds the number of a message of this process in its header."""
    own = re.escape(f"{session.session}_{os.getpid()}").encode()
    return re.compile(b'"msg_id": ?"' + own + b'_([0-9]+)"')


def text_of(channel: str, parts: tuple[bytes, ...]) -> str:
    """Return a message as JSON, with only the number of its buffers."""
    joined = b"".join([each for pair in zip(_PARTS, parts) for each in pair])
    return joined.decode("utf-8", "replace") + f',"channel":"{channel}","buffers":{len(parts) - 4}}}'


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


class History:
    """IPython's history on disk: during a list it is written once a second instead of after each cell.

    IPython's thread holds a lock while it writes, and the next cell waits for this lock.
    """

    def __init__(self, shell: Any) -> None:
        self._manager = getattr(shell, "history_manager", None)
        self._written_at = -math.inf

    @contextmanager
    def written_less_often(self) -> Iterator[None]:
        """Write what is left at the end."""
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


class Progress:
    """The id of the request that the kernel started last, in memory that it shares with the client.

    The client creates the memory. It reads it after the end of the kernel or the server, when messages may be lost. It
    first closes the memory, and no request starts from then on. While it reads the kernel's output, it records how far.
    """

    def __init__(self, path: str, name: str) -> None:
        if not os.readlink(path).startswith("/memfd:" + name):
            raise ValueError("the client runs on another system")
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, PROGRESS_SIZE)
        finally:
            os.close(descriptor)
        self._memory[PROGRESS_READY] = 1

    @property
    def received(self) -> int:
        """Return the number of the last output that the client has received; 0 if it does not report it."""
        return int.from_bytes(self._memory[PROGRESS_RECEIVED:PROGRESS_ID], "little")

    def start(self, request: str) -> bool:
        """Record that a request is started; return False if it must not be."""
        # The client first closes the memory and then reads it. So at least one of the two sees what the other did.
        self._memory[PROGRESS_ID:] = request.encode().ljust(PROGRESS_SIZE - PROGRESS_ID, b"\0")
        return not self._memory[PROGRESS_CLOSED]


def be_quiet() -> None:
    """Keep ipykernel from copying what is written to its file descriptors to the server's log."""
    for stream in (sys.stdout, sys.stderr):
        copy = getattr(stream, STREAM_COPY, None)
        if copy is not None:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, copy)
            os.close(nothing)


# Writers after the last cell -----------------------------------------------------------------------------------------


def is_of_the_kernel(module: Any) -> bool:
    """Return whether a module belongs to the kernel itself."""
    return str(module).partition(".")[0] in _OF_THE_KERNEL


def writing_threads() -> Iterator[threading.Thread]:
    """Return the threads that the user started."""
    for thread in threading.enumerate():
        work = getattr(thread, TARGET, None)
        if not (
            thread is threading.main_thread()
            or is_of_the_kernel(type(thread).__module__)
            or is_of_the_kernel(getattr(work, "__module__", ""))
        ):
            yield thread


def writing_tasks() -> Iterator[object]:
    """Return the tasks and timers that the user started."""
    loop = asyncio.get_running_loop()
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is None or not is_of_the_kernel(frame.f_globals.get("__name__")):
            yield task
    yield from getattr(loop, SCHEDULED)


def writers() -> Iterator[object]:
    """Return threads, tasks, timers and child processes that may write, and processes that have the pipes open."""
    yield from writing_threads()
    yield from writing_tasks()
    for name in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{name}/children") as children:
            yield from children.read().split()
    pipes = [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in "12"]
    for process in os.listdir("/proc"):
        if process.isdecimal() and int(process) != os.getpid():
            for descriptor in "12":
                try:
                    held = os.readlink(f"/proc/{process}/fd/{descriptor}")
                except OSError:
                    continue
                if held.startswith("pipe:") and held in pipes:
                    yield process


def has_unread_streams() -> bool:
    """Return whether the kernel has not yet read everything that was written to its file descriptors."""
    try:
        return any(
            getattr(stream, "watch_fd_thread", None) is not None and unread_bytes(descriptor)
            for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2))
        )
    except Exception:  # a descriptor that the user closed, or another system than Linux
        return False


def unread_streams() -> Iterator[int]:
    """Return the file descriptors whose pipes the kernel has not emptied within half a second."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        reader = getattr(stream, "watch_fd_thread", None)
        for _ in range(100):
            if reader is None or not unread_bytes(descriptor):
                break
            time.sleep(0.005)
        else:
            yield descriptor
    time.sleep(0.01)  # bytes that were just read must still be written to the stream


def unread_bytes(descriptor: int) -> int:
    """Return the number of unread bytes in a pipe."""
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
