"""The replay buffer: send output and replies again, by their numbers.

This file runs in the kernel, see :mod:`nbrun.kernel_side.agent`.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from .backlog import DELIMITER, number_in_header
from .output import REALLY_SEND, hand_over

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
_PARTS = (b'{"header":', b',"parent_header":', b',"metadata":', b',"content":')


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
        start = message.index(DELIMITER) + 2
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


def text_of(channel: str, parts: tuple[bytes, ...]) -> str:
    """Return a message as JSON, with only the number of its buffers."""
    joined = b"".join([each for pair in zip(_PARTS, parts) for each in pair])
    return joined.decode("utf-8", "replace") + f',"channel":"{channel}","buffers":{len(parts) - 4}}}'
