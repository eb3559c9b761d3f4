"""One notebook on a server: loaded, watched for other people's changes, saved and verified.

A 200 is no proof that a save arrived: a reader whose GET falls into it brings the old file back, and the server answers
200 all the same. So each save is a round::

    look (is the file still the one that was loaded?) -> PUT -> look again (is it what was sent?) -> done
           |                                                       | the old one: PUT again, three times at most
           | no: somebody edited it: their notebook gets our       | another one: they edited it right after
           |     results (core/merging.py), what finds no  <-------+
           |     place goes beside
           +--> or deleted it: the executed notebook goes beside

What they edited is read as the text of the file: to fetch it as a notebook would do to another's save what this guards
against.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from nbrun.core.formats import json_text
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_format import complaint_of, why_unreadable
from nbrun.core.notebook.merge import fingerprints, merge
from nbrun.errors import (
    NbrunError,
    NoSuchNotebook,
    NotANotebook,
    NotFound,
    RequestRefused,
    SaveFailed,
    ServerError,
    UsageError,
)
from nbrun.jupyter.contents import NO_FILES_HINT, Contents, ContentsModel, Saved, kernel_path
from nbrun.jupyter.http.retry import ONCE, RetryPolicy
from nbrun.storage.checkpoint import Undo, UndoPoint
from nbrun.storage.file_version import differ, is_of
from nbrun.storage.guarded_file import SETTLE, Fate, WatchedFile
from nbrun.storage.paths import hint_for_missing_on_server

ROUNDS = 3
_DRIVE = re.compile(r"^[A-Za-z][\w-]*:")


class ServerNotebook:
    """A notebook that is run where it lies: loaded from `path`, saved to `output`, both on the server."""

    def __init__(
        self,
        contents: Contents,
        path: str,
        output: str,
        *,
        warn: Callable[[str], None],
        force: bool = False,
        name_for_user: Callable[[str], str] = str,
        undo: Undo = Undo.NONE,
        cwd: str | None = None,
    ) -> None:
        """Prepare; `warn` is told of what the user should know, who knows files by `name_for_user` of their path.

        The kernel's working folder is `cwd`, a path on the server, if not the notebook's own.
        """
        self.check_output = False
        """Whether loading asks the server if the output can be written."""
        self.path = path
        self._contents = contents
        self._file = WatchedFile(contents, output, force=force)
        self._warn = warn
        self._name = name_for_user
        self._undo = UndoPoint(contents, undo)
        self._cwd = cwd
        self._known: frozenset[int] = frozenset()
        self._was_undone = False
        self._complaints: set[str] = set()

    @property
    def kernel_path(self) -> str:
        """Where it is to its kernel, whose working directory is the folder of it."""
        return kernel_path(self.path, self._cwd)

    async def load(self) -> Mapping[str, Any]:
        """Fetch the notebook's content; raises :class:`NoSuchNotebook` or :class:`NotANotebook`."""
        if self._cwd is not None:
            await self._contents.require_folder(self._cwd)
        try:
            model = await self._fetch()
        except NotFound:
            raise await self._missing() from None
        except NotANotebook as error:
            raise await self._diagnosed(error) from None
        except RequestRefused as error:
            if error.status != 403:
                raise
            hint = "Let the server's user read the file, or name another notebook."
            raise UsageError(f"{self._name(self.path)}: the server may not read this notebook", hint=hint) from None
        # From here on under the server's own name for it: a path as it was typed may differ from it.
        in_place = self._file.path == self.path
        self.path = model.path or self.path
        if in_place:
            self._file.path, self._file.seen = self.path, model
            await self._undo.check(self.path)
        self._tell_complaint("the notebook", model)
        if self.check_output and in_place and model.writable is False:
            raise _not_writable(self.path, "Add -o PATH to write elsewhere on the server, or --no-save.")
        if self.check_output and not in_place:
            await self._check_output()
        content: Mapping[str, Any] = model.content
        self._known = fingerprints(content)
        return content

    async def _missing(self) -> NoSuchNotebook:
        """Return the error of a notebook that is not found; a server without files has not even a root folder."""
        if not await self._contents.exists(""):
            return NoSuchNotebook(f"{self.path}: this server serves no files", hint=NO_FILES_HINT)
        hint = hint_for_missing_on_server(self.path)
        return NoSuchNotebook(f"{self.path}: there is no such notebook on the server", hint=hint)

    async def _check_output(self) -> None:
        """Raise :class:`UsageError` where the server says that the output cannot be written there.

        An output that is a folder on the server becomes the notebook's place in that folder.
        """
        model = await self._described(self._file.path)
        if model is not None and model.type == "directory":
            self._file.path = f"{self._file.path}/{self.path}"
            model = await self._described(self._file.path)
        for folder in PurePosixPath(self._file.path).parents:
            if model is None:
                model = await self._described(str(folder) if folder.name else "")
                if model is not None and model.type != "directory":
                    hint = "Choose another path on the server."
                    raise UsageError(f"-o {self._file.path}: {folder} is a file on the server, not a folder", hint=hint)
        if model is not None and model.writable is False:
            raise _not_writable(f"-o {self._file.path}", "Choose another path on the server, or add --no-save.")

    async def _described(self, path: str) -> ContentsModel | None:
        """Return what the server says of a path, None where nothing is.

        Servers answer 500 when asked for a folder's hash, and for a path below a file.
        """
        try:
            return await self._contents.get(path, content=False)
        except (NotFound, RequestRefused):
            return None

    async def _fetch(self) -> ContentsModel:
        try:
            return await self._contents.notebook(self.path)
        except NotFound:
            # JupyterLab shows some paths with a drive before them (RTC:), which the server knows nothing of.
            bare = _DRIVE.sub("", self.path)
            if bare == self.path:
                raise
            model = await self._contents.notebook(bare)
        if self._file.path == self.path:
            self._file.path = bare
        self.path = bare
        return model

    async def _diagnosed(self, error: NotANotebook) -> NotANotebook:
        """Say in plain words what the server says of a file that it cannot read as a notebook."""
        try:
            what, hint = why_unreadable(await self._contents.data(self.path))
        except NbrunError:
            return error
        return NotANotebook(f"{self._name(self.path)}: {what}", hint=hint)

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Save to the output path, beside it what finds no place there; returns where the executed notebook is.

        A run that has not `passed` may have to leave its notebook as it was. Raises :class:`SaveFailed`.
        """
        try:
            if self._undo.wanted is Undo.RESTORE and not passed and self._file.path == self.path:
                saved_as = await self._save_beside_and_restore(content, retry)
            else:
                saved_as = await self._save(content, retry)
            await self._mention_debris()
        except ServerError as error:
            why, hint = await self._why_refused(error)
            raise SaveFailed(f"{self._name(self._file.path)}: not saved: {why}", hint=hint) from error
        return self._name(saved_as)

    async def _why_refused(self, error: ServerError) -> tuple[str, str]:
        """Return why a save failed, without the address of the request, and what to do."""
        if not isinstance(error, RequestRefused):
            return error.reason, error.hint
        with contextlib.suppress(NbrunError):
            now = await self._contents.get(self._file.path, content=False, retry=ONCE)
            if now.type == "directory":
                return "a folder of that name took its place during the run", "Rename the folder, and save elsewhere."
        hint = "Its server could not write it: is the disk full there?" if error.status == 500 else ""
        return error.reason, error.hint or hint

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save once, without patience, while the notebook is still running; raises :class:`ServerError`.

        False, and nothing done, where somebody changed the file: what becomes of that is for the last save to decide.
        """
        before = await self._file.settled(ONCE)
        if self._file.is_foreign(before):
            return self._is_theirs(deleted=before is None)
        if before is None:
            await self._contents.make_parents(self._file.path)
        else:
            await self._undo.set(self._file.path)
        self._known |= fingerprints(content)
        try:
            fate, _ = await self._file.put(content, before, ONCE)
        except RequestRefused as error:
            if not await self._is_saved_all_the_same(self._file, content, before, error):
                raise
            fate = Fate.ARRIVED
        if fate is Fate.OVERTAKEN:
            return self._is_theirs(deleted=False)
        if fate is Fate.UNDONE:
            self._was_undone = True  # the next save will do
        else:
            self._known = fingerprints(content)
        return True

    def _is_theirs(self, *, deleted: bool) -> bool:
        """Tell that there is no saving until the end."""
        what = "was deleted or renamed" if deleted else "was changed by somebody else"
        self._warn(f"{self._name(self._file.path)} {what}; it is not saved again before the run has ended")
        return False

    async def close(self) -> None:
        """Leave the server as it is: there is nothing to clean up."""

    async def _save(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        for _ in range(ROUNDS):
            before = await self._file.settled()
            if not self._file.is_foreign(before):
                if before is None:
                    await self._contents.make_parents(self._file.path)
                if await self._put(self._file, content, before, retry):
                    return self._file.path
            elif before is None:
                return await self._save_beside(content, retry, "was deleted or renamed")
            elif saved_as := await self._save_merged(content, retry):
                return saved_as
        return await self._save_beside(content, retry, "is being changed by somebody else over and over")

    async def _save_beside(self, content: Mapping[str, Any], retry: RetryPolicy, why: str) -> str:
        beside = await self._beside()
        self._warn(f"{self._name(self._file.path)} {why} during the run; the executed notebook is {self._name(beside)}")
        await self._create(beside, content, retry)
        return beside

    async def _save_merged(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Put our results into the notebook as they left it; returns where the executed one is, "" to try once more."""
        name, changed = self._name(self._file.path), "was changed by somebody else"
        found = await self._read_theirs()
        if found is None:
            return await self._save_beside(content, retry, changed)
        theirs, model = found
        merged = merge(theirs, content, self._known)
        if merged.unplaced and not merged.placed:
            return await self._save_beside(content, retry, changed)
        if not merged.unplaced:
            if not await self._put_where(model, merged.content, retry):
                return ""
            if merged.content != content:
                self._warn(f"{name} {changed} during the run; their changes are kept, and the results are in it")
            return self._file.path
        beside = await self._beside()
        await self._create(beside, content, retry)
        is_beside = f"the notebook as it was executed is {self._name(beside)}"
        if not await self._put_where(model, merged.content, retry):
            self._warn(f"{name} {changed} during the run; {is_beside}")
        else:
            cells = ", ".join(map(str, merged.unplaced))
            self._warn(
                f"{name} {changed} during the run; their changes are kept, and the results are in it but for those of "
                f"the cells at index {cells}, which they changed, removed or ran; {is_beside}"
            )
        return beside

    async def _read_theirs(self) -> tuple[Document, ContentsModel] | None:
        """Read what they made of the notebook; None where that is none."""
        for round_ in range(ROUNDS):
            if round_:
                await asyncio.sleep(SETTLE)
            model = await self._file.look()
            try:
                text = await self._contents.text(self._file.path)
                theirs = Document(json_text.loads(text))
            except (ServerError, NotANotebook):  # it may be being saved, by halves on disk
                continue
            if model is not None and is_of(text, model):
                return theirs, model
        return None

    async def _save_beside_and_restore(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Leave the notebook as it was before the run, and keep what was executed of it beside."""
        beside = await self._beside()
        await self._create(beside, content, retry)
        name, is_beside = self._name(self.path), f"the executed notebook is {self._name(beside)}"
        if self._file.is_foreign(await self._file.look()):
            self._warn(f"{name} was changed by somebody else during the run and was left as it is; {is_beside}")
        elif problem := await self._undo.restore(self.path):
            self._warn(f"{name} could not be brought back to its checkpoint: {problem}; {is_beside}")
        else:
            self._warn(f"the run did not pass, so {name} is as it was before; {is_beside}")
        return beside

    async def _create(self, path: str, content: Mapping[str, Any], retry: RetryPolicy) -> None:
        await self._contents.make_parents(path)
        if not await self._put(WatchedFile(self._contents, path), content, None, retry):
            raise ServerError(f"{path}: somebody else wrote to it, too")

    async def _put_where(self, seen: ContentsModel, content: Mapping[str, Any], retry: RetryPolicy) -> bool:
        """Save where the file is still the one that was `seen`; False where it is not."""
        return not differ(seen, await self._file.look()) and await self._put(self._file, content, seen, retry)

    async def _put(
        self, file: WatchedFile, content: Mapping[str, Any], before: ContentsModel | None, retry: RetryPolicy
    ) -> bool:
        """Save where `before` is now; False where somebody saved right after, and theirs is there."""
        if before is not None:
            await self._undo.set(file.path)
        for round_ in range(ROUNDS):
            if round_:
                await asyncio.sleep(SETTLE)
            try:
                fate, saved = await file.put(content, before, retry)
            except RequestRefused as error:
                if await self._is_saved_all_the_same(file, content, before, error):
                    return True
                raise
            if fate is Fate.UNDONE:
                self._was_undone = True
                continue
            if fate is Fate.OVERTAKEN:
                return False
            if saved is not None:
                self._tell_of(saved, before, fate)
            return True
        raise ServerError(
            "the server said three times that it saved the file, and each time the old one was there again",
            hint="Somebody seems to be reading the notebook over and over; close it in the browser and run again.",
        )

    def _tell_of(self, saved: Saved, before: ContentsModel | None, fate: Fate) -> None:
        """Warn of what was odd about a save that arrived."""
        name = self._name(saved.model.path)
        if before is not None and saved.created:
            self._warn(f"{name} was deleted or renamed just before it was saved; it is there again")
        if fate is Fate.CHANGED:
            self._warn(f"{name} has not all sources and outputs that were saved: a hook of the server changes them")
        self._tell_complaint("the saved notebook", saved.model)

    def _tell_complaint(self, what: str, model: ContentsModel) -> None:
        """Warn of what the server says of a notebook, unless it said the same before."""
        complaint = complaint_of(model.message or "")
        if complaint and complaint not in self._complaints:
            self._complaints.add(complaint)
            self._warn(f"the server says of {what}: {complaint}")

    async def _is_saved_all_the_same(
        self, file: WatchedFile, content: Mapping[str, Any], before: ContentsModel | None, error: RequestRefused
    ) -> bool:
        """Look what a save that broke off on the server left behind, and undo it; what cannot be undone is told."""
        if error.status < 500:
            return False  # it was not begun
        try:
            now = await file.look()
            if now is None or (before is not None and not differ(before, now)):
                return False
            if now.hash and is_of(content, now):
                file.seen = now
                self._warn(f"{self._name(file.path)} is saved, but {error.reason}")
                return True
            if before is None:
                await self._contents.delete(file.path)
            else:
                await self._contents.notebook(file.path)  # to be read makes the server bring the old content back,
                with contextlib.suppress(NotFound):  # and put what was half written aside
                    await self._contents.delete(f"{file.path}.invalid")
        except NbrunError:
            old = "" if before is None else f", and its old content in .~{PurePosixPath(file.path).name} beside it"
            self._warn(f"{self._name(file.path)} may be left on the server half written{old}")
        return False

    async def _mention_debris(self) -> None:
        if self._was_undone and await self._contents.exists(f"{self._file.path}.invalid"):
            self._warn(
                f"{self._name(self._file.path)}.invalid was left by the server: somebody read the notebook while it "
                "was being saved. It was saved again, and that file can be deleted"
            )

    async def _beside(self) -> str:
        path = PurePosixPath(self._file.path)
        for number in range(1, 1000):
            name = f"{path.stem}-nbrun{'' if number == 1 else number}{path.suffix}"
            if not await self._contents.exists(str(path.with_name(name))):
                return str(path.with_name(name))
        raise SaveFailed(f"{self._file.path}: there is no free name beside it")


def _not_writable(what: str, hint: str) -> UsageError:
    return UsageError(f"{what}: the server says that this cannot be written", hint=hint)
