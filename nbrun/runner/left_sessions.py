"""Find and end the sessions that killed nbrun processes left on a server.

A session is ended only if all of these are true: its path has an expired owner mark (:mod:`nbrun.jupyter.owner_mark`),
no client was connected to its kernel at two checks 30 s apart, its kernel is idle, no other session uses the kernel,
and nothing of this changed between the checks. Other sessions are only described. A run that lost its connection keeps
its mark for ten minutes and gives up after two.

The server's report that a kernel is idle is not enough, because a server mistakes the end of a control request for the
end of the cell. So nbrun sends a request that the kernel answers only between two cells. This is the last step, because
it removes the messages that the server keeps for a reconnecting client.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from nbrun.errors import NbrunError
from nbrun.jupyter.client import Client
from nbrun.jupyter.http.retry import ONCE
from nbrun.jupyter.owner_mark import OwnerMark, may_be_unmarked
from nbrun.jupyter.sessions import SessionModel
from nbrun.storage.uploaded import UPLOAD_FOLDER, remove_upload

SECONDS_BETWEEN_LOOKS = 30.0
ANSWER_LIMIT = 5.0
"""Time limit for the answer of an idle kernel, in seconds; a slower kernel counts as busy."""
CONNECT_LIMIT = 30.0
_AT_REST = frozenset({"idle", "dead"})


@dataclass(frozen=True, slots=True)
class LeftSession:
    """A session that is or may be nbrun's; ``obstacle`` is the reason not to end it, or empty."""

    session: SessionModel
    obstacle: str

    def __str__(self) -> str:
        """Return the notebook, the kernel and the time of its last activity."""
        session, kernel = self.session, self.session.kernel
        folder = session.path.strip("/").rpartition("/")[0]
        notebook = f"{folder}/{session.name or '?'}".lstrip("/")
        if kernel is None:
            return f"{notebook} (session {session.id[:8]}, without a kernel)"
        since = f", last active {kernel.last_activity:%Y-%m-%d %H:%M} UTC" if kernel.last_activity else ""
        return f"{notebook} (session {session.id[:8]}, kernel {kernel.name}{since})"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The result for a left session: ended, or not because of ``obstacle`` or ``error``.

    ``files`` are files that the notebook wrote into the upload folder; they are kept.
    """

    left: LeftSession
    error: NbrunError | None = None
    files: str = ""

    @property
    def is_ended(self) -> bool:
        """Return whether the session is gone."""
        return not self.left.obstacle and self.error is None


def sessions_of_nbrun(sessions: Sequence[SessionModel], now: datetime) -> tuple[LeftSession, ...]:
    """Return the sessions that are, or may be, nbrun's; `now` is the server's time."""
    return tuple(
        LeftSession(session, _obstacle(session, sessions, now))
        for session in sessions
        if OwnerMark.read(session.path) or may_be_unmarked(session.path, session.type)
    )


def _obstacle(session: SessionModel, sessions: Sequence[SessionModel], now: datetime) -> str:
    mark, kernel = OwnerMark.read(session.path), session.kernel
    if mark is None:
        return "it may be of an nbrun before owner marks, or of another client"
    if mark.expiry is None:
        return "it has no owner mark: its run has just started, or the server takes no marks"
    if not mark.has_expired(now):
        return f"its run may be alive: its owner mark is good until {mark.expiry:%H:%M:%S} UTC"
    if kernel is None:
        return ""
    if any(other.id != session.id and other.kernel and other.kernel.id == kernel.id for other in sessions):
        return "another session uses its kernel, too"
    if kernel.connections is None:
        return "the server does not say whether a client is connected to its kernel"
    if kernel.connections > 0:
        return "another client is connected to its kernel"
    if kernel.execution_state not in _AT_REST:
        return f"its kernel is not idle: {kernel.execution_state or 'its state is unknown'}"
    return ""


async def find_left(client: Client) -> tuple[LeftSession, ...]:
    """Return the sessions of nbrun on a server after one check; raises the errors of :meth:`Sessions.list`."""
    sessions = await client.sessions.list()
    return sessions_of_nbrun(sessions, client.sessions.server_time())


async def end_left(
    client: Client, first: Sequence[LeftSession], wait: Callable[[float], Awaitable[object]]
) -> tuple[Cleaned, ...]:
    """Repeat the `first` check after a `wait`, and end the sessions that both checks allow to end.

    Raises the errors of :meth:`Sessions.list`. A session that cannot be ended is in the result.
    """
    if not any(not left.obstacle for left in first):
        return tuple(map(Cleaned, first))
    await wait(SECONDS_BETWEEN_LOOKS)
    sessions = await client.sessions.list()
    now = {left.session.id: left for left in sessions_of_nbrun(sessions, client.sessions.server_time())}
    return tuple(
        [
            await _ended(client, before, now[before.session.id], sessions)
            for before in first
            if before.session.id in now  # another client has ended the others
        ]
    )


async def _ended(client: Client, before: LeftSession, now: LeftSession, sessions: Sequence[SessionModel]) -> Cleaned:
    if before.obstacle or now.obstacle:
        return Cleaned(LeftSession(now.session, now.obstacle or before.obstacle))
    if now.session != before.session:
        return Cleaned(LeftSession(now.session, "it was used between the two looks"))
    kernel = now.session.kernel
    if kernel and kernel.execution_state != "dead" and not await kernel_answers(client, kernel.id):
        return Cleaned(LeftSession(now.session, "its kernel does not answer, so it may be busy"))
    try:
        await client.sessions.delete(now.session.id)
        return Cleaned(now, files=await _remove_upload(client, now.session, sessions))
    except NbrunError as error:
        return Cleaned(now, error)


async def kernel_answers(client: Client, kernel_id: str) -> bool:
    """Return whether a kernel answers a request on the shell channel, where cells run."""
    with contextlib.suppress(NbrunError, TimeoutError):
        async with asyncio.timeout(CONNECT_LIMIT), client.kernel(kernel_id, patience=ONCE) as kernel:
            await kernel.handshake(ANSWER_LIMIT)
            return True
    return False


async def _remove_upload(client: Client, session: SessionModel, sessions: Sequence[SessionModel]) -> str:
    """Remove the files that --upload created for this session; return those that the notebook wrote."""
    folder = session.path.strip("/").rpartition("/")[0]
    others = (other.path.strip("/") for other in sessions if other.id != session.id)
    if not UPLOAD_FOLDER.fullmatch(folder) or any(path.startswith(f"{folder}/") for path in others):
        return ""
    left = await remove_upload(client.contents, f"{folder}/{session.name}")
    return f"{folder}/: {', '.join(left)}" if left else ""


def is_upload(name: str) -> bool:
    """Return whether a folder in the server's root has the name of an upload's folder."""
    return re.fullmatch(UPLOAD_FOLDER, name) is not None
