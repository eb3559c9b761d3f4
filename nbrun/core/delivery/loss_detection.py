"""Detect lost messages by sequence numbers and by the server's rate limit notices.

Servers drop output without an error. A rate limiter discards messages that arrive too fast, queues overflow while a
server is busy, and the reply is ``ok`` all the same. Two signs show the loss.

*Sequence numbers.* Kernels that use jupyter_client's ``Session`` (such as ipykernel) number their messages
``<session>_<pid>_<n>``, with one counter for all channels. A forked child of the kernel continues the count under its
own pid. Between the end of one cell and the end of the next, every number must arrive, except for replies to the
requests of other clients. Only those clients receive these replies. The busy and idle status of each such request is
sent to everyone, so the replies can be counted. A missing number is a lost message::

    ... 41 idle | 42 busy  43 execute_input  44 stream  (45 46 47 missing)  48 reply  49 idle | 50 busy ...

If only a part of another client's messages was seen, a few missing numbers prove nothing. A server sends such requests
itself around every connection. Numbers that are missing between a cell's own busy and idle prove a loss: the kernel
executed the cell at that time. Another thread of the kernel may answer a request meanwhile, with three messages.

Messages can arrive late or out of order, because threads number a message before they send it. The range of the cell is
corrected then, so the missing messages are known only at the end of the run.

*Notices.* When the rate limiter starts to drop messages, it writes a text to the stderr of the cell. The message has
the session of the client, not of the kernel, and is not an output of the cell.
"""

from bisect import bisect_left
from collections import Counter

from msgspec import Struct, field

from nbrun.core.protocol.messages import KERNEL_INFO, Channel, Message

SLACK = 12
"""Missing numbers that prove nothing if messages of other clients were seen only in part."""
_MESSAGES_PER_REQUEST = 3
"""Messages of a kernel for one request: busy, the reply, idle."""
_MOST_DIGITS = 18
"""Maximum digits of a counter at the end of a message id."""
_NOTICES = ("IOPub message rate exceeded.", "IOPub data rate exceeded.")


def is_rate_limit_notice(message: Message, own_session: str) -> bool:
    """Return whether a message is the server's notice that it drops output."""
    if message.session != own_session or message.type != "stream":
        return False
    text = message.content.get("text")
    return isinstance(text, str) and text.startswith(_NOTICES)


class SequenceNumbers(Struct):
    """Reads the sequence numbers of one kernel process: that of the first message."""

    _prefix: str = ""

    def of(self, message: Message) -> int | None:
        """Return the number of a message of this kernel process, or None for any other, such as a forked child's."""
        prefix, _, digits = message.id.rpartition("_")
        if prefix != self._prefix or not prefix:
            session = message.session
            if self._prefix or not session or not prefix.startswith(session):
                return None
        if not digits.isdecimal() or len(digits) > _MOST_DIGITS:
            return None
        self._prefix = prefix
        return int(digits)


class Stretch(Struct):
    """The range of numbers from the end of one cell to the end of the next."""

    first: int
    """The first number that counts: after the end of the previous cell, or after the cell's own busy."""
    last: int
    missing: int
    alone: bool


class Ledger(Struct):
    """Counts the messages of one kernel process, range by range."""

    id_prefix: str
    """The beginning of the ids of the client's own requests."""
    request: str = ""
    """The request whose idle ends the range. A later reply may arrive before it, on another socket."""
    _numbers: SequenceNumbers = field(default_factory=SequenceNumbers)
    _base: int | None = None
    _end: int | None = None
    _supposed_end: int | None = None
    """The number behind the request's reply. In ipykernel it is that of the idle, unless a thread took it."""
    _first: int = 0
    _last: int = 0
    _received: int = 0
    _replies: list[int] = field(default_factory=list)
    _barriers: list[int] = field(default_factory=list)
    """The numbers of replies to barriers. The missing messages may be the barriers' own busy and idle."""
    _ahead: list[int] = field(default_factory=list)
    """The numbers of outputs that came from behind the end, as far as it was known then."""
    _strangers: set[str] = field(default_factory=set)
    _unsure: int = 0
    _busy: int | None = None
    _within: int = 0
    _asked_within: Counter[str] = field(default_factory=Counter)
    _closed: list[Stretch] = field(default_factory=list)

    def count(self, message: Message) -> None:
        """Count a message of the kernel."""
        number = self._numbers.of(message)
        if number is None:
            return
        if self._base is not None and number <= self._base:
            self._closed[bisect_left(self._closed, number, key=lambda stretch: stretch.last)].missing -= 1
            return
        self._first = min(self._first, number) if self._received else number
        self._last = max(self._last, number)
        self._received += 1
        if message.channel != Channel.IOPUB:
            self._count_reply(message, number)
            return
        end = self._supposed_end if self._end is None else self._end
        if end is not None and number > end:
            self._ahead.append(number)
        elif self._busy is not None and number > self._busy:
            self._within += 1
        if message.type == "status":
            self._count_status(message, number)

    def follow(self, request: str) -> None:
        """Let the idle of `request` end the range, even if the idle of a refused request seemed to have ended it."""
        self.request = request
        self._busy, self._end, self._supposed_end = None, None, None
        self._within, self._asked_within = 0, Counter()

    def disturb(self) -> None:
        """Record that the server may have sent unseen requests to the kernel, as it does after a reconnection."""
        self._unsure = 2

    def close(self) -> Stretch | None:
        """End the range of a cell; return None for a kernel that does not number its messages.

        If other clients used the kernel, their replies may be on either side of an end, so a few missing numbers prove
        nothing. Then only numbers that are missing within the cell count. If the idle is lost, the reply shows the end.
        Numbers that are missing behind it belong to the next cell, which may have been sent ahead.
        """
        if not self._received:
            return None
        base = self._first - 1 if self._base is None else self._base
        end = next(each for each in (self._end, self._supposed_end, self._last) if each is not None)
        replies = [number for number in self._replies if number > end]
        self._ahead = [number for number in self._ahead if number > end]
        ahead = replies + self._ahead
        missing = end - base - (self._received - len(ahead)) - len(self._strangers)
        self._unsure = 2 if self._strangers else self._unsure
        if not self._unsure and any(number <= end for number in self._barriers):
            self._unsure = 1
        first = base + 1
        if self._unsure and missing <= SLACK:
            missing = self._missing_within()
            first = first if self._busy is None else self._busy + 1
        # A thread's message that is numbered after the idle but sent before it belongs to the next range.
        early = max(-missing, 0)
        missing += early
        stretch = Stretch(first, end, missing, alone=not self._unsure)
        self._closed.append(stretch)
        self._base, self._end, self._last = end, None, max([end, *ahead])
        self._received, self._first = len(ahead) + early, min(ahead, default=0)
        self._replies, self._supposed_end = replies, None
        self._barriers = [number for number in self._barriers if number > end]
        self._strangers, self._unsure = set(), max(self._unsure - 1, 0)
        self._busy, self._within, self._asked_within = None, 0, Counter()
        return stretch

    def _missing_within(self) -> int:
        """Return the number of messages missing between busy and idle of the cell, or 0 if one of these is missing."""
        if self._busy is None or self._end is None:
            return 0
        replies = sum(self._busy < number < self._end for number in self._replies)
        unseen = sum(max(_MESSAGES_PER_REQUEST - seen, 0) for seen in self._asked_within.values())
        return max(self._end - self._busy - self._within - replies - unseen, 0)

    def _count_reply(self, message: Message, number: int) -> None:
        self._replies.append(number)
        if message.parent_id == self.request:
            self._supposed_end = number + 1
        elif message.parent_type == KERNEL_INFO and self._is_ours(message.parent_id):
            self._barriers.append(number)

    def _count_status(self, message: Message, number: int) -> None:
        if not self._is_ours(message.parent_id):
            self._strangers.add(message.parent_id)
            if self._busy is not None and self._end is None:
                self._asked_within[message.parent_id] += 1
        elif message.parent_id == self.request:
            if message.content.get("execution_state") == "idle":
                self._end = number
                self._within += sum(self._busy is not None and self._busy < each <= number for each in self._ahead)
            else:
                self._busy = number

    def _is_ours(self, request_id: str) -> bool:
        """Return whether a request is the client's own. The server's requests may have other numbers after its id."""
        return not request_id or request_id.removeprefix(f"{self.id_prefix}_").isdecimal()
