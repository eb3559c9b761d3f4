"""The agent in a kernel: replay buffer, sequence numbers, conditional execution, writers."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import zmq.asyncio
from ipykernel.iostream import IOPubThread, OutStream
from jupyter_client.session import Session
from msgspec.structs import replace
from zmq.constants import SocketType
from zmq.sugar.context import Context

from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Message, Requests
from nbrun.kernel_side.agent import install
from nbrun.kernel_side.backlog import PROGRESS_CLOSED, PROGRESS_ID, PROGRESS_SIZE, Backlog, size_of
from nbrun.kernel_side.output import MOST_EVENTS, ROOM_FOR_UNSENT, QuickOutput, Senders
from nbrun.kernel_side.writers import has_unread_streams, unread_bytes, unread_streams, writers
from tests.core.conversation import OURS
from tests.core.keeping import KeptKernel

# The replay buffer ---------------------------------------------------------------------------------------------------

PARENT = {"msg_id": f"{OURS}_1", "msg_type": "execute_request"}


def ask(kernel: KeptKernel, *numbers: tuple[int, int | None]) -> Message:
    """Ask a kernel for numbers; returns its answer."""
    kernel.replies.clear()
    kernel.answer(agent.resend(Requests(OURS), numbers))
    return kernel.replies.pop()


def texts(answer: Message) -> list[str]:
    return [str(each.content.get("text")) for each in agent.resent(answer)]


def print_all(kernel: KeptKernel, count: int) -> None:
    for number in range(1, count + 1):
        kernel.publish("stream", {"text": str(number)}, PARENT)


def test_what_was_sent_comes_again_word_for_word() -> None:
    kernel = KeptKernel()
    kernel.publish("stream", {"text": 'ä "quoted" \ud83d\ude00\n'}, PARENT)
    kernel.publish("comm_msg", {"data": {}}, PARENT, memoryview(b"one"), b"two")
    kernel.session.send("shell", "execute_reply", {"status": "ok"}, {"header": PARENT})
    kernel.session.send("shell", "other_reply", {"status": "ok"}, {"header": PARENT})
    kernel.publish("display_data", {}, {}, b"three")
    assert agent.resent(ask(kernel, (1, None))) == [
        *kernel.said[:2],
        *(replace(reply, channel="shell") for reply in kernel.answered[:2]),
        *kernel.said[2:4],
    ]


def test_of_its_own_answers_it_remembers_that_there_were_some() -> None:
    kernel = KeptKernel()
    print_all(kernel, 3)
    first = ask(kernel, (1, 3))
    [again] = [each for each in agent.resent(ask(kernel, (1, None))) if each.type == agent.RESEND_REPLY]
    assert (again.id, again.content) == (first.id, {})


def test_only_what_was_asked_for_comes_as_far_as_the_kernel_has_counted() -> None:
    kernel = KeptKernel()
    print_all(kernel, 6)
    answer = ask(kernel, (2, 3), (5, 90))
    assert texts(answer) == ["2", "3", "5", "6"]
    assert {name: value for name, value in answer.content.items() if name != "messages"} == {
        "status": "ok",
        "after": [1, 2, 4, 5],
        "until": 6,
        "newest": 6,
        "evicted": -1,
        "others": 0,
    }


def test_each_message_comes_with_the_one_that_was_sent_before_it() -> None:
    kernel = KeptKernel()
    result = kernel.number("execute_result", {"text": "result"}, PARENT)
    print_all(kernel, 2)
    kernel.put_out(result)
    kernel.session.send("shell", "execute_reply", {"status": "ok"}, {"header": PARENT})
    kernel.publish("status", {}, PARENT)
    answer = ask(kernel, (1, None))
    numbers = [int(each.id.rpartition("_")[2]) for each in agent.resent(answer)]
    assert dict(zip(numbers, agent.sent_after(answer), strict=True)) == {1: 3, 2: None, 3: 2, 4: None, 5: 1}
    assert agent.sent_after(ask(kernel, (1, 1))) == [3]


def test_what_does_not_fit_into_one_answer_can_be_asked_for_again() -> None:
    kernel = KeptKernel(portion=500)
    print_all(kernel, 6)
    answer = ask(kernel, (1, 6))
    assert texts(answer) == ["1", "2", "3"]
    assert answer.content["until"] == 3
    kernel.publish("stream", {"text": "x" * 1000}, PARENT)
    assert texts(ask(kernel, (4, 5))) == ["4", "5"]
    large = next(number for number in range(7, 20) if texts(ask(kernel, (number, number))) == ["x" * 1000])
    assert texts(ask(kernel, (large, None)))[0] == "x" * 1000


def test_the_ring_forgets_what_is_oldest_and_says_so() -> None:
    kernel = KeptKernel(room=3000, last_replies=2)
    for _ in range(3):
        kernel.session.send("shell", "execute_reply", {"status": "ok"}, {"header": PARENT})
    print_all(kernel, 20)
    answer = ask(kernel, (1, None))
    assert answer.content["evicted"] > 10
    given = [int(each.id.rpartition("_")[2]) for each in agent.resent(answer)]
    assert given == [2, 3, *range(answer.content["evicted"] + 1, 24)]  # of the replies, the last two


@pytest.mark.parametrize("is_slow", [False, True])
def test_output_that_is_not_sent_yet_is_not_called_unavailable(is_slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = KeptKernel()
    print_all(kernel, 3)
    output = kernel.number("stream", {"text": "4"}, PARENT)

    def reply(work: Callable[[], object]) -> None:
        if not is_slow:
            work()
        if len(kernel.answered) == 0:
            kernel.session.send("shell", "execute_reply", {"status": "ok"}, {"header": PARENT})

    monkeypatch.setattr("nbrun.kernel_side.output.FORGET_LIMIT", 0)
    monkeypatch.setattr(kernel.iopub_thread, "schedule", reply)
    answer = ask(kernel, (2, None))
    assert (texts(answer), answer.content["until"], answer.content["newest"]) == (["2", "3"], 3, 3)
    kernel.put_out(output)
    assert texts(ask(kernel, (4, 4))) == ["4"]


def test_what_a_client_asks_for_is_stored_beyond_the_usual_size(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = KeptKernel(room=3000)
    print_all(kernel, 3)
    assert ask(kernel, (3, None)).content["evicted"] == -1
    print_all(kernel, 20)
    answer = ask(kernel, (3, None))
    assert answer.content["evicted"] == 2  # the client has the first two
    newest = answer.content["newest"]
    assert len(agent.resent(ask(kernel, (newest - 1, None)))) == 3  # with the answer to this request before
    assert ask(kernel, (3, None)).content["evicted"] > 10  # the client has them
    print_all(kernel, 200)
    evicted = ask(kernel, (0, None)).content["evicted"]
    assert newest < evicted < newest + 200  # eight times the usual size at most
    monkeypatch.setattr("nbrun.kernel_side.replay.ASKED_FOR", -1)
    print_all(kernel, 1)
    assert len(agent.resent(ask(kernel, (0, None)))) < 20


def test_a_kernel_knows_whether_the_client_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = KeptKernel(room=10_000)

    def is_behind() -> bool:
        assert kernel.agent.replay is not None
        return kernel.agent.replay.is_behind

    print_all(kernel, 12)
    ask(kernel, (1, None))
    assert not is_behind()  # little is stored
    print_all(kernel, 30)
    assert is_behind()
    with monkeypatch.context() as patched:
        patched.setattr("nbrun.kernel_side.replay.WAIT_FOR_CLIENT", -1)
        assert not is_behind()
    ask(kernel, (40, None))
    assert not is_behind()  # it has the others


def test_what_bears_no_number_of_the_kernels_own_is_counted_only() -> None:
    kernel = KeptKernel()
    kernel.pid += 1  # what a forked child hands to its parent
    print_all(kernel, 2)
    kernel.pid -= 1
    kernel.iopub_thread._really_send([b"<IDS|MSG>", b"", b'{"msg_id":"other"}', b"{}", b"{}", b"{}", b"{}"][:7])
    answer = ask(kernel, (1, None))
    assert texts(answer) == []
    assert answer.content["others"] == 3


def test_what_cannot_be_kept_is_sent_all_the_same() -> None:
    kernel = KeptKernel()
    kernel.iopub_thread._really_send([b"topic", b"no delimiter", b"", b"{}", b"{}", b"{}", b"{}"])
    sent = kernel.session.send("shell", "execute_reply", {"not JSON": {1}}, {"header": PARENT})
    assert (len(kernel.said), sent["content"]) == (1, {"not JSON": {1}})
    assert texts(ask(kernel, (1, None))) == []


def test_no_status_is_published_for_a_question() -> None:
    kernel = KeptKernel()
    kernel.run_cell(0)
    ask(kernel, (1, None))
    assert [each.content.get("execution_state") for each in kernel.said] == ["busy", "idle"]


# Numbers without a message -------------------------------------------------------------------------------------------


@pytest.fixture
def session() -> Session:
    """A session that has sent three messages before the agent was installed."""
    session = Session()
    for _ in range(3):
        session.send(None, "stream")
    return session


@pytest.fixture
def kernel(session: Session) -> "SmallKernel":
    """A kernel with the agent, and that session."""
    return SmallKernel(session)


class SmallKernel:
    """What the agent uses of ipykernel, as plain values; replies are kept."""

    def __init__(self, session: Any = None, **without: None) -> None:
        self.session = Session() if session is None else session
        self.replies: list[Any] = []
        self.executed: list[str] = []
        self.forgetting: list[Any] = []
        self.options: list[tuple[int, int]] = []
        self.status = "ok"
        self.payload: list[dict[str, Any]] = []
        self.shell_handlers: dict[str, Any] = {}
        self.control_handlers: dict[str, Any] = {}
        self.shell: Any = SimpleNamespace(
            events=SimpleNamespace(register=lambda _, work: self.forgetting.append(work)), _last_traceback=["old"]
        )
        self.sent: list[tuple[str, str, str]] = []
        self.parents: list[str] = []
        self.hooks: list[str] = []
        self.failing: set[str] = set()
        self.beside: dict[str, Any] = {}
        self.logged = 0
        self.eventloop: Any = None
        self.log = SimpleNamespace(exception=self._log)
        self.comm_manager = SimpleNamespace(comms={})
        socket = SimpleNamespace(setsockopt=lambda *option: self.options.append(option))
        self.iopub_thread = SimpleNamespace(
            schedule=lambda work: work(),
            socket=socket,
            thread=SimpleNamespace(is_alive=lambda: False),
            io_loop=SimpleNamespace(add_callback=None),
            _really_send=lambda _: None,
        )
        vars(self).update(without)
        self.agent = install(self, {})
        self._send, self.session.send = self.session.send, self._keep

    def _log(self, _: str) -> None:
        self.logged += 1

    def set_parent(self, ident: bytes, parent: Any) -> None:
        self.parents.append(parent["header"]["msg_id"])

    def _publish_status(self, state: str, channel: str) -> None:
        self.sent.append(("status", state, self.parents[-1]))

    def pre_handler_hook(self) -> None:
        self.hooks.append("before")

    def post_handler_hook(self) -> None:
        self.hooks.append("after")

    def _keep(self, stream: Any, msg_or_type: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(msg_or_type, str) and msg_or_type.endswith("_reply"):
            self.replies.append(content)
            parent = args[0].get("header", {}) if args else {}
            self.sent.append((msg_or_type, str(content.get("status")), parent.get("msg_id", "")))
        return self._send(None, msg_or_type, content, *args, **kwargs)

    def finish_metadata(self, parent: Any, metadata: Any, content: Any) -> Any:
        return metadata

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        self.executed.append(code := parent["content"]["code"])
        if code in self.beside:
            self.beside[code]()
        content = {"status": "error" if code in self.failing else self.status, "payload": self.payload}
        self.finish_metadata(parent, {}, content)
        self.session.send(stream, "execute_reply", content, parent, ident=ident)

    def ask(self, kind: str, content: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        """Handle a request; returns the content of the reply."""
        header = {"msg_id": str(content.get("code")), "msg_type": kind}
        request = {"header": header, "content": content, "metadata": metadata}

        async def handle() -> None:
            result = (self.shell_handlers | self.control_handlers)[kind](None, b"", request)
            if result is not None:
                await result

        asyncio.run(handle())
        reply: dict[str, Any] = self.replies[-1]
        return reply

    def execute(self, code: str, after: str | None = None) -> str:
        """Execute on a condition; returns the status of the reply."""
        metadata = {} if after is None else {"nbrun_after": after}
        return str(self.ask("nbrun_execute_request", {"code": code}, **metadata)["status"])

    def execute_list(self, *codes: str, after: str | None = None, limit: float | None = None) -> None:
        """Execute a list of cells, of which each follows the one before it."""
        behind: tuple[str | None, ...] = (after, *codes)
        cells = [
            {
                "header": {"msg_id": code, "msg_type": "nbrun_execute_request"},
                "content": {"code": code},
                "metadata": {} if before is None else {"nbrun_after": before},
            }
            for code, before in zip(codes, behind, strict=False)
        ]
        request = {"header": {"msg_id": "list", "date": "now"}, "content": {"cells": cells, "limit": limit}}
        asyncio.run(self.shell_handlers["nbrun_execute_list_request"](None, b"", request))


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


def test_what_a_cell_wrote_to_a_descriptor_is_read_before_the_next_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SmallKernel()
    amounts = iter([4, 4, 0])
    flushed: list[list[str]] = []
    stream = SimpleNamespace(
        watch_fd_thread=True, _flush_pending=True, flush=lambda: flushed.append([*kernel.executed])
    )
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", SimpleNamespace(_flush_pending=False))
    monkeypatch.setattr("nbrun.kernel_side.writers.unread_bytes", lambda _: next(amounts))
    kernel.execute_list("a", "b")
    assert flushed == [["a"], ["a"]]
    assert next(amounts, None) is None
    assert not has_unread_streams()  # no number is left: as on a system without such pipes


# Who can still write? ------------------------------------------------------------------------------------------------


def test_a_drain_request_names_the_numbers_that_were_not_sent(kernel: SmallKernel, session: Session) -> None:
    for _ in range(5):
        session.msg("execute_result")
        session.send(None, "status")
    answer = kernel.ask("nbrun_drain_request", {"of": [(3, 6), (8, 8)]})
    assert answer["unsent"] == [3, 5]


def test_without_an_answer_there_may_be_writers(kernel: SmallKernel, session: Session) -> None:
    session.msg("execute_result")
    session.send(None, "status")
    answer = kernel.ask("nbrun_drain_request", {})
    assert (answer["writers"], "KeyError" in answer["error"]) == (True, True)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_threads_tasks_timers_and_children_may_write() -> None:
    before = [*writers()]
    loop, done = asyncio.get_running_loop(), threading.Event()
    timer = loop.call_later(1000, done.set)
    assert timer in writers()
    timer.cancel()
    (thread := threading.Thread(target=done.wait)).start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = [*writers()]
    done.set()
    thread.join()
    child.communicate(b"\n")
    assert thread in found
    assert str(child.pid) in found
    assert thread not in before


@pytest.mark.skipif(sys.platform != "linux", reason="counts what waits in a pipe")
def test_a_pipe_that_is_not_emptied_has_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"text")
    assert unread_bytes(reading) == 4
    monkeypatch.setattr("nbrun.kernel_side.writers.unread_bytes", lambda descriptor: int(descriptor == 2))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(watch_fd_thread=True))
    monkeypatch.setattr("sys.stderr", SimpleNamespace(watch_fd_thread=True))
    assert [*unread_streams()] == [2]
    os.close(reading)
    os.close(writing)


# The handshake -------------------------------------------------------------------------------------------------------


def test_hello_names_what_the_agent_can_do_and_applies_options(kernel: SmallKernel) -> None:
    every = {"unsent", "conditional", "once", "list", "traceback", "writers", "quick"}
    answer = kernel.ask("nbrun_hello_request", {})
    assert ({*answer["abilities"]}, answer["missing"]) == (every, {})
    options = {"replay": 1000, "lift_limits": True, "quiet": True}
    for _ in range(2):
        answer = kernel.ask("nbrun_hello_request", options)
        assert ({*answer["abilities"]}, answer["missing"]) == (every | {"replay", "lift_limits", "quiet"}, {})
        assert len(answer["abilities"]) == len(every) + 3
    assert kernel.options == [(23, 0)] * 2


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("iopub_thread", {"conditional", "once", "list", "replay", "lift_limits", "quick"}),
        ("shell", {"traceback"}),
        ("comm_manager", {"conditional", "once", "list"}),
    ],
)
def test_what_a_kernel_lacks_is_reported(without: str, missing: set[str]) -> None:
    kernel = SmallKernel(**{without: None})
    answer = kernel.ask("nbrun_hello_request", {"replay": 1000, "lift_limits": True})
    assert {*answer["missing"]} == missing
    assert not missing & {*answer["abilities"]}


def test_a_kernel_has_one_agent_however_often_it_is_installed(kernel: SmallKernel) -> None:
    assert install(kernel, {"lift_limits": True}) is kernel.agent
    assert "lift_limits" in kernel.agent.abilities


def test_before_each_cell_the_last_traceback_is_forgotten(kernel: SmallKernel) -> None:
    [forget] = kernel.forgetting
    forget()
    assert kernel.shell._last_traceback is None


def test_a_quiet_kernel_writes_no_copy_to_the_log(kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(_original_stdstream_copy=writing))
    kernel.ask("nbrun_hello_request", {"quiet": True})
    os.write(writing, b"secret")
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)


def test_objects_of_a_new_kernel_are_not_collected(kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze = Mock()
    monkeypatch.setattr("gc.freeze", freeze)
    kernel.ask("nbrun_hello_request", {})
    freeze.assert_not_called()
    kernel.ask("nbrun_hello_request", {"freeze": True})
    freeze.assert_called_once_with()


def test_what_cannot_be_kept_is_sent_nevertheless(kernel: SmallKernel) -> None:
    kernel.ask("nbrun_hello_request", {"replay": 1000})
    assert kernel.agent.replay is not None
    kernel.agent.replay._session = None
    assert kernel.execute("a") == "ok"


# Output through the thread of the socket --------------------------------------------------------------------------


@pytest.fixture
def iopub() -> Iterator[Any]:
    """The thread that sends an ipykernel's output, with events handed over quickly."""
    context: Any = Context()
    thread = IOPubThread(context.socket(SocketType.PUB), session=Session())
    # A task would be left pending when the thread stops.
    vars(thread)["_run_event_pipe_gc"] = lambda: asyncio.get_running_loop().create_future()
    thread.start()
    QuickOutput(thread, Backlog(SimpleNamespace(iopub_thread=thread, session=thread.session)))
    yield thread
    thread.stop()
    thread.close()
    context.term()


def wait_for(iopub: Any) -> None:
    """Wait until the thread has handled everything so far."""
    handled = threading.Event()
    iopub.schedule(handled.set)
    assert handled.wait(10)


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
