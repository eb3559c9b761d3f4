"""Results that still hold, in a folder: a run that is found there is not executed again.

Each entry is one file, named after the run's hash (:func:`nbrun.core.batch.cache_key.run_hash`): two lines of JSON,
the outputs
and what came of the run. It is written beside its place and moved there when the run has passed, so that an entry is
whole or not there, whoever else uses the folder meanwhile. The folder also remembers how long runs took.
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
    declared_inputs,
    is_worth_keeping,
    kept_outputs,
    kept_results,
    restore,
    run_hash,
)
from nbrun.core.batch.scheduling import Durations
from nbrun.core.formats.json_text import dumps, loads
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_format import notebook_text
from nbrun.core.planning.job import Job
from nbrun.core.results import NotebookResult
from nbrun.errors import BadFrame, NbrunError, UsageError
from nbrun.jupyter.http.retry import RetryPolicy
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.local_kernelspecs import installed_kernelspecs, kernel_identity
from nbrun.runner.servers import Place
from nbrun.storage.base import Notebook
from nbrun.storage.on_disk import read_text, write_notebook
from nbrun.storage.paths import absolute
from nbrun.storage.writable import check_folder
from nbrun.version import __version__

DURATIONS = "durations.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What was put back: the cells' results, where the notebook now is (None where it was not to be saved), and it."""

    restored: Restored
    output: str | None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Cache:
    """A folder of results."""

    def __init__(self, folder: Path, *, refresh: bool = False) -> None:
        """Use a folder, which is made if need be; with `refresh`, all is run anew and kept again.

        Raises :class:`UsageError` for one that cannot be written.
        """
        self._folder = folder.absolute()
        self._refresh = refresh
        self._specs: KernelSpecs | None = None
        self._hashes: dict[tuple[str, int, int], str] = {}
        check_folder("--cache", folder)

    def look(self, job: Job, place: Place, parameters: Mapping[str, Any]) -> Kept | None:
        """Put the results of an earlier run into the notebook, where they still hold; None where nothing is kept.

        What stands in the way (an unreadable notebook, a broken entry, a place that cannot be written) means None, too:
        the run will say it better.
        """
        if self._refresh:
            return None
        try:
            text = read_text(absolute(place.notebook))
            document = Document(loads(text), name=place.notebook)
            entry = self._entry(self._hash(document, job, place, parameters))
            outputs, results = map(loads, entry.read_bytes().splitlines())
            restored = restore(document, outputs, results)
            if restored is None:
                return None
            if job.report_mode:
                document.hide_sources()
            if not job.save:
                return Kept(restored, None, document.content)
            output = place.output or place.notebook
            if absolute(output) != absolute(place.notebook) or notebook_text(document.content) != text:
                write_notebook(absolute(output), document.content)
        except (NbrunError, BadFrame, OSError, ValueError, KeyError, TypeError):
            return None
        return Kept(restored, output, document.content)

    def keeping(self, inner: Notebook, job: Job, place: Place, parameters: Mapping[str, Any]) -> "KeptNotebook":
        """Return `inner` so that what is saved to it is held for this cache, too."""
        return KeptNotebook(inner, self, job, place, parameters)

    def hash_now(self, job: Job, place: Place, parameters: Mapping[str, Any]) -> str:
        """Return the run's hash as things stand on the disk; empty where the notebook cannot be read there."""
        try:
            document = Document(loads(read_text(absolute(place.notebook))), name=place.notebook)
            return self._hash(document, job, place, parameters)
        except (NbrunError, BadFrame, OSError):
            return ""

    def hold(self, content: Mapping[str, Any]) -> Path | None:
        """Write the outputs of an executed notebook beside their place; None where that fails."""
        try:
            descriptor, name = self._temporary()
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(dumps(kept_outputs(Document({**content}))) + b"\n")
        except (NbrunError, OSError):
            return None
        return Path(name)

    def settle(self, held: Path, key: str, result: NotebookResult) -> None:
        """Keep what is held under `key`, if the run passed; else throw it away."""
        try:
            if key and is_worth_keeping(result):
                with held.open("ab") as handle:
                    handle.write(dumps(kept_results(result)) + b"\n")
                place = self._entry(key)
                place.parent.mkdir(exist_ok=True)
                held.replace(place)
        except OSError:
            pass  # a cache that cannot be written costs the next run time, and this one nothing
        finally:
            with contextlib.suppress(OSError):
                held.unlink(missing_ok=True)

    def durations(self) -> Durations:
        """Return how long runs took."""
        return read_durations(self._folder / DURATIONS) if (self._folder / DURATIONS).exists() else Durations()

    def remember(self, results: Sequence[NotebookResult]) -> None:
        """Remember how long these runs took."""
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

    def _hash(self, document: Document, job: Job, place: Place, parameters: Mapping[str, Any]) -> str:
        self._specs = self._specs or installed_kernelspecs()
        spec = self._specs.choose(job.kernel, document.metadata)
        inputs = {
            path: digest
            for pattern in declared_inputs(document)
            for path, digest in self._inputs(absolute(place.notebook).parent, pattern)
        }
        folder = absolute(place.notebook).parent
        cwd = os.path.relpath(absolute(place.cwd), folder) if place.cwd else "."
        return run_hash(document, job, Ingredients(parameters, kernel_identity(spec), inputs, __version__, cwd))

    def _inputs(self, folder: Path, pattern: str) -> list[tuple[str, str]]:
        """Return the files that a pattern names with their hashes, and the pattern itself, even if it names none."""
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


class KeptNotebook:
    """A notebook whose result goes into the cache as well; without `job.save`, only there."""

    def __init__(self, inner: Notebook, cache: Cache, job: Job, place: Place, parameters: Mapping[str, Any]) -> None:
        self.path = inner.path
        self._inner = inner
        self._cache = cache
        self._run = (job, place, parameters)
        self._key = ""
        self._held: Path | None = None

    @property
    def kernel_path(self) -> str:
        """Where it is to its kernel."""
        return self._inner.kernel_path

    async def load(self) -> Mapping[str, Any]:
        """Load the notebook, and look at what decides its outputs before it can change any of that."""
        self._key = await asyncio.to_thread(self._cache.hash_now, *self._run)
        content = await self._inner.load()
        self.path = self._inner.path
        return content

    async def save(self, content: Mapping[str, Any], retry: RetryPolicy, *, passed: bool) -> str:
        """Save to where it belongs, and hold a copy of the outputs."""
        self._held = await asyncio.to_thread(self._cache.hold, content)
        return await self._inner.save(content, retry, passed=passed) if self._run[0].save else ""

    async def save_meanwhile(self, content: Mapping[str, Any]) -> bool:
        """Save to where it belongs; a run that is not over is no result."""
        return self._run[0].save and await self._inner.save_meanwhile(content)

    async def close(self) -> None:
        """Clean up."""
        await self._inner.close()

    def drop(self) -> None:
        """Throw away what is held."""
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.unlink(missing_ok=True)

    def settle(self, result: NotebookResult) -> None:
        """Keep what is held, if the run passed."""
        if self._held is not None:
            held, self._held = self._held, None
            self._cache.settle(held, self._key, result)


def read_durations(path: Path) -> Durations:
    """Read how long runs took from a result of ``--json``, or a cache's own file; raises :class:`UsageError`."""
    try:
        return Durations.read(loads(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except BadFrame:
        raise UsageError(f"{path}: no JSON", hint="Give a result that nbrun run --json has written.") from None
