"""A retried run keeps its best attempt, in the result and in the file."""

import functools
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import CellFinished, CellStarted, Event, Warned
from nbrun.errors import ExitCode
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.retry import RECONNECT
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.stop import StopSwitch
from tests.support.live_runs import text_of
from tests.support.notebooks import notebook, read_notebook, write_notebook
from tests.support.servers import free_port, jupyter_server

KILL = "os.kill(os.getpid(), signal.SIGKILL)"
COUNT = """import os, pathlib, signal
tries = pathlib.Path('tries')
tries.write_text((tries.read_text() if tries.exists() else '') + 'x')
number = len(tries.read_text())
print('attempt', number)"""

IN_TURN: Any = {"in_place": True, "pipeline": 1}
"""A killed kernel may take with it the last messages of a cell before the one that is sent at the same time."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder of a test whose attempts follow each other without a pause."""
    monkeypatch.setattr("nbrun.runner.batch.run.pause_after", lambda _: 0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(path: Path | str | None) -> list[str]:
    return [text_of(cell["outputs"]) for cell in read_notebook(Path(str(path)))["cells"]]


def test_a_worse_attempt_replaces_neither_result_nor_file(here: Path) -> None:
    """The first attempt ends in its third cell, the second in its second, and the third has nothing."""
    path = write_notebook(
        here / "nb.ipynb",
        notebook(
            f"{COUNT}\nif number == 3: {KILL}",
            f"print('second')\nif number == 2: {KILL}",
            KILL,
        ),
    )
    result = nbrun.run_many(["nb.ipynb"], retries=2, **IN_TURN, save_every=0.05).runs[0]
    assert (here / "tries").read_text() == "xxx"
    assert [cell.outcome.value for cell in result.cells] == ["passed", "passed", "kernel-died"]
    assert (result.exit_code, result.output, result.attempts) == (ExitCode.KERNEL, "nb.ipynb", 3)
    assert [(each.outcome.value, each.verdicts, each.output, each.kept) for each in result.tries] == [
        ("kernel-died", 3, "nb.ipynb", True),
        ("kernel-died", 2, None, False),
        ("kernel-died", 1, None, False),
    ]
    assert printed(path) == ["attempt 1\n", "second\n", ""]
    assert [text.partition(":")[0] for text in result.warnings] == ["attempt 1 of 3", "attempt 2 of 3", "attempt 3"]
    assert result.warnings[-1].endswith("attempt 1 came further, and is kept")


def test_a_better_attempt_replaces_both(here: Path) -> None:
    path = write_notebook(here / "nb.ipynb", notebook(f"{COUNT}\nif number == 1: {KILL}", "print('second')", KILL))
    result = nbrun.run_many(["nb.ipynb"], retries=1, **IN_TURN).runs[0]
    assert [cell.outcome.value for cell in result.cells] == ["passed", "passed", "kernel-died"]
    assert [(each.verdicts, each.output, each.kept) for each in result.tries] == [
        (1, "nb.ipynb", False),
        (3, "nb.ipynb", True),
    ]
    assert printed(path) == ["attempt 2\n", "second\n", ""]


def test_a_run_that_is_stopped_between_two_attempts_keeps_what_it_has(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.batch.run.pause_after", lambda _: 60.0)
    path = write_notebook(here / "nb.ipynb", notebook("print(1)", f"import os, signal\n{KILL}"))
    stop = StopSwitch()

    def observe(event: Event) -> None:
        if isinstance(event, Warned) and "trying again" in event.text:
            stop.pull("interrupted", ExitCode.INTERRUPTED)

    result = nbrun.run_many(["nb.ipynb"], retries=1, **IN_TURN, stop=stop, observe=observe).runs[0]
    assert (result.outcome.value, result.exit_code, result.attempts) == ("interrupted", ExitCode.INTERRUPTED, 1)
    assert result.problem is not None
    assert result.problem.message == "interrupted before attempt 2 of 2"
    assert "those of attempt 1: the kernel died" in result.problem.hint
    assert [cell.outcome.value for cell in result.cells] == ["passed", "kernel-died"]
    assert printed(path)[0] == "1\n"


def test_a_signal_in_a_later_attempt_ends_the_run_with_the_results_of_the_kept_one(here: Path) -> None:
    waiting = "if number == 2: time.sleep(60)"
    path = write_notebook(here / "nb.ipynb", notebook(f"import time\n{COUNT}", f"print('two')\n{waiting}", KILL))
    stop = StopSwitch()
    begun: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, CellStarted) and event.index == 1:
            begun.append(event.index)
            if len(begun) == 2:
                stop.pull("terminated by SIGTERM", ExitCode.TERMINATED)

    result = nbrun.run_many(["nb.ipynb"], retries=2, **IN_TURN, stop=stop, observe=observe).runs[0]
    assert (result.outcome.value, result.exit_code, result.attempts) == ("interrupted", ExitCode.TERMINATED, 2)
    assert result.problem is not None
    assert result.problem.message == "terminated by SIGTERM in attempt 2 of 3"
    assert [cell.outcome.value for cell in result.cells] == ["passed", "passed", "kernel-died"]
    assert [each.exit_code for each in result.tries] == [ExitCode.KERNEL, ExitCode.TERMINATED]
    assert printed(path) == ["attempt 1\n", "two\n", ""]


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "stays away"])
def test_a_lost_server_is_waited_for_and_what_it_had_computed_is_kept(
    comes_back: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.servers.Server", functools.partial(Server, reconnect=RECONNECT.within(0.2)))
    monkeypatch.setattr("nbrun.runner.saving.SHORT_RETRY", 0.2)
    root = here / "root"
    root.mkdir()
    path = write_notebook(
        root / "nb.ipynb",
        notebook(f"{COUNT}\nif number == 2: {KILL}", "print('second')", "import time; time.sleep(60)"),
    )
    before = path.read_bytes()
    with ExitStack() as stack:
        server = stack.enter_context(jupyter_server(root))
        again = functools.partial(jupyter_server, root, token=server.token, port=server.port)
        coming: list[threading.Thread] = []

        def observe(event: Event) -> None:
            if isinstance(event, CellFinished) and event.result.index == 1:
                server.kill()
            if comes_back and isinstance(event, Warned) and "waiting up to" in event.text:
                coming.append(threading.Thread(target=lambda: stack.enter_context(again())))
                coming[0].start()

        options: Any = {"server": server.url, "token": server.token, "observe": observe}
        wait = 60.0 if comes_back else 0.1
        result = nbrun.run_many(
            ["nb.ipynb"], retries=1, in_place=True, server_wait=wait, save_every=60.0, **options
        ).runs[0]
        for thread in coming:
            thread.join()

    assert (result.outcome.value, result.exit_code) == ("server-failed", ExitCode.SERVER)
    assert [cell.outcome.value for cell in result.cells] == ["passed", "passed", "interrupted"]
    assert result.rescued
    assert printed(result.output)[:2] == ["attempt 1\n", "second\n"]
    assert path.read_bytes() == before
    assert any(f"{server.url} does not answer; waiting up to" in text for text in result.warnings)
    if comes_back:
        assert [(each.outcome.value, each.kept) for each in result.tries] == [
            ("server-failed", True),
            ("kernel-died", False),
        ]
        assert (root / "tries").read_text() == "xx"
    else:
        assert result.tries == ()
        assert result.warnings[-1].endswith("not trying again")


async def test_a_server_that_is_there_is_not_waited_for_and_one_behind_a_dead_proxy_is(here: Path) -> None:
    said: list[str] = []
    with jupyter_server(here) as server:
        async with Client(Endpoint(server.url, token="wrong")) as client:
            assert await Server(client).answers_within(0.1, lambda: said.append("waiting"))
        assert said == []
    async with Client(Endpoint(f"http://127.0.0.1:{free_port()}/")) as client:
        assert not await Server(client).answers_within(0.1, lambda: said.append("waiting"))
    assert said == ["waiting"]
