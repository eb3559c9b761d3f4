"""Write the HTTP exchanges and kernel messages of a run as lines of JSON (``--trace``).

Tests can replay them. The format is that of the recorded runs in ``fixtures/transcripts``. Each line is an object, and
``at`` is in seconds::

    {"about": ..., "nbrun": version, "python": ..., "platform": ...}        the first line
    {"at": ..., "http": {"method", "path", "status", "seconds", ...}}
    {"at": ..., "kernel": id, "run": {cells, limits, sessions, ...}}        the state machine starts
    {"at": ..., "kernel": id, "sent": message}
    {"at": ..., "kernel": id, "received": message}                          as it arrived, before retransmission
    {"at": ..., "kernel": id, "asked": {"cut": true}}                       also reconnected, lost, probed, interrupt,
                                                                            started: the kernel's last request
    {"at": ..., "kernel": id, "effect": "InterruptKernel"}
    {"at": ..., "kernel": id, "result": ...}                                the JSON result of the run

Secrets, tokens, passwords and cookies are masked (:mod:`nbrun.core.outputs.masking`). Headers are not recorded, nor is
the login form. If a stream message may end in a part of a secret, its end is held until the next message. It is then in
that message, or in a line of its own with ``rest_of``, the id of the message to which it belongs. Identifiers of
messages are not masked: replay needs them, and they are random.

Long text and buffers are cut, with length and hash. Each line is written at once, so the trace of a killed run can be
used. If the file cannot be written any more, the run continues and :attr:`Trace.failure` holds the reason.
"""

import base64
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nbrun.core.outputs.masking import Mask, MaskedMessages
from nbrun.core.protocol.messages import Message
from nbrun.version import __version__

LONGEST_BODY = 20_000
"""Characters of an HTTP body."""
LONGEST_TEXT = 1_000_000
"""Characters of one text in a message."""
LARGEST_BUFFER = 64_000
LARGEST_FILE = 256_000_000
"""Bytes of the file, which ends with a note then."""
_SLACK = 20_000
"""Characters behind a cut that are masked too, so that no part of a secret stays before it."""
_IDENTIFIERS = ("msg_id", "msg_type", "session", "date", "version")
_log = logging.getLogger(__name__)


class Trace:
    """A trace in a file, created at the first line and readable by this user only."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        largest: int = LARGEST_FILE,
    ) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100  (a notebook may change the current folder)
        self.failure: OSError | None = None
        """Why the trace is not complete."""
        self._clock = clock
        self._start = clock()
        self._largest = largest
        self._written = 0
        self._descriptor: int | None = None
        self._is_over = False
        self._hidden: set[str] = set()
        self._mask = Mask()
        self._streams: dict[str, MaskedMessages] = {}
        self._last: dict[tuple[str, str], str] = {}
        """The id of the last stream message of a kernel for a request."""

    def __fspath__(self) -> str:
        """Return the path."""
        return self.path

    def hide(self, values: Iterable[str | None]) -> None:
        """Mask these values too from now on."""
        new = {value for value in values if value} - self._hidden
        if new:
            self._hidden |= new
            self._mask = Mask(self._hidden)
            for kernel in [*self._streams]:
                self.release(kernel)

    def http(
        self,
        began: float,
        method: str,
        path: str,
        *,
        sent: Iterable[Any] = (),
        status: int | None = None,
        received: bytes = b"",
        error: str = "",
    ) -> None:
        """Write an HTTP exchange that `began` at this time of the clock; `sent` are the pieces of a JSON body."""
        exchange: dict[str, Any] = {
            "method": method,
            "path": self._mask.text(path),
            "seconds": round(self._clock() - began, 4),
            "status": status,
        }
        exchange |= {"sent": text} if (text := self._body(sent)) else {}
        exchange |= {"received": text} if (text := self._body([received])) else {}
        exchange |= {"error": self._mask.text(error)} if error else {}
        self._write({"at": self._at(began), "http": exchange})

    def sent(self, kernel: str, message: Message) -> None:
        """Write a message to a kernel."""
        self._event(kernel, sent=self._message(message))

    def received(self, kernel: str, message: Message) -> None:
        """Write a message from a kernel."""
        if not self._mask:
            self._event(kernel, received=self._message(message))
            return
        *rests, masked = self._masked(kernel).mask(message)
        self._rests(kernel, rests)
        self._event(kernel, received=self._message(masked))
        if message.type == "stream":
            self._last[kernel, message.parent_id] = message.id

    def waited(self, kernel: str) -> None:
        """Record that a deadline passed without a message; ends of streams are held no longer."""
        if kernel in self._streams:
            self._rests(kernel, self._streams[kernel].release_late())

    def release(self, kernel: str) -> None:
        """Write ends of streams that were held; no more messages arrive."""
        if (streams := self._streams.pop(kernel, None)) is not None:
            self._rests(kernel, streams.release())

    def asked(self, kernel: str, what: Mapping[str, Any]) -> None:
        """Write an event that is not a message: the connection, a probe, a request to stop."""
        self.release(kernel)
        self._event(kernel, asked=self._mask.value(what))

    def effect(self, kernel: str, name: str) -> None:
        """Write an effect that is not a message."""
        self._event(kernel, effect=name)

    def run(self, kernel: str, setting: Mapping[str, Any]) -> None:
        """Write how a run is made; ``last`` in `setting` is a message."""
        last = setting["last"]
        masked = self._mask.value({**setting, "last": None, "session": None, "kernel_session": None})
        identified = {name: setting[name] for name in ("session", "kernel_session")}
        self._event(kernel, run={**masked, **identified, "last": last and self._message(last)})

    def result(self, kernel: str, result: Mapping[str, Any]) -> None:
        """Write the result of a run."""
        self._event(kernel, result=self._mask.value(result))

    def close(self) -> None:
        """Close the file; a later line is appended."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _rests(self, kernel: str, messages: Iterable[Message]) -> None:
        """Write ends of streams, each with the id of the message that it belongs to."""
        for message in messages:
            rest_of = self._last.get((kernel, message.parent_id), "")
            self._event(kernel, received=self._message(message), rest_of=rest_of)

    def _masked(self, kernel: str) -> MaskedMessages:
        if kernel not in self._streams:
            self._streams[kernel] = MaskedMessages(self._mask)
        return self._streams[kernel]

    def _at(self, when: float) -> float:
        return round(when - self._start, 4)

    def _event(self, kernel: str, **what: Any) -> None:
        self._write({"at": self._at(self._clock()), "kernel": kernel, **what})

    def _message(self, message: Message) -> dict[str, Any]:
        found = {
            "channel": message.channel,
            "header": self._header(message.header),
            "parent_header": self._header(message.parent),
            "metadata": _cut(self._mask.value(message.metadata)),
            "content": _cut(self._mask.value(message.content)),
        }
        return found | ({"buffers": [self._buffer(each) for each in message.buffers]} if message.buffers else {})

    def _header(self, header: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in header.items() if name in _IDENTIFIERS}
        others = {name: value for name, value in header.items() if name not in _IDENTIFIERS}
        return {**kept, **self._mask.value(others), **({"username": "user"} if "username" in header else {})}

    def _buffer(self, data: bytes) -> dict[str, Any]:
        if len(data) > LARGEST_BUFFER:
            return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return {"size": len(data), "base64": base64.b64encode(self._mask.data(data)).decode()}

    def _body(self, pieces: Iterable[Any]) -> str:
        parts, size = [], 0
        for piece in pieces:
            parts.append(bytes(memoryview(piece)[: LONGEST_BODY + _SLACK]))
            size += len(piece)
            if size > LONGEST_BODY + _SLACK:
                break
        text = self._mask.text(b"".join(parts).decode("utf-8", "replace"))
        return text if len(text) <= LONGEST_BODY else f"{text[:LONGEST_BODY]} ... [cut after {LONGEST_BODY} characters]"

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._is_over:
            return
        try:
            if self._written == 0:
                self._append({
                    "about": "a trace of nbrun",
                    "nbrun": __version__,
                    "python": platform.python_version(),
                    "platform": platform.platform(),
                })  # fmt: skip
            if self._written > self._largest:
                self._is_over = True
                line = {"at": line["at"], "cut": f"the trace ends after {self._largest} bytes"}
                _log.warning("%s: the trace ends after %d bytes", self.path, self._largest)
            self._append(line)
        except OSError as error:
            self.failure, self._is_over = error, True
            _log.info("%s: the trace cannot be written: %s", self.path, error.strerror or error)

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)  # noqa: PTH103, PTH120
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags | (0 if self._written else os.O_TRUNC), 0o600)
            if hasattr(os, "fchmod"):
                os.fchmod(self._descriptor, 0o600)  # the file may have been there
        data = f"{json.dumps(line, default=str)}\n".encode()
        self._written += len(data)
        while data:
            data = data[os.write(self._descriptor, data) :]


def _cut(value: Any) -> Any:
    """Return a JSON value with long texts cut."""
    if isinstance(value, str):
        if len(value) <= LONGEST_TEXT:
            return value
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{value[:LONGEST_TEXT]} ... [cut; {len(value)} characters, sha256 {digest}]"
    if isinstance(value, Mapping):
        return {name: _cut(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cut(one) for one in value]
    return value
