"""One notebook on a server: loaded, watched for other people's changes, saved and verified.

A 200 is no proof that a save arrived: a reader whose GET falls into it brings the old file back, and the server answers
200 all the same. So each save is a round::

    look (is the file still the one that was loaded?) -> PUT -> look again (is it another file than before?) -> done
           |                                                       | no: PUT again, three times at most
           | no: somebody edited it, or it was deleted
           +--> their file is left alone; the executed notebook goes beside it

Looks never fetch content, which would do to another's save what this guards against.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from nbrun.core.notebook_text import notebook_text
from nbrun.core.unreadable import why_unreadable
from nbrun.errors import NbrunError, NoSuchNotebook, NotANotebook, NotFound, SaveFailed, ServerError
from nbrun.jupyter.contents import Contents, ContentsModel
from nbrun.jupyter.retry import RetryPolicy

ROUNDS = 3
SETTLE = 1.0
"""Seconds before a lost save is repeated: whoever reads the file may be polling it."""
_DRIVE = re.compile(r"^[A-Za-z][\w-]*:")
_MTIME_MARGIN = timedelta(milliseconds=500)


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
    ) -> None:
        """Prepare; `warn` is told of what the user should know, who knows files by `name_for_user` of their path."""
        self.path = path
        self._contents = contents
        self._output = output
        self._warn = warn
        self._force = force
        self._name = name_for_user
        self._seen: ContentsModel | None = None

    async def load(self) -> Mapping[str, Any]:
        """Fetch the notebook's content; raises :class:`NoSuchNotebook` or :class:`NotANotebook`."""
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
        if model.message:
            self._warn(f"the server says of the notebook: {model.message}")
        if in_place and model.writable is False:
            self._warn("the server says that the notebook cannot be written; its result will be kept on this machine")
        content: Mapping[str, Any] = model.content
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

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy) -> str:
        """Save to the output path, or beside it if somebody changed the file meanwhile; gives where it went.

        Raises :class:`SaveFailed`.
        """
        try:
            before = await self._look()
            if self._is_foreign(before):
                # A save in progress shows for a moment a file that is neither the old one nor the new one.
                await asyncio.sleep(SETTLE)
                before = await self._look()
            if self._is_foreign(before):
                self._output = await self._beside()
                what = "was deleted or renamed" if before is None else "was changed by somebody else"
                saved_as = self._name(self._output)
                self._warn(f"{self._name(self.path)} {what} during the run; the executed notebook is {saved_as}")
                before = None
            if before is None:
                await self._contents.make_parents(self._output)
            await self._put(content, before, retry)
        except ServerError as error:
            raise SaveFailed(f"{self._name(self._output)}: not saved: {error}", hint=error.hint) from error
        return self._name(self._output)

    async def _diagnosed(self, error: NotANotebook) -> NotANotebook:
        """Say in plain words what the server says of a file that it cannot read as a notebook."""
        try:
            what, hint = why_unreadable(await self._contents.data(self.path))
        except NbrunError:
            return error
        return NotANotebook(f"{self._name(self.path)}: {what}", hint=hint)

    async def close(self) -> None:
        """Leave the server as it is: there is nothing to clean up."""

    async def _put(self, content: Mapping[str, Any], before: ContentsModel | None, retry: RetryPolicy) -> None:
        for round_ in range(ROUNDS):
            if round_:
                await asyncio.sleep(SETTLE)
            saved = await self._contents.save_notebook(self._output, content, retry=retry)
            after = await self._look()
            if after is not None and _arrived(content, before, after):
                self._seen = after
                if saved.model.message:
                    self._warn(f"the server says of the saved notebook: {saved.model.message}")
                return
        raise ServerError(
            "the server said three times that it saved the file, and each time the old one was there again",
            hint="Somebody seems to be reading the notebook over and over; close it in the browser and run again.",
        )

    def _is_foreign(self, now: ContentsModel | None) -> bool:
        return self._seen is not None and not self._force and _differ(self._seen, now)

    async def _look(self) -> ContentsModel | None:
        try:
            return await self._contents.stat(self._output)
        except NotFound:
            return None

    async def _beside(self) -> str:
        path = PurePosixPath(self._output)
        for number in range(1, 1000):
            name = f"{path.stem}-nbrun{'' if number == 1 else number}{path.suffix}"
            if not await self._contents.exists(str(path.with_name(name))):
                return str(path.with_name(name))
        raise SaveFailed(f"{self._output}: there is no free name beside it")


def _differ(seen: ContentsModel, now: ContentsModel | None) -> bool:
    """Tell whether a file is another than the one that was seen; by hash, on old servers by its date."""
    if now is None:
        return True
    if seen.hash and now.hash:
        return seen.hash != now.hash
    if seen.last_modified and now.last_modified:
        return now.last_modified - seen.last_modified > _MTIME_MARGIN
    return False


def _arrived(content: Mapping[str, Any], before: ContentsModel | None, after: ContentsModel) -> bool:
    """Tell whether a save arrived: the file is another than before, or it was the same notebook all along."""
    if before is None:
        return after.size != 0
    if before.hash and after.hash:
        return before.hash != after.hash or _hash(content, after.hash_algorithm) == after.hash
    return before.last_modified is None or before.last_modified != after.last_modified


def _hash(content: Mapping[str, Any], algorithm: str | None) -> str:
    try:
        return hashlib.new(algorithm or "sha256", notebook_text(content).encode()).hexdigest()
    except ValueError:  # an algorithm that this Python does not know
        return ""
