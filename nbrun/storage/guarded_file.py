"""One file on a server, watched for other people's changes: each look at it, each save of it, and whose it is then.

No look fetches a notebook's content as such, which would do to somebody else's save what the looks guard against. What
the file was when it was last known to be ours (or as it was loaded) is remembered; whatever else it becomes is foreign.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

from nbrun.core.formats import json_text
from nbrun.core.notebook.merge import fingerprints
from nbrun.errors import BadFrame, NbrunError, NotFound, RequestRefused, ServerUnreachable
from nbrun.jupyter.contents import Contents, ContentsModel, Saved
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, RetryPolicy
from nbrun.storage.file_version import bears_mark_of, differ, digest, undone, written_since

SETTLE = 1.0
"""Seconds until a second look: somebody else's save in progress, or a reader who polls the file, may be over then."""
CHANGED_MEANWHILE = 412
"""What the private server says to a save of a file that is another than at the last look."""


class Fate(Enum):
    """What became of a save."""

    ARRIVED = "arrived"
    CHANGED = "changed"
    """It arrived, and a hook of the server has left other sources or outputs than were sent."""
    UNDONE = "undone"
    """The old file is there again: somebody's reading has brought it back."""
    OVERTAKEN = "overtaken"
    """Somebody else's is there, or nothing."""


class WatchedFile:
    """The file at one path, which need not be there yet."""

    def __init__(self, contents: Contents, path: str, *, force: bool = False) -> None:
        """Watch `path`; with `force`, nobody's changes count."""
        self.path = path
        self.seen: ContentsModel | None = None
        """What it was when it was last ours; None where anything may be overwritten."""
        self._contents = contents
        self._force = force
        self._in_doubt: set[str] = set()
        """The hashes of what was sent and may have arrived."""

    async def look(self, retry: RetryPolicy = PATIENT_GET) -> ContentsModel | None:
        """Return what there is now, without its content; None where nothing is."""
        try:
            now = await self._contents.stat(self.path, retry=retry)
        except NotFound:
            return None
        if now.hash in self._in_doubt:
            self.seen = now
            self._in_doubt.clear()
        return now

    async def settled(self, retry: RetryPolicy = PATIENT_GET) -> ContentsModel | None:
        """Look; where it seems to be somebody else's, once more: a save in progress shows what it is not to remain."""
        now = await self.look(retry)
        if self.is_foreign(now):
            await asyncio.sleep(SETTLE)
            now = await self.look(retry)
        return now

    def is_foreign(self, now: ContentsModel | None) -> bool:
        """Return whether somebody else made it what it is now."""
        return self.seen is not None and not self._force and differ(self.seen, now)

    async def put(
        self, content: Mapping[str, Any], before: ContentsModel | None, retry: RetryPolicy
    ) -> tuple[Fate, Saved | None]:
        """Save `content` where `before` is, and look what is there then; returns the server's answer, too, if there is.

        Raises what :meth:`Contents.save` does; a save of which nobody knows whether it arrived is known by its hash
        when it is seen later.
        """
        try:
            saved = await self._send(content, before, retry)
        except RequestRefused as error:
            if error.status == CHANGED_MEANWHILE:
                return Fate.OVERTAKEN, None
            raise
        if isinstance(saved, Fate):
            return saved, None
        try:
            after = await self.look(retry)
        except BaseException:
            self._doubt(content, before)
            raise
        if after is None:
            self.seen = self.seen or saved.model
            return Fate.OVERTAKEN, saved
        ours = saved.model if saved.model.hash or not after.hash else await self._known_by_hash(saved, content, after)
        fate = await self._fate(content, before, ours, after)
        if fate in (Fate.ARRIVED, Fate.CHANGED):
            self.seen = after
        elif fate is Fate.OVERTAKEN:
            self.seen = ours if ours.hash or self.seen is None else self.seen
        return fate, saved

    async def _send(self, content: Mapping[str, Any], before: ContentsModel | None, retry: RetryPolicy) -> Saved | Fate:
        """Save until there is an answer; what an attempt without one, or somebody else, has left is looked at first."""
        sent = ""
        async for attempt in retry.attempts():
            with attempt:
                now = await self.look(ONCE) if sent else before
                if now is not None and now.hash and now.hash == sent:
                    return Fate.ARRIVED
                if sent and (differ(before, now) if before is not None else now is not None and now.hash is not None):
                    return Fate.OVERTAKEN
                try:
                    return await self._contents.save_notebook(self.path, content, retry=ONCE)
                except (ServerUnreachable, asyncio.CancelledError):
                    sent = sent or self._doubt(content, before)
                    raise
        raise AssertionError("the attempts end in a value or in an error")

    def _doubt(self, content: Mapping[str, Any], before: ContentsModel | None) -> str:
        """Remember by its hash what may have arrived."""
        sent = digest(content, before.hash_algorithm if before else None)
        self._in_doubt.add(sent)
        return sent

    async def _known_by_hash(self, saved: Saved, content: Mapping[str, Any], after: ContentsModel) -> ContentsModel:
        """Return the server's answer with the hash of what was sent, which the stock server does not tell."""
        found = await asyncio.to_thread(digest, content, after.hash_algorithm)
        return replace(saved.model, hash=found or None, hash_algorithm=after.hash_algorithm)

    async def _fate(
        self, content: Mapping[str, Any], before: ContentsModel | None, ours: ContentsModel, after: ContentsModel
    ) -> Fate:
        if ours.hash is not None and ours.hash == after.hash:
            return Fate.ARRIVED
        if undone(before, after):
            return Fate.UNDONE
        try:
            found = json_text.loads(await self._contents.text(self.path)) if ours.hash else None
        except (NbrunError, BadFrame):
            found = None
        if found is None:  # no notebook as JSON, as which servers can keep them, too
            return Fate.OVERTAKEN if written_since(ours, after) else Fate.ARRIVED
        if not bears_mark_of(content, found):
            return Fate.OVERTAKEN
        return Fate.ARRIVED if fingerprints(found) == fingerprints(content) else Fate.CHANGED
