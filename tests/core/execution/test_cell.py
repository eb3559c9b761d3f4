"""One cell from its request to its verdict, which the reply decides."""

from typing import Any

import pytest

from nbrun.core.delivery.loss_detection import Stretch
from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.execution.cell import CellExecution, State, Stop
from nbrun.core.outputs.area import Displays, OutputArea
from nbrun.core.planning.plan import Action, CellPlan
from nbrun.core.protocol.messages import Channel, Message
from nbrun.core.results import CellError, CellOutcome
from tests.core.conversation import message

PASSED, FAILED, TIMED_OUT = CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.TIMED_OUT
INTERRUPTED, NOT_RUN = CellOutcome.INTERRUPTED, CellOutcome.NOT_RUN


def sent(**plan: Any) -> CellExecution:
    return CellExecution(CellPlan(4, "id", "1", Action.RUN, **plan), OutputArea(Displays()), number=1, sent_at=10.0)


def reply(status: Any = "ok", *, started: Any = None, date: str = "replied", **content: Any) -> Message:
    metadata = {"started": started} if started else {}
    body = {"status": status, **content}
    return message("execute_reply", body, channel=Channel.SHELL, metadata=metadata, date=date)


def failed(ename: Any = "ValueError", evalue: Any = "bad", traceback: Any = ("line",)) -> Message:
    return reply("error", ename=ename, evalue=evalue, traceback=traceback)


def status(state: Any, date: str = "now") -> Message:
    return message("status", {"execution_state": state}, date=date)


def echo(count: Any, date: str = "echoed") -> Message:
    return message("execute_input", {"code": "1", "execution_count": count}, date=date)


def settled(answer: Message | None, stop: Stop | None = None, **plan: Any) -> CellExecution:
    cell = sent(**plan)
    cell.stop, cell.stop_reason = stop, "for a reason" if stop else ""
    if answer is not None:
        cell.on_reply(answer)
    cell.settle(12.5)
    return cell


def shown(cell: CellExecution) -> list[str]:
    return [output["output_type"] for output in cell.area.render()]


# Signs ---------------------------------------------------------------------------------------------------------------


def test_an_error_that_the_reply_has_no_name_for_is_named_as_it_was_shown() -> None:
    """So ipykernel replies where a result's representation raised."""
    cell = sent()
    cell.area.apply(message("error", {"ename": "ValueError", "evalue": "bad repr", "traceback": ["line"]}))
    cell.on_reply(failed("NoneType", "None"))
    cell.settle(12.5)
    assert cell.error == CellError("ValueError", "bad repr", ["line"])
    unshown = settled(failed("NoneType", "None"))
    assert unshown.error is not None
    assert unshown.error.ename == "NoneType", "nothing says more"


def test_reply_and_then_idle_complete_a_cell() -> None:
    cell = sent()
    states = [cell.state]
    completed = [cell.on_status(status("busy"))]
    states.append(cell.state)
    completed.append(cell.on_reply(reply()))
    states.append(cell.state)
    completed.append(cell.on_status(status("idle")))
    states.append(cell.state)
    assert states == [State.SENT, State.SENT, State.REPLIED, State.DONE]
    assert completed == [False, False, True]


def test_idle_and_then_reply_complete_a_cell() -> None:
    cell = sent()
    completed = [cell.on_status(status("idle"))]
    assert cell.state is State.IDLED
    completed.append(cell.on_reply(reply()))
    assert completed == [False, True]


def test_the_same_sign_twice_is_one_sign() -> None:
    idled, replied = sent(), sent()
    assert [idled.on_status(status("idle")) for _ in range(2)] == [False, False]
    assert [replied.on_reply(reply()), replied.on_reply(failed())] == [False, False]
    assert (idled.state, replied.state) == (State.IDLED, State.REPLIED)
    replied.settle(1.0)
    assert replied.outcome is PASSED


@pytest.mark.parametrize("state", ["starting", None, 7, ["idle"]], ids=repr)
def test_other_states_are_no_sign(state: Any) -> None:
    cell = sent()
    assert cell.on_status(status(state)) is False
    assert (cell.state, cell.timing) == (State.SENT, {})


def test_the_times_are_those_that_the_messages_bear() -> None:
    cell = sent()
    cell.on_status(status("busy", "b"))
    cell.on_execute_input(echo(1, "e"))
    cell.on_reply(reply(started="s", date="r"))
    cell.on_status(status("idle", "i"))
    assert cell.timing == {
        "iopub.status.busy": "b",
        "iopub.execute_input": "e",
        "shell.execute_reply.started": "s",
        "shell.execute_reply": "r",
        "iopub.status.idle": "i",
    }


def test_a_message_without_a_time_gives_none() -> None:
    cell = sent()
    cell.on_status(status("busy", ""))
    cell.on_reply(reply(date=""))
    assert cell.timing == {}


def test_a_time_is_text_as_the_notebook_format_wants_it() -> None:
    cell = sent()
    cell.on_reply(reply(started=5))
    assert cell.timing["shell.execute_reply.started"] == "5"


# Counts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "count"),
    [
        ([echo(7), reply(execution_count=8)], 7),
        ([reply(execution_count=8), echo(7)], 7),
        ([reply(execution_count=8)], 8),
        ([echo("x"), reply(execution_count=8)], 8),
        ([reply("aborted", execution_count=8)], None),
        ([reply()], None),
    ],
    ids=["the echo's", "the echo's, late", "the reply's", "the reply's for a bad echo", "none of an aborted", "none"],
)
def test_the_count_is_the_echos_before_the_replys(messages: list[Message], count: int | None) -> None:
    cell = sent()
    for each in messages:
        cell.on_reply(each) if each.type == "execute_reply" else cell.on_execute_input(each)
    assert cell.execution_count == count


# Verdicts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "plan", "outcome", "ename"),
    [
        (reply(), {}, PASSED, None),
        (failed(), {}, FAILED, "ValueError"),
        (failed(), {"expects_error": True}, PASSED, "ValueError"),
        (failed(), {"allows_error": True}, FAILED, "ValueError"),
        (reply(), {"expects_error": True}, PASSED, None),
        (failed("SystemExit", "0"), {}, PASSED, None),
        (failed("SystemExit", "3"), {}, FAILED, "SystemExit"),
        (reply("error"), {}, FAILED, ""),
        (reply(None), {}, FAILED, ""),
        (reply({"odd": 1}), {}, FAILED, ""),
        (reply("aborted"), {}, NOT_RUN, None),
        (reply("abort"), {}, NOT_RUN, None),
        (None, {}, FAILED, "ReplyLost"),
    ],
    ids=[
        "ok", "error", "expected", "allowed", "expected but none", "sys.exit(0)", "sys.exit(3)", "error without a name",
        "no status", "an odd status", "aborted", "abort", "lost",
    ],
)  # fmt: skip
def test_the_verdict_is_the_replys(
    answer: Message | None, plan: dict[str, Any], outcome: CellOutcome, ename: str | None
) -> None:
    cell = settled(answer, **plan)
    assert cell.outcome is outcome
    assert (cell.error.ename if cell.error else None) == ename


@pytest.mark.parametrize(
    ("answer", "stop", "outcome"),
    [
        (failed("KeyboardInterrupt", ""), Stop.CELL_TIMEOUT, TIMED_OUT),
        (failed("KeyboardInterrupt", ""), Stop.IDLE_TIMEOUT, TIMED_OUT),
        (failed("KeyboardInterrupt", ""), Stop.RUN_TIMEOUT, TIMED_OUT),
        (failed("KeyboardInterrupt", ""), Stop.SIGNAL, INTERRUPTED),
        (failed("KeyboardInterrupt", ""), Stop.INPUT, FAILED),
        (reply(), Stop.CELL_TIMEOUT, TIMED_OUT),
        (reply(), Stop.SIGNAL, PASSED),
        (reply(), Stop.INPUT, PASSED),
        (reply("aborted"), Stop.SIGNAL, INTERRUPTED),
        (None, Stop.CELL_TIMEOUT, TIMED_OUT),
        (None, Stop.SIGNAL, INTERRUPTED),
        (None, Stop.INPUT, FAILED),
    ],
    ids=[
        "limit", "idle limit", "run's limit", "signal", "input", "limit, but ok", "signal, but ok", "input, but ok",
        "signal, aborted", "limit, reply lost", "signal, reply lost", "input, reply lost",
    ],
)  # fmt: skip
def test_of_a_cell_that_was_interrupted_the_reason_is_told(
    answer: Message | None, stop: Stop, outcome: CellOutcome
) -> None:
    cell = settled(answer, stop, expects_error=True)
    assert cell.outcome is outcome
    if outcome is not PASSED:
        assert cell.error is not None
        assert (cell.error.ename, cell.error.evalue) == (stop.value, "for a reason")


def test_an_aborted_cell_that_had_begun_was_broken_off_and_is_never_sent_again() -> None:
    echoed, shown_something = sent(), sent()
    echoed.on_execute_input(echo(1))
    shown_something.area.apply(message("stream", {"name": "stdout", "text": "x"}))
    for cell in (echoed, shown_something):
        cell.on_reply(reply("aborted"))
        assert not cell.never_ran
        cell.settle(1.0)
        assert (cell.outcome, cell.error) == (FAILED, CellError("Aborted", "the kernel broke the cell off"))


def test_a_cell_that_starts_again_forgets_the_reply_and_counts_its_attempts() -> None:
    cell = sent()
    cell.on_reply(reply("aborted"))
    cell.on_status(status("idle"))
    cell.start_again()
    assert (cell.state, cell.aborted, cell.attempts) == (State.SENT, False, 2)
    assert cell.on_reply(reply()) is False
    assert cell.on_status(status("idle")) is True


# What is shown -------------------------------------------------------------------------------------------------------

ERROR = message("error", {"ename": "ValueError", "evalue": "bad", "traceback": ["line"]})


def test_an_error_that_never_arrived_is_shown_as_the_reply_tells_it() -> None:
    assert settled(failed()).area.render() == [
        {"output_type": "error", "ename": "ValueError", "evalue": "bad", "traceback": ["line"]}
    ]


def test_an_error_that_arrived_is_not_shown_twice_even_if_it_was_cleared() -> None:
    for more in ([], [message("clear_output", {"wait": False})]):
        cell = sent()
        for each in [ERROR, *more]:
            cell.area.apply(each)
        cell.on_reply(failed())
        cell.settle(1.0)
        assert shown(cell) == ([] if more else ["error"])


def test_an_error_without_a_traceback_was_told_in_another_way() -> None:
    assert shown(settled(failed("UsageError", "no such magic", []))) == []


@pytest.mark.parametrize("traceback", ["one\ntwo", ["one", "two"]], ids=["a text", "a list"])
def test_a_traceback_is_shown_line_by_line(traceback: Any) -> None:
    assert settled(failed(traceback=traceback)).area.render()[0]["traceback"] == ["one", "two"]


def test_a_loss_is_shown_where_the_output_would_stand() -> None:
    cell = sent()
    cell.settle(1.0, CellOutcome.KERNEL_DIED, CellError("KernelDied", "the kernel died"))
    assert cell.area.render() == [
        {"output_type": "error", "ename": "KernelDied", "evalue": "the kernel died", "traceback": []}
    ]


@pytest.mark.parametrize(
    ("payload", "outputs"),
    [
        ([{"source": "page", "data": {"text/plain": "help"}, "start": 0}], ["display_data"]),
        ([{"source": "page", "data": {}}, {"source": "page", "data": {}}], ["display_data"]),
        ([{"source": "page", "data": None}], ["display_data"]),
        ([{"source": "edit_magic"}, 7, None], []),
        ("page", []),
        (None, []),
    ],
    ids=["a page", "two pages", "a page of nothing", "other payloads", "no list", "none"],
)
def test_a_page_is_shown_below_the_cell(payload: Any, outputs: list[str]) -> None:
    assert shown(settled(reply(payload=payload))) == outputs


@pytest.mark.parametrize(
    ("payload", "exits", "writes"),
    [
        ([{"source": "ask_exit", "keepkernel": False}], True, False),
        ([{"source": "ask_exit"}], True, False),
        ([{"source": "ask_exit", "keepkernel": True}], False, False),
        ([{"source": "set_next_input", "text": "x"}], False, True),
        ([{"source": "set_next_input"}, {"source": "ask_exit"}], True, True),
        ([], False, False),
    ],
    ids=["exit()", "exit, bare", "exit, keeping the kernel", "%load", "both", "none"],
)
def test_what_a_cell_asks_of_its_frontend(payload: Any, exits: bool, writes: bool) -> None:
    cell = settled(reply(payload=payload))
    assert (cell.asks_exit, cell.asks_new_input) == (exits, writes)


def test_before_the_reply_a_cell_asks_for_nothing() -> None:
    cell = sent()
    assert (cell.asks_exit, cell.asks_new_input, cell.exited_well, cell.aborted, cell.never_ran) == (False,) * 5


# Results -------------------------------------------------------------------------------------------------------------


def test_a_result_says_how_long_the_cell_took() -> None:
    result = settled(reply(execution_count=3)).result()
    assert (result.index, result.id, result.outcome) == (4, "id", PASSED)
    assert (result.execution_count, result.seconds) == (3, 2.5)


def test_a_cell_that_still_runs_would_be_interrupted() -> None:
    result = sent().result()
    assert (result.outcome, result.seconds) == (INTERRUPTED, None)


def test_a_cell_that_was_not_run_shows_no_count() -> None:
    assert settled(reply("aborted", execution_count=3)).result().execution_count is None


# What is missing -------------------------------------------------------------------------------------------------


def framed(*messages: Message, stretch: Stretch | None = None, notices: int = 0) -> CellExecution:
    """Return a cell that has ended after these messages."""
    cell = sent()
    for each in messages:
        {"status": cell.on_status, "execute_input": cell.on_execute_input, "execute_reply": cell.on_reply}[each.type](
            each
        )
    cell.stretch, cell.notices = stretch, notices
    cell.settle(now=12.0)
    return cell


WHOLE = (status("busy"), echo(1), reply(), status("idle"))


@pytest.mark.parametrize(
    ("cell", "incomplete"),
    [
        (framed(*WHOLE), None),
        (framed(*WHOLE, stretch=Stretch(1, 9, 0, alone=True)), None),
        (framed(*WHOLE, stretch=Stretch(1, 9, -1, alone=False)), None),
        (framed(*WHOLE, stretch=Stretch(1, 9, 4, alone=True)), Incomplete((Cause.MISSING_MESSAGES,), 4, exact=True)),
        (framed(*WHOLE, stretch=Stretch(1, 9, 4, alone=False)), Incomplete((Cause.MISSING_MESSAGES,), 4)),
        (framed(*WHOLE, notices=2), Incomplete((Cause.RATE_LIMIT,))),
        (framed(reply(), status("idle"), stretch=Stretch(1, 9, 2, alone=True)), None),
        (
            framed(status("busy"), echo(1), reply(), stretch=Stretch(1, 9, 3, alone=True)),
            Incomplete((Cause.MISSING_MESSAGES, Cause.IDLE_LOST), 2, exact=True),
        ),
        (framed(status("busy"), echo(1), failed(traceback=()), status("idle")), None),
        (framed(status("busy"), echo(1), failed(), status("idle")), None),
        (
            framed(status("busy"), echo(1), failed(), status("idle"), notices=1),
            Incomplete((Cause.RATE_LIMIT, Cause.ERROR_LOST)),
        ),
    ],
    ids=[
        "all came",
        "and so say the numbers",
        "more came than were counted",
        "four outputs did not",
        "and a stranger was there",
        "the server said so",
        "only what frames the outputs did not come",
        "the idle did not come either",
        "an error that is told without a traceback",
        "kernels may leave the error message out",
        "the error may have been dropped",
    ],
)
def test_what_is_missing_of_a_cell(cell: CellExecution, incomplete: Incomplete | None) -> None:
    assert cell.incomplete() == incomplete


def test_of_a_cell_that_did_not_come_to_its_end_its_outcome_says_enough() -> None:
    assert sent().incomplete() is None
    assert settled(None).incomplete() is None


# Errors that the outputs show and the reply does not report -----------------------------------------------------------


def error_shown(ename: str = "SystemExit", evalue: str = "2", traceback: Any = ("line",)) -> Message:
    return message("error", {"ename": ename, "evalue": evalue, "traceback": list(traceback)})


def settled_over(
    *outputs: Message, answer: Message | None = None, stop: Stop | None = None, **plan: Any
) -> CellExecution:
    cell = sent(**plan)
    cell.stop, cell.stop_reason = stop, "for a reason" if stop else ""
    for output in outputs:
        cell.area.apply(output)
    cell.on_reply(answer or reply())
    cell.settle(12.5)
    return cell


EXITED = failed("SystemExit", "0")
OK_EXIT = error_shown("SystemExit", "0")


@pytest.mark.parametrize(
    ("outputs", "answer", "plan", "outcome", "ename"),
    [
        ([error_shown()], reply(), {}, FAILED, "SystemExit"),
        ([error_shown("ValueError", "0")], reply(), {}, FAILED, "ValueError"),
        ([OK_EXIT], reply(), {}, PASSED, None),
        ([error_shown("SystemExit", "")], reply(), {}, PASSED, None),
        ([OK_EXIT, error_shown("KeyError", "a"), error_shown("E", "")], reply(), {}, FAILED, "KeyError"),
        ([error_shown()], reply(), {"expects_error": True}, PASSED, "SystemExit"),
        ([error_shown()], reply(), {"allows_error": True}, FAILED, "SystemExit"),
        ([error_shown("KeyError", "a"), OK_EXIT], EXITED, {}, FAILED, "KeyError"),
        ([OK_EXIT], EXITED, {}, PASSED, None),
        ([error_shown("KeyError", "a"), error_shown("ValueError", "bad")], failed(), {}, FAILED, "ValueError"),
        ([error_shown(), message("clear_output", {"wait": False})], reply(), {}, PASSED, None),
        ([error_shown(), message("clear_output", {"wait": True})], reply(), {}, FAILED, "SystemExit"),
    ],
    ids=[
        "a script exits with 2", "any other error", "exit 0", "exit without a code", "the first counts", "expected",
        "allowed", "before sys.exit(0)", "sys.exit(0) alone", "before a raised one", "cleared", "cleared for nothing",
    ],
)  # fmt: skip
def test_a_cell_fails_whose_outputs_show_an_error(
    outputs: list[Message], answer: Message, plan: dict[str, Any], outcome: CellOutcome, ename: str | None
) -> None:
    cell = settled_over(*outputs, answer=answer, **plan)
    result = cell.result()
    assert (result.outcome, result.error.ename if result.error else None) == (outcome, ename)
    assert result.allowed is ("allows_error" in plan)
    if result.error:
        assert result.error.shown is (answer.content["status"] == "ok" or answer is EXITED)


@pytest.mark.parametrize(
    ("stop", "outcome"),
    [(Stop.SIGNAL, INTERRUPTED), (Stop.CELL_TIMEOUT, TIMED_OUT), (Stop.INPUT, FAILED)],
    ids=["a signal", "a limit", "input"],
)
def test_a_script_that_shows_the_interrupt_was_interrupted(stop: Stop, outcome: CellOutcome) -> None:
    """``%run`` shows the KeyboardInterrupt, and its cell passes."""
    cell = settled_over(error_shown("KeyboardInterrupt", ""), stop=stop)
    assert cell.outcome is outcome
    assert cell.error == CellError(stop.value, "for a reason")


@pytest.mark.parametrize("answer", [reply(), EXITED], ids=["ok", "sys.exit(0)"])
def test_a_verdict_is_reviewed_by_the_outputs_as_they_are_in_the_end(answer: Message) -> None:
    cell = settled(answer)
    assert cell.outcome is PASSED
    cell.area.apply(error_shown("ValueError", "of a thread"))
    assert cell.outcome is PASSED
    cell.review()
    assert (cell.outcome, cell.error) == (FAILED, CellError("ValueError", "of a thread", ["line"], shown=True))
    cell.area.apply(message("clear_output", {}))
    cell.review()
    assert (cell.outcome, cell.error) == (PASSED, None)


@pytest.mark.parametrize(
    ("answer", "stop"),
    [(failed(), None), (None, None), (reply("aborted"), None), (reply(), Stop.CELL_TIMEOUT)],
    ids=["raised", "reply lost", "refused", "timed out"],
)
def test_a_verdict_that_the_outputs_do_not_decide_is_not_reviewed(answer: Message | None, stop: Stop | None) -> None:
    cell = settled(answer, stop)
    before = cell.outcome, cell.error
    cell.area.apply(error_shown("ValueError", "of a thread"))
    cell.review()
    assert (cell.outcome, cell.error) == before


# Errors without a traceback ------------------------------------------------------------------------------------------


def test_an_error_without_a_traceback_comes_with_the_end_of_standard_error() -> None:
    """So ipykernel tells of an ExceptionGroup."""
    printed = message("stream", {"name": "stderr", "text": "  | ValueError: the cause\n  +---\n"})
    result = settled_over(printed, answer=failed("ExceptionGroup", "1 sub-exception", ())).result()
    assert result.error == CellError(
        "ExceptionGroup", "1 sub-exception", [], stderr="  | ValueError: the cause\n  +---"
    )
    whole = settled_over(printed, answer=failed()).result()
    assert whole.error == CellError("ValueError", "bad", ["line"]), "a traceback says enough"


def test_a_traceback_that_was_another_cells_is_not_this_ones() -> None:
    """ipykernel repeats the last one where an error has none."""
    earlier = settled_over(error_shown("E", "", ["shown"]), answer=failed(traceback=["raised"]))
    known = set(earlier.tracebacks())
    assert known == {("raised",), ("shown",)}
    cell = sent()
    cell.stale = known
    cell.on_reply(failed("ExceptionGroup", "", ["shown"]))
    cell.settle(12.5)
    assert cell.error == CellError("ExceptionGroup", "", [])
    assert cell.area.render() == [], "and no error output is made of it"
    same = sent()
    same.stale = known
    same.area.apply(error_shown("ValueError", "bad", ["raised"]))
    same.on_reply(failed(traceback=["raised"]))
    same.settle(12.5)
    assert same.error == CellError("ValueError", "bad", ["raised"]), "the error message says that it is its own"
    assert list(settled(None).tracebacks()) == []


def test_a_representation_that_failed_in_an_earlier_cell_fails_no_other() -> None:
    """ipykernel 7 reports it once more for the next cell with ``await``, where nothing was raised."""
    cell = sent()
    cell.stale = {("bad repr",)}
    cell.on_reply(failed("NoneType", "None", ["bad repr"]))
    cell.settle(12.5)
    assert (cell.outcome, cell.error, cell.area.render()) == (PASSED, None, [])
