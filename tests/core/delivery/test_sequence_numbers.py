"""The numbers of messages, and their order where some came late or again."""

import pytest

from nbrun.core.delivery.sequence_numbers import Numbering, woven
from nbrun.core.protocol.messages import Message


def named(name: str, session: str = "s") -> Message:
    return Message("iopub", {"msg_id": name, "session": session}, {}, {})


def test_the_first_process_whose_message_comes_is_the_one_that_counts() -> None:
    numbering = Numbering()
    names = ["s_7_1", "s_7_12", "s_8_13", "x", "", "s_7_x", f"s_7_{'9' * 19}"]
    assert [numbering.of(named(name)) for name in names] == [1, 12, None, None, None, None, None]
    assert Numbering().of(named("t_7_1")) is None
    assert Numbering().of(named("s_7_1", "")) is None


@pytest.mark.parametrize(
    ("numbers", "came", "order"),
    [
        ([1, 2, 3], [1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [], [1, 2, 3]),
        ([1, 2, 3], [2, 3, 1], [2, 3, 1]),
        ([1, 2, 3, 4], [1, 4, 3], [1, 2, 4, 3]),
        ([1, 2, 3, 4], [2, 1], [2, 1, 3, 4]),
    ],
    ids=["in order", "none came", "a result behind its own output", "one sent again before what is behind", "the end"],
)
def test_what_came_keeps_its_order_and_the_rest_finds_its_place(
    numbers: list[int], came: list[int], order: list[int]
) -> None:
    assert woven(numbers, came) == order
