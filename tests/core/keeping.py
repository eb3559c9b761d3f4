"""A kernel that is no process, with the real agent in it: what it sends waits in queues, to be delivered or lost.

Its output and its replies go over two sockets, as a real kernel's do, so a test may let either run ahead.
"""

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from nbrun.core.protocol.agent import REPLAY_BUFFER
from nbrun.core.protocol.messages import Channel, Message
from nbrun.kernel_side import agent, replay
from tests.core.conversation import KERNEL, OURS


def pack(value: Any) -> bytes:
    """Write JSON as the kernel does."""
    return json.dumps(value).encode()


class KeptKernel:
    """Numbers and keeps what it sends; `room`, `portion` and `last_replies` are the replay buffer's."""

    def __init__(
        self,
        room: int = REPLAY_BUFFER,
        portion: int = replay.PORTION,
        last_replies: int = replay.REPLIES,
    ) -> None:
        self.said: list[Message] = []
        """All of its output, in the order in which it was sent."""
        self.iopub: deque[Message] = deque()
        self.replies: deque[Message] = deque()
        self.answered: list[Message] = []
        """All of its replies."""
        self.pid = os.getpid()
        self._count = 0
        self._cells = 0
        self.session = SimpleNamespace(
            session=KERNEL, pack=pack, send=self._send, message_count=0, serialize=lambda message: message
        )
        self.iopub_thread = SimpleNamespace(_really_send=self._put, schedule=lambda work: work())
        self.control_handlers: dict[str, Any] = {}
        self.shell_handlers: dict[str, Any] = {}
        self.agent = agent.install(self, {"replay": room})
        assert self.agent.replay is not None
        self.agent.replay.portion, self.agent.replay.last_replies = portion, last_replies

    # What it does --------------------------------------------------------------------------------------------------

    def publish(self, kind: str, content: Any, parent: Mapping[str, Any], *buffers: Any) -> None:
        """Put out a message."""
        self.put_out(self.number(kind, content, parent, *buffers))

    def number(self, kind: str, content: Any, parent: Mapping[str, Any], *buffers: Any) -> list[bytes]:
        """Number a message, to put it out later."""
        parts = [pack(part) for part in (self._header(kind), parent, {}, content)]
        return [b"topic", b"<IDS|MSG>", b"signature", *parts, *buffers]

    def put_out(self, message: list[bytes]) -> None:
        """Put out a numbered message."""
        self.iopub_thread._really_send(message)

    def run_cell(
        self, outputs: int, parent: str = "", kind: str = "execute_request", *, has_result: bool = False
    ) -> None:
        """Run a cell that prints so often; a request of another session, or of another kind, is handled alike.

        A result is numbered before the last text, and put out behind it, as in ipykernel.
        """
        self._cells += 1
        asked = {"msg_id": parent or f"{OURS}_cell{self._cells}", "msg_type": kind}
        self.publish("status", {"execution_state": "busy"}, asked)
        for number in range(outputs):
            is_last = has_result and number == outputs - 1
            result = self.number("execute_result", {"text": f"{self._cells}:result"}, asked) if is_last else None
            self.publish("stream", {"text": f"{self._cells}:{number}"}, asked)
            if result is not None:
                self.put_out(result)
        if not kind.startswith("comm_"):
            self.session.send("shell", "execute_reply", {"status": "ok"}, {"header": asked})
        self.publish("status", {"execution_state": "idle"}, asked)

    def answer(self, request: Message) -> None:
        """Handle a request on the control channel."""
        asked = {"header": request.header}
        self.session.send("iopub", "status", {"execution_state": "busy"}, parent=asked)
        self.control_handlers[request.type](None, b"", {"header": request.header, "content": request.content})
        self.session.send("iopub", "status", {"execution_state": "idle"}, parent=asked)

    # How it does it ------------------------------------------------------------------------------------------------

    def _header(self, kind: str) -> dict[str, Any]:
        self._count += 1
        return {"msg_id": f"{KERNEL}_{self.pid}_{self._count}", "msg_type": kind, "session": KERNEL}

    def _put(self, parts: Sequence[Any]) -> None:
        header, parent, metadata, content = (json.loads(part) for part in parts[3:7])
        message = Message(Channel.IOPUB, header, parent, content, metadata, tuple(bytes(part) for part in parts[7:]))
        self.iopub.append(message)
        self.said.append(message)

    def _send(
        self, stream: Any, kind: str, content: Any, parent: Any, ident: Any = None, buffers: Any = ()
    ) -> dict[str, Any]:
        channel = Channel.SHELL if kind == "execute_reply" else Channel.CONTROL
        message = Message(channel, self._header(kind), parent["header"], content, buffers=tuple(buffers))
        self.replies.append(message)
        self.answered.append(message)
        return {
            "header": {**message.header, "msg_type": kind},
            "parent_header": parent["header"],
            "metadata": {},
            "content": content,
        }
