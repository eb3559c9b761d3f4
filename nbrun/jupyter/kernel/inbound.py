"""The path of incoming kernel messages: retransmission, then masking, then the state machine.

Only messages are changed. Held messages are released before any other event that may end the run.
"""

import logging
from collections.abc import Iterable
from typing import Any, Self

from nbrun.core.delivery.retransmission import ResentMessages
from nbrun.core.outputs.masking import MaskedMessages
from nbrun.core.protocol.agent import RESEND, RESEND_REPLY, Ability, Agent, resent
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.core.protocol.messages import Message, Requests
from nbrun.jupyter.kernel.websocket import Cut, Lost, Restored

DRAIN_DELAY = 60.0
"""Maximum seconds that the end of a run waits for requested messages, however much output other threads produce."""
_log = logging.getLogger(__name__)


class Intake:
    """The steps for one kernel's arrivals: retransmission and masking, each optional."""

    def __init__(
        self,
        *,
        resent: ResentMessages | None = None,
        masked: MaskedMessages | None = None,
    ) -> None:
        self._resent = resent
        self._masked = masked
        self._draining_since: float | None = None
        self._asks = False
        """Whether an answer of the replay buffer is to be logged."""
        self.may_delay = resent is not None
        """Whether :meth:`delays` can return true."""

    @classmethod
    def of(
        cls,
        info: KernelInfo,
        agent: Agent,
        requests: Requests,
        *,
        masked: MaskedMessages | None = None,
    ) -> Self:
        """Return the steps for a kernel: lost messages are requested again if its agent has a replay buffer."""
        if Ability.REPLAY in agent.abilities and info.session:
            return cls(resent=ResentMessages(requests, info.session, agent.last), masked=masked)
        return cls(masked=masked)

    def receive(self, arrival: Any, now: float) -> list[Any]:
        """Return the arrivals to pass on for one arrival. None means that time has passed."""
        if self._resent is None:
            return self._mask(arrival)
        arrivals: list[Any]
        match arrival:
            case Message():
                if self._asks and arrival.type == RESEND_REPLY:
                    self._asks = False
                    _log.info("the kernel sent %d messages again", len(resent(arrival)))
                arrivals = [*self._resent.receive(arrival, now)]
            case None:
                arrivals = [*self._resent.tick(now), None]
            case Lost():
                arrivals = [*self._resent.release(), arrival]
            case Cut():
                self._resent.cut(now)
                arrivals = [arrival]
            case Restored():
                self._resent.reconnected(now)
                arrivals = [arrival]
            case _:
                arrivals = [arrival]
        if self._masked is None:
            return arrivals
        return [masked for each in arrivals for masked in self._mask(each)]

    def requests(self) -> list[Message]:
        """Remove and return the requests to send to the kernel."""
        requests = [] if self._resent is None else self._resent.requests()
        if requests and _log.isEnabledFor(logging.INFO):
            for request in requests:
                if request.type == RESEND:
                    self._asks = True
                    _log.info("asking the kernel again for messages %s", _spelled(request.content["numbers"]))
        return requests

    def deadline(self, wanted: float | None, *, delays: bool) -> float | None:
        """Return the time of the next call with None; `wanted` is the deadline of the state machine."""
        own = None if self._resent is None else self._resent.deadline
        return wanted if own is None or (wanted is not None and wanted < own and not delays) else own

    def delays(self, now: float, *, is_draining: bool, is_stopping: bool) -> bool:
        """Return whether the timers of the state machine must wait for requested messages.

        They do not wait while a cell is being stopped. At the end of a run they wait at most :data:`DRAIN_DELAY`
        seconds.
        """
        if self._resent is None or is_stopping:
            return False
        if not is_draining:
            return self._resent.is_holding
        self._draining_since = now if self._draining_since is None else self._draining_since
        return self._resent.is_waiting and now < self._draining_since + DRAIN_DELAY

    def release(self) -> Iterable[Message]:
        """Return all held messages, because no more will arrive."""
        held = [] if self._resent is None else self._resent.release()
        return [*held] if self._masked is None else [*self._mask_all(held), *self._masked.release()]

    def _mask_all(self, messages: Iterable[Message]) -> list[Any]:
        return [masked for each in messages for masked in self._mask(each)]

    def _mask(self, arrival: Any) -> list[Any]:
        if self._masked is None:
            return [arrival]
        match arrival:
            case Message():
                return [*self._masked.mask(arrival)]
            case None:
                return [*self._masked.release_late(), None]
            case _:
                return [*self._masked.release(), arrival]


def _spelled(ranges: Iterable[tuple[int, int | None]]) -> str:
    """Return ranges of sequence numbers as text."""
    return ", ".join(f"{first}-{'' if last is None else last}" for first, last in ranges)
