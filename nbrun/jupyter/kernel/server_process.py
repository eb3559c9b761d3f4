"""Detect a restart of the server, which ends all of its kernels.

A kernel that is no longer found may have died, or its server was restarted at the same address. The start time in
``/api/status`` shows which. Gateways do not report it; then no restart is detected.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from nbrun.errors import NbrunError
from nbrun.jupyter.endpoint import api_path
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.retry import ONCE


class ServerProcess:
    """The server process at an address, identified by its start time."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._started: datetime | None = None

    @contextlib.asynccontextmanager
    async def remembered(self) -> AsyncIterator[None]:
        """Request the start time concurrently with the block."""
        asking = asyncio.create_task(self._remember())
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def is_another(self) -> bool:
        """Return whether the server is known to have been restarted since."""
        known, now = self._started, await self._ask()
        return None not in (known, now) and known != now

    async def _remember(self) -> None:
        self._started = await self._ask()

    async def _ask(self) -> datetime | None:
        try:
            return (await self._http.request("GET", api_path("status"), retry=ONCE)).fields().maybe_time("started")
        except NbrunError:
            return None
