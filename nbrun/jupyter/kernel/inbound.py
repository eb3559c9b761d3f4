"""The path of incoming kernel messages: retransmission, then masking, then the state machine.

Only messages are changed. Held messages are released before any other event that may end the run.
"""

from collections.abc import Iterable
from typing import Any, Self

from nbrun.core.delivery.retransmission import ResentMessages
from nbrun.core.outputs.masking import MaskedMessages
from nbrun.core.protocol.agent import Ability, Agent
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.core.protocol.messages import Message, Requests
from nbrun.jupyter.kernel.websocket import Cut, Lost, Restored

DRAIN_DELAY = 60.0
"""Seconds for which the end of a run waits for what is asked for again, however much a thread goes on to put out."""


class Intake:
    """The way of one kernel's arrivals; what is None of the two has no part in it."""

    def __init__(
        self,
        *,
        resent: ResentMessages | None = None,
        masked: MaskedMessages | None = None,
    ) -> None:
        self._resent = resent
        self._masked = masked
        self._draining_since: float | None = None
        self.may_delay = resent is not None
        """Whether :meth:`delays` has to be asked at all."""

    @classmethod
    def of(
        cls,
        info: KernelInfo,
        agent: Agent,
        requests: Requests,
        *,
        masked: MaskedMessages | None = None,
    ) -> Self:
        """Return the way of what a kernel with this agent says; what is lost is asked for again where it can be."""
        if Ability.REPLAY in agent.abilities and info.session:
            return cls(resent=ResentMessages(requests, info.session, agent.last), masked=masked)
        return cls(masked=masked)

    def take(self, arrival: Any, now: float) -> list[Any]:
        """Return what is to be fed in the place of an arrival; None for an arrival says that time has passed."""
        if self._resent is None:
            return self._mask(arrival)
        arrivals: list[Any]
        match arrival:
            case Message():
                arrivals = [*self._resent.take(arrival, now)]
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
        """Remove and return what is to be sent to the kernel."""
        return [] if self._resent is None else self._resent.requests()

    def deadline(self, wanted: float | None, *, delays: bool) -> float | None:
        """Return the time at which None is to be taken, where the state machine wants to be called at `wanted`."""
        own = None if self._resent is None else self._resent.deadline
        return wanted if own is None or (wanted is not None and wanted < own and not delays) else own

    def delays(self, now: float, *, is_draining: bool, is_stopping: bool) -> bool:
        """Return whether the state machine's clocks must wait: they would strike while something is on its way.

        Not where a cell is being stopped, and at the end of a run for :data:`DRAIN_DELAY` seconds at most.
        """
        if self._resent is None or is_stopping:
            return False
        if not is_draining:
            return self._resent.is_holding
        self._draining_since = now if self._draining_since is None else self._draining_since
        return self._resent.is_waiting and now < self._draining_since + DRAIN_DELAY

    def release(self) -> Iterable[Message]:
        """Return whatever is held back: no more will come."""
        held = [] if self._resent is None else self._resent.release()
        return [*held] if self._masked is None else [*self._mask_all(held), *self._masked.release()]

    def _mask_all(self, messages: Iterable[Message]) -> list[Any]:
        return [masked for each in messages for masked in self._mask(each)]

    def _mask(self, arrival: Any) -> list[Any]:
        if self._masked is None:
            return [arrival]
        match arrival:
            case Message():
                return [*self._masked.take(arrival)]
            case None:
                return [*self._masked.release_late(), None]
            case _:
                return [*self._masked.release(), arrival]
