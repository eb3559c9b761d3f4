"""Request lost messages from the kernel's replay buffer, and insert them in order.

It is between the connection and the state machine. It passes on the kernel's messages in their order, each once, and
inserts a message that was sent again before the first one that follows it. As long as no message is missing, this costs
one comparison per message. If a number is missing, the messages behind it are *held* until the replay buffer in the
kernel (:mod:`nbrun.kernel_side.agent`) has answered or a time limit is over::

    41 42 43  | 46 47              44 and 45 are missing: request them
    passed on | held               44 and 45 arrive: pass them on, then 46 and 47

A kernel does not send its output in the order of the numbers: ipykernel numbers a result, and then sends first what was
printed before it. So output is passed on in the order of arrival. For a message that is sent again, the kernel reports
which message it was sent after. It is held until that one can be passed on too.

Replies arrive on another socket, so their numbers are not gaps. A reply that has arrived explains its own number. A
reply that has not arrived is the one number missing before the idle status of its request. The same holds for replies
to other clients.

A reply often overtakes the outputs before it. They are requested if they do not arrive soon, because they may be lost
together with everything behind them. They are requested at once if they are more than the queues can hold.

After a reconnection there may be no later message that would show a gap, so the kernel is asked for its last number.
While a server reports that it drops messages, the kernel is asked repeatedly, before its buffer is full. The server's
notice counts as a loss only if a message could not be requested again.

A kernel that has ended answers no more, so its end waits for nothing.

Messages that cannot be obtained are left out. :mod:`.loss_detection` counts them.
"""

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from itertools import accumulate, zip_longest

from msgspec import Struct

from nbrun.core.delivery.loss_detection import SequenceNumbers, is_rate_limit_notice
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Channel, Message, Requests

ANSWER_LIMIT = 30.0
"""Seconds to wait for an answer. A kernel may be busy in native code, and the answer follows any waiting output."""
CUT_LIMIT = 10.0
"""Seconds that the end of a run waits for a connection that was cut after the last cell."""
RHYTHM = 0.2
"""Seconds between two requests for new messages while a server drops output."""
PATIENCE = 1.0
"""Seconds without progress after which the outputs before a reply are requested. The barrier
(:mod:`nbrun.core.execution.barrier`) waits longer."""
IN_QUEUES = 2000
"""Outputs that the queues between a kernel and a server can hold: ZMQ's default is 1000 on each side. Replies use other
queues. If a reply is further ahead than this, outputs are lost or will be."""
FAILURES = 2
"""Consecutive requests without an answer after which no more are sent."""
RANGES = 500
"""Maximum ranges of numbers in one request."""
FEW = 10
"""Up to this many missing messages may just be late. A server that drops messages drops more at a time."""
LARGEST_HOLD = 100_000
"""Maximum number of held messages."""
REMEMBERED = 10_000
"""Maximum number of left-out numbers that are remembered, because their messages may arrive late."""

ENDED = frozenset({"dead", "restarting", "autorestarting", "starting"})
"""Execution states that a server reports once a kernel process has ended."""

Range = tuple[int, int | None]


class _Look(Enum):
    """Whether to ask for messages without a visible gap."""

    NONE = auto()
    HOW_FAR = auto()
    """Ask for the kernel's last number."""
    WHAT_IS_NEW = auto()


class _Question(Struct):
    """A request without an answer yet; times are seconds on the caller's clock."""

    id: str
    ranges: list[Range]
    look: _Look
    give_up_at: float


class ResentMessages:
    """The messages of one kernel in order, including those that were sent again."""

    def __init__(self, requests: Requests, kernel_session: str, last: Message | None = None) -> None:
        """Prepare for a kernel with a replay buffer; `last` is its last message before the first one that is passed."""
        self._requests = requests
        self._kernel_session = kernel_session
        self._numbers = SequenceNumbers()
        self._unsent: list[Message] = []
        self._answers = True
        """Whether the kernel answers requests, as far as known."""
        number = None if last is None else self._numbers.of(last)
        self._next = None if number is None else number + 1
        """The next number in order. Every lower one was passed on or left out."""
        self._held: dict[int, list[Message]] = {}
        """Held messages by number. Messages without a number are stored behind the message that they followed."""
        self._order: dict[int, None] = {}
        """The numbers of outputs that arrived by themselves, in order of arrival."""
        self._after: dict[int, int] = {}
        """For held outputs the number of an output that the kernel had sent before.

        For outputs that were sent again it is the one that was sent just before.
        """
        self._early: set[int] = set()
        """The numbers of replies that were passed on early."""
        self._replied: set[str] = set()
        """The requests whose reply arrived before their idle."""
        self._left_out: dict[int, None] = {}
        """Lower numbers that have not arrived but may be late. A message with any other lower number is a duplicate."""
        self._owed: dict[int, None] = {}
        """Those of them that are replies on their way."""
        self._recovers = False
        """Whether replies on their way may be lost, because the connection was cut."""
        self._gone: list[tuple[int, int]] = []
        """Ranges of which the kernel has sent everything that it still had."""
        self._question: _Question | None = None
        self._failures = 0
        self._look = _Look.NONE
        self._look_at: float | None = None
        """The time of the next request for new messages; None means at once."""
        self._overtaken_until: float | None = None
        """The time to request the outputs before a reply that has arrived."""
        self._is_cut = False
        self._cut_until: float | None = None
        self._notices: list[Message] = []
        """The server's notices about dropped output, until it is known whether output is lost."""
        self._resolved: list[Message] = []
        """Notices of the current request after which everything was brought back. The server may drop more without
        another notice, and the kernel may forget that."""
        self._dropped_from = 0
        """The number from which the server dropped output, by the first of them."""
        self._came = -1
        """The highest number of an output that came by itself."""
        self._forgotten = -1
        """The highest number that the kernel was asked for and had forgotten."""
        self._others = 0
        """The number of messages from the kernel's forked children."""

    # The driver's interface ----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """Return the time of the next call of :meth:`tick`."""
        give_up_at = self._question.give_up_at if self._question else None
        times = (give_up_at, self._look_at, self._overtaken_until, self._cut_until)
        return min((time for time in times if time is not None), default=None)

    @property
    def is_waiting(self) -> bool:
        """Return whether a message may arrive in a moment, so that the run should not end before."""
        return self._question is not None or self._cut_until is not None or self._overtaken_until is not None

    @property
    def is_holding(self) -> bool:
        """Return whether a message that has arrived follows one that was requested."""
        return self._question is not None and bool(self._held or self._early)

    def requests(self) -> list[Message]:
        """Remove and return the requests to send to the kernel."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def receive(self, message: Message, now: float) -> list[Message]:
        """Return the messages that replace this one."""
        number = self._numbers.of(message)
        if number is None:
            return self._receive_unnumbered(message, now)
        if number == self._next and not self._held and not self._early and message.channel == Channel.IOPUB:
            self._next += 1
            self._came = number
            if self._resolved:
                self._end_resolved(message)
            return [message]
        if message.channel == Channel.IOPUB:
            self._came = max(self._came, number)
            given = self._receive_output(message, number, now)
        else:
            given = self._receive_reply(message, number, now)
        self._look_before_replies(now)
        return given

    def tick(self, now: float) -> list[Message]:
        """Handle expired times; return the messages that are no longer held."""
        if self._cut_until is not None and now >= self._cut_until:
            self._cut_until = None
        if self._look_at is not None and now >= self._look_at:
            self._look_at = None
            self._ask(now)
        if self._overtaken_until is not None and now >= self._overtaken_until:
            self._overtaken_until = None
            self._ask_what_is_new(now)
        question = self._question
        if question is None or now < question.give_up_at:
            return []
        self._question = None
        return self._fail()

    def cut(self, now: float) -> None:
        """Record that the connection is lost, with the messages in transit."""
        self._question = None
        self._is_cut, self._cut_until = True, now + CUT_LIMIT

    def reconnected(self, now: float) -> None:
        """Ask for the kernel's last number, because the connection is restored."""
        self._is_cut, self._cut_until, self._recovers = False, None, True
        if self._look is _Look.NONE:
            self._look = _Look.HOW_FAR
        self._ask(now)

    def release(self) -> list[Message]:
        """Return all held messages, and leave out the missing ones before them."""
        released, self._notices = self._notices, []
        self._look, self._look_at = _Look.NONE, None
        for number in sorted(self._held):
            if self._next is not None and number > self._next:
                self._gone.append((self._next, number - 1))
            released += self._advance(waits=False)
        return released

    def _end(self) -> list[Message]:
        """Return all held messages, and wait for nothing more, because the kernel has ended."""
        self._question, self._cut_until, self._overtaken_until, self._answers = None, None, None, False
        return self.release()

    # Incoming messages ---------------------------------------------------------------------------------------------

    def _receive_unnumbered(self, message: Message, now: float) -> list[Message]:
        if is_rate_limit_notice(message, self._requests.session):
            if not self._answers:
                return [message]
            self._dropped_from = self._dropped_from if self._notices else self._came + 1
            self._notices.append(message)
            self._ask_what_is_new(now)
            return self._lossy_notices()  # what it dropped may have been asked for before
        if message.session != self._kernel_session:
            has_ended = message.content.get("execution_state") in ENDED
            return [*(self._end() if has_ended else self.release()), message]
        self._others += message.channel == Channel.IOPUB
        if self._held:
            self._held[max(self._held)].append(message)
            return []
        return [message]

    def _receive_output(self, message: Message, number: int, now: float) -> list[Message]:
        if self._next is None:
            self._next = number
            self._early = {each for each in self._early if each > number}
        if number < self._next:
            return self._receive_late(message, number)
        if number not in self._held:
            self._held[number], self._order[number] = [message], None
            if number < self._came:
                self._after[number] = self._came
        return self._end() if message.type == "shutdown_reply" else self._go_on(now)

    def _receive_reply(self, message: Message, number: int, now: float) -> list[Message]:
        if self._next is not None and number < self._next:
            given = self._receive_late(message, number)
        elif number in self._early or number in self._held:
            given = []
        elif self._held and message.channel == Channel.SHELL:
            self._held[number] = [message]
            given = self._go_on(now)
        else:
            self._early.add(number)
            self._replied.add(message.parent_id)
            given = [message, *self._advance()]
        if message.type == agent.RESEND_REPLY:
            given += self._receive_answer(message, now)
        return given

    def _receive_late(self, message: Message, number: int) -> list[Message]:
        """Return a late message that was left out; drop a duplicate."""
        if number not in self._left_out:
            return []
        del self._left_out[number]
        self._owed.pop(number, None)
        return [message]

    def _receive_answer(self, answer: Message, now: float) -> list[Message]:
        """Insert the messages that the kernel has sent again."""
        given: list[Message] = []
        self._answers = True
        found, newest = 0, _count(answer, "newest")
        for message, after in zip_longest(agent.resent(answer), agent.sent_after(answer)):
            if message is None:
                break
            number = self._numbers.of(message)
            if number is None or self._next is None or self._is_of_others(message):
                continue
            if number < self._next:
                given += self._receive_late(message, number)
            elif number not in self._early and number not in self._held:
                found += 1
                self._held[number] = [message]
                if after is not None and after <= newest:
                    self._after[number] = after
        question = self._question
        if question is None or answer.parent_id != question.id:
            return [*given, *self._go_on(now)]
        self._question = None
        until, evicted, others = (_count(answer, name) for name in ("until", "evicted", "others"))
        if until < 0 or any(first > until and last is not None for first, last in question.ranges[:1]):
            return [*given, *self._fail()]  # the answer does not help, and the request would be repeated forever
        self._gone += [(first, until if last is None else min(last, until)) for first, last in question.ranges]
        self._failures = 0
        given += self._note_forgotten(question, evicted)
        for first, last in question.ranges:
            if first == last:
                self._owed.pop(first, None)
        given += self._advance()
        self._look_on(question, found, is_all=until == newest, newest=newest, now=now)
        given += self._lossy_notices(is_lossy=others != self._others)
        if self._look is _Look.NONE and not self._held:
            self._resolved, self._notices = [*self._resolved, *self._notices], []
            self._recovers = self._recovers and bool(self._owed)
        return [*given, *self._go_on(now)]

    def _lossy_notices(self, *, is_lossy: bool = False) -> list[Message]:
        """Remove and return the notices of a server that dropped what the kernel had forgotten."""
        if not is_lossy and self._forgotten < self._dropped_from:
            return []
        notices, self._notices = self._notices, []
        return notices

    def _note_forgotten(self, question: _Question, evicted: int) -> list[Message]:
        """Record what the kernel had forgotten; return the resolved notices if the server dropped that."""
        forgotten = [min(evicted, last or evicted) for first, last in question.ranges if first <= evicted]
        self._forgotten = max([self._forgotten, *forgotten])
        if self._forgotten < self._dropped_from:
            return []
        notices, self._resolved = self._resolved, []
        return notices

    def _end_resolved(self, message: Message) -> None:
        """Drop the resolved notices at the end of their request: a later loss does not concern them."""
        if message.channel == Channel.IOPUB and (message.parent_id != self._resolved[0].parent_id or _is_idle(message)):
            self._resolved = []

    def _is_of_others(self, message: Message) -> bool:
        """Return whether a reply was addressed to another client."""
        return message.channel != Channel.IOPUB and not message.parent_id.startswith(f"{self._requests.id_prefix}_")

    def _look_on(self, question: _Question, found: int, *, is_all: bool, newest: int, now: float) -> None:
        """Decide whether to request more than the visible gaps."""
        behind = self._next is not None and newest > max(self._held, default=self._next - 1)
        if (question.look is _Look.HOW_FAR and behind) or (question.look is _Look.WHAT_IS_NEW and not is_all):
            self._look = _Look.WHAT_IS_NEW
        elif question.look is _Look.WHAT_IS_NEW and found > FEW:
            self._look, self._look_at = _Look.WHAT_IS_NEW, now + RHYTHM

    # Outgoing messages ---------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> list[Message]:
        """Return the messages that are in order now, and request the missing ones."""
        given = self._advance()
        if self._held and (not self._answers or len(self._held) > LARGEST_HOLD):
            return [*given, *self.release()]
        is_owed = self._recovers and bool(self._owed)
        if self._held or is_owed or (self._look is not _Look.NONE and self._look_at is None):
            self._ask(now)
        return given

    def _advance(self, *, waits: bool = True) -> list[Message]:
        """Remove and return the messages that are in order; some may wait for others that the kernel sent before."""
        given: dict[int, list[Message]] = {}
        after: dict[int, int] = {}
        start = self._next
        while self._next is not None:
            if self._next in self._held:
                if waits and self._is_behind_missing(self._next):
                    break
                given[self._next] = held = self._held.pop(self._next)
                previous = self._after.pop(self._next, None)
                if previous is not None and self._next not in self._order:
                    after[self._next] = previous
                self._note(held[0])
                if self._resolved:
                    self._end_resolved(held[0])
            elif self._next in self._early:
                self._early.discard(self._next)
            elif self._is_reply_on_its_way(self._next):
                self._leave_out(self._next)
                self._owed[self._next] = None
            elif self._is_gone(self._next):
                self._leave_out(self._next)
            else:
                break
            self._next += 1
        if self._next != start:
            self._overtaken_until = None  # the outputs before a reply are on their way
        self._gone = [each for each in self._gone if self._next is not None and each[1] >= self._next]
        if not given:
            return []
        came = [number for number in self._order if number in given]
        self._order = {number: None for number in self._order if number in self._held}
        return [message for number in in_order(given, came, after) for message in given[number]]

    def _is_behind_missing(self, number: int) -> bool:
        """Return whether a higher number that the kernel sent before this one, or one between them, may still come."""
        between = range(self._after.get(number, number), number, -1)
        return any(not (each in self._held or each in self._early or self._is_gone(each)) for each in between)

    def _is_gone(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._gone)

    def _note(self, message: Message) -> None:
        """Record which requests were replied to, until their idle arrives."""
        if message.channel != Channel.IOPUB:
            self._replied.add(message.parent_id)
        elif _is_idle(message):
            self._replied.discard(message.parent_id)

    def _is_reply_on_its_way(self, number: int) -> bool:
        """Return whether a missing number must be a reply's: the only one missing before the idle of its request."""
        behind = self._held.get(number + 1)
        if behind is None or not _is_idle(behind[0]) or behind[0].parent_id in self._replied:
            return False
        return not str(behind[0].parent.get("msg_type")).startswith("comm_")

    def _leave_out(self, number: int) -> None:
        self._left_out[number] = None
        if len(self._left_out) > REMEMBERED:
            self._left_out = dict.fromkeys(list(self._left_out)[-REMEMBERED // 2 :])
            self._owed = {number: None for number in self._owed if number in self._left_out}

    # Requests ------------------------------------------------------------------------------------------------------

    def _look_before_replies(self, now: float) -> None:
        """Request the outputs before a reply that has arrived, at once if they are many, otherwise after some time."""
        if not self._early or self._next is None or not self._answers:
            self._overtaken_until = None
        elif max(self._early) - self._next > IN_QUEUES and self._question is None:
            self._ask_what_is_new(now)
        elif self._overtaken_until is None:
            self._overtaken_until = now + PATIENCE

    def _ask_what_is_new(self, now: float) -> None:
        self._look, self._look_at = _Look.WHAT_IS_NEW, None
        self._ask(now)

    def _ask(self, now: float) -> None:
        """Request missing messages, unless they are requested already or the request is useless."""
        if self._question is not None or self._is_cut or not self._answers:
            return
        ranges = self._gaps()
        if self._recovers:
            ranges = [*((number, number) for number in self._owed), *ranges][:RANGES]
        if self._look is _Look.WHAT_IS_NEW and self._next is not None and len(ranges) < RANGES:
            ranges.append((max(self._held, default=self._next - 1) + 1, None))
        if not ranges and self._look is not _Look.HOW_FAR:
            return
        self._put(self._look, ranges, now)
        self._look, self._look_at = _Look.NONE, None

    def _put(self, look: _Look, ranges: list[Range], now: float) -> None:
        request = agent.resend(self._requests, ranges)
        self._question = _Question(request.id, ranges, look, now + ANSWER_LIMIT)
        self._unsent.append(request)

    def _fail(self) -> list[Message]:
        """Continue without an answer."""
        self._failures += 1
        if self._failures == FAILURES:
            self._answers = False
        return self.release()

    def _gaps(self) -> list[Range]:
        """Return the ranges that are missing before held messages."""
        if self._next is None or not self._held:
            return []
        place, last = self._next, max([*self._held, *(previous + 1 for previous in self._after.values())])
        gaps: list[Range] = []
        for number in sorted({*self._held, *(each for each in self._early if each < last), last}):
            if number > place and not any(first <= place and number - 1 <= end for first, end in self._gone):
                gaps.append((place, number - 1))
            place = number + 1
        return gaps[:RANGES]


def in_order(numbers: Collection[int], came: Sequence[int], after: Mapping[int, int]) -> list[int]:
    """Return `numbers` in the order of sending.

    `came` are outputs that arrived by themselves, in their order. `after` names for outputs that were sent again the
    one that was sent just before. All others, such as replies, are placed before the first output with a higher number.
    """
    first, highest = min(numbers), [*accumulate(came, max)]
    heads = [(place, True, number) for place, number in enumerate(came)]
    following: dict[int, int] = {}
    for number, previous in after.items():
        if previous in numbers:
            following[previous] = number
        else:
            heads.append((bisect(highest, number) if previous >= first else 0, False, number))
    order: list[int] = []
    for *_, number in sorted(heads):
        order.append(number)
        while order[-1] in following:
            order.append(following.pop(order[-1]))
    highest = [*accumulate(order, max)]
    places = [(place, True, number) for place, number in enumerate(order)]
    places += [(bisect(highest, number), False, number) for number in {*numbers}.difference(order)]
    return [number for *_, number in sorted(places)]


def _is_idle(message: Message) -> bool:
    return message.type == "status" and message.content.get("execution_state") == "idle"


def _count(answer: Message, name: str) -> int:
    value = answer.content.get(name)
    return value if isinstance(value, int) else -1
