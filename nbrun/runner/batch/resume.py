"""The journal of a batch, from which ``--resume`` continues after nbrun was killed.

The journal is a file of JSON lines beside the output: a header, and a line for each run whose executed notebook is at
its output path. A line has the result, and digests of what the run was made of: notebook, parameters, options, but not
the values of secrets. It is written before the run counts as finished. A resumed batch uses a line if nothing of that
has changed, and if the executed notebook is still the one that the run wrote.

The cache (:mod:`nbrun.runner.batch.cache`) cannot serve for this. It keeps passed runs only, by their code instead of
their file, and not with secrets or a server.
"""

import hashlib
import os
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
from nbrun.storage.on_disk import read_text
from nbrun.storage.paths import absolute
from nbrun.version import __version__

FORMAT = 1
LONGEST_LINE = 4_000_000
"""Maximum bytes of a line. A run with a larger result has no line, and a resumed batch executes it again."""
_HEADER = "nbrun_journal"
_VERDICTS = (Outcome.PASSED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.KERNEL_DIED, Outcome.INCOMPLETE)
"""Outcomes that the notebook itself caused. A resumed batch executes runs with other outcomes again."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A run that an earlier process executed: its result, and its executed notebook."""

    result: NotebookResult
    document: Document


class RunJournal:
    """The journal of one batch. The file is created with the first result."""

    def __init__(self, path: Path, named: Sequence[str], shard: str | None, *, resume: bool) -> None:
        """Remove the file at `path`, or read it to `resume` the batch; raise :class:`UsageError`.

        `named` are the paths in the call. They and the shard tell batches apart.
        """
        self._path = path.absolute()
        self._header = {_HEADER: FORMAT, "version": __version__, "paths": [*named], "shard": shard}
        self._lines: dict[str, Mapping[str, Any]] = {}
        self._file: int | None = None
        try:
            if resume:
                self._read()
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{path}: the journal cannot be used: {error.strerror}") from None

    @property
    def has_runs(self) -> bool:
        """Return whether an earlier process executed runs of this batch."""
        return bool(self._lines)

    def _read(self) -> None:
        if not self._path.exists():
            return
        header, *lines = map(_object, self._path.read_bytes().split(b"\n"))  # the last line may be cut off
        if header.get(_HEADER) != FORMAT:
            hint = "Remove it, or name another file with --journal."
            raise UsageError(f"{self._path}: not a journal that this nbrun can resume from", hint=hint)
        if any(header.get(name) != self._header[name] for name in ("paths", "shard")):
            shard = f" --shard {header['shard']}" if header.get("shard") else ""
            other = f"{' '.join(map(str, header.get('paths') or ()))}{shard}"
            hint = "Repeat the call of that batch with --resume, or run this one without --resume."
            raise UsageError(f"{self._path}: this is the journal of another batch: {other}", hint=hint)
        self._lines = {line["run"]: line for line in lines if isinstance(line.get("run"), str)}

    def look(self, planned: PlannedRun) -> Delivered | None:
        """Return what an earlier process delivered of a run, or None if the run must be executed."""
        line = self._lines.get(planned.name)
        if line is None:
            return None
        try:
            result = read_result(as_object(line["result"]))
            output, now = absolute(result.output or ""), self.notebook_now(planned)
            executed = _digest(output)
            # The executed notebook may be in the place of the notebook.
            notebook = line["notebook"] if now == executed else now
            if executed != line["executed"] or line["key"] != _key(planned, notebook):
                return None
            document = Document(loads(read_text(output)))
        except (OSError, ValueError, KeyError, BadFrame, NbrunError):
            return None
        return Delivered(result, document) if is_notebook_of(result, document) else None

    def notebook_now(self, planned: PlannedRun) -> str:
        """Return the digest of a run's notebook, or "" if it cannot be read."""
        try:
            return _digest(absolute(planned.paths.notebook))
        except OSError:
            return ""

    def add(self, planned: PlannedRun, notebook: str, result: NotebookResult) -> None:
        """Write the result of an executed run if it is a delivery; raise OSError.

        `notebook` is the result of :meth:`notebook_now` before the run.
        """
        if not _is_delivery(result):
            return
        line = {
            "run": planned.name,
            "key": _key(planned, notebook),
            "notebook": notebook,
            "executed": _digest(absolute(result.output or "")),
            "result": result.as_dict(),
        }
        text = dumps(line) + b"\n"
        if len(text) <= LONGEST_LINE:
            os.write(self._open(), text)

    def _open(self) -> int:
        """Return the open file. It begins with the header and the lines of the resumed batch, without broken ones."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_name(f"{self._path.name}.new")
            new.unlink(missing_ok=True)
            self._file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            for line in (self._header, *self._lines.values()):
                os.write(self._file, dumps(line) + b"\n")
            new.replace(self._path)
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def finish(self, results: Sequence[NotebookResult]) -> None:
        """Remove the file if no run is left to resume; call it when the reports are written."""
        if all(_is_delivery(result) or (result.outcome is Outcome.NOT_RUN and result.attempts) for result in results):
            self._path.unlink(missing_ok=True)


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


def _key(planned: PlannedRun, notebook: str) -> str:
    """Return the digest of what a run is made of: of secrets, only the names."""
    job, paths = planned.job, planned.paths
    options = {field.name: repr(getattr(job, field.name)) for field in fields(job) if field.name != "secrets"}
    places = [paths.output, paths.upload, paths.on_conflict.value, paths.checkpoint.value, paths.cwd]
    parameters = {name: repr(value) for name, value in sorted(planned.parameters.items())}
    made_of = [__version__, notebook, options, sorted(job.secrets), places, parameters]
    return hashlib.sha256(dumps(made_of)).hexdigest()
