"""The state folder of this machine: the history of reports, and files for locks.

The history of a report is one file with a line of JSON for each run. It contains neither parameters nor messages.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nbrun.core.batch.schedule import StartedRun
from nbrun.core.formats.json_text import dumps, loads
from nbrun.errors import BadFrame

KEPT = 1000
"""Runs that stay in the file when it is shortened, which happens at twice this number."""


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for the state of nbrun: ``$XDG_STATE_HOME/nbrun``, or ``~/.local/state/nbrun``."""
    base = environment.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "nbrun"


def report_key(name: str, folder: str) -> str:
    """Return a file name for a report: the name of a batch or a notebook, and the folder that it belongs to."""
    digest = hashlib.sha256(f"{folder}\0{name}".encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:60]}-{digest}"


@dataclass(frozen=True, slots=True)
class PastRun:
    """How a run ended. Times are ISO 8601 in UTC; ``scheduled`` is None for a run without a schedule.

    ``passed`` are the digests of the notebooks that passed, and ``kind`` is that of the parameters, without those that
    differ from run to run (:func:`nbrun.publishing.missing.digest_of`). It is "" if they are not known.
    """

    started: str
    seconds: float
    outcome: str
    exit_code: int
    scheduled: str | None = None
    passed: Sequence[str] = ()
    kind: str = ""

    @property
    def as_started(self) -> StartedRun:
        """Return the times of the run."""
        scheduled = None if self.scheduled is None else _time(self.scheduled)
        return StartedRun(scheduled, _time(self.started))


def _time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


class LocalHistory:
    """The runs of one report on this machine."""

    def __init__(self, key: str, folder: Path | None = None) -> None:
        self.file = (folder or state_folder()) / "history" / f"{key}.jsonl"

    def runs(self) -> list[PastRun]:
        """Return the runs, the newest first. Lines that are no runs, such as a cut one, are left out."""
        try:
            lines = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in reversed(lines):
            try:
                run = PastRun(**loads(line))
                run = replace(run, passed=tuple(run.passed))
                _ = run.as_started
            except (BadFrame, TypeError, ValueError):
                continue
            found.append(run)
        return found

    def add(self, run: PastRun) -> None:
        """Append a run; raise OSError."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = dumps(asdict(run)) + b"\n"
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
        lines = self.file.read_bytes().splitlines(keepends=True)
        if len(lines) >= 2 * KEPT:
            temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_bytes(b"".join(lines[-KEPT:]))
            temporary.replace(self.file)
