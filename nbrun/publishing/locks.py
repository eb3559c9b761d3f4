"""Locks against two runs of one report at the same time (``--lock wait|skip|fail``).

Every run takes an ``flock`` on a file in the state folder. The kernel of the system releases it when its holder ends,
also when the holder is killed. A published report has a lock in its store too, see :mod:`nbrun.publishing.store_lock`.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Protocol

from nbrun.core.formats.units import spell_duration
from nbrun.errors import RunSkipped, UsageError
from nbrun.runner.stop import StopSwitch
from nbrun.storage.object_stores.base import StoreError
from nbrun.storage.on_disk import lock_file

_log = logging.getLogger(__name__)


class LockHeld(UsageError):
    """Another run holds the lock; nothing was run or changed."""


class Attempt(Enum):
    """What an attempt to get a lock found: it is held now, another run has it, or its holder may be dead."""

    ACQUIRED = "acquired"
    TAKEN = "taken"
    UNCERTAIN = "uncertain"


class Lock(Protocol):
    """A lock of a report. ``pause`` is the time between two attempts, in seconds."""

    pause: float

    async def attempt(self) -> Attempt:
        """Try once to get the lock; raise :class:`UsageError` or :class:`StoreError` where that is impossible."""

    def release(self) -> None:
        """Release the lock if it is held."""

    def holder(self) -> str:
        """Return the process that holds the lock, for messages."""


class FileLock:
    """An exclusive lock on a file, which is created and stays.

    The file contains the process id of the holder, and the mark that it :meth:`left <leave>`.
    """

    pause = 0.1

    def __init__(self, file: Path) -> None:
        self.file = file
        self.left_mark = ""
        """The mark of the last holder, after the lock was acquired. The last holder has ended."""
        self._handle: int | None = None

    async def attempt(self) -> Attempt:
        """Try once to get the lock."""
        return Attempt.ACQUIRED if self.acquire() else Attempt.TAKEN

    def acquire(self) -> bool:
        """Return whether the lock was free and is now held; raise :class:`UsageError` where there are no locks."""
        if sys.platform == "win32":
            raise UsageError("--lock needs flock, which Windows does not have")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"--lock: {self.file} cannot be written: {error.strerror}") from None
        try:
            is_free = lock_file(handle)
        except OSError as error:
            os.close(handle)
            raise UsageError(f"--lock: {self.file} cannot be locked: {error.strerror}") from None
        if not is_free:
            os.close(handle)
            return False
        self._handle = handle
        self.left_mark = self._read()[1]
        self.leave(self.left_mark)  # of the last lock in a store, also if this run takes none
        return True

    def leave(self, mark: str) -> None:
        """Write a mark into the file, for the next holder."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()} {mark}\n".encode(), 0)

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def holder(self) -> str:
        """Return the process that holds the lock, for messages."""
        process, _ = self._read()
        return f"process {process}" if process else "another process"

    def _read(self) -> tuple[str, str]:
        with contextlib.suppress(OSError, ValueError):
            process, _, mark = self.file.read_text().strip().partition(" ")
            return str(int(process)), mark
        return "", ""


async def acquire(lock: Lock, how: str, end: float, what: str, stop: StopSwitch) -> bool:
    """Return whether the lock of `what` is held now, or False if `stop` was pulled before.

    ``wait`` waits for it until `end`, a time of :func:`time.monotonic`. A holder that may be dead is observed until
    that is certain, with ``skip`` and ``fail`` too. Raises :class:`RunSkipped` for ``skip`` and :class:`LockHeld` for
    ``fail`` if another run holds it.
    """
    began, is_said = time.monotonic(), False
    while True:
        try:
            found = await lock.attempt()
        except StoreError as error:
            raise UsageError(f"--lock: {error}", hint=error.hint) from None
        if found is Attempt.ACQUIRED:
            return True
        if stop.reason is not None:
            return False  # the run then reports that it was stopped
        if how == "skip" and found is Attempt.TAKEN:
            raise RunSkipped(f"skipped: {what} is being run by {lock.holder()}")
        if (how == "fail" and found is Attempt.TAKEN) or (how == "wait" and time.monotonic() >= end):
            waited = f", still after {spell_duration(time.monotonic() - began)}" if how == "wait" else ""
            raise LockHeld(
                f"{what} is being run by {lock.holder()}{waited}",
                hint="--lock wait waits for its end, --lock skip leaves this run out.",
            )
        if not is_said:
            is_said = True
            _log.info("%s: waiting for the lock of %s", what, lock.holder())
        await asyncio.sleep(lock.pause)
