"""A connected kernel: send requests and interrupts, and drive the state machine of a run.

:meth:`Kernel.run` drives :class:`nbrun.core.execution.machine.Execution`. It passes messages and time to the state
machine and carries out its effects. An effect may need a request to the server. Such requests run beside the reading of
messages, so that no output waits for them. Their results are passed to the state machine like a message.
"""

import asyncio
import contextlib
import functools
import logging
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from nbrun import kernel_side
from nbrun.core.delivery.loss_detection import SequenceNumbers
from nbrun.core.execution.effects import Effects, InterruptKernel, ProbeKernel, Send
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.outcomes import GONE
from nbrun.core.protocol import agent
from nbrun.core.protocol.agent import Agent, AgentOptions
from nbrun.core.protocol.codec import Subprotocol
from nbrun.core.protocol.handshake import Handshake, KernelInfo
from nbrun.core.protocol.messages import Channel, Message, Requests
from nbrun.errors import KernelDied, KernelStartFailed, NbrunError, NotFound, ServerRestarted, ServerUnreachable
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.retry import ONCE, RECONNECT, RetryPolicy
from nbrun.jupyter.kernel.inbound import ExecutionFeed, Intake, Probed, StopAsked
from nbrun.jupyter.kernel.server_process import ServerProcess
from nbrun.jupyter.kernel.websocket import Arrival, Cut, KernelChannel, Lost, Restored, Unreadable, open_channel
from nbrun.jupyter.sessions import Kernels
from nbrun.jupyter.trace import Trace

AGENT_LIMIT = 30.0
"""Seconds for the handshake with the agent, at a time when the kernel executes nothing else."""
NUDGE_AFTER = 0.1
"""Seconds to wait for the first message of a new kernel. A near server usually delivers it within 10 to 60 ms."""
PONG_LIMIT = 5.0
"""Seconds after which a round trip to the server counts as infinite."""
_log = logging.getLogger(__name__)


@functools.cache
def agent_sources() -> dict[str, str]:
    """Return the source of each module of the agent."""
    return {name: Path(kernel_side.__path__[0], f"{name}.py").read_text("utf-8") for name in kernel_side.AGENT}


class _Greeting(Struct, frozen=True):
    """Requests for the agent that were sent: the id of the last one, when they were sent, and the ping before them."""

    barrier: str
    began: float
    measuring: asyncio.Task[float] | None


class Kernel:
    """A connected kernel; created by :func:`connect_kernel`.

    Only one method may be in progress at a time, because each reads all incoming messages.
    """

    def __init__(
        self,
        kernel_id: str,
        channel: KernelChannel,
        requests: Requests,
        kernels: Kernels,
        trace: Trace | None = None,
    ) -> None:
        self.id = kernel_id
        self.requests = requests
        self.unreadable = 0
        """The number of frames that were not messages."""
        self.is_lost = False
        """Whether the connection is lost for good."""
        self._channel = channel
        self._kernels = kernels
        self._tasks: set[asyncio.Task[None]] = set()
        self._feed: ExecutionFeed | None = None
        self._trace = trace
        self._greeting: _Greeting | None = None
        self._early: deque[Arrival | Probed | StopAsked] = deque()
        """What has arrived already: the first message, or answers to the greeting that arrived during the handshake."""
        self._report: Callable[[int], None] | None = None
        self._numbers = SequenceNumbers()
        self._received: int | None = None
        """The number of the last output, if it was not reported yet."""

    @property
    def heard(self) -> int:
        """Return the number of messages of the current run; an unchanged number means nothing new."""
        return 0 if self._feed is None else self._feed.heard

    @property
    def subprotocol(self) -> Subprotocol:
        """Return the websocket subprotocol of the connection."""
        return self._channel.subprotocol

    async def handshake(
        self, limit: float = 60.0, agent: AgentOptions | None = None, *, install: bool = True, nudge: bool = False
    ) -> KernelInfo:
        """Wait until the kernel answers and its outputs are delivered, and return its info.

        If `agent` is given, the requests of :meth:`meet_agent` are sent at once, which saves a round trip. With `nudge`
        a server that delivers nothing is nudged once (:meth:`KernelChannel.nudge`), which helps a new kernel. Raises
        :class:`KernelStartFailed` after `limit` seconds, and :class:`NbrunError` if the connection is lost.
        """
        handshake = Handshake(self.requests)
        early: list[Message] = []
        give_up_at = _now() + limit
        await self._ask_first(handshake, agent, install=install, nudge=nudge)
        while (known := handshake.kernel) is None:
            if _now() >= give_up_at:
                raise KernelStartFailed(
                    f"the kernel did not answer within {limit:g} s",
                    hint="Look at the server's log, or give it more time with --startup-timeout.",
                )
            deadline = min(give_up_at, handshake.deadline or give_up_at)
            match await self._next(deadline):
                case Message() as message:
                    if message.type == "status" and message.content.get("execution_state") == "dead":
                        raise KernelStartFailed("the kernel died while it started", hint="The server's log says why.")
                    if not handshake.receive(message, _now()):
                        early.append(message)
                case Lost(error):
                    raise _lost(error)
                case Restored():
                    await self._channel.send(handshake.ask())  # the requests may have been lost with the connection
                    self._forget_greeting()
                case Unreadable():
                    self.unreadable += 1
                case _:
                    for message in handshake.tick(_now()):
                        await self._channel.send(message)
                        self._forget_greeting()  # its answers may be lost as well
        if self._greeting is not None:
            self._early.extend(early)
        return known

    async def _ask_first(self, handshake: Handshake, agent: AgentOptions | None, *, install: bool, nudge: bool) -> None:
        await self._channel.send(handshake.ask())
        if agent is not None:
            await self._greet(agent, install=install)
        # A server in front of a gateway, without this subprotocol, accepts connections before the kernel runs.
        if not nudge or self.subprotocol is not Subprotocol.V1:
            return
        first = await self._next(_now() + NUDGE_AFTER)
        if first is None:
            _log.debug("no message of kernel %s within %g s; nudging the server", self.id, NUDGE_AFTER)
            self._channel.nudge()
        else:
            self._early.append(first)

    async def meet_agent(self, options: AgentOptions, *, install: bool = True, limit: float = AGENT_LIMIT) -> Agent:
        """Install the agent of :mod:`nbrun.kernel_side.agent` in an ipykernel, and return its abilities.

        With ``install=False`` the kernel already has an agent. Otherwise a round trip to the server is measured as
        well. The result has no abilities if the kernel cannot use the agent, if a server blocks its requests, or if
        there is no reply within `limit` seconds. Raises :class:`NbrunError` if the connection is lost.
        """
        if self._greeting is None:
            await self._greet(options, install=install)
        greeting = self._greeting
        assert greeting is not None
        try:
            met = await self._answer_to(greeting, limit)
            measuring = greeting.measuring
            return met if measuring is None or not met.abilities else replace(met, round_trip=await measuring)
        finally:
            self._forget_greeting()

    async def _greet(self, options: AgentOptions, *, install: bool) -> None:
        measuring = asyncio.create_task(self._channel.round_trip(PONG_LIMIT)) if install else None
        await asyncio.sleep(0)  # the ping is sent first
        barrier = self.requests.kernel_info()
        self._greeting = _Greeting(barrier.id, _now(), measuring)
        installing = [agent.install(self.requests, agent_sources(), options)] if install else []
        await self._send([*installing, agent.hello(self.requests, options), barrier])

    def _forget_greeting(self) -> None:
        if self._greeting is not None and self._greeting.measuring is not None:
            self._greeting.measuring.cancel()
        self._greeting = None

    async def _answer_to(self, greeting: _Greeting, limit: float) -> Agent:
        signs = 0
        abilities: frozenset[str] = frozenset()
        give_up_at = _now() + limit
        while True:
            match await self._next(give_up_at):
                case Message() as message if message.content.get("execution_state") in GONE:
                    self._channel.arrivals.put_nowait(message)  # the run must see it as its first message
                    return Agent()
                case Message() as message:
                    if message.type == agent.HELLO_REPLY:
                        abilities = agent.abilities_in(message)
                    idle = message.content.get("execution_state") == "idle"
                    last = message if idle and message.parent_id == greeting.barrier else None
                    signs += (idle or message.type == "kernel_info_reply") and message.parent_id == greeting.barrier
                    if signs == 2:
                        return Agent(abilities, _now() - greeting.began, last)
                case Lost(error):
                    raise _lost(error)
                case Unreadable():
                    self.unreadable += 1
                case Cut():
                    pass
                case _:
                    return Agent()  # the requests may be lost with the connection

    async def run(self, execution: Execution, intake: Intake | None = None) -> None:
        """Drive `execution` until it ends, and cancel all tasks that belong to it.

        Messages pass through `intake` first.
        """
        feed = self._feed = ExecutionFeed(execution, intake or Intake())
        try:
            for effects in feed.start(_now()):
                await self._carry_out(effects)
            while execution.ending is None:
                arrival = await self._next(feed.deadline(_now()))
                for effects in feed.receive(arrival, _now()):
                    await self._carry_out(effects)
        finally:
            feed.release(_now())
            self.unreadable += feed.unreadable
            self.is_lost = self.is_lost or feed.is_lost
            if self._trace is not None:
                self._trace.release(self.id)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def report_received(self, report: Callable[[int], None]) -> None:
        """Call `report` from now on with the number of the kernel's last output, before each wait for more."""
        self._report = report

    def stop(self, reason: str) -> None:
        """Stop the current run: its cell is interrupted, and :meth:`run` returns soon."""
        self._channel.arrivals.put_nowait(StopAsked(reason))

    async def execute(
        self, code: str, *, silent: bool = False, stop_on_error: bool = True, limit: float | None = None
    ) -> AsyncGenerator[Message, None]:
        """Execute `code` and yield its messages as they arrive, until both reply and idle have arrived."""
        request = self.requests.execute(code, silent=silent, stop_on_error=stop_on_error)
        async with contextlib.aclosing(self._conversation(request, "execute_reply", limit)) as messages:
            async for message in messages:
                yield message

    async def complete(self, code: str, cursor_pos: int | None = None, *, limit: float = 30.0) -> dict[str, Any]:
        """Return the content of the complete_reply: completions at `cursor_pos`, in code points, or at the end."""
        position = len(code) if cursor_pos is None else cursor_pos
        return await self._ask(self.requests.complete(code, position), "complete_reply", limit)

    async def inspect(
        self, code: str, cursor_pos: int | None = None, *, detail_level: int = 0, limit: float = 30.0
    ) -> dict[str, Any]:
        """Return the content of the inspect_reply: information on the name at `cursor_pos`."""
        position = len(code) if cursor_pos is None else cursor_pos
        return await self._ask(self.requests.inspect(code, position, detail_level), "inspect_reply", limit)

    async def _ask(self, request: Message, reply_type: str, limit: float) -> dict[str, Any]:
        async with contextlib.aclosing(self._conversation(request, reply_type, limit)) as messages:
            async for message in messages:
                if message.type == reply_type:
                    return dict(message.content)
        raise AssertionError("a conversation ends after its reply")

    async def _conversation(
        self, request: Message, reply_type: str, limit: float | None
    ) -> AsyncGenerator[Message, None]:
        """Send a request and yield its messages until both its reply and its idle status have arrived."""
        await self._channel.send(request)
        give_up_at = None if limit is None else _now() + limit
        replied = idle = False
        barrier = ""
        while not (replied and idle):
            arrival = await self._next(give_up_at)
            if give_up_at is not None and _now() >= give_up_at:
                raise ServerUnreachable(f"no {reply_type} within {limit:g} s")
            match arrival:
                case Restored():
                    question = self.requests.kernel_info()
                    barrier = question.id
                    await self._channel.send(question)
                case Message("shell") as message if message.parent_id == barrier:
                    # The kernel answers in order: what has not arrived by now was lost with the connection.
                    if not replied:
                        raise ServerUnreachable(f"the {reply_type} was lost while the connection was cut")
                    return
                case Message() as message if message.parent_id == request.id:
                    replied = replied or message.type == reply_type
                    idle = idle or (message.type == "status" and message.content.get("execution_state") == "idle")
                    yield message
                case Message() as message if message.content.get("execution_state") in ("dead", "restarting"):
                    raise KernelDied("the kernel died")
                case Lost(error):
                    raise _lost(error)
                case _:
                    pass  # another client's message, or a cut connection that is being restored

    async def _next(self, deadline: float | None) -> Arrival | Probed | StopAsked | None:
        """Return the next arrival, or None at `deadline` (on the loop's clock)."""
        if self._early:
            return self._early.popleft()
        arrivals, arrival = self._channel.arrivals, None
        if not arrivals.empty():
            arrival = arrivals.get_nowait()
        else:
            if self._report is not None and self._received is not None:
                self._report(self._received)
                self._received = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    arrival = await arrivals.get()
        if self._report is not None and isinstance(arrival, Message) and arrival.channel == Channel.IOPUB:
            number = self._numbers.of(arrival)
            if number is not None:  # not of a forked child
                self._received = number
        if self._trace is not None:
            _record(self._trace, self.id, arrival)
        return cast("Arrival | Probed | StopAsked | None", arrival)

    async def _send(self, requests: Iterable[Message]) -> None:
        for request in requests:
            await self._channel.send(request)

    async def _carry_out(self, effects: Effects) -> None:
        for place, effect in enumerate(effects):
            if self._trace is not None and not isinstance(effect, Send):
                self._trace.effect(self.id, type(effect).__name__)
            match effect:
                case Send(message):
                    _log.debug("%s sent to kernel %s", message.type, self.id)
                    await self._channel.send(message)
                case InterruptKernel():
                    # The following effects must not overtake the interrupt: an earlier nudge has no effect.
                    self._beside(self._interrupt(effects[place + 1 :]))
                    return
                case ProbeKernel():
                    self._beside(self._probe())

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _interrupt(self, then: Effects) -> None:
        # If the server is unreachable, the state machine's timers continue: second interrupt, then the end.
        _log.info("interrupting kernel %s", self.id)
        with contextlib.suppress(NbrunError):
            await self._kernels.interrupt(self.id)
        await self._carry_out(then)

    async def _probe(self) -> None:
        # An unreachable server says nothing about the kernel. The websocket detects the loss itself.
        with contextlib.suppress(NbrunError):
            try:
                kernel = await self._kernels.get(self.id)
                alive = kernel.execution_state != "dead"
            except NotFound:
                alive = False
            _log.debug("the server says that kernel %s %s", self.id, "lives" if alive else "is gone")
            self._channel.arrivals.put_nowait(Probed(alive))


@contextlib.asynccontextmanager
async def connect_kernel(
    http: Http, kernels: Kernels, kernel_id: str, *, patience: RetryPolicy = RECONNECT
) -> AsyncIterator[Kernel]:
    """Connect to a kernel for the length of the block; errors as in :func:`open_channel`."""
    session_id = uuid.uuid4().hex

    process = ServerProcess(http)

    async def find() -> bool:
        # No retry here: the channel calls this before each of its own attempts.
        try:
            state = (await kernels.get(kernel_id, retry=ONCE)).execution_state
        except NotFound:
            if await process.is_another():
                raise ServerRestarted("the server was restarted, and with it went the kernel") from None
            raise
        return state == "busy"

    # The start time of the server is needed only if the connection can be restored.
    knowing = process.remembered() if patience.tries > 1 else contextlib.nullcontext()
    async with open_channel(http, kernel_id, session_id, find=find, patience=patience) as channel, knowing:
        requests = Requests(session_id, id_prefix=uuid.uuid4().hex)
        yield Kernel(kernel_id, channel, requests, kernels, http.options.trace)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _record(trace: Trace, kernel: str, arrival: Arrival | Probed | StopAsked | None) -> None:
    match arrival:
        case Message():
            trace.received(kernel, arrival)
        case Cut():
            trace.asked(kernel, {"cut": True})
        case Restored(nudged):
            trace.asked(kernel, {"reconnected": nudged})
        case Lost(error):
            lost = {"kind": type(error).__name__, "message": str(error), "hint": error.hint}
            trace.asked(kernel, {"lost": lost})
        case Probed(alive):
            trace.asked(kernel, {"probed": alive})
        case StopAsked(reason):
            trace.asked(kernel, {"interrupt": reason})
        case Unreadable(error):
            trace.asked(kernel, {"unreadable": str(error)})
        case None:
            trace.waited(kernel)


def _lost(error: NbrunError) -> NbrunError:
    return KernelDied("the kernel is gone from the server") if isinstance(error, NotFound) else error
