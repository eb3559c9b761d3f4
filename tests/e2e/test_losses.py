"""Output is complete, or the run reports which cell lost how much."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.delivery.loss_detection import SLACK
from nbrun.core.delivery.loss_mark import Cause
from nbrun.runner import run
from tests.support.burning import both_cores_busy
from tests.support.notebooks import joined, notebook, outputs_of, read_notebook, run_nbrun, write_notebook
from tests.support.servers import RunningServer, jupyter_server

FLUSHED = "for i in range({}): print(i, flush=True)"
DISPLAYED = "for i in range({}): display(i)"
BURST = "for i in range(8000): print('x' * 1000)"


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a tenth of the usual rate limit: a busy machine may be too slow to exceed the usual one."""
    options = ["--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=100"]
    with jupyter_server(tmp_path_factory.mktemp("strict"), args=options) as server:
        yield server


def run_on(server: RunningServer, document: dict[str, Any], *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a notebook on a server; returns the JSON result and the notebook as it was saved."""
    path = write_notebook(server.root / "flood.ipynb", document)
    found = run_nbrun(
        "run", path.name, "--server", server.url, "--json", "-", *options, env={"NBRUN_TOKEN": server.token}
    )
    result: dict[str, Any] = json.loads(found.stdout)
    assert found.returncode == result["exit_code"], found.stderr
    return result, read_notebook(path)


def lines(outputs: list[dict[str, Any]]) -> list[str]:
    """Return the lines that a cell printed."""
    return "".join(joined(output["text"]) for output in outputs if output.get("name") == "stdout").split()


def test_what_a_strict_server_drops_is_brought_back_to_the_last_one(strict_server: RunningServer) -> None:
    """Each output of its own, and those of a cell whose error was dropped."""
    fails = DISPLAYED.format(1000) + "\nraise ValueError('at the end')"
    result, saved = run_on(strict_server, notebook(DISPLAYED.format(3000), FLUSHED.format(2000), fails))
    shown, flushed, failed = outputs_of(saved)
    assert [output["data"]["text/plain"] for output in shown] == [str(number) for number in range(3000)]
    assert lines(flushed) == [str(number) for number in range(2000)]
    assert [output["output_type"] for output in failed] == [*["display_data"] * 1000, "error"]
    assert (result["outcome"], result["exit_code"]) == ("failed", 1)
    assert [cell["incomplete"] for cell in result["cells"]] == [None] * 3


def test_what_the_kernel_has_forgotten_too_is_counted(
    strict_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "REPLAY_BUFFER", 20_000)
    path = write_notebook(strict_server.root / "forgotten.ipynb", notebook("1", "2", "3", DISPLAYED.format(3000), "4"))
    result = nbrun.run(path.name, server=strict_server.url, token=strict_server.token, note_loss=False)
    flood = outputs_of(read_notebook(path))[3]
    lost = result.cells[3].incomplete
    assert lost is not None
    assert (lost.causes, lost.lost) == ((Cause.RATE_LIMIT, Cause.MISSING_MESSAGES), 3000 - len(flood))
    assert 0 < len(flood) < 3000
    assert result.exit_code == nbrun.ExitCode.INCOMPLETE
    assert [cell.incomplete for cell in result.cells].count(None) == 4


def test_a_strict_server_that_drops_displays_is_found_out_to_the_last_one(strict_server: RunningServer) -> None:
    # The first cells are for the server's own questions to the kernel, beside which no count is exact.
    document = notebook("1", "2", "3", DISPLAYED.format(3000), "'after'")
    result, saved = run_on(strict_server, document, "--no-resend")
    [*_, flood, after] = outputs_of(saved)
    arrived = sum(output["output_type"] == "display_data" for output in flood)
    assert arrived < 3000
    assert (result["outcome"], result["exit_code"]) == ("incomplete", nbrun.ExitCode.INCOMPLETE)
    [*_, lossy, whole] = result["cells"]
    assert lossy["outcome"] == "passed"
    assert lossy["incomplete"] == {
        "causes": ["rate-limit", "missing-messages"],
        "lost": 3000 - arrived,
        "exact": True,
    }
    assert whole["incomplete"] is None
    assert saved["cells"][3]["metadata"]["nbrun"] == {"incomplete": lossy["incomplete"]}
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "incomplete"
    assert flood[-1]["name"] == "stderr"
    assert flood[-1]["text"].startswith(f"nbrun: {3000 - arrived} output messages are missing")
    assert "IOPub" not in flood[-1]["text"]
    assert len(after) == 1


def test_a_server_that_ends_idle_kernels_does_not_end_one_that_runs_a_silent_cell(tmp_path: Path) -> None:
    """nbrun's own questions must not look to the server like the end of the cell."""
    options = ["cull_idle_timeout=2", "cull_interval=1", "cull_connected=True"]
    (root := tmp_path / "root").mkdir()
    with jupyter_server(root, args=[f"--MappingKernelManager.{each}" for each in options]) as server:
        result, _ = run_on(server, notebook("import time; time.sleep(4.5)", "'after'"))
    assert (result["outcome"], result["problem"]) == ("passed", None)


@pytest.mark.slow
def test_what_a_stock_server_drops_is_brought_back(stock_server: RunningServer) -> None:
    result, saved = run_on(stock_server, notebook(FLUSHED.format(8000), DISPLAYED.format(8000), BURST))
    flushed, displayed, burst = outputs_of(saved)
    assert [output["output_type"] for output in flushed] == ["stream"]
    assert lines(flushed) == [str(number) for number in range(8000)]
    assert [output["data"]["text/plain"] for output in displayed] == [str(number) for number in range(8000)]
    assert len(lines(burst)) == 8000
    assert (result["outcome"], result["exit_code"], result["warnings"]) == ("passed", 0, [])
    assert [cell["incomplete"] for cell in result["cells"]] == [None] * 3


def test_lines_that_a_stock_server_drops_are_never_lost_in_silence(stock_server: RunningServer) -> None:
    # The first cells are for the server's own questions to the kernel, beside which no count is exact.
    cells = ("1", "2", "3", FLUSHED.format(8000), DISPLAYED.format(8000), BURST)
    result, saved = run_on(stock_server, notebook(*cells), "--no-resend")
    flushed, displayed, burst = outputs_of(saved)[3:]
    shown = sum(output["output_type"] == "display_data" for output in displayed)
    missing = [8000 - len(lines(flushed)), 8000 - shown, 8000 - len(lines(burst))]
    told = [cell["incomplete"] for cell in result["cells"]][3:]
    # A busy machine may be slower than the limits; then nothing is dropped, or queues overflow instead.
    assert [bool(each) for each in told] == [bool(number) for number in missing]
    assert result["exit_code"] == (nbrun.ExitCode.INCOMPLETE if any(missing) else nbrun.ExitCode.OK)
    # A display is one message; a line that is flushed almost always is; of a burst, many lines are.
    lost = [each["lost"] if each else 0 for each in told]
    assert lost[1] == (missing[1] if told[1] is None or told[1]["exact"] else pytest.approx(missing[1], abs=SLACK))
    assert lost[0] == pytest.approx(missing[0], rel=0.01)


def test_a_loss_can_be_tolerated_and_left_out_of_the_outputs(strict_server: RunningServer) -> None:
    document = notebook(DISPLAYED.format(3000))
    result, saved = run_on(strict_server, document, "--tolerate-loss", "--no-loss-note", "--no-resend")
    assert (result["outcome"], result["exit_code"]) == ("passed", 0)
    assert result["cells"][0]["incomplete"]["lost"] > 0
    assert any("are missing" in warning for warning in result["warnings"])
    assert {output["output_type"] for output in outputs_of(saved)[0]} == {"display_data"}


def test_what_fails_on_a_strict_server_fails_though_the_error_was_dropped(strict_server: RunningServer) -> None:
    document = notebook(DISPLAYED.format(3000) + "\nraise ValueError('at the end')")
    result, saved = run_on(strict_server, document, "--no-resend")
    assert (result["outcome"], result["exit_code"]) == ("failed", 1)
    assert result["cells"][0]["incomplete"]["lost"] > 0
    errors = [output for output in outputs_of(saved)[0] if output["output_type"] == "error"]
    assert [error["evalue"] for error in errors] == ["at the end"]


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("time", range(10))
def test_a_private_server_loses_nothing_of_a_flood_in_any_of_ten_times(tmp_path: Path, time: int) -> None:
    cells = (FLUSHED.format(100_000), DISPLAYED.format(20_000), BURST)
    path = write_notebook(tmp_path / "flood.ipynb", notebook(*cells))
    with both_cores_busy():
        result = nbrun.run(path)
    [flushed, displayed, burst] = outputs_of(read_notebook(path))
    assert (result.outcome, [cell.incomplete for cell in result.cells]) == (nbrun.Outcome.PASSED, [None] * 3)
    assert [output["output_type"] for output in flushed] == ["stream"]
    assert lines(flushed) == [str(number) for number in range(100_000)]
    assert [output["data"]["text/plain"] for output in displayed] == [str(number) for number in range(20_000)]
    assert len(lines(burst)) == 8000
