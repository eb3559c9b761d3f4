"""Objects in stores: the protocol of a store, its errors and its time limits.

A store holds whole objects by key. A put is one request or one rename, so that a reader sees the old object, the new
one or none. Two conditions make a put safe against other writers: the object must be new, or still have a version.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol, TypeVar, cast

from nbrun.errors import ServerError
from nbrun.storage.wait_budget import current_budget

Result = TypeVar("Result")
LIMIT = 20.0
"""Seconds for one operation, without the time for sending its data."""
SLOWEST_LINE = 250_000
"""The lowest expected speed of a put, in bytes per second."""
_TYPES = {".ipynb": "application/x-ipynb+json", ".jsonl": "application/jsonl", ".json": "application/json"}


class StoreError(ServerError):
    """A store failed: unreachable, credentials refused, no such bucket, or a refused request."""


class ObjectExists(StoreError):
    """A put required a new object, and there is one with this key."""


class VersionChanged(StoreError):
    """A put required a version, and the object has another one or was deleted."""


class ConditionsIgnored(StoreError):
    """The store writes although a condition of the put is not met."""


class Unanswered(StoreError):
    """The store did not answer, so that a put may have arrived."""


@dataclass(frozen=True, slots=True)
class ObjectState:
    """The version of an object without its content."""

    version: str
    size: int | None
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with its key, content, version (an ETag, a generation or a hash) and the time of its last change."""

    key: str
    data: bytes
    version: str
    modified: datetime | None = None

    @property
    def state(self) -> ObjectState:
        """Return the version of the object without its content."""
        return ObjectState(self.version, len(self.data), self.modified)


class ObjectStore(Protocol):
    """Objects below one URL. Keys are relative to it, with ``/``. All methods raise :class:`StoreError` in time."""

    @property
    def url(self) -> str:
        """Return the address for messages, without credentials."""

    async def get(self, key: str) -> StoredObject | None:
        """Return an object, or None if there is none."""

    async def stat(self, key: str) -> ObjectState | None:
        """Return the version of an object, or None if there is none."""

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        only_new: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Write an object and return its version.

        With `only_new`, raises :class:`ObjectExists` if there is one. With `if_version`, raises :class:`VersionChanged`
        if it does not have that version.
        """

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that begin with `prefix`."""

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

    async def check(self, key: str = "") -> None:
        """Raise :class:`StoreError` if the store is not reachable or writable; `key` is an object to be written.

        Raises :class:`ConditionsIgnored` if it is, but ignores the conditions of puts. This leaves no object.
        """


def content_type_of(key: str) -> str:
    """Return the media type that follows from the suffix of a key."""
    import mimetypes

    suffix = PurePosixPath(key).suffix.lower()
    kind = _TYPES.get(suffix) or mimetypes.guess_type(key)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


@contextlib.asynccontextmanager
async def in_time(url: str, size: int = 0) -> AsyncIterator[None]:
    """Limit the time of a request with `size` bytes; raise :class:`Unanswered`.

    The limit is that of the shared :class:`~nbrun.storage.wait_budget.WaitBudget`, if there is one.
    """
    budget = current_budget()
    limit = LIMIT if budget is None else min(LIMIT, budget.limit_for(url))
    if not limit:
        raise Unanswered(f"{url}: the store does not answer")
    limit += size / SLOWEST_LINE
    try:
        with budget.measure(url) if budget is not None else contextlib.nullcontext():
            async with asyncio.timeout(limit):
                yield
    except TimeoutError:
        raise Unanswered(f"{url}: the store did not answer within {limit:.0f} s") from None


async def check_answers(store: ObjectStore, key: str, size: int) -> None:
    """Raise :class:`Unanswered` if a store does not answer, before it has the time for sending `size` bytes."""
    budget = current_budget()
    if size < SLOWEST_LINE or (budget is not None and budget.has_answered(store.url)):
        return
    try:
        await store.stat(key)
    except Unanswered:
        raise
    except StoreError:
        pass  # it answered; perhaps it can only be written to


async def in_thread(url: str, work: Callable[[], Result], size: int = 0) -> Result:
    """Return the result of `work`, which blocks and sends `size` bytes; raise its error, or :class:`Unanswered`.

    It has a daemon thread of its own, so that a request that hangs does not delay the end of the process.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def finish(result: Result | None, error: Exception | None) -> None:
        if done.done():  # the time is over
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(Result, result))

    def run() -> None:
        result: Result | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as failure:  # noqa: BLE001 - raised in the caller's thread
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, result, error)

    async with in_time(url, size):
        threading.Thread(target=run, name="nbrun store", daemon=True).start()
        return await done
