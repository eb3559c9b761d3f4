"""A notebook that is handed over as text: it comes as one, it goes as one, or both; no file of it is needed.

What is not handed over is left to the notebook's place, as of any other run. Where the text comes from memory, the
server's files are not asked for: this way a notebook runs on a server that serves kernels alone.
"""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from nbrun.core.notebook.file_format import notebook_content, notebook_text
from nbrun.core.results import DELIVERED
from nbrun.errors import SaveFailed
from nbrun.jupyter.contents import Contents
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.storage.base import Notebook
from nbrun.storage.paths import Deliver


class HandedNotebook:
    """A notebook whose content is given, or whose result is delivered; the rest is `inner`'s."""

    def __init__(
        self,
        inner: Notebook,
        contents: Contents,
        name: str,
        *,
        content: bytes | None,
        deliver: Deliver | None,
        cwd: str | None,
    ) -> None:
        """Prepare for a notebook of this `name`; its kernel works in `cwd`, a folder on the server, if given."""
        self._inner = inner
        self._contents = contents
        self._name = name
        self._content = content
        self._deliver = deliver
        self._cwd = cwd
        self.path = inner.path
        """Where it would be on the server."""

    @property
    def kernel_path(self) -> str:
        """Where it is to its kernel, whose working directory is the folder of it."""
        return self._inner.kernel_path

    async def load(self) -> Mapping[str, Any]:
        """Return the content; raises :class:`NotANotebook`, and what the notebook's place raises if it is there."""
        if self._content is None:
            return await self._inner.load()
        if self._cwd is not None:
            await self._contents.require_folder(self._cwd)
        return notebook_content(self._content, self._name)

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Deliver the result, or save it in its place; returns where it went. Raises :class:`SaveFailed`."""
        if self._deliver is None:
            return await self._inner.save(content, retry, passed=passed)
        return await hand_over(content, self._deliver)

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save what there is in its place; what is delivered is delivered once, at the end."""
        return self._deliver is None and await self._inner.save_meanwhile(content)

    async def close(self) -> None:
        """Clean up what loading left, if it did; raises nothing."""
        if self._content is None:
            await self._inner.close()


async def hand_over(content: Mapping[str, Any], deliver: Deliver) -> str:
    """Deliver a notebook's text and return the word for where it went; raises :class:`SaveFailed`.

    From a thread that nobody has to wait for: whoever takes the text may never end to take it.
    """
    handed = Future[None]()

    def work() -> None:
        handed.set_running_or_notify_cancel()
        try:
            deliver(notebook_text(content))
            handed.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it is the run's, which waits for it
            handed.set_exception(error)

    threading.Thread(target=work, name="nbrun-deliver", daemon=True).start()
    try:
        await asyncio.wrap_future(handed)
    except OSError as error:
        raise SaveFailed(f"the executed notebook could not be delivered: {error.strerror or error}") from None
    return DELIVERED
