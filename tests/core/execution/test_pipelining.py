"""Which cells are on their way, and on what condition."""

from nbrun.core.execution import guard, pipelining
from nbrun.core.execution.pipelining import Window
from nbrun.core.planning.plan import Action, CellPlan
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Channel, Message, Requests
from tests.core.conversation import OURS, message


def window_of(*sources: str, depth: int = 3) -> Window:
    return Window([CellPlan(i, None, source, Action.RUN) for i, source in enumerate(sources)], Requests(OURS), depth)


def first(cells: Window) -> Message:
    plan = cells.next_waiting()
    assert plan is not None
    return cells.ask(plan)


def test_each_cell_that_is_sent_ahead_names_the_one_before_it() -> None:
    cells = window_of("a", "b", "c", "d")
    leading = first(cells)
    sent = [send.message for send in cells.fill()]
    assert [request.content["code"] for request in (leading, *sent)] == ["a", "b", "c"]
    assert [request.metadata for request in (leading, *sent)] == [
        {},
        {"nbrun_after": leading.id},
        {"nbrun_after": sent[0].id},
    ]
    assert {request.type for request in (leading, *sent)} == {CONDITIONAL_EXECUTE}
    assert cells.fill() == []


def test_with_a_depth_of_one_the_request_is_the_standards_own_and_nothing_goes_ahead() -> None:
    cells = window_of("a", "b", depth=1)
    assert first(cells).type == "execute_request"
    assert cells.fill() == []
    assert not cells.has_ahead


def test_no_more_code_is_on_its_way_than_a_bound() -> None:
    half = "x" * (pipelining.LARGEST_FLIGHT // 2 + 1)
    cells = window_of("a", half, half, "d", depth=4)
    first(cells)
    assert len(cells.fill()) == 1
    turn = cells.next_ahead()
    assert turn is not None
    assert turn.plan.source == half
    assert len(cells.fill()) == 2


def test_cells_that_are_called_back_wait_again_in_their_order() -> None:
    cells = window_of("a", "b", "c", "d")
    first(cells)
    cells.fill()
    assert [turn.plan.source for turn in cells.call_back()] == ["b", "c"]
    assert not cells.has_ahead
    waiting = [cells.next_waiting() for _ in range(4)]
    assert [plan and plan.source for plan in waiting] == ["b", "c", "d", None]


def test_what_comes_for_a_cell_that_was_sent_ahead_is_held_and_tells_when_it_began() -> None:
    cells = window_of("a", "b", "c")
    leading = first(cells)
    ahead = cells.fill()[0].message
    assert not cells.hold(message("stream", parent=leading.id), 1.0)
    busy = message("status", {"execution_state": "busy"}, parent=ahead.id)
    assert cells.hold(busy, 2.0)
    began = [cells.next_began]
    echo = message("execute_input", parent=ahead.id)
    assert cells.hold(echo, 3.0)
    assert [*began, cells.next_began] == [False, True]
    turn = cells.next_ahead()
    assert turn is not None
    assert (turn.began_at, turn.held, turn.is_doubtful) == (3.0, [(busy, 2.0), (echo, 3.0)], False)


def test_a_cell_whose_echo_was_lost_began_when_its_reply_says_that_it_ran() -> None:
    cells = window_of("a", "b", "c")
    first(cells)
    ran, refused = (send.message.id for send in cells.fill())
    cells.hold(message("execute_reply", {"status": "ok"}, parent=ran, channel=Channel.SHELL), 4.0)
    cells.hold(message("execute_reply", {"status": "aborted"}, parent=refused, channel=Channel.SHELL), 5.0)
    assert [turn.began_at for turn in cells.call_back()] == [4.0, None]


def test_after_a_cut_what_is_on_its_way_is_doubtful() -> None:
    cells = window_of("a", "b", "c", depth=2)
    first(cells)
    cells.fill()
    cells.doubt()
    turn = cells.next_ahead()
    assert turn is not None
    assert turn.is_doubtful
    cells.fill()
    after_it = cells.next_ahead()
    assert after_it is not None
    assert not after_it.is_doubtful
    assert cells.next_ahead() is None


def test_a_window_that_is_closed_sends_nothing_more() -> None:
    cells = window_of("a", "b")
    first(cells)
    cells.close()
    assert cells.fill() == []
    assert cells.next_waiting() is None


def test_the_guard_is_greeted_on_shell_and_recalls_on_control() -> None:
    requests = Requests(OURS)
    assert (guard.hello(requests).channel, guard.hello(requests).type) == (Channel.SHELL, guard.HELLO)
    recalled = guard.recall(requests, "x")
    assert (recalled.channel, recalled.type, recalled.content) == (Channel.CONTROL, guard.RECALL, {"request": "x"})


def test_the_guards_code_is_one_expression_that_can_be_compiled_and_leaves_no_name() -> None:
    names = compile(guard.INSTALL, "guard", "eval").co_names
    assert set(names) == {"exec", "get_ipython", "kernel"}
