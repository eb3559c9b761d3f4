"""What the agent uses of an ipykernel, as plain values."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from jupyter_client.session import Session

from nbrun.kernel_side.agent import install


class SmallKernel:
    """What the agent uses of ipykernel, as plain values; replies are kept."""

    def __init__(self, session: Any = None, **others: Any) -> None:
        self.session = Session() if session is None else session
        self.replies: list[Any] = []
        self.executed: list[str] = []
        self.forgetting: list[Any] = []
        self.options: list[tuple[int, int]] = []
        self.status = "ok"
        self.payload: list[dict[str, Any]] = []
        self.shell_handlers: dict[str, Any] = {}
        self.control_handlers: dict[str, Any] = {}
        self.shell: Any = SimpleNamespace(
            events=SimpleNamespace(register=lambda _, work: self.forgetting.append(work)), _last_traceback=["old"]
        )
        self.sent: list[tuple[str, str, str]] = []
        self.parents: list[str] = []
        self.hooks: list[str] = []
        self.failing: set[str] = set()
        self.beside: dict[str, Any] = {}
        self.logged = 0
        self.eventloop: Any = None
        self.log = SimpleNamespace(exception=self._log)
        self.comm_manager = SimpleNamespace(comms={})
        socket = SimpleNamespace(setsockopt=lambda *option: self.options.append(option))
        self.iopub_thread = SimpleNamespace(
            schedule=lambda work: work(),
            socket=socket,
            thread=SimpleNamespace(is_alive=lambda: False),
            io_loop=SimpleNamespace(add_callback=None),
            _really_send=lambda _: None,
        )
        vars(self).update(others)
        self.agent = install(self, {})
        self._send, self.session.send = self.session.send, self._keep

    def _log(self, _: str) -> None:
        self.logged += 1

    def set_parent(self, ident: bytes, parent: Any) -> None:
        self.parents.append(parent["header"]["msg_id"])

    def _publish_status(self, state: str, channel: str) -> None:
        self.sent.append(("status", state, self.parents[-1]))

    def pre_handler_hook(self) -> None:
        self.hooks.append("before")

    def post_handler_hook(self) -> None:
        self.hooks.append("after")

    def _keep(self, stream: Any, msg_or_type: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(msg_or_type, str) and msg_or_type.endswith("_reply"):
            self.replies.append(content)
            parent = args[0].get("header", {}) if args else {}
            self.sent.append((msg_or_type, str(content.get("status")), parent.get("msg_id", "")))
        return self._send(None, msg_or_type, content, *args, **kwargs)

    def finish_metadata(self, parent: Any, metadata: Any, content: Any) -> Any:
        return metadata

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        self.executed.append(code := parent["content"]["code"])
        if code in self.beside:
            self.beside[code]()
        content = {"status": "error" if code in self.failing else self.status, "payload": self.payload}
        self.finish_metadata(parent, {}, content)
        self.session.send(stream, "execute_reply", content, parent, ident=ident)

    def ask(self, kind: str, content: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        """Handle a request; returns the content of the reply."""
        header = {"msg_id": str(content.get("code")), "msg_type": kind}
        request = {"header": header, "content": content, "metadata": metadata}

        async def handle() -> None:
            result = (self.shell_handlers | self.control_handlers)[kind](None, b"", request)
            if result is not None:
                await result

        asyncio.run(handle())
        reply: dict[str, Any] = self.replies[-1]
        return reply

    def execute(self, code: str, after: str | None = None) -> str:
        """Execute on a condition; returns the status of the reply."""
        metadata = {} if after is None else {"nbrun_after": after}
        return str(self.ask("nbrun_execute_request", {"code": code}, **metadata)["status"])

    def execute_list(self, *codes: str, after: str | None = None, limit: float | None = None) -> None:
        """Execute a list of cells, of which each follows the one before it."""
        behind: tuple[str | None, ...] = (after, *codes)
        cells = [
            {
                "header": {"msg_id": code, "msg_type": "nbrun_execute_request"},
                "content": {"code": code},
                "metadata": {} if before is None else {"nbrun_after": before},
            }
            for code, before in zip(codes, behind, strict=False)
        ]
        request = {"header": {"msg_id": "list", "date": "now"}, "content": {"cells": cells, "limit": limit}}
        asyncio.run(self.shell_handlers["nbrun_execute_list_request"](None, b"", request))


def wait_for(iopub: Any) -> None:
    """Wait until the thread has handled everything so far."""
    handled = threading.Event()
    iopub.schedule(handled.set)
    assert handled.wait(10)
