"""The path of incoming kernel messages: retransmission, then masking, then the state machine.

Only messages are changed. Held messages are released before any other event that may end the run.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Self

from msgspec import Struct

from nbrun.core.delivery.retransmission import ResentMessages
from nbrun.core.execution.effects import Effects, Send
from nbrun.core.execution.machine import Execution
from nbrun.core.outputs.masking import MaskedMessages
from nbrun.core.protocol.agent import RESEND, RESEND_REPLY, Ability, Agent, resent
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.core.protocol.messages import Message, Requests
from nbrun.errors import NotFound
from nbrun.jupyter.kernel.websocket import Arrival, Cut, Lost, Restored, Unreadable


class Probed(Struct, frozen=True):
    """The server's answer whether the kernel is alive."""

    alive: bool


class StopAsked(Struct, frozen=True):
    """A request to stop the run."""

    reason: str


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


class ExecutionFeed:
    """Feeds one kernel's arrivals and the time into the state machine of a run; pure, so that a trace can be replayed.

    Each step returns lists of effects. A list is carried out before the next one is computed.
    """

    def __init__(self, execution: Execution, intake: Intake) -> None:
        self._execution = execution
        self._intake = intake
        self.heard = 0
        """The number of messages so far."""
        self.unreadable = 0
        """The number of frames that were not a message."""
        self.is_lost = False
        """Whether the connection was lost permanently."""

    def start(self, now: float) -> Iterator[Effects]:
        """Start the run."""
        yield self._requests()
        yield self._execution.start(now)

    def deadline(self, now: float) -> float | None:
        """Return the time at which :meth:`receive` is due with None."""
        execution = self._execution
        return self._intake.deadline(execution.deadline, delays=self._delays(now))

    def receive(self, arrival: Arrival | Probed | StopAsked | None, now: float) -> Iterator[Effects]:
        """Handle an arrival; None means that the deadline has passed."""
        execution, intake = self._execution, self._intake
        taken = intake.receive(arrival, now)
        if not isinstance(arrival, Message) and _may_end(arrival, execution):
            taken = [*intake.release(), *taken]  # messages that have arrived count, even if the run ends now
        if effects := [each for one in taken for each in self._feed(one, now)]:
            yield effects
        if requests := self._requests():
            yield requests
        is_due = execution.deadline is not None and execution.deadline <= now
        if is_due and not self._delays(now):
            held = intake.release() if execution.is_stopping else ()
            effects = [each for one in held for each in self._feed(one, now)]
            yield [*effects, *execution.tick(now)]

    def release(self, now: float) -> None:
        """Pass all held messages to the state machine, because no more will arrive."""
        for message in self._intake.release():
            self._execution.receive(message, now)

    def _requests(self) -> Effects:
        return [Send(request) for request in self._intake.requests()]

    def _delays(self, now: float) -> bool:
        execution, intake = self._execution, self._intake
        return intake.may_delay and intake.delays(
            now, is_draining=execution.is_draining, is_stopping=execution.is_stopping
        )

    def _feed(self, arrival: Arrival | Probed | StopAsked | None, now: float) -> Effects:
        match arrival:
            case Message():
                self.heard += 1
                return self._execution.receive(arrival, now)
            case Restored(nudged):
                return self._execution.reconnected(now, nudged=nudged)
            case Lost(NotFound()):
                return self._execution.probed(now, alive=False)
            case Lost(error):
                self.is_lost = True
                self._execution.lose_server(now, error)
            case Probed(alive):
                return self._execution.probed(now, alive=alive)
            case StopAsked(reason):
                return self._execution.interrupt(now, reason)
            case Unreadable():
                self.unreadable += 1
            case Cut() | None:
                pass
        return ()


def _may_end(arrival: Arrival | Probed | StopAsked | None, execution: Execution) -> bool:
    match arrival:
        case StopAsked():
            return execution.is_draining
        case Probed(alive):
            return not alive
        case _:
            return False


def _spelled(ranges: Iterable[tuple[int, int | None]]) -> str:
    """Return ranges of sequence numbers as text."""
    return ", ".join(f"{first}-{'' if last is None else last}" for first, last in ranges)
