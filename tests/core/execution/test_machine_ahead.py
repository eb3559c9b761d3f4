"""Cells that are sent ahead: the result is the same as one by one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived
from nbrun.core.execution.barrier import BARRIER_AFTER, BARRIER_LIMIT
from nbrun.core.execution.cell import Stop
from nbrun.core.execution.drain import DRAIN_LIMIT, DRAIN_QUIET
from nbrun.core.execution.effects import Send
from nbrun.core.execution.interruption import INTERRUPT_GRACE, RECALL_GRACE, SIGNAL_GRACE
from nbrun.core.execution.pipelining import Pipelining
from nbrun.core.planning.plan import Action
from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE, Channel, Message
from nbrun.core.results import CellOutcome, Outcome
from nbrun.errors import ResponseTooLarge, ServerUnreachable
from tests.core.conversation import KERNEL, OURS, Conversation, cell, message
from tests.core.properties import QUICK, json_values

PASSED, FAILED, SKIPPED, NOT_RUN, TIMED_OUT, INTERRUPTED, DIED = (
    CellOutcome.PASSED,
    CellOutcome.FAILED,
    CellOutcome.SKIPPED,
    CellOutcome.NOT_RUN,
    CellOutcome.TIMED_OUT,
    CellOutcome.INTERRUPTED,
    CellOutcome.KERNEL_DIED,
)


class Ahead(Conversation):
    """A conversation in which cells are sent ahead; requests are named by their place among all that were sent."""

    in_lists = False

    def __init__(self, *cells: str | dict[str, Any], depth: int = 3, **options: Any) -> None:
        super().__init__(*cells, pipelining=Pipelining(depth, self.in_lists), **options)

    def requests(self, kind: str) -> list[Message]:
        """Return the requests of a type that were sent so far, in lists or by themselves."""
        sent = [effect.message for effect in self.wanted if isinstance(effect, Send)]
        single = [each for message in sent for each in requests_in(message)]
        return [request for request in single if request.type == kind]

    @property
    def ids(self) -> list[str]:
        return [request.id for request in self.requests(CONDITIONAL_EXECUTE)]

    @property
    def codes(self) -> list[str]:
        return [str(request.content["code"]) for request in self.requests(CONDITIONAL_EXECUTE)]

    def begin(self, place: int) -> None:
        self.status("busy", self.ids[place])
        self.hear(message("execute_input", {"execution_count": place + 1}, parent=self.ids[place]))

    def end(self, place: int, status: str = "ok", **content: Any) -> None:
        self.reply(status, parent=self.ids[place], **content)
        self.status("idle", self.ids[place])

    def run_cell(self, place: int, status: str = "ok", **content: Any) -> None:
        self.begin(place)
        self.end(place, status, **content)

    def refuse(self, place: int) -> None:
        self.status("busy", self.ids[place])
        self.end(place, "aborted")

    def recalled(self, state: str, place: int = -1) -> None:
        asked = self.requests(agent.RECALL)[place]
        answer = message(agent.RECALL_REPLY, {"state": state}, parent=asked.id, channel=Channel.CONTROL)
        self.hear(answer)


def requests_in(request: Message) -> list[Message]:
    """Return the requests that a list carries; another request is returned as it is."""
    if request.type != agent.EXECUTE_LIST:
        return [request]
    return [Message(request.channel, parent={}, **cell) for cell in request.content["cells"]]


@pytest.fixture(autouse=True, params=[False, True], ids=["single", "lists"])
def in_lists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the cells one request each, and in lists."""
    monkeypatch.setattr(Ahead, "in_lists", request.param)


ERROR: dict[str, Any] = {"status": "error", "ename": "ValueError", "evalue": "bad", "traceback": ["line"]}


# In order --------------------------------------------------------------------------------------------------------


def test_the_next_cells_are_on_their_way_before_the_first_has_ended_and_more_follow() -> None:
    talk = Ahead("one", "two", "three", "four", "five")
    assert talk.codes == ["one", "two", "three"]
    talk.run_cell(0)
    assert talk.codes == ["one", "two", "three", "four"]
    for place in range(1, 5):
        talk.run_cell(place)
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.PASSED
    assert [(result.outcome, result.execution_count) for result in talk.run.results()] == [
        (PASSED, place) for place in range(1, 6)
    ]


def test_an_observer_is_told_in_the_order_of_cells_that_are_sent_one_by_one() -> None:
    seen: list[Event] = []
    talk = Ahead("one", "two", observe=seen.append)
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.begin(1)
    talk.stream("early", talk.ids[1])
    assert [type(event) for event in seen] == [CellStarted]
    assert list(talk.run.cells) == [0]
    talk.reply(parent=talk.ids[0])
    assert [type(event) for event in seen] == [CellStarted, CellFinished, CellStarted, OutputArrived]
    assert talk.outputs(1)[0]["text"] == "early"


def test_a_cells_clock_starts_when_the_kernel_begins_it() -> None:
    talk = Ahead("one", cell("two", timeout=5.0))
    talk.until(10.0)
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.begin(1)
    talk.until(11.0)
    talk.reply(parent=talk.ids[0])
    assert talk.run.deadline == 15.0
    talk.until(12.0)
    talk.end(1)
    assert talk.run.results()[1].seconds == 2.0


# Where the run does not go on ------------------------------------------------------------------------------------


def test_cells_behind_one_that_failed_were_not_run() -> None:
    talk = Ahead("one", "two", "three", "four")
    talk.run_cell(0)
    talk.run_cell(1, **ERROR)
    assert talk.codes == ["one", "two", "three", "four"]
    for place in (2, 3):
        talk.refuse(place)
    talk.until(DRAIN_LIMIT)
    assert talk.problem == "ValueError: bad in cell 2 of 4"
    assert talk.outcomes() == [PASSED, FAILED, NOT_RUN, NOT_RUN]
    assert [result.execution_count for result in talk.run.results()] == [1, 2, None, None]


def test_cells_behind_one_that_ended_the_notebook_well_are_skipped() -> None:
    talk = Ahead("one", "two", "three")
    talk.run_cell(0, "error", ename="SystemExit", evalue="0")
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outcomes() == [PASSED, SKIPPED, SKIPPED]


def test_cells_behind_an_exit_were_not_run() -> None:
    talk = Ahead("one", "two", "three")
    talk.run_cell(0, payload=[{"source": "ask_exit", "keepkernel": False}])
    assert talk.outcome() is Outcome.KERNEL_DIED
    assert talk.outcomes() == [PASSED, NOT_RUN, NOT_RUN]


def test_late_output_that_names_a_request_which_was_refused_belongs_to_the_last_cell() -> None:
    talk = Ahead("one", "two")
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.stream("late", talk.ids[1])
    talk.reply(parent=talk.ids[0], **ERROR)
    talk.stream("r", talk.ids[1])
    assert talk.outputs(0)[-1]["text"] == "later"


def test_cells_behind_an_error_that_is_allowed_are_sent_again_when_they_were_refused() -> None:
    talk = Ahead(*(cell(source, allows_error=True) for source in ("one", "two", "three", "four")))
    talk.run_cell(0, **ERROR)
    assert talk.run.cells[0].outcome is FAILED
    talk.status("busy", talk.ids[1])
    talk.stream("of a thread", talk.ids[2])
    talk.end(1, "aborted")
    assert talk.codes == ["one", "two", "three", "four", "two", "three", "four"]
    assert "nbrun_after" not in talk.requests(CONDITIONAL_EXECUTE)[4].metadata
    assert [output["text"] for output in talk.outputs(1)] == ["of a thread"]
    for place in (2, 3):
        talk.refuse(place)
    for place in (4, 5, 6):
        talk.run_cell(place)
    talk.until(DRAIN_LIMIT)
    assert talk.outcomes() == [FAILED, PASSED, PASSED, PASSED]


def test_a_thread_that_writes_while_a_cell_is_refused_does_not_make_it_a_cell_that_ran() -> None:
    talk = Ahead(cell("one", allows_error=True), "two")
    talk.run_cell(0, **ERROR)
    talk.status("busy", talk.ids[1])
    talk.stream("late", talk.ids[1])
    talk.end(1, "aborted")
    talk.run_cell(2)
    assert talk.run.cells[1].outcome is PASSED


def test_where_there_are_widgets_cells_are_sent_one_by_one_and_told_first_what_was_captured() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    opening = {"comm_id": "w", "target_name": "jupyter.widget"}
    state = {"_model_name": "OutputModel", "msg_id": talk.ids[0], "outputs": []}
    talk.hear(message("comm_open", {**opening, "data": {"state": state}}, parent=talk.ids[0]))
    talk.stream("captured", talk.ids[0])
    talk.end(0)
    assert talk.codes == ["one", "two", "three"]
    talk.refuse(1)
    assert talk.codes == ["one", "two", "three", "two"]
    kinds = [effect.message.type for effect in talk.wanted if hasattr(effect, "message")]
    assert kinds[-2:] == ["comm_msg", CONDITIONAL_EXECUTE]


def test_once_any_comm_was_open_cells_are_sent_one_by_one() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    talk.hear(message("comm_open", {"comm_id": "c", "target_name": "of a library"}, parent=talk.ids[0]))
    talk.end(0)
    talk.refuse(1)
    assert talk.codes == ["one", "two", "three", "two"]
    talk.run_cell(3)
    assert talk.codes[4:] == ["three"]


# Signs that are lost ---------------------------------------------------------------------------------------------


def test_the_next_cells_busy_proves_that_an_idle_is_lost() -> None:
    talk = Ahead("one", "two")
    talk.begin(0)
    talk.reply(parent=talk.ids[0])
    talk.begin(1)
    assert talk.run.cells[0].outcome is PASSED
    talk.end(1)
    talk.until(DRAIN_LIMIT)
    assert talk.run.results()[0].incomplete is not None


def test_the_next_cells_reply_proves_that_a_reply_is_lost_and_what_ran_did_run() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.begin(1)
    talk.stream("ran", talk.ids[1])
    talk.reply(parent=talk.ids[1])
    talk.status("idle", talk.ids[1])
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.SERVER_FAILED
    assert talk.outcomes() == [FAILED, PASSED, INTERRUPTED]  # the third was sent, and may have run
    assert talk.outputs(1)[0]["text"] == "ran"
    assert talk.outputs(2) == []


def test_a_reply_that_is_lost_while_the_next_cell_runs_on_is_not_waited_for() -> None:
    talk = Ahead("one", "two")
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.begin(1)
    talk.until(BARRIER_AFTER + BARRIER_LIMIT + DRAIN_LIMIT)
    assert talk.outcome() is Outcome.SERVER_FAILED
    assert talk.outcomes() == [FAILED, INTERRUPTED]


def test_a_request_that_was_lost_with_the_connection_is_found_out_by_a_barrier_of_its_own() -> None:
    talk = Ahead("one", "two")
    talk.begin(0)
    talk.reconnected()
    of_the_first = talk.barrier
    talk.end(0)
    assert talk.barrier != of_the_first
    talk.barrier_reply(of_the_first)
    talk.barrier_reply()
    talk.until(10.0)
    assert talk.outcome() is Outcome.SERVER_FAILED
    assert talk.outcomes() == [PASSED, FAILED]


# The cell that the kernel started last --------------------------------------------------------------------------


def lost(talk: Ahead, how: str) -> None:
    match how:
        case "server":
            talk.run.lose_server(talk.now, ServerUnreachable("the server is gone"))
        case "kernel":
            talk.status("dead", "of the server")
        case _:
            talk.run.abandon(talk.now, "a second signal")


CUT = {"server": INTERRUPTED, "kernel": DIED, "run": INTERRUPTED}


@pytest.mark.parametrize("how", CUT)
def test_only_what_the_kernel_has_started_may_have_run(how: str) -> None:
    talk = Ahead("one", "two", "three", "four", depth=9, last_started=lambda: f"{OURS}_1")
    talk.begin(0)
    lost(talk, how)
    assert talk.outcomes() == [CUT[how], NOT_RUN, NOT_RUN, NOT_RUN]


@pytest.mark.parametrize("how", CUT)
def test_a_cell_behind_which_the_next_one_was_started_has_passed_though_its_reply_is_lost(how: str) -> None:
    talk = Ahead("one", "two", "three", "four", depth=9, last_started=lambda: f"{OURS}_3")
    talk.run_cell(0)
    talk.begin(1)
    talk.stream("two", talk.ids[1])
    talk.stream("three", talk.ids[2])
    lost(talk, how)
    assert talk.outcomes() == [PASSED, PASSED, CUT[how], NOT_RUN]
    assert [talk.outputs(index)[0]["text"] for index in (1, 2)] == ["two", "three"]
    assert talk.run.results()[1].incomplete is not None
    if how == "kernel":
        assert "in cell 3 of 4" in talk.problem


def test_a_message_that_is_too_large_is_of_the_cell_whose_messages_arrive() -> None:
    talk = Ahead("one", "two", "three", depth=9, last_started=lambda: f"{OURS}_3")
    talk.run_cell(0)
    talk.run.lose_server(talk.now, ResponseTooLarge("a message of the kernel has more than 1 MB"))
    assert talk.outcomes() == [PASSED, PASSED, INTERRUPTED]
    assert talk.problem.endswith("more than 1 MB in cell 2 of 3")


def test_a_reply_that_came_decides_though_the_idle_is_lost_with_the_server() -> None:
    talk = Ahead("one", "two", depth=9, last_started=lambda: f"{OURS}_2")
    talk.begin(0)
    talk.reply(parent=talk.ids[0])
    talk.run.lose_server(talk.now, ServerUnreachable("the server is gone"))
    assert talk.outcomes() == [PASSED, INTERRUPTED]


def test_a_reply_that_is_lost_says_nothing_of_cells_that_the_kernel_has_not_started() -> None:
    talk = Ahead("one", "two", "three", "four", depth=9, last_started=lambda: f"{OURS}_3")
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.begin(1)
    talk.reply(parent=talk.ids[1])
    talk.until(DRAIN_LIMIT)
    assert talk.outcomes() == [FAILED, PASSED, INTERRUPTED, NOT_RUN]


def test_a_kernel_that_dies_of_an_interrupt_ends_the_run_with_the_interrupts_reason() -> None:
    talk = Ahead(cell("one", timeout=1.0), "two", last_started=lambda: f"{OURS}_2")
    talk.begin(0)
    talk.until(1.0)
    talk.recalled("running")
    talk.status("dead", "of the server")
    assert talk.outcomes() == [TIMED_OUT, INTERRUPTED]


# Interrupts ------------------------------------------------------------------------------------------------------


def test_what_stands_behind_a_cell_is_recalled_before_the_cell_is_interrupted() -> None:
    talk = Ahead(cell("one", timeout=1.0), "two")
    talk.begin(0)
    talk.until(1.0)
    assert talk.requests(agent.RECALL)[0].content == {"request": talk.ids[0]}
    assert talk.interrupts == 0
    talk.recalled("running")
    assert talk.interrupts == 1
    talk.recalled("running")
    assert talk.interrupts == 1
    talk.end(0, **{**ERROR, "ename": "KeyboardInterrupt"})
    talk.refuse(1)
    talk.until(5.0)
    assert talk.outcomes() == [TIMED_OUT, NOT_RUN]


def test_a_kernel_that_does_not_answer_a_recall_is_interrupted_all_the_same_and_twice() -> None:
    talk = Ahead(cell("one", timeout=1.0), "two")
    talk.begin(0)
    talk.until(1.0 + RECALL_GRACE)
    assert talk.interrupts == 1
    talk.until(1.0 + RECALL_GRACE + INTERRUPT_GRACE)
    assert talk.interrupts == 2
    talk.until(1.0 + RECALL_GRACE + 2 * INTERRUPT_GRACE)
    assert talk.outcomes() == [TIMED_OUT, NOT_RUN]


def test_a_cell_that_had_ended_when_its_clock_struck_was_in_time() -> None:
    talk = Ahead(cell("one", timeout=1.0), "two")
    talk.begin(0)
    talk.until(1.0)
    talk.recalled("ended")
    talk.end(0)
    assert talk.interrupts == 0
    talk.refuse(1)
    talk.run_cell(2)
    talk.until(5.0)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.PASSED, [PASSED, PASSED])


def test_a_cell_that_the_kernel_has_not_seen_when_it_is_recalled_will_be_refused() -> None:
    talk = Ahead(cell("one", timeout=1.0), "two")
    talk.until(1.0)
    talk.recalled("unknown")
    assert talk.interrupts == 0
    talk.refuse(0)
    talk.until(5.0)
    assert talk.outcomes() == [TIMED_OUT, NOT_RUN]


def test_an_answer_to_a_recall_that_is_no_longer_needed_changes_nothing() -> None:
    talk = Ahead(cell("one", timeout=1.0), "two")
    talk.begin(0)
    talk.until(1.0)
    talk.end(0, **{**ERROR, "ename": "KeyboardInterrupt"})
    talk.recalled("ended")
    assert talk.outcomes() == [TIMED_OUT, NOT_RUN]
    assert talk.interrupts == 0


def test_a_signal_interrupts_once_and_the_cells_behind_were_not_run() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    talk.interrupt()
    talk.recalled("running")
    assert talk.interrupts == 1
    talk.until(SIGNAL_GRACE)
    assert talk.interrupts == 1
    assert talk.outcome() is Outcome.INTERRUPTED
    assert talk.outcomes() == [INTERRUPTED, NOT_RUN, NOT_RUN]


def test_a_signal_that_comes_when_the_next_cell_runs_already_interrupts_that() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.interrupt()
    talk.begin(1)
    talk.recalled("ended")
    assert talk.interrupts == 0
    talk.reply(parent=talk.ids[0])
    assert [request.content["request"] for request in talk.requests(agent.RECALL)] == talk.ids[:2]
    talk.recalled("running")
    assert talk.interrupts == 1
    talk.end(1, **{**ERROR, "ename": "KeyboardInterrupt"})
    assert talk.outcome() is Outcome.INTERRUPTED
    assert talk.problem.endswith("in cell 2 of 3")
    assert talk.outcomes() == [PASSED, INTERRUPTED, NOT_RUN]
    assert (talk.run.cells[0].stop, talk.run.cells[1].stop) == (None, Stop.SIGNAL)


def test_a_signal_that_comes_with_the_reply_is_for_the_next_cell_which_had_not_begun() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    talk.interrupt()
    talk.end(0)
    talk.recalled("ended", 0)
    talk.recalled("unknown", 1)
    talk.refuse(1)
    assert talk.interrupts == 0
    assert (talk.outcome(), talk.outcomes()) == (Outcome.INTERRUPTED, [PASSED, NOT_RUN, NOT_RUN])


def test_the_time_of_the_whole_run_that_is_up_between_two_cells_stops_the_second() -> None:
    talk = Ahead("one", "two", "three", run_timeout=1.0)
    talk.begin(0)
    talk.until(1.0)
    talk.recalled("ended")
    talk.end(0)
    talk.begin(1)
    talk.recalled("running")
    assert talk.interrupts == 1
    talk.end(1, **{**ERROR, "ename": "KeyboardInterrupt"})
    talk.until(5.0)
    assert (talk.outcome(), talk.outcomes()) == (Outcome.TIMED_OUT, [PASSED, TIMED_OUT, NOT_RUN])


# The question whether more output may come -------------------------------------------------------------------------


class Asking(Ahead):
    """A conversation with a kernel whose agent reports writers."""

    def __init__(self, *cells: str | dict[str, Any], **options: Any) -> None:
        super().__init__(*cells, ask_for_writers=True, **options)

    @property
    def questions(self) -> list[str]:
        return [request.id for request in self.requests(agent.DRAIN)]

    def answer(self, place: int = -1, *, writers: bool = False) -> None:
        question = self.questions[place]
        self.status("busy", question)
        content = {"status": "ok", "writers": writers, "unsent": []}
        self.hear(message("nbrun_drain_reply", content, parent=question, channel=Channel.SHELL))
        self.status("idle", question)


def test_the_question_is_sent_behind_the_last_cell() -> None:
    talk = Asking("one", "two", "three", "four")
    assert talk.questions == []
    talk.run_cell(0)
    sent = [effect.message.type for effect in talk.wanted if isinstance(effect, Send)]
    assert (len(talk.questions), sent[-1]) == (1, agent.DRAIN)
    for place in (1, 2, 3):
        assert talk.outcome() is None
        talk.run_cell(place)
    talk.answer()
    assert (talk.outcome(), len(talk.questions)) == (Outcome.PASSED, 1)


def test_an_answer_that_arrives_before_the_reply_of_the_last_cell_ends_the_run_with_that_reply() -> None:
    talk = Asking("one", "two")
    talk.run_cell(0)
    talk.begin(1)
    talk.status("idle", talk.ids[1])
    talk.answer()
    assert talk.outcome() is None
    talk.reply(parent=talk.ids[1])
    assert talk.outcome() is Outcome.PASSED


def test_an_answer_that_somebody_may_write_is_followed_by_a_second_question_as_ever() -> None:
    talk = Asking("one", "two")
    talk.run_cell(0)
    talk.run_cell(1)
    talk.answer(writers=True)
    assert talk.outcome() is None
    talk.until(DRAIN_QUIET)
    assert len(talk.questions) == 2
    talk.stream("late", talk.questions[0])
    talk.answer()
    assert (talk.outcome(), talk.outputs(1)[0]["text"]) == (Outcome.PASSED, "late")


def test_the_answer_behind_a_cell_that_failed_counts_too() -> None:
    talk = Asking("one", "two", "three")
    talk.run_cell(0, **ERROR)
    talk.refuse(1)
    talk.answer()
    assert (talk.outcomes(), len(talk.questions)) == ([FAILED, NOT_RUN, NOT_RUN], 1)
    assert talk.outcome() is Outcome.FAILED


@pytest.mark.parametrize("answered", ["before", "after"])
def test_a_question_does_not_count_if_a_cell_was_sent_again_behind_it(answered: str) -> None:
    talk = Asking(cell("one", allows_error=True), "two")
    talk.begin(0)
    talk.reply(parent=talk.ids[0], **ERROR)
    if answered == "before":
        talk.answer()
    talk.stream("of a thread", talk.questions[0])
    talk.status("idle", talk.ids[0])
    talk.refuse(1)
    if answered == "after":
        talk.answer()
    talk.run_cell(2)
    assert (talk.outcome(), len(talk.questions)) == (None, 2)
    talk.answer()
    assert (talk.outcome(), talk.outcomes()) == (Outcome.PASSED, [FAILED, PASSED])
    assert [output["text"] for output in talk.outputs(1)] == ["of a thread"]


@pytest.mark.parametrize("how", ["reconnected", "stopped"])
def test_a_question_does_not_count_after_a_cut_or_a_stop(how: str) -> None:
    talk = Asking("one", cell("two", timeout=5.0))
    talk.run_cell(0)
    talk.begin(1)
    if how == "reconnected":
        talk.reconnected()
    else:
        talk.until(5.0)
    talk.end(1)
    assert len(talk.questions) == 2
    talk.answer(0)
    assert talk.outcome() is None
    talk.answer(1)
    assert talk.outcome() is not None


def test_where_a_message_seems_to_be_missing_the_question_is_put_again_with_its_number() -> None:
    talk = Asking("one", "two")
    for place in (0, 1):
        parent, first = talk.ids[place], 4 * place + 1
        talk.numbered(first, "status", {"execution_state": "busy"}, parent=parent)
        talk.numbered(first + 2, "execute_reply", {"status": "ok"}, parent=parent, channel=Channel.SHELL)
        talk.numbered(first + 3, "status", {"execution_state": "idle"}, parent=parent)
    assert [request.content["of"] for request in talk.requests(agent.DRAIN)] == [[], [(1, 4), (5, 8)]]
    talk.answer(0)
    assert talk.outcome() is None
    talk.answer(1)
    assert talk.outcome() is not None


def test_late_output_that_names_the_question_is_kept_if_the_run_ends_without_an_answer() -> None:
    talk = Asking("one", "two")
    talk.run_cell(0)
    talk.begin(1)
    talk.stream("late", talk.questions[0])
    talk.run.lose_server(talk.now, ServerUnreachable("gone"))
    assert "late" in [output.get("text") for output in talk.outputs(1)]


# The kernel and the server ---------------------------------------------------------------------------------------


def test_with_the_kernel_dies_the_cell_that_ran_and_none_behind_it() -> None:
    talk = Ahead("one", "two", "three")
    talk.run_cell(0)
    talk.begin(1)
    talk.hear(message("status", {"execution_state": "dead"}, session=OURS))
    assert talk.outcomes() == [PASSED, DIED, NOT_RUN]
    assert talk.problem.startswith("the kernel died in cell 2 of 3")


def test_a_cell_that_ran_behind_one_whose_reply_is_still_missing_died_with_the_kernel_too() -> None:
    talk = Ahead("one", "two", "three")
    talk.begin(0)
    talk.status("idle", talk.ids[0])
    talk.begin(1)
    talk.hear(message("status", {"execution_state": "dead"}, session=OURS))
    assert talk.outcomes() == [DIED, DIED, NOT_RUN]


def test_with_the_server_is_lost_what_was_running() -> None:
    talk = Ahead("one", "two")
    talk.begin(0)
    talk.run.lose_server(talk.now, ServerUnreachable("gone"))
    assert talk.outcomes() == [INTERRUPTED, INTERRUPTED]  # the second was sent; nobody knows whether it ran


def test_a_run_without_cells_that_was_interrupted_has_nothing_to_call_off() -> None:
    talk = Ahead({"source": "", "action": Action.CLEAR})
    talk.interrupt()
    assert talk.outcome() is Outcome.PASSED


# Anything may come -----------------------------------------------------------------------------------------------

_kinds = st.sampled_from(
    ["stream", "display_data", "status", "execute_input", "execute_reply", "comm_open", agent.RECALL_REPLY, "error"]
)
_keys = ["name", "text", "execution_count", "execution_state", "status", "ename", "evalue", "state", "payload"]
_contents = st.dictionaries(
    st.sampled_from(_keys), json_values | st.sampled_from(["idle", "busy", "ok", "error", "aborted", "ended", "dead"])
)
_messages = st.builds(
    Message,
    st.sampled_from(list(Channel)),
    st.fixed_dictionaries({"msg_type": _kinds, "session": st.just(KERNEL)}),
    st.fixed_dictionaries({"msg_id": st.sampled_from([f"{OURS}_{n}" for n in range(1, 12)])}),
    _contents,
)


@QUICK
@given(st.lists(st.tuples(st.floats(0, 5), _messages), max_size=40))
def test_no_message_of_whatever_content_breaks_a_run(arrivals: list[tuple[float, Message]]) -> None:
    started: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, CellStarted):
            started.append(event.index)

    allowed = cell(allows_error=True), cell(expects_error=True)
    talk = Ahead(cell(timeout=20), cell(idle_timeout=9), *allowed, "five", run_timeout=90, observe=observe)
    for pause, arrived in arrivals:
        talk.until(talk.now + pause)
        talk.hear(arrived)
    talk.until(1000)
    assert talk.run.ending is not None
    assert started == sorted(set(started)) == list(talk.run.cells)
    assert len(talk.run.results()) == 5


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_a_request_has_a_type_of_its_own_only_where_cells_are_sent_ahead(depth: int) -> None:
    talk = Ahead("one", "two", depth=depth)
    assert bool(talk.ids) is (depth > 1)
