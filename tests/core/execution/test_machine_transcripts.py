"""Recorded messages of real kernels and servers still lead to the same results.

The transcripts in ``fixtures/transcripts`` are made by :mod:`tests.support.record_transcripts` with ipykernel 7.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import nbformat
import pytest

from nbrun.core.protocol import agent
from nbrun.core.protocol.messages import CONDITIONAL_EXECUTE
from nbrun.core.results import CellOutcome, Outcome
from tests.support.transcripts import TRANSCRIPTS, Played, Transcript

PASSED, FAILED, TIMED_OUT = CellOutcome.PASSED, CellOutcome.FAILED, CellOutcome.TIMED_OUT
DIED, INTERRUPTED, SKIPPED, NOT_RUN = (
    CellOutcome.KERNEL_DIED,
    CellOutcome.INTERRUPTED,
    CellOutcome.SKIPPED,
    CellOutcome.NOT_RUN,
)
EXECUTE, FENCE = "execute_request", "kernel_info_request"
AHEAD, RECALL = [CONDITIONAL_EXECUTE] * 4, agent.RECALL


@dataclass(frozen=True)
class Expected:
    """What a recorded run means; the outputs are those of its first cell, by type."""

    outcome: Outcome
    cells: list[CellOutcome]
    problem: str = ""
    outputs: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    interrupts: int = 0


RUNS = {
    "normal": Expected(
        Outcome.PASSED,
        [PASSED, PASSED],
        outputs=["stream", "stream", "display_data", "execute_result"],
        sent=[EXECUTE, EXECUTE, FENCE],
    ),
    "reply_first": Expected(Outcome.PASSED, [PASSED], outputs=["execute_result"], sent=[EXECUTE, FENCE]),
    "idle_first": Expected(Outcome.PASSED, [PASSED], outputs=["execute_result"], sent=[EXECUTE, FENCE]),
    "error": Expected(
        Outcome.FAILED,
        [FAILED, NOT_RUN],
        "ZeroDivisionError: division by zero in cell 1 of 2",
        outputs=["error"],
        sent=[EXECUTE, FENCE],
    ),
    "usage_error": Expected(
        Outcome.FAILED,
        [FAILED, NOT_RUN],
        "UsageError: Line magic function `%no_such_magic` not found in cell 1 of 2",
        outputs=["stream"],
        sent=[EXECUTE, FENCE],
    ),
    "input": Expected(
        Outcome.FAILED,
        [FAILED],
        "StdinNotImplementedError: raw_input was called, but this frontend does not support input requests "
        "in cell 1 of 1",
        outputs=["error"],
        sent=[EXECUTE, FENCE],
    ),
    "exit": Expected(
        Outcome.KERNEL_DIED, [PASSED, NOT_RUN], "the kernel was told to exit in cell 1 of 2", sent=[EXECUTE]
    ),
    "system_exit": Expected(Outcome.PASSED, [PASSED, SKIPPED], outputs=["error", "stream"], sent=[EXECUTE, FENCE]),
    "os_exit": Expected(
        Outcome.KERNEL_DIED,
        [DIED, NOT_RUN],
        "the kernel died, and the server put a fresh one in its place, in cell 1 of 2",
        outputs=["error"],
        sent=[EXECUTE],
    ),
    "os_exit_final": Expected(
        Outcome.KERNEL_DIED, [DIED, NOT_RUN], "the kernel died in cell 1 of 2", outputs=["error"], sent=[EXECUTE]
    ),
    "restarted": Expected(
        Outcome.KERNEL_DIED,
        [DIED, NOT_RUN],
        "the kernel was restarted by somebody else in cell 1 of 2",
        outputs=["stream", "error"],
        sent=[EXECUTE],
    ),
    "shut_down": Expected(
        Outcome.KERNEL_DIED,
        [DIED, NOT_RUN],
        "the kernel was shut down by somebody else in cell 1 of 2",
        outputs=["stream", "error"],
        sent=[EXECUTE],
    ),
    "interrupted": Expected(
        Outcome.FAILED,
        [FAILED, NOT_RUN],
        "KeyboardInterrupt in cell 1 of 2",
        outputs=["stream", "error"],
        sent=[EXECUTE, FENCE, FENCE],
    ),
    "ctrl_c": Expected(
        Outcome.INTERRUPTED,
        [INTERRUPTED, NOT_RUN],
        "interrupted by Ctrl-C in cell 1 of 2",
        outputs=["stream", "error"],
        sent=[EXECUTE, FENCE],
        interrupts=1,
    ),
    "cell_timeout": Expected(
        Outcome.TIMED_OUT,
        [TIMED_OUT, NOT_RUN],
        "exceeded the cell's limit of 0.5 s in cell 1 of 2",
        outputs=["error"],
        sent=[EXECUTE, FENCE, FENCE],
        interrupts=1,
    ),
    "await_timeout": Expected(
        Outcome.TIMED_OUT,
        [TIMED_OUT, NOT_RUN],
        "exceeded the cell's limit of 0.5 s in cell 1 of 2",
        outputs=["error"],
        sent=[EXECUTE, FENCE, FENCE],
        interrupts=1,
    ),
    "deaf_timeout": Expected(
        Outcome.TIMED_OUT,
        [TIMED_OUT, NOT_RUN],
        "exceeded the cell's limit of 0.5 s in cell 1 of 2",
        outputs=["error"],
        sent=[EXECUTE, FENCE, FENCE],
        interrupts=2,
    ),
    "aborted": Expected(
        Outcome.PASSED, [PASSED, PASSED], outputs=["execute_result"], sent=[EXECUTE, EXECUTE, EXECUTE, FENCE]
    ),
    "late_output": Expected(Outcome.PASSED, [PASSED, PASSED], outputs=["stream"], sent=[EXECUTE, EXECUTE, FENCE]),
    "rate_limit": Expected(
        Outcome.FAILED,
        [FAILED],
        "ZeroDivisionError: division by zero in cell 1 of 1",
        outputs=["display_data"] * 30 + ["error"],
        sent=[EXECUTE, FENCE],
    ),
    "cut": Expected(Outcome.PASSED, [PASSED, PASSED], outputs=["stream"], sent=[EXECUTE, FENCE, EXECUTE, FENCE]),
    "display_update": Expected(
        Outcome.PASSED, [PASSED, PASSED], outputs=["display_data"], sent=[EXECUTE, EXECUTE, FENCE]
    ),
    "ahead_error": Expected(
        Outcome.FAILED,
        [PASSED, FAILED, NOT_RUN, NOT_RUN],
        "ZeroDivisionError: division by zero in cell 2 of 4",
        outputs=["execute_result"],
        sent=[*AHEAD, FENCE],
    ),
    "ahead_system_exit": Expected(Outcome.PASSED, [PASSED, PASSED, SKIPPED, SKIPPED], sent=[*AHEAD, FENCE]),
    "ahead_timeout": Expected(
        Outcome.TIMED_OUT,
        [PASSED, TIMED_OUT, NOT_RUN, NOT_RUN],
        "exceeded the cell's limit of 0.5 s in cell 2 of 4",
        sent=[*AHEAD, RECALL, FENCE, FENCE],
        interrupts=1,
    ),
    "ahead_death": Expected(
        Outcome.KERNEL_DIED,
        [PASSED, DIED, NOT_RUN, NOT_RUN],
        "the kernel died in cell 2 of 4",
        outputs=["execute_result"],
        sent=[*AHEAD],
    ),
}


def test_there_is_a_recording_for_each_expectation_and_none_without() -> None:
    assert {path.stem for path in TRANSCRIPTS.glob("*.jsonl")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_means_what_it_meant(name: str) -> None:
    played, expected = Transcript.load(name).play(), RUNS[name]
    ending = played.execution.ending
    assert ending is not None
    problem = re.sub(r", [\d.]+ s after it started", "", ending.problem.message) if ending.problem else ""
    results = [result.outcome for result in played.execution.results()]
    assert (ending.outcome, results, problem) == (expected.outcome, expected.cells, expected.problem)
    assert [output["output_type"] for output in played.outputs(0)] == expected.outputs
    assert played.sent() == expected.sent
    assert len(played.interrupts()) == expected.interrupts


@pytest.mark.parametrize("name", RUNS)
def test_the_outputs_of_a_recorded_run_are_valid_nbformat(name: str) -> None:
    played = Transcript.load(name).play()
    for cell in played.execution.cells.values():
        for output in cell.area.render():
            nbformat.validate(output, ref="output", version=4, version_minor=5)


@pytest.mark.parametrize("name", RUNS)
def test_a_recording_tells_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    text = (TRANSCRIPTS / f"{name}.jsonl").read_text("utf-8")
    assert not [word for word in ("/work", "/root", "/home", "/venv", '"username": "root"') if word in text]


def test_the_signs_of_a_cell_really_come_in_both_orders() -> None:
    def order(name: str) -> list[str]:
        transcript = Transcript.load(name)
        cell = next(line["sent"]["header"]["msg_id"] for line in transcript.lines if "sent" in line)
        signs = [m for m in transcript.received() if m.parent_id == cell]
        return [m.type for m in signs if m.type == "execute_reply" or m.content.get("execution_state") == "idle"]

    assert order("reply_first") == ["execute_reply", "status"]
    assert order("idle_first") == ["status", "execute_reply"]


def test_timing_is_the_kernels_own() -> None:
    cell = Transcript.load("normal").play().execution.cells[0]
    assert set(cell.timing) == {
        "iopub.status.busy",
        "iopub.execute_input",
        "iopub.status.idle",
        "shell.execute_reply.started",
        "shell.execute_reply",
    }
    assert cell.timing["iopub.status.busy"] < cell.timing["iopub.execute_input"] < cell.timing["iopub.status.idle"]


def test_a_task_of_the_first_cell_prints_into_the_first_cell_for_as_long_as_the_run_goes_on() -> None:
    played = Transcript.load("late_output").play()
    assert [output["text"] for output in played.outputs(0)] == ["a\nb\n"]
    assert played.outputs(1) == []


def test_a_display_that_the_next_cell_changes_and_shows_again_is_the_same_in_both() -> None:
    played = Transcript.load("display_update").play()
    assert [output["data"]["text/plain"] for output in played.outputs(0)] == ["'again'"]
    assert [output["data"]["text/plain"] for output in played.outputs(1)] == ["'again'"]


def test_an_error_that_the_server_dropped_is_put_together_from_the_reply() -> None:
    transcript = Transcript.load("rate_limit")
    assert "error" not in [message.type for message in transcript.received()]
    error = transcript.play().outputs(0)[-1]
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert len(error["traceback"]) > 1


def test_a_websocket_that_is_cut_and_comes_back_loses_nothing() -> None:
    assert Transcript.load("cut").play().outputs(0)[0]["text"] == "0\n1\n2\n3\n4\n5\n"


def test_an_awaiting_cell_ends_at_the_nudge_long_before_its_own_end() -> None:
    played = Transcript.load("await_timeout").play()
    assert played.outputs(0)[0]["ename"] == "CancelledError"
    seconds = played.execution.results()[0].seconds
    assert seconds is not None
    assert seconds < 5


def test_a_deaf_cell_is_interrupted_twice_and_then_given_up() -> None:
    played = Transcript.load("deaf_timeout").play()
    assert played.interrupts() == [0.5, 5.5]
    assert played.execution.results()[0].seconds == 10.5


# The same recordings with something taken out ------------------------------------------------------------------------


def without(transcript: Transcript, kind: str, **content: Any) -> Transcript:
    """Lose the messages of a type and content on the way."""

    def is_lost(line: dict[str, Any]) -> bool:
        message = line.get("received", {})
        same = message.get("header", {}).get("msg_type") == kind
        return bool(same and content.items() <= message["content"].items())

    return Transcript(transcript.setting, [line for line in transcript.lines if not is_lost(line)])


def outcome_of(played: Played) -> Outcome:
    assert played.execution.ending is not None
    return played.execution.ending.outcome


@pytest.mark.parametrize("name", ["normal", "aborted", "late_output", "display_update", "cut"])
def test_a_run_whose_idles_are_all_lost_passes_all_the_same(name: str) -> None:
    whole = Transcript.load(name)
    played = without(whole, "status", execution_state="idle").play()
    assert outcome_of(played) is Outcome.PASSED
    assert len(played.sent()) > len(whole.play().sent())
    assert [played.outputs(index) for index in (0, 1)] == [whole.play().outputs(index) for index in (0, 1)]


@pytest.mark.parametrize("name", ["normal", "error", "reply_first", "idle_first"])
def test_a_run_whose_replies_are_all_lost_asks_and_ends_at_the_first_cell(name: str) -> None:
    played = without(Transcript.load(name), "execute_reply").play()
    assert played.sent() == [EXECUTE, FENCE]
    assert outcome_of(played) is Outcome.SERVER_FAILED
    assert played.execution.results()[0].outcome is FAILED


def test_a_run_whose_kernel_falls_silent_is_waited_for_until_the_kernel_is_known_to_be_gone() -> None:
    whole = Transcript.load("normal")
    silent = [line for line in whole.lines if line["at"] == 0 and "sent" in line]
    played = Transcript(whole.setting, [*silent, {"at": 900.0, "asked": {"probed": False}}]).play()
    assert played.probes() == [60.0 * minute for minute in range(1, 15)]
    assert outcome_of(played) is Outcome.KERNEL_DIED


def test_the_fresh_kernel_behind_the_same_address_is_found_out_without_a_notice() -> None:
    transcript = Transcript.load("normal")
    played = transcript.play(kernel_session="that of a kernel that is no more")
    assert outcome_of(played) is Outcome.KERNEL_DIED


def test_without_a_kernel_session_to_go_by_the_run_is_the_same() -> None:
    played = Transcript.load("normal").play(kernel_session=None)
    assert outcome_of(played) is Outcome.PASSED
