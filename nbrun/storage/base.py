"""The protocols of reading and writing notebooks.

A :class:`Storage` is one file on a Jupyter server, on a disk or in memory. It can be stat'ed, read, and written unless
it has changed. Everything else is above it: ``guarded_file`` checks that a save arrived and who wrote last,
``conflicts`` decides what happens to a notebook that changed during the run.

::

    Notebook (runner)  ->  SaveTarget (conflicts.py)  ->  GuardedFile (guarded_file.py)  ->  Storage
                           merge, beside, overwrite       stat, write, stat again            ServerFile, DiskFile,
                                                                                             MemoryFile
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nbrun.jupyter.http.retry import PATIENT_GET, RetryPolicy
from nbrun.storage.file_version import FileVersion


@dataclass(frozen=True, slots=True)
class Written:
    """The answer of a storage to a write.

    ``version`` is what the storage says that it wrote. ``created`` says that there was no file just before.
    ``complaint`` is what the storage finds invalid in the notebook, "" if nothing.
    """

    version: FileVersion
    created: bool = False
    complaint: str = ""


class Storage(Protocol):
    """One file that holds a notebook, or will.

    All methods raise :class:`NbrunError`. A write leaves the old file or the new one, never a part.
    """

    @property
    def name(self) -> str:
        """The path as the user knows it."""

    async def exists(self) -> bool:
        """Return whether something is there: a file or a folder."""

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:
        """Return the version of the file; None where there is none. It does not disturb a save in progress."""

    async def read(self) -> tuple[bytes, FileVersion]:
        """Return the content and its version; raises :class:`NbrunError` where the file changes meanwhile."""

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Write a notebook, in one attempt; return None, and leave the file alone, where it has changed.

        `unless_changed_since` is what :meth:`stat` returned last; None writes only where there is no file. Missing
        parent folders are created. Some Jupyter servers write whatever has changed: the contents API has no condition.
        """

    def beside(self, suffix: str) -> "Storage":
        """Return the file ``NAME{suffix}.ipynb`` in the same folder, which may exist or not."""


class SaveTarget(Protocol):
    """Where a run's notebook is saved."""

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save the executed notebook; return its path as the user knows it. Raises :class:`SaveFailed`."""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save the notebook while its cells still run; return False where that is not to be repeated before the end."""


class Notebook(SaveTarget, Protocol):
    """The notebook of a run: where it comes from, where its kernel works and where the result is saved."""

    path: str
    """The path on the server."""

    @property
    def kernel_path(self) -> str:
        """The path with which the session is created: the kernel works in its folder."""

    async def load(self) -> Mapping[str, Any]:
        """Return the content, of nbformat 4."""

    async def close(self) -> None:
        """Remove what loading left on the server; raises nothing."""
