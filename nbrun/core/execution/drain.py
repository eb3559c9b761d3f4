"""The drain: wait after the last cell for output of threads, tasks and child processes.

Threads, tasks, timers and child processes may still write, so nbrun waits for their output for a limited time. The
agent in the kernel (:mod:`nbrun.kernel_side.agent`) is asked whether any of them exists, which spares most runs the
wait. Before ipykernel answers, it sends what was written to its file descriptors. Any answer except a clear "no",
errors included, means that a writer may exist. After a quiet moment the question is sent again, for output written to
the descriptors in between. A kernel without the agent receives a ``kernel_info_request``. Its reply only shows that the
kernel has reached the end of the last cell::

    start -> question -> reply and idle, no writers                                -> over
                      -> status: output is complete up to here -> 0.25 s of quiet  -> second question -> answer -> over
                      -> 2 s, and no output from before the last reply arrives     -> over

If messages of a cell seem to be missing, the same request asks whether they were sent at all.

The first question can be sent *ahead*, directly behind the last cell that is sent ahead. Then no round trip lies
between the last output and the answer. The answer is held until the drain starts. It counts only if no cell was sent
after the question, and neither the connection was cut nor the kernel interrupted.
"""

from collections import Counter
from collections.abc import Iterable

from nbrun.core.execution.effects import Timer, Timers
from nbrun.core.execution.outcomes import Ending
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Channel, Message, Requests

DRAIN_QUIET = 0.25
"""Seconds without output until the drain ends. ipykernel sends its file descriptors with up to 0.2 s delay."""
DRAIN_LIMIT = 2.0
"""Seconds after which the drain ends although a thread still writes. The cells' own output has arrived."""


class Drain:
    """The drain of a run, and the kernel's answers to its questions."""

    def __init__(self, timers: Timers, requests: Requests, *, asks_writers: bool) -> None:
        """Prepare the drain; `asks_writers` is true if the kernel's agent can report writers."""
        self._timers = timers
        self._requests = requests
        self._asks_writers = asks_writers
        self._sent: set[str] = set()
        self._ahead: Message | None = None
        """The question that was sent ahead, until the drain starts."""
        self._held: list[Message] = []
        """The messages that answer it."""
        self._is_answered = False
        self._doubtful: list[tuple[int, int]] = []
        self._may_write = True
        self._is_idle = False
        self.ending: Ending | None = None
        """The ending of the run while it drains; it does not change any more."""
        self.unsent: Counter[int] = Counter()
        """The number of unsent messages in each requested range, by the range's last number."""

    @property
    def asks_again(self) -> bool:
        """Return whether a second question, after a quiet moment, would flush output written in between."""
        return self._asks_writers and len(self._sent) == 1

    def start(self, ending: Ending, now: float) -> None:
        """Start the drain of a run with this ending."""
        self.ending = ending
        self._timers.drop(Timer.RUN_TIMEOUT, Timer.PROBE)
        self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)

    def question(self, doubtful: Iterable[tuple[int, int]] = ()) -> Message:
        """Return the request to send; `doubtful` are the first and last numbers of ranges with missing messages."""
        self._is_idle = False
        self._doubtful = [*doubtful]
        request = agent.drain(self._requests, self._doubtful) if self._asks_writers else self._requests.kernel_info()
        self._sent.add(request.id)
        return request

    def question_ahead(self) -> Message | None:
        """Return the question to send behind the last cell, or None if the kernel's agent cannot answer it."""
        self._ahead = self.question() if self._asks_writers else None
        return self._ahead

    def hold(self, message: Message) -> bool:
        """Hold a message that answers the question that was sent ahead; return False for any other message."""
        if self._ahead is None or message.parent_id != self._ahead.id:
            return False
        self._held.append(message)
        return True

    def take_ahead(self, *, counts: bool) -> tuple[Message | None, list[Message]]:
        """Remove and return the question that was sent ahead, and its held messages.

        If it `counts`, the messages are the answer to the drain's first question.
        """
        question, held = self._ahead, self._held
        self._ahead, self._held = None, []
        if question is not None and not counts:
            self._sent.discard(question.id)
        return question, held

    def is_answered_by(self, message: Message) -> bool:
        """Return whether a message, a reply or a status, answers the question."""
        return message.parent_id in self._sent

    def on_answer(self, message: Message, now: float) -> bool:
        """Handle a part of an answer; return True once no more output can arrive or the second answer is complete."""
        if message.channel == Channel.SHELL:
            self._may_write = agent.has_writers(message)
            self.unsent = agent.unsent_in(message, self._doubtful)
        elif message.content.get("execution_state") == "idle":
            self._is_idle = True
        if self._is_idle and (not self._may_write or len(self._sent) > 1):
            return True
        if message.channel == Channel.IOPUB:
            # Everything that the kernel sent before this has arrived. Output of its threads follows in a moment.
            self._is_answered = True
            self.on_output(now)
        return False

    def on_output(self, now: float) -> None:
        """Restart the quiet period after an output."""
        if self._is_answered:
            self._timers.set(Timer.QUIET, now, DRAIN_QUIET)

    def on_limit(self, now: float, *, late_output_at: float) -> bool:
        """Return whether the run may end at the drain's limit; otherwise extend it.

        Outputs that are older than their cell's reply must arrive; the last one arrived at `late_output_at`.
        """
        if self._is_answered or now - late_output_at >= DRAIN_LIMIT:
            return True
        self._timers.set(Timer.DRAIN, now, DRAIN_LIMIT)
        return False

    def on_exit(self, reply: Message, doubtful: Iterable[tuple[int, int]]) -> None:
        """Handle the unsent numbers in the shutdown reply, because the kernel cannot be asked any more."""
        self.unsent = agent.unsent_at_exit(reply, doubtful)
