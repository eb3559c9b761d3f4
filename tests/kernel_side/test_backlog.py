"""A cell waits for the client, and the memory in which the client reports what it has received."""

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from ipykernel.iostream import OutStream

from nbrun.kernel_side.backlog import PROGRESS_CLOSED, PROGRESS_ID, PROGRESS_SIZE, Backlog, size_of
from nbrun.kernel_side.output import QuickOutput
from tests.kernel_side.small_kernel import SmallKernel, wait_for


class Waiting:
    """What is done while the code of a cell waits, instead of a pause."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pauses = 0
        self.now = 0.0
        self.act: Callable[[], object] = lambda: None
        monkeypatch.setattr(
            "nbrun.kernel_side.backlog.time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._pause)
        )

    def _pause(self, _: float) -> None:
        self.pauses += 1
        self.now += 0.01
        time.sleep(0.001)
        self.act()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    for name, value in {"BACKLOG": 5000, "MARK": 100, "LARGEST_UNSENT": 1000, "PATIENCE": 10.0}.items():
        monkeypatch.setattr(f"nbrun.kernel_side.backlog.{name}", value)
    monkeypatch.setattr("nbrun.kernel_side.output.LARGEST_UNSENT", 1000)
    return Waiting(monkeypatch)


class Output:
    """The standard output of a kernel, and how far its client has read."""

    def __init__(self, iopub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.iopub = iopub
        self.stream = OutStream(iopub.session, iopub, "stdout", watchfd=False)
        self.stream.set_parent({})
        self.client = cast("Any", SimpleNamespace(received=1))
        self.backlog = Backlog(SimpleNamespace(iopub_thread=iopub, session=iopub.session))
        self.backlog.progress = self.client
        iopub.session.message_count = 2
        monkeypatch.setattr("sys.stdout", self.stream)
        QuickOutput(iopub, self.backlog)

    def print(self, length: int, times: int = 1) -> None:
        for _ in range(times):
            self.stream.write("x" * length)
            self.stream.flush()
            wait_for(self.iopub)

    def read_all(self) -> None:
        wait_for(self.iopub)
        self.client.received = self.iopub.session.message_count


@pytest.fixture
def output(iopub: Any, monkeypatch: pytest.MonkeyPatch, waiting: Waiting) -> Output:
    assert waiting.pauses == 0
    return Output(iopub, monkeypatch)


def test_a_cell_waits_until_the_client_has_read_enough(output: Output, waiting: Waiting) -> None:
    output.print(3000, 2)
    assert waiting.pauses == 0
    waiting.act = lambda: waiting.pauses == 3 and output.read_all()  # type: ignore[func-returns-value]
    output.print(1)
    pauses = waiting.pauses
    assert pauses >= 3
    output.print(3000)
    assert waiting.pauses == pauses


def test_a_cell_does_not_wait_for_a_client_that_does_not_say_what_it_has_read(output: Output, waiting: Waiting) -> None:
    output.client.received = 0
    output.print(3000, 10)
    output.backlog.progress = None
    output.print(3000, 10)
    wait_for(output.iopub)
    assert waiting.pauses == 0
    output.client.received, output.backlog.progress = 1, output.client
    waiting.act = lambda: setattr(output.client, "received", 0)  # the run has ended
    output.print(3000, 10)
    assert waiting.pauses > 0


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_after_a_wait_in_vain_a_cell_may_write_as_much_again(
    output: Output, waiting: Waiting, *, is_interrupted: bool
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    output.print(3000, 2)
    if is_interrupted:
        waiting.act = interrupt
        with pytest.raises(KeyboardInterrupt):
            output.print(1)
    else:
        waiting.act = lambda: setattr(waiting, "now", 11.0)
        output.print(1)
    pauses = waiting.pauses
    assert pauses == 1
    output.print(4000)
    assert waiting.pauses == pauses
    output.print(3000)
    waiting.act = output.read_all
    output.print(1)
    assert waiting.pauses > pauses


def test_a_thread_of_a_socket_does_not_wait(output: Output, waiting: Waiting) -> None:
    output.print(3000, 2)
    assert output.backlog.is_large
    output.iopub.schedule(output.backlog.wait)
    wait_for(output.iopub)
    output.iopub.stop()
    output.backlog.wait()
    output.iopub.send_multipart([b"x" * 3000])
    assert waiting.pauses == 0


def test_text_that_is_long_is_sent_before_more_is_written(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(
        output.iopub.session, "send", lambda _, message, **__: sent.append(len(message["content"]["text"]))
    )
    for _ in range(25):
        output.stream.write("x" * 101)
    assert sent == [1010, 1010]


def test_large_messages_are_sent_before_more_are_handed_over(output: Output) -> None:
    go_on = threading.Event()
    output.iopub.schedule(partial(go_on.wait, 10))
    output.iopub.send_multipart([b"x" * 600])
    threading.Timer(0.05, go_on.set).start()
    assert not go_on.is_set()
    output.iopub.send_multipart([b"x" * 600])
    assert go_on.is_set()


def test_buffers_count_in_bytes() -> None:
    assert size_of([b"12", memoryview(bytes(80)).cast("d", [5, 2])]) == 82


@pytest.mark.parametrize(("kind", "waits"), [("display_data", True), ("comm_msg", True), ("error", False)])
def test_only_output_of_cells_waits(
    kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch, kind: str, *, waits: bool
) -> None:
    waited = Mock()
    monkeypatch.setattr(kernel.agent.backlog, "wait", waited)
    for message in (kind, kernel.session.msg(kind, {})):
        kernel.agent.backlog.is_large = True
        kernel.session.send(None, message, {})
    assert waited.call_count == (2 if waits else 0)


# The memory of the progress ------------------------------------------------------------------------------------------


def memory(name: str) -> tuple[int, dict[str, Any]]:
    descriptor = os.memfd_create(name)
    os.ftruncate(descriptor, PROGRESS_SIZE)
    return descriptor, {"path": f"/proc/self/fd/{descriptor}", "name": name}


@pytest.mark.skipif(sys.platform != "linux", reason="memory without a file")
def test_the_kernel_records_what_it_starts_and_starts_nothing_once_the_record_is_closed() -> None:
    kernel = SmallKernel()
    descriptor, address = memory("nbrun-x")
    assert "progress" in kernel.ask("nbrun_hello_request", {"progress": address})["abilities"]
    assert os.pread(descriptor, 2, 0) == b"\0\1"
    kernel.beside["b"] = lambda: os.pwrite(descriptor, b"\1", PROGRESS_CLOSED)
    kernel.execute_list("first", "b", "c")
    assert kernel.executed == ["first", "b"]
    assert os.pread(descriptor, PROGRESS_SIZE, PROGRESS_ID).rstrip(b"\0") in (b"b", b"c")
    assert kernel.execute("d") == "aborted"
    os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="memory without a file")
def test_memory_with_another_name_is_not_the_clients() -> None:
    descriptor, address = memory("nbrun-x")
    answer = SmallKernel().ask("nbrun_hello_request", {"progress": {**address, "name": "nbrun-y"}})
    assert "another system" in answer["missing"]["progress"]
    assert os.pread(descriptor, 2, 0) == b"\0\0"
    os.close(descriptor)
