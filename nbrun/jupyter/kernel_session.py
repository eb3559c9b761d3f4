"""Start a kernel in a session of its own, connect to it, and delete it at the end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from nbrun.core.protocol.agent import Agent, AgentOptions
from nbrun.core.protocol.handshake import KernelInfo
from nbrun.errors import (
    AccessDenied,
    KernelError,
    KernelNotLaunched,
    KernelStartFailed,
    NbrunError,
    NotFound,
    SeatLost,
    ServerUnreachable,
)
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import api_path
from nbrun.jupyter.http.messages import Patience
from nbrun.jupyter.http.retry import ONCE, RECONNECT, RETURN, SAVE, TEARDOWN, RetryPolicy
from nbrun.jupyter.kernel.driver import Kernel, connect_kernel
from nbrun.jupyter.kernelspecs import KernelSpec
from nbrun.jupyter.owner_mark import marked
from nbrun.jupyter.sessions import SessionModel

IPYKERNEL = "ipython"
"""The name of ipykernel in its ``kernel_info_reply``."""

ENGINE_RECONNECT = 30.0
"""Seconds to reconnect to a server of an engine. Afterwards the run is repeated on another one."""

CALL_OFF_LIMIT = 5.0
"""Seconds to wait for the id of a session that is no longer needed."""

PROBE_LIMIT = Patience(read=10.0, total=10.0)
"""Time limits of one request that checks whether the server is back."""

LIFE_SIGN_EVERY = 1.0
"""Seconds between two checks whether a starting kernel is alive."""

FIRST_START = 45.0
"""Seconds that a kernel has at least to answer before it is replaced. Few are slower to start."""

SECOND_START = 15.0
"""Seconds of the time limit that are kept for its replacement. A server needs up to 5 to end a kernel that hangs."""

_log = logging.getLogger(__name__)


class _FalseStart(KernelStartFailed):
    """A kernel has ended before it answered, so it has executed nothing."""


class RunningKernel(Struct, frozen=True):
    """A kernel that was started for a run, its spec, and the info of its handshake."""

    kernel: Kernel
    info: KernelInfo
    spec: KernelSpec


@dataclass(frozen=True, slots=True)
class Server:
    """A server as a run uses it.

    ``reconnect`` and ``save`` are the retry policies for a lost connection. A private server that has ended does not
    come back, so it has short ones. ``log_tail`` returns the last lines of the server's log if it can be read.
    ``is_private`` means that the server exists for this run only and starts ipykernel without limits on its output.
    Its ``root`` is a folder of this machine.
    ``on_engine`` means that an engine provides the server, and a run that loses it may be repeated on another one.
    ``kernels_only`` means that kernels are started without sessions, as on a gateway, with the environment variables
    ``kernel_env``.
    """

    client: Client
    reconnect: RetryPolicy = RECONNECT
    save: RetryPolicy = SAVE
    log_tail: Callable[[], str] = str
    is_private: bool = False
    root: Path | None = None
    on_engine: bool = False
    kernels_only: bool = False
    kernel_env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def private(cls, client: Client, log_tail: Callable[[], str], root: Path | None = None) -> "Server":
        """Return the server of a run whose server ends with it."""
        return cls(client, ONCE, SAVE.within(5.0), log_tail, is_private=True, root=root)

    @classmethod
    def of_engine(cls, client: Client) -> "Server":
        """Return the server of a run that is repeated on another server if this one is lost."""
        return cls(client, RECONNECT.within(ENGINE_RECONNECT), on_engine=True)

    @classmethod
    def gateway(cls, client: Client, kernel_env: Mapping[str, str]) -> "Server":
        """Return a gateway, on which kernels are started with these environment variables."""
        return replace(cls.of_engine(client), kernels_only=True, kernel_env=kernel_env)

    async def answers_within(
        self, limit: float, waiting: Callable[[], None] = lambda: None, *, checks_token: bool = False
    ) -> bool:
        """Return whether the server answers within `limit` seconds; call `waiting` if it does not answer at once.

        A server that refuses the token counts as an answer. A proxy or a hub that answers in its place does not. With
        `checks_token` the server must check the token, for which a server of a hub needs the hub.
        """
        is_first = True
        path = api_path("kernelspecs") if checks_token else api_path()

        async def ask() -> None:
            nonlocal is_first
            try:
                fields = (await self.client.http.request("GET", path, patience=PROBE_LIMIT, retry=ONCE)).fields()
                _ = fields.child("kernelspecs") if checks_token else fields.text("version")
            except AccessDenied:
                pass
            except NbrunError as error:
                if is_first:
                    is_first = False
                    waiting()
                raise ServerUnreachable(str(error)) from None

        try:
            await RETURN.within(limit).call(ask)
        except ServerUnreachable:
            return False
        return True

    @contextlib.asynccontextmanager
    async def session(
        self,
        path: str,
        spec: KernelSpec,
        *,
        env: Mapping[str, str] = MappingProxyType({}),
        startup: float,
        warn: Callable[[str], None],
        agent: AgentOptions | None = None,
    ) -> AsyncIterator[RunningKernel]:
        """Start a kernel for the notebook at `path`, and delete its session at the end of the block in any case.

        If :meth:`meet_agent` follows with the options `agent`, its requests are sent before the kernel has answered.
        `env` are environment variables of the kernel on a private server. `startup` is the time limit in seconds until
        the kernel answers. The session has a path that no other client has, so another session on the notebook is
        neither joined nor deleted. On a server that outlives the run the session has an owner mark
        (:mod:`~nbrun.jupyter.owner_mark`). Raises :class:`KernelStartFailed` and :class:`ServerError`. If the session
        cannot be deleted, `warn` is called.

        A server chooses free ports for a new kernel, and another process may take one of them before the kernel does.
        The kernel then ends, and a stock server restarts it on the same ports. So a kernel that ends or does not answer
        is replaced once, within the same time limit. It has executed nothing yet.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        attempt = partial(self._attempt, path, spec, env if self.is_private else {}, began + startup, warn, agent)
        async with contextlib.AsyncExitStack() as stack:
            attempts = 2 if self._may_lose_ports(spec) else 1
            errors: list[_FalseStart | TimeoutError] = []
            while True:
                try:
                    running = await stack.enter_async_context(attempt(is_last=len(errors) + 1 == attempts))
                    break
                except (_FalseStart, TimeoutError) as error:
                    errors.append(error)
                    if len(errors) == attempts or clock() >= began + startup:
                        raise self._failed(errors, spec, startup) from None
                    _log.info("kernel %s: %s; starting another one", spec.name, str(error) or "it does not answer")
            _log.info("kernel %s: %s, started in %.2f s", spec.name, running.kernel.id, clock() - began)
            yield running

    def _may_lose_ports(self, spec: KernelSpec) -> bool:
        """Return whether another process can take the ports of a new kernel. Unix sockets have none."""
        return not (self._has_agent(spec) and self.client.endpoint.socket)

    @contextlib.asynccontextmanager
    async def _attempt(
        self,
        path: str,
        spec: KernelSpec,
        env: Mapping[str, str],
        give_up_at: float,
        warn: Callable[[str], None],
        agent: AgentOptions | None,
        *,
        is_last: bool,
    ) -> AsyncIterator[RunningKernel]:
        """Start a kernel and delete its session at the end; raise :class:`_FalseStart` or :class:`TimeoutError`."""
        session = await self._start(path, spec, env, give_up_at, warn)
        running: RunningKernel | None = None
        try:
            if session.kernel is None:
                raise KernelStartFailed(f"kernel {spec.name}: the server started a session without one")
            async with contextlib.AsyncExitStack() as stack:
                if not (self.is_private or self.kernels_only):
                    await stack.enter_async_context(marked(self.client.sessions, session))
                limit = give_up_at - asyncio.get_running_loop().time()
                if not is_last and limit >= FIRST_START + SECOND_START:
                    limit -= SECOND_START
                try:
                    async with asyncio.timeout(limit):
                        running = await self._unless_it_dies(
                            session.kernel.id, self._meet(session.kernel.id, spec, limit, stack, agent)
                        )
                except (KernelError, NotFound) as error:
                    # NotFound: the kernel died before nbrun connected, and the server has already removed it.
                    raise _FalseStart(str(error), hint=error.hint or "The server's log says why.") from None
                yield running
        finally:
            unreachable = running is not None and running.kernel.is_lost
            # An engine ends a lost server, and its kernels with it.
            told = _log.info if unreachable and self.on_engine else warn
            delete = partial(self._delete, session.id, told, ONCE if unreachable else TEARDOWN)
            try:
                await delete()
            except asyncio.CancelledError:
                await delete()  # the server may not have received the request yet
                raise

    async def meet_agent(self, running: RunningKernel, options: AgentOptions) -> Agent:
        """Return the agent in a kernel, and install it if it is not there. Only ipykernel supports the agent."""
        if running.info.implementation != IPYKERNEL:
            return Agent()
        agent = await running.kernel.meet_agent(options, install=not self._has_agent(running.spec))
        abilities = ", ".join(sorted(agent.abilities)) or "none"
        _log.info("kernel agent: abilities %s, after %.2f s", abilities, agent.took)
        return agent

    def _has_agent(self, spec: KernelSpec) -> bool:
        return self.is_private and spec.starts_ipykernel

    async def _meet(
        self,
        kernel_id: str,
        spec: KernelSpec,
        startup: float,
        stack: contextlib.AsyncExitStack,
        agent: AgentOptions | None,
    ) -> RunningKernel:
        connecting = connect_kernel(self.client.http, self.client.kernels, kernel_id, patience=self.reconnect)
        kernel = await stack.enter_async_context(connecting)
        info = await kernel.handshake(
            startup,
            agent if spec.starts_ipykernel else None,
            install=not self._has_agent(spec),
            nudge=self.client.http.is_near and not self.is_private,
        )
        return RunningKernel(kernel, info, spec)

    async def _unless_it_dies(self, kernel_id: str, meeting: Coroutine[Any, Any, RunningKernel]) -> RunningKernel:
        """Await `meeting`, or raise :class:`KernelStartFailed` if the kernel dies.

        The server would hold the handshake of a dead kernel for a minute.
        """
        met, died = asyncio.create_task(meeting), asyncio.create_task(self._death_of(kernel_id))
        try:
            await asyncio.wait({met, died}, return_when=asyncio.FIRST_COMPLETED)
            if met.done():
                return await met
            raise KernelStartFailed(f"it died while it started{await died}")
        finally:
            for task in (met, died):
                task.cancel()
            await asyncio.gather(met, died, return_exceptions=True)

    async def _death_of(self, kernel_id: str) -> str:
        """Wait until the server reports that the kernel is dead or unknown; return its reason, after a colon."""
        while True:
            await asyncio.sleep(LIFE_SIGN_EVERY)
            with contextlib.suppress(NbrunError):  # an unreachable server says nothing about the kernel
                try:
                    kernel = await self.client.kernels.get(kernel_id)
                except NotFound:
                    return ""
                if kernel.execution_state == "dead":
                    return f": {kernel.reason}" if kernel.reason else ""

    async def _start(
        self, path: str, spec: KernelSpec, env: Mapping[str, str], give_up_at: float, warn: Callable[[str], None]
    ) -> SessionModel:
        starting = asyncio.create_task(self._request_kernel(path, spec.name, env))
        try:
            async with asyncio.timeout_at(give_up_at):
                return await asyncio.shield(starting)
        except KernelNotLaunched:
            raise  # its message is complete
        except KernelStartFailed as error:
            raise self._with_log(error) from None
        except (TimeoutError, asyncio.CancelledError):
            await self._call_off(starting, warn)
            raise

    async def _request_kernel(self, path: str, name: str, env: Mapping[str, str]) -> SessionModel:
        if not self.kernels_only:
            return await self.client.sessions.start(path, name, env=env)
        kernel = await self.client.kernels.create(name, env={**self.kernel_env, **env})
        return SessionModel(kernel.id, path, "", "", kernel)

    async def _call_off(self, starting: asyncio.Task[SessionModel], warn: Callable[[str], None]) -> None:
        """Delete a session that is no longer needed, as soon as the server has returned its id.

        If the start is cancelled, it finds and deletes the session itself.
        """
        await asyncio.wait({starting}, timeout=CALL_OFF_LIMIT)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            warn("the server had not answered the request for a session; a kernel may be left on it")
        elif not starting.exception():
            await self._delete(starting.result().id, warn)

    async def _delete(self, session_id: str, warn: Callable[[str], None], retry: RetryPolicy = TEARDOWN) -> None:
        try:
            kept_in = self.client.kernels if self.kernels_only else self.client.sessions
            await kept_in.delete(session_id, retry=retry)
            _log.info("session %s deleted", session_id)
        except (ServerUnreachable, SeatLost):
            pass  # the run's result already reports the lost server
        except NbrunError as error:
            warn(f"the session could not be deleted, its kernel may still run: {error}")

    def _failed(
        self, errors: Sequence[_FalseStart | TimeoutError], spec: KernelSpec, startup: float
    ) -> KernelStartFailed:
        what = f"kernel {spec.name} did not start within {startup:g} s"
        hint = "Give it more time with --startup-timeout, or look at what it needs to start."
        for error in errors:  # a death explains more than a missing answer
            if isinstance(error, _FalseStart):
                what, hint = f"kernel {spec.name}: {error}", error.hint
        again = "; nbrun has started it twice" if len(errors) > 1 else ""
        return self._with_log(KernelStartFailed(f"{what}{again}", hint=hint))

    def _with_log(self, error: KernelStartFailed) -> KernelStartFailed:
        tail = self.log_tail().strip()
        return KernelStartFailed(f"{error}\n{tail}" if tail else str(error), hint=error.hint)
