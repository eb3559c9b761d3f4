"""Detection of lost messages by sequence numbers and notices."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.delivery.loss_detection import SLACK, Ledger, SequenceNumbers, Stretch, is_rate_limit_notice
from nbrun.core.protocol.messages import Channel, Message
from tests.core.properties import QUICK

OURS = "our-session"
KERNEL = "kernel-session"
NOTICE = "IOPub data rate exceeded.\nThe Jupyter server will temporarily stop sending output\n…"


def numbered(
    number: int | str,
    kind: str = "stream",
    *,
    parent: str = f"{OURS}_1",
    channel: str = Channel.IOPUB,
    pid: int = 77,
    session: str = KERNEL,
) -> Message:
    header = {"msg_id": f"{KERNEL}_{pid}_{number}", "msg_type": kind, "session": session}
    return Message(channel, header, {"msg_id": parent} if parent else {}, {})


def status(number: int, state: str, parent: str = f"{OURS}_1") -> Message:
    header = {"msg_id": f"{KERNEL}_77_{number}", "msg_type": "status", "session": KERNEL}
    return Message(Channel.IOPUB, header, {"msg_id": parent}, {"execution_state": state})


def idle(number: int) -> Message:
    return status(number, "idle")


def reply(number: int) -> Message:
    return numbered(number, "execute_reply", channel=Channel.SHELL)


def ledger(*stretches: list[int]) -> Ledger:
    counted = Ledger(OURS)
    for stretch in stretches:
        for number in stretch:
            counted.count(numbered(number))
        counted.close()
    return counted


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([7, 8, 9], 0), ([7, 9, 8], 0), ([7, 10], 2), ([7], 0), ([9, 7, 12], 3)],
    ids=["none", "none, out of order", "two", "only one came", "three in two gaps"],
)
def test_what_is_missing_between_the_first_and_the_last_number_is_lost(numbers: list[int], missing: int) -> None:
    counted = Ledger(OURS)
    for number in numbers:
        counted.count(numbered(number))
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.missing, stretch.alone) == (missing, True)


def test_a_stretch_begins_where_the_one_before_it_ended() -> None:
    counted = ledger([1, 2, 3])
    counted.count(numbered(6))
    stretch = counted.close()
    assert stretch is not None
    assert stretch.missing == 2


def barrier(number: int, request: str) -> Message:
    parent = {"msg_id": request, "msg_type": "kernel_info_request"}
    return Message(Channel.SHELL, reply(number).header, parent, {})


def test_where_the_idle_is_lost_the_reply_is_the_end_though_later_cells_have_run_already() -> None:
    counted = Ledger(OURS)
    counted.follow(f"{OURS}_1")
    for message in (status(1, "busy"), numbered(2), reply(5)):  # of 3 and 4, and of the idle, nothing is known
        counted.count(message)
    for message in (barrier(12, f"{OURS}_3"), status(11, "busy", f"{OURS}_3")):  # behind the next cell
        counted.count(message)
    assert counted.close() == Stretch(1, 6, 3, alone=True)
    counted.follow(f"{OURS}_2")
    counted.count(numbered(9, "execute_reply", parent=f"{OURS}_2", channel=Channel.SHELL))
    assert counted.close() == Stretch(7, 10, 3, alone=True)
    counted.follow(f"{OURS}_4")  # the barrier's idle is lost, which is no output
    for message in (status(14, "busy", f"{OURS}_4"), numbered(15), status(16, "idle", f"{OURS}_4")):
        counted.count(message)
    assert counted.close() == Stretch(15, 16, 0, alone=False)


def test_what_a_thread_numbers_between_the_reply_and_the_idle_is_not_missing() -> None:
    counted = Ledger(OURS)
    counted.follow(f"{OURS}_1")
    counted.disturb()
    for message in (status(1, "busy"), reply(3), *map(numbered, (2, 4, 5, 7)), idle(6)):
        counted.count(message)
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.last, stretch.missing) == (6, 0)
    counted.count(numbered(8))
    assert counted.close() == Stretch(7, 8, 0, alone=False)


def test_a_late_message_is_taken_out_of_the_stretch_that_missed_it() -> None:
    counted = Ledger(OURS)
    stretches = []
    for numbers in ([1, 3], [4, 6], [7, 8]):
        for number in numbers:
            counted.count(numbered(number))
        stretches.append(counted.close())
    counted.count(numbered(5))
    counted.count(numbered(2))
    assert [stretch.missing for stretch in stretches if stretch] == [0, 0, 0]


def test_a_request_of_somebody_else_accounts_for_one_reply_that_we_do_not_see() -> None:
    counted = Ledger(OURS)
    for number in (1, 2):
        counted.count(numbered(number))
    for number in (3, 5):  # busy and idle of a stranger's request; its reply, number 4, goes to the stranger
        counted.count(numbered(number, "status", parent="stranger_1"))
    for number in (6, 8):  # the server's own probe bears our session
        counted.count(numbered(number, "status", parent=f"{OURS}_123_1"))
    counted.count(numbered(10 + SLACK + 1))
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.missing, stretch.alone) == (SLACK + 2, False)


@pytest.mark.parametrize(("missing", "counts"), [(SLACK, 0), (SLACK + 1, SLACK + 1)], ids=["few", "many"])
def test_where_others_were_about_few_missing_numbers_prove_nothing_nor_in_the_next_stretch(
    missing: int, counts: int
) -> None:
    counted = Ledger(OURS)
    counted.count(numbered(1))
    counted.disturb()
    found = []
    for stretch in range(3):
        counted.count(numbered(1 + (stretch + 1) * (missing + 1)))
        closed = counted.close()
        assert closed is not None
        found.append((closed.missing, closed.alone))
    assert found == [(counts, False), (counts, False), (missing, True)]


@pytest.mark.parametrize(
    ("messages", "missing"),
    [
        ([status(2, "busy"), numbered(3), reply(4), idle(5)], 0),
        ([status(2, "busy"), numbered(3), reply(5), idle(6)], 1),
        ([status(2, "busy"), idle(6), reply(5), numbered(3), numbered(4)], 0),
        ([status(2, "busy"), reply(4), idle(5), numbered(9)], 1),
        ([status(2, "busy"), numbered(4), reply(5)], 0),
        ([numbered(4), reply(5), idle(6)], 0),
    ],
    ids=["none", "one", "none, out of order", "one, and others behind it", "its idle, too", "its busy, too"],
)
def test_after_a_connection_came_back_what_is_missing_within_a_cell_is_lost_all_the_same(
    messages: list[Message], missing: int
) -> None:
    counted = Ledger(OURS, request=f"{OURS}_1")
    counted.disturb()
    for message in messages:
        counted.count(message)
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.missing, stretch.alone) == (missing, False)


@pytest.mark.parametrize(("is_sure", "first"), [(True, 6), (False, 10)], ids=["all of them", "those behind its busy"])
def test_a_stretch_says_from_which_number_on_those_that_are_missing_count(is_sure: bool, first: int) -> None:
    counted = ledger([3, 4, 5])
    counted.follow(f"{OURS}_1")
    if not is_sure:
        counted.disturb()
    for message in (status(9, "busy"), reply(12), idle(13)):
        counted.count(message)
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.first, stretch.last, stretch.missing) == (first, 13, 13 - first - 1 - is_sure)


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ([status(3, "busy", "stranger"), status(5, "idle", "stranger"), numbered(6)], 0),
        ([status(5, "idle", "stranger"), numbered(6)], 0),
        ([status(3, "busy", "stranger"), status(5, "idle", "stranger")], 1),
        ([numbered(6), status(9, "busy", "stranger")], 3),
    ],
    ids=["answered", "answered, and its busy swallowed", "answered, and an output lost", "asked only after the cell"],
)
def test_what_a_stranger_was_answered_within_a_cell_is_not_lost(asked: list[Message], missing: int) -> None:
    after = [message for message in asked if message.id.endswith("_9")]
    counted = Ledger(OURS, request=f"{OURS}_1")
    for message in (status(2, "busy"), *(each for each in asked if each not in after), reply(7), idle(8), *after):
        counted.count(message)
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.missing, stretch.alone) == (missing, False)


def test_a_reply_that_overtook_the_end_of_a_cell_belongs_to_the_next() -> None:
    counted = Ledger(OURS, request=f"{OURS}_1")
    for number in (1, 2):
        counted.count(numbered(number))
    counted.count(numbered(5, "kernel_info_reply", channel=Channel.SHELL))
    counted.count(idle(3))
    first = counted.close()
    counted.count(numbered(4, "status", parent=f"{OURS}_2"))
    counted.count(idle(7))
    second = counted.close()
    assert first is not None
    assert second is not None
    assert (first.missing, second.missing) == (0, 1)


def test_the_answer_to_a_barrier_that_overtakes_the_reply_of_the_cell_belongs_to_the_next() -> None:
    counted = Ledger(OURS, f"{OURS}_1")
    for message in (status(1, "busy"), numbered(2), idle(4)):
        counted.count(message)
    barrier = f"{OURS}_2"
    for message in (status(5, "busy", barrier), status(7, "idle", barrier), reply(3)):
        counted.count(message)
    first = counted.close()
    counted.follow(f"{OURS}_3")
    for message in (
        numbered(6, "kernel_info_reply", parent=barrier, channel=Channel.SHELL),
        status(8, "busy", f"{OURS}_3"),
    ):
        counted.count(message)
    counted.count(status(9, "idle", f"{OURS}_3"))
    second = counted.close()
    assert first is not None
    assert second is not None
    assert (first.missing, second.missing, first.alone, second.alone) == (0, 0, True, True)


def test_a_cell_that_is_sent_again_ends_with_its_second_idle() -> None:
    counted = Ledger(OURS)
    counted.follow(f"{OURS}_1")
    for message in (status(1, "busy"), reply(2), idle(3)):
        counted.count(message)
    counted.follow(f"{OURS}_2")
    again = (status(4, "busy", f"{OURS}_2"), numbered(5), numbered(6), reply(7), status(8, "idle", f"{OURS}_2"))
    for message in again:
        counted.count(message)
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.last, stretch.missing) == (8, 0)


def test_what_a_thread_numbered_after_the_idle_and_sent_before_it_belongs_to_the_next() -> None:
    counted = Ledger(OURS, f"{OURS}_1")
    for message in (status(1, "busy"), numbered(4), idle(3), reply(2)):
        counted.count(message)
    first = counted.close()
    counted.follow(f"{OURS}_2")
    for message in (status(5, "busy", f"{OURS}_2"), reply(6), status(7, "idle", f"{OURS}_2")):
        counted.count(message)
    second = counted.close()
    assert first is not None
    assert second is not None
    assert (first.missing, second.missing) == (0, 0)


def test_our_own_requests_and_messages_without_a_parent_are_no_strangers() -> None:
    counted = Ledger(OURS)
    counted.count(numbered(1, "status", parent=f"{OURS}_9"))
    counted.count(numbered(2, "status", parent=""))
    stretch = counted.close()
    assert stretch is not None
    assert (stretch.missing, stretch.alone) == (0, True)


@pytest.mark.parametrize(
    "message",
    [
        numbered("x"),
        numbered("1" * 30),
        numbered(5, session="somebody"),
        numbered(5, session=""),
        Message(Channel.IOPUB, {"msg_id": "9f2c", "session": KERNEL}, {}, {}),
    ],
    ids=["no number", "an endless number", "another's session", "no session", "a random id"],
)
def test_of_messages_that_are_not_numbered_nothing_is_known(message: Message) -> None:
    counted = Ledger(OURS)
    counted.count(message)
    assert counted.close() is None


def test_a_forked_child_counts_for_itself() -> None:
    counted = Ledger(OURS)
    counted.count(numbered(1))
    counted.count(numbered(900, pid=78))
    counted.count(numbered(2))
    stretch = counted.close()
    assert stretch is not None
    assert stretch.missing == 0


@QUICK
@given(st.lists(st.booleans(), min_size=2), st.randoms(use_true_random=False))
def test_the_number_of_the_lost_is_exact_in_whatever_order_the_others_come(arrives: list[bool], random: Random) -> None:
    numbers = [number for number, came in enumerate(arrives, 10) if came or number in (10, 9 + len(arrives))]
    random.shuffle(numbers)
    counted = Ledger(OURS)
    for number in numbers:
        counted.count(numbered(number))
    stretch = counted.close()
    assert stretch is not None
    assert stretch.missing == len(arrives) - len(numbers)


@pytest.mark.parametrize(
    ("session", "kind", "text", "is_notice"),
    [
        (OURS, "stream", NOTICE, True),
        (OURS, "stream", "IOPub message rate exceeded.\n", True),
        (KERNEL, "stream", NOTICE, False),
        (OURS, "status", NOTICE, False),
        (OURS, "stream", "something else", False),
        (OURS, "stream", None, False),
    ],
    ids=["data", "messages", "printed by the notebook", "no stream", "another text", "no text"],
)
def test_the_servers_notice_is_told_from_a_cells_output(session: str, kind: str, text: object, is_notice: bool) -> None:
    message = Message(Channel.IOPUB, {"msg_type": kind, "session": session}, {}, {"name": "stderr", "text": text})
    assert is_rate_limit_notice(message, OURS) is is_notice


def named(name: str, session: str = "s") -> Message:
    return Message("iopub", {"msg_id": name, "session": session}, {}, {})


def test_the_first_process_whose_message_comes_is_the_one_that_counts() -> None:
    numbers = SequenceNumbers()
    names = ["s_7_1", "s_7_12", "s_8_13", "x", "", "s_7_x", f"s_7_{'9' * 19}"]
    assert [numbers.of(named(name)) for name in names] == [1, 12, None, None, None, None, None]
    assert SequenceNumbers().of(named("t_7_1")) is None
    assert SequenceNumbers().of(named("s_7_1", "")) is None
