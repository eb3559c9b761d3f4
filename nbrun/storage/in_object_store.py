"""Notebooks in object stores: read before a run, saved by the rule for concurrent edits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.planning.destinations import GIT_SCHEMES, scheme_of, without_credentials
from nbrun.core.planning.job import OnConflict
from nbrun.errors import NoSuchNotebook, NotANotebook, SaveFailed, UsageError
from nbrun.jupyter.http.retry import PATIENT_GET, RetryPolicy
from nbrun.storage.base import Notebook, Written
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.file_version import FileVersion
from nbrun.storage.object_stores.base import (
    ConditionsIgnored,
    ObjectExists,
    ObjectState,
    ObjectStore,
    StoreError,
    VersionChanged,
)
from nbrun.storage.object_stores.by_url import open_parent

_ON_SERVER = "A notebook on a Jupyter server is named by its path there: nbrun run PATH --server URL."
_FORCE = "--force writes there all the same, and overwrites what others write during the run."


@dataclass(frozen=True, slots=True)
class Fetched:
    """The content of a file that was read from a URL, and its version, which is "" if it is not known."""

    data: bytes
    version: str


class StoreFile:
    """A notebook in an object store: a :class:`~nbrun.storage.base.Storage`."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        """Use the object with this key."""
        self._store = store
        self._key = key

    @property
    def name(self) -> str:
        """Return the URL without credentials."""
        return f"{self._store.url.rstrip('/')}/{self._key}"

    def beside(self, suffix: str) -> "StoreFile":
        """Return the object ``NAME{suffix}.ipynb`` beside this one."""
        key = PurePosixPath(self._key)
        return StoreFile(self._store, str(key.with_name(f"{key.stem}{suffix}{key.suffix}")))

    async def exists(self) -> bool:
        """Return whether the object exists."""
        return await self._store.stat(self._key) is not None

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:  # noqa: ARG002 - the store retries
        """Return the version of the object, or None if it does not exist."""
        found = await self._store.stat(self._key)
        return None if found is None else _version(found)

    async def read(self) -> tuple[bytes, FileVersion]:
        """Return the content and its version; raise :class:`NoSuchNotebook`."""
        found = await self._store.get(self._key)
        if found is None:
            raise NoSuchNotebook(f"{self.name}: there is no such object")
        return found.data, _version(found.state)

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Put the notebook as one object; return None if another client has changed it."""
        data = notebook_text(content).encode("utf-8", "replace")
        is_new, version = unless_changed_since is None, unless_changed_since and unless_changed_since.hash
        try:
            written = await self._store.put(self._key, data, only_new=is_new, if_version=version or None)
        except (ObjectExists, VersionChanged):
            return None
        return Written(_version(ObjectState(written, len(data))), created=is_new)


def _version(state: ObjectState) -> FileVersion:
    return FileVersion(state.version or None, "etag", state.modified, state.size)


class StoredNotebook:
    """A notebook whose result goes into an object store; `inner` does the rest."""

    def __init__(
        self, inner: Notebook, output: str, *, version: str, warn: Callable[[str], None], on_conflict: OnConflict
    ) -> None:
        """Save to the URL `output`. `version` is the one of the loaded notebook if it was loaded from there."""
        self._inner = inner
        self._file = StoreFile(*open_parent(output))
        self._target = GuardedTarget(self._file, warn=warn, on_conflict=on_conflict)
        self._version = version
        self.path = inner.path
        """The path that the notebook would have on the server."""

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""
        return self._inner.kernel_path

    async def load(self) -> Mapping[str, Any]:
        """Return the content."""
        content = await self._inner.load()
        self._target.loaded(content, FileVersion(self._version, "etag") if self._version else None)
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool = True) -> str:
        """Save, and return the URL of the executed notebook without credentials; raise :class:`SaveFailed`."""
        try:
            return await self._target.save(content, retry, passed=passed)
        except StoreError as error:
            raise SaveFailed(f"{self._file.name}: not saved: {_reason(error)}", hint=error.hint) from error

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save while the cells still run; return False if another client changed the object."""
        return await self._target.save_meanwhile(content)

    async def close(self) -> None:
        """Remove what :meth:`load` created on the server. Never raises."""
        await self._inner.close()


def _reason(error: StoreError) -> str:
    """Return the message without the address that it begins with."""
    address, separator, reason = str(error).partition(": ")
    return reason if separator and "://" in address else str(error)


async def put_notebook(url: str, content: Mapping[str, Any], version: str) -> str:
    """Put a notebook at a URL, over this version if it is known; return the URL without credentials.

    Raises :class:`SaveFailed`.
    """
    file = StoreFile(*open_parent(url))
    try:
        before = FileVersion(version, "etag") if version else await file.stat()
        written = await file.write(content, before)
    except StoreError as error:
        raise SaveFailed(f"{file.name}: not saved: {_reason(error)}", hint=error.hint) from None
    if written is None:
        raise SaveFailed(f"{file.name}: not saved: somebody else changed it meanwhile")
    return file.name


async def check_store(option: str, url: str, *, guarded: bool) -> None:
    """Raise :class:`UsageError` if no object can be put at this URL.

    With `guarded`, the store must honour the conditions of puts too.
    """
    store, key = open_parent(url)
    label = f"{option} " if option else ""
    try:
        await store.check(key)
    except ConditionsIgnored as error:
        if guarded:
            raise UsageError(f"{label}{error}", hint=_FORCE) from None
    except StoreError as error:
        shown = without_credentials(url)
        raise UsageError(f"{label}{shown}: cannot be written: {_reason(error)}", hint=error.hint) from None


async def fetch(url: str, *, what: str = "notebook") -> Fetched:
    """Return the file at the URL of a store or of a git repository; raise :class:`UsageError`."""
    shown = without_credentials(url)
    if scheme_of(url) in GIT_SCHEMES:
        from nbrun.storage.git_source import read_from_git

        return Fetched(await read_from_git(url), "")
    store, key = open_parent(url)
    try:
        found = await store.get(key)
    except StoreError as error:
        raise UsageError(f"{shown}: cannot be read: {_reason(error)}", hint=error.hint) from None
    if found is None:
        raise NoSuchNotebook(f"{shown}: there is no such {what}", hint=f"nbrun looked in {store.url}.")
    if what == "notebook" and found.data.lstrip()[:1] == b"<":
        raise NotANotebook(f"{shown}: this is a web page, no notebook (.ipynb)", hint=_ON_SERVER)
    return Fetched(found.data, found.version)
