"""Notebooks as text from Python, on private and stock servers and on servers without files."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import Event, Stage, StageEntered
from nbrun.errors import ExitCode, NotANotebook, UsageError
from tests.support.notebooks import notebook, outputs_of, read_notebook, write_notebook
from tests.support.other_servers import kernel_gateway
from tests.support.servers import RunningServer

ASKS_WHERE = "import os; print(os.getcwd())"


pytestmark = pytest.mark.usefixtures("here")


def on(server: RunningServer) -> dict[str, Any]:
    """Return the options of a run there."""
    return {"server": server.url, "token": server.token}


def printed(text: str) -> list[str]:
    """Return what each cell of a notebook's text printed."""
    return ["".join(output["text"][0] for output in outputs) for outputs in outputs_of(json.loads(text))]


def test_what_is_given_as_text_is_delivered_as_text_and_no_file_is_written(here: Path) -> None:
    delivered: list[str] = []
    result = nbrun.run("made.ipynb", content=json.dumps(notebook(ASKS_WHERE)), deliver=delivered.append)

    assert (result.path, result.output, result.exit_code) == ("made.ipynb", "-", ExitCode.OK)
    assert [printed(text) for text in delivered] == [[f"{here}\n"]]
    assert list(here.iterdir()) == []


def test_what_is_given_as_text_can_be_saved_in_a_file_under_its_name_or_another(here: Path) -> None:
    content = json.dumps(notebook("print(1)")).encode()
    results = [nbrun.run("a.ipynb", content=content), nbrun.run("a.ipynb", content=content, output="out/b.ipynb")]

    assert [result.output for result in results] == ["a.ipynb", "out/b.ipynb"]
    assert [outputs_of(read_notebook(here / name))[0][0]["text"] for name in ("a.ipynb", "out/b.ipynb")] == ["1\n"] * 2


def test_a_file_whose_result_is_delivered_stays_as_it_is_however_long_it_runs(here: Path) -> None:
    path = write_notebook(here / "nb.ipynb", notebook("print(1)", "import time; time.sleep(1)", "1 / 0", "print(2)"))
    before, delivered = path.read_bytes(), list[str]()
    result = nbrun.run("nb.ipynb", deliver=delivered.append, save_every=0.1)

    assert (result.exit_code, result.output) == (ExitCode.NOTEBOOK_FAILED, "-")
    assert path.read_bytes() == before
    assert [cell["outputs"] != [] for cell in json.loads(delivered[0])["cells"]] == [True, False, True, False]


def test_what_cannot_be_delivered_is_rescued(here: Path) -> None:
    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    result = nbrun.run("nb.ipynb", content=json.dumps(notebook("print(1)")), deliver=full)

    assert (result.exit_code, result.rescued) == (ExitCode.SERVER, True)
    assert result.problem is not None
    assert result.problem.message == "the executed notebook could not be delivered: No space left on device"
    assert outputs_of(read_notebook(here / str(result.output)))[0][0]["text"] == "1\n"


def test_a_delivery_that_does_not_end_keeps_nobody_waiting(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbrun.runner.saving.SHORT_LIMIT", 0.2)
    taken, stop = threading.Event(), nbrun.StopSwitch()

    def observe(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage is Stage.SAVING:
            asyncio.get_running_loop().call_soon(stop.pull, "enough", ExitCode.TERMINATED)

    def never(_: str) -> None:
        taken.wait()

    patience = threading.Timer(30, taken.set)
    patience.start()
    options: Any = {"content": json.dumps(notebook("print(1)")), "deliver": never, "observe": observe, "stop": stop}
    result = nbrun.run("nb.ipynb", **options)
    patience.cancel()

    assert not taken.is_set()
    assert result.rescued
    assert outputs_of(read_notebook(here / str(result.output)))[0][0]["text"] == "1\n"
    taken.set()


async def test_a_delivery_of_what_was_only_prepared_can_be_stopped() -> None:
    taken, stop = threading.Event(), nbrun.StopSwitch()
    loop = asyncio.get_running_loop()

    def never(_: str) -> None:
        loop.call_soon_threadsafe(stop.pull, "enough", ExitCode.TERMINATED)
        taken.wait()

    options: Any = {"content": json.dumps(notebook("1")), "deliver": never, "prepare_only": True, "stop": stop}
    async with asyncio.timeout(30):
        result = await nbrun.run_async("nb.ipynb", **options)
    assert (result.outcome, result.exit_code) == ("not-run", ExitCode.TERMINATED)
    taken.set()


@pytest.mark.parametrize("upload", [False, True], ids=["there", "uploaded"])
def test_on_a_server_nothing_is_written_there(server: RunningServer, here: Path, *, upload: bool) -> None:
    (server.root / "work").mkdir(exist_ok=True)
    before, delivered = sorted(server.root.rglob("*")), list[str]()
    content = json.dumps(notebook(ASKS_WHERE))
    for cwd in (None, "work"):
        result = nbrun.run("nb.ipynb", content=content, deliver=delivered.append, cwd=cwd, upload=upload, **on(server))
        assert (result.exit_code, result.warnings) == (ExitCode.OK, ())

    assert [printed(text) for text in delivered] == [[f"{server.root}\n"], [f"{server.root / 'work'}\n"]]
    assert sorted(server.root.rglob("*")) == before
    assert list(here.iterdir()) == []


def test_on_a_server_the_result_can_be_saved(server: RunningServer) -> None:
    result = nbrun.run("x.ipynb", content=json.dumps(notebook("print(1)")), output="made/x.ipynb", **on(server))
    assert (result.exit_code, result.output) == (ExitCode.OK, "made/x.ipynb")
    assert outputs_of(read_notebook(server.root / "made" / "x.ipynb"))[0][0]["text"] == "1\n"


def test_a_working_folder_that_the_server_has_not_is_refused(server: RunningServer) -> None:
    with pytest.raises(UsageError, match="no/such"):
        nbrun.run("x.ipynb", content=json.dumps(notebook("1")), deliver=print, cwd="no/such", **on(server))


def test_a_server_that_serves_kernels_alone_runs_it(here: Path) -> None:
    delivered: list[str] = []
    with kernel_gateway(here) as gateway:
        result = nbrun.run("x.ipynb", content=json.dumps(notebook("print(1)")), deliver=delivered.append, **on(gateway))
    assert (result.exit_code, printed(delivered[0])) == (ExitCode.OK, ["1\n"])


def test_a_text_that_is_no_notebook_is_refused_in_plain_words() -> None:
    with pytest.raises(NotANotebook, match=r"report\.ipynb: the file has merge conflict markers in it"):
        nbrun.run("report.ipynb", content="{\n<<<<<<< mine\n", deliver=print)


def test_prepared_it_is_delivered_too(here: Path) -> None:
    delivered: list[str] = []
    options: Any = {"prepare_only": True, "parameters": {"a": 1}, "allow_new": True}
    result = nbrun.run("x.ipynb", content=json.dumps(notebook("print(a)")), deliver=delivered.append, **options)
    assert (result.outcome, result.output) == ("prepared", "-")
    assert [cell["source"] for cell in json.loads(delivered[0])["cells"]] == [["# Parameters\n", "a = 1"], ["print(a)"]]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("handed", [{"content": "{}"}, {"deliver": print}], ids=["content", "deliver"])
def test_it_is_for_one_notebook_and_has_no_checkpoint(handed: dict[str, Any]) -> None:
    write_notebook(Path("nb.ipynb"), notebook("1"))
    with pytest.raises(UsageError, match="for one notebook"):
        nbrun.run_many(["nb.ipynb"], **handed)
    with pytest.raises(UsageError, match="no checkpoint"):
        nbrun.run("nb.ipynb", checkpoint=True, **handed)
