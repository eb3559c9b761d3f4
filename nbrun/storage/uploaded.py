"""A local notebook on a remote kernel: uploaded to a folder of its own, run there, brought back, cleaned up after.

Only what nbrun itself put on the server is deleted. Files that the notebook wrote into its working folder are left
there, and named.
"""

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbrun.core.formats import json_text
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.merge import Merged, fingerprints, merge
from nbrun.errors import BadFrame, NbrunError, NotANotebook, NotFound, UsageError
from nbrun.jupyter.contents import NO_FILES_HINT, Contents, kernel_path
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.storage.on_disk import free_name_beside, mode_of, read_text, write_notebook

UPLOAD_FOLDER = re.compile(r"nbrun-[0-9a-f]{12}")
"""The name of the folder, at the server's root, of one upload."""


async def remove_upload(contents: Contents, path: str) -> list[str]:
    """Delete an uploaded notebook, and its folder if nothing else is in it; return the names of what else is."""
    folder = path.rpartition("/")[0]
    with contextlib.suppress(NbrunError):
        await contents.delete(path)
    try:
        left = [entry.name for entry in await contents.directory(folder)]
        if not left:
            await contents.delete(folder)
    except NotFound:
        return []  # it never came to the upload
    return left


class UploadedNotebook:
    """A notebook on this machine that is run on a server."""

    def __init__(
        self,
        contents: Contents,
        local: Path,
        output: Path,
        *,
        warn: Callable[[str], None],
        force: bool = False,
        cwd: str | None = None,
    ) -> None:
        """Prepare to run `local` and write the result to `output`.

        A notebook that somebody changed meanwhile is overwritten only with `force`. The kernel works in `cwd`, a folder
        on the server, if not where the notebook is uploaded to.
        """
        self._contents = contents
        self._local = local
        self._output = output
        self._warn = warn
        self._force = force
        self._cwd = cwd
        self._text: str | None = None
        """What the file to write to held when it was last seen; None where that does not matter."""
        self._known: frozenset[int] = frozenset()
        self._mode = mode_of(output)
        """The permissions of the file to write to, for when it is deleted meanwhile."""
        self._folder = f"nbrun-{uuid.uuid4().hex[:12]}"
        self.path = f"{self._folder}/{local.name}"
        """Where it is on the server."""

    @property
    def kernel_path(self) -> str:
        """Where it is to its kernel, whose working directory is the folder of it."""
        return kernel_path(self.path, self._cwd)

    async def load(self) -> Mapping[str, Any]:
        """Upload the file as it is and fetch it as a notebook; raises :class:`UsageError` for one that is none.

        Raises :class:`NotFound` for a server without a contents API, such as a kernel gateway.
        """
        text = read_text(self._local)
        if self._cwd is not None:
            await self._contents.require_folder(self._cwd)
        try:
            await self._contents.make_directory(self._folder)
        except NotFound as error:
            raise NotFound(f"this server takes no files: {error}", hint=NO_FILES_HINT) from None
        await self._contents.save_file(self.path, text)
        try:
            content: Mapping[str, Any] = (await self._contents.notebook(self.path)).content
        except NotANotebook as error:
            raise NotANotebook(f"{self._local}: {error}", hint=error.hint) from None
        if self._output == self._local:
            self._text, self._known = text, fingerprints(content)
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:  # noqa: ARG002
        """Write the result to this machine's disk, what finds no place in it beside; raises :class:`SaveFailed`."""
        if write_notebook(self._output, content, where=self._is_ours, mode=self._mode) is not None:
            return str(self._output)
        now = self._text_now()
        what = "was deleted or renamed" if now is None else "was changed by somebody else"
        merged = self._merged(now or "", content)
        if merged is not None and not merged.unplaced and self._take(merged, now):
            self._warn(f"{self._output} {what} during the run; their changes are kept, and the results are in it")
            return str(self._output)
        beside = free_name_beside(self._output)
        write_notebook(beside, content, mode=mode_of(self._output) or self._mode)
        self._warn(f"{self._output} {what} during the run; the executed notebook is {beside}")
        if merged is not None and merged.unplaced and merged.placed and self._take(merged, now):
            self._warn(f"{self._output} has the results, too, but for those of cells that were changed, removed or run")
        return str(beside)

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Write while the notebook is still running; False, and nothing done, where somebody changed the file."""
        self._known |= fingerprints(content)
        text = write_notebook(self._output, content, where=self._is_ours, mode=self._mode)
        if text is not None:
            self._text, self._known = text, fingerprints(content)
        return text is not None

    def _is_ours(self) -> bool:
        """Return whether the file may be written over."""
        return self._force or self._text is None or self._text_now() == self._text

    def _take(self, merged: Merged, theirs: str | None) -> bool:
        """Write what was merged, if the file is still what it was merged with."""
        text = write_notebook(self._output, merged.content, where=lambda: self._text_now() == theirs)
        return text is not None

    def _text_now(self) -> str | None:
        try:
            return read_text(self._output)
        except UsageError:  # it is gone, or no text any more
            return None

    def _merged(self, text: str, content: Mapping[str, Any]) -> Merged | None:
        try:
            return merge(Document(json_text.loads(text)), content, self._known)
        except (BadFrame, NotANotebook):
            return None

    async def close(self) -> None:
        """Remove the upload; what cannot be removed is told, not raised."""
        try:
            left = await remove_upload(self._contents, self.path)
            if left:
                self._warn(f"the notebook wrote files on the server; they are in {self._folder}/: {', '.join(left)}")
        except NbrunError as error:
            self._warn(f"{self._folder}/ is left on the server: {error}")
