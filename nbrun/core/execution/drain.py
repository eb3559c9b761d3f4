"""The last question to a kernel: can anything still put something out, now that the last cell has ended?

Threads, tasks, timers and child processes may, so their output is waited for, for a while. ipykernel can be asked
whether there is any of them, which spares most runs the wait. The question is a silent request without code: it counts
nothing, keeps nothing, and leaves the user's names alone. Before ipykernel answers it hands on what reached its file
descriptors. Any answer but a plain "nobody", an error too, means that somebody may be there; after a moment of quiet it
is asked once more, for what reached the descriptors meanwhile. Other kernels are asked for their ``kernel_info``, like
any :class:`~nbrun.core.execution.barrier.Fence`, which says nothing of the kind.

Where messages of a cell seem to be missing, ipykernel is asked one thing more: whether there ever were any
(:mod:`.unsent`).
"""

from collections import Counter
from collections.abc import Iterable

from nbrun.core.delivery import unsent
from nbrun.core.execution.barrier import Fence
from nbrun.core.formats.json_text import as_object
from nbrun.core.outputs.mimebundle import text
from nbrun.core.protocol.messages import Channel, Message, Requests

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


class Farewell(Fence):
    """The fence behind the last cell, and what its answer says."""

    def __init__(self, *, asks: bool) -> None:
        """Prepare it; `asks` for a kernel that can be asked, which is ipykernel."""
        super().__init__()
        self._asks = asks
        self._asked = 0
        self._nobody = False
        self._idle = False
        self.unsent: Counter[int] = Counter()
        """How many numbers of the stretches asked about were not sent, by the last number of each."""

    @property
    def asks_again(self) -> bool:
        """Return whether a second answer, after a moment of quiet, would bring what was written meanwhile."""
        return self._asks and self._asked == 1

    def ask(self, requests: Requests, doubtful: Iterable[tuple[int, int]] = ()) -> Message:
        """Return the question to send; `doubtful` are the first and last numbers where messages seem to be missing."""
        self._asked += 1
        self._idle = False
        if not self._asks:
            return super().ask(requests)
        expressions = {_KEY: _WRITERS}
        if stretches := [*doubtful]:
            expressions[_UNSENT_KEY] = unsent.question(stretches)
        question = requests.execute("", silent=True, stop_on_error=False, expressions=expressions)
        self._ids.add(question.id)
        return question

    def hear(self, last_words: Message, doubtful: Iterable[tuple[int, int]]) -> None:
        """Take what a kernel said of the doubtful as it was told to exit: it will not be there to be asked."""
        self.unsent = unsent.amounts_told(last_words, doubtful)

    def ends(self, message: Message) -> bool:
        """Take a part of an answer; True once no output can come any more, or the second answer is in."""
        if message.channel == Channel.SHELL:
            self._nobody = _answer(message, _KEY) == repr(_NOBODY)
            self.unsent = unsent.amounts_in(_answer(message, _UNSENT_KEY))
        elif message.content.get("execution_state") == "idle":
            self._idle = True
        return self._idle and (self._nobody or self._asked > 1)


def _answer(message: Message, key: str) -> str:
    """Return what Python shows of an expression's value; "" where it has none."""
    answer = as_object(as_object(message.content.get("user_expressions")).get(key))
    return text(as_object(answer.get("data")).get("text/plain"))
