"""Limits that nbrun can lift on other servers, and the kernel's state afterwards."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbrun
from nbrun.core.delivery.loss_mark import Cause
from tests.e2e.conftest import write_spec
from tests.support.live_runs import Place, live_run, place_on, text_of
from tests.support.notebooks import notebook
from tests.support.servers import RunningServer, jupyter_server

LINES = 12_000
BLANKS = 1500
"""So many lines of so many characters do not fit into the queues and the sockets between kernel and server."""
FLOOD = f"""import pathlib, time
print('go', flush=True)
while not pathlib.Path('stopped').exists(): time.sleep(0.01)
for i in range({LINES}): print(i, " " * {BLANKS}, flush=True)
pathlib.Path('done').touch()"""
LEFT = "print(sorted(name for name in dir() if not name.startswith('_')), len(In), list(Out))"

LIMIT = "print(get_ipython().kernel.iopub_thread.socket.getsockopt(23))"
OTHER = """
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import launch_new_instance
IPythonKernel.implementation = "other"
launch_new_instance()
"""


@pytest.fixture(scope="module")
def patient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose administrator has turned off the rate limit, and nothing else."""
    options = ["--ZMQChannelsWebsocketConnection.limit_rate=False"]
    with jupyter_server(tmp_path_factory.mktemp("patient"), args=options) as server:
        yield server


async def run_while_the_server_stands_still(place: Place, *, lift_limits: bool) -> nbrun.NotebookResult:
    """Run a cell that puts out everything while its server does nothing, as one does that saves a huge notebook."""
    assert place.server is not None
    # The first cells are for the server's own questions to the kernel, beside which no count is exact.
    path, pid = place.write(notebook(LEFT, "2", "3", FLOOD, "'after'")), place.server.process.pid
    async with live_run(path, **place.options, lift_limits=lift_limits, resend=False) as live:
        await live.watch.printed("go")
        os.kill(pid, signal.SIGSTOP)
        try:
            (place.folder / "stopped").touch()
            async with asyncio.timeout(120):
                while not (place.folder / "done").exists():
                    await asyncio.sleep(0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        return await asyncio.wait_for(live.task, 120)


async def test_with_limits_lifted_nothing_is_lost_while_the_server_stands_still(
    patient_server: RunningServer, tmp_path: Path
) -> None:
    place = place_on(patient_server, tmp_path)
    result = await run_while_the_server_stands_still(place, lift_limits=True)
    assert (result.outcome, list(result.warnings)) == (nbrun.Outcome.PASSED, [])
    left, _, _, flood, _ = place.outputs()
    assert text_of(flood).split() == ["go", *map(str, range(LINES))]
    assert text_of(left) == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit'] 2 []\n"
    assert [cell.execution_count for cell in result.cells] == [1, 2, 3, 4, 5]


async def test_without_that_what_the_kernel_drops_is_counted(patient_server: RunningServer, tmp_path: Path) -> None:
    place = place_on(patient_server, tmp_path)
    result = await run_while_the_server_stands_still(place, lift_limits=False)
    lost = result.cells[3].incomplete
    arrived = len(text_of([each for each in place.outputs()[3] if each.get("name") == "stdout"]).split()) - 1
    assert arrived < LINES
    assert result.exit_code == nbrun.ExitCode.INCOMPLETE
    assert lost is not None
    assert Cause.MISSING_MESSAGES in lost.causes
    assert lost.exact
    assert lost.lost == pytest.approx(LINES - arrived, rel=0.01)  # a line is now and then two messages


async def test_of_a_kernel_that_is_not_ipykernel_no_limit_is_lifted_and_that_is_said(
    on_stock: Place, jupyter_path: str
) -> None:
    write_spec(Path(jupyter_path), "other", [sys.executable, "-c", OTHER, "-f", "{connection_file}"])
    result = await on_stock.run("1", lift_limits=True, kernel="other")
    assert result.outcome is nbrun.Outcome.PASSED
    assert list(result.warnings) == ["--lift-limits: only ipykernel's limits can be lifted, not those of other"]


async def test_a_private_server_lifts_the_limits_of_an_ipykernel_that_a_wrapper_starts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(tmp_path, "wrapped", ["env", sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    place = place_on(None, tmp_path)
    result = await place.run(LIMIT, LIMIT, kernel="wrapped")
    assert (result.outcome, list(result.warnings)) == (nbrun.Outcome.PASSED, [])
    assert text_of(place.outputs()[1]) == "0\n"
