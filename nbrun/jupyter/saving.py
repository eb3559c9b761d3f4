"""One notebook on a server: loaded, watched for other people's changes, saved and verified.

A 200 is no proof that a save arrived: a reader whose GET falls into it brings the old file back, and the server answers
200 all the same. So each save is a round::

    look (is the file still the one that was loaded?) -> PUT -> look again (is it another file than before?) -> done
           |                                                       | no: PUT again, three times at most
           | no: somebody edited it: their notebook gets our results (core/merging.py), what finds no place goes beside
           +--> or deleted it: the executed notebook goes beside

Looks never fetch a notebook's content as such, which would do to another's save what this guards against: a look asks
for the hash, and what they edited is read as the text of the file.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from nbrun.core import jsontext
from nbrun.core.document import Document
from nbrun.core.merging import fingerprints, merge
from nbrun.core.unreadable import why_unreadable
from nbrun.errors import NbrunError, NoSuchNotebook, NotANotebook, NotFound, RequestRefused, SaveFailed, ServerError
from nbrun.jupyter.contents import Contents, ContentsModel, kernel_path
from nbrun.jupyter.looks import arrived, differ, is_of, written_since
from nbrun.jupyter.retry import ONCE, PATIENT_GET, RetryPolicy
from nbrun.jupyter.undo import Undo, UndoPoint

ROUNDS = 3
SETTLE = 1.0
"""Seconds before a lost save is repeated: whoever reads the file may be polling it."""
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
        self.path = path
        self._contents = contents
        self._output = output
        self._warn = warn
        self._force = force
        self._name = name_for_user
        self._undo = UndoPoint(contents, undo)
        self._cwd = cwd
        self._seen: ContentsModel | None = None
        self._known: frozenset[int] = frozenset()
        self._was_undone = False

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
            hint = "Paths on a server are relative to its root folder; hidden files do not exist for it."
            raise NoSuchNotebook(f"{self.path}: there is no such notebook on the server", hint=hint) from None
        except NotANotebook as error:
            raise await self._diagnosed(error) from None
        # From here on under the server's own name for it: a path as it was typed may differ from it.
        in_place = self._output == self.path
        self.path = model.path or self.path
        if in_place:
            self._output, self._seen = self.path, model
            await self._undo.check(self.path)
        if model.message:
            self._warn(f"the server says of the notebook: {model.message}")
        if in_place and model.writable is False:
            self._warn("the server says that the notebook cannot be written; its result will be kept on this machine")
        content: Mapping[str, Any] = model.content
        self._known = fingerprints(content)
        return content

    async def _fetch(self) -> ContentsModel:
        try:
            return await self._contents.notebook(self.path)
        except NotFound:
            # JupyterLab shows some paths with a drive before them (RTC:), which the server knows nothing of.
            bare = _DRIVE.sub("", self.path)
            if bare == self.path:
                raise
            model = await self._contents.notebook(bare)
        if self._output == self.path:
            self._output = bare
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
        """Save to the output path, beside it what finds no place there; gives where the executed notebook is.

        A run that has not `passed` may have to leave its notebook as it was. Raises :class:`SaveFailed`.
        """
        try:
            if self._undo.wanted is Undo.RESTORE and not passed and self._output == self.path:
                saved_as = await self._save_beside_and_restore(content, retry)
            else:
                saved_as = await self._save(content, retry)
            await self._mention_debris()
        except ServerError as error:
            broke_off = isinstance(error, RequestRefused) and error.status == 500
            hint = error.hint or ("Its server could not write it: is the disk full there?" if broke_off else "")
            raise SaveFailed(f"{self._name(self._output)}: not saved: {error}", hint=hint) from error
        return self._name(saved_as)

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save once, without patience, while the notebook is still running; raises :class:`ServerError`.

        False, and nothing done, where somebody changed the file: what becomes of that is for the last save to decide.
        """
        before = await self._look(ONCE)
        if self._is_foreign(before):
            return False
        if before is None:
            await self._contents.make_parents(self._output)
        else:
            await self._undo.set(self._output)
        self._known |= fingerprints(content)
        try:
            saved = await self._contents.save_notebook(self._output, content, retry=ONCE)
        except RequestRefused as error:
            await self._is_saved_all_the_same(self._output, content, before, error)
            raise
        after = await self._look(ONCE)
        if after is None or written_since(saved.model, after):
            self._seen = self._seen or saved.model
            return False
        if arrived(content, before, after):
            self._seen, self._known = after, fingerprints(content)
        else:
            self._was_undone = True  # the next save will do
        return True

    async def close(self) -> None:
        """Leave the server as it is: there is nothing to clean up."""

    async def _save(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        for _ in range(ROUNDS):
            before = await self._look()
            if self._is_foreign(before):
                # A save in progress shows for a moment a file that is neither the old one nor the new one.
                await asyncio.sleep(SETTLE)
                before = await self._look()
            if not self._is_foreign(before):
                if before is None:
                    await self._contents.make_parents(self._output)
                if await self._put(self._output, content, before, retry):
                    return self._output
            elif before is None:
                return await self._save_beside(content, retry, "was deleted or renamed")
            elif saved_as := await self._save_merged(content, retry):
                return saved_as
        return await self._save_beside(content, retry, "is being changed by somebody else over and over")

    async def _save_beside(self, content: Mapping[str, Any], retry: RetryPolicy, why: str) -> str:
        beside = await self._beside()
        self._warn(f"{self._name(self._output)} {why} during the run; the executed notebook is {self._name(beside)}")
        await self._create(beside, content, retry)
        return beside

    async def _save_merged(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Put our results into the notebook as they left it; gives where the executed one is, "" to try once more."""
        name, changed = self._name(self._output), "was changed by somebody else"
        found = await self._read_theirs()
        if found is None:
            return await self._save_beside(content, retry, changed)
        theirs, model = found
        merged = merge(theirs, content, self._known)
        if merged.unplaced and not merged.placed:
            return await self._save_beside(content, retry, changed)
        if not merged.unplaced:
            if differ(model, await self._look()) or not await self._put(self._output, merged.content, model, retry):
                return ""
            if merged.content != content:
                self._warn(f"{name} {changed} during the run; their changes are kept, and the results are in it")
            return self._output
        beside = await self._beside()
        await self._create(beside, content, retry)
        is_beside = f"the notebook as it was executed is {self._name(beside)}"
        if differ(model, await self._look()) or not await self._put(self._output, merged.content, model, retry):
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
            model = await self._look()
            try:
                text = await self._contents.text(self._output)
                theirs = Document(jsontext.loads(text))
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
        if self._is_foreign(await self._look()):
            self._warn(f"{name} was changed by somebody else during the run and was left as it is; {is_beside}")
        elif problem := await self._undo.restore(self.path):
            self._warn(f"{name} could not be brought back to its checkpoint: {problem}; {is_beside}")
        else:
            self._warn(f"the run did not pass, so {name} is as it was before; {is_beside}")
        return beside

    async def _create(self, path: str, content: Mapping[str, Any], retry: RetryPolicy) -> None:
        await self._contents.make_parents(path)
        await self._put(path, content, None, retry)

    async def _put(
        self, path: str, content: Mapping[str, Any], before: ContentsModel | None, retry: RetryPolicy
    ) -> bool:
        """Save to `path`, where `before` is now; False where somebody saved right after, and theirs is there."""
        if before is not None:
            await self._undo.set(path)
        for round_ in range(ROUNDS):
            if round_:
                await asyncio.sleep(SETTLE)
            try:
                saved = await self._contents.save_notebook(path, content, retry=retry)
            except RequestRefused as error:
                if await self._is_saved_all_the_same(path, content, before, error):
                    return True
                raise
            after = await self._look(path=path)
            if after is None or not arrived(content, before, after):
                self._was_undone = True
                continue
            if written_since(saved.model, after) and not is_of(content, after):
                self._seen = self._seen or saved.model
                return False
            if path == self._output:
                self._seen = after
            if before is not None and saved.created:
                self._warn(f"{self._name(path)} was deleted or renamed just before it was saved; it is there again")
            if saved.model.message:
                self._warn(f"the server says of the saved notebook: {saved.model.message}")
            return True
        raise ServerError(
            "the server said three times that it saved the file, and each time the old one was there again",
            hint="Somebody seems to be reading the notebook over and over; close it in the browser and run again.",
        )

    async def _is_saved_all_the_same(
        self, path: str, content: Mapping[str, Any], before: ContentsModel | None, error: RequestRefused
    ) -> bool:
        """Look what a save that broke off on the server left behind, and undo it; what cannot be undone is told."""
        if error.status < 500:
            return False  # it was not begun
        try:
            now = await self._look(path=path)
            if now is None or (before is not None and not differ(before, now)):
                return False
            if now.hash and is_of(content, now):
                self._warn(f"{self._name(path)} is saved, but the server said: {error}")
                return True
            if before is None:
                await self._contents.delete(path)
            else:
                await self._contents.notebook(path)  # to be read makes the server bring the old content back,
                with contextlib.suppress(NotFound):  # and put what was half written aside
                    await self._contents.delete(f"{path}.invalid")
        except NbrunError:
            old = "" if before is None else f", and its old content in .~{PurePosixPath(path).name} beside it"
            self._warn(f"{self._name(path)} may be left on the server half written{old}")
        return False

    async def _mention_debris(self) -> None:
        if self._was_undone and await self._contents.exists(f"{self._output}.invalid"):
            self._warn(
                f"{self._name(self._output)}.invalid was left by the server: somebody read the notebook while it was "
                "being saved. It was saved again, and that file can be deleted"
            )

    def _is_foreign(self, now: ContentsModel | None) -> bool:
        return self._seen is not None and not self._force and differ(self._seen, now)

    async def _look(self, retry: RetryPolicy = PATIENT_GET, *, path: str | None = None) -> ContentsModel | None:
        try:
            return await self._contents.stat(self._output if path is None else path, retry=retry)
        except NotFound:
            return None

    async def _beside(self) -> str:
        path = PurePosixPath(self._output)
        for number in range(1, 1000):
            name = f"{path.stem}-nbrun{'' if number == 1 else number}{path.suffix}"
            if not await self._contents.exists(str(path.with_name(name))):
                return str(path.with_name(name))
        raise SaveFailed(f"{self._output}: there is no free name beside it")
