"""What the runner needs of a place where notebooks are read and written, whatever is behind it."""

from collections.abc import Mapping
from typing import Any, Protocol

from nbrun.jupyter.http.retry import RetryPolicy


class SaveTarget(Protocol):
    """Where a run's notebook belongs."""

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save the executed content and return where it went; raises :class:`SaveFailed`."""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save what there is while the cells still run; False where it must not be tried again before the end."""


class Notebook(SaveTarget, Protocol):
    """Where a notebook comes from and where its result goes."""

    path: str
    """Where it is on the server."""

    @property
    def kernel_path(self) -> str:
        """Where it is to its kernel, whose working directory is the folder of it."""

    async def load(self) -> Mapping[str, Any]:
        """Return the content, of nbformat 4."""

    async def close(self) -> None:
        """Clean up; raises nothing."""
