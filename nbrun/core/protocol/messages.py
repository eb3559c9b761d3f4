"""A kernel message as a value, and the requests that nbrun sends.

The messaging specification calls the two dictionaries of a message *header* and *parent_header*. Every message that a
kernel sends because of a request has the request's header as its parent. nbrun assigns messages by the parent's
``msg_id`` only. The session of the parent does not identify the client, because a server's own requests also use the
client's session id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

PROTOCOL_VERSION = "5.3"
"""A header without a version is taken for protocol 4, and ipykernel then never answers."""

KERNEL_INFO = "kernel_info_request"
"""The type of the question that frontends, and servers for themselves, ask at any time."""

CONDITIONAL_EXECUTE = "nbrun_execute_request"
"""The type of an execution that a kernel refuses unless the one before it has passed."""

Json = Mapping[str, Any]
"""A JSON object as it came; never changed in place."""


class Channel(StrEnum):
    """The channels of a kernel that a websocket carries."""

    SHELL = "shell"
    IOPUB = "iopub"
    STDIN = "stdin"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Message:
    """One message, in either direction.

    ``channel`` is a plain string: servers may name channels that nbrun does not know, and those pass unread.
    ``buffers`` are raw binary attachments; only comm messages use them in practice.
    """

    channel: str
    header: Json
    parent: Json
    content: Json
    metadata: Json = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()

    @property
    def type(self) -> str:
        """Return the ``msg_type``; empty where the sender gave none."""
        return _text(self.header.get("msg_type"))

    @property
    def id(self) -> str:
        """Return the message's own ``msg_id``."""
        return _text(self.header.get("msg_id"))

    @property
    def session(self) -> str:
        """Return the session of the *sender*: the kernel's, or our own on messages that the server makes up."""
        return _text(self.header.get("session"))

    @property
    def date(self) -> str:
        """Return the sender's time stamp (ISO 8601, the kernel's clock); empty where there is none."""
        return _text(self.header.get("date"))

    @property
    def parent_id(self) -> str:
        """Return the ``msg_id`` of the request that this message answers; empty where it answers none."""
        return _text(self.parent.get("msg_id"))

    @property
    def parent_type(self) -> str:
        """Return the ``msg_type`` of that request; empty where it is not told."""
        return _text(self.parent.get("msg_type"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


@dataclass(slots=True)
class Requests:
    """Makes the requests of one client session, each with a ``msg_id`` of its own.

    ``session`` is the random id that names this client to the server and must stay the same over reconnects, or the
    server throws away what it kept for us. Ids count up from it, so a recorded run can be replayed to the letter.
    """

    session: str
    username: str = "nbrun"
    _made: int = 0

    def execute(
        self,
        code: str,
        *,
        stop_on_error: bool = True,
        silent: bool = False,
        expressions: Json | None = None,
        metadata: Json | None = None,
        kind: str = "execute_request",
    ) -> Message:
        """Ask to execute `code`, and then to evaluate `expressions`, by name.

        `kind` is another type of request that executes, for a kernel that knows it.

        Never allows stdin: nobody is there to answer. ``metadata`` must be an object even when it is empty; ipykernel
        answers ``null`` with busy and idle and no reply.
        """
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": expressions or {},
            "allow_stdin": False,
            "stop_on_error": stop_on_error,
        }
        return self._make(Channel.SHELL, kind, content, metadata=metadata)

    def kernel_info(self, channel: Channel = Channel.SHELL) -> Message:
        """Ask what the kernel is. As a barrier, its reply shows that every earlier shell request is finished."""
        return self._make(channel, KERNEL_INFO, {})

    def complete(self, code: str, cursor_pos: int) -> Message:
        """Ask for completions at `cursor_pos`, counted in Unicode code points."""
        return self._make(Channel.SHELL, "complete_request", {"code": code, "cursor_pos": cursor_pos})

    def inspect(self, code: str, cursor_pos: int, detail_level: int = 0) -> Message:
        """Ask what stands at `cursor_pos`; `detail_level` 1 adds the source where there is one."""
        content = {"code": code, "cursor_pos": cursor_pos, "detail_level": detail_level}
        return self._make(Channel.SHELL, "inspect_request", content)

    def comm_update(self, comm_id: str, outputs: Sequence[Mapping[str, Any]]) -> Message:
        """Send the state of an Output widget to the kernel, as a frontend does."""
        data = {"method": "update", "state": {"outputs": list(outputs)}, "buffer_paths": []}
        return self._make(Channel.SHELL, "comm_msg", {"comm_id": comm_id, "data": data})

    def special(self, channel: Channel, kind: str, content: Json) -> Message:
        """Ask what is in no specification, of a kernel that was taught it."""
        return self._make(channel, kind, content)

    def _make(
        self,
        channel: Channel,
        msg_type: str,
        content: Json,
        *,
        metadata: Json | None = None,
    ) -> Message:
        self._made += 1
        header = {
            "msg_id": f"{self.session}_{self._made}",
            "msg_type": msg_type,
            "session": self.session,
            "username": self.username,
            "version": PROTOCOL_VERSION,
        }
        return Message(channel, header, {}, content, metadata or {})


def traceback_lines(value: object) -> list[str]:
    """Return a traceback as nbformat wants it, a list of strings, from whatever a kernel sent."""
    if isinstance(value, str):
        return value.split("\n")
    if isinstance(value, Sequence):
        return [line if isinstance(line, str) else str(line) for line in value]
    return []
