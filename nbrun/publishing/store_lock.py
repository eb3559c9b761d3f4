"""A lock in the store of a published report, which excludes runs on other machines.

The lock is the object ``{report}/.lock``. It says who holds it, for how long a silent holder is believed (the lease),
and a fencing number that grows with each new holder. It is never deleted, because the number would begin again.

The holder rewrites the object while it runs, so that its version changes several times within a lease. A waiter
replaces a holder if the version has not changed for a lease, by the waiter's own monotonic clock: no clock of another
machine is compared. All puts require the version that was read, so one of several waiters gets the lock, and a holder
that was replaced notices it at its next put. :meth:`StoreLock.confirm` comes directly before the record of a run is
written, which takes less than a lease. So a replaced holder writes no record, unless its process is suspended for a
lease between the two requests.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
import uuid
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from typing import Any

from nbrun.core.formats.json_text import dumps, loads
from nbrun.core.formats.units import spell_duration
from nbrun.errors import BadFrame
from nbrun.publishing.locks import Attempt
from nbrun.storage.object_stores.base import (
    ObjectExists,
    ObjectStore,
    StoredObject,
    StoreError,
    Unanswered,
    VersionChanged,
)

LOCK = ".lock"
"""The name of the lock's object, below the report."""
LEASE = 60.0
"""Seconds without a sign of life after which a holder is replaced."""
_BEATS = 4
"""Signs of life within a lease."""
_ATTEMPTS = 30
"""Attempts within a lease: of a waiter to get the lock, and of a holder to reach a store that failed."""
_LONGEST_LEASE = 3600.0
_RECENT = 2.0
"""Seconds after a put in which the lock is confirmed by reading it. Google takes one put per second and object."""
_CONFIRM_LIMIT = 20.0
"""Seconds to confirm the lock, also if the store does not answer a sign of life that is on its way."""
_RELEASE_LIMIT = 3.0
"""Seconds to release the lock. If the store does not answer, the lease ends by itself."""


class LockLost(StoreError):
    """The lock was taken over by another run, because this one gave no sign of life for a lease."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The content of the lock: ``owner`` is a random id, or "" if it was released; ``beat`` counts signs of life."""

    fence: int
    owner: str = ""
    host: str = ""
    pid: int = 0
    lease: float = 60.0
    beat: int = 0

    def encoded(self) -> bytes:
        """Return the holder as JSON."""
        return dumps(asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'another machine'}"


def _decoded(stored: StoredObject, where: str) -> Holder:
    """Return the holder in an object; raise :class:`StoreError` if it is not the lock of a report."""
    try:
        content: dict[str, Any] = loads(stored.data)
        fields = {name: content[name] for name in Holder.__dataclass_fields__ if name in content}
        holder = Holder(**fields)
        if not isinstance(holder.fence, int):
            raise TypeError
        lease = min(max(float(holder.lease), 0.0), _LONGEST_LEASE)
        return replace(holder, lease=lease, owner=str(holder.owner), host=str(holder.host), beat=int(holder.beat))
    except (AttributeError, TypeError, ValueError, KeyError, BadFrame):
        raise StoreError(f"{where} is not a lock of nbrun", hint="Delete this object if no run is active.") from None


class StoreLock:
    """The lock of a `report` in a store.

    A holder with the owner id `ended` is known to have ended, and is replaced at once.
    """

    def __init__(self, store: ObjectStore, report: str, *, ended: str = "") -> None:
        self.owner = uuid.uuid4().hex
        self.fence = 0
        self.pause = LEASE / _ATTEMPTS
        self._store = store
        self._key = f"{report}/{LOCK}"
        self._ended = ended
        self._lease = LEASE
        self._seen: tuple[str, float] | None = None
        """The version that was seen last, and since when."""
        self._is_alive = False
        """Whether the version has changed since it was seen first."""
        self._other: Holder | None = None
        self._version = ""
        self._written = 0.0
        """When the last successful put began, by the monotonic clock."""
        self._beat = 0
        self._lost: LockLost | None = None
        self._silent_since: float | None = None
        self._warnings: list[str] = []
        self._renewing = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def _where(self) -> str:
        return f"{self._store.url.rstrip('/')}/{self._key}"

    def holder(self) -> str:
        """Return the process that holds the lock, for messages."""
        return str(self._other or "another process")

    async def attempt(self) -> Attempt:
        """Try once to get the lock; raise :class:`StoreError`.

        The holder is known to be alive if the lock has changed since the first attempt of this object.
        """
        stored = await self._store.get(self._key)
        now = time.monotonic()
        if stored is None:
            return await self._take(1, None)
        holder = _decoded(stored, self._where)
        if not holder.owner or holder.owner == self._ended:
            return await self._take(holder.fence + 1, stored.version)
        if self._seen is None or self._seen[0] != stored.version:
            self._is_alive = self._seen is not None
            self._seen, self._other = (stored.version, now), holder
        if now - self._seen[1] > holder.lease:
            return await self._take(holder.fence + 1, stored.version)
        return Attempt.TAKEN if self._is_alive else Attempt.UNCERTAIN

    async def _take(self, fence: int, version: str | None) -> Attempt:
        self.fence = fence
        try:
            self._version = await self._put(version)
        except (ObjectExists, VersionChanged):
            return Attempt.UNCERTAIN  # another run was faster, or the holder is alive
        work = copy_context().run  # with the time limits of the command
        self._thread = threading.Thread(target=work, args=(self._keep,), name="nbrun lock", daemon=True)
        self._thread.start()
        return Attempt.ACQUIRED

    async def _put(self, version: str | None, *, owner: str | None = None) -> str:
        self._beat += 1
        began = time.monotonic()
        owner = self.owner if owner is None else owner
        content = Holder(self.fence, owner, socket.gethostname(), os.getpid(), self._lease, self._beat).encoded()
        kind = "application/json"
        condition: dict[str, Any] = {"only_new": True} if version is None else {"if_version": version}
        written = await self._store.put(self._key, content, content_type=kind, **condition)
        self._written = began
        return written

    def _keep(self) -> None:
        """Renew the lock until it is released or lost. This is a thread, so that nothing in the run delays it."""
        pause = self._lease / _BEATS
        while not self._over.wait(pause):
            try:
                with self._renewing:
                    if self._over.is_set():
                        return
                    asyncio.run(self._renew())
            except LockLost:
                return
            except StoreError as error:
                pause = self._lease / _ATTEMPTS
                self._silent_since = self._silent_since or time.monotonic()
                if time.monotonic() - self._silent_since > self._lease and not self._warnings:
                    limit = spell_duration(self._lease)
                    self._warnings.append(f"--lock: not renewed for {limit}, so another run may start: {error}")
            else:
                pause, self._silent_since = self._lease / _BEATS, None

    async def _renew(self) -> None:
        """Write a new version; raise :class:`LockLost` if another run holds the lock, or :class:`StoreError`."""
        if self._lost is not None:
            raise self._lost
        try:
            self._version = await self._put(self._version)
        except (ObjectExists, VersionChanged):
            await self._read()  # perhaps an earlier put arrived whose answer was lost
            self._version = await self._put(self._version)

    async def _read(self) -> None:
        """Read the version; raise :class:`LockLost` if another run holds the lock, or :class:`StoreError`."""
        if self._lost is not None:
            raise self._lost
        stored = await self._store.get(self._key)
        holder = None if stored is None else _decoded(stored, self._where)
        if stored is not None and holder is not None and holder.owner == self.owner:
            self._version = stored.version
            return
        whom = "deleted" if holder is None else f"taken over by {holder} (fence {holder.fence})"
        what = f"{self._where}: the lock of this run (fence {self.fence}) was {whom}"
        hint = f"A run that is not heard of for {spell_duration(self._lease)} loses its lock."
        self._lost = LockLost(what, hint=hint)
        raise self._lost

    async def confirm(self) -> None:
        """Return if this run holds the lock for some time yet; raise :class:`LockLost` or :class:`StoreError`."""
        await asyncio.to_thread(self._confirm)

    def _confirm(self) -> None:
        end = time.monotonic() + _CONFIRM_LIMIT
        unanswered = Unanswered(f"{self._where}: the store did not answer within {_CONFIRM_LIMIT:.0f} s")
        if not self._renewing.acquire(timeout=_CONFIRM_LIMIT):
            raise unanswered
        try:
            is_recent = time.monotonic() - self._written < _RECENT
            asyncio.run(asyncio.wait_for(self._read() if is_recent else self._renew(), end - time.monotonic()))
        except TimeoutError:
            self._silent_since = time.monotonic()
            raise unanswered from None
        finally:
            self._renewing.release()

    def release(self) -> None:
        """Release the lock if it is held. This is bounded in time."""
        if self._thread is None:
            return
        self._thread = None
        self._over.set()
        end = time.monotonic() + _RELEASE_LIMIT
        if self._silent_since is not None or not self._renewing.acquire(timeout=_RELEASE_LIMIT):
            return  # the store does not answer
        try:
            if self._lost is None:
                with contextlib.suppress(StoreError, TimeoutError):
                    asyncio.run(asyncio.wait_for(self._put(self._version, owner=""), end - time.monotonic()))
        finally:
            self._renewing.release()

    def warnings(self) -> list[str]:
        """Return what the user should know about the time in which the lock was held."""
        return list(self._warnings)
