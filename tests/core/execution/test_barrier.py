"""A fence is a question; what matters is whether it was asked, and what answers it."""

from nbrun.core.execution.barrier import Fence
from nbrun.core.protocol.messages import Channel, Requests
from tests.core.conversation import OURS, message


def test_a_fence_is_a_kernel_info_request_on_shell() -> None:
    question = Fence().ask(Requests(OURS))
    assert (question.type, question.channel) == ("kernel_info_request", Channel.SHELL)


def test_a_fence_knows_whether_it_was_asked() -> None:
    unasked, asked = Fence(), Fence()
    asked.ask(Requests(OURS))
    assert [fence.is_asked for fence in (unasked, asked)] == [False, True]
    assert not asked.answered


def test_a_fence_knows_the_answers_to_each_time_it_was_asked_and_no_others() -> None:
    fence, requests = Fence(), Requests(OURS)
    questions = [fence.ask(requests), fence.ask(requests)]
    other = requests.kernel_info()
    answers = [message("status", parent=each.id) for each in [*questions, other]]
    assert [fence.is_answered_by(answer) for answer in answers] == [True, True, False]
    assert not fence.is_answered_by(message("status"))
