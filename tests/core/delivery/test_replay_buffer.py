"""What the kernel remembers of what it sent, and how it gives it again."""

from dataclasses import replace

from nbrun.core.delivery import replay_buffer
from nbrun.core.protocol.messages import Channel, Message, Requests
from tests.core.conversation import KERNEL, OURS
from tests.core.keeping import KeptKernel

PARENT = {"msg_id": f"{OURS}_1", "msg_type": "execute_request"}


def ask(kernel: KeptKernel, *numbers: tuple[int, int | None]) -> Message:
    """Ask a kernel for numbers; returns its answer."""
    kernel.replies.clear()
    kernel.answer(replay_buffer.resend(Requests(OURS), numbers))
    return kernel.replies.pop()


def texts(answer: Message) -> list[str]:
    return [str(each.content.get("text")) for each in replay_buffer.resent(answer)]


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
    assert replay_buffer.resent(ask(kernel, (1, None))) == [
        *kernel.said[:2],
        *(replace(reply, channel="shell") for reply in kernel.answered[:2]),
        *kernel.said[2:4],
    ]


def test_of_its_own_answers_it_remembers_that_there_were_some() -> None:
    kernel = KeptKernel()
    print_all(kernel, 3)
    first = ask(kernel, (1, 3))
    [again] = [each for each in replay_buffer.resent(ask(kernel, (1, None))) if each.type == replay_buffer.RESEND_REPLY]
    assert (again.id, again.content) == (first.id, {})


def test_only_what_was_asked_for_comes_as_far_as_the_kernel_has_counted() -> None:
    kernel = KeptKernel()
    print_all(kernel, 6)
    answer = ask(kernel, (2, 3), (5, 90))
    assert texts(answer) == ["2", "3", "5", "6"]
    assert {name: value for name, value in answer.content.items() if name != "messages"} == {
        "status": "ok",
        "until": 6,
        "newest": 6,
        "evicted": -1,
        "others": 0,
    }


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
    given = [int(each.id.rpartition("_")[2]) for each in replay_buffer.resent(answer)]
    assert given == [2, 3, *range(answer.content["evicted"] + 1, 24)]  # of the replies, the last two


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


def test_an_answer_may_hold_anything() -> None:
    said = ["{", 3, '{"header": 1, "channel": "iopub", "buffers": "many"}', "[]"]
    answer = Message(Channel.CONTROL, {"session": KERNEL}, {}, {"messages": said}, buffers=(b"x",))
    assert [each.header for each in replay_buffer.resent(answer)] == [{}] * 4
    assert replay_buffer.resent(Message(Channel.CONTROL, {}, {}, {"messages": None})) == []
