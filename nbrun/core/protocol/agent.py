"""Requests to nbrun's agent in the kernel, and their replies.

The agent (:mod:`nbrun.kernel_side.agent`) is installed by one silent request. Its first reply lists what it can do in
this kernel. If a kernel does not reply, it is used without the agent. The agent's sources are an argument, because the
core reads no files.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from nbrun.core.formats.json_text import as_object, loads
from nbrun.core.protocol.messages import Channel, Message, Requests
from nbrun.errors import BadFrame

HELLO = "nbrun_hello_request"
HELLO_REPLY = "nbrun_hello_reply"
RESEND = "nbrun_resend_request"
RESEND_REPLY = "nbrun_resend_reply"
RECALL = "nbrun_recall_request"
RECALL_REPLY = "nbrun_recall_reply"
DRAIN = "nbrun_drain_request"
EXECUTE_LIST = "nbrun_execute_list_request"
REPLAY_BUFFER = 32_000_000
"""Bytes of output that a kernel stores to send them again."""
_UNSENT = "nbrun_unsent"
_PACKAGE = """\
import sys
from types import ModuleType
modules = {f"nbrun_agent.{name}": ModuleType(f"nbrun_agent.{name}") for name in sources}
sys.modules.update(modules, nbrun_agent=ModuleType("nbrun_agent"))
try:
    for module, source in zip(modules.values(), sources.values()):
        module.__package__ = "nbrun_agent"
        exec(compile(source, f"<{module.__name__}>", "exec"), module.__dict__)
finally:
    for name in (*modules, "nbrun_agent"):
        del sys.modules[name]
modules["nbrun_agent.agent"].install(kernel, options)
"""
_INSTALL = "exec({package!r}, {{'kernel': get_ipython().kernel, 'sources': {sources!r}, 'options': {options!r}}})"
"""Imports the agent from its sources without leaving a name in the user's namespace or a module in ``sys.modules``."""


class Ability(StrEnum):
    """The abilities of an agent, see :mod:`nbrun.kernel_side.agent`."""

    REPLAY = "replay"
    CONDITIONAL = "conditional"
    ONCE = "once"
    LIST = "list"
    PROGRESS = "progress"
    UNSENT = "unsent"
    WRITERS = "writers"
    TRACEBACK = "traceback"
    QUICK = "quick"
    LIFT_LIMITS = "lift_limits"
    QUIET = "quiet"
    FREEZE = "freeze"


class AgentOptions(Struct, frozen=True):
    """Options of the agent.

    They are its replay buffer in bytes, whether it lifts limits, whether it is quiet in logs, whether it leaves the
    objects of a new kernel out of garbage collection, and path and name of the memory that it shares with the client
    (:class:`nbrun.kernel_side.agent.Progress`).
    """

    replay: int = 0
    lift_limits: bool = False
    quiet: bool = False
    freeze: bool = False
    progress: Mapping[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON."""
        return {
            "replay": self.replay,
            "lift_limits": self.lift_limits,
            "quiet": self.quiet,
            "freeze": self.freeze,
            "progress": self.progress,
        }


class Agent(Struct, frozen=True):
    """The agent of one kernel after its handshake. Without abilities there is no agent.

    ``took`` is the duration of the handshake in seconds, ``last`` the kernel's last message in it. ``round_trip`` are
    the seconds of a round trip to the server meanwhile, infinite if it was not measured.
    """

    abilities: frozenset[str] = frozenset()
    took: float = 0.0
    last: Message | None = None
    round_trip: float = math.inf


def install(requests: Requests, sources: Mapping[str, str], options: AgentOptions) -> Message:
    """Return the request that installs the agent in an ipykernel.

    `sources` are the names of its modules and their texts. Each module imports only those before it, and the last one,
    ``agent``, has a function ``install(kernel, options)``.
    """
    code = _INSTALL.format(package=_PACKAGE, sources=dict(sources), options=options.as_dict())
    return requests.execute(code, silent=True, stop_on_error=False)


def hello(requests: Requests, options: AgentOptions) -> Message:
    """Return the request for the abilities. A reply also shows that the server forwards such requests."""
    return requests.special(Channel.SHELL, HELLO, options.as_dict())


def abilities_in(reply: Message) -> frozenset[str]:
    """Return the abilities in a reply to :func:`hello`."""
    named = reply.content.get("abilities")
    return frozenset(each for each in named if isinstance(each, str)) if isinstance(named, list) else frozenset()


def recall(requests: Requests, request: str) -> Message:
    """Return the request that cancels all cells sent behind `request`."""
    return requests.special(Channel.CONTROL, RECALL, {"request": request})


def execute_list(requests: Requests, cells: Iterable[Message], limit: float | None) -> Message:
    """Return the request that carries the requests `cells`; after `limit` seconds the kernel starts no more of them."""
    each = [{"header": cell.header, "metadata": cell.metadata, "content": cell.content} for cell in cells]
    return requests.special(Channel.SHELL, EXECUTE_LIST, {"cells": each, "limit": limit})


def resend(requests: Requests, numbers: Sequence[tuple[int, int | None]]) -> Message:
    """Return the request for messages by ascending ranges of numbers, first and last; None means the newest."""
    return requests.special(Channel.CONTROL, RESEND, {"numbers": numbers})


def resent(answer: Message) -> list[Message]:
    """Return the messages in an answer to :func:`resend`; invalid ones are ignored."""
    texts, buffers, found = answer.content.get("messages"), list(answer.buffers), []
    for text in texts if isinstance(texts, list) else ():
        body = _body(text)
        count = body.get("buffers")
        count = count if isinstance(count, int) else 0
        own, buffers = buffers[:count], buffers[count:]
        header, parent, content, metadata = (
            as_object(body.get(name)) for name in ("header", "parent_header", "content", "metadata")
        )
        found.append(Message(str(body.get("channel")), header, parent, content, metadata, tuple(own)))
    return found


def sent_after(answer: Message) -> list[int | None]:
    """Return for each message of :func:`resent` the number of the output that the kernel had sent just before it."""
    named = answer.content.get("after")
    return [each if isinstance(each, int) else None for each in named] if isinstance(named, list) else []


def _body(text: Any) -> dict[str, Any]:
    try:
        return as_object(loads(text)) if isinstance(text, str) else {}
    except BadFrame:
        return {}


def drain(requests: Requests, doubtful: Iterable[tuple[int, int]]) -> Message:
    """Return the request that asks whether anything can still write, and which numbers were not sent.

    `doubtful` are the first and last numbers of each range with missing messages.
    """
    return requests.special(Channel.SHELL, DRAIN, {"of": [*doubtful]})


def has_writers(answer: Message) -> bool:
    """Return whether anything may still write: true unless an answer to :func:`drain` denies it."""
    return answer.content.get("writers") is not False


def unsent_in(answer: Message, doubtful: Iterable[tuple[int, int]]) -> Counter[int]:
    """Return the number of unsent messages in each range, by its last number, from an answer to :func:`drain`."""
    return _amounts(answer.content, "unsent", doubtful)


def unsent_at_exit(reply: Message, doubtful: Iterable[tuple[int, int]]) -> Counter[int]:
    """Return the same from the reply to a cell that ended the kernel."""
    return _amounts(reply.metadata, _UNSENT, doubtful)


def _amounts(where: Mapping[str, Any], key: str, stretches: Iterable[tuple[int, int]]) -> Counter[int]:
    named = where.get(key)
    numbers = [number for number in named if isinstance(number, int)] if isinstance(named, list) else []
    return Counter({last: sum(first <= number <= last for number in numbers) for first, last in stretches})
