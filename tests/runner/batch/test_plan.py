"""Many notebooks on one private server, from Python."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

import nbrun
from nbrun.core.batch.output_paths import Template
from nbrun.core.batch.terms import Override
from nbrun.core.events import BatchFinished, BatchStarted, Event, OutputArrived, RunFinished, Warned
from nbrun.core.notebook.document import Document
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import Plan, make_plan
from nbrun.core.results import Outcome
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.runner.batch.plan import BatchPlan, plan_runs
from nbrun.runner.job import read_batch_options
from nbrun.runner.stop import StopSwitch
from tests.support.live_runs import text_of
from tests.support.notebooks import code, notebook, read_notebook, write_notebook
from tests.support.servers import jupyter_server

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
NO_SERVER = Path("no-server-may-start")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        write_notebook(folder / f"{name}.ipynb", notebook(source))


def printed(path: Path) -> str:
    return "".join(text_of(cell["outputs"]) for cell in read_notebook(path)["cells"])


def outcomes(result: nbrun.BatchResult) -> dict[str, str]:
    return {Path(run.path).stem: run.outcome.value for run in result.runs}


def servers_below_us() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "process.boot" in " ".join(child.cmdline())]


def test_one_batch_tells_every_kind_of_failure_and_passes_the_others(here: Path) -> None:
    write(here / "nb", a="print('a')", b="1/0", c="import time; time.sleep(60)", d=KILL, e="print('e')")
    (here / "nb" / "f.ipynb").write_text("{}")
    write_notebook(here / "nb" / "g.ipynb", notebook("1", kernel="cobol"))
    seen: list[Event] = []
    result = nbrun.run_many(["nb"], output="out", jobs=2, cell_timeout=2.0, observe=seen.append)

    assert outcomes(result) == {
        "a": "passed", "b": "failed", "c": "timed-out", "d": "kernel-died", "e": "passed", "f": "not-run",
        "g": "not-run",
    }  # fmt: skip
    assert result.exit_code is ExitCode.KERNEL
    assert printed(here / "out" / "nb" / "e.ipynb") == "e\n"
    assert (here / "out" / "nb" / "d.ipynb").exists()
    assert isinstance(seen[0], BatchStarted)
    assert isinstance(seen[-1], BatchFinished)
    assert sorted(seen[0].notebooks) == sorted(event.notebook for event in seen if isinstance(event, RunFinished))
    assert all(read_notebook(path)["cells"][0]["outputs"] == [] for path in (here / "nb").glob("[abcde].ipynb"))
    assert servers_below_us() == []


def contents_told(events: list[Event]) -> dict[str, list[str]]:
    """Return what each run's notebook shows, as the event that ends the run has it."""
    finished = [event for event in events if isinstance(event, RunFinished)]
    return {
        event.notebook: [text_of(cell["outputs"]) for cell in (event.content or {"cells": []})["cells"]]
        for event in finished
    }


def test_each_run_of_a_batch_ends_with_the_notebook_as_its_last_try_left_it_for_the_reports(here: Path) -> None:
    tries = "from pathlib import Path; Path('tries').open('a').write('x'); print(Path('tries').read_text())"
    write_notebook(here / "again.ipynb", notebook(f"{tries}\nif Path('tries').stat().st_size < 2: {KILL}"))
    (here / "bad.ipynb").write_text("{}")
    seen: list[Event] = []
    nbrun.run_many(["again.ipynb", "bad.ipynb"], save=False, retries=1, observe=seen.append)
    assert contents_told(seen) == {"again.ipynb": ["xx\n"], "bad.ipynb": []}


def test_shards_run_each_notebook_exactly_once(here: Path) -> None:
    write(here, **{f"n{number}": "print('ran')" for number in range(4)})
    runs = [nbrun.run_many(["."], output="out", shard=f"{number}/3", jobs=2) for number in (1, 2, 3)]
    assert sorted(run.path for result in runs for run in result.runs) == [f"n{number}.ipynb" for number in range(4)]
    assert [result.left_out + len(result.runs) for result in runs] == [4, 4, 4]
    assert len(list((here / "out").glob("*.ipynb"))) == 4


def test_a_second_run_with_a_cache_executes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "in.csv").write_text("1")
    write_notebook(
        here / "nb" / "a.ipynb", notebook("print(open('../in.csv').read())", nbrun={"depends": ["../in.csv"]})
    )
    write(here / "nb", b="print('b')", bad="1/0")
    first = nbrun.run_many(["nb"], output="out", cache="kept", jobs=2)
    assert outcomes(first) == {"a": "passed", "b": "passed", "bad": "failed"}, [run.problem for run in first.runs]
    once = (here / "out" / "nb" / "a.ipynb").read_bytes()
    (here / "out" / "nb" / "a.ipynb").unlink()

    with monkeypatch.context() as patch:
        patch.setattr("nbrun.runner.servers.private_host", lambda *_: pytest.fail("a server was started"))
        second = nbrun.run_many(["nb/a.ipynb", "nb/b.ipynb"], output="out", cache="kept")
        assert [(run.outcome, run.cached, run.kernel) for run in second.runs] == [(Outcome.PASSED, True, "python3")] * 2
        assert [cell.execution_count for run in second.runs for cell in run.cells] == [1, 1]
        assert json.loads((here / "out" / "nb" / "a.ipynb").read_bytes())["cells"] == json.loads(
            json.dumps([{**cell, "metadata": {}} for cell in json.loads(once)["cells"]])
        )
        seen: list[Event] = []
        unsaved = nbrun.run_many(["nb/b.ipynb"], cache="kept", save=False, observe=seen.append)
        assert contents_told(seen) == {"nb/b.ipynb": ["b\n"]}
        assert (unsaved.runs[0].cached, unsaved.runs[0].output) == (True, None)

    (here / "in.csv").write_text("2")
    third = nbrun.run_many(["nb/a.ipynb", "nb/b.ipynb"], output="out", cache="kept")
    assert [run.cached for run in third.runs] == [False, True]
    assert printed(here / "out" / "nb" / "a.ipynb") == "2\n"
    assert json.loads((here / "kept" / "durations.json").read_text())["durations"].keys() >= {"nb/a.ipynb"}


def test_the_cache_is_told_no_secret(here: Path) -> None:
    write(here, a="1")
    with pytest.raises(UsageError, match="without secrets"):
        nbrun.run_many(["a.ipynb"], cache="kept", secrets={"TOKEN": "hunter2-and-more"})
    assert not (here / "kept").exists()


def test_a_batch_that_is_not_saved_still_fills_the_cache(here: Path) -> None:
    write(here, a="print('a')")
    before = (here / "a.ipynb").read_bytes()
    first = nbrun.run_many(["a.ipynb"], cache="kept", save=False)
    assert (first.runs[0].output, first.runs[0].cached) == (None, False)
    assert nbrun.run_many(["a.ipynb"], cache="kept", save=False).runs[0].cached
    assert (here / "a.ipynb").read_bytes() == before
    assert not nbrun.run_many(["a.ipynb"], cache="kept", save=False, refresh=True).runs[0].cached


def test_a_matrix_runs_once_for_each_combination(here: Path) -> None:
    write(here, report="print('ran')")
    seen: list[Event] = []
    matrix: dict[str, list[Any]] = {"region": ["EU", "US"], "year": [2025]}
    result = nbrun.run_many(
        ["report.ipynb"], matrix=matrix, output="out/{stem}-{params.region}.ipynb", observe=seen.append
    )
    assert [(run.output, run.parameters) for run in result.runs] == [
        ("out/report-EU.ipynb", {"region": "EU", "year": 2025}),
        ("out/report-US.ipynb", {"region": "US", "year": 2025}),
    ]
    assert isinstance(seen[0], BatchStarted)
    assert seen[0].notebooks == ["report.ipynb [region=EU, year=2025]", "report.ipynb [region=US, year=2025]"]


def test_after_enough_failures_no_other_is_begun(here: Path) -> None:
    write(here, a="1/0", b="print('b')", c="print('c')")
    result = nbrun.run_many(["a.ipynb", "b.ipynb", "c.ipynb"], max_failures=1, in_place=True)
    assert outcomes(result) == {"a": "failed", "b": "not-run", "c": "not-run"}
    assert [run.attempts for run in result.runs] == [1, 0, 0]
    assert result.exit_code is ExitCode.NOTEBOOK_FAILED
    assert read_notebook(here / "b.ipynb")["cells"][0]["execution_count"] is None


def test_a_dead_kernel_is_tried_again_on_a_fresh_one_and_a_cells_error_is_not(here: Path) -> None:
    once = "import pathlib\nmark = pathlib.Path('mark')\nif not mark.exists():\n    mark.touch()\n    " + KILL
    write(here, flaky=once, wrong="open('tries', 'a').write('x'); 1/0")
    seen: list[Event] = []
    result = nbrun.run_many(["flaky.ipynb", "wrong.ipynb"], retries=2, observe=seen.append, in_place=True)
    assert [(run.outcome.value, run.attempts) for run in result.runs] == [("passed", 2), ("failed", 1)]
    assert (here / "tries").read_text() == "x"
    assert sum(isinstance(event, RunFinished) for event in seen) == 2
    assert ["trying again" in event.text for event in seen if isinstance(event, Warned)] == [True]
    assert "trying again" in result.runs[0].warnings[0]


def test_some_notebooks_may_have_other_settings(here: Path) -> None:
    write(here, a="1/0", b="1", c="import time; time.sleep(60)")
    overrides = [
        Override(["a.ipynb"], {"allow_errors": True}),
        Override(["b.*"], skip=True),
        Override(["c.ipynb"], {"cell_timeout": 1.0}),
    ]
    result = nbrun.run_many(["."], overrides=overrides, jobs=2, in_place=True)
    assert outcomes(result) == {"a": "passed", "c": "timed-out"}
    assert result.left_out == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"matrix": {"a": [1, 2]}, "in_place": True}, "would both write"),
        ({"output": "same.ipynb"}, "would both write"),
        ({"output": "out/{sten}.ipynb"}, "did you mean {stem}"),
        ({"jobs": 0}, "jobs: takes a number from 1, or auto, not 0"),
        ({"max_failures": 0}, "max_failures: takes a whole number from 1, not 0"),
        ({"retry_on": ["weather"]}, "retry_on: 'weather' is none of kernel, server"),
        ({"order": "random", "save": False}, "order: takes as-given, slowest-first, not 'random'"),
        ({"shard": "3/2", "in_place": True}, "no part of a whole"),
        ({"cache": "a.ipynb", "save": False}, "a.ipynb: this is a file"),
        ({"save": False, "cache": "kept", "server": "http://127.0.0.1:1/"}, "private servers"),
        ({"durations": "a.ipynb"}, ""),
    ],
    ids=str,
)
def test_a_wrong_call_is_told_before_anything_runs(options: dict[str, Any], said: str, here: Path) -> None:
    write(here, a="1", b="1")
    before = (here / "a.ipynb").read_bytes()
    if not said:  # a file of durations that knows nothing of these notebooks is no mistake
        options, said = {**options, "output": "{params.x}"}, "no parameter 'x'"
    with pytest.raises(UsageError, match=said):
        nbrun.run_many(["a.ipynb", "b.ipynb"], **options)
    assert (here / "a.ipynb").read_bytes() == before


def test_unknown_options_are_told(here: Path) -> None:
    with pytest.raises(UsageError, match="colour"):
        nbrun.run_many(["."], colour="red")  # type: ignore[call-arg]
    write(here, a="1", b="1")
    with pytest.raises(UsageError, match="retries"):
        nbrun.run_many(["."], save=False, overrides=[Override(["a*"], {"retries": 1})])


async def test_a_stopped_batch_saves_what_runs_and_begins_nothing_else(here: Path) -> None:
    write(here, a="print('so far', flush=True)\nimport time; time.sleep(60)", b="1", c="1")
    stop = StopSwitch()

    def observe(event: Event) -> None:
        if isinstance(event, OutputArrived):
            stop.pull("it is late", ExitCode.TERMINATED)

    result = await nbrun.run_many_async(["a.ipynb", "b.ipynb", "c.ipynb"], observe=observe, stop=stop, in_place=True)
    assert result.runs[0].outcome is Outcome.INTERRUPTED
    assert result.runs[2].outcome is Outcome.NOT_RUN
    assert result.exit_code is ExitCode.TERMINATED
    assert "so far" in printed(here / "a.ipynb")
    assert read_notebook(here / "b.ipynb")["cells"][0]["execution_count"] is None


async def test_a_server_that_dies_is_replaced_for_those_that_had_not_begun(here: Path) -> None:
    write(here, a="print('here\\n', end='', flush=True)\nimport time; time.sleep(60)", b="print('b')", c="print('c')")

    def observe(event: Event) -> None:
        if isinstance(event, OutputArrived) and event.notebook == "a.ipynb":
            for server in servers_below_us():
                server.kill()

    result = await nbrun.run_many_async(["a.ipynb", "b.ipynb", "c.ipynb"], observe=observe, in_place=True)
    assert outcomes(result) == {"a": "server-failed", "b": "passed", "c": "passed"}
    assert result.runs[0].rescued
    assert result.exit_code is ExitCode.SERVER


async def test_a_server_that_cannot_be_had_is_asked_for_once(here: Path) -> None:
    write(here, a="1", b="1", c="1")
    result = await nbrun.run_many_async(["."], server="http://127.0.0.1:1/", upload=True, in_place=True)
    assert result.exit_code is ExitCode.SERVER
    assert [run.outcome.value for run in result.runs][-1] == "not-run"
    assert [run.attempts for run in result.runs][-1] == 0
    problem = result.runs[0].problem
    assert problem is not None
    assert "127.0.0.1:1" in problem.message


async def test_a_bug_in_one_run_is_that_runs_result(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, a="1", b="1")

    def plan(document: Document, job: Job) -> Plan:
        if job.notebook == "a.ipynb":
            raise ZeroDivisionError("a bug")
        return make_plan(document, job)

    monkeypatch.setattr("nbrun.core.planning.preparation.make_plan", plan)
    result = await nbrun.run_many_async(["a.ipynb", "b.ipynb"], in_place=True)
    assert [int(run.exit_code) for run in result.runs] == [ExitCode.BUG, ExitCode.OK]
    assert result.runs[0].problem is not None
    assert "this is a bug in nbrun" in result.runs[0].problem.message
    assert result.exit_code is ExitCode.BUG


async def test_a_bug_at_the_end_of_a_run_is_told_with_its_rescue_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, a="print('ran')")

    def finish(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("nbrun.core.execution.write_back.Recording.finish", finish)
    result = await nbrun.run_many_async(["a.ipynb"])
    [rescued] = here.glob("a.rescued-*.ipynb")
    assert printed(rescued) == "ran\n"
    [run] = result.runs
    assert (run.exit_code, [str(rescued) in warning for warning in run.warnings]) == (ExitCode.BUG, [True])
    assert run.problem is not None
    assert str(rescued) in run.problem.hint


async def test_a_cancelled_batch_saves_first(here: Path) -> None:
    write(here, a="print('so far', flush=True)\nimport time; time.sleep(60)", b="1")
    begun = asyncio.Event()
    work = asyncio.create_task(
        nbrun.run_many_async(
            ["a.ipynb", "b.ipynb"],
            in_place=True,
            observe=lambda event: begun.set() if isinstance(event, OutputArrived) else None,
        )
    )
    await asyncio.wait_for(begun.wait(), 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert "so far" in printed(here / "a.ipynb")
    assert servers_below_us() == []


async def test_a_folder_of_a_server_is_a_batch_there(here: Path) -> None:
    write(here / "root" / "team" / "sub", a="print('a')", b="print('b')")
    with jupyter_server(here / "root") as server:
        result = await nbrun.run_many_async(
            ["team"], output="out/{stem}.ipynb", jobs=2, server=server.url, token=server.token
        )
        assert outcomes(result) == {"a": "passed", "b": "passed"}
        assert printed(here / "root" / "out" / "b.ipynb") == "b\n"
        with pytest.raises(NbrunError, match="knows nothing of a server"):
            await nbrun.run_many_async(
                ["team"], changed_since="HEAD", save=False, server=server.url, token=server.token
            )
        assert server.get("api/kernels") == []


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_number_of_notebooks(here: Path) -> None:
    source = code("print('x' * 1_000_000)")
    for number in range(30):
        write_notebook(here / f"n{number:02}.ipynb", notebook(source))
    peaks: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, RunFinished):
            pids = [os.getpid(), *(server.pid for server in servers_below_us())]
            peaks.append(sum(psutil.Process(pid).memory_info().rss for pid in pids))

    result = await nbrun.run_many_async(["."], jobs=2, observe=observe, in_place=True)
    assert result.exit_code is ExitCode.OK
    assert max(peaks[25:]) < 1.2 * max(peaks[:10])


async def plan_of(*named: str, one: bool = True, **options: Any) -> BatchPlan:
    return await plan_runs(named, read_batch_options(options), one=one)


async def test_a_single_notebook_is_a_batch_of_one_under_the_name_that_was_given(here: Path) -> None:
    write(here / "nb", a="1")
    plan = await plan_of("./nb/a.ipynb")
    assert [planned.name for planned in plan.runs] == ["./nb/a.ipynb"]
    assert (plan.one, plan.left_out, plan.paths[0].output) == (True, 0, None)
    assert [planned.name for planned in (await plan_of("./nb/a.ipynb", one=False)).runs] == ["nb/a.ipynb"]


async def test_a_shard_of_a_single_notebook_is_a_batch_that_can_be_merged_and_resumed(here: Path) -> None:
    write(here / "nb", a="1")
    plan = await plan_of("nb/a.ipynb", shard="1/1", output="out/", resume=True)
    assert plan.part is not None
    assert plan.journal is not None
    plan.journal.close()
    assert (plan.one, plan.part.names) == (False, ["nb/a.ipynb"])
    assert not (here / "out" / ".nbrun-journal-1-of-1.jsonl").exists()


async def test_shards_in_another_order_are_of_another_batch(here: Path) -> None:
    write(here, a="1", b="1")
    (here / "times.json").write_text('{"durations": {"a.ipynb": 1, "b.ipynb": 9}}')
    options: dict[str, Any] = {"save": False, "durations": "times.json", "shard": "1/2"}
    orders = ("as-given", "slowest-first", "slowest-first")
    plans = [await plan_of(".", one=False, order=order, **options) for order in orders]
    keys = [plan.part.batch for plan in plans if plan.part is not None]
    assert keys[0] != keys[1] == keys[2]


async def test_a_single_notebook_has_all_that_a_batch_has(here: Path) -> None:
    write(here / "nb", a="1")
    kernel = Override(["nb/"], {"kernel": "other"}, {"x": 1})
    [planned] = (await plan_of("nb/a.ipynb", output=Template("out/{stem}-{params.x}"), overrides=[kernel])).runs
    assert (planned.job.kernel, planned.paths.output) == ("other", "out/a-1")
    left_out = await plan_of("nb/a.ipynb", overrides=[Override(["a.ipynb"], skip=True)])
    assert (left_out.one, left_out.runs, left_out.left_out) == (False, [], 1)
    text = await plan_of("nb/a.ipynb", overrides=[kernel], content="{}", deliver=print)
    assert text.runs[0].job.kernel is None


async def test_braces_in_the_output_of_a_single_notebook_are_braces_in_python(here: Path) -> None:
    write(here, a="1")
    assert (await plan_of("a.ipynb", output="{stem}.ipynb")).paths[0].output == "{stem}.ipynb"


async def test_a_wrong_address_is_told_before_anything_is_run(here: Path) -> None:
    write(here, a="1")
    with pytest.raises(UsageError, match="ftp"):
        await plan_of("a.ipynb", "b.ipynb", one=False, save=False, upload=True, server="ftp://host/")
