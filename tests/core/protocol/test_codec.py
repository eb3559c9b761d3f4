"""Frames and messages in both subprotocols, and invalid frames."""

import json
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbrun.core.protocol.codec import V1_SUBPROTOCOL, Subprotocol, decode, encode
from nbrun.core.protocol.messages import Channel, Message
from nbrun.errors import BadFrame
from tests.core.properties import QUICK, json_objects

V1, LEGACY = Subprotocol.V1, Subprotocol.LEGACY
DATE = "2026-01-02T03:04:05+00:00"

messages = st.builds(
    Message,
    st.sampled_from([*map(str, Channel), "gossip", ""]),
    json_objects,
    json_objects,
    json_objects,
    json_objects,
    st.lists(st.binary(max_size=40), max_size=4).map(tuple),
)
both = pytest.mark.parametrize("subprotocol", Subprotocol, ids=["v1", "legacy"])


def message(**parts: Any) -> Message:
    given = {"channel": "shell", "header": {"msg_id": "1"}, "parent": {}, "content": {}, **parts}
    return Message(**given)


# There and back ----------------------------------------------------------------------------------------------------


@both
@QUICK
@given(sent=messages)
def test_what_is_encoded_is_decoded_the_same_but_for_its_date(subprotocol: Subprotocol, sent: Message) -> None:
    came = decode(encode(sent, subprotocol, date=DATE), subprotocol)
    dated = Message(sent.channel, {**sent.header, "date": DATE}, sent.parent, sent.content, sent.metadata, sent.buffers)
    assert came == dated


@both
@pytest.mark.parametrize(
    "content",
    [{"n": 10**40}, {"n": -(2**63)}, {"t": "é中🎈\u2028\x00"}, {"t": "x" * 100_000}],
    ids=["a huge integer", "a small integer", "texts", "long text"],
)
def test_odd_content_survives(subprotocol: Subprotocol, content: dict[str, Any]) -> None:
    assert decode(encode(message(content=content), subprotocol, date=DATE), subprotocol).content == content


@both
def test_a_lone_surrogate_in_what_is_sent_becomes_a_replacement_character(subprotocol: Subprotocol) -> None:
    frame = encode(message(content={"code": "'\ud800'"}), subprotocol, date=DATE)
    assert decode(frame, subprotocol).content == {"code": "'\ufffd'"}


# v1, byte for byte ---------------------------------------------------------------------------------------------------


def test_a_v1_frame_is_laid_out_as_jupyter_server_reads_it() -> None:
    sent = message(parent={"p": 1}, content={"c": "é"}, metadata={"m": None}, buffers=(b"\x00\x01", b""))
    frame = encode(sent, V1, date="d")
    parts = [b"shell", b'{"msg_id":"1","date":"d"}', b'{"p":1}', b'{"m":null}', '{"c":"é"}'.encode(), b"\x00\x01", b""]
    offsets = [8 * 9]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    assert len(offsets) == 8
    assert isinstance(frame, bytes)
    assert frame == struct.pack("<Q8Q", 8, *offsets) + b"".join(parts)
    assert offsets[-1] == len(frame)
    assert frame[8:16] == b"\x48" + bytes(7)


def v1(*parts: bytes, offsets: list[int] | None = None) -> bytes:
    if offsets is None:
        offsets = [8 * (len(parts) + 2)]
        for part in parts:
            offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def test_json_parts_may_hold_what_python_puts_in_and_bytes_that_are_no_utf_8() -> None:
    came = decode(v1(b"iopub", b"{}", b"{}", b"{}", b'{"text": "\x80", "n": NaN}'), V1)
    assert came.content == {"text": "\ufffd", "n": None}


def test_null_stands_for_an_empty_object() -> None:
    came = decode(v1(b"iopub", b"null", b"null", b"null", b"null"), V1)
    assert (came.header, came.parent, came.metadata, came.content) == ({}, {}, {}, {})


def test_bytes_behind_the_last_offset_belong_to_nobody() -> None:
    assert decode(v1(b"iopub", b"{}", b"{}", b"{}", b"{}") + b"rest", V1).buffers == ()


OBJECTS = (b"{}", b"{}", b"{}", b"{}")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x06",
        struct.pack("<Q", 0),
        struct.pack("<Q", 6),
        struct.pack("<Q", 2**64 - 1),
        struct.pack("<QQ", 2**63, 0),
        v1(b"iopub", *OBJECTS)[:-1],
        v1(b"iopub", *OBJECTS[1:]),
        v1(b"iopub", *OBJECTS, offsets=[56, 61, 63, 65, 67, 70]),
        v1(b"iopub", *OBJECTS, offsets=[56, 63, 61, 65, 67, 69]),
        v1(b"iopub", *OBJECTS, offsets=[0, 61, 63, 65, 67, 69]),
        v1(b"iopub", *OBJECTS, offsets=[2**64 - 1] * 6),
        v1(b"iopub", b"[]", b"{}", b"{}", b"{}"),
        v1(b"iopub", b"{}", b"1", b"{}", b"{}"),
        v1(b"iopub", b"{}", b"{}", b'"x"', b"{}"),
        v1(b"iopub", b"{}", b"{}", b"{}", b"false"),
        v1(b"iopub", b"", b"{}", b"{}", b"{}"),
        v1(b"iopub", b"{}", b"{}", b"{}", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        encode(message(buffers=(b"x",)), LEGACY, date=DATE),
    ],
    ids=[
        "empty", "too short", "no offsets", "offsets cut off", "2^64 - 1 offsets", "2^63 offsets", "cut off",
        "four parts", "end beyond the end", "falling", "into the offsets", "far beyond", "header an array",
        "parent a number", "metadata a string", "content a boolean", "header empty", "content too deep", "legacy",
    ],
)  # fmt: skip
def test_what_is_no_v1_frame_is_a_bad_frame(frame: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(frame, V1)


# Legacy, byte for byte -----------------------------------------------------------------------------------------------


def test_without_buffers_a_legacy_message_is_one_json_object() -> None:
    frame = encode(message(content={"c": "é"}), LEGACY, date="d")
    assert isinstance(frame, str)
    assert json.loads(frame) == {
        "channel": "shell",
        "header": {"msg_id": "1", "date": "d"},
        "parent_header": {},
        "metadata": {},
        "content": {"c": "é"},
        "buffers": [],
    }


def test_with_buffers_it_is_a_binary_frame_of_big_endian_offsets() -> None:
    frame = encode(message(buffers=(b"\x00\x01", b"")), LEGACY, date="d")
    assert isinstance(frame, bytes)
    count, start, first, second = struct.unpack_from(">4I", frame)
    assert (count, start) == (3, 16)
    assert json.loads(frame[start:first])["channel"] == "shell"
    assert (frame[first:second], frame[second:]) == (b"\x00\x01", b"")


def test_what_a_server_adds_to_a_legacy_message_is_passed_over() -> None:
    frame = json.dumps({"channel": "iopub", "header": {"msg_id": "k"}, "msg_id": "k", "msg_type": "status"})
    assert decode(frame, LEGACY) == Message("iopub", {"msg_id": "k"}, {}, {})


def test_a_text_frame_is_a_legacy_message_whatever_was_agreed() -> None:
    frame = encode(message(content={"a": 1}), LEGACY, date=DATE)
    assert decode(frame, V1).content == {"a": 1}


def test_a_channel_that_is_no_text_is_no_channel() -> None:
    assert decode('{"channel": 7}', LEGACY).channel == ""


def legacy(*offsets: int, parts: bytes = b'{"channel":"iopub"}') -> bytes:
    return struct.pack(f">{len(offsets) + 1}I", len(offsets), *offsets) + parts


@pytest.mark.parametrize(
    "frame",
    [
        "", "[]", '"x"', '{"header": 1}', '{"content": []}', '{"parent_header": "x"}', '{"metadata": 1}',
        b"", b"\x00\x00", struct.pack(">I", 0), struct.pack(">I", 2**32 - 1), legacy(8, 4), legacy(4), legacy(99),
        legacy(8, parts=b"nonsense"), legacy(8, parts=b"[]"),
    ],
    ids=[
        "empty text", "an array", "a string", "header a number", "content an array", "parent a string",
        "metadata a number", "empty", "too short", "no parts", "2^32 - 1 parts", "falling", "into the offsets",
        "beyond the end", "no JSON", "no object",
    ],
)  # fmt: skip
def test_what_is_no_legacy_frame_is_a_bad_frame(frame: str | bytes) -> None:
    with pytest.raises(BadFrame):
        decode(frame, LEGACY)


# Anything ------------------------------------------------------------------------------------------------------------

headed = st.builds(
    lambda count, offsets, rest, big: (
        struct.pack(f"{'>' if big else '<'}{len(offsets) + 1}{'I' if big else 'Q'}", count, *offsets) + rest
    ),
    st.integers(0, 9),
    st.lists(st.integers(0, 120), max_size=9),
    st.binary(max_size=40) | st.just(b"{}" * 10),
    st.booleans(),
)


@both
@QUICK
@given(frame=st.binary(max_size=200) | st.text() | headed)
@example(frame=b"\xff" * 64)
@example(frame=bytes(64))
def test_any_frame_is_a_message_or_a_bad_frame(subprotocol: Subprotocol, frame: str | bytes) -> None:
    try:
        came = decode(frame, subprotocol)
    except BadFrame:
        return
    encode(came, subprotocol, date=DATE)


@both
@QUICK
@given(sent=messages, place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_frame_with_one_wrong_byte_is_a_message_or_a_bad_frame(
    subprotocol: Subprotocol, sent: Message, place: int, byte: int
) -> None:
    frame = encode(sent, subprotocol, date=DATE)
    raw = bytearray(frame.encode() if isinstance(frame, str) else frame)
    raw[place % len(raw)] = byte
    try:
        came = decode(bytes(raw), subprotocol)
    except BadFrame:
        return
    assert isinstance(came, Message)


def test_the_subprotocols_have_the_names_that_the_handshake_uses() -> None:
    assert Subprotocol(V1_SUBPROTOCOL) is V1
    assert Subprotocol(None) is LEGACY
