"""Numbers that ipykernel took and then sent nothing with: nobody bears them, and nothing is lost.

ipykernel numbers a message before it knows whether there is one to send. There is none for a result that displays
itself (``_ipython_display_``, as plotly's figures do), for what cannot be represented at all, for what is interrupted
while it is represented, and for what a hook of the display publisher swallows. So the kernel's session remembers them,
from before the first cell, and is asked at the end where messages of a cell seem to be missing. A kernel that is told
to exit cannot be asked any more: its last reply bears the numbers in its metadata.

A number counts as sent once its message is made ready for the socket. What is lost from there on, be it that the
message cannot be written as JSON, is lost.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from nbrun.core.protocol.messages import Message, Requests

ROOM = 10_000
"""How many numbers a session remembers; of more than that the newest."""
_TOLD = "nbrun_unsent"

REMEMBER = """
def remember_unsent(session):
    import os, threading

    serialize, lock = session.serialize, threading.RLock()
    own, following = f"{session.session}_{os.getpid()}", session.message_count
    unsent = session.nbrun_unsent = {}

    def note(name):
        nonlocal following
        process, _, number = name.rpartition("_")
        if process != own:
            return
        number = int(number)
        with lock:
            first, following = following, max(following, number + 1)
            for skipped in range(max(first, number - ROOM), number):
                unsent[skipped] = None
            unsent.pop(number, None)
            while len(unsent) > ROOM:
                del unsent[next(iter(unsent))]

    def note_and_serialize(message, *args, **kwargs):
        try:
            note(message["header"]["msg_id"])
            if any(each["source"] == "ask_exit" for each in message["content"].get("payload", ())):
                message["metadata"]["TOLD"] = [*unsent]
        except Exception:
            pass
        return serialize(message, *args, **kwargs)

    session.serialize = note_and_serialize
""".replace("ROOM", str(ROOM)).replace("TOLD", _TOLD)
"""Source of a function that lets a ``Session`` of jupyter_client remember which numbers it took and sent nothing with.

A message may be sent later than one with a higher number, by another thread say: its number is remembered until then.
A forked child goes on with numbers of its own, and takes no lock that a thread may have held when it was forked.
"""

_INSTALL = f"exec({REMEMBER + 'remember_unsent(session)'!r}, {{'session': get_ipython().kernel.session}})"
_QUESTION = """
(lambda unsent: " ".join(f"{{last}}:{{sum(first <= number <= last for number in unsent)}}"
    for first, last in {stretches}))([*__import__("IPython").get_ipython().kernel.session.nbrun_unsent])
"""


def install(requests: Requests) -> Message:
    """Ask an ipykernel to remember. One that cannot is none the worse for it."""
    return requests.execute(_INSTALL, silent=True, stop_on_error=False)


def question(stretches: Iterable[tuple[int, int]]) -> str:
    """Return the expression of Python to evaluate in the kernel, about the numbers from each first to each last one."""
    return _QUESTION.format(stretches=[*stretches]).strip()


def amounts_in(answer: str) -> Counter[int]:
    """Read what Python shows of its value: how many were not sent of each stretch, by its last number."""
    words = (word.partition(":") for word in answer.strip("'").split())
    return Counter({int(last): int(amount) for last, _, amount in words if last.isdecimal() and amount.isdecimal()})


def amounts_told(reply: Message, stretches: Iterable[tuple[int, int]]) -> Counter[int]:
    """Read the same of the reply to a cell that told the kernel to exit."""
    told: Any = reply.metadata.get(_TOLD)
    numbers = [number for number in told if isinstance(number, int)] if isinstance(told, list) else []
    return Counter({last: sum(first <= number <= last for number in numbers) for first, last in stretches})
