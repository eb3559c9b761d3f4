"""The replay buffer of a kernel: messages that are sent again, by their numbers."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import Message, Requests
from tests.core.conversation import OURS
from tests.core.keeping import KeptKernel
from tests.kernel_side.small_kernel import SmallKernel

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


def test_what_cannot_be_kept_is_sent_nevertheless(kernel: SmallKernel) -> None:
    kernel.ask("nbrun_hello_request", {"replay": 1000})
    assert kernel.agent.replay is not None
    kernel.agent.replay._session = None
    assert kernel.execute("a") == "ok"
