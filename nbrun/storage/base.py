"""The protocols of reading and writing notebooks.

A :class:`Storage` is one file on a Jupyter server, on a disk, in an object store or in memory. It can be stat'ed, read,
and written unless it has changed. Everything else is above it: ``guarded_file`` checks that a save arrived and who
wrote last, ``conflicts`` decides what happens to a notebook that changed during the run.

::

    Notebook (runner)  ->  SaveTarget (conflicts.py)  ->  GuardedFile (guarded_file.py)  ->  Storage
                           merge, beside, overwrite       stat, write, stat again            ServerFile, DiskFile,
                                                                                             StoreFile, MemoryFile

A notebook on a server is not loaded by :meth:`Storage.read`. The server itself reads it as a notebook: in one request
it returns the canonical path and the version, converts older formats, and knows notebooks that are no files.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from nbrun.jupyter.http.retry import PATIENT_GET, RetryPolicy
from nbrun.storage.file_version import FileVersion


class Written(Struct, frozen=True):
    """The answer of a storage to a write.

    ``version`` is the version that the storage wrote. ``created`` is true if there was no file before. ``complaint`` is
    the storage's message about an invalid notebook, or "".
    """

    version: FileVersion
    created: bool = False
    complaint: str = ""


class Storage(Protocol):
    """One file for a notebook, which may not exist yet.

    All methods raise :class:`NbrunError`. A write is atomic: it leaves the old file or the new one.
    """

    @property
    def name(self) -> str:
        """Return the path as the user knows it."""

    async def exists(self) -> bool:
        """Return whether a file or folder exists at the path."""

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:
        """Return the version of the file, or None if it does not exist. This does not disturb a save in progress."""

    async def read(self) -> tuple[bytes, FileVersion]:
        """Return the content and its version; raise :class:`NbrunError` if the file changes meanwhile."""

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Write a notebook in one attempt, or return None without a write if the file has changed.

        `unless_changed_since` is the last result of :meth:`stat`; None requires that the file does not exist. Missing
        parent folders are created. Some Jupyter servers overwrite a changed file, because the contents API has no
        conditional write.
        """

    def beside(self, suffix: str) -> "Storage":
        """Return the file ``NAME{suffix}.ipynb`` in the same folder, which may not exist."""


class SaveTarget(Protocol):
    """The place where a run's notebook is saved."""

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save the executed notebook; return its path as the user knows it. Raise :class:`SaveFailed`."""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save the notebook while its cells still run; return False if no further such save should follow."""


class Notebook(SaveTarget, Protocol):
    """The notebook of a run: its source, its kernel's folder, and the place of the result."""

    path: str
    """The path on the server."""

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""

    async def load(self) -> Mapping[str, Any]:
        """Return the content in nbformat 4."""

    async def close(self) -> None:
        """Remove what :meth:`load` created on the server. Never raises."""
