"""Upload a local notebook to a remote server, run it there, and save the result locally.

The notebook is uploaded to a folder of its own. Afterwards nbrun deletes only what it put on the server. Files that the
notebook wrote into its working folder stay there, and a warning names them.
"""

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbrun.core.planning.job import OnConflict
from nbrun.errors import NbrunError, NotANotebook, NotFound, SeatLost
from nbrun.jupyter.contents import NO_FILES_HINT, Contents, kernel_path
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.on_disk import DiskFile, decoded

UPLOAD_FOLDER = re.compile(r"nbrun-[0-9a-f]{12}")
"""The name of an upload's folder in the server's root."""


async def remove_upload(contents: Contents, path: str) -> list[str]:
    """Delete an uploaded notebook, and its folder if it is empty; return the names of the remaining files."""
    folder = path.rpartition("/")[0]
    with contextlib.suppress(NbrunError):
        await contents.delete(path)
    try:
        left = [entry.name for entry in await contents.directory(folder)]
        if not left:
            await contents.delete(folder)
    except NotFound:
        return []  # the upload never happened
    return left


class UploadedNotebook:
    """A local notebook that is run on a remote server."""

    def __init__(
        self,
        contents: Contents,
        local: Path,
        output: Path,
        *,
        warn: Callable[[str], None],
        on_conflict: OnConflict = OnConflict.MERGE,
        cwd: str | None = None,
    ) -> None:
        """Run `local` and save the result to `output`.

        `on_conflict` is the rule if another program changed the output during the run. The kernel works in `cwd`, a
        folder on the server, or else in the folder of the upload.
        """
        self._contents = contents
        self._source = DiskFile(local)
        self._target = GuardedTarget(DiskFile(output), warn=warn, on_conflict=on_conflict)
        self._in_place = output == local
        self._warn = warn
        self._cwd = cwd
        self._folder = f"nbrun-{uuid.uuid4().hex[:12]}"
        self.path = f"{self._folder}/{local.name}"
        """The path on the server."""

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""
        return kernel_path(self.path, self._cwd)

    async def load(self) -> Mapping[str, Any]:
        """Upload the file and return it as a notebook; raise :class:`UsageError` if it is not one.

        Raises :class:`NotFound` for a server without a contents API, such as a kernel gateway.
        """
        data, version = await self._source.read()
        text = decoded(self._source.path, data)
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
            raise NotANotebook(f"{self._source.name}: {error}", hint=error.hint) from None
        self._target.loaded(content, version if self._in_place else None)
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Save on this machine, and return the path of the executed notebook; raise :class:`SaveFailed`."""
        return await self._target.save(content, retry, passed=passed)

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save while the cells still run; return False if another program changed the file."""
        return await self._target.save_meanwhile(content)

    async def close(self) -> None:
        """Remove the upload, or warn if something cannot be removed."""
        try:
            left = await remove_upload(self._contents, self.path)
            if left:
                self._warn(f"the notebook wrote files on the server; they are in {self._folder}/: {', '.join(left)}")
        except SeatLost:
            pass  # the server is gone, with its files
        except NbrunError as error:
            self._warn(f"{self._folder}/ is left on the server: {error}")
