"""Notebooks on a Jupyter server that are executed in place or saved to another path there.

A file that another client changed is read as text. Reading it as a notebook during a save would make the server restore
the old file. The contents API has no conditional PUT. A private server answers 412 if the file has changed since it was
last read. A stock server writes, so an edit between the stat and the server's write is lost.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from nbrun.core.notebook.file_reading import complaint_of, why_unreadable
from nbrun.core.planning.job import CheckpointUse, OnConflict
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
from nbrun.jupyter.contents import NO_FILES_HINT, Contents, ContentsModel, kernel_path
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, RetryPolicy
from nbrun.storage.base import Written
from nbrun.storage.checkpoint import RunCheckpoint
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.file_version import FileVersion, differ, is_of
from nbrun.storage.paths import hint_for_missing_on_server

CHANGED_MEANWHILE = 412
"""The private server's answer to a save if the file has changed since the last read."""
_DRIVE = re.compile(r"^[A-Za-z][\w-]*:")


class ServerFile:
    """A file on a server: a :class:`~nbrun.storage.base.Storage`."""

    def __init__(
        self,
        contents: Contents,
        path: str,
        *,
        warn: Callable[[str], None],
        name_for_user: Callable[[str], str] = str,
        checkpoint: RunCheckpoint | None = None,
    ) -> None:
        """Use the file at `path`; create the `checkpoint` before the first overwrite."""
        self.path = path
        """The path on the server."""
        self._contents = contents
        self._warn = warn
        self._name_for_user = name_for_user
        self._checkpoint = checkpoint

    @property
    def name(self) -> str:
        """Return the path as the user knows it."""
        return self._name_for_user(self.path)

    @property
    def folder(self) -> str:
        """Return the path of the folder that contains the file; the root's is empty."""
        return self.path.rpartition("/")[0]

    def beside(self, suffix: str) -> "ServerFile":
        """Return the file ``NAME{suffix}.ipynb`` in the same folder."""
        path = PurePosixPath(self.path)
        beside = str(path.with_name(f"{path.stem}{suffix}{path.suffix}"))
        return ServerFile(self._contents, beside, warn=self._warn, name_for_user=self._name_for_user)

    async def exists(self) -> bool:
        """Return whether there is a file or folder that is not hidden."""
        return await self._contents.exists(self.path)

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:
        """Return the version of the file, or None if it does not exist. Safe during a save."""
        try:
            return version_of_model(await self._contents.stat(self.path, retry=retry))
        except NotFound:
            return None

    async def read(self) -> tuple[bytes, FileVersion]:
        """Return the bytes of the file and its version. Safe during a save.

        Raises :class:`ServerError` if the file changes meanwhile or is not text.
        """
        version = version_of_model(await self._contents.stat(self.path))
        data = (await self._contents.text(self.path)).encode("utf-8", "replace")
        if not is_of(data, version):
            raise ServerError(f"{self.name}: changed while it was read")
        return data, version

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Save the notebook with one PUT; return None if a private server reports that the file has changed.

        A stock server does not compare versions. An incomplete save is undone if possible.
        """
        if unless_changed_since is None:
            await self._contents.make_parents(self.path)
        elif self._checkpoint is not None:
            await self._checkpoint.make(self.path)
        try:
            saved = await self._contents.save_notebook(self.path, content, retry=ONCE)
        except RequestRefused as error:
            if error.status == CHANGED_MEANWHILE:
                return None
            if error.status >= 500 and (found := await self._left_behind(content, unless_changed_since, error)):
                return Written(found)
            raise
        return Written(version_of_model(saved.model), saved.created, complaint_of(saved.model.message or ""))

    async def _left_behind(
        self, content: Mapping[str, Any], before: FileVersion | None, error: RequestRefused
    ) -> FileVersion | None:
        """Return the version that a refused save wrote nevertheless. Otherwise undo the save, or warn."""
        try:
            now = await self.stat()
            if now is None or (before is not None and not differ(before, now)):
                return None
            if now.hash and is_of(content, now):
                self._warn(f"{self.name} is saved, but {error.reason}")
                return now
            if before is None:
                await self._contents.delete(self.path)
            else:
                # Reading it as a notebook makes the server restore the old content and rename the incomplete file.
                await self._contents.notebook(self.path)
                with contextlib.suppress(NotFound):
                    await self._contents.delete(f"{self.path}.invalid")
        except NbrunError:
            old = "" if before is None else f", and its old content in .~{PurePosixPath(self.path).name} beside it"
            self._warn(f"{self.name} may be left on the server half written{old}")
        return None


def version_of_model(model: ContentsModel) -> FileVersion:
    """Return the version in the server's description of a file."""
    return FileVersion(model.hash, model.hash_algorithm, model.last_modified, model.size)


class ServerNotebook:
    """A notebook that is loaded from a path on the server and saved to the same or another path there."""

    def __init__(
        self,
        contents: Contents,
        path: str,
        output: str,
        *,
        warn: Callable[[str], None],
        on_conflict: OnConflict = OnConflict.MERGE,
        name_for_user: Callable[[str], str] = str,
        checkpoint: CheckpointUse = CheckpointUse.NONE,
        cwd: str | None = None,
    ) -> None:
        """Load from `path` and save to `output`; the kernel works in `cwd`, or else in the notebook's folder.

        `warn` is called with messages for the user. `name_for_user` returns the user's name for a path.
        """
        self.check_output = False
        """Whether :meth:`load` checks that the output can be written."""
        self._is_new = False
        """Whether the output did not exist when the notebook was loaded."""
        self.path = path
        self._contents = contents
        self._checkpoint = RunCheckpoint(contents, checkpoint)
        self._file = ServerFile(contents, output, warn=warn, name_for_user=name_for_user, checkpoint=self._checkpoint)
        self._target = GuardedTarget(self._file, warn=warn, on_conflict=on_conflict)
        self._warn = warn
        self._name = name_for_user
        self._cwd = cwd

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""
        return kernel_path(self.path, self._cwd)

    def read_ahead(self) -> None:
        """Send the requests of a :meth:`load` that follows soon, all at the same time."""
        self._contents.read_ahead(self.path, kind="notebook", with_hash=True)
        if self._cwd is not None:
            self._contents.read_ahead(self._cwd, content=False)
        if self.check_output and self._file.path != self.path:
            self._contents.read_ahead(self._file.path, content=False)
            self._contents.read_ahead(self._file.folder, content=False)

    async def load(self) -> Mapping[str, Any]:
        """Return the content; raise :class:`NoSuchNotebook`, :class:`NotANotebook` or :class:`UsageError`."""
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
        # From here on the server's canonical path is used, which may differ from the path in the call.
        in_place = self._file.path == self.path
        self.path = model.path or self.path
        if in_place:
            self._file.path = self.path
            await self._checkpoint.check(self.path)
        self._target.warn_of_complaint("the notebook", complaint_of(model.message or ""))
        if self.check_output and in_place and model.writable is False:
            raise _not_writable(self.path, "Add -o PATH to write elsewhere on the server, or --no-save.")
        if self.check_output and not in_place:
            await self._check_output()
        content: Mapping[str, Any] = model.content
        self._target.loaded(content, version_of_model(model) if in_place else None)
        return content

    async def _missing(self) -> NoSuchNotebook:
        """Return the error for a notebook that is not found. If there is no root folder, the server has no files."""
        if not await self._contents.exists(""):
            return NoSuchNotebook(f"{self.path}: this server serves no files", hint=NO_FILES_HINT)
        hint = hint_for_missing_on_server(self.path)
        return NoSuchNotebook(f"{self.path}: there is no such notebook on the server", hint=hint)

    async def _check_output(self) -> None:
        """Raise :class:`UsageError` if the server reports that the output cannot be written.

        If the output is a folder on the server, the output becomes the notebook's path within that folder.
        """
        model = await self._described(self._file.path)
        if model is not None and model.type == "directory":
            self._file.path = f"{self._file.path}/{self.path}"
            model = await self._described(self._file.path)
        self._is_new = model is None
        for folder in PurePosixPath(self._file.path).parents:
            if model is None:
                model = await self._described(str(folder) if folder.name else "")
                if model is not None and model.type != "directory":
                    hint = "Choose another path on the server."
                    raise UsageError(f"-o {self._file.path}: {folder} is a file on the server, not a folder", hint=hint)
        if model is not None and model.writable is False:
            raise _not_writable(f"-o {self._file.path}", "Choose another path on the server, or add --no-save.")

    async def _described(self, path: str) -> ContentsModel | None:
        """Return the server's description of a path, or None if nothing is there.

        The hash is not requested, because servers answer 500 for the hash of a folder. They also do so for a path below
        a file.
        """
        try:
            return await self._contents.get(path, content=False)
        except (NotFound, RequestRefused):
            return None

    async def _fetch(self) -> ContentsModel:
        try:
            return await self._contents.notebook(self.path)
        except NotFound:
            # JupyterLab shows some paths with a drive (RTC:), which the server does not know.
            bare = _DRIVE.sub("", self.path)
            if bare == self.path:
                raise
            model = await self._contents.notebook(bare)
        if self._file.path == self.path:
            self._file.path = bare
        self.path = bare
        return model

    async def _diagnosed(self, error: NotANotebook) -> NotANotebook:
        """Return the error with the reason why the file is not a notebook, if its bytes show one."""
        try:
            what, hint = why_unreadable(await self._contents.data(self.path))
        except NbrunError:
            return error
        return NotANotebook(f"{self._name(self.path)}: {what}", hint=hint)

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Save, and return the name of the file with the executed notebook; raise :class:`SaveFailed`.

        If the run has not `passed` and the original must be restored, the executed notebook is saved beside it.
        """
        if self._is_new and self._file.folder:  # the folder must exist, or is created
            self._contents.read_ahead(self._file.folder, content=False)
        try:
            if self._checkpoint.use is CheckpointUse.RESTORE and not passed and self._file.path == self.path:
                saved_as = await self._save_beside_and_restore(content, retry)
            else:
                saved_as = await self._target.save(content, retry)
            if self._target.was_reverted and await self._contents.exists(f"{self._file.path}.invalid"):
                self._warn(
                    f"{self._file.name}.invalid was left by the server: somebody read the notebook while it was being "
                    "saved. It was saved again, and that file can be deleted"
                )
        except ServerError as error:
            why, hint = await self._why_refused(error)
            raise SaveFailed(f"{self._file.name}: not saved: {why}", hint=hint) from error
        return saved_as

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save in one attempt while the cells still run; return False if another client changed the file.

        Raises :class:`ServerError`.
        """
        return await self._target.save_meanwhile(content)

    async def close(self) -> None:
        """Do nothing, because :meth:`load` created nothing on the server."""

    async def _why_refused(self, error: ServerError) -> tuple[str, str]:
        """Return the reason of a failed save, without the request's address, and a hint."""
        if not isinstance(error, RequestRefused):
            return error.reason, error.hint
        with contextlib.suppress(NbrunError):
            now = await self._contents.get(self._file.path, content=False, retry=ONCE)
            if now.type == "directory":
                return "a folder of that name took its place during the run", "Rename the folder, and save elsewhere."
        hint = "Its server could not write it: is the disk full there?" if error.status == 500 else ""
        return error.reason, error.hint or hint

    async def _save_beside_and_restore(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Restore the original notebook, and save the executed one beside it."""
        beside = await self._target.create_beside(content, retry)
        name, is_beside = self._file.name, f"the executed notebook is {beside}"
        if await self._target.has_changed():
            self._warn(f"{name} was changed by somebody else during the run and was left as it is; {is_beside}")
        elif problem := await self._checkpoint.restore(self.path):
            self._warn(f"{name} could not be brought back to its checkpoint: {problem}; {is_beside}")
        else:
            self._warn(f"the run did not pass, so {name} is as it was before; {is_beside}")
        return beside


def _not_writable(what: str, hint: str) -> UsageError:
    return UsageError(f"{what}: the server says that this cannot be written", hint=hint)
