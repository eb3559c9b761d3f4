"""Signals (SIGINT, SIGTERM, SIGHUP): the first stops and saves, the second ends nbrun.

A signal that was ignored when nbrun started stays ignored. ``nohup`` ignores SIGHUP, and a shell ignores SIGINT for the
background jobs of a script.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from nbrun.errors import ExitCode

_SIGNALS = {
    "SIGINT": ("interrupted by Ctrl-C", ExitCode.INTERRUPTED),
    "SIGTERM": ("terminated by SIGTERM", ExitCode.TERMINATED),
    "SIGHUP": ("terminated by SIGHUP", ExitCode.TERMINATED),
}


@asynccontextmanager
async def signals(stop: Any) -> AsyncIterator[None]:
    """Handle signals: the first pulls the switch `stop`, the second ends the process. Ignored signals stay ignored."""
    loop = asyncio.get_running_loop()
    handled = []

    def on_signal(reason: str, code: ExitCode) -> None:
        if stop.reason is not None:
            os._exit(code)  # a private server detects the end of nbrun, and ends with its kernels
        stop.pull(reason, code)

    for name, (reason, code) in _SIGNALS.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(NotImplementedError):  # Windows: Ctrl-C then cancels the run, which saves as well
                loop.add_signal_handler(number, on_signal, reason, code)
                handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
