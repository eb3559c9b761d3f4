"""Notebooks in memory: input that is passed as text, and results that are returned as text.

For input from memory the server's files are not needed, so a server that offers only kernels can run it.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import PurePosixPath
from typing import Any

from nbrun.core.notebook.file_reading import notebook_content
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.planning.job import OnConflict
from nbrun.core.results import DELIVERED
from nbrun.errors import NoSuchNotebook, SaveFailed
from nbrun.jupyter.contents import Contents
from nbrun.jupyter.http.retry import PATIENT_GET, RetryPolicy
from nbrun.storage.base import Notebook, SaveTarget, Written
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.file_version import FileVersion, is_same, version_of
from nbrun.storage.paths import Deliver


class MemoryFile:
    """A notebook in memory: a :class:`~nbrun.storage.base.Storage`.

    With ``deliver``, a write calls that function with the text, and the text is not stored.
    """

    def __init__(self, name: str, content: bytes | None = None, *, deliver: Deliver | None = None) -> None:
        """Create a file with `content`, or None for no notebook yet; `name` is used in messages."""
        self.name = name
        self.content = content
        self._deliver = deliver
        self._delivered: FileVersion | None = None
        self._siblings: dict[str, MemoryFile] = {}

    def beside(self, suffix: str) -> "MemoryFile":
        """Return the notebook ``NAME{suffix}``, always the same object for the same suffix."""
        path = PurePosixPath(self.name)
        name = f"{path.stem}{suffix}{path.suffix}"
        return self._siblings.setdefault(suffix, MemoryFile(name, deliver=self._deliver))

    async def exists(self) -> bool:
        """Return whether a notebook exists."""
        return await self.stat() is not None

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:  # noqa: ARG002
        """Return the version of the notebook, or None if there is none."""
        return self._delivered if self.content is None else version_of(self.content)

    async def read(self) -> tuple[bytes, FileVersion]:
        """Return the text and its version; raise :class:`NoSuchNotebook` if there is none."""
        if self.content is None:
            raise NoSuchNotebook(f"{self.name}: there is no text of it")
        return self.content, version_of(self.content)

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Store or deliver the text of a notebook; return None if the version differs.

        Raises :class:`SaveFailed` if it cannot be delivered.
        """
        if not is_same(unless_changed_since, await self.stat()):
            return None
        if self._deliver is not None:
            await _hand_over(content, self._deliver)
            self._delivered = FileVersion()
            return Written(self._delivered)
        self.content = notebook_text(content).encode("utf-8", "replace")
        return Written(version_of(self.content))


class InMemoryNotebook:
    """A notebook whose input or result is text in memory; `inner` does the rest."""

    def __init__(
        self,
        inner: Notebook,
        contents: Contents | None,
        name: str,
        *,
        warn: Callable[[str], None],
        content: bytes | None,
        deliver: Deliver | None,
        cwd: str | None,
    ) -> None:
        """Use a notebook with this `name`; its kernel works in `cwd`, a folder on the server, if given.

        `contents` are the server's files, or None if it has none.
        """
        self._inner = inner
        self._contents = contents
        self._source = None if content is None else MemoryFile(name, content)
        self._is_delivered = deliver is not None
        self._target: SaveTarget = inner
        if deliver is not None:
            delivered = MemoryFile(DELIVERED, deliver=deliver)
            self._target = GuardedTarget(delivered, warn=warn, on_conflict=OnConflict.OVERWRITE)
        self._cwd = cwd
        self.path = inner.path
        """The path that the notebook would have on the server."""

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""
        return self._inner.kernel_path

    async def load(self) -> Mapping[str, Any]:
        """Return the content; raise :class:`NotANotebook`, or the errors of `inner` if it is loaded from there."""
        if self._source is None:
            return await self._inner.load()
        if self._cwd is not None and self._contents is not None:
            await self._contents.require_folder(self._cwd)
        data, _ = await self._source.read()
        return notebook_content(data, self._source.name)

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Deliver or save the result; return the name of the place. Raise :class:`SaveFailed`."""
        return await self._target.save(content, retry, passed=passed)

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save while the cells still run; return False for a result that is delivered only once, at the end."""
        return not self._is_delivered and await self._target.save_meanwhile(content)

    async def close(self) -> None:
        """Remove what :meth:`load` created on the server. Never raises."""
        if self._source is None:
            await self._inner.close()


async def _hand_over(content: Mapping[str, Any], deliver: Deliver) -> None:
    """Call `deliver` with the text of a notebook; raise :class:`SaveFailed` for an OSError.

    It runs in a daemon thread, because the function may never return.
    """
    handed = Future[None]()

    def work() -> None:
        handed.set_running_or_notify_cancel()
        try:
            deliver(notebook_text(content))
            handed.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the run, which waits for it
            handed.set_exception(error)

    threading.Thread(target=work, name="nbrun-deliver", daemon=True).start()
    try:
        await asyncio.wrap_future(handed)
    except OSError as error:
        raise SaveFailed(f"the executed notebook could not be delivered: {error.strerror or error}") from None
