"""Whether the server is still the process that it was: one that was restarted has forgotten its kernels.

A kernel that is not found any more may have died, or its server may have been restarted under the same address; the
time of the start that ``/api/status`` gives tells them apart. Gateways give none, and nothing is concluded then.
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
    """The process that answers at an address."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._started: datetime | None = None

    @contextlib.asynccontextmanager
    async def remembered(self) -> AsyncIterator[None]:
        """Ask when it was started, beside what is done in the block."""
        asking = asyncio.create_task(self._remember())
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def is_another(self) -> bool:
        """Return whether it is known to have been started again since."""
        known, now = self._started, await self._ask()
        return None not in (known, now) and known != now

    async def _remember(self) -> None:
        self._started = await self._ask()

    async def _ask(self) -> datetime | None:
        try:
            return (await self._http.request("GET", api_path("status"), retry=ONCE)).fields().maybe_time("started")
        except NbrunError:
            return None
