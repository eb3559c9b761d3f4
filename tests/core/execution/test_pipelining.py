"""Which cells are sent ahead, and on which condition."""

from typing import Any

from nbrun.core.execution import pipelining
from nbrun.core.execution.pipelining import CellQueue, Pipelining
from nbrun.core.planning.plan import Action, CellPlan
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Channel, Message, Requests
from tests.core.conversation import OURS, message


def queue_of(*sources: str, depth: int = 3, **options: Any) -> CellQueue:
    plans = [CellPlan(i, None, source, Action.RUN) for i, source in enumerate(sources)]
    return CellQueue(plans, Requests(OURS), Pipelining(depth, **options))


def first(cells: CellQueue) -> Message:
    plan = cells.pop_waiting()
    assert plan is not None
    return cells.request_for(plan)


def test_each_cell_that_is_sent_ahead_names_the_one_before_it() -> None:
    cells = queue_of("a", "b", "c", "d")
    leading = first(cells)
    sent = [send.message for send in cells.send_ahead()]
    assert [request.content["code"] for request in (leading, *sent)] == ["a", "b", "c"]
    assert [request.metadata for request in (leading, *sent)] == [
        {},
        {"nbrun_after": leading.id},
        {"nbrun_after": sent[0].id},
    ]
    assert {request.type for request in (leading, *sent)} == {CONDITIONAL_EXECUTE}
    assert cells.send_ahead() == []


def test_with_a_depth_of_one_the_request_is_the_standards_own_and_nothing_goes_ahead() -> None:
    cells = queue_of("a", "b", depth=1)
    assert first(cells).type == "execute_request"
    assert cells.send_ahead() == []
    assert not cells.has_ahead


def test_a_list_carries_the_requests_that_would_be_sent_by_themselves() -> None:
    single, lists = queue_of("a", "b", "c"), queue_of("a", "b", "c", in_lists=True, list_limit=2.0)
    assert first(lists) == first(single)
    [sent] = lists.send_ahead()
    requests = [send.message for send in single.send_ahead()]
    cells = [{"header": each.header, "metadata": each.metadata, "content": each.content} for each in requests]
    assert (sent.message.type, sent.message.content) == (agent.EXECUTE_LIST, {"cells": cells, "limit": 2.0})


def test_the_next_list_is_sent_when_half_of_the_cells_are_done() -> None:
    cells = queue_of(*"abcdefghi", depth=6, in_lists=True)
    first(cells)
    sizes = []
    while True:
        sizes.append([len(send.message.content["cells"]) for send in cells.send_ahead()])
        if cells.pop_ahead() is None:
            break
    assert sizes == [[5], [], [2], [], [1], [], [], [], []]
    assert cells.send_ahead() == []


def test_no_more_code_is_on_its_way_than_a_bound() -> None:
    half = "x" * (pipelining.MOST_SENT_AHEAD // 2 + 1)
    cells = queue_of("a", half, half, "d", depth=4)
    first(cells)
    assert len(cells.send_ahead()) == 1
    slot = cells.pop_ahead()
    assert slot is not None
    assert slot.plan.source == half
    assert len(cells.send_ahead()) == 2


def test_cells_that_are_taken_back_wait_again_in_their_order() -> None:
    cells = queue_of("a", "b", "c", "d")
    first(cells)
    cells.send_ahead()
    assert [slot.plan.source for slot in cells.take_back()] == ["b", "c"]
    assert not cells.has_ahead
    waiting = [cells.pop_waiting() for _ in range(4)]
    assert [plan and plan.source for plan in waiting] == ["b", "c", "d", None]


def test_what_comes_for_a_cell_that_was_sent_ahead_is_held_and_tells_when_it_began() -> None:
    cells = queue_of("a", "b", "c")
    leading = first(cells)
    ahead = cells.send_ahead()[0].message
    assert not cells.hold(message("stream", parent=leading.id), 1.0)
    busy = message("status", {"execution_state": "busy"}, parent=ahead.id)
    assert cells.hold(busy, 2.0)
    began = [cells.next_began]
    echo = message("execute_input", parent=ahead.id)
    assert cells.hold(echo, 3.0)
    assert [*began, cells.next_began] == [False, True]
    slot = cells.pop_ahead()
    assert slot is not None
    assert (slot.began_at, slot.held, slot.is_doubtful) == (3.0, [(busy, 2.0), (echo, 3.0)], False)


def test_a_cell_whose_echo_was_lost_began_when_its_reply_says_that_it_ran() -> None:
    cells = queue_of("a", "b", "c")
    first(cells)
    ran, refused = (send.message.id for send in cells.send_ahead())
    cells.hold(message("execute_reply", {"status": "ok"}, parent=ran, channel=Channel.SHELL), 4.0)
    cells.hold(message("execute_reply", {"status": "aborted"}, parent=refused, channel=Channel.SHELL), 5.0)
    assert [slot.began_at for slot in cells.take_back()] == [4.0, None]


def test_after_a_cut_what_is_on_its_way_is_doubtful() -> None:
    cells = queue_of("a", "b", "c", depth=2)
    first(cells)
    cells.send_ahead()
    cells.mark_doubtful()
    slot = cells.pop_ahead()
    assert slot is not None
    assert slot.is_doubtful
    cells.send_ahead()
    after_it = cells.pop_ahead()
    assert after_it is not None
    assert not after_it.is_doubtful
    assert cells.pop_ahead() is None


def test_a_queue_that_is_closed_sends_nothing_more() -> None:
    cells = queue_of("a", "b")
    first(cells)
    cells.close()
    assert cells.send_ahead() == []
    assert cells.pop_waiting() is None
