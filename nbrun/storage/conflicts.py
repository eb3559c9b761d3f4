"""Resolve conflicts with concurrent edits at a save: merge, save beside, or overwrite.

The rule is the same for every storage:

- *merge*: the results are merged into the edited notebook (core/notebook/merge.py). If some results have no place in
  it, the executed notebook is saved beside it too.
- *beside*: the edited notebook stays as it is, and the executed notebook is saved beside it.
- *overwrite*: the executed notebook replaces the edited one.

Each save is a loop::

    stat (is the file still ours?) -> write -> stat again (is it what was sent?) -> done
           |                                         | the old one: write again, three times at most
           | no: another client edited it: merge, or | another one: it was edited right after
           |     save beside it                <-----+
           +--> it was deleted: save beside it

If another client changes the file while cells still run, interval saves end, and the last save applies the rule.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from nbrun.core.formats import json_text
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.merge import fingerprints, merge
from nbrun.core.planning.job import OnConflict
from nbrun.errors import NotANotebook, SaveFailed, ServerError
from nbrun.jupyter.http.retry import ONCE, RetryPolicy
from nbrun.storage.base import Storage, Written
from nbrun.storage.file_version import FileVersion
from nbrun.storage.guarded_file import SETTLE, GuardedFile, SaveOutcome

ROUNDS = 3
_BESIDE = "-nbrun"
_CHANGED = "was changed by somebody else"


class GuardedTarget:
    """A save target that is one file, which others may change during the run."""

    def __init__(self, file: Storage, *, warn: Callable[[str], None], on_conflict: OnConflict) -> None:
        """Save to `file`; call `warn` with messages for the user."""
        self.file = file
        self._guarded = GuardedFile(file, overwrite=on_conflict is OnConflict.OVERWRITE)
        self._warn = warn
        self._on_conflict = on_conflict
        self._known: frozenset[int] = frozenset()
        """Fingerprints of the code cells in the last own version of the file. Other results are the user's."""
        self._complaints: set[str] = set()

    @property
    def was_reverted(self) -> bool:
        """Return whether a reader made the server restore the old file after a save."""
        return self._guarded.was_reverted

    def loaded(self, content: Mapping[str, Any], version: FileVersion | None) -> None:
        """Record what was loaded, and its version if it was loaded from this file."""
        self._known, self._guarded.seen = fingerprints(content), version

    async def has_changed(self) -> bool:
        """Request the file's version; return whether another client has changed or deleted the file."""
        return self._guarded.is_foreign(await self._guarded.stat())

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:  # noqa: ARG002
        """Save according to the conflict rule; return the name of the file with the executed notebook."""
        for _ in range(ROUNDS):
            before = await self._guarded.settled(retry)
            if not self._guarded.is_foreign(before):
                if await self._write(self._guarded, content, before, retry):
                    return self.file.name
            elif before is None:
                return await self._save_beside(content, retry, "was deleted or renamed")
            elif self._on_conflict is OnConflict.BESIDE:
                return await self._save_beside(content, retry, _CHANGED)
            elif saved_as := await self._save_merged(content, retry):
                return saved_as
        return await self._save_beside(content, retry, "is being changed by somebody else over and over")

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save in one attempt while the cells still run; return False if another client changed the file.

        Nothing is saved then. Raises :class:`ServerError`.
        """
        before = await self._guarded.settled(ONCE)
        if self._guarded.is_foreign(before):
            return self._stop_saving(deleted=before is None)
        self._known |= fingerprints(content)
        outcome, _ = await self._guarded.write(content, before, ONCE)
        if outcome is SaveOutcome.OVERTAKEN:
            return self._stop_saving(deleted=False)
        if outcome is not SaveOutcome.REVERTED:  # the next save repeats a reverted one
            self._known = fingerprints(content)
        return True

    def _stop_saving(self, *, deleted: bool) -> bool:
        what = "was deleted or renamed" if deleted else _CHANGED
        self._warn(f"{self.file.name} {what}; it is not saved again before the run has ended")
        return False

    def warn_of_complaint(self, what: str, complaint: str) -> None:
        """Warn about an invalid notebook that the server reports, once per message."""
        if complaint and complaint not in self._complaints:
            self._complaints.add(complaint)
            self._warn(f"the server says of {what}: {complaint}")

    async def create_beside(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Save under a free name beside the file, and return that name; raise :class:`SaveFailed` if there is none."""
        for number in range(1, 1000):
            beside = self.file.beside(f"{_BESIDE}{'' if number == 1 else number}")
            if not await beside.exists():
                break
        else:
            raise SaveFailed(f"{self.file.name}: there is no free name beside it")
        if not await self._write(GuardedFile(beside), content, None, retry):
            raise ServerError(f"{beside.name}: somebody else wrote to it, too")
        return beside.name

    async def _save_beside(self, content: Mapping[str, Any], retry: RetryPolicy, why: str) -> str:
        beside = await self.create_beside(content, retry)
        self._warn(f"{self.file.name} {why} during the run; the executed notebook is {beside}")
        return beside

    async def _save_merged(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Merge the results into the edited notebook; return the name of the executed one, or "" to try again."""
        found = await self._read_theirs()
        if found is None:
            return await self._save_beside(content, retry, _CHANGED)
        theirs, version = found
        merged = merge(theirs, content, self._known)
        if merged.unplaced and not merged.placed:
            return await self._save_beside(content, retry, _CHANGED)
        name = self.file.name
        if not merged.unplaced:
            if not await self._write_unless_changed(merged.content, version, retry):
                return ""
            if merged.content != content:
                self._warn(f"{name} {_CHANGED} during the run; their changes are kept, and the results are in it")
            return name
        beside = await self.create_beside(content, retry)
        is_beside = f"the notebook as it was executed is {beside}"
        if not await self._write_unless_changed(merged.content, version, retry):
            self._warn(f"{name} {_CHANGED} during the run; {is_beside}")
        else:
            cells = ", ".join(map(str, merged.unplaced))
            self._warn(
                f"{name} {_CHANGED} during the run; their changes are kept, and the results are in it but for those of "
                f"the cells at index {cells}, which they changed, removed or ran; {is_beside}"
            )
        return beside

    async def _read_theirs(self) -> tuple[Document, FileVersion] | None:
        """Return the edited notebook and its version, or None if the file is not a notebook."""
        for round_ in range(ROUNDS):
            if round_:
                await asyncio.sleep(SETTLE)
            try:
                data, version = await self.file.read()
                return Document(json_text.loads(data)), version
            except (ServerError, NotANotebook):  # another client's save may be in progress
                continue
        return None

    async def _write_unless_changed(self, content: Mapping[str, Any], version: FileVersion, retry: RetryPolicy) -> bool:
        """Save if the file still has this version; return False otherwise."""
        return await self._guarded.has_version(version) and await self._write(self._guarded, content, version, retry)

    async def _write(
        self, file: GuardedFile, content: Mapping[str, Any], before: FileVersion | None, retry: RetryPolicy
    ) -> bool:
        """Save over the version `before`; return False if another client saved right afterwards."""
        for round_ in range(ROUNDS):
            if round_:
                await asyncio.sleep(SETTLE)
            outcome, written = await file.write(content, before, retry)
            if outcome is SaveOutcome.REVERTED:
                continue
            if outcome is SaveOutcome.OVERTAKEN:
                return False
            if written is not None:
                self._warn_of_oddities(file.file.name, written, before, outcome)
            return True
        raise ServerError(
            "the server said three times that it saved the file, and each time the old one was there again",
            hint="Somebody seems to be reading the notebook over and over; close it in the browser and run again.",
        )

    def _warn_of_oddities(self, name: str, written: Written, before: FileVersion | None, outcome: SaveOutcome) -> None:
        """Warn about unusual results of a save that arrived."""
        if before is not None and written.created:
            self._warn(f"{name} was deleted or renamed just before it was saved; it is there again")
        if outcome is SaveOutcome.CHANGED:
            self._warn(f"{name} has not all sources and outputs that were saved: a hook of the server changes them")
        self.warn_of_complaint("the saved notebook", written.complaint)
