"""A notebook of this machine whose kernel runs where this process has no files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbrun.core.notebook.file_reading import notebook_content
from nbrun.core.planning.job import OnConflict
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.on_disk import DiskFile, decoded


class LocalNotebook:
    """A notebook that is read and saved on this machine, without a server's files."""

    def __init__(self, local: Path, output: Path, *, warn: Callable[[str], None], on_conflict: OnConflict) -> None:
        """Run `local` and save the result to `output`; `on_conflict` is the rule if another program changed it."""
        self._source = DiskFile(local)
        self._target = GuardedTarget(DiskFile(output), warn=warn, on_conflict=on_conflict)
        self._in_place = output == local
        self.path = local.name
        """The name of the notebook; no server has it."""

    @property
    def kernel_path(self) -> str:
        """Return the path of the session, which is in no folder."""
        return self.path

    async def load(self) -> Mapping[str, Any]:
        """Return the content; raise :class:`UsageError` if the file cannot be read or is no notebook."""
        data, version = await self._source.read()
        content = notebook_content(decoded(self._source.path, data).encode(), self._source.name)
        self._target.loaded(content, version if self._in_place else None)
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Save on this machine, and return the path of the executed notebook; raise :class:`SaveFailed`."""
        return await self._target.save(content, retry, passed=passed)

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save while the cells still run; return False if another program changed the file."""
        return await self._target.save_meanwhile(content)

    async def close(self) -> None:
        """Do nothing, because :meth:`load` creates nothing."""
