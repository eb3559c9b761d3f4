"""Locks against two runs of one report at the same time (``--lock wait|skip|fail``).

The lock is an ``flock`` on a file in the state folder. The kernel of the system releases it when its holder ends, also
when the holder is killed.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from nbrun.core.formats.units import spell_duration
from nbrun.errors import RunSkipped, UsageError
from nbrun.runner.stop import StopSwitch

_PAUSE = 0.1
"""Seconds between two attempts to get the lock."""


class LockHeld(UsageError):
    """Another run holds the lock; nothing was run or changed."""


class FileLock:
    """An exclusive lock on a file, which is created and stays."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Return whether the lock was free and is now held; raise :class:`UsageError` where there are no locks."""
        if sys.platform == "win32":
            raise UsageError("--lock needs flock, which Windows does not have")
        import fcntl

        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"--lock: {self.file} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            os.close(handle)
            raise UsageError(f"--lock: {self.file} cannot be locked: {error.strerror}") from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def holder(self) -> str:
        """Return the process that holds the lock, for messages."""
        with contextlib.suppress(OSError, ValueError):
            return f"process {int(self.file.read_text())}"
        return "another process"


@contextlib.asynccontextmanager
async def locked(lock: FileLock, how: str, limit: float, what: str, stop: StopSwitch) -> AsyncIterator[None]:
    """Hold the lock of `what`; ``wait`` waits up to `limit` seconds for it, or until `stop` is pulled.

    Raises :class:`RunSkipped` for ``skip`` and :class:`LockHeld` for ``fail`` if another process holds it.
    """
    end = time.monotonic() + (limit if how == "wait" else 0)
    while not lock.acquire():
        if how == "skip":
            raise RunSkipped(f"skipped: {what} is being run by {lock.holder()}")
        if stop.reason is not None:
            break  # the run then reports that it was stopped
        if time.monotonic() >= end:
            waited = f", still after {spell_duration(limit)}" if how == "wait" else ""
            raise LockHeld(
                f"{what} is being run by {lock.holder()}{waited}",
                hint="--lock wait waits for its end, --lock skip leaves this run out.",
            )
        await asyncio.sleep(_PAUSE)
    try:
        yield
    finally:
        lock.release()
