"""The state machine: cells run in sequence, and each ends when reply and idle have arrived."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived, Warned
from nbrun.core.execution.drain import DRAIN_LIMIT, DRAIN_QUIET
from nbrun.core.execution.effects import Send
from nbrun.core.execution.machine import ATTEMPTS, PROBE_EVERY, RESEND_AFTER
from nbrun.core.planning.plan import Action
from nbrun.core.protocol.messages import Channel, Message
from nbrun.core.results import CellOutcome, Outcome
from nbrun.errors import ServerUnreachable
from tests.core.conversation import KERNEL, OURS, STRANGER, Conversation, cell, message
from tests.core.properties import QUICK, json_values

PASSED, FAILED, SKIPPED, NOT_RUN = (
    CellOutcome.PASSED,
    CellOutcome.FAILED,
    CellOutcome.SKIPPED,
    CellOutcome.NOT_RUN,
)


# Order -----------------------------------------------------------------------------------------------------------


def test_a_run_without_cells_passes_without_a_word_to_the_kernel() -> None:
    talk = Conversation({"source": "", "action": Action.CLEAR}, {"source": "1", "action": Action.KEEP})
    assert (talk.outcome(), talk.wanted, talk.run.deadline) == (Outcome.PASSED, [], None)
    assert talk.outcomes() == [SKIPPED, SKIPPED]


@pytest.mark.parametrize("order", [("reply", "idle"), ("idle", "reply")], ids=["reply first", "idle first"])
def test_the_next_cell_is_sent_when_reply_and_idle_are_both_in(order: tuple[str, str]) -> None:
    talk = Conversation("one", "two")
    talk.status("busy")
    for sign in order:
        assert talk.sources == ["one"]
        talk.reply() if sign == "reply" else talk.status("idle")
    assert talk.sources == ["one", "two"]
    assert talk.run.cells[0].outcome is PASSED


def test_a_cell_is_sent_with_its_id_and_without_stdin() -> None:
    request = Conversation("one").requests("execute_request")[0]
    assert request.metadata == {"cellId": "id0"}
    assert request.content["allow_stdin"] is False
    assert request.content["store_history"] is True


def test_a_cell_without_an_id_is_sent_without_one() -> None:
    assert Conversation(cell(id=None)).requests("execute_request")[0].metadata == {}


@pytest.mark.parametrize(
    ("options", "stops"),
    [({}, True), ({"expects_error": True}, False), ({"allows_error": True}, False)],
    ids=["plain", "raises-exception", "allow errors"],
)
def test_what_is_queued_behind_an_error_is_thrown_away_unless_the_error_is_allowed(
    options: dict[str, Any], stops: bool
) -> None:
    talk = Conversation(cell(**options))
    assert talk.requests("execute_request")[0].content["stop_on_error"] is stops


def test_a_second_reply_to_the_same_request_changes_nothing() -> None:
    talk = Conversation("one")
    talk.reply(execution_count=1)
    talk.fail()
    talk.status("idle")
    assert talk.run.cells[0].outcome is PASSED


# Verdicts --------------------------------------------------------------------------------------------------------


def test_an_error_ends_the_run_and_the_cells_behind_it_are_not_run() -> None:
    talk = Conversation("one", "two", "three")
    talk.complete()
    talk.fail("ZeroDivisionError", "division by zero")
    talk.status("idle")
    talk.until(DRAIN_LIMIT)
    assert (talk.outcome(), talk.problem) == (Outcome.FAILED, "ZeroDivisionError: division by zero in cell 2 of 3")
    assert talk.outcomes() == [PASSED, FAILED, NOT_RUN]


@pytest.mark.parametrize(
    ("options", "outcome"),
    [({"expects_error": True}, PASSED), ({"allows_error": True}, FAILED)],
    ids=["raises-exception", "allow errors"],
)
def test_an_error_that_is_allowed_ends_nothing(options: dict[str, Any], outcome: CellOutcome) -> None:
    talk = Conversation(cell("one", **options), "two")
    talk.fail()
    talk.status("idle")
    assert talk.sources == ["one", "two"]
    talk.complete()
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outcomes() == [outcome, PASSED]
    error = talk.run.results()[0].error
    assert error is not None
    assert error.ename == "ValueError"


@pytest.mark.parametrize("evalue", ["", "0", "None"], ids=["sys.exit()", "sys.exit(0)", "sys.exit(None)"])
def test_sys_exit_with_success_ends_the_notebook_early_and_well(evalue: str) -> None:
    talk = Conversation("one", "two")
    talk.fail("SystemExit", evalue)
    talk.status("idle")
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outcomes() == [PASSED, SKIPPED]


def test_sys_exit_with_a_code_is_an_error() -> None:
    talk = Conversation("one", "two")
    talk.fail("SystemExit", "3")
    talk.status("idle")
    talk.until(DRAIN_LIMIT)
    assert (talk.outcome(), talk.problem) == (Outcome.FAILED, "SystemExit: 3 in cell 1 of 2")


EXIT = {"payload": [{"source": "ask_exit", "keepkernel": False}]}


def test_exit_before_the_last_cell_ends_the_run_as_a_dead_kernel_and_nothing_more_is_sent() -> None:
    talk = Conversation("exit()", "two")
    talk.complete(**EXIT)
    assert (talk.outcome(), talk.problem) == (Outcome.KERNEL_DIED, "the kernel was told to exit in cell 1 of 2")
    assert talk.outcomes() == [PASSED, NOT_RUN]
    assert [type(effect) for effect in talk.wanted] == [Send]


def test_exit_in_the_last_cell_is_success() -> None:
    talk = Conversation("exit()")
    talk.complete(**EXIT)
    assert talk.outcome() is Outcome.PASSED


def test_exit_that_keeps_the_kernel_is_no_exit() -> None:
    talk = Conversation("exit(keep_kernel=True)", "two")
    talk.complete(payload=[{"source": "ask_exit", "keepkernel": True}])
    assert talk.sources[-1] == "two"


# Refused by the kernel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["aborted", "abort"])
def test_a_cell_that_the_kernel_did_not_run_is_sent_again_a_moment_later(word: str) -> None:
    talk = Conversation("one")
    talk.complete(status=word)
    assert talk.sources == ["one"]
    talk.until(RESEND_AFTER)
    assert talk.sources == ["one", "one"]
    assert len({request.id for request in talk.requests("execute_request")}) == 2
    talk.complete(execution_count=4)
    assert talk.run.cells[0].outcome is PASSED
    assert talk.run.results()[0].execution_count == 4


def test_a_cell_that_the_kernel_refuses_again_and_again_ends_the_run() -> None:
    talk = Conversation("one", "two")
    for attempt in range(ATTEMPTS):
        talk.complete(status="aborted")
        talk.until((attempt + 1) * RESEND_AFTER)
    talk.until(talk.now + DRAIN_LIMIT)
    assert talk.sources == ["one"] * ATTEMPTS
    assert talk.problem == "the kernel refused again and again to run the code in cell 1 of 2"
    assert talk.outcomes() == [NOT_RUN, NOT_RUN]


def test_a_cell_that_the_kernel_broke_off_half_way_is_never_sent_again() -> None:
    talk = Conversation("one", "two")
    talk.hear(message("execute_input", {"execution_count": 1}, parent=talk.request))
    talk.complete(status="abort")
    talk.until(DRAIN_LIMIT)
    assert talk.sources == ["one"]
    assert talk.outcomes() == [CellOutcome.FAILED, NOT_RUN]
    assert talk.problem == "Aborted: the kernel broke the cell off in cell 1 of 2"


def test_a_run_that_is_stopped_while_a_cell_waits_to_be_sent_again_does_not_send_it() -> None:
    talk = Conversation("one", "two")
    talk.complete(status="aborted")
    talk.interrupt()
    talk.until(RESEND_AFTER)
    assert talk.sources == ["one"]
    assert talk.outcome() is Outcome.INTERRUPTED
    assert talk.outcomes() == [CellOutcome.INTERRUPTED, NOT_RUN]


# Where messages go -----------------------------------------------------------------------------------------------


def test_output_goes_to_the_cell_that_its_parent_names_also_when_that_is_long_over() -> None:
    talk = Conversation("one", "two")
    first = talk.request
    talk.complete()
    talk.stream("late", first)
    talk.stream("new")
    assert [output["text"] for output in talk.outputs(0)] == ["late"]
    assert [output["text"] for output in talk.outputs(1)] == ["new"]


@pytest.mark.parametrize("parent", ["", "of-another-client"], ids=["no parent", "another client's"])
def test_what_nobody_of_ours_asked_for_lands_in_no_cell(parent: str) -> None:
    talk = Conversation("one")
    talk.hear(message("stream", {"name": "stdout", "text": "x"}, parent=parent))
    talk.hear(message("execute_input", {"execution_count": 9}, parent=parent))
    talk.hear(message("execute_reply", {"status": "ok"}, parent=parent, channel=Channel.SHELL))
    talk.hear(message("status", {"execution_state": "idle"}, parent=parent))
    assert talk.outputs() == []
    assert talk.run.cells[0].execution_count is None
    assert talk.sources == ["one"]


def test_another_clients_update_changes_our_display() -> None:
    talk = Conversation("one")
    shown = {"data": {"text/plain": "old"}, "metadata": {}, "transient": {"display_id": "d"}}
    talk.hear(message("display_data", shown, parent=talk.request))
    new = {"data": {"text/plain": "new"}, "metadata": {}, "transient": {"display_id": "d"}}
    talk.hear(message("update_display_data", new, parent="of-another-client"))
    assert talk.outputs()[0]["data"] == {"text/plain": "new"}


def test_the_count_that_a_cell_shows_is_that_of_the_kernels_echo() -> None:
    talk = Conversation("one")
    talk.hear(message("execute_input", {"execution_count": 7}, parent=talk.request))
    talk.complete(execution_count=8)
    assert talk.run.results()[0].execution_count == 7


def test_a_finished_cells_signs_come_too_late_to_mean_the_next() -> None:
    talk = Conversation("one", "two")
    first = talk.request
    talk.complete()
    talk.status("idle", first)
    talk.reply(parent=first)
    assert talk.run.ending is None
    assert talk.run.cells[1].outcome is None


def test_a_message_that_nobody_knows_changes_nothing() -> None:
    talk = Conversation("one")
    assert talk.hear(message("debug_event", {"x": 1}, parent=talk.request)) == ()
    assert talk.hear(message("comm_info_reply", {}, parent=talk.request, channel=Channel.SHELL)) == ()
    assert talk.hear(message("stream", {}, parent=talk.request, channel="gossip")) == ()


# The end ---------------------------------------------------------------------------------------------------------


def test_after_the_last_cell_a_barrier_and_a_moment_of_quiet_let_late_output_in() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.status("busy", talk.barrier)
    talk.until(0.2)
    talk.stream("late")
    talk.until(0.2 + DRAIN_QUIET - 0.01)
    assert talk.outcome() is None
    talk.until(0.2 + DRAIN_QUIET)
    assert talk.outcome() is Outcome.PASSED
    assert talk.outputs()[0]["text"] == "late"


def test_late_output_that_names_the_barrier_as_its_parent_belongs_to_the_last_cell() -> None:
    """So does ipykernel with what comes from a child process, or from a thread, after the cell."""
    talk = Conversation("one", "two")
    talk.complete()
    talk.complete()
    talk.status("busy", talk.barrier)
    talk.stream("late", parent=talk.barrier)
    talk.until(DRAIN_QUIET - 0.01)
    talk.stream("later", parent=talk.barrier)
    talk.until(2 * DRAIN_QUIET - 0.02)
    assert talk.outcome() is None
    talk.until(2 * DRAIN_QUIET)
    assert talk.outcome() is Outcome.PASSED
    assert (talk.outputs(0), [output["text"] for output in talk.outputs(1)]) == ([], ["latelater"])


def test_output_that_names_a_nudge_as_its_parent_belongs_to_the_interrupted_cell() -> None:
    talk = Conversation("one")
    talk.interrupt()
    talk.stream("cleaned up", parent=talk.barrier)
    assert [output["text"] for output in talk.outputs()] == ["cleaned up"]


def test_a_kernel_that_names_a_question_of_the_servers_while_a_cell_runs_means_the_cell() -> None:
    talk = Conversation("a", "b")
    question = {"msg_id": "the servers", "msg_type": "kernel_info_request"}
    said = [
        message("status", {"execution_state": "busy"}),
        message("status", {"execution_state": "idle"}),
        message("stream", {"name": "stdout", "text": "set"}),
    ]
    for each in said:
        talk.hear(replace(each, parent=question))
    talk.reply()
    assert talk.sources == ["a"]
    talk.hear(replace(said[1], parent=question))
    assert talk.sources == ["a", "b"]
    assert [output["text"] for output in talk.outputs()] == ["set"]
    assert talk.run.results()[0].incomplete is None


def test_before_the_barrier_is_answered_no_quiet_is_long_enough() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.stream("x")
    talk.until(DRAIN_LIMIT - 0.1)
    assert talk.outcome() is None
    assert talk.barrier_reply() == ()  # comes over another socket and says nothing about output
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.PASSED


def test_a_thread_that_never_falls_silent_is_left_alone_after_a_while() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.status("busy", talk.barrier)
    for tenth in range(1, 20):
        talk.until(tenth / 10)
        talk.stream("tick")
    assert talk.outcome() is None
    talk.until(DRAIN_LIMIT)
    assert talk.outcome() is Outcome.PASSED


def test_what_comes_after_the_end_changes_nothing() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.until(DRAIN_LIMIT)
    assert talk.stream("too late") == ()
    assert talk.outputs() == []
    assert talk.run.tick(99.0) == []


def test_a_kernel_that_ends_while_the_last_output_is_awaited_changes_no_verdict() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.hear(message("status", {"execution_state": "dead"}, session=OURS))
    assert talk.outcome() is Outcome.PASSED


def test_a_server_that_is_lost_while_the_last_output_is_awaited_changes_no_verdict() -> None:
    talk = Conversation("one")
    talk.complete()
    talk.run.lose_server(talk.now, ServerUnreachable("gone"))
    assert talk.outcome() is Outcome.PASSED


def error(ename: str = "SystemExit", evalue: str = "2", **about: Any) -> Message:
    return message("error", {"ename": ename, "evalue": evalue, "traceback": ["line"]}, **about)


def test_the_cells_after_one_that_shows_an_error_run_and_the_run_fails() -> None:
    run = Conversation("%run script.py", "2")
    run.hear(error(parent=run.request))
    run.complete()
    assert run.sources == ["%run script.py", "2"]
    run.complete()
    run.until(60.0)
    assert (run.outcome(), run.outcomes()) == (Outcome.FAILED, [FAILED, PASSED])
    assert run.problem.startswith("SystemExit: 2 in cell 1 of 2: its outputs show the error")


def test_an_error_that_a_thread_shows_after_its_cell_has_ended_fails_that_cell() -> None:
    told: list[Event] = []
    run = Conversation("threads", "2", observe=told.append)
    first = run.request
    run.complete()
    run.complete()
    run.hear(error("ValueError", "late", parent=first))
    run.until(60.0)
    assert (run.outcome(), run.outcomes()) == (Outcome.FAILED, [FAILED, PASSED])
    assert run.problem.startswith("ValueError: late in cell 1 of 2")


def test_an_error_that_was_cleared_after_its_cell_had_ended_fails_nothing() -> None:
    run = Conversation("threads")
    first = run.request
    run.hear(error(parent=first))
    run.complete()
    run.hear(message("clear_output", {}, parent=first))
    run.until(60.0)
    assert (run.outcome(), run.outcomes(), run.outputs()) == (Outcome.PASSED, [PASSED], [])


def test_what_an_output_widget_holds_is_no_verdict() -> None:
    run = Conversation("with out: ...", "2")
    model = {"_model_name": "OutputModel", "_model_module": "@jupyter-widgets/output", "msg_id": "", "outputs": []}
    opened = {"comm_id": "w", "target_name": "jupyter.widget", "data": {"state": model}}
    run.hear(message("comm_open", opened, parent=run.request))
    held = {"comm_id": "w", "data": {"method": "update", "state": {"msg_id": run.request}}}
    run.hear(message("comm_msg", held, parent=run.request))
    run.hear(error(parent=run.request))
    run.complete()
    run.complete()
    run.until(60.0)
    assert (run.outcome(), run.outcomes()) == (Outcome.PASSED, [PASSED, PASSED])


def test_an_error_that_ends_the_run_is_told_rather_than_one_that_was_shown_before() -> None:
    run = Conversation("%run script.py", "1/0", "3")
    run.hear(error(parent=run.request))
    run.complete()
    run.fail("ZeroDivisionError", "division by zero")
    run.status("idle")
    run.until(60.0)
    assert (run.outcome(), run.outcomes()) == (Outcome.FAILED, [FAILED, FAILED, NOT_RUN])
    assert run.problem == "ZeroDivisionError: division by zero in cell 2 of 3"


def test_a_traceback_that_the_kernel_repeats_is_not_shown_again() -> None:
    run = Conversation(cell("1/0", expects_error=True), "group")
    run.fail("ZeroDivisionError", "division by zero", ["old"])
    run.status("idle")
    run.hear(message("stream", {"name": "stderr", "text": "| the cause\n"}, parent=run.request))
    run.fail("ExceptionGroup", "1 sub-exception", ["old"])
    run.status("idle")
    run.until(60.0)
    found = run.run.results()[1].error
    assert found is not None
    assert (found.traceback, found.stderr) == ([], "| the cause")
    assert [output["output_type"] for output in run.outputs(1)] == ["stream"]


def test_results_before_the_end_say_that_nothing_more_has_run_yet() -> None:
    talk = Conversation("one", "two", {"source": "", "action": Action.CLEAR})
    assert talk.outcomes() == [CellOutcome.INTERRUPTED, NOT_RUN, SKIPPED]


def test_the_kernel_is_looked_for_once_a_minute() -> None:
    talk = Conversation("one")
    talk.until(3 * PROBE_EVERY)
    assert talk.probes == 3
    talk.probed(alive=True)
    assert talk.outcome() is None


# Observers -------------------------------------------------------------------------------------------------------


def test_an_observer_is_told_of_cells_and_outputs_in_their_order() -> None:
    seen: list[Event] = []
    talk = Conversation("one", notebook="a.ipynb", observe=seen.append)
    talk.stream("hello")
    talk.hear(message("clear_output", {"wait": False}, parent=talk.request))
    talk.complete(payload=[{"source": "set_next_input", "text": "x"}])
    started, output, warned, finished = seen
    assert started == CellStarted("a.ipynb", 0, 1, 1, "one")
    stream = {"output_type": "stream", "name": "stdout", "text": "hello"}
    assert output == OutputArrived("a.ipynb", 0, stream)
    assert isinstance(warned, Warned)
    assert "in cell 1 of 1" in warned.text
    assert finished == CellFinished("a.ipynb", talk.run.results()[0])


# Anything may come -----------------------------------------------------------------------------------------------

_kinds = st.sampled_from(
    """stream display_data execute_result error update_display_data clear_output status execute_input execute_reply
    input_request shutdown_reply kernel_info_reply comm_open""".split()  # noqa: SIM905
)
_keys = """name text data metadata transient execution_count execution_state ename evalue traceback status payload wait
    restart prompt""".split()  # noqa: SIM905
_contents = st.dictionaries(st.sampled_from(_keys), json_values | st.sampled_from(["idle", "busy", "dead", "error"]))
_messages = st.builds(
    Message,
    st.sampled_from([*Channel, "gossip"]),
    st.fixed_dictionaries({"msg_type": _kinds, "session": st.sampled_from([KERNEL, OURS, STRANGER, ""]) | json_values}),
    st.fixed_dictionaries({}, optional={"msg_id": st.sampled_from([f"{OURS}_{n}" for n in range(1, 6)]) | json_values}),
    _contents,
    st.dictionaries(st.sampled_from(["started"]), json_values),
)


@QUICK
@given(st.lists(st.tuples(st.floats(0, 5), _messages), max_size=30))
def test_no_message_of_whatever_content_breaks_a_run(arrivals: list[tuple[float, Message]]) -> None:
    seen: list[Event] = []
    talk = Conversation(cell(timeout=20), cell(idle_timeout=9), "three", run_timeout=90, observe=seen.append)
    for pause, arrived in arrivals:
        talk.until(talk.now + pause)
        talk.hear(arrived)
    talk.until(1000)
    assert talk.run.ending is not None
    assert len(talk.run.results()) == 3
