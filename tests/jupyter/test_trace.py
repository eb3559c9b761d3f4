"""The lines of a trace: format, masking and limits."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.protocol.messages import Message
from nbrun.jupyter.trace import LARGEST_BUFFER, LONGEST_BODY, LONGEST_TEXT, Trace
from tests.support.transcripts import Transcript

SECRET = "corr3ct-horse-battery"
KERNEL = "k1"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "t.jsonl"


@pytest.fixture
def trace(file: Path) -> Trace:
    made = Trace(file, clock=Clock())
    made.hide([SECRET, None, ""])
    return made


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()][1:]


def message(kind: str, content: dict[str, Any], *buffers: bytes, number: int = 1, channel: str = "iopub") -> Message:
    header = {"msg_id": f"s_1_{number}", "msg_type": kind, "session": "s", "username": "somebody", "date": "d"}
    return Message(channel, header, {"msg_id": "cell", "username": "somebody"}, content, {}, buffers)


def stream(text: str, number: int = 1) -> Message:
    return message("stream", {"name": "stdout", "text": text}, number=number)


def setting(**options: Any) -> dict[str, Any]:
    ids = {"session": "ours", "kernel_session": "s", "requests_made": 0}
    return {**ids, "cells": [], "run_timeout": None, "last": None, **options}


def test_the_file_is_this_users_alone_even_if_it_was_there(file: Path, trace: Trace) -> None:
    file.parent.mkdir()
    file.write_text("an old trace")
    file.chmod(0o644)
    trace.effect(KERNEL, "ProbeKernel")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lines(file) == [{"at": 0.0, "kernel": KERNEL, "effect": "ProbeKernel"}]
    trace.close()
    trace.effect(KERNEL, "InterruptKernel")
    assert [line["effect"] for line in lines(file)] == ["ProbeKernel", "InterruptKernel"]


def test_nothing_is_created_before_the_first_line(file: Path, trace: Trace) -> None:
    trace.close()
    assert not file.exists()
    assert os.fspath(trace) == str(file)


def test_an_exchange_is_written_with_its_json_bodies_masked_and_cut(file: Path, trace: Trace) -> None:
    body = json.dumps({"name": SECRET, "more": "x" * 3 * LONGEST_BODY}).encode()
    pieces = [body[:7], memoryview(body)[7:]]
    trace.http(
        99.0, "PUT", f"api/contents/{SECRET}", sent=pieces, status=200, received=base64.b64encode(SECRET.encode())
    )
    trace.http(99.5, "GET", "api", error=f"no answer from {SECRET}")
    first, second = lines(file)
    assert (first["at"], first["http"]["path"], first["http"]["seconds"]) == (-1.0, "api/contents/***", 1.0)
    assert first["http"]["sent"].startswith('{"name": "***", "more": "xxx')
    assert len(first["http"]["sent"]) < LONGEST_BODY + 100
    assert first["http"]["received"] == "***"
    assert second["http"] == {
        "method": "GET",
        "path": "api",
        "seconds": 0.5,
        "status": None,
        "error": "no answer from ***",
    }
    assert SECRET[:8] not in file.read_text()


def test_no_part_of_a_secret_stays_before_a_cut(file: Path, trace: Trace) -> None:
    trace.http(
        99.0, "GET", "api", status=200, received=b"x" * (LONGEST_BODY - 5) + SECRET.encode() + b"y" * LONGEST_BODY
    )
    assert SECRET[:4] not in file.read_text()


def test_a_message_keeps_its_ids_and_loses_its_user(file: Path, trace: Trace) -> None:
    trace.sent(KERNEL, message("execute_request", {"code": f"x = {SECRET!r}"}, channel="shell"))
    [line] = lines(file)
    assert line["sent"]["header"] == {
        "msg_id": "s_1_1", "msg_type": "execute_request", "session": "s", "date": "d", "username": "user"
    }  # fmt: skip
    assert line["sent"]["content"] == {"code": "x = '***'"}
    assert "somebody" not in file.read_text()


def test_long_texts_and_large_buffers_are_cut_with_size_and_hash(file: Path, trace: Trace) -> None:
    content = {"data": {"image/png": "x" * (LONGEST_TEXT + 1)}, "list": ["short"]}
    small, large = b"ab" + SECRET.encode(), bytes(LARGEST_BUFFER + 1)
    trace.received(KERNEL, message("comm_msg", content, small, large))
    [line] = lines(file)
    assert f"[cut; {LONGEST_TEXT + 1} characters, sha256 " in line["received"]["content"]["data"]["image/png"]
    one, other = line["received"]["buffers"]
    assert base64.b64decode(one["base64"]) == b"ab" + b"*" * len(SECRET)
    assert (other["size"], len(other["sha256"]), "base64" in other) == (len(large), 64, False)


def test_a_secret_that_comes_in_pieces_is_in_no_line_and_texts_are_whole_again(file: Path, trace: Trace) -> None:
    trace.run(KERNEL, setting(about=SECRET, last=stream(SECRET, 0)))
    for number, text in enumerate(("a " + SECRET[:9], SECRET[9:] + " b cor", " c corr3ct"), 1):
        trace.received(KERNEL, stream(text, number))
    trace.waited("another kernel")
    trace.received(KERNEL, message("status", {"execution_state": "idle"}, number=4))
    trace.received(KERNEL, stream("late corr3", 5))
    trace.waited(KERNEL)
    trace.received(KERNEL, stream("at the end corr3", 6))
    trace.asked(KERNEL, {"interrupt": f"by {SECRET}"})
    trace.result(KERNEL, {"outcome": SECRET})
    assert SECRET[:9] + '"' not in file.read_text()
    assert not [text for text in (SECRET, SECRET[9:] + " b") if text in file.read_text()]
    [transcript] = Transcript.of_trace(file)
    received = [(each.id, each.content.get("text", "")) for each in transcript.received()]
    assert [each for each, _ in received] == [f"s_1_{number}" for number in (1, 2, 3, 4, 5, 6)]
    assert "".join(text for _, text in received) == "a *** b cor c corr3ctlate corr3at the end corr3"
    assert transcript.setting["about"] == "***"
    assert transcript.result == {"outcome": "***"}
    assert transcript.lines[-1]["asked"] == {"interrupt": "by ***"}


def test_without_anything_to_mask_messages_pass_as_they_come(file: Path) -> None:
    trace = Trace(file)
    trace.received(KERNEL, stream("text"))
    trace.release(KERNEL)
    assert lines(file)[0]["received"]["content"]["text"] == "text"


def test_a_trace_ends_at_its_limit_with_a_note(file: Path) -> None:
    trace = Trace(file, largest=1000)
    for number in range(20):
        trace.received(KERNEL, stream("x" * 100, number))
    *_, last = lines(file)
    assert last["cut"] == "the trace ends after 1000 bytes"
    assert file.stat().st_size < 2000
    assert trace.failure is None


def test_a_file_that_cannot_be_written_is_remembered(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    trace.effect(KERNEL, "ProbeKernel")
    trace.effect(KERNEL, "ProbeKernel")
    assert isinstance(trace.failure, IsADirectoryError)


def test_the_last_line_of_a_trace_may_be_cut_off(file: Path, trace: Trace) -> None:
    trace.run(KERNEL, setting())
    trace.received(KERNEL, stream("text\n"))
    file.write_text(file.read_text()[:-1])
    [transcript] = Transcript.of_trace(file)
    assert transcript.received() == []
