"""The Python API: event loops, side effects, and paths."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived, RunFinished, Stage, StageEntered
from nbrun.core.results import Outcome
from nbrun.errors import ExitCode, NbrunError, NoSuchNotebook, NotANotebook, UsageError
from tests.support.live_runs import live_run, outcomes, text_of
from tests.support.notebooks import code, notebook, read_notebook, stdout, write_notebook
from tests.support.servers import RunningServer, jupyter_server

WHERE = "import os; print(os.getcwd())"
SLOW = notebook("print('one')", "print('here\\n', end='', flush=True)\nimport time; time.sleep(60)", "print('three')")
SIGNALS = sorted(set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, so that its sessions can be counted."""
    with jupyter_server(tmp_path_factory.mktemp("files")) as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(path: Path) -> str:
    """Return what the cells of a saved notebook printed."""
    return "".join(text_of(cell["outputs"]) for cell in read_notebook(path)["cells"])


def handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in SIGNALS}


def test_run_needs_no_event_loop(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("print('ran')"))
    before = handlers()
    result = nbrun.run("nb.ipynb")
    assert (result.outcome, result.output) == (Outcome.PASSED, "nb.ipynb")
    assert printed(here / "nb.ipynb") == "ran\n"
    assert handlers() == before


async def test_run_works_inside_a_loop_that_is_running(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("print('ran')"))
    assert nbrun.run(here / "nb.ipynb").outcome is Outcome.PASSED


async def test_run_works_in_a_thread_and_raises_its_errors_there(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("print('ran')"))
    result = await asyncio.to_thread(nbrun.run, "nb.ipynb")
    assert result.outcome is Outcome.PASSED
    with pytest.raises(NoSuchNotebook):
        await asyncio.to_thread(nbrun.run, "none.ipynb")
    with pytest.raises(NoSuchNotebook):
        nbrun.run("none.ipynb")


async def test_no_signal_handler_is_installed_or_left_and_no_thread(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("print('ran')"))
    before, seen = handlers(), []
    await nbrun.run_async("nb.ipynb", observe=lambda event: seen.append(handlers()))
    assert seen
    assert all(during == before for during in seen)
    assert handlers() == before
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("nbrun")] == []


async def test_the_observer_sees_the_events_in_order(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("print('one')", "1 / 0", "print('three')"))
    events: list[Event] = []
    result = await nbrun.run_async("nb.ipynb", observe=events.append, allow_errors=True)
    stages = [event.stage for event in events if isinstance(event, StageEntered)]
    assert stages[:4] == [Stage.STARTING_SERVER, Stage.LOADING, Stage.STARTING_KERNEL, Stage.RUNNING]
    assert set(stages[4:]) == {Stage.SAVING, Stage.STOPPING}
    cells = [event for event in events if isinstance(event, CellStarted | OutputArrived | CellFinished)]
    told = [(type(event).__name__, getattr(event, "index", None)) for event in cells]
    assert told == [
        ("CellStarted", 0), ("OutputArrived", 0), ("CellFinished", None),
        ("CellStarted", 1), ("OutputArrived", 1), ("CellFinished", None),
        ("CellStarted", 2), ("OutputArrived", 2), ("CellFinished", None),
    ]  # fmt: skip
    assert isinstance(events[-1], RunFinished)
    assert events[-1].result == result


def test_what_keeps_a_run_from_beginning_is_its_last_event_and_is_raised(here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    events: list[Event] = []
    with pytest.raises(NbrunError, match="no connection") as raised:
        nbrun.run("a.ipynb", server="http://127.0.0.1:1/", upload=True, observe=events.append)
    [finished] = [event for event in events if isinstance(event, RunFinished)]
    assert finished is events[-1]
    assert (finished.error, finished.result.exit_code) == (raised.value, ExitCode.SERVER)


async def test_a_cancelled_run_saves_and_tears_down_before_it_passes_the_cancellation_on(
    server: RunningServer,
) -> None:
    write_notebook(server.root / "nb.ipynb", SLOW)
    async with live_run("nb.ipynb", server=server.url, token=server.token) as run:
        await run.watch.printed("here")
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
    assert printed(server.root / "nb.ipynb") == "one\nhere\n"
    assert (server.sessions(), server.get("api/kernels")) == ([], [])


async def test_a_timeout_around_a_run_is_a_timeout(here: Path) -> None:
    write_notebook(here / "nb.ipynb", SLOW)
    began = asyncio.Event()

    def observe(event: Event) -> None:
        if isinstance(event, OutputArrived) and event.index == 1:
            began.set()

    async def run_until_it_has_begun() -> None:
        async with asyncio.timeout(60) as limit:
            waiting = asyncio.create_task(began.wait())
            waiting.add_done_callback(lambda _: limit.reschedule(asyncio.get_running_loop().time()))
            await nbrun.run_async("nb.ipynb", observe=observe)

    with pytest.raises(TimeoutError):
        await run_until_it_has_begun()
    assert printed(here / "nb.ipynb") == "one\nhere\n"


def test_what_interrupts_the_waiting_in_a_running_loop_ends_the_run_and_saves(here: Path) -> None:
    write_notebook(here / "nb.ipynb", SLOW)
    program = """
import asyncio, os, signal
import nbrun

def observe(event):
    if getattr(event, "index", None) == 1 and hasattr(event, "output"):
        os.kill(os.getpid(), signal.SIGINT)

async def cell():
    nbrun.run("nb.ipynb", observe=observe)

try:
    asyncio.new_event_loop().run_until_complete(cell())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=50, check=True)
    assert done.stdout == "interrupted\n"
    assert printed(here / "nb.ipynb") == "one\nhere\n"


async def test_two_runs_of_one_notebook_at_once_do_not_mix(server: RunningServer) -> None:
    cells = ["import time; x = 0", *["x += 1; time.sleep(0.1)"] * 4, "print(x)"]
    write_notebook(server.root / "nb.ipynb", notebook(*cells))
    options: Any = {"server": server.url, "token": server.token}
    one, other = await asyncio.gather(nbrun.run_async("nb.ipynb", **options), nbrun.run_async("nb.ipynb", **options))
    assert (one.outcome, other.outcome) == (Outcome.PASSED, Outcome.PASSED)
    saved = {one.output, other.output}
    assert "nb.ipynb" in saved
    for name in saved:
        assert printed(server.root / str(name)) == "4\n"
    if len(saved) == 2:
        assert any("changed by somebody else" in warning for warning in (*one.warnings, *other.warnings))
    assert server.sessions() == []


def test_an_option_that_does_not_exist_is_told_with_the_nearest_one(here: Path) -> None:
    with pytest.raises(UsageError, match=r"cell_timout \(did you mean cell_timeout\?\)"):
        nbrun.run("nb.ipynb", cell_timout=5)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"retrys \(did you mean retries\?\)"):
        nbrun.run_many(["nb.ipynb"], retrys=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parameters": [1]}, r"parameters: takes a mapping of names to values, not \[1\]"),
        ({"secrets": {"A": 1}}, "secrets: takes a mapping of names to texts; 'A' is none"),
        ({"cell_timeout": "soon"}, "cell_timeout: 'soon' is no duration"),
        ({"allow_errors": 1}, "allow_errors: takes true or false, not 1"),
        ({"output": 3}, "output: takes a path, not 3"),
        ({"max_output": "much"}, "max_output: 'much' is no size"),
        ({"stop": "now"}, "stop: takes an nbrun.StopSwitch, not 'now'"),
        ({"preload": "pandas", "zygote": False}, "preload needs the zygote"),
    ],
    ids=str,
)
def test_a_wrong_value_is_a_wrong_call(options: dict[str, Any], said: str, here: Path) -> None:
    for call in (nbrun.run, lambda name, **given: nbrun.run_many([name], **given)):
        with pytest.raises(UsageError, match=said):
            call("nb.ipynb", **options)


def test_durations_and_sizes_are_what_they_are_on_the_command_line(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("import time; time.sleep(60)"))
    result = nbrun.run("nb.ipynb", cell_timeout="500ms", max_output="50MB", preload="json")
    assert result.outcome is Outcome.TIMED_OUT


ODD = ["100% a b.ipynb", "é本#?.ipynb", "back\\slash;&+.ipynb", ".hidden.ipynb"]


@pytest.mark.skipif(os.name != "posix", reason="names that only POSIX allows")
async def test_odd_names_are_names_like_any_other(here: Path) -> None:
    folder = here / ".odd folder%20" / "[é]"
    for name in ODD:
        write_notebook(folder / name, notebook(WHERE))
    (here / ".git").mkdir()
    results = [await nbrun.run_async(folder / name) for name in ODD[:2]]
    results += [await nbrun.run_async(f".odd folder%20/[é]/{name}") for name in ODD[2:]]
    assert [result.outcome for result in results] == [Outcome.PASSED] * len(ODD)
    assert {printed(folder / name) for name in ODD} == {f"{folder}\n"}


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(lambda here: "sub/nb.ipynb", id="relative"),
        pytest.param(lambda here: here / "sub" / "nb.ipynb", id="absolute"),
        pytest.param(lambda here: "./sub/./nb.ipynb", id="with dots"),
        pytest.param(lambda here: "sub/../sub/nb.ipynb", id="with double dots"),
    ],
)
async def test_a_kernel_starts_in_the_notebooks_own_folder(spelled: Callable[[Path], Any], here: Path) -> None:
    write_notebook(here / "sub" / "nb.ipynb", notebook(WHERE))
    (here / ".git").mkdir()
    result = await nbrun.run_async(spelled(here))
    assert printed(here / "sub" / "nb.ipynb") == f"{here / 'sub'}\n"
    assert result.output == str(Path("sub", "nb.ipynb"))


async def test_a_notebook_behind_a_link_is_run_where_the_link_is(here: Path) -> None:
    real = write_notebook(here / "real" / "nb.ipynb", notebook(WHERE))
    (here / "work").mkdir()
    (here / "work" / "link.ipynb").symlink_to(real)
    await nbrun.run_async("work/link.ipynb")
    assert (here / "work" / "link.ipynb").is_symlink()
    assert printed(real) == f"{here / 'work'}\n"


async def test_an_output_elsewhere_does_not_move_the_kernel(here: Path) -> None:
    before = write_notebook(here / "project" / "nb.ipynb", notebook(WHERE)).read_bytes()
    (here / "project" / ".git").mkdir()
    result = await nbrun.run_async("project/nb.ipynb", output=here / "out" / "of" / "root.ipynb")
    assert printed(here / "out" / "of" / "root.ipynb") == f"{here / 'project'}\n"
    assert result.output == str(Path("out", "of", "root.ipynb"))
    assert (here / "project" / "nb.ipynb").read_bytes() == before


async def test_an_output_outside_the_current_folder_is_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(tmp_path / "nb.ipynb", notebook("1"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    result = await nbrun.run_async(tmp_path / "nb.ipynb")
    assert result.output == str(tmp_path / "nb.ipynb")


async def test_what_is_no_notebook_is_told_before_a_server_is_started(here: Path) -> None:
    events: list[Event] = []
    (here / "folder").mkdir()
    write_notebook(here / "nb.ipynb", notebook("1"))
    with pytest.raises(NoSuchNotebook, match="no such file"):
        await nbrun.run_async("none.ipynb", observe=events.append)
    with pytest.raises(NotANotebook, match="a folder"):
        await nbrun.run_async("folder", observe=events.append)
    with pytest.raises(UsageError, match="a folder of this path is a file"):
        await nbrun.run_async("nb.ipynb", output="nb.ipynb/x.ipynb", observe=events.append)
    assert events == []


async def test_output_on_another_drive_is_a_wrong_call(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_common_path(paths: Any) -> str:
        raise ValueError("Paths don't have the same drive")  # as on Windows, which alone has drives

    monkeypatch.setattr(os.path, "commonpath", no_common_path)
    write_notebook(here / "nb.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="another drive"):
        await nbrun.run_async("nb.ipynb")


async def test_without_the_extra_a_private_server_says_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.local_server.launcher.find_spec", lambda name: None)
    write_notebook(here / "nb.ipynb", notebook("1"))
    with pytest.raises(UsageError) as raised:
        await nbrun.run_async("nb.ipynb")
    assert "jupyter-nbrun[local]" in f"{raised.value} {raised.value.hint}"


async def test_a_notebook_on_a_server_can_be_saved_elsewhere_on_it(server: RunningServer) -> None:
    before = write_notebook(server.root / "source.ipynb", notebook("print('ran')")).read_bytes()
    result = await nbrun.run_async(
        "source.ipynb", server=server.url, token=server.token, output="made/on the way/out.ipynb"
    )
    assert result.output == "made/on the way/out.ipynb"
    assert printed(server.root / "made/on the way/out.ipynb") == "ran\n"
    assert (server.root / "source.ipynb").read_bytes() == before


async def test_a_local_notebook_is_run_on_a_server_that_is_elsewhere(server: RunningServer, here: Path) -> None:
    write_notebook(here / "local.ipynb", notebook("print('ran')"))
    result = await nbrun.run_async("local.ipynb", server=server.url, token=server.token, upload=True)
    assert outcomes(result) == ["passed"]
    assert printed(here / "local.ipynb") == "ran\n"
    assert list(server.root.glob("nbrun-*")) == []


async def test_a_file_of_no_certificates_is_a_wrong_call(server: RunningServer, here: Path) -> None:
    (here / "ca.pem").write_text("no certificate")
    with pytest.raises(UsageError, match=r"ca\.pem"):
        await nbrun.run_async("nb.ipynb", server=server.url, token=server.token, ca_file="ca.pem")


async def test_nothing_is_saved_where_that_is_not_wanted(here: Path) -> None:
    before = write_notebook(here / "nb.ipynb", notebook(code("1", outputs=[stdout("old")]))).read_bytes()
    result = await nbrun.run_async("nb.ipynb", save=False)
    assert (result.outcome, result.output) == (Outcome.PASSED, None)
    assert (here / "nb.ipynb").read_bytes() == before
