"""Cells that are executed on conditions and in lists."""

import asyncio
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from nbrun.kernel_side.agent import install
from nbrun.kernel_side.background_tasks import has_unread_streams
from tests.kernel_side.small_kernel import SmallKernel

# Executing on conditions ---------------------------------------------------------------------------------------------


def test_a_cell_is_executed_only_behind_one_that_passed() -> None:
    kernel = SmallKernel()
    assert [kernel.execute("a"), kernel.execute("b", "a")] == ["ok", "ok"]
    kernel.status = "error"
    assert [kernel.execute("c", "b"), kernel.execute("d", "c"), kernel.execute("e")] == ["error", "aborted", "error"]
    assert kernel.executed == ["a", "b", "c", "e"]


@pytest.mark.parametrize("what", ["exit", "comm"])
def test_nothing_is_executed_behind_a_cell_that_exits_or_opens_a_comm(what: str) -> None:
    kernel = SmallKernel()
    if what == "exit":
        kernel.payload = [{"source": "ask_exit"}]
    else:
        kernel.comm_manager.comms["x"] = object()
    assert [kernel.execute("a"), kernel.execute("b", "a")] == ["ok", "aborted"]


def test_a_recall_stops_what_is_behind_a_cell_and_says_how_far_that_is() -> None:
    kernel = SmallKernel()
    kernel.execute("a")
    assert kernel.ask("nbrun_recall_request", {"request": "a"})["state"] == "ended"
    assert kernel.ask("nbrun_recall_request", {"request": "b"})["state"] == "unknown"
    assert [kernel.execute("b"), kernel.execute("c", "a")] == ["aborted", "aborted"]


def test_a_recalled_request_that_has_not_arrived_is_refused_however_late_it_comes() -> None:
    kernel = SmallKernel()
    assert kernel.ask("execute_request", {"code": "a"})["status"] == "ok"
    states = [kernel.ask("nbrun_recall_request", {"request": name})["state"] for name in "abc"]
    assert states == ["ended", "unknown", "unknown"]
    assert kernel.ask("execute_request", {"code": "b"})["status"] == "aborted"
    assert kernel.execute("c") == "aborted"
    assert kernel.ask("execute_request", {"code": "d"})["status"] == "ok"
    assert kernel.ask("nbrun_recall_request", {"request": "b"})["state"] == "unknown"
    assert kernel.executed == ["a", "d"]


@pytest.mark.parametrize("version", ["6", "7.0", "7.4"])
def test_replies_are_sent_through_the_stream_that_reads_requests(version: str) -> None:
    manager = SimpleNamespace(_shell_socket="socket") if version == "7.0" else SimpleNamespace()
    thread = {} if version == "6" else {"shell_channel_thread": SimpleNamespace(manager=manager)}
    kernel = SmallKernel(shell_stream="stream", **thread)
    assert "conditional" in kernel.agent.abilities
    assert vars(manager) == ({"_shell_socket": "stream"} if version == "7.0" else {})


# Lists ---------------------------------------------------------------------------------------------------------------


def messages_of(kernel: SmallKernel) -> list[str]:
    """Return what a kernel sent in short: its type, and the request that it names."""
    return [f"{kind} {state} {parent}".replace("  ", " ") for kind, state, parent in kernel.sent]


def test_each_cell_of_a_list_is_framed_like_a_request_of_its_own() -> None:
    kernel = SmallKernel()
    kernel.execute_list("a", "b")
    assert messages_of(kernel) == [
        "status busy a",
        "execute_reply ok a",
        "status idle a",
        "status busy b",
        "execute_reply ok b",
    ]  # the idle of the last cell is the kernel's own, as is the list's busy, which is not sent
    assert kernel.parents == ["a", "b"]
    assert kernel.hooks == ["after", "before", "after", "before", "after"]


def test_a_list_ends_with_the_first_cell_that_is_refused() -> None:
    kernel = SmallKernel()
    kernel.failing = {"b"}
    kernel.execute_list("a", "b", "c", "d")
    assert kernel.executed == ["a", "b"]
    assert messages_of(kernel)[-3:] == ["status idle b", "status busy c", "execute_reply aborted c"]
    kernel.execute_list("d", after="c")
    assert kernel.executed == ["a", "b"]


def test_a_cell_that_was_sent_ahead_waits_for_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SmallKernel()
    assert kernel.agent.conditional is not None
    looks: list[list[str]] = []

    class Buffer:
        @property
        def is_behind(self) -> bool:
            looks.append([*kernel.executed])
            return len(looks) % 3 != 0

    monkeypatch.setattr(kernel.agent.conditional, "replay", Buffer())
    kernel.execute_list("a", "b")
    kernel.execute("c", after="b")
    assert kernel.executed == ["a", "b", "c"]
    assert looks == [["a"]] * 3 + [["a", "b"]] * 3


def test_a_list_behind_a_request_that_this_kernel_does_not_know_is_refused() -> None:
    kernel = SmallKernel()
    kernel.execute_list("b", "c", after="of the kernel before a restart")
    assert (kernel.executed, kernel.replies[-1]["status"]) == ([], "aborted")


def test_a_recall_stops_a_list() -> None:
    kernel = SmallKernel()
    conditional = kernel.agent.conditional
    assert conditional is not None
    kernel.beside["b"] = lambda: conditional.recall(None, b"", {"header": {}, "content": {"request": "b"}})
    kernel.execute_list("a", "b", "c")
    assert kernel.executed == ["a", "b"]


def test_no_cell_of_a_list_begins_behind_its_limit() -> None:
    kernel = SmallKernel()
    kernel.execute_list("a", "b", limit=0)
    assert kernel.executed == ["a"]
    assert messages_of(kernel)[-1] == "execute_reply aborted b"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_kernels_own_code_ends_a_list(error: type[BaseException]) -> None:
    kernel = SmallKernel()

    def fail() -> None:
        raise error

    kernel.beside["a"] = fail
    kernel.execute_list("a", "b", "c")
    assert kernel.executed == ["a"]
    assert messages_of(kernel)[-2:] == ["status busy b", "execute_reply aborted b"]
    assert kernel.logged == 1


def test_between_the_cells_of_a_list_the_event_loop_has_its_turn() -> None:
    kernel = SmallKernel()
    seen: list[list[str]] = []
    kernel.beside["a"] = lambda: asyncio.get_running_loop().call_soon(lambda: seen.append([*kernel.executed]))
    kernel.execute_list("a", "b")
    assert seen == [["a"]]


@pytest.mark.parametrize("kind", ["task", "timer", "thread"])
def test_what_the_user_runs_beside_a_list_goes_on_between_its_cells(kind: str) -> None:
    kernel = SmallKernel()
    seen: list[list[str]] = []

    async def work() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        seen.append([*kernel.executed])

    def wait() -> None:
        seen.append([*kernel.executed])
        done.wait(10)

    def start() -> None:
        if kind == "task":
            tasks.append(asyncio.ensure_future(work()))
        elif kind == "timer":
            asyncio.get_running_loop().call_later(0.001, lambda: seen.append([*kernel.executed]))
        else:
            threading.Thread(target=wait).start()

    tasks: list[Any] = []
    done = threading.Event()
    kernel.beside["a"] = start
    kernel.execute_list("a", "b")
    done.set()
    assert seen == [["a"]]


def test_the_event_loop_of_a_user_interface_ends_a_list_and_runs_before_the_next_request() -> None:
    kernel = SmallKernel()
    kernel.beside["b"] = lambda: setattr(kernel, "eventloop", object())
    kernel.execute_list("a", "b", "c")
    assert kernel.executed == ["a", "b"]
    assert messages_of(kernel)[-1] == "execute_reply aborted c"


def test_a_kernel_does_not_pause_before_the_replies_of_a_list() -> None:
    kernel = SmallKernel()
    kernel._execute_sleep = 0.5  # type: ignore[attr-defined]
    pauses: list[float] = []
    kernel.beside["a"] = kernel.beside["b"] = lambda: pauses.append(kernel._execute_sleep)  # type: ignore[attr-defined]
    kernel.execute_list("a", "b")
    assert (pauses, kernel._execute_sleep) == ([0, 0], 0.5)  # type: ignore[attr-defined]


def test_the_history_is_written_once_a_second_during_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, now, sizes = SmallKernel(), [0.0], []
    monkeypatch.setattr("nbrun.kernel_side.execution.time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    written: list[int] = []
    flag = SimpleNamespace(set=lambda: written.append(len(kernel.executed)))
    manager = SimpleNamespace(db_cache_size=0, save_flag=flag)
    kernel.shell.history_manager = manager
    install(kernel, {})
    kernel.agent._execute_on_conditions()
    kernel.agent.conditional.offer_lists()  # type: ignore[union-attr]

    def pass_time() -> None:
        now[0] += 0.6
        sizes.append(manager.db_cache_size)

    kernel.beside = dict.fromkeys("abcde", pass_time)
    kernel.execute_list(*"abcde")
    assert written == [1, 3, 5]
    assert (sizes, manager.db_cache_size) == ([sys.maxsize] * 5, 0)


def test_a_cell_has_ended_before_its_reply_is_sent() -> None:
    kernel = SmallKernel()
    states: list[str] = []
    parent = {"header": {"msg_id": "of a client"}, "content": {"request": "a"}}

    def finish(_: Any, metadata: Any, __: Any) -> Any:
        kernel.control_handlers["nbrun_recall_request"](None, b"", parent)
        states.append(kernel.replies.pop()["state"])
        return metadata

    vars(kernel.agent.conditional)["_finish_metadata"] = finish
    kernel.execute("a")
    assert states == ["ended"]


def test_what_a_cell_wrote_to_a_descriptor_is_read_before_the_next_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SmallKernel()
    amounts = iter([4, 4, 0])
    flushed: list[list[str]] = []
    stream = SimpleNamespace(
        watch_fd_thread=True, _flush_pending=True, flush=lambda: flushed.append([*kernel.executed])
    )
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", SimpleNamespace(_flush_pending=False))
    monkeypatch.setattr("nbrun.kernel_side.background_tasks.unread_bytes", lambda _: next(amounts))
    kernel.execute_list("a", "b")
    assert flushed == [["a"], ["a"]]
    assert next(amounts, None) is None
    assert not has_unread_streams()  # no number is left: as on a system without such pipes
