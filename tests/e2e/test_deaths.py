"""A dead kernel: the results before it are kept, and later cells are not run.

On a private server a dead kernel stays dead; a stock server puts a fresh one in its place within three seconds, to
which nothing may be sent.
"""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.support.live_runs import Place, live_run, outcomes, place_on, text_of
from tests.support.notebooks import assert_exit, code, notebook, run_nbrun, stdout
from tests.support.servers import RunningServer

AT_A_TIME = 4

KILLED = notebook(
    "import os, pathlib, time\nprint('one')",
    "print(f'pid {os.getpid()}.', flush=True)\ntime.sleep(60)",
    code("pathlib.Path('third').touch()", outputs=[stdout("an old run")], count=7),
)
"""Three cells, of which the second waits to be killed and the third has the results of an earlier run."""


async def run_and_kill(place: Place, name: str = "notebook.ipynb") -> nbrun.NotebookResult:
    """Run :data:`KILLED` and kill its kernel with SIGKILL in its second cell."""
    async with live_run(place.write(KILLED, name), **place.options) as run:
        os.kill(int(await run.watch.printed(r"pid (\d+)\.")), signal.SIGKILL)
        return await run.result()


def check(result: nbrun.NotebookResult, place: Place, name: str = "notebook.ipynb") -> None:
    """Check what came of :data:`KILLED` and what is saved of it."""
    assert result.exit_code == ExitCode.KERNEL
    assert outcomes(result) == ["passed", "kernel-died", "not-run"]
    assert result.output is not None
    assert not result.rescued
    first, second, third = place.read(name)["cells"]
    assert (first["execution_count"], text_of(first["outputs"])) == (1, "one\n")
    assert second["execution_count"] == 2
    assert "pid" in text_of(second["outputs"])
    assert [output["ename"] for output in second["outputs"] if output["output_type"] == "error"] == ["KernelDied"]
    assert (third["execution_count"], third["outputs"]) == (None, [])
    assert not (place.folder / "third").exists()


async def test_a_kernel_killed_in_cell_two_of_three_ends_the_run_there(place: Place) -> None:
    result = await run_and_kill(place)

    check(result, place)
    assert result.problem is not None
    assert "in cell 2 of 3" in result.problem.message
    assert place.nothing_is_left()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("kind", ["private", "stock"])
async def test_it_does_so_twenty_times_of_twenty(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    server: RunningServer | None = request.getfixturevalue("stock_server") if kind == "stock" else None
    place = place_on(server, tmp_path)
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> None:
        async with turns:
            name = f"notebook-{number}.ipynb"
            check(await run_and_kill(place, name), place, name)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number))

    assert place.nothing_is_left()
    assert sorted(path.name for path in place.folder.glob("*.ipynb")) == sorted(
        f"notebook-{n}.ipynb" for n in range(20)
    )


@pytest.mark.parametrize(
    "death",
    [
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["exits without a word", "crashes", "kills itself"],
)
def test_the_command_tells_of_a_kernel_that(death: str, on_stock: Place) -> None:
    path = on_stock.write(notebook("1 + 1", death, "print('never')"))
    assert on_stock.server is not None

    process = run_nbrun(
        "run", path, "--server", on_stock.server.url, "--json", "-", env={"NBRUN_TOKEN": on_stock.server.token}
    )

    assert_exit(process, ExitCode.KERNEL)
    report = json.loads(process.stdout)
    assert [cell["outcome"] for cell in report["cells"]] == ["passed", "kernel-died", "not-run"]
    assert [cell["execution_count"] for cell in on_stock.read()["cells"]][2] is None
    assert "the kernel died" in process.stderr
    assert "cell 2 of 3" in process.stderr
    assert "out-of-memory" in process.stderr
    assert on_stock.nothing_is_left()


async def test_a_kernel_that_dies_in_the_first_moment_of_the_first_cell_is_noticed(place: Place) -> None:
    result = await place.run("import os; os._exit(1)", "print('never')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.KERNEL, ["kernel-died", "not-run"])
    assert place.nothing_is_left()


async def test_a_cell_that_reaches_the_fresh_kernel_after_a_death_does_not_pass(on_stock: Place) -> None:
    """The reply of the first cell comes, and a moment later its kernel is gone: the second goes to who answers."""
    dying = "import os, threading\nthreading.Timer(0.05, os._exit, [1]).start()"
    result = await on_stock.run(dying, "import time\ntime.sleep(0.3)", "open('third', 'w')")

    assert result.exit_code == ExitCode.KERNEL
    assert outcomes(result) == ["passed", "kernel-died", "not-run"]
    assert not (on_stock.folder / "third").exists()
    assert on_stock.nothing_is_left()


async def test_a_kernel_that_dies_when_its_last_cell_is_done_has_done_its_work(place: Place) -> None:
    result = await place.run("import os, threading\nthreading.Timer(0.05, os._exit, [1]).start()\nprint('done')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed"])
    assert text_of(place.outputs()[0]) == "done\n"
    assert place.nothing_is_left()


async def test_a_death_is_not_excused_by_allowing_errors(place: Place) -> None:
    result = await place.run("import os; os._exit(1)", "print('never')", allow_errors=True)

    assert (result.exit_code, outcomes(result)) == (ExitCode.KERNEL, ["kernel-died", "not-run"])
