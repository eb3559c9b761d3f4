"""Reports in object stores: put into the store when they are complete.

They are written to a temporary folder first, so that a reader of the store never sees an incomplete one. The store is
checked before the run. If a put fails at the end, the report is kept as a rescue file in the current folder, and the
run ends with exit code 4.
"""

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from nbrun.core.events import Event
from nbrun.core.planning.destinations import without_credentials
from nbrun.errors import UsageError
from nbrun.reporters.composite import Listener
from nbrun.storage.object_stores.base import ConditionsIgnored, ObjectStore, StoreError
from nbrun.storage.object_stores.by_url import open_parent, open_store
from nbrun.storage.paths import name_in_url

_AT_ONCE = 8
"""Objects of a folder that are put at the same time."""
_FIRST_PAGE = "index.html"
_PAGES = {"--html", "--pdf"}


class StoredReports:
    """The reports of a command whose targets are URLs, and their files on this machine."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._urls: dict[Path, str] = {}
        self._options: dict[str, str] = {}
        self._dead: dict[str, str] = {}
        """Stores that failed, with the reason, or with "" before the run. They are not asked again."""

    def local(self, option: str, url: str) -> str:
        """Return the path on this machine for a report; raise :class:`UsageError` if the URL cannot be served."""
        try:
            open_store(url) if url.endswith("/") else open_parent(url)
        except UsageError as error:
            raise UsageError(f"{option} {error}", hint=error.hint) from None
        shown = without_credentials(url)
        if shown.lower().endswith(".ipynb"):
            raise UsageError(f"{option} {shown}: a report does not go into a notebook", hint="Name another object.")
        for path, known in self._urls.items():
            if without_credentials(known) == shown:
                if {option, self._options[known]} == _PAGES:
                    return str(path)  # one folder for pages and PDF files
                raise UsageError(f"{self._options[known]} and {option} name the same object, {shown}")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="nbrun-reports-", ignore_cleanup_errors=True)
        path = Path(self._folder.name, str(len(self._urls)), name_in_url(url.rstrip("/")))
        path.parent.mkdir()
        self._urls[path], self._options[url] = url, option
        return str(path)

    def shown(self, path: str) -> str:
        """Return the URL of a report on this machine, without credentials, or the path itself."""
        url = self._urls.get(Path(path))
        return path if url is None else without_credentials(url)

    async def check(self) -> None:
        """Raise :class:`UsageError` if a store cannot be written."""
        for path, url in self._urls.items():
            store, key = _place(url, path)
            try:
                await store.check(key)
            except ConditionsIgnored:
                continue  # a report replaces what is there
            except StoreError as error:
                self._dead[_host(url)] = ""
                reason = str(error)
                shown = without_credentials(url)
                where = f"{self._options[url]} {shown}: cannot be written"
                raise UsageError(f"{where}: {reason.partition(': ')[2] or reason}", hint=error.hint) from None

    def storing(self, listener: Listener, paths: Iterable[str | None]) -> Listener:
        """Return a reporter that also puts the files at these paths, if they are reports in stores."""
        stored = {Path(path): self._urls[Path(path)] for path in paths if path and Path(path) in self._urls}
        return _Storing(listener, stored, self._dead) if stored else listener

    def close(self) -> None:
        """Remove the files of this machine."""
        if self._folder is not None:
            self._folder.cleanup()


class _Storing:
    """A reporter whose files are put into a store when it is closed."""

    def __init__(self, inner: Listener, urls: dict[Path, str], dead: dict[str, str]) -> None:
        self._inner = inner
        self._urls = urls
        self._dead = dead
        self.name = inner.name
        for path, url in urls.items():
            self.name = self.name.replace(str(path), without_credentials(url))

    def observe(self, event: Event) -> None:
        """Handle an event."""
        self._inner.observe(event)

    def close(self) -> None:
        """Finish the report and put it into the store; raise OSError if it cannot be put."""
        self._inner.close()
        problems = []
        for path, url in self._urls.items():
            reason = self._dead.get(_host(url))
            if not path.exists() or reason == "":
                continue
            if reason is None:
                try:
                    asyncio.run(_put(path, url))
                except StoreError as error:
                    self._dead[_host(url)] = reason = str(error)
            if reason:
                kept = _rescue(path)
                problems.append(f"{reason}; it is in {kept}" if kept else reason)
        if problems:
            raise OSError(errno.EIO, "; ".join(problems))


def _host(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _place(url: str, path: Path) -> tuple[ObjectStore, str]:
    """Return the store and the key of a report, or of the first page of a folder."""
    if url.endswith("/") or path.is_dir():
        return open_store(url), _FIRST_PAGE
    return open_parent(url)


async def _put(path: Path, url: str) -> None:
    """Put a file, or all files of a folder with its first page last."""
    store, key = _place(url, path)
    files = _files(path, key)
    last = files.pop(key, None)
    free = asyncio.Semaphore(_AT_ONCE)

    async def put(name: str, file: Path) -> None:
        async with free:
            await store.put(name, _content(file))

    putting = [asyncio.create_task(put(name, file)) for name, file in files.items()]
    try:
        await asyncio.gather(*putting)
        if last is not None:
            await store.put(key, _content(last))
    finally:
        for task in putting:
            task.cancel()
        await asyncio.gather(*putting, return_exceptions=True)


def _files(path: Path, key: str) -> dict[str, Path]:
    """Return the files of a report by their keys."""
    if not path.is_dir():
        beside, above = path.with_name(f"{path.stem}_files"), key.rpartition("/")[0]
        files = [each for each in sorted(beside.rglob("*")) if each.is_file()]
        return {key: path} | {f"{above}/{each.relative_to(path.parent).as_posix()}".strip("/"): each for each in files}
    return {each.relative_to(path).as_posix(): each for each in sorted(path.rglob("*")) if each.is_file()}


def _content(file: Path) -> bytes:
    return file.read_bytes()


def _rescue(path: Path) -> Path | None:
    """Copy a report to the current folder, or else to the one for temporary files; only the user can read it."""
    name = f"{path.stem}.rescued-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}{path.suffix}"
    for folder in (Path.cwd, tempfile.gettempdir):
        try:
            kept = Path(folder(), name)
            if path.is_dir():
                kept.mkdir(mode=0o700)
                shutil.copytree(path, kept, dirs_exist_ok=True)
                kept.chmod(0o700)
            else:
                with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(path.read_bytes())
        except OSError:
            continue
        return kept
    return None
