"""Kernels of other languages with different behaviour, run by the command on real servers.

The kernels: IRkernel, bash_kernel, Deno, xeus-python, tslab, calysto_scheme, JJava and ILua.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

import nbrun
from nbrun.errors import ExitCode
from tests.support.kernelspecs import KERNELS, jupyter_path
from tests.support.live_runs import Place, live_run, outcomes
from tests.support.notebooks import (
    Cell,
    Notebook,
    Output,
    assert_exit,
    code,
    notebook,
    read_notebook,
    run_nbrun,
    write_notebook,
)
from tests.support.servers import jupyter_server

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Three:
    """Three cells: the first prints ``set``, the second gives 42, the third raises an error."""

    kernel: str
    prints: str
    gives: str
    raises: str
    result_type: str
    """What kind of output the second cell's 42 is."""
    ename: str
    evalue: str
    """A part of what the error says of itself."""


THREE = (
    Three("ir", r'x <- 20; cat("set\n")', "x + 22", 'stop("on purpose")', "display_data", "ERROR", "on purpose"),
    Three("bash", "x=20; echo set", "echo $((x + 22))", "(exit 7)", "stream", "", "7"),
    Three(
        "deno",
        'let x = 20; console.log("set")',
        "x + 22",
        'throw new TypeError("on purpose")',
        "execute_result",
        "TypeError",
        "on purpose",
    ),
    Three(
        "xpython", 'x = 20; print("set")', "x + 22", "1 / 0", "execute_result", "ZeroDivisionError", "division by zero"
    ),
    Three(
        "calysto_scheme",
        '(define x 20) (display "set")',
        "(+ x 22)",
        "(car 1)",
        "execute_result",
        "RunTimeError",
        "car called on non-pair 1",
    ),
    Three("tslab", 'let x = 20; console.log("set")', "x + 22", 'throw new Error("on purpose")', "stream", "", ""),
    Three(
        "java",
        'int x = 20; System.out.println("set");',
        "x + 22",
        'throw new RuntimeException("on purpose");',
        "execute_result",
        "RuntimeException",
        "on purpose",
    ),
    Three("lua", 'x = 20; print("set")', "return x + 22", 'error("on purpose")', "execute_result", "n/a", "on purpose"),
)
ALLOWING = ("--allow-errors",)
STREAMS_ITS_ERRORS = {"calysto_scheme", "tslab"}
"""Kernels whose reply says ``error`` though no ``error`` message was sent: the text of the error is a stream."""


@dataclass(frozen=True)
class Run:
    """A finished run: how the process ended, what it reported and what it saved."""

    process: subprocess.CompletedProcess[str]
    report: dict[str, Any]
    saved: Notebook

    @property
    def outcomes(self) -> list[str]:
        """What came of each cell."""
        return [cell["outcome"] for cell in self.report["cells"]]

    def outputs(self, cell: int) -> list[Output]:
        """Return the saved outputs of one cell."""
        outputs: list[Output] = self.saved["cells"][cell]["outputs"]
        return outputs


def run_cells(
    folder: Path,
    kernel: str,
    *cells: str | Cell,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] = MappingProxyType({}),
) -> Run:
    """Run a notebook of these cells on a private server that finds the kernel."""
    path = jupyter_path(kernel)
    write_notebook(folder / "in.ipynb", in_language(kernel, *cells))
    process = run_nbrun(
        "run", "in.ipynb", "-o", "out.ipynb", "--json", "result.json", *options,
        cwd=folder, env={"JUPYTER_PATH": path, **env}, timeout=240,
    )  # fmt: skip
    assert (folder / "out.ipynb").exists(), process.stderr
    return Run(process, json.loads((folder / "result.json").read_text()), read_notebook(folder / "out.ipynb"))


def in_language(kernel: str, *cells: str | Cell) -> Notebook:
    """Build a notebook for a kernel that is not Python's."""
    document = notebook(*cells, kernel=kernel)
    document["metadata"]["kernelspec"]["language"] = KERNELS[kernel].language
    return document


def plain(outputs: list[Output]) -> str:
    """Return what a reader sees, in plain text."""
    return "".join(output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs)


@pytest.fixture(scope="module", params=THREE, ids=lambda three: three.kernel)
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Three, Run]:
    """Each kernel's three cells, run once. Its error is expected the first time and ends the run the second time."""
    three: Three = request.param
    folder = tmp_path_factory.mktemp(three.kernel)
    expected = code(three.raises, tags=["raises-exception"])
    return three, run_cells(folder, three.kernel, three.prints, expected, three.gives, three.raises, three.prints)


def test_cells_run_up_to_the_error_that_ends_the_notebook(ended: tuple[Three, Run]) -> None:
    three, run = ended
    assert_exit(run.process, ExitCode.NOTEBOOK_FAILED)
    assert run.outcomes == ["passed", "passed", "passed", "failed", "not-run"]
    assert run.report["kernel"] == three.kernel
    assert plain(run.outputs(0)).strip() == "set"
    assert "42" in plain(run.outputs(2))
    assert [output["output_type"] for output in run.outputs(2)] == [three.result_type]
    assert [cell["execution_count"] for cell in run.saved["cells"]] == [1, 2, 3, 4, None]
    assert run.saved["metadata"]["language_info"]["name"].casefold() == KERNELS[three.kernel].language.casefold()


def test_the_error_is_told_as_the_kernel_told_it(ended: tuple[Three, Run]) -> None:
    three, run = ended
    for cell in (1, 3):
        error = run.report["cells"][cell]["error"]
        assert three.ename in error["ename"]
        assert three.evalue in error["evalue"]
        assert bool(error["ename"]) == bool(three.ename)
        assert all(isinstance(line, str) for line in error["traceback"])
        saved = run.outputs(cell)
        if three.kernel in STREAMS_ITS_ERRORS:
            assert (saved[0]["output_type"], saved[0]["name"]) == ("stream", "stderr")
            assert "on purpose" in saved[0]["text"] or three.evalue in saved[0]["text"]
        else:
            assert saved[-1]["output_type"] == "error"
            assert saved[-1]["ename"] == error["ename"]


def test_a_result_that_deno_sends_after_idle_is_not_lost(tmp_path: Path) -> None:
    """Deno's result overtakes its idle, or falls behind it, as it comes: in about one cell of seven."""
    numbers = range(1, 61)
    run = run_cells(tmp_path, "deno", *(f"{number} + 1000" for number in numbers))

    assert_exit(run.process, ExitCode.OK)
    shown = [plain(run.outputs(cell)) for cell in range(len(numbers))]
    assert [str(1000 + number) in text for number, text in zip(numbers, shown, strict=True)] == [True] * len(numbers)


def test_ilua_is_not_sent_a_cell_before_its_interpreter_has_started(tmp_path: Path) -> None:
    """It says that it is there at once, and dies of a cell that comes before the interpreter does."""
    jupyter_path("lua")  # skips where there is no Lua
    slow = tmp_path / "bin" / "lua"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {shutil.which("lua")} "$@"\n')
    slow.chmod(0o755)
    path = os.pathsep.join([str(slow.parent), os.environ["PATH"]])

    run = run_cells(tmp_path, "lua", 'print("set")', env={"PATH": path})

    assert_exit(run.process, ExitCode.OK)
    assert plain(run.outputs(0)).strip() == "set"
    assert run.saved["metadata"]["language_info"]["version"] != "n/a"


ENDLESS = {
    "ir": "Sys.sleep(90)",
    "bash": "sleep 90",
    "calysto_scheme": "(let loop () (loop))",
    "java": "while (true) {}",
}
"""Cells that run on until they are interrupted: JJava by a message, the others by a signal."""

UNSTOPPABLE = {
    "lua": ('print("set")', "while true do end", "return 42"),
    "deno": ('console.log("set")', "await new Promise(done => setTimeout(done, 90000))", "42"),
}
"""The second cell runs on and cannot be interrupted: ILua ignores the message for it, Deno dies of the signal."""


def limited(source: str) -> Cell:
    """Return a cell that may take one second; those beside it may take their time on a busy machine."""
    cell = code(source)
    cell["metadata"]["nbrun"] = {"timeout": "1s"}
    return cell


@pytest.mark.parametrize("three", [three for three in THREE if three.kernel in ENDLESS], ids=lambda three: three.kernel)
def test_after_an_error_and_a_time_out_that_are_allowed_the_same_kernel_goes_on(three: Three, tmp_path: Path) -> None:
    endless = limited(ENDLESS[three.kernel])
    run = run_cells(tmp_path, three.kernel, three.prints, three.raises, endless, three.gives, options=ALLOWING)

    assert run.outcomes == ["passed", "failed", "timed-out", "passed"]
    assert "42" in plain(run.outputs(3))
    assert 1 <= run.report["cells"][2]["seconds"] < 16
    if three.kernel == "java":  # it can only be the message that has reached the kernel through the server
        error = next(output for output in run.outputs(2) if output["output_type"] == "error")
        assert error["ename"] == "EvaluationInterruptedException"


@pytest.mark.parametrize("kernel", UNSTOPPABLE)
async def test_of_a_kernel_that_cannot_be_interrupted_nothing_is_left(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.core.execution.interruption.INTERRUPT_GRACE", 0.5)
    first, endless, last = UNSTOPPABLE[kernel]
    (tmp_path / "root").mkdir()
    with jupyter_server(tmp_path / "root", env={"JUPYTER_PATH": jupyter_path(kernel)}) as server:
        place = Place(server.root, server)
        path = place.write(in_language(kernel, first, limited(endless), last))
        result = await nbrun.run_async(path, **place.options)
        assert place.nothing_is_left()

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["passed", "timed-out", "not-run"]
    assert plain(place.outputs()[0]).strip() == "set"


@pytest.mark.filterwarnings("ignore:Interpreting naive datetime:DeprecationWarning")  # ILua's dates have no time zone
async def test_a_kernel_that_is_asked_who_it_is_while_a_cell_runs_loses_nothing(tmp_path: Path) -> None:
    """As servers ask for themselves; ILua then takes the question for the parent of all that it says."""
    (tmp_path / "root").mkdir()
    waits = 'print("begun") io.stdout:flush() repeat until io.open("asked") print("set")'
    with jupyter_server(tmp_path / "root", env={"JUPYTER_PATH": jupyter_path("lua")}) as server:
        place = Place(server.root, server)
        path = place.write(in_language("lua", waits, "return 42"))
        async with live_run(path, **place.options) as run:
            await run.watch.printed("begun")
            await asyncio.to_thread(ask_on_control, tmp_path / "root-server-home" / "runtime")
            (server.root / "asked").touch()
            result = await run.result()

    assert result.exit_code == ExitCode.OK  # 6 where outputs may be missing
    assert [plain(outputs) for outputs in place.outputs()] == ["begun\nset\n", "42"]


def ask_on_control(runtime: Path) -> None:
    """Ask the one kernel of a server for its info, and wait for the answer."""
    client = BlockingKernelClient()
    client.load_connection_file(str(*runtime.glob("kernel-*.json")))
    client.start_channels(shell=False, iopub=False, stdin=False, hb=False)
    try:
        client.control_channel.send(client.session.msg("kernel_info_request", {}))
        client.get_control_msg(timeout=30)
    finally:
        client.stop_channels()
