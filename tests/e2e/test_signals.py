"""Signals: the first ends the run properly, the second at once, and SIGKILL leaves nothing behind."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.live_runs import Place, place_on, text_of
from tests.support.notebooks import Notebook, code, notebook, stdout
from tests.support.processes import LiveNbrun, await_no_process_of, live_nbrun
from tests.support.proxy import Proxy, proxy
from tests.support.servers import pause

GONE_WITHIN = 5.0
"""Seconds after which nothing may be left of a run that was killed."""

LONG = notebook(
    "import pathlib, time\nprint('one')",
    "print('so far', flush=True)\npathlib.Path('running').touch()\ntime.sleep(120)",
    code("pathlib.Path('third').touch()", outputs=[stdout("an old run")], count=7),
)
"""Three cells, of which the second is long, and says by a file that it has begun."""

STUBBORN = notebook(
    "import pathlib, subprocess, time\nchild = subprocess.Popen(['sleep', '120'])",
    """while True:
    try:
        pathlib.Path('running').touch()
        time.sleep(120)
    except BaseException:
        pathlib.Path('interrupted').touch()""",
)
"""A notebook with a child process, and a cell that no interrupt ends."""

FIRST_SIGNALS = pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        pytest.param(signal.SIGTERM, ExitCode.TERMINATED, id="SIGTERM"),
        pytest.param(signal.SIGHUP, ExitCode.TERMINATED, id="a closed terminal"),
        pytest.param(signal.SIGINT, ExitCode.INTERRUPTED, id="Ctrl-C"),
    ],
)


@pytest.fixture
def private(tmp_path: Path) -> Place:
    """A folder whose notebooks run on private servers."""
    return place_on(None, tmp_path)


@contextlib.contextmanager
def command(
    place: Place, document: Notebook, *options: str, env: dict[str, str] | None = None, wire: Proxy | None = None
) -> Iterator[LiveNbrun]:
    """Run the command on a notebook in the place, to its server if it has one, over the wire if there is one."""
    path = place.write(document)
    if place.server is not None:
        options = (*options, "--server", wire.url if wire else place.server.url)
        env = {"NBRUN_TOKEN": place.server.token, **(env or {})}
    with live_nbrun(path, *options, cwd=place.folder, json_file=place.folder / "result.json", env=env) as run:
        yield run


@FIRST_SIGNALS
def test_a_signal_in_a_long_cell_saves_what_there_is(number: signal.Signals, exit_code: ExitCode, place: Place) -> None:
    with command(place, LONG) as run:
        run.await_file(place.folder / "running")
        run.signal(number)

        assert run.end(within=30) == exit_code
        await_no_process_of(run.mark, within=1)

    report = run.report()
    assert (report["outcome"], report["exit_code"]) == ("interrupted", exit_code)
    assert run.outcomes() == ["passed", "interrupted", "not-run"]
    first, second, third = place.read()["cells"]
    assert text_of(first["outputs"]) == "one\n"
    assert text_of(second["outputs"]) == "so far\n"
    assert (third["execution_count"], third["outputs"]) == (None, [])
    assert not (place.folder / "third").exists()
    assert place.nothing_is_left()


def test_a_signal_ends_a_run_whose_cell_ignores_interrupts(place: Place) -> None:
    with command(place, STUBBORN) as run:
        run.await_file(place.folder / "running")
        run.signal(signal.SIGTERM)

        assert run.end(within=30) == ExitCode.TERMINATED

    assert run.outcomes() == ["passed", "interrupted"]
    assert [cell["execution_count"] for cell in place.read()["cells"]] == [1, 2]
    assert place.nothing_is_left()


def test_a_second_ctrl_c_exits_at_once_and_still_leaves_no_process(private: Place) -> None:
    with command(private, STUBBORN) as run:
        before = (private.folder / "notebook.ipynb").read_bytes()
        run.await_file(private.folder / "running")
        run.signal(signal.SIGINT)
        run.await_file(private.folder / "interrupted")
        run.signal(signal.SIGINT)

        assert run.end(within=1) == ExitCode.INTERRUPTED
        await_no_process_of(run.mark, GONE_WITHIN)

    assert not run.json_file.exists(), "it exits at once, it does not hurry up"
    assert (private.folder / "notebook.ipynb").read_bytes() == before


@pytest.mark.parametrize("document", [LONG, STUBBORN], ids=["an obedient cell", "a cell that ignores interrupts"])
def test_after_sigkill_no_server_no_kernel_and_no_child_of_it_is_left(document: Notebook, private: Place) -> None:
    with command(private, document) as run:
        run.await_file(private.folder / "running")
        before = (private.folder / "notebook.ipynb").read_bytes()
        assert len(run.others()) >= 2, "a server and a kernel"

        os.kill(run.process.pid, signal.SIGKILL)

        await_no_process_of(run.mark, GONE_WITHIN)

    assert (private.folder / "notebook.ipynb").read_bytes() == before


def test_sigkill_while_the_server_starts_leaves_no_process(private: Place) -> None:
    with command(private, LONG) as run:
        run.await_other("nbrun.local_server.process.boot")

        os.kill(run.process.pid, signal.SIGKILL)

        await_no_process_of(run.mark, GONE_WITHIN)


@FIRST_SIGNALS
def test_a_signal_while_the_server_starts_changes_nothing(
    number: signal.Signals, exit_code: ExitCode, private: Place
) -> None:
    with command(private, LONG) as run:
        before = (private.folder / "notebook.ipynb").read_bytes()
        run.await_other("nbrun.local_server.process.boot")
        run.signal(number)

        assert run.end(within=15) == exit_code
        await_no_process_of(run.mark, within=1)

    assert run.report()["outcome"] == "interrupted"
    assert (private.folder / "notebook.ipynb").read_bytes() == before
    assert not (private.folder / "running").exists()


def test_a_signal_while_the_kernel_starts_changes_nothing(private: Place, jupyter_path: str) -> None:
    sign = private.folder / "kernel-started"
    env = {"JUPYTER_PATH": jupyter_path, "HANGS": str(sign)}
    with command(private, LONG, "--kernel", "hangs", env=env) as run:
        before = (private.folder / "notebook.ipynb").read_bytes()
        run.await_file(sign)
        run.signal(signal.SIGTERM)

        assert run.end(within=15) == ExitCode.TERMINATED
        await_no_process_of(run.mark, within=1)

    assert (private.folder / "notebook.ipynb").read_bytes() == before
    assert run.outcomes() == ["not-run"] * 3


def test_a_signal_while_the_kernel_starts_leaves_none_on_the_server(on_stock: Place) -> None:
    assert on_stock.server is not None
    with command(on_stock, LONG, "--kernel", "hangs") as run:
        before = (on_stock.folder / "notebook.ipynb").read_bytes()
        while not on_stock.server.sessions():
            assert run.process.poll() is None
            pause()
        run.signal(signal.SIGTERM)

        assert run.end(within=30) == ExitCode.TERMINATED

    assert (on_stock.folder / "notebook.ipynb").read_bytes() == before
    assert on_stock.nothing_is_left()


@pytest.mark.parametrize("asked", [("PUT", "api/contents"), ("DELETE", "api/sessions")], ids=["save", "teardown"])
async def test_a_signal_when_all_cells_are_done_cuts_nothing_short(asked: tuple[str, str], on_stock: Place) -> None:
    assert on_stock.server is not None
    async with proxy(on_stock.server) as wire:
        hold = wire.hold(*asked)
        with command(on_stock, notebook("6 * 7"), wire=wire) as run:
            await asyncio.wait_for(hold.reached.wait(), 60)
            run.signal(signal.SIGTERM)
            hold.release()

            assert await asyncio.to_thread(run.end) == ExitCode.OK

    [[result]] = on_stock.outputs()
    assert result["data"]["text/plain"] == "42"
    assert run.report()["outcome"] == "passed"
    assert on_stock.nothing_is_left()


async def test_a_signal_while_the_notebook_is_loaded_starts_no_kernel(on_stock: Place) -> None:
    assert on_stock.server is not None
    async with proxy(on_stock.server) as wire:
        hold = wire.hold("GET", "notebook.ipynb")
        with command(on_stock, LONG, wire=wire) as run:
            await asyncio.wait_for(hold.reached.wait(), 60)
            run.signal(signal.SIGTERM)

            assert await asyncio.to_thread(run.end, 10) == ExitCode.TERMINATED

    assert not (on_stock.folder / "running").exists()
    assert on_stock.nothing_is_left()
