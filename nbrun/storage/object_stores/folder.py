"""A folder of this machine as an object store."""

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

from nbrun.storage.object_stores.base import (
    ObjectExists,
    ObjectState,
    Result,
    StoredObject,
    StoreError,
    VersionChanged,
    in_thread,
)
from nbrun.storage.on_disk import lock_file

_LOCK = ".nbrun-lock"
_TEMPORARY = ".nbrun-"


class FolderStore:
    """A folder of this machine as an object store.

    The version of an object is the hash of its content. Puts hold a lock on a hidden file of the store, so they exclude
    each other, also across processes, and across machines if the file system has locks between them.
    """

    def __init__(self, folder: Path) -> None:
        """Use this folder, which is created by the first put."""
        self._folder = folder.absolute()
        self.url = str(folder)

    async def get(self, key: str) -> StoredObject | None:
        """Return an object, or None if there is none."""
        return await self._do(lambda: self._get(key))

    async def stat(self, key: str) -> ObjectState | None:
        """Return the version of an object, or None if there is none."""
        found = await self.get(key)
        return None if found is None else found.state

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,  # noqa: ARG002 - a file has none
        only_new: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Write an object and return its version; raise :class:`ObjectExists` or :class:`VersionChanged`."""
        return await self._do(lambda: self._put(key, data, only_new=only_new, if_version=if_version), len(data))

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that begin with `prefix`."""
        return await self._do(lambda: self._keys(prefix))

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error. Folders that become empty are removed."""
        await self._do(lambda: self._delete(key))

    async def check(self, key: str = "") -> None:  # noqa: ARG002
        """Raise :class:`StoreError` if no file can be created and locked in the folder."""
        await self._do(self._check)

    async def _do(self, work: Callable[[], Result], size: int = 0) -> Result:
        """Return the result of `work`, in time: a folder can be on a server that does not answer."""
        try:
            return await in_thread(self.url, work, size)
        except OSError as error:
            raise StoreError(f"{self.url}: {error.strerror or error}") from None

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts or "\0" in key:
            raise StoreError(f"{self.url}: {key!r} is not a key")
        return self._folder.joinpath(*parts)

    def _get(self, key: str) -> StoredObject | None:
        path = self._path(key)
        try:
            with path.open("rb") as file:
                modified = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return StoredObject(key, data, hashlib.sha256(data).hexdigest(), modified)

    def _put(self, key: str, data: bytes, *, only_new: bool, if_version: str | None) -> str:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:  # unlike mkstemp with the usual permissions
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # Both kinds of writers take the lock, so that a new object cannot come between comparison and rename.
            with self._locked():
                if only_new:
                    self._refuse_existing(path)
                elif if_version is not None:
                    found = self._get(key)
                    if found is None or found.version != if_version:
                        raise VersionChanged(f"{self.url}: {key} has another version")
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return hashlib.sha256(data).hexdigest()

    def _refuse_existing(self, path: Path) -> None:
        if os.path.lexists(path):
            raise ObjectExists(f"{self.url}: {path.relative_to(self._folder).as_posix()} exists")

    def _keys(self, prefix: str) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self._folder / prefix.rpartition("/")[0]):
            folders[:] = [name for name in folders if not Path(folder, name).is_symlink()]
            inside = Path(folder).relative_to(self._folder)
            found += [(inside / name).as_posix() for name in files if not name.startswith(_TEMPORARY)]
        return sorted(key for key in found if key.startswith(prefix))

    def _delete(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        for folder in path.parents:
            if folder == self._folder:
                break
            try:
                folder.rmdir()
            except OSError:  # not empty, or already removed by another process
                break

    def _check(self) -> None:
        there = next(folder for folder in (self._folder, *self._folder.parents) if os.path.lexists(folder))
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=there)
        try:
            with os.fdopen(descriptor, "wb") as file:
                lock_file(file.fileno(), wait=True)  # NFS, which Linux asks for such locks too, can refuse this
        finally:
            Path(name).unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the store. The file stays, because removing it would let two processes hold the lock."""
        path = self._folder / _LOCK
        try:
            file: IO[bytes] = path.open("ab")
        except PermissionError:  # of another user; local file systems lock what can be read
            file = path.open("rb")
        with file:
            lock_file(file.fileno(), wait=True)  # NFS, which Linux asks for such locks too, can refuse this
            yield
