"""The thread that sends a kernel's output, and numbers that were used without a message."""

import asyncio
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import zmq.asyncio
from ipykernel.iostream import OutStream
from jupyter_client.session import Session
from zmq.constants import SocketType

from nbrun.kernel_side.backlog import Backlog
from nbrun.kernel_side.output import MOST_EVENTS, ROOM_FOR_UNSENT, QuickOutput, Senders
from tests.kernel_side.small_kernel import SmallKernel, wait_for

# Numbers without a message -------------------------------------------------------------------------------------------


def unsent(kernel: SmallKernel) -> list[int]:
    assert kernel.agent.unsent is not None
    return [*kernel.agent.unsent.numbers]


def test_a_number_that_was_taken_and_sent_nothing_with_is_remembered_once_another_is_sent(
    kernel: SmallKernel, session: Session
) -> None:
    session.msg("execute_result")  # 3
    session.send(None, "stream")  # 4
    session.msg_header("status")  # 5
    _ = session.msg_id  # 6
    assert unsent(kernel) == [3]
    session.send(None, session.msg("display_data"))  # 7
    assert unsent(kernel) == [3, 5, 6]


def test_what_is_sent_late_is_remembered_until_then(kernel: SmallKernel, session: Session) -> None:
    late, never = session.msg("display_data"), session.msg("display_data")
    session.send(None, "status")
    assert unsent(kernel) == [3, 4]
    session.send(None, late)
    session.send(None, late)
    assert unsent(kernel) == [4]
    assert never["msg_id"].endswith("_4")


def test_what_cannot_be_written_counts_as_sent(kernel: SmallKernel, session: Session) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        session.send(None, "stream", {"text": "\ud800"})
    session.send(None, "status")
    assert unsent(kernel) == []


def test_messages_that_bear_none_of_its_numbers_are_sent_as_ever(kernel: SmallKernel, session: Session) -> None:
    process = session.msg("status")["msg_id"].rpartition("_")[0]
    for name in ("of-a-child_1_500", f"{process}_1e3", "no number", 5):
        header = {**session.msg_header("status"), "msg_id": name}
        sent = session.send(None, {"header": header, "parent_header": {}, "metadata": {}, "content": {}})
        assert sent is not None
        assert sent["header"] == header
    session.clone().send(None, "status")
    assert unsent(kernel) == []


def test_no_more_than_so_many_are_remembered_and_those_are_the_newest(kernel: SmallKernel, session: Session) -> None:
    for _ in range(2):
        session.message_count += ROOM_FOR_UNSENT - 1
        session.send(None, "status")
    session.message_count += 10**9
    session.send(None, "status")
    last = session.message_count - 1
    assert unsent(kernel) == [*range(last - ROOM_FOR_UNSENT, last)]


def test_threads_number_and_send_in_any_order(kernel: SmallKernel, session: Session) -> None:
    ready = threading.Barrier(4)

    def work() -> None:
        ready.wait()
        for _ in range(500):
            session.msg("display_data")
            session.send(None, session.msg("stream"))
            session.send(None, "stream")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.send(None, "status")
    assert len(unsent(kernel)) == 4 * 500


def test_a_kernel_that_is_told_to_exit_tells_them_in_its_reply(kernel: SmallKernel, session: Session) -> None:
    session.msg("execute_result")  # 3
    left, stays = (
        session.send(None, "execute_reply", {"status": "ok", "payload": [{"source": source}]})
        for source in ("ask_exit", "page")
    )
    assert left is not None
    assert stays is not None
    assert (left["metadata"], stays["metadata"]) == ({"nbrun_unsent": [3]}, {})


# Output through the thread of the socket --------------------------------------------------------------------------


def test_events_of_several_threads_are_handled_in_the_order_of_each(iopub: Any) -> None:
    seen: list[tuple[int, int]] = []

    def schedule(name: int) -> None:
        for number in range(2 * MOST_EVENTS):
            iopub.schedule(partial(seen.append, (name, number)))

    threads = [threading.Thread(target=schedule, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(iopub)
    assert sorted(seen) == [(name, number) for name in range(3) for number in range(2 * MOST_EVENTS)]
    assert all([number for name, number in seen if name == one] == [*range(2 * MOST_EVENTS)] for one in range(3))


def test_an_event_may_schedule_another_one_and_an_error_does_not_stop_the_others(iopub: Any) -> None:
    seen: list[str] = []

    def fail() -> None:
        raise ValueError

    iopub.schedule(lambda: iopub.schedule(lambda: seen.append("inner")))
    iopub.schedule(fail)
    iopub.schedule(lambda: seen.append("outer"))
    wait_for(iopub)
    wait_for(iopub)
    assert sorted(seen) == ["inner", "outer"]


def test_many_events_wake_the_thread_once(iopub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held, go_on = threading.Event(), threading.Event()
    iopub.schedule(held.set)
    iopub.schedule(partial(go_on.wait, 10))
    assert held.wait(10)
    wake = Mock(wraps=iopub.io_loop.add_callback)
    monkeypatch.setattr(iopub.io_loop, "add_callback", wake)
    for _ in range(100):
        iopub.schedule(int)
    assert wake.call_count <= 1
    go_on.set()
    wait_for(iopub)


@pytest.mark.parametrize("is_woken", [True, False])
def test_an_interrupt_between_the_steps_of_a_wake_up_loses_no_event(
    iopub: Any, monkeypatch: pytest.MonkeyPatch, *, is_woken: bool
) -> None:
    seen: list[int] = []
    add = iopub.io_loop.add_callback

    def interrupted(*call: Any) -> None:
        if is_woken:
            add(*call)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(iopub.io_loop, "add_callback", interrupted)
        with pytest.raises(KeyboardInterrupt):
            iopub.schedule(lambda: seen.append(1))
    wait_for(iopub)
    assert seen == [1]


def test_a_thread_that_has_ended_handles_events_where_they_are_scheduled(iopub: Any) -> None:
    iopub.stop()
    seen: list[int] = []
    iopub.schedule(lambda: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()]


def test_a_stream_is_flushed_only_if_something_was_written(iopub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = OutStream(iopub.session, iopub, "stdout", watchfd=False)
    monkeypatch.setattr("sys.stdout", stream)
    QuickOutput(iopub, Backlog(SimpleNamespace(iopub_thread=iopub, session=iopub.session)))
    sent: list[str] = []
    monkeypatch.setattr(iopub.session, "send", lambda _, message, **__: sent.append(message["content"]["text"]))
    monkeypatch.setattr(iopub, "schedule", Mock(wraps=iopub.schedule))
    stream.flush()
    assert not iopub.schedule.called
    stream.write("a")
    stream.flush()
    assert sent == ["a"]
    iopub.schedule.reset_mock()
    stream.flush()
    assert not iopub.schedule.called


def test_a_flush_waits_for_one_that_the_thread_has_begun(iopub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = OutStream(iopub.session, iopub, "stdout", watchfd=False)
    monkeypatch.setattr("sys.stdout", stream)
    QuickOutput(iopub, Backlog(SimpleNamespace(iopub_thread=iopub, session=iopub.session)))
    sending, go_on = threading.Event(), threading.Event()
    sent: list[str] = []

    def send(_: Any, message: Any, **__: Any) -> None:
        sending.set()
        assert go_on.wait(10)
        sent.append(message["content"]["text"])

    monkeypatch.setattr(iopub.session, "send", send)
    stream.write("a")
    iopub.schedule(stream._flush)
    assert sending.wait(10)
    threading.Timer(0.05, go_on.set).start()
    stream.flush()
    assert sent == ["a"]


KILLED_AFTER_SENDING = """
import os, sys, zmq
from nbrun.kernel_side.output import Senders
socket = zmq.Context().socket(zmq.PUSH)
socket.connect(sys.argv[1])
socket.send(b"first")
sys.stdin.readline()
senders = Senders()
for number in range(100):
    socket.send(b"%d" % number + bytes(300))
senders.wait()
os.kill(os.getpid(), 9)
"""


async def test_messages_are_written_before_the_next_cell_can_kill_the_kernel(tmp_path: Path) -> None:
    with zmq.asyncio.Context() as context, context.socket(SocketType.PULL) as received:
        received.bind(f"ipc://{tmp_path}/socket")
        command = [sys.executable, "-c", KILLED_AFTER_SENDING, f"ipc://{tmp_path}/socket"]
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        async with asyncio.timeout(20):
            assert await received.recv() == b"first"
            await process.communicate(b"\n")
            assert [int((await received.recv())[:-300]) for _ in range(100)] == [*range(100)]


def test_senders_of_which_nothing_is_known_get_half_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    senders = Senders()
    senders._states = [os.open(os.devnull, os.O_RDONLY)]
    senders.wait()
    os.close(*senders._states)
    senders.wait()
    assert pauses == [0.0005, 0.0005]


def test_a_quiet_kernel_writes_no_copy_to_the_log(kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(_original_stdstream_copy=writing))
    kernel.ask("nbrun_hello_request", {"quiet": True})
    os.write(writing, b"secret")
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)
