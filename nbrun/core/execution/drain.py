"""The drain at the end of a run: wait for output that is still on its way, now that the last cell has ended.

Threads, tasks, timers and child processes may still write, so their output is waited for, for a while. ipykernel is
asked whether any of them exists, which spares most runs the wait. The question is a silent request without code: it
counts nothing, keeps nothing, and leaves the user's names alone. Before ipykernel answers, it sends what reached its
file descriptors. Any answer but a plain "nobody", an error too, means that a writer may exist; after a moment of quiet
the question is asked once more, for what reached the descriptors meanwhile. Other kernels are asked for their
``kernel_info``, which only shows that they have come to the end of the last cell::

    start -> question -> reply and idle, no writers                                -> over
                      -> status: output is complete up to here -> 0.25 s of quiet  -> second question -> answer -> over
                      -> 2 s, and no output from before the last reply arrives     -> over

Where messages of a cell seem to be missing, ipykernel is asked one thing more: whether there ever were any
(:mod:`.unsent`).
"""

from collections import Counter
from collections.abc import Iterable

from nbrun.core.delivery import unsent
from nbrun.core.execution.effects import Timer, Timers
from nbrun.core.execution.outcomes import Ending
from nbrun.core.formats.json_text import as_object
from nbrun.core.outputs.mimebundle import text
from nbrun.core.protocol.messages import Channel, Message, Requests

DRAIN_QUIET = 0.25
"""Seconds of quiet after the last cell: ipykernel sends what reached its file descriptors with up to 0.2 s delay."""
DRAIN_LIMIT = 2.0
"""Seconds after which a background thread that never falls silent is not waited for; the cells' own output is in."""

_KEY = "nbrun"
_NOBODY = "nobody"
_SEARCH = """
import array, asyncio, fcntl, os, sys, termios, threading, time

def ours(module):
    return str(module).partition(".")[0] in ("ipykernel", "IPython", "tornado", "zmq")

def writers():
    for thread in threading.enumerate():
        work = getattr(thread, "_target", None)
        if not (thread is threading.main_thread() or ours(type(thread).__module__)
                or ours(getattr(work, "__module__", ""))):
            yield thread
    loop = asyncio.get_running_loop()
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is None or not ours(frame.f_globals.get("__name__")):
            yield task
    yield from loop._scheduled
    for task in os.listdir("/proc/self/task"):
        with open("/proc/self/task/" + task + "/children") as children:
            yield from children.read().split()
    pipes = [os.readlink("/proc/self/fd/" + name) for name in "12"]
    for process in os.listdir("/proc"):
        if process.isdecimal() and int(process) != os.getpid():
            for name in "12":
                try:
                    held = os.readlink("/proc/" + process + "/fd/" + name)
                except OSError:
                    continue
                if held.startswith("pipe:") and held in pipes:
                    yield process

def unread(descriptor):
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]

def settle():
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        reader = getattr(stream, "watch_fd_thread", None)
        for _ in range(100):
            if reader is None or not unread(descriptor):
                break
            time.sleep(0.005)
        else:
            yield descriptor
    time.sleep(0.01)  # what was just read from there still has to be written to the stream

found = "nobody" if not any(True for _ in writers()) and not any(True for _ in settle()) else "somebody"
"""
_WRITERS = f"(lambda own: (__import__('builtins').exec({_SEARCH!r}, own), own['found'])[1])({{}})"
_UNSENT_KEY = "nbrun_unsent"


class Drain:
    """The drain of a run, and what the kernel's answers say."""

    def __init__(self, timers: Timers, requests: Requests, *, asks_writers: bool) -> None:
        """Prepare it; `asks_writers` is for a kernel that can be asked for writers, which is ipykernel."""
        self._timers = timers
        self._requests = requests
        self._asks_writers = asks_writers
        self._sent: set[str] = set()
        self._is_answered = False
        self._has_no_writers = False
        self._is_idle = False
        self.ending: Ending | None = None
        """The ending of the run, once it drains: its verdict stands."""
        self.unsent: Counter[int] = Counter()
        """How many numbers of the stretches asked about were not sent, by the last number of each."""

    @property
    def asks_again(self) -> bool:
        """Return whether a second answer, after a moment of quiet, would bring what was written meanwhile."""
        return self._asks_writers and len(self._sent) == 1

    def start(self, ending: Ending, now: float) -> None:
        """Start the drain of a run that ends so."""
        self.ending = ending
        self._timers.drop(Timer.RUN_TIMEOUT, Timer.PROBE)
        self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)

    def question(self, doubtful: Iterable[tuple[int, int]] = ()) -> Message:
        """Return the question to send; `doubtful` are the first and last numbers where messages seem to be missing."""
        self._is_idle = False
        if not self._asks_writers:
            request = self._requests.kernel_info()
        else:
            expressions = {_KEY: _WRITERS}
            if stretches := [*doubtful]:
                expressions[_UNSENT_KEY] = unsent.question(stretches)
            request = self._requests.execute("", silent=True, stop_on_error=False, expressions=expressions)
        self._sent.add(request.id)
        return request

    def is_answered_by(self, message: Message) -> bool:
        """Return whether a message, a reply or a status, answers the question."""
        return message.parent_id in self._sent

    def on_answer(self, message: Message, now: float) -> bool:
        """Handle a part of an answer; return True once no more output can arrive or the second answer is complete."""
        if message.channel == Channel.SHELL:
            self._has_no_writers = _answer(message, _KEY) == repr(_NOBODY)
            self.unsent = unsent.amounts_in(_answer(message, _UNSENT_KEY))
        elif message.content.get("execution_state") == "idle":
            self._is_idle = True
        if self._is_idle and (self._has_no_writers or len(self._sent) > 1):
            return True
        if message.channel == Channel.IOPUB:
            # Everything that the kernel sent before this is here; what its threads still hold comes in a moment.
            self._is_answered = True
            self.on_output(now)
        return False

    def on_output(self, now: float) -> None:
        """Wait for a moment of quiet behind an output."""
        if self._is_answered:
            self._timers.set(Timer.QUIET, now, DRAIN_QUIET)

    def on_limit(self, now: float, *, late_output_at: float) -> bool:
        """Return whether the run may end at the drain's limit; else prolong it.

        Outputs that are older than the reply of their cell are owed; the last one came at `late_output_at`.
        """
        if self._is_answered or now - late_output_at >= DRAIN_LIMIT:
            return True
        self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)
        return False

    def on_exit(self, reply: Message, doubtful: Iterable[tuple[int, int]]) -> None:
        """Handle the shutdown reply's record of unsent numbers; the kernel cannot be asked any more."""
        self.unsent = unsent.amounts_told(reply, doubtful)


def _answer(message: Message, key: str) -> str:
    """Return what Python shows of an expression's value; "" where it has none."""
    answer = as_object(as_object(message.content.get("user_expressions")).get(key))
    return text(as_object(answer.get("data")).get("text/plain"))
