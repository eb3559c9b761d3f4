"""Kernels of an Enterprise Gateway or a Kernel Gateway as seats.

The option is ``--engine gateway+https://HOST/``. A gateway has kernels and no files. The notebook is read and saved on
this machine, and its kernel is started by ``POST /api/kernels``, without a session. All seats share the gateway. It
decides where each kernel runs.
"""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from nbrun.core.planning.option_types import Named
from nbrun.errors import ServerUnreachable, UsageError
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.engine import SIGN_OF_LIFE, ControlledSeat, EngineCall, SeatSetting
from nbrun.runner.job import NotebookPaths
from nbrun.runner.servers import Host, connect_to, local_notebook_of
from nbrun.storage.base import Notebook

_SETTINGS = {"env": Named("texts", lambda value: isinstance(value, str))}


class Gateway:
    """The engine of one gateway. The setting ``env`` has environment variables for its kernels (``KERNEL_…``)."""

    executes = False

    def __init__(self, call: EngineCall) -> None:
        """Check the address and the settings; raise :class:`UsageError`."""
        self._access = replace(call.access, server=call.url.partition("+")[2])
        Endpoint.parse(self._access.server or "")
        if call.on_server:
            hint = "Without --no-upload nbrun reads and saves the notebooks on this machine."
            raise UsageError("--no-upload: a gateway has no files", hint=hint)
        self._env = call.read(_SETTINGS).get("env", {})
        self._startup = call.startup

    @asynccontextmanager
    async def seats(self, wanted: int) -> AsyncIterator[AsyncIterator[ControlledSeat]]:
        """Connect to the gateway, and yield seats on it."""
        async with connect_to(self._access) as client:
            server = Server.gateway(client, self._env)
            setting = SeatSetting(await client.kernelspecs())
            yield self._each(Host(server, _found), setting, wanted)

    async def _each(self, host: Host, setting: SeatSetting, wanted: int) -> AsyncIterator[ControlledSeat]:
        async def is_lost() -> bool:
            return not await host.server.answers_within(SIGN_OF_LIFE)

        for number in itertools.count(1):
            # A further seat is for one that was lost, so the gateway did not answer.
            if number > wanted and not await host.server.answers_within(self._startup):
                endpoint = host.server.client.endpoint
                raise ServerUnreachable(
                    f"the gateway {endpoint} does not answer any more", hint="What was delivered before is saved."
                )
            yield ControlledSeat(f"kernel {number} of the gateway", host, is_lost, setting)


def _found(paths: NotebookPaths, warn: Callable[[str], None]) -> Notebook:
    if paths.cwd:
        hint = "A gateway has no files. Its administrator, or KERNEL_WORKING_DIR, decides where kernels work."
        raise UsageError(f"--cwd {paths.cwd}: not for kernels of a gateway", hint=hint)
    return local_notebook_of(paths, warn)


def engine(call: EngineCall) -> Gateway:
    """Return the engine of a gateway."""
    return Gateway(call)
