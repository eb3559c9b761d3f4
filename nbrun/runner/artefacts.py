"""Collect the files that a run wrote, after the end of its kernel and before the save.

Before the first cell nbrun looks at the files that the patterns match. What is new or changed afterwards is an
artefact. It is copied into a folder of this machine if one is given, and downloaded from a server. Files that are not
collected make a passed run incomplete, and a scratch folder is then kept.
"""

import asyncio
import errno
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from nbrun.core.formats.units import spell_duration, spell_size
from nbrun.core.planning.artefacts import Found, changed, within
from nbrun.core.planning.job import Job
from nbrun.core.results import Artefact
from nbrun.errors import NbrunError, UsageError
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.job import scratch_parent
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.uploaded import UPLOAD_FOLDER
from nbrun.storage.working_folder import (
    LocalFolder,
    LocalScratch,
    Scratch,
    ServerFolder,
    ServerScratch,
    WorkingFolder,
    collect,
    find,
)

LISTING_LIMIT = 60.0
"""Seconds to look at the files before the first cell."""
LIMIT = 600.0
"""Seconds for the collection."""
SHORT_LIMIT = 5.0
"""Seconds for it after a signal or a cancellation."""


class Collecting:
    """The artefacts of one run. `path` is the path of its session on the `server`, whose folder the kernel works in.

    ``artefacts`` are the collected files, and ``missing`` has a sentence for each pattern or file that is not.
    ``unsaved`` is true if files exist that were not collected.
    """

    def __init__(
        self, job: Job, patterns: Sequence[str], server: Server, path: str, mask: Callable[[str], str], stop: StopSwitch
    ) -> None:
        self.artefacts: list[Artefact] = []
        self.missing: list[str] = []
        self.unsaved = False
        self._job = job
        self._patterns = patterns
        self._folder = _working_folder(server, path)
        self._target = None if job.artefacts_dir is None else Path(job.artefacts_dir).absolute()
        self._omitted = [PurePosixPath(path).name]
        self._mask = mask
        self._stop = stop
        self._before: Found | None = None
        self._ended = asyncio.Event()
        self._is_uploaded = UPLOAD_FOLDER.fullmatch(str(PurePosixPath(path).parent)) is not None

    async def begin(self) -> None:
        """Look at the files before the first cell; raise :class:`NbrunError`."""
        try:
            async with asyncio.timeout(LISTING_LIMIT):
                self._before = await find(self._folder, self._patterns)
        except TimeoutError:
            said = f"the files that match {', '.join(self._patterns)} were not found within"
            hint = "Name a folder in the pattern instead of searching all of them."
            raise UsageError(f"--artefacts: {said} {spell_duration(LISTING_LIMIT)}", hint=hint) from None

    async def ended(self) -> None:
        """Wait until the artefacts are collected. A run without artefacts does not wait."""
        if self._before is not None:
            await self._ended.wait()

    async def end(self, *, soon: bool) -> None:
        """Collect the artefacts, or as many as possible if that must be done `soon`."""
        if self._before is None:
            return
        soon = soon or self._stop.reason is not None
        limit = SHORT_LIMIT if soon else LIMIT
        try:
            async with asyncio.timeout(limit):
                await (self._collect() if soon else self._stop.guard(self._collect()))
        except TimeoutError:
            self._lack(f"the files were not collected within {spell_duration(limit)}")
        except Stopped:
            self._lack(f"the files were not collected before {self._stop.reason}")
        except NbrunError as error:
            self._lack(str(error))
        finally:
            self._ended.set()

    def _lack(self, what: str) -> None:
        self.unsaved = True
        self.missing.append(self._mask(what))

    async def _collect(self) -> None:
        assert self._before is not None
        after = await find(self._folder, self._patterns)
        files, missing = changed(self._before, after, self._omitted)
        self.missing += missing
        fitting, others = within(files, self._job.max_artefacts)
        if others:
            most = spell_size(self._job.max_artefacts or 0)
            self._lack(f"{', '.join(others)}: beyond --max-artefacts {most}")
        for path in fitting:
            if self._mask(path) != path:
                self._lack(f"{path}: its name contains a secret")
                continue
            try:
                self.artefacts.append(await collect(self._folder, path, self._target))
            except OSError as error:
                reason = error.strerror or str(error)
                where = f" in {self._target}" if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS) else ""
                self._lack(f"{path}: {reason}{where}")
        if self._is_uploaded and isinstance(self._folder, ServerFolder):
            await self._folder.remove([artefact.path for artefact in self.artefacts])


def _working_folder(server: Server, path: str) -> WorkingFolder:
    folder = PurePosixPath(path).parent
    return (
        ServerFolder(server.client.contents, str(folder)) if server.root is None else LocalFolder(server.root / folder)
    )


async def make_scratch(server: Server) -> tuple[Scratch, str]:
    """Return a new folder for a run, and its path on the server; raise :class:`NbrunError`."""
    if server.root is None:
        scratch = ServerScratch(server.client.contents)
        await scratch.make()
        return scratch, scratch.name
    parent = scratch_parent()
    try:
        # A private server with a root folder of its own may not reach the folder for temporary files.
        local = LocalScratch(parent if parent.is_relative_to(server.root) else server.root)
    except OSError as error:
        raise UsageError(f"--cwd @scratch: {error.filename}: {error.strerror}", hint="Set TMPDIR.") from None
    return local, local.path.relative_to(server.root).as_posix()


async def remove_scratch(scratch: Scratch, collecting: Collecting, warn: Callable[[str], None]) -> None:
    """Remove a folder after its run, unless it holds artefacts that were not collected."""
    if collecting.unsaved:
        warn(f"the scratch folder is kept, because not all artefacts were collected: {scratch.name}")
        return
    try:
        await scratch.remove()
    except (NbrunError, OSError) as error:
        warn(f"the scratch folder {scratch.name} is left: {error}")
