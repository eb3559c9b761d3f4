"""Encode and decode websocket frames of kernel messages, in both subprotocols.

*v1* (``v1.kernel.websocket.jupyter.org``), one binary frame per message, little-endian, in both directions::

    u64 n | u64 offset[n] | channel | header | parent_header | metadata | content | buffer ...
            offset[0] = 8 (n + 1)                                                  offset[n-1] = end of frame

*Legacy*, if the server selects no subprotocol: a text frame with one JSON object, or, for messages with buffers, a
binary frame, big-endian: ``u32 n | u32 offset[n] | JSON | buffer ...``.

Frames come from a network and may contain anything. A frame that is not a message raises :class:`BadFrame` and no other
exception. Sizes are checked before a frame is cut.
"""

import struct
from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from typing import Any

from nbrun.core.formats.json_text import dumps, loads
from nbrun.core.protocol.messages import Message
from nbrun.errors import BadFrame

V1_SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
V1_PARTS = 5
"""The number of parts before the buffers: channel, header, parent_header, metadata and content."""


class Subprotocol(Enum):
    """The format of frames, negotiated in the websocket handshake."""

    V1 = V1_SUBPROTOCOL
    LEGACY = None


def encode(message: Message, subprotocol: Subprotocol, *, date: str) -> str | bytes:
    """Return the frame of `message`; `date` (ISO 8601) becomes the header's time stamp."""
    header = {**message.header, "date": date}
    if subprotocol is Subprotocol.V1:
        return _encode_v1(message, header)
    return _encode_legacy(message, header)


def decode(frame: str | bytes, subprotocol: Subprotocol) -> Message:
    """Return the message in a frame.

    A text frame is always a legacy message, whatever was negotiated.
    """
    if isinstance(frame, str):
        return _legacy_message(loads(frame), ())
    if subprotocol is Subprotocol.V1:
        return _decode_v1(frame)
    return _decode_legacy_binary(frame)


def _encode_v1(message: Message, header: Mapping[str, Any]) -> bytes:
    parts = [
        message.channel.encode(),
        *(dumps(part) for part in (header, message.parent, message.metadata, message.content)),
        *message.buffers,
    ]
    count = len(parts) + 1
    offsets = [8 * (count + 1)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f"<{count + 1}Q", count, *offsets), *parts])


def _decode_v1(frame: bytes) -> Message:
    parts = _cut(frame, "<", "Q", 8)
    if len(parts) < V1_PARTS:
        raise BadFrame(f"a v1 frame has at least {V1_PARTS} parts; this one has {len(parts)}")
    channel, header, parent, metadata, content, *buffers = parts
    return Message(
        channel.decode("utf-8", "replace"),
        _an_object(loads(header), "header"),
        _an_object(loads(parent), "parent_header"),
        _an_object(loads(content), "content"),
        _an_object(loads(metadata), "metadata"),
        tuple(buffers),
    )


def _encode_legacy(message: Message, header: Mapping[str, Any]) -> str | bytes:
    body = dumps(
        {
            "channel": message.channel,
            "header": header,
            "parent_header": message.parent,
            "metadata": message.metadata,
            "content": message.content,
            "buffers": [],
        }
    )
    if not message.buffers:
        return body.decode()
    parts = [body, *message.buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f">{len(parts) + 1}I", len(parts), *offsets), *parts])


def _decode_legacy_binary(frame: bytes) -> Message:
    parts = _cut(frame, ">", "I", 4, ends_named=False)
    if not parts:
        raise BadFrame("a legacy binary frame has at least one part; this one has none")
    return _legacy_message(loads(parts[0]), tuple(parts[1:]))


def _legacy_message(value: Any, buffers: tuple[bytes, ...]) -> Message:
    body = _an_object(value, "message")
    channel = body.get("channel")
    return Message(
        channel if isinstance(channel, str) else "",
        _an_object(body.get("header"), "header"),
        _an_object(body.get("parent_header"), "parent_header"),
        _an_object(body.get("content"), "content"),
        _an_object(body.get("metadata"), "metadata"),
        buffers,
    )


def _cut(frame: bytes, order: str, unit: str, size: int, *, ends_named: bool = True) -> list[bytes]:
    """Cut a frame at the offsets at its start; `ends_named` means that the last offset is the end of the frame."""
    if len(frame) < size:
        raise BadFrame(f"a frame of {len(frame)} bytes is too short to name its parts")
    (count,) = struct.unpack_from(f"{order}{unit}", frame)
    if count > len(frame) // size - 1:
        raise BadFrame(f"a frame of {len(frame)} bytes cannot have {count} offsets")
    offsets = list(struct.unpack_from(f"{order}{count}{unit}", frame, size))
    if not ends_named:
        offsets.append(len(frame))
    first = size * (count + 1)
    if any(start > end for start, end in pairwise([first, *offsets, len(frame)])):
        raise BadFrame("the offsets of a frame do not ascend within it")
    return [frame[start:end] for start, end in pairwise(offsets)]


def _an_object(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadFrame(f"the {name} of a message is an object; this one is a {type(value).__name__}")
    return value
