"""The owner mark of a run: an id and an expiry in the path of its session on a shared server.

A killed nbrun leaves its session on the server, and the server cannot know that nobody uses it any more. So a run marks
its session and renews the mark::

    reports/nbrun-3f2a9c1d-…                             when the session is started
    reports/nbrun-3f2a9c1d-…-until-20261130T063500Z      marked; PATCHed again every three minutes

The mark is in the path because a stock server stores any path, lists it to every client that may see the session, and
changes it without affecting the kernel. The session's name stays the notebook's. The folder stays the same too, so the
kernel's environment is the same after a restart. A session is marked only after it was started. A server that refuses
the PATCH or does not store paths (a kernel gateway) therefore never has a mark that could expire during the run.

The expiry uses the server's time (its ``Date`` header), because the clocks of two clients may differ.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Self

from msgspec import Struct

from nbrun.errors import NbrunError, ServerUnreachable
from nbrun.jupyter.sessions import SessionModel, Sessions

LIFETIME = timedelta(minutes=10)
"""Time until a mark expires. A run that lost its server gives up after two minutes, long before."""
RENEWED_EVERY = 180.0
RETRIED_EVERY = 15.0
MARGIN = timedelta(minutes=1)
"""Extra time before a mark counts as expired, because a proxy may have written the ``Date`` header."""

_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OWN = re.compile(rf"nbrun-(?P<id>{_ID})(?:-until-(?P<expiry>\d{{8}}T\d{{6}}Z))?")
_BARE = re.compile(_ID)
_FORM = "%Y%m%dT%H%M%SZ"


class OwnerMark(Struct, frozen=True):
    """The id of a run and the expiry of its mark; the expiry is None if the server does not support marks."""

    id: str
    expiry: datetime | None = None

    @classmethod
    def read(cls, path: str) -> Self | None:
        """Return the mark in a session's path, or None if the session is not nbrun's."""
        found = _OWN.fullmatch(path.rpartition("/")[2])
        if found is None:
            return None
        try:
            expiry = datetime.strptime(found["expiry"], _FORM).replace(tzinfo=UTC) if found["expiry"] else None
        except ValueError:  # not a date, so not a mark of nbrun
            return None
        return cls(found["id"], expiry)

    @property
    def segment(self) -> str:
        """Return the last segment of the session's path."""
        return f"nbrun-{self.id}" + (f"-until-{self.expiry.astimezone(UTC):{_FORM}}" if self.expiry else "")

    def has_expired(self, now: datetime) -> bool:
        """Return whether the mark has expired; `now` is the server's time."""
        return self.expiry is not None and now > self.expiry + MARGIN


def may_be_unmarked(path: str, kind: str) -> bool:
    """Return whether a session may be from an nbrun without owner marks.

    Sessions of other clients can look the same.
    """
    return kind == "console" and _BARE.fullmatch(path.rpartition("/")[2]) is not None


@contextlib.asynccontextmanager
async def marked(
    sessions: Sessions, session: SessionModel, *, every: float = RENEWED_EVERY, again: float = RETRIED_EVERY
) -> AsyncIterator[asyncio.Task[None]]:
    """Mark the session, and renew the mark until the block ends; yield the task that does so.

    The run does not wait for the mark. The mark is renewed after `every` seconds, or after `again` seconds if that
    failed.
    """
    renewing = asyncio.create_task(_renew(sessions, session, every, again))
    try:
        yield renewing
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})


async def _renew(sessions: Sessions, session: SessionModel, every: float, again: float) -> None:
    folder = session.path.strip("/").rpartition("/")[0]
    mark = OwnerMark.read(session.path)
    if mark is None or not session.type:  # a kernel gateway stores no types, and answers 500 to a PATCH
        return
    is_marked = False
    while True:
        claim = OwnerMark(mark.id, sessions.server_time() + LIFETIME)
        pause = every
        try:
            await sessions.move(session.id, f"{folder}/{claim.segment}")
            is_marked = True
        except ServerUnreachable:
            pause = again
        except NbrunError:
            if not is_marked:  # the server refuses it, so the session never has a mark that could expire
                return
            pause = again
        await asyncio.sleep(pause)
