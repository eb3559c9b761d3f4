"""The numbers that a kernel gives its messages.

Kernels built on jupyter_client's ``Session`` (ipykernel among them) name their messages ``<session>_<pid>_<n>``, one
counter for all channels. A forked child of the kernel counts too, under a pid of its own, from wherever it was forked.
"""

from bisect import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nbrun.core.protocol.messages import Message

_LONGEST = 18
"""Digits; what has more is no counter."""


@dataclass(slots=True)
class Numbering:
    """Reads the numbers of one kernel process, which is the one whose message comes first."""

    _prefix: str = ""

    def of(self, message: Message) -> int | None:
        """Return the number of a message of this kernel process; None for any other, a forked child's too."""
        prefix, _, digits = message.id.rpartition("_")
        if prefix != self._prefix or not prefix:
            session = message.session
            if self._prefix or not session or not prefix.startswith(session):
                return None
        if not digits.isdecimal() or len(digits) > _LONGEST:
            return None
        self._prefix = prefix
        return int(digits)


def woven(numbers: Collection[int], came: Sequence[int]) -> list[int]:
    """Return `numbers` with those of outputs that `came` by themselves in the order in which they came.

    Each of the others, of a reply or of what was sent again, goes before the first output that is behind it.
    """
    highest = [*accumulate(came, max)]
    places = [(place, True, number) for place, number in enumerate(came)]
    places += [(bisect(highest, number), False, number) for number in {*numbers}.difference(came)]
    return [number for *_, number in sorted(places)]
