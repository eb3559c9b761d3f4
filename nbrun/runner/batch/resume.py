"""The journal of a batch, from which ``--resume`` continues after nbrun was killed.

The journal is a file of JSON lines beside the output: a header, and a line for each run whose executed notebook is at
its output path. A line has the result, and digests of what the run was made of: notebook, parameters, options, but not
the values of secrets. It is written before the run counts as finished. A resumed batch uses a line if nothing of that
has changed, and if the executed notebook and the artefacts are still those that the run wrote.

The file is locked while the batch runs, so that two processes do not run the same batch at the same time. The system
releases the lock when its holder ends, also when the holder is killed. File systems without locks, and Windows, have
no such protection.

The cache (:mod:`nbrun.runner.batch.cache`) cannot serve for this. It keeps passed runs only, by their code instead of
their file, and not with secrets or a server.
"""

import contextlib
import hashlib
import logging
import os
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nbrun.core.batch.replay import is_notebook_of, read_result
from nbrun.core.formats.json_text import as_object, dumps, loads
from nbrun.core.notebook.document import Document
from nbrun.core.results import NotebookResult, Outcome
from nbrun.errors import BadFrame, NbrunError, UsageError
from nbrun.runner.job import PlannedRun
from nbrun.storage.on_disk import lock_file, read_text
from nbrun.storage.paths import absolute
from nbrun.version import __version__

FORMAT = 1
LONGEST_LINE = 4_000_000
"""Maximum bytes of a line. A run with a larger result has no line, and a resumed batch executes it again."""
_HEADER = "nbrun_journal"
_BEGINNING = f'{{"{_HEADER}":'.encode()
_BINARY = getattr(os, "O_BINARY", 0)
_log = logging.getLogger(__name__)
_VERDICTS = (Outcome.PASSED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.KERNEL_DIED, Outcome.INCOMPLETE)
"""Outcomes that the notebook itself caused. A resumed batch executes runs with other outcomes again."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A run that an earlier process executed: its result, and its executed notebook."""

    result: NotebookResult
    document: Document


class JournalInUse(UsageError):
    """Another process runs a batch with the same journal."""


class RunJournal:
    """The journal of one batch. Its file is locked until :meth:`close`."""

    def __init__(self, path: Path, named: Sequence[str], shard: str | None, *, resume: bool) -> None:
        """Begin the file at `path`, or read it to `resume` the batch; raise :class:`UsageError`.

        `named` are the paths in the call. They and the shard tell batches apart.
        """
        self._path = path.absolute()
        self._header = {_HEADER: FORMAT, "version": __version__, "paths": [*named], "shard": shard}
        self._lines: dict[str, Mapping[str, Any]] = {}
        self._one_at_a_time = threading.Lock()
        self._file: int | None = None
        self._is_useless = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(self._path)
            self._begin(self._path.read_bytes(), resume=resume)
        except OSError as error:
            self.close()
            raise UsageError(f"{path}: the journal cannot be used: {error.strerror}") from None
        except UsageError:
            self.close()
            raise

    @property
    def has_runs(self) -> bool:
        """Return whether an earlier process executed runs of this batch."""
        return bool(self._lines)

    def _begin(self, content: bytes, *, resume: bool) -> None:
        """Read the file's content, or replace it by a header; raise :class:`UsageError` or OSError."""
        assert self._file is not None
        if not (content.startswith(_BEGINNING) or _BEGINNING.startswith(content)):
            hint = "Remove it, or name another file with --journal."
            raise UsageError(f"{self._path}: the file exists and is not a journal", hint=hint)
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be cut off
        if resume and whole:
            self._read(whole)
            os.ftruncate(self._file, len(whole))
        else:
            os.ftruncate(self._file, 0)
            self._write(self._header)
        self._is_useless = not self._lines

    def _read(self, content: bytes) -> None:
        header, *lines = map(_object, content.split(b"\n"))
        if header.get(_HEADER) != FORMAT:
            hint = "Remove it, or name another file with --journal."
            raise UsageError(f"{self._path}: not a journal that this nbrun can resume from", hint=hint)
        if any(header.get(name) != self._header[name] for name in ("paths", "shard")):
            shard = f" --shard {header['shard']}" if header.get("shard") else ""
            other = f"{' '.join(map(str, header.get('paths') or ()))}{shard}"
            hint = "Repeat the call of that batch with --resume, or run this one without --resume."
            raise UsageError(f"{self._path}: this is the journal of another batch: {other}", hint=hint)
        self._lines = {line["run"]: line for line in lines if isinstance(line.get("run"), str)}

    def look(self, planned: PlannedRun) -> tuple[str, Delivered | None]:
        """Return the digest of a run's notebook, and what an earlier process delivered of the run.

        The digest is "" if the notebook cannot be read. Without a delivery the run must be executed.
        """
        now = _digest_if_readable(absolute(planned.paths.notebook))
        line = self._lines.get(planned.name)
        return now, None if line is None else _delivered(planned, line, now)

    def add(self, planned: PlannedRun, notebook: str, result: NotebookResult) -> None:
        """Write the result of an executed run if it is a delivery; raise OSError.

        `notebook` is the digest of the notebook before the run.
        """
        if not _is_delivery(result):
            return
        self._write(
            {
                "run": planned.name,
                "key": _key(planned, notebook),
                "notebook": notebook,
                "executed": _digest(absolute(result.output or "")),
                "result": result.as_dict(),
            }
        )

    def _write(self, content: Mapping[str, Any]) -> None:
        """Append a line. If the disk is full, nothing of it stays, because the next line would continue it."""
        text = memoryview(dumps(content) + b"\n")
        with self._one_at_a_time:
            if self._file is None or len(text) > LONGEST_LINE:
                return
            before = os.fstat(self._file).st_size
            try:
                while text:
                    text = text[os.write(self._file, text) :]
            except OSError:
                os.ftruncate(self._file, before)
                raise
            self._is_useless = False

    def close(self) -> None:
        """Release the lock, and remove a file without runs."""
        if self._file is not None:
            _close(self._file, self._path, remove=self._is_useless)
            self._file = None

    def finish(self, results: Sequence[NotebookResult]) -> None:
        """Remove the file if no run is left to resume; call it after `close`, when the reports are written.

        A file that another process uses by now stays.
        """
        if all(_is_delivery(result) or (result.outcome is Outcome.NOT_RUN and result.attempts) for result in results):
            with contextlib.suppress(OSError, UsageError):
                _close(_open_locked(self._path), self._path, remove=True)


def _open_locked(path: Path) -> int:
    """Open a file to append to it, and lock it; raise :class:`JournalInUse` if another process holds the lock."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise UsageError(f"{path}: the journal must be a regular file", hint="Name another file.")
            _lock(file, path)
            with contextlib.suppress(FileNotFoundError):
                # The process that held the lock may have removed the file since it was opened here.
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _close(file: int, path: Path, *, remove: bool) -> None:
    """Close a locked file, and remove it before, so that no other process can lock it in between."""
    is_removable = sys.platform != "win32"  # there only a closed file can be removed
    if remove and is_removable:
        path.unlink(missing_ok=True)
    os.close(file)
    if remove and not is_removable:
        path.unlink(missing_ok=True)


def _lock(file: int, path: Path) -> None:
    try:
        is_free = lock_file(file)
    except OSError as error:
        _log.info("%s: not locked: %s", path, error.strerror)  # such as a network file system without locks
        return
    if not is_free:
        hint = "Wait until that batch has ended, or name another file with --journal."
        raise JournalInUse(f"{path}: another process runs a batch with this journal", hint=hint)


def _delivered(planned: PlannedRun, line: Mapping[str, Any], now: str) -> Delivered | None:
    """Return the delivery in a line, or None if something of the run has changed; `now` is its notebook's digest."""
    try:
        result = read_result(as_object(line["result"]))
        output = absolute(result.output or "")
        executed = _digest(output)
        # The executed notebook may be in the place of the notebook.
        notebook = line["notebook"] if now == executed else now
        if executed != line["executed"] or line["key"] != _key(planned, notebook):
            return None
        if any(_digest(Path(artefact.file)) != artefact.sha256 for artefact in result.artefacts):
            return None
        document = Document(loads(read_text(output)))
    except (OSError, ValueError, KeyError, BadFrame, NbrunError):
        return None
    return Delivered(result, document) if is_notebook_of(result, document) else None


def _is_delivery(result: NotebookResult) -> bool:
    return result.outcome in _VERDICTS and result.output is not None and not result.rescued


def _object(line: bytes) -> dict[str, Any]:
    try:
        return as_object(loads(line))
    except BadFrame:
        return {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_if_readable(path: Path) -> str:
    try:
        return _digest(path)
    except OSError:
        return ""


def _key(planned: PlannedRun, notebook: str) -> str:
    """Return the digest of what a run is made of: of secrets, only the names."""
    job, paths = planned.job, planned.paths
    options = {field.name: repr(getattr(job, field.name)) for field in fields(job) if field.name != "secrets"}
    places = [paths.output, paths.upload, paths.on_conflict.value, paths.checkpoint.value, paths.cwd]
    parameters = {name: repr(value) for name, value in sorted(planned.parameters.items())}
    made_of = [__version__, notebook, options, sorted(job.secrets), places, parameters]
    return hashlib.sha256(dumps(made_of)).hexdigest()
