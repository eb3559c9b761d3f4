"""The cache of results in a folder; a run whose result is in it is not executed again.

Each entry is one file, named after the run's hash (:func:`nbrun.core.batch.cache_key.run_hash`): two lines of JSON, the
outputs and the result of the run. It is written to a temporary file, which replaces the entry when the run has passed,
so an entry is always complete. The folder also stores how long runs took.
"""

import asyncio
import contextlib
import glob
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbrun.core.batch.cache_key import (
    Ingredients,
    Restored,
    cached_outputs,
    cached_results,
    declared_inputs,
    is_cacheable,
    restore,
    run_hash,
)
from nbrun.core.batch.scheduling import Durations
from nbrun.core.formats.json_text import dumps, loads
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import artefact_patterns
from nbrun.core.results import NotebookResult
from nbrun.errors import BadFrame, NbrunError, UsageError
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.local_kernelspecs import installed_kernelspecs, kernel_identity
from nbrun.runner.job import NotebookPaths
from nbrun.storage.base import Notebook
from nbrun.storage.on_disk import read_text, write_notebook
from nbrun.storage.paths import absolute
from nbrun.storage.writable import check_folder
from nbrun.version import __version__

DURATIONS = "durations.json"


@dataclass(frozen=True, slots=True)
class CachedRun:
    """A run restored from the cache: the cells' results, the output path (None if not saved), and the notebook."""

    restored: Restored
    output: str | None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Cache:
    """The cache in one folder."""

    def __init__(self, folder: Path, *, refresh: bool = False) -> None:
        """Use a folder and create it if necessary; with `refresh`, ignore stored results and replace them.

        Raises :class:`UsageError` if the folder cannot be written.
        """
        self._folder = folder.absolute()
        self._refresh = refresh
        self._specs: KernelSpecs | None = None
        self._hashes: dict[tuple[str, int, int], str] = {}
        check_folder("--cache", folder)

    def look(self, job: Job, paths: NotebookPaths, parameters: Mapping[str, Any]) -> CachedRun | None:
        """Write the cached results into the notebook; return None if the cache has no valid entry.

        Other problems (an unreadable notebook, a broken entry, an unwritable output) also return None, because the run
        reports them better.
        """
        if self._refresh:
            return None
        try:
            text = read_text(absolute(paths.notebook))
            document = Document(loads(text), name=paths.notebook)
            if artefact_patterns(document, job):
                return None  # its files are not in the cache
            entry = self._entry(self._hash(document, job, paths, parameters))
            outputs, results = map(loads, entry.read_bytes().splitlines())
            restored = restore(document, outputs, results)
            if restored is None:
                return None
            if job.report_mode:
                document.hide_sources()
            if not job.save:
                return CachedRun(restored, None, document.content)
            output = paths.output or paths.notebook
            if absolute(output) != absolute(paths.notebook) or notebook_text(document.content) != text:
                write_notebook(absolute(output), document.content)
        except (NbrunError, BadFrame, OSError, ValueError, KeyError, TypeError):
            return None
        return CachedRun(restored, output, document.content)

    def hash_now(self, job: Job, paths: NotebookPaths, parameters: Mapping[str, Any]) -> str:
        """Return the run's hash from the files on disk, or an empty text if the notebook cannot be read."""
        try:
            document = Document(loads(read_text(absolute(paths.notebook))), name=paths.notebook)
            return self._hash(document, job, paths, parameters)
        except (NbrunError, BadFrame, OSError):
            return ""

    def hold(self, content: Mapping[str, Any]) -> Path | None:
        """Write the outputs of an executed notebook to a temporary file; return None if that fails."""
        try:
            descriptor, name = self._temporary()
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(dumps(cached_outputs(Document({**content}))) + b"\n")
        except (NbrunError, OSError):
            return None
        return Path(name)

    def settle(self, held: Path, key: str, result: NotebookResult) -> None:
        """Store the held result under `key` if the run passed; otherwise discard it."""
        try:
            if key and is_cacheable(result):
                with held.open("ab") as handle:
                    handle.write(dumps(cached_results(result)) + b"\n")
                place = self._entry(key)
                place.parent.mkdir(exist_ok=True)
                held.replace(place)
        except OSError:
            pass  # the run succeeded; the next one just cannot use the cache
        finally:
            with contextlib.suppress(OSError):
                held.unlink(missing_ok=True)

    def durations(self) -> Durations:
        """Return the durations of earlier runs."""
        return read_durations(self._folder / DURATIONS) if (self._folder / DURATIONS).exists() else Durations()

    def remember(self, results: Sequence[NotebookResult]) -> None:
        """Store the durations of these runs."""
        with contextlib.suppress(OSError, UsageError):
            text = dumps(self.durations().updated(results).as_dict())
            descriptor, name = self._temporary()
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(text)
            Path(name).replace(self._folder / DURATIONS)

    def _temporary(self) -> tuple[int, str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(prefix=".nbrun-", dir=self._folder)

    def _entry(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    def _hash(self, document: Document, job: Job, paths: NotebookPaths, parameters: Mapping[str, Any]) -> str:
        self._specs = self._specs or installed_kernelspecs()
        spec = self._specs.choose(job.kernel, document.metadata)
        inputs = {
            path: digest
            for pattern in declared_inputs(document)
            for path, digest in self._inputs(absolute(paths.notebook).parent, pattern)
        }
        folder = absolute(paths.notebook).parent
        cwd = os.path.relpath(absolute(paths.cwd), folder) if paths.cwd else "."
        return run_hash(document, job, Ingredients(parameters, kernel_identity(spec), inputs, __version__, cwd))

    def _inputs(self, folder: Path, pattern: str) -> list[tuple[str, str]]:
        """Return the hashes of the files that a pattern matches, and the pattern itself."""
        found = [(pattern, "")]
        for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True)):  # noqa: PTH207
            path = folder / name
            if path.is_file():
                status = path.stat()
                known = (str(path.resolve()), status.st_size, status.st_mtime_ns)
                if known not in self._hashes:
                    with path.open("rb") as handle:
                        self._hashes[known] = hashlib.file_digest(handle, "sha256").hexdigest()
                found.append((name, self._hashes[known]))
        return found


class CachingNotebook:
    """A notebook whose result is also written into the cache, or only there without `job.save`."""

    def __init__(
        self, inner: Notebook, cache: Cache, job: Job, paths: NotebookPaths, parameters: Mapping[str, Any]
    ) -> None:
        self.path = inner.path
        self._inner = inner
        self._cache = cache
        self._run = (job, paths, parameters)
        self._key = ""
        self._held: Path | None = None

    @property
    def kernel_path(self) -> str:
        """Return the path of the session; the kernel works in its folder."""
        return self._inner.kernel_path

    async def load(self) -> Mapping[str, Any]:
        """Load the notebook and compute its hash before the run can change any of its inputs."""
        self._key = await asyncio.to_thread(self._cache.hash_now, *self._run)
        content = await self._inner.load()
        self.path = self._inner.path
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save to the output path, and store a copy of the outputs."""
        self._held = await asyncio.to_thread(self._cache.hold, content)
        return await self._inner.save(content, retry, passed=passed) if self._run[0].save else ""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save to the output path only, because a running notebook is not a result."""
        return self._run[0].save and await self._inner.save_meanwhile(content)

    async def close(self) -> None:
        """Remove what :meth:`load` created on the server."""
        await self._inner.close()

    def drop(self) -> None:
        """Discard the held result."""
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.unlink(missing_ok=True)

    def settle(self, result: NotebookResult) -> None:
        """Store the held result if the run passed."""
        if self._held is not None:
            held, self._held = self._held, None
            self._cache.settle(held, self._key, result)


def read_durations(path: Path) -> Durations:
    """Return the durations of runs from a ``--json`` result or a cache's file; raise :class:`UsageError`."""
    try:
        return Durations.read(loads(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except BadFrame:
        raise UsageError(f"{path}: no JSON", hint="Give a result that nbrun run --json has written.") from None
