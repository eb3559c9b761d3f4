"""The folder that a kernel works in, here or on a server: find and copy what a run wrote.

Links are not followed out of the folder. A server shows what its contents API shows: no hidden files.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from msgspec import Struct

from nbrun.core.planning.artefacts import Found, Seen, part_matches, parts_of
from nbrun.core.results import Artefact
from nbrun.errors import NbrunError, NotFound, RequestRefused, UsageError
from nbrun.jupyter.contents import NO_FILES_HINT, Contents

_ANY = "**"
_CHUNK = 1 << 20


class Entry(Struct, frozen=True):
    """A file, or a folder if ``seen`` is None."""

    name: str
    seen: Seen | None


class WorkingFolder(Protocol):
    """A folder that a kernel works in; paths in it have ``/`` between their parts."""

    async def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in a folder; nothing if it does not exist. Raises :class:`NbrunError`."""

    async def copy(self, path: str, target: Path) -> None:
        """Copy a file to a new file of this machine; raise :class:`NbrunError` or OSError."""

    def file(self, path: str) -> Path | None:
        """Return the path of a file on this machine, or None if it is not here."""


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in a folder."""
        return await asyncio.to_thread(self._entries, path)

    def _entries(self, path: str) -> list[Entry]:
        found = []
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
            os.scandir(self._path / path) as there,
        ):
            for one in there:
                with contextlib.suppress(OSError):
                    if one.is_dir(follow_symlinks=False):
                        found.append(Entry(one.name, None))
                    elif one.is_file() and self._is_inside(one):
                        status = one.stat()
                        version = (status.st_mtime_ns, status.st_ino)
                        found.append(Entry(one.name, Seen(version, status.st_size)))
        return found

    def _is_inside(self, one: "os.DirEntry[str]") -> bool:
        return not one.is_symlink() or Path(one.path).resolve().is_relative_to(self._path.resolve())

    async def copy(self, path: str, target: Path) -> None:
        """Copy a file."""
        await asyncio.to_thread(shutil.copyfile, self._path / path, target)

    def file(self, path: str) -> Path:
        """Return the path of a file."""
        return self._path / path


class ServerFolder:
    """A folder on a server."""

    def __init__(self, contents: Contents, path: str) -> None:
        self._contents = contents
        self._path = PurePosixPath(path)

    async def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in a folder."""
        try:
            models = await self._contents.directory(self._below(path))
        except (NotFound, RequestRefused):
            return []
        return [
            Entry(one.name, None if one.type == "directory" else Seen(one.last_modified, one.size)) for one in models
        ]

    async def copy(self, path: str, target: Path) -> None:
        """Download a file."""
        data = await self._contents.data(self._below(path))
        await asyncio.to_thread(target.write_bytes, data)

    def file(self, path: str) -> None:
        """Return None."""

    async def remove(self, paths: Sequence[str]) -> None:
        """Delete files, and the folders in it that are empty afterwards."""
        folders: set[PurePosixPath] = set()
        for path in paths:
            with contextlib.suppress(NbrunError):
                await self._contents.delete(self._below(path))
            folders |= {*PurePosixPath(path).parents} - {PurePosixPath()}
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(NbrunError):
                if not await self._contents.directory(self._below(str(folder))):
                    await self._contents.delete(self._below(str(folder)))

    def _below(self, path: str) -> str:
        return "" if self._path / path == PurePosixPath() else str(self._path / path)


async def find(folder: WorkingFolder, patterns: Sequence[str]) -> Found:
    """Return the files that each pattern matches; raise :class:`NbrunError`."""
    search = _Search(folder)
    return {pattern: await search.matches(parts_of(pattern), "") for pattern in patterns}


class _Search:
    def __init__(self, folder: WorkingFolder) -> None:
        self._folder = folder
        self._known: dict[str, Sequence[Entry]] = {}

    async def matches(self, parts: Sequence[str], base: str) -> dict[str, Seen]:
        """Return the files below `base` that match; a folder that matches counts for all files below it."""
        first, rest = parts[0], parts[1:]
        found = await self.matches(rest, base) if first == _ANY and rest else {}
        for entry in await self._entries(base):
            if not part_matches("*" if first == _ANY else first, entry.name):
                continue
            path = f"{base}/{entry.name}" if base else entry.name
            if entry.seen is None:
                found |= await self.matches(parts if first == _ANY else rest or [_ANY], path)
            elif not rest:
                found[path] = entry.seen
        return found

    async def _entries(self, path: str) -> Sequence[Entry]:
        if path not in self._known:
            self._known[path] = await self._folder.entries(path)
        return self._known[path]


async def collect(folder: WorkingFolder, path: str, target: Path | None) -> Artefact:
    """Return a file with its hash, copied below `target` if one is given; raise :class:`NbrunError` or OSError."""
    source = folder.file(path)
    if target is None:
        assert source is not None
        size, digest = await asyncio.to_thread(_hashed, source)
        return Artefact(path, str(source), size, digest)
    file = target / path
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        await folder.copy(path, made)
        size, digest = await asyncio.to_thread(_hashed, made)
        made.replace(file)
    finally:
        made.unlink(missing_ok=True)
    return Artefact(path, str(file), size, digest)


def _hashed(file: Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with file.open("rb") as read:
        while data := read.read(_CHUNK):
            size += len(data)
            digest.update(data)
    return size, digest.hexdigest()


class Scratch(Protocol):
    """A new folder for one run; ``name`` is for messages."""

    name: str

    async def remove(self) -> None:
        """Remove the folder with all its files; raise :class:`NbrunError` or OSError."""


class LocalScratch:
    """A new folder on this machine, in the folder `parent`."""

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="nbrun-scratch-", dir=parent))
        self.name = str(self.path)

    async def remove(self) -> None:
        """Remove the folder with all its files."""
        await asyncio.to_thread(shutil.rmtree, self.path)


class ServerScratch:
    """A new folder in the root of a server."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.name = f"nbrun-{uuid.uuid4().hex[:12]}"

    async def make(self) -> None:
        """Make the folder; raise :class:`UsageError` for a server without files."""
        try:
            await self._contents.make_directory(self.name)
        except NotFound as error:
            raise UsageError(f"--cwd @scratch: this server takes no files: {error}", hint=NO_FILES_HINT) from None

    async def remove(self) -> None:
        """Remove the folder with all files that the server shows."""
        await self._remove(self.name)

    async def _remove(self, folder: str) -> None:
        for one in await self._contents.directory(folder):
            path = f"{folder}/{one.name}"
            await (self._remove(path) if one.type == "directory" else self._contents.delete(path))
        await self._contents.delete(folder)
