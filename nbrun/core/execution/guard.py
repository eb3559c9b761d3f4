"""The guard in the kernel that makes it safe to send cells ahead.

ipykernel throws away, after an error, what is *queued at that moment*; what is still on the wire it executes. So a cell
that is sent before the reply of the one before it must carry its condition with it. The guard is a few lines that the
run leaves in the kernel; they know requests of a type of their own, which say behind which request they belong::

    execute A            runs
    execute B, after A   runs if A has passed; else the reply is "aborted", at once, and nothing was done
    execute C, after B   ...
    recall B             nothing that stands behind B begins any more; and is B running, has it ended, or is it unknown?

*Passed* means: the reply was ``ok``, the cell did not call ``exit()``, nobody recalled it, and no comm is open (the
Output widget has to be told what it holds before the next cell runs). A kernel without the guard, a fresh one behind
the address of ours say, does not know the type and does nothing. A recall comes on the control channel, past the queue.

Before each cell the guard forgets the last traceback, which ipykernel would report again where an error has none.
Before a cell that was sent ahead begins, the guard lets the sockets take what the cell before it put out, or a crash in
its first line would take that along.
"""

from nbrun.core.protocol.messages import Channel, Message, Requests

HELLO = "nbrun_hello_request"
HELLO_REPLY = "nbrun_hello_reply"
RECALL = "nbrun_recall_request"
RECALL_REPLY = "nbrun_recall_reply"

_SOURCE = """
import threading, time

running = passed = None
ended, recalled = set(), set()
finish_metadata = kernel.finish_metadata

def hand_over():
    taken = threading.Event()
    kernel.iopub_thread.schedule(taken.set)
    taken.wait(1)
    time.sleep(0.0005)

async def execute(stream, ident, parent):
    global running, passed
    own, after = parent["header"]["msg_id"], parent["metadata"].get("nbrun_after")
    if after is not None:
        hand_over()
    if own in recalled or after in recalled or (after is not None and after != passed):
        kernel.session.send(stream, "execute_reply", {"status": "aborted"}, parent, ident=ident)
        return
    running, passed = own, None
    if kernel.shell is not None:
        kernel.shell._last_traceback = None
        kernel.shell._last_traceback_during_displayhook = False
    parent["header"]["msg_type"] = parent["msg_type"] = "execute_request"
    try:
        await kernel.execute_request(stream, ident, parent)
    finally:
        running = None
        ended.add(own)

def finish(parent, metadata, content):
    global passed
    exits = [payload for payload in content.get("payload") or () if payload.get("source") == "ask_exit"]
    if running == parent["header"]["msg_id"] and content["status"] == "ok" and not exits:
        passed = None if kernel.comm_manager.comms else running
    return finish_metadata(parent, metadata, content)

async def hello(stream, ident, parent):
    kernel.session.send(stream, "nbrun_hello_reply", {"status": "ok"}, parent, ident=ident)

async def recall(stream, ident, parent):
    request = parent["content"]["request"]
    recalled.add(request)
    state = "running" if request == running else "ended" if request in ended else "unknown"
    kernel.session.send(stream, "nbrun_recall_reply", {"status": "ok", "state": state}, parent, ident=ident)

kernel.comm_manager.comms, kernel.iopub_thread.schedule
kernel.finish_metadata = finish
kernel.shell_handlers.update(nbrun_execute_request=execute, nbrun_hello_request=hello)
kernel.control_handlers.update(nbrun_recall_request=recall)
"""
INSTALL = f"exec({_SOURCE!r}, {{'kernel': get_ipython().kernel}})"
"""Code for a silent request; it leaves no name behind, and raises in a kernel that has not what the guard needs."""


def hello(requests: Requests) -> Message:
    """Ask whether the guard is there, and whether its types of requests get through to it."""
    return requests.special(Channel.SHELL, HELLO, {})


def recall(requests: Requests, request: str) -> Message:
    """Ask that nothing begins which was sent behind a request."""
    return requests.special(Channel.CONTROL, RECALL, {"request": request})
