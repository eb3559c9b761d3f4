"""The keeper in the kernel: it remembers what ipykernel sent, and gives it again to whoever asks for it by its number.

A few lines that a run leaves in the kernel of its own session. Every output message passes through them, in the thread
that sends it, and is kept by reference in a ring that is bounded in bytes; so are the last replies. They know
one type of request, on the control channel, which a kernel answers while it runs a cell::

    numbers [[45, 47], [60, null]]   what bears these numbers, null: up to the newest, as far as it fits into one answer
    messages [...] until 62          the messages themselves, as text, with their binary parts as the answer's own;
                                     nothing else up to 62 will come, and what was asked for beyond may be asked again
    newest 80  evicted 12            how far the kernel has counted, and up to where the ring has forgotten
    others 0                         how many messages bore none of its numbers: those of forked children

The answer goes to nobody else: other frontends see nothing twice, and no server's limit on output applies to it. No
status is published for the question, because a server would take its idle for that of the cell that runs.
"""

from collections.abc import Sequence
from typing import Any

from nbrun.core.delivery.unsent import REMEMBER
from nbrun.core.formats.json_text import as_object, loads
from nbrun.core.protocol.messages import Channel, Message, Requests
from nbrun.errors import BadFrame

RESEND = "nbrun_resend_request"
RESEND_REPLY = "nbrun_resend_reply"
ROOM = 32_000_000
"""Bytes of output that the kernel remembers."""
PORTION = 4_000_000
"""Bytes of one answer, but for a single message that is larger."""
REPLIES = 64
"""How many replies it remembers; those of its own without what they brought."""

_SOURCE = (
    REMEMBER
    + """
import os, re, threading
from collections import OrderedDict

session, iopub = kernel.session, kernel.iopub_thread
remember_unsent(session)
really_send, session_send = iopub._really_send, session.send
numbered = re.compile(b'"msg_id": ?"%b_([0-9]+)"' % re.escape(f"{session.session}_{os.getpid()}".encode()))
kept, replies = OrderedDict(), OrderedDict()
size = others = 0
newest = evicted = -1

def keep(message):
    global size, others, newest, evicted
    start = message.index(b"<IDS|MSG>") + 2
    found = numbered.search(message[start])
    if found is None:
        others += 1
        return
    number = int(found[1])
    parts = tuple([bytes(part) for part in message[start:]])
    kept[number] = parts
    newest = max(newest, number)
    size += sum(map(len, parts)) + 300
    while size > room:
        number, parts = kept.popitem(last=False)
        size -= sum(map(len, parts)) + 300
        evicted = max(evicted, number)

def send_output(message, *args, **kwargs):
    try:
        keep(message)
    except Exception:
        pass
    return really_send(message, *args, **kwargs)

def is_question(parent):
    # Servers that watch a kernel's activity would take the idle for the end of the cell that runs meanwhile.
    return isinstance(parent, dict) and parent.get("header", {}).get("msg_type") == "nbrun_resend_request"

def send(stream, msg_or_type, *args, **kwargs):
    global newest
    if msg_or_type == "status" and is_question(kwargs.get("parent")):
        return None
    sent = session_send(stream, msg_or_type, *args, **kwargs)
    if isinstance(msg_or_type, str) and msg_or_type.endswith("_reply"):
        try:
            number = int(sent["header"]["msg_id"].rpartition("_")[2])
            content = {} if msg_or_type == "nbrun_resend_reply" else sent["content"]
            parts = (sent["header"], sent["parent_header"], sent["metadata"], content)
            replies[number] = tuple([session.pack(part) for part in parts])
            newest = max(newest, number)
            if len(replies) > last_replies:
                replies.popitem(last=False)
        except Exception:
            pass
    return sent

def numbers_of(ranges, until):
    for first, last in ranges:
        last = until if last is None else min(last, until)
        start = max(first, evicted + 1)
        yield from sorted(number for number in list(replies) if first <= number < start and number <= last)
        yield from range(start, last + 1)

def text_of(channel, parts):
    names = (b'{"header":', b',"parent_header":', b',"metadata":', b',"content":')
    told = b"".join([each for pair in zip(names, parts) for each in pair])
    return told.decode("utf-8", "replace") + ',"channel":"%s","buffers":%d}' % (channel, len(parts) - 4)

async def resend(stream, ident, parent):
    taken = threading.Event()
    iopub.schedule(taken.set)
    taken.wait(1)
    until = end = newest
    messages, buffers, length = [], [], 0
    for number in numbers_of(parent["content"]["numbers"], end):
        parts, channel = kept.get(number), "iopub"
        if parts is None:
            parts, channel = replies.get(number), "shell"
        if parts is None:
            continue
        length += sum(map(len, parts))
        if messages and length > portion:
            until = number - 1
            break
        messages.append(text_of(channel, parts))
        buffers += parts[4:]
    content = dict(status="ok", messages=messages, until=until, newest=end, evicted=evicted, others=others)
    send(stream, "nbrun_resend_reply", content, parent, ident=ident, buffers=buffers)

iopub.schedule
kernel.control_handlers.update(nbrun_resend_request=resend)
iopub._really_send, session.send = send_output, send
"""
)
_NAMES = f"'kernel': get_ipython().kernel, 'room': {ROOM}, 'portion': {PORTION}, 'last_replies': {REPLIES}"
INSTALL = f"exec({_SOURCE!r}, {{{_NAMES}}})"
"""Code for a silent request; it leaves no name behind, and raises in a kernel that has not what the keeper needs."""


def resend(requests: Requests, numbers: Sequence[tuple[int, int | None]]) -> Message:
    """Ask for what bears these numbers: first and last of each range, which ascend; None for the newest."""
    return requests.special(Channel.CONTROL, RESEND, {"numbers": numbers})


def resent(answer: Message) -> list[Message]:
    """Return the messages that an answer brings; what is none is left out."""
    texts, buffers, given = answer.content.get("messages"), list(answer.buffers), []
    for text in texts if isinstance(texts, list) else ():
        body = _body(text)
        count = body.get("buffers")
        count = count if isinstance(count, int) else 0
        own, buffers = buffers[:count], buffers[count:]
        header, parent, content, metadata = (
            as_object(body.get(name)) for name in ("header", "parent_header", "content", "metadata")
        )
        given.append(Message(str(body.get("channel")), header, parent, content, metadata, tuple(own)))
    return given


def _body(text: Any) -> dict[str, Any]:
    try:
        return as_object(loads(text)) if isinstance(text, str) else {}
    except BadFrame:
        return {}
