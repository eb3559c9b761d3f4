"""Stores of fsspec, such as ``sftp://``, ``ftp://`` and ``smb://``.

This is the only module that imports fsspec. Whole objects are read and written. An object is written under a temporary
name beside its place and then renamed, so that a reader never sees a part of it. These stores have no conditional
writes: a condition is checked before the put, which another writer may overtake. :meth:`FsspecStore.check` says so, and
whoever needs conditions refuses the store.

The texts of errors are not shown, because they may contain a password.
"""

import contextlib
import errno
import hashlib
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fsspec

from nbrun.core.planning.destinations import scheme_of, without_credentials
from nbrun.errors import UsageError
from nbrun.storage.object_stores.base import (
    ConditionsIgnored,
    ObjectExists,
    ObjectState,
    Result,
    StoredObject,
    StoreError,
    Unanswered,
    VersionChanged,
    check_answers,
    in_thread,
)

_TEMPORARY = ".nbrun-"
_DISTRIBUTIONS = {"smbclient": "smbprotocol", "ocifs": "ocifs", "libarchive": "libarchive-c"}
"""The distributions of modules that have another name."""


class FsspecStore:
    """The objects below a URL of fsspec. The version of an object is the hash of its content."""

    def __init__(self, url: str) -> None:
        """Use this folder; raise :class:`UsageError` for an unknown scheme or a missing package."""
        self.url = without_credentials(url)
        scheme = scheme_of(url)
        try:
            self._kind = fsspec.get_filesystem_class(scheme)
        except ValueError:
            raise unknown_scheme(url) from None
        except ImportError as error:
            module = getattr(error.__cause__, "name", None) or "a package"
            name = _DISTRIBUTIONS.get(module, module.partition(".")[0])
            hint = f"Install it: pip install {name}"
            raise UsageError(f"{self.url}: {scheme}:// needs {name}", hint=hint) from None
        self._scheme = scheme
        self._options = self._kind._get_kwargs_from_urls(url)  # noqa: SLF001 - what fsspec.open does with a URL
        self._root = self._kind._strip_protocol(url).rstrip("/")  # noqa: SLF001
        self._one_at_a_time = threading.Lock()
        self._system: Any = None

    async def get(self, key: str) -> StoredObject | None:
        """Return an object, or None if there is none."""
        return await self._do(lambda system: self._get(system, key))

    async def stat(self, key: str) -> ObjectState | None:
        """Return the version of an object, or None if there is none."""
        found = await self.get(key)
        return None if found is None else found.state

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,  # noqa: ARG002 - these stores have none
        only_new: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Write an object and return its version. Another writer may come between the comparison and the write."""

        def work(system: Any) -> str:
            found = self._get(system, key) if only_new or if_version is not None else None
            if only_new and found is not None:
                raise ObjectExists(f"{self.url}: {key} exists")
            if if_version is not None and (found is None or found.version != if_version):
                raise VersionChanged(f"{self.url}: {key} has another version")
            self._write(system, self._path(key), data)
            return hashlib.sha256(data).hexdigest()

        await check_answers(self, key, len(data))
        return await self._do(work, len(data))

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that begin with `prefix`."""

        def work(system: Any) -> list[str]:
            beginning = f"{self._root}/"
            found = [path.removeprefix(beginning) for path in system.find(self._root)]
            return sorted(key for key in found if key.startswith(prefix))

        return await self._do(work)

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

        def work(system: Any) -> None:
            if _is_there(system, self._path(key)):
                system.rm_file(self._path(key))

        await self._do(work)

    async def check(self, key: str = "") -> None:
        """Raise :class:`StoreError` if the store is not reachable and writable, or else :class:`ConditionsIgnored`.

        A file with a random name is written and deleted in the nearest folder that exists.
        """

        def work(system: Any) -> None:
            folder = _parent(self._path(key or "x"))
            while folder and not _is_there(system, folder):
                folder = _parent(folder)
            probe = f"{folder}/{_TEMPORARY}{secrets.token_hex(8)}"
            system.pipe_file(probe, b"")
            system.rm_file(probe)

        await self._do(work)
        raise ConditionsIgnored(
            f"{self.url}: {self._scheme}:// has no conditional writes",
            hint="Two writers would overwrite each other's objects. Use a folder, s3://, gs:// or az://.",
        )

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _get(self, system: Any, key: str) -> StoredObject | None:
        path = self._path(key)
        if not _is_there(system, path) or system.isdir(path):
            return None
        modified = None
        with contextlib.suppress(NotImplementedError):
            modified = system.modified(path)
        if isinstance(modified, datetime) and modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        data = system.cat_file(path)
        return StoredObject(key, data, hashlib.sha256(data).hexdigest(), modified)

    def _write(self, system: Any, path: str, data: bytes) -> None:
        folder = _parent(path)
        if folder and not _is_there(system, folder):
            system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            system.pipe_file(temporary, data)
            try:
                system.mv(temporary, path)
            except OSError as error:  # this store does not replace a file by a rename
                if not _is(error, errno.EEXIST):
                    raise
                system.rm_file(path)
                system.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(temporary)
            raise

    async def _do(self, work: Callable[[Any], Result], size: int = 0) -> Result:
        """Return the result of `work` for the file system, which is used by one thread at a time."""

        def run() -> Result:
            try:
                with self._one_at_a_time:
                    system = self._system or self._opened()
                    self._system = None  # a system that fails is opened again
                    system.invalidate_cache()
                    result = work(system)
                    self._system = system
                    return result
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - each package has exceptions of its own
                raise self._problem(error) from None

        return await in_thread(self.url, run, size)

    def _opened(self) -> Any:
        try:
            return self._kind(**self._options, skip_instance_cache=True)
        except (AttributeError, TypeError):
            # A file system whose URL does not say all that it needs, such as the one of another file system.
            where = f"{self.url}: {self._scheme}:// cannot be opened with a URL alone"
            raise StoreError(where, hint="For a WebDAV server, write https://HOST/NAME.") from None

    def _problem(self, error: Exception) -> StoreError:
        what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        kind = Unanswered if isinstance(error, (ConnectionError, TimeoutError, EOFError)) else StoreError
        hint = "Are the host, the user and the password right, and is the server there?"
        return kind(f"{self.url}: the store failed ({what})", hint=hint)


def unknown_scheme(url: str) -> UsageError:
    """Return the error for a URL whose scheme nobody knows."""
    return UsageError(
        f"{without_credentials(url)}: nbrun knows no store {scheme_of(url)}://",
        hint="It knows folders, s3://, gs://, az://, https:// and what fsspec opens, such as sftp://.",
    )


def _is_there(system: Any, path: str) -> bool:
    """Return whether there is a file or a folder; unlike ``exists`` this is not False if the store fails."""
    try:
        system.info(path)
    except OSError as error:
        if _is(error, errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


def _is(error: OSError, *codes: int) -> bool:
    """Return whether an error has one of these codes; some packages do not raise the classes that belong to them."""
    return error.errno in codes or isinstance(error, tuple(type(OSError(code, "")) for code in codes))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
