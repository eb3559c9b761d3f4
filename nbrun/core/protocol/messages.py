"""A kernel message as a value, and the requests that nbrun sends.

The messaging specification calls the two dictionaries of a message *header* and *parent_header*. Every message that a
kernel sends because of a request has the request's header as its parent. nbrun assigns messages by the parent's
``msg_id`` only. The session of the parent does not identify the client, because a server's own requests also use the
client's session id.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

PROTOCOL_VERSION = "5.3"
"""The version in request headers. Without one, ipykernel assumes protocol 4 and never answers."""

KERNEL_INFO = "kernel_info_request"
"""The type of the request that frontends and servers may send at any time."""

CONDITIONAL_EXECUTE = "nbrun_execute_request"
"""The type of an execute request that the agent refuses unless the previous cell has passed."""

Json = Mapping[str, Any]
"""A JSON object, never modified."""


class Channel(StrEnum):
    """The channels of a kernel on a websocket."""

    SHELL = "shell"
    IOPUB = "iopub"
    STDIN = "stdin"
    CONTROL = "control"


class Message(Struct, frozen=True):
    """A message in either direction.

    ``channel`` is a plain string, because servers may use channels that nbrun does not know; those messages are
    ignored. ``buffers`` are raw binary attachments, in practice only of comm messages.
    """

    channel: str
    header: Json
    parent: Json
    content: Json
    metadata: Json = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()

    @property
    def type(self) -> str:
        """Return the ``msg_type``, or "" if there is none."""
        return _text(self.header.get("msg_type"))

    @property
    def id(self) -> str:
        """Return the message's ``msg_id``."""
        return _text(self.header.get("msg_id"))

    @property
    def session(self) -> str:
        """Return the session of the *sender*: the kernel's, or the client's in messages that the server creates."""
        return _text(self.header.get("session"))

    @property
    def date(self) -> str:
        """Return the sender's time stamp (ISO 8601, the kernel's clock), or "" if there is none."""
        return _text(self.header.get("date"))

    @property
    def parent_id(self) -> str:
        """Return the ``msg_id`` of the request that caused this message, or "" if there is none."""
        return _text(self.parent.get("msg_id"))

    @property
    def parent_type(self) -> str:
        """Return the ``msg_type`` of that request, or "" if it is missing."""
        return _text(self.parent.get("msg_type"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Requests(Struct):
    """Creates the requests of one client session, each with its own ``msg_id``.

    ``session`` is the random id of this client, the one in the address of the websocket. Servers send messages and
    requests of their own with it, and old ones number them as nbrun does. So the message ids begin with ``id_prefix``,
    by default the session. They are numbered, so a recorded run can be replayed exactly.
    """

    session: str
    username: str = "nbrun"
    id_prefix: str = ""
    _made: int = 0

    def __post_init__(self) -> None:
        self.id_prefix = self.id_prefix or self.session

    @property
    def made(self) -> int:
        """Return the number of requests so far."""
        return self._made

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
        """Return a request to execute `code`, and then to evaluate `expressions`, by name.

        `kind` is another type of execute request, for a kernel that knows it. stdin is never allowed, because nobody
        can answer. ``metadata`` must be an object: ipykernel answers ``null`` with busy and idle but without a reply.
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
        """Return a kernel_info request. As a barrier, its reply shows that every earlier shell request is finished."""
        return self._make(channel, KERNEL_INFO, {})

    def complete(self, code: str, cursor_pos: int) -> Message:
        """Return a request for completions at `cursor_pos`, counted in Unicode code points."""
        return self._make(Channel.SHELL, "complete_request", {"code": code, "cursor_pos": cursor_pos})

    def inspect(self, code: str, cursor_pos: int, detail_level: int = 0) -> Message:
        """Return a request for information at `cursor_pos`; `detail_level` 1 adds the source if there is one."""
        content = {"code": code, "cursor_pos": cursor_pos, "detail_level": detail_level}
        return self._make(Channel.SHELL, "inspect_request", content)

    def comm_update(self, comm_id: str, outputs: Sequence[Mapping[str, Any]]) -> Message:
        """Return a message that sends the state of an Output widget to the kernel, as a frontend does."""
        data = {"method": "update", "state": {"outputs": list(outputs)}, "buffer_paths": []}
        return self._make(Channel.SHELL, "comm_msg", {"comm_id": comm_id, "data": data})

    def special(self, channel: Channel, kind: str, content: Json) -> Message:
        """Return a request of a type that only the agent knows."""
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
            "msg_id": f"{self.id_prefix}_{self._made}",
            "msg_type": msg_type,
            "session": self.session,
            "username": self.username,
            "version": PROTOCOL_VERSION,
        }
        return Message(channel, header, {}, content, metadata or {})


def traceback_lines(value: object) -> list[str]:
    """Return the ``traceback`` of a message as a list of strings, as nbformat requires it."""
    if isinstance(value, str):
        return value.split("\n")
    if isinstance(value, Sequence):
        return [line if isinstance(line, str) else str(line) for line in value]
    return []
