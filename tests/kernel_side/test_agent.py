"""The agent in a kernel: its abilities, its options, and the answer to a drain request."""

from unittest.mock import Mock

import pytest
from jupyter_client.session import Session

from nbrun.kernel_side.agent import install
from tests.kernel_side.small_kernel import SmallKernel


def test_hello_names_what_the_agent_can_do_and_applies_options(kernel: SmallKernel) -> None:
    every = {"unsent", "conditional", "once", "list", "traceback", "writers", "quick"}
    answer = kernel.ask("nbrun_hello_request", {})
    assert ({*answer["abilities"]}, answer["missing"]) == (every, {})
    options = {"replay": 1000, "lift_limits": True, "quiet": True}
    for _ in range(2):
        answer = kernel.ask("nbrun_hello_request", options)
        assert ({*answer["abilities"]}, answer["missing"]) == (every | {"replay", "lift_limits", "quiet"}, {})
        assert len(answer["abilities"]) == len(every) + 3
    assert kernel.options == [(23, 0)] * 2


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("iopub_thread", {"conditional", "once", "list", "replay", "lift_limits", "quick"}),
        ("shell", {"traceback"}),
        ("comm_manager", {"conditional", "once", "list"}),
    ],
)
def test_what_a_kernel_lacks_is_reported(without: str, missing: set[str]) -> None:
    kernel = SmallKernel(**{without: None})
    answer = kernel.ask("nbrun_hello_request", {"replay": 1000, "lift_limits": True})
    assert {*answer["missing"]} == missing
    assert not missing & {*answer["abilities"]}


def test_a_kernel_has_one_agent_however_often_it_is_installed(kernel: SmallKernel) -> None:
    assert install(kernel, {"lift_limits": True}) is kernel.agent
    assert "lift_limits" in kernel.agent.abilities


def test_before_each_cell_the_last_traceback_is_forgotten(kernel: SmallKernel) -> None:
    [forget] = kernel.forgetting
    forget()
    assert kernel.shell._last_traceback is None


def test_objects_of_a_new_kernel_are_not_collected(kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze = Mock()
    monkeypatch.setattr("gc.freeze", freeze)
    kernel.ask("nbrun_hello_request", {})
    freeze.assert_not_called()
    kernel.ask("nbrun_hello_request", {"freeze": True})
    freeze.assert_called_once_with()


def test_a_drain_request_names_the_numbers_that_were_not_sent(kernel: SmallKernel, session: Session) -> None:
    for _ in range(5):
        session.msg("execute_result")
        session.send(None, "status")
    answer = kernel.ask("nbrun_drain_request", {"of": [(3, 6), (8, 8)]})
    assert answer["unsent"] == [3, 5]


def test_without_an_answer_there_may_be_writers(kernel: SmallKernel, session: Session) -> None:
    session.msg("execute_result")
    session.send(None, "status")
    answer = kernel.ask("nbrun_drain_request", {})
    assert (answer["writers"], "KeyError" in answer["error"]) == (True, True)
