"""Runs on seats that execute: what is sent, what is saved, and what happens when a seat is lost."""

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

import nbrun
from nbrun.core.batch.parcels import Delivery, Parcel
from nbrun.core.events import CellFinished, Event, Journal, OutputArrived, Stage, StageEntered
from nbrun.core.planning.job import Job, Secret
from nbrun.core.results import BatchResult, NotebookResult, Outcome
from nbrun.errors import ExitCode, SeatLost, UsageError
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.runner import plugins
from nbrun.runner.batch.resume import RunJournal
from nbrun.runner.job import PlannedRun
from nbrun.runner.sending import Sending, send_notebook
from nbrun.runner.stop import StopSwitch
from tests.support import executing
from tests.support.executing import Script
from tests.support.live_runs import Watch, text_of
from tests.support.notebooks import Notebook, code, notebook, read_notebook, write_notebook


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(plugins, "_OWN_ENGINES", {"inside": "tests.support.executing"})
    monkeypatch.setattr("nbrun.runner.batch.run.pause_after", lambda _: 0.0)
    monkeypatch.setattr(executing, "script", Script())
    return executing.script


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*names: str, **options: Any) -> BatchResult:
    return nbrun.run_many(names, **{"engine": "inside://here", "output": "out/", **options})


def printed(path: str) -> list[str]:
    return [text_of(cell["outputs"]) for cell in read_notebook(Path(path))["cells"] if cell["cell_type"] == "code"]


def test_notebooks_are_executed_on_the_seats_and_saved_here(here: Path, script: Script) -> None:
    parameters = notebook(code("day = None", tags=["parameters"]), "import os; print(day.year, os.getcwd())")
    write_notebook(here / "sub" / "a.ipynb", parameters)
    write_notebook(here / "wrong.ipynb", notebook("print('before')", "1 / 0"))
    watch = Watch()
    done = run(
        "sub/a.ipynb", "wrong.ipynb", jobs=2, parameters={"day": date(2026, 1, 2)}, allow_new=True,
        observe=watch.observe,
    )  # fmt: skip
    passed, failed = done.runs
    assert (passed.outcome.value, passed.output, passed.path) == ("passed", "out/sub/a.ipynb", "sub/a.ipynb")
    assert (failed.outcome.value, failed.output, done.exit_code) == ("failed", "out/wrong.ipynb", 1)
    assert failed.failing is not None
    assert printed("out/sub/a.ipynb")[-1] == f"2026 {here / 'sub'}\n"
    assert printed("out/wrong.ipynb")[1] == "before\n"
    stages = [each.stage for each in watch.events if isinstance(each, StageEntered) and each.notebook == "sub/a.ipynb"]
    assert (stages[0], stages[-1]) == (Stage.CONNECTING, Stage.SAVING)
    assert Stage.RUNNING in stages
    texts = [
        event.output["text"] for event in watch.events if isinstance(event, OutputArrived) and "text" in event.output
    ]
    assert "before\n" in texts
    assert sorted(name for _, name, _ in script.ran) == ["sub/a.ipynb", "wrong.ipynb"]


def test_the_value_of_a_secret_is_sent_in_neither_direction(
    here: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", "planted-value")  # in the environment of the seat
    write_notebook(here / "a.ipynb", notebook("print(PLANTED)", "raise ValueError(PLANTED)"))
    done = run("a.ipynb", secrets={"PLANTED": "planted-value"})
    assert done.exit_code is ExitCode.NOTEBOOK_FAILED
    assert script.sent
    assert not [data for data in script.sent if b"planted-value" in data]
    assert "planted-value" not in Path("out/a.ipynb").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"secrets": {"ELSEWHERE": "x"}}, "--secret ELSEWHERE: the environment variable ELSEWHERE is not set"),
        ({"secrets": {"A": Secret("", "env:OTHER")}}, "--secret A: the environment variable OTHER is not set"),
        ({"secrets": {"A": Secret("x", "file:/no/file")}}, "--secret-file A=/no/file: cannot be read: No such file"),
        ({"cwd": "missing"}, "there is no folder {here}/missing"),
    ],
    ids=["variable", "another variable", "file", "folder"],
)
def test_what_a_seat_lacks_is_named_before_the_first_run(
    here: Path, script: Script, options: dict[str, Any], said: str
) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    write_notebook(here / "b.ipynb", notebook("1"))
    done = run("a.ipynb", "b.ipynb", **options)
    assert done.exit_code is ExitCode.USAGE
    assert done.runs[0].problem is not None
    assert done.runs[0].problem.message.startswith(f"seat 1: {said.format(here=here)}")
    assert not script.sent


def test_a_secret_without_a_value_here_is_read_on_the_seat_and_masked_there(
    here: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = UsageError("it is not set here")
    monkeypatch.setenv("OF_SEAT", "planted-value")
    (here / "key").write_text("planted-key\n")
    secrets = {"A": Secret("", "env:OF_SEAT", missing), "B": Secret("", f"file:{here / 'key'}", missing)}
    write_notebook(here / "a.ipynb", notebook("print(len(A), len(B), A, B)"))
    done = run("a.ipynb", secrets=secrets)
    assert done.exit_code is ExitCode.OK
    assert printed("out/a.ipynb") == ["13 11 *** ***\n"]
    assert not [data for data in script.sent if b"planted-" in data]
    with pytest.raises(UsageError, match="it is not set here"):  # without seats that execute, it is needed
        nbrun.run("a.ipynb", secrets=secrets)


def test_a_declared_input_that_the_seat_does_not_have_is_named(
    here: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = notebook("1", nbrun={"depends": ["data/*.csv"]})
    write_notebook(here / "a.ipynb", document)
    (here / "data").mkdir()
    (here / "data" / "x.csv").touch()
    assert run("a.ipynb").exit_code is ExitCode.OK
    monkeypatch.setattr("nbrun.engines.worker.os.path.lexists", lambda path: False)
    (result,) = run("a.ipynb").runs
    assert result.exit_code is ExitCode.USAGE
    assert result.problem is not None
    assert f"there is no file {here}/data/x.csv, which the notebook declares" in result.problem.message


def test_a_run_in_a_scratch_folder_is_sent(here: Path, script: Script) -> None:
    write_notebook(here / "a.ipynb", notebook("import os; print(os.path.basename(os.getcwd())[:6])"))
    assert run("a.ipynb", cwd="@scratch").exit_code is ExitCode.OK
    assert printed("out/a.ipynb") == ["nbrun-\n"]


def test_the_messages_of_seats_that_execute_are_not_traced(here: Path, script: Script) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="--trace is not possible with this engine"):
        run("a.ipynb", trace="trace.jsonl")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"kernel": "none"}, "has no kernel 'none'"), ({"parameters": {"x": 1}}, "x")],
    ids=["kernel", "parameter"],
)
def test_a_wrong_call_is_found_before_anything_is_sent(
    here: Path, script: Script, options: dict[str, Any], said: str
) -> None:
    write_notebook(here / "a.ipynb", notebook(code("y = 1", tags=["parameters"])))
    (result,) = run("a.ipynb", **options).runs
    assert result.exit_code is ExitCode.USAGE
    assert result.problem is not None
    assert said in result.problem.message
    assert not script.sent


def losing(*attempts: int) -> Any:
    def meddle(parcel: Parcel, thing: Event | Delivery) -> None:
        if parcel.attempt in attempts and isinstance(thing, CellFinished) and thing.result.number == 2:
            raise SeatLost("the worker was killed")

    return meddle


LONG = notebook("print('one')", "print('two')", "import time; time.sleep(0.2); print('three')")


def test_a_run_whose_seat_is_lost_is_repeated_on_another_one(here: Path, script: Script) -> None:
    script.meddle = losing(1)
    write_notebook(here / "a.ipynb", LONG)
    (result,) = run("a.ipynb").runs
    assert (result.outcome.value, result.attempts) == ("passed", 2)
    assert script.ran == [("seat 1", "a.ipynb", 1), ("seat 2", "a.ipynb", 2)]
    assert [each.outcome.value for each in result.tries] == ["seat-lost", "passed"]
    assert printed("out/a.ipynb") == ["one\n", "two\n", "three\n"]


def test_after_two_lost_seats_the_outputs_that_arrived_are_saved(here: Path, script: Script) -> None:
    script.meddle = losing(1, 2)
    write_notebook(here / "a.ipynb", LONG)
    write_notebook(here / "b.ipynb", notebook("print('b')"))
    lost, other = run("a.ipynb", "b.ipynb").runs
    assert (lost.outcome.value, lost.exit_code, lost.attempts) == ("seat-lost", ExitCode.SERVER, 2)
    assert [cell.outcome.value for cell in lost.cells[:2]] == ["passed", "passed"]
    assert printed("out/a.ipynb")[:2] == ["one\n", "two\n"]
    assert read_notebook(Path("out/a.ipynb"))["metadata"]["nbrun"]["run"]["outcome"] == "seat-lost"
    assert other.outcome.value == "passed"


def test_a_run_whose_seats_are_retired_is_repeated_until_one_lasts(here: Path, script: Script) -> None:
    def meddle(parcel: Parcel, thing: Event | Delivery) -> None:
        if parcel.attempt < 4 and isinstance(thing, CellFinished) and thing.result.number == 2:
            raise SeatLost("the worker was retired" if parcel.attempt != 2 else "the worker was killed")

    script.meddle = meddle
    write_notebook(here / "a.ipynb", LONG)
    (result,) = run("a.ipynb").runs
    assert [each.outcome.value for each in result.tries] == ["seat-lost", "seat-lost", "seat-lost", "passed"]
    assert printed("out/a.ipynb") == ["one\n", "two\n", "three\n"]


def test_without_the_cause_worker_a_lost_seat_ends_the_run(here: Path, script: Script) -> None:
    script.meddle = losing(1)
    write_notebook(here / "a.ipynb", LONG)
    (result,) = run("a.ipynb", retry_on="kernel").runs
    assert (result.outcome.value, result.attempts) == ("seat-lost", 1)


def test_the_delivery_of_another_attempt_is_not_taken(here: Path, script: Script) -> None:
    def meddle(parcel: Parcel, thing: Event | Delivery) -> Delivery | None:
        return replace(thing, attempt=7) if isinstance(thing, Delivery) and parcel.attempt == 1 else None

    script.meddle = meddle
    write_notebook(here / "a.ipynb", notebook("print(1)"))
    (result,) = run("a.ipynb").runs
    assert [each.outcome.value for each in result.tries] == ["seat-lost", "passed"]


@pytest.mark.parametrize("is_deaf", [False, True], ids=["delivers", "does not answer"])
def test_after_a_stop_the_partial_notebook_is_saved(
    here: Path, script: Script, is_deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.runner.sending.STOP_LIMIT", 0.3 if is_deaf else 30.0)
    script.is_deaf = is_deaf
    stop = StopSwitch()

    def observe(event: Event) -> None:
        if isinstance(event, OutputArrived) and "begun" in event.output.get("text", ""):
            stop.pull("stopped by the test", ExitCode.TERMINATED)

    write_notebook(here / "a.ipynb", notebook("print('begun')\nimport time; time.sleep(600)"))
    (result,) = run("a.ipynb", stop=stop, observe=observe).runs
    assert (result.outcome.value, result.exit_code) == ("interrupted", ExitCode.TERMINATED)
    assert printed("out/a.ipynb") == ["begun\n"]


class _StuckNotebook:
    """A notebook whose save does not end."""

    path = kernel_path = "a.ipynb"

    def __init__(self) -> None:
        self.is_saving = asyncio.Event()

    async def load(self) -> Notebook:
        return notebook("print(1)")

    async def save(self, content: Any, retry: Any, *, passed: bool) -> str:
        self.is_saving.set()
        await asyncio.Event().wait()
        return ""

    async def close(self) -> None:
        pass


class _Delivering:
    """A seat that delivers at once what it gets."""

    name, setting = "seat 1", None

    async def run(self, parcel: Parcel, tell: Any, stop: StopSwitch) -> Delivery:
        result = NotebookResult("1", "a.ipynb", None, None, Outcome.PASSED, "", 0.0, [])
        return Delivery(parcel.run, parcel.attempt, result, parcel.notebook)


async def test_a_delivery_whose_save_is_cancelled_is_in_a_rescue_file(here: Path) -> None:
    stuck, seat, slot = _StuckNotebook(), _Delivering(), contextlib.nullcontext()

    async def take() -> Any:
        return seat

    sending = Sending(Job("a.ipynb"), cast(Any, stuck), take, "batch", "a.ipynb", 1, str(here), here)
    journal = Journal("a.ipynb", lambda event: None)
    task = asyncio.create_task(send_notebook(sending, journal=journal, stop=StopSwitch(), slot=cast(Any, slot)))
    await asyncio.wait_for(stuck.is_saving.wait(), 10)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    (rescued,) = here.glob("a.rescued-*.ipynb")
    assert read_notebook(rescued)["cells"][0]["source"] == "print(1)"


def test_a_run_that_is_ready_before_an_earlier_one_does_not_take_its_seat(
    here: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run has the slot. If the second one took the only seat, both would wait for ever."""
    look, is_ready = RunJournal.look, threading.Event()

    def slowly(journal: RunJournal, planned: PlannedRun) -> Any:
        if planned.name == "a.ipynb":
            is_ready.wait(10)
            time.sleep(0.1)
        else:
            is_ready.set()
        return look(journal, planned)

    monkeypatch.setattr(RunJournal, "look", slowly)
    for name in "ab":
        write_notebook(here / f"{name}.ipynb", notebook("1"))
    done = run("a.ipynb", "b.ipynb")
    assert done.exit_code is ExitCode.OK
    assert [name for _, name, _ in script.ran] == ["a.ipynb", "b.ipynb"]


def test_seats_with_another_nbrun_end_the_batch_before_the_first_run(here: Path, script: Script) -> None:
    script.setting = lambda setting: structs.replace(setting, nbrun="0.0.1")
    write_notebook(here / "a.ipynb", notebook("1"))
    done = run("a.ipynb")
    assert done.exit_code is ExitCode.USAGE
    assert "seat 1: the seat has nbrun 0.0.1" in (done.runs[0].problem.message if done.runs[0].problem else "")
    assert not script.sent


def test_a_seat_that_knows_no_kernel_cannot_run_the_notebook(here: Path, script: Script) -> None:
    script.setting = lambda setting: structs.replace(setting, kernelspecs=KernelSpecs("", {}))
    write_notebook(here / "a.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="no kernel"):
        nbrun.run("a.ipynb", engine="inside://here")
