"""A file that others may change during the run: check before and after each write.

This is optimistic concurrency control. The version of the last own write is remembered, and any other version was
written by another client. Each save is checked afterwards, because status 200 proves nothing: if a reader's request
falls into a save, a stock Jupyter server restores the old file and still confirms the save.

::

    stat (still the version that was ours?) -> write, unless changed since -> stat again: what is there now?
        what was sent               ARRIVED
        sent, changed by a hook     CHANGED
        the old file                REVERTED
        anything else, or nothing   OVERTAKEN
"""

import asyncio
import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec.structs import replace

from nbrun.core.formats import json_text
from nbrun.core.notebook.merge import fingerprints
from nbrun.errors import NbrunError, ServerUnreachable
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, RetryPolicy
from nbrun.storage.base import Storage, Written
from nbrun.storage.file_version import FileVersion, differ, digest, has_mark_of, was_reverted, written_since

SETTLE = 1.0
"""Seconds until a second check, when another client's save or read may have finished."""


class SaveOutcome(Enum):
    """The result of a save."""

    ARRIVED = "arrived"
    CHANGED = "changed"
    """It arrived, and a hook of the server changed sources or outputs."""
    REVERTED = "reverted"
    """The old file is there again, because a reader made the server restore it."""
    OVERTAKEN = "overtaken"
    """Another client's version is there, or no file."""


_log = logging.getLogger(__name__)


class GuardedFile:
    """A file and the version of the last own write. The file may not exist yet."""

    def __init__(self, file: Storage, *, overwrite: bool = False) -> None:
        """Guard `file`; with `overwrite`, changes by others are ignored."""
        self.file = file
        self.seen: FileVersion | None = None
        """The version of the last own write or read; None if any version may be overwritten."""
        self.was_reverted = False
        """Whether a save was reverted by a reader."""
        self._overwrite = overwrite
        self._in_doubt: set[str] = set()
        """The hashes of content that was sent without an answer, and may have arrived or arrive later."""

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:
        """Return the version of the file, or None if it does not exist; recognise a save that arrived late."""
        now = await self.file.stat(retry)
        if now is not None and now.hash in self._in_doubt:
            self.seen = now
            self._in_doubt.clear()
        return now

    async def settled(self, retry: RetryPolicy) -> FileVersion | None:
        """Return the version. If another client wrote it, check again after that save may have finished."""
        now = await self.stat(retry)
        if self.is_foreign(now):
            await asyncio.sleep(SETTLE)
            now = await self.stat(retry)
        return now

    def is_foreign(self, now: FileVersion | None) -> bool:
        """Return whether another client wrote this version, or deleted the file."""
        return self.seen is not None and not self._overwrite and differ(self.seen, now)

    async def has_version(self, version: FileVersion) -> bool:
        """Request the file's version; return whether it is `version`."""
        return not differ(version, await self.stat())

    async def write(
        self, content: Mapping[str, Any], before: FileVersion | None, retry: RetryPolicy
    ) -> tuple[SaveOutcome, Written | None]:
        """Save `content` over the version `before`, and check the result; return the outcome and the storage's answer.

        Raises the errors of :meth:`Storage.write`. A save without an answer is recognised later by its hash.
        """
        sent = await self._send(content, before, retry)
        if isinstance(sent, SaveOutcome):
            return sent, None
        try:
            after = await self.stat(retry)
        except BaseException:
            self._doubt(content, before)
            raise
        if after is None:
            self.seen = self.seen or sent.version
            return SaveOutcome.OVERTAKEN, sent
        ours = sent.version
        if not ours.hash and after.hash:  # the stock server does not return the hash of a save
            found = await asyncio.to_thread(digest, content, after.hash_algorithm)
            ours = replace(ours, hash=found or None, hash_algorithm=after.hash_algorithm)
        outcome = await self._outcome(content, before, ours, after)
        _log.info("%s saved: %s, version %s", self.file.name, outcome.value, after.hash or after.last_modified)
        if outcome in (SaveOutcome.ARRIVED, SaveOutcome.CHANGED):
            self.seen = after
        elif outcome is SaveOutcome.REVERTED:
            self.was_reverted = True
        else:
            self.seen = ours if ours.hash or self.seen is None else self.seen
        return outcome, sent

    async def _send(
        self, content: Mapping[str, Any], before: FileVersion | None, retry: RetryPolicy
    ) -> Written | SaveOutcome:
        """Write until there is an answer.

        Before a repetition, check whether an earlier attempt or another client wrote.
        """
        sent: str | None = None  # the hash of an earlier attempt, or "" if unknown
        async for attempt in retry.attempts():
            with attempt:
                now = before if sent is None else await self.stat(ONCE)
                if now is not None and now.hash and now.hash == sent:
                    return SaveOutcome.ARRIVED
                is_new = now is not None and now.hash is not None  # a new file without a hash may be ours
                if sent is not None and (is_new if before is None else differ(before, now)):
                    return SaveOutcome.OVERTAKEN
                try:
                    return await self.file.write(content, now) or SaveOutcome.OVERTAKEN
                except (ServerUnreachable, asyncio.CancelledError):
                    sent = self._doubt(content, before) if sent is None else sent
                    raise
        raise AssertionError("the attempts end in a value or in an error")

    def _doubt(self, content: Mapping[str, Any], before: FileVersion | None) -> str:
        """Record the hash of content that may have arrived."""
        sent = digest(content, before.hash_algorithm if before else None)
        self._in_doubt |= {sent} - {""}
        return sent

    async def _outcome(
        self, content: Mapping[str, Any], before: FileVersion | None, ours: FileVersion, after: FileVersion
    ) -> SaveOutcome:
        if ours.hash is not None and ours.hash == after.hash:
            return SaveOutcome.ARRIVED
        if was_reverted(before, after):
            return SaveOutcome.REVERTED
        try:
            found = json_text.loads((await self.file.read())[0]) if ours.hash else None
        except NbrunError:
            found = None
        if found is None:  # a storage may keep notebooks in another form than JSON files
            return SaveOutcome.OVERTAKEN if written_since(ours, after) else SaveOutcome.ARRIVED
        if not has_mark_of(content, found):
            return SaveOutcome.OVERTAKEN
        return SaveOutcome.ARRIVED if fingerprints(found) == fingerprints(content) else SaveOutcome.CHANGED
