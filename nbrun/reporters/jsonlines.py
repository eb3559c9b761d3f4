"""Write events as JSON lines (``--events``), and the results as one object (``--json``).

``docs/events.md`` documents the lines, ``docs/json.md`` the objects. Fields may be added but not removed. Only
:func:`line_of` defines the format of the lines. On nbrun's own streams ``#`` is written as an escape. They may be the
log of a CI job, and a value of a notebook must not become a command to the runner.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from nbrun.core.events import BatchFinished, BatchStarted, Event, RunFinished, as_dict
from nbrun.core.formats.json_text import dumps
from nbrun.core.formats.safe_text import safe_json
from nbrun.core.results import moment, with_lost_reports
from nbrun.reporters.safe_stream import binary, may_be_shown, named, own_stream


def line_of(event: Event, time: str) -> dict[str, Any]:
    """Return the JSON object for an event; `time` is ISO 8601, UTC."""
    content = as_dict(event)
    return {"event": content["event"], "time": time, **content}


def _now() -> datetime:
    return datetime.now(UTC)


class Events:
    """Writes each event as a line to a file or to standard output (``-``), and flushes it."""

    def __init__(self, target: str, *, clock: Callable[[], datetime] = _now) -> None:
        self.name = f"the log of events in {named(target)}"
        self._clock = clock
        self._target = target
        self._own = own_stream(target)
        self._is_shown = may_be_shown(target)
        self._file: BinaryIO | None = None

    def observe(self, event: Event) -> None:
        """Handle an event."""
        if self._file is None:
            self._file = _open(self._target)
        line = dumps(line_of(event, moment(self._clock()))) + b"\n"
        if self._is_shown:
            line = safe_json(line.decode()).encode()
        try:
            self._file.write(line)
            self._file.flush()
        except BrokenPipeError:
            _forget_standard_output()
            raise

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None and not self._own:
            self._file.close()


class Results:
    """Writes the result of the run or batch as one JSON object at the end."""

    def __init__(self, target: str, *, lost: Callable[[], Sequence[str]] = tuple) -> None:
        """Write to `target`. `lost` returns the reports that could not be written, after all others are closed."""
        self.name = f"the result in {named(target)}"
        self._lost = lost
        self._target = target
        self._result: dict[str, Any] | None = None
        self._is_batch = False

    def observe(self, event: Event) -> None:
        """Handle an event."""
        match event:
            case BatchStarted():
                self._is_batch = True
            case BatchFinished(batch):
                self._result = batch.as_dict()
            case RunFinished(_, result) if not self._is_batch:
                self._result = result.as_dict()
            case _:
                pass

    def close(self) -> None:
        """Write the object."""
        if self._result is None:
            return
        if lost := self._lost():
            self._result |= {"exit_code": int(with_lost_reports(self._result["exit_code"], lost)), "lost_reports": lost}
        own, is_shown = own_stream(self._target), may_be_shown(self._target)
        text = json.dumps(self._result, indent=2, ensure_ascii=is_shown, default=str) + "\n"
        if is_shown:
            text = safe_json(text)
        file = _open(self._target)
        try:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
        except BrokenPipeError:
            _forget_standard_output()
            raise
        finally:
            if not own:
                file.close()


def _open(target: str) -> BinaryIO:
    if own := own_stream(target):
        stream: BinaryIO = binary(getattr(sys, own))
        return stream
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _forget_standard_output() -> None:
    """Redirect a broken standard output to /dev/null; otherwise Python would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
