"""The handshake with a kernel: wait until it answers and its outputs arrive.

::

    kernel_info_request  ->  reply on shell + any status on iopub for that request  ->  done
                         ->  reply, but nothing on iopub for a second: no subscription yet; ask again
                         ->  reply without the version of its language: the kernel still starts; ask again

A server forwards shell and iopub from different sockets, so a reply alone does not show that outputs will arrive. ILua
answers while its interpreter still starts, with the version ``n/a``, and dies if it receives a cell before that. The
wait for a better reply is bounded, because a kernel may never report its version.

The handshake also shows whether the kernel's session can be used to detect a restart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from nbrun.core.formats.json_text import as_object
from nbrun.core.protocol.messages import Channel, Message, Requests

ASK_AGAIN = 1.0
"""Seconds to wait for a message on iopub before the request is repeated."""
ASK_SOON = 0.1
"""The same for a kernel that is still starting."""
START_LIMIT = 5.0
"""Seconds after its first reply that a kernel may report that it is starting."""
_UNKNOWN_YET = "n/a"


class KernelInfo(Struct, frozen=True):
    """The kernel's ``kernel_info_reply``.

    ``session`` identifies this kernel process in the headers of its messages, so that a restarted kernel is recognised.
    It is None if the kernel's messages do not all have the same session.
    """

    language_info: Mapping[str, Any]
    implementation: str
    protocol_version: str
    banner: str
    session: str | None


class Handshake:
    """The handshake as a state machine, driven by messages and time."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._asked: set[str] = set()
        self._reply: Message | None = None
        self._sessions: set[str] = set()
        self._heard_iopub = False
        self._started_by: float | None = None
        self._starts = False
        self.deadline: float | None = None
        """The time of the next call of :meth:`tick`, on the clock of `now`, or None."""

    @property
    def kernel(self) -> KernelInfo | None:
        """Return the kernel once it has replied and its iopub messages arrive, otherwise None."""
        if self._reply is None or not self._heard_iopub or self._starts:
            return None
        content = self._reply.content
        own = self._sessions == {self._reply.session} and self._reply.session not in ("", self._requests.session)
        return KernelInfo(
            as_object(content.get("language_info")),
            str(content.get("implementation") or ""),
            str(content.get("protocol_version") or ""),
            str(content.get("banner") or ""),
            self._reply.session if own else None,
        )

    def ask(self) -> Message:
        """Return the request to send."""
        question = self._requests.kernel_info()
        self._asked.add(question.id)
        return question

    def receive(self, message: Message, now: float) -> bool:
        """Handle one message; return whether it belongs to the handshake."""
        if message.parent_id not in self._asked:
            return False
        self._sessions.add(message.session)
        if message.channel == Channel.IOPUB:
            self._heard_iopub = True
        elif message.type == "kernel_info_reply":
            self._reply = message
            self._started_by = self._started_by or now + START_LIMIT
            version = as_object(message.content.get("language_info")).get("version")
            self._starts = version == _UNKNOWN_YET and now < self._started_by
            self.deadline = now + (ASK_SOON if self._starts else ASK_AGAIN)
        return True

    def tick(self, now: float) -> Sequence[Message]:
        """Return the requests to send after the deadline."""
        if self.deadline is None or now < self.deadline:
            return ()
        self.deadline = now + ASK_AGAIN
        return (self.ask(),)
