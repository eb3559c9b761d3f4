"""Servers of the Python API that stay open for several runs: private and existing, asynchronous and synchronous."""

import asyncio
import json
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import Event, OutputArrived
from nbrun.errors import ExitCode, NotANotebook, UsageError
from tests.support.live_runs import text_of
from tests.support.notebooks import code, notebook, read_notebook, write_notebook
from tests.support.servers import RunningServer

pytestmark = pytest.mark.usefixtures("here")
WHERE = "import os; print(os.getcwd())"
PARAMETERS = notebook(code("x = 1", tags=["parameters"]), "print('x is', x)")
FAILS = notebook("print('before')", "1 / 0", "print('after')")


def printed(node: Any) -> str:
    """Return what the cells of an executed notebook printed."""
    return "".join(text_of(cell.outputs) for cell in node.cells if cell.cell_type == "code")


async def test_a_private_server_runs_files_and_nodes_one_after_the_other_and_at_the_same_time(tmp_path: Path) -> None:
    root = tmp_path / "work"
    write_notebook(root / "sub" / "nb.ipynb", notebook(WHERE))
    async with nbrun.private_server(root) as server:
        first = await server.run("sub/nb.ipynb", output="out/one.ipynb")
        assert printed(first.check().notebook) == f"{root / 'sub'}\n"
        assert first.output == str(Path("work", "out", "one.ipynb"))

        several = [server.run(PARAMETERS, parameters={"x": number}) for number in range(3)]
        results = await asyncio.gather(*several, server.run(root / "sub" / "nb.ipynb", output="out/"))
        assert [printed(one.notebook) for one in results[:3]] == ["x is 0\n", "x is 1\n", "x is 2\n"]
        assert [one.output for one in results] == [None] * 3 + [str(Path("work", "out", "sub", "nb.ipynb"))]

        failed = await server.run(FAILS, allow_errors=True)
        assert failed.check() is failed
        prepared = await server.run(PARAMETERS, parameters={"x": 9}, prepare_only=True, output="prepared.ipynb")
        assert (prepared.outcome, "x = 9" in (root / "prepared.ipynb").read_text()) == (nbrun.Outcome.PREPARED, True)
        assert prepared.output == str(Path("work", "prepared.ipynb"))

        for wrong, said in [
            ({"notebook": "../nb.ipynb"}, "outside of the server's root folder"),
            ({"notebook": "sub/nb.ipynb", "output": tmp_path / "x.ipynb"}, "output: .*outside of the server's root"),
            ({"notebook": "sub/nb.ipynb", "token": "t"}, "token: options of the server"),
            ({"notebook": "sub/nb.ipynb", "upload": True}, "a private server has the files of this machine"),
            ({"notebook": "sub/none.ipynb"}, "no such file"),
        ]:
            with pytest.raises(UsageError, match=said) as raised:
                await server.run(**wrong)  # type: ignore[arg-type]
            for name in re.findall(r"nbrun\.(\w+)", raised.value.hint):
                assert callable(getattr(nbrun, name)), "a hint names a public function"
        assert await server.client.kernels.list() == ()
    with pytest.raises(RuntimeError, match="is not open"):
        await server.run(PARAMETERS)


async def test_closing_a_server_stops_its_runs_and_keeps_their_results(tmp_path: Path) -> None:
    begun, others = asyncio.Event(), nbrun.StopSwitch()

    def notice(event: Event) -> None:
        if isinstance(event, OutputArrived):
            begun.set()

    slow = notebook("print('here', flush=True)\nimport time; time.sleep(60)")
    async with nbrun.private_server(tmp_path) as server:
        run = asyncio.create_task(server.run(slow, output="out.ipynb", observe=notice, stop=others))
        await begun.wait()
    assert run.done()
    result = await run
    assert (result.outcome, result.exit_code) == (nbrun.Outcome.INTERRUPTED, ExitCode.INTERRUPTED)
    assert result.problem is not None
    assert "stopped because the server was closed" in result.problem.message
    assert text_of(read_notebook(tmp_path / "out.ipynb")["cells"][0]["outputs"]) == "here\n"
    assert others.reason is None, "a caller's switch stays as it was"


def threads_of_nbrun() -> set[threading.Thread]:
    """Return the threads that nbrun has started in this process; other tests may have left some."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("nbrun")}


def test_a_server_that_is_open_or_closed_is_not_used_as_another(tmp_path: Path) -> None:
    before = threads_of_nbrun()
    server = nbrun.private_server(tmp_path)
    with server as opened:
        with pytest.raises(RuntimeError, match="open already"), server:
            raise AssertionError("it was opened twice")
        assert printed(opened.run(PARAMETERS).notebook) == "x is 1\n"
    with pytest.raises(RuntimeError, match="is not open"):
        opened.run(PARAMETERS)
    assert threads_of_nbrun() <= before


async def test_runs_on_a_connected_server_leave_nothing_there(server: RunningServer, tmp_path: Path) -> None:
    write_notebook(server.root / "team" / "nb.ipynb", notebook("print('there')"))
    write_notebook(tmp_path / "local.ipynb", notebook("print('uploaded')"))
    async with nbrun.connect(server.url, token=server.token) as opened:
        there, uploaded, node = await asyncio.gather(
            opened.run("team/nb.ipynb", output="team/out.ipynb"),
            opened.run(tmp_path / "local.ipynb", output=tmp_path / "out.ipynb", upload=True),
            opened.run(PARAMETERS, parameters={"x": 5}),
        )
        assert [printed(one.check().notebook) for one in (there, uploaded, node)] == [
            "there\n",
            "uploaded\n",
            "x is 5\n",
        ]
        assert [entry.name for entry in await opened.client.contents.directory("team")] == ["nb.ipynb", "out.ipynb"]
    assert (server.sessions(), server.get("api/kernels")) == ([], [])


def test_a_trace_has_all_runs_on_a_server_and_no_secret(server: RunningServer, tmp_path: Path) -> None:
    cells = notebook("print(word)")
    with (
        nbrun.connect(server.url, token=server.token, trace=tmp_path / "far") as far,
        nbrun.private_server(tmp_path, trace=tmp_path / "near") as near,
    ):
        for one in (far, near):
            for word in ("planted-one", "planted-two"):
                one.run(cells, secrets={"word": word}, save=False).check()
    for name in ("far", "near"):
        text = (tmp_path / name).read_text()
        assert text.count('"nbrun_hello_request"') >= 2
        assert "planted" not in text
        assert server.token not in text


async def test_the_synchronous_server_works_also_inside_a_running_loop_and_for_several_threads(tmp_path: Path) -> None:
    before = threads_of_nbrun()
    with nbrun.private_server(tmp_path) as server:
        assert printed(server.run(PARAMETERS, parameters={"x": 7}).check().notebook) == "x is 7\n"
        results: dict[int, str] = {}

        def work(number: int) -> None:
            results[number] = printed(server.run(PARAMETERS, parameters={"x": number}).notebook)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {0: "x is 0\n", 1: "x is 1\n"}

        switch = nbrun.StopSwitch()

        def stop(event: Event) -> None:
            if isinstance(event, OutputArrived):
                switch.pull("enough", ExitCode.TERMINATED)

        slow = notebook("print('here', flush=True)\nimport time; time.sleep(60)")
        stopped = server.run(slow, observe=stop, stop=switch)
        with pytest.raises(nbrun.CellFailed) as raised:
            stopped.check()
        assert (raised.value.cell.outcome, raised.value.exit_code) == (
            nbrun.CellOutcome.INTERRUPTED,
            ExitCode.TERMINATED,
        )
    assert threads_of_nbrun() <= before


def test_what_cannot_be_opened_is_raised_by_the_with_statement() -> None:
    with pytest.raises(nbrun.ServerUnreachable), nbrun.connect("http://127.0.0.1:1/") as _:
        raise AssertionError("it was opened")


def test_the_error_of_a_failing_cell_has_the_cell_and_the_result(tmp_path: Path) -> None:
    result = nbrun.run(FAILS, output=tmp_path / "out.ipynb")
    with pytest.raises(nbrun.CellFailed, match=r"notebook\.ipynb: .*ZeroDivisionError: division by zero") as raised:
        result.check()
    error = raised.value
    assert (error.index, error.ename, error.evalue) == (1, "ZeroDivisionError", "division by zero")
    assert (error.cell, error.result) == (result.cells[1], result)
    assert "ZeroDivisionError" in error.traceback[-1]
    assert "1 / 0" in error.__notes__[0]
    assert "\x1b" not in error.__notes__[0]
    assert printed(error.result.notebook) == "before\n"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, again.index, again.result) == (nbrun.CellFailed, error.args, 1, result)
    assert outputs(again.result.notebook) == outputs(result.notebook)


def outputs(node: Any) -> list[Any]:
    return [cell.outputs for cell in node.cells]


def test_a_batch_raises_all_its_failures_and_reads_its_notebooks_from_the_outputs(tmp_path: Path) -> None:
    write_notebook(tmp_path / "good.ipynb", notebook("print('good')"))
    write_notebook(tmp_path / "bad.ipynb", FAILS)
    result = nbrun.run_many(["good.ipynb", "bad.ipynb"], output="out/")
    assert [printed(run.notebook) for run in result.runs] == ["good\n", "before\n"]
    assert [run.path for run in result.failed] == ["bad.ipynb"]
    with pytest.raises(nbrun.BatchFailed, match="1 of 2 notebooks did not pass") as raised:
        result.check()
    (error,) = raised.value.errors
    assert isinstance(error, nbrun.CellFailed)
    assert (error.index, raised.value.exit_code) == (1, ExitCode.NOTEBOOK_FAILED)

    unsaved = nbrun.run_many(["good.ipynb"], save=False).check()
    with pytest.raises(UsageError, match=r"good\.ipynb: the result does not have the executed notebook"):
        _ = unsaved.runs[0].notebook
    with pytest.raises(nbrun.BatchFailed, match="no notebook matches"):
        nbrun.run_many(["none*.ipynb"], save=False).check()
    with pytest.raises(nbrun.BatchFailed, match="the list of notebooks is empty"):
        nbrun.run_many([], save=False).check()


async def test_a_notebook_is_prepared_and_planned_without_a_kernel(tmp_path: Path) -> None:
    given = json.loads(json.dumps(PARAMETERS))
    node = nbrun.prepare(given, parameters={"x": 3})
    assert [cell.source for cell in node.cells if "injected-parameters" in cell.metadata.get("tags", [])] == [
        "# Parameters\nx = 3"
    ]
    assert given == PARAMETERS
    write_notebook(tmp_path / "nb.ipynb", PARAMETERS)
    before = (tmp_path / "nb.ipynb").read_bytes()
    assert len(nbrun.prepare("nb.ipynb", parameters={"x": 3}).cells) == 3
    assert (tmp_path / "nb.ipynb").read_bytes() == before
    nbrun.prepare("nb.ipynb", parameters={"x": 3}, output="prepared.ipynb")
    assert len(read_notebook(tmp_path / "prepared.ipynb")["cells"]) == 3

    for source in (given, "nb.ipynb", tmp_path / "nb.ipynb"):
        preview = nbrun.plan(source, parameters={"x": 3}, cell_timeout="5s")
        assert (preview.kernel, dict(preview.values), preview.injected) == ("python3", {"x": 3}, 1)
        assert [(cell.action, cell.timeout) for cell in preview.cells] == [(nbrun.Action.RUN, 5.0)] * 3
    for call in (nbrun.prepare, nbrun.plan):
        with pytest.raises(UsageError, match="y"):
            call(given, parameters={"y": 3})
        with pytest.raises(NotANotebook):
            call(__file__)


def test_a_plan_asks_an_existing_server_for_notebook_and_kernel(server: RunningServer) -> None:
    write_notebook(server.root / "planned.ipynb", PARAMETERS)
    preview = nbrun.plan("planned.ipynb", server=server.url, token=server.token, parameters={"x": 3})
    assert (preview.notebook, preview.kernel, len(preview.cells)) == ("planned.ipynb", "python3", 3)
    (server.root / "planned.ipynb").rename(server.root / "moved.ipynb")
    write_notebook(Path("planned.ipynb"), PARAMETERS)
    for source, upload in ((PARAMETERS, False), ("planned.ipynb", True)):
        preview = nbrun.plan(source, server=server.url, token=server.token, upload=upload)
        assert (preview.kernel, len(preview.cells)) == ("python3", 2)
    (server.root / "moved.ipynb").rename(server.root / "planned.ipynb")
    node = nbrun.prepare("planned.ipynb", server=server.url, token=server.token, parameters={"x": 3})
    assert len(node.cells) == 3
    assert len(read_notebook(server.root / "planned.ipynb")["cells"]) == 2


ASKS = notebook("import os, sys; print(os.environ['A'], os.environ.get('NBRUN_TOKEN'), sys.flags.optimize)")


async def test_a_kernel_gets_the_environment_that_its_run_asks_for(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBRUN_TOKEN", "of nbrun")
    monkeypatch.setenv("A", "inherited")
    async with nbrun.private_server(tmp_path) as private:
        results = await asyncio.gather(
            private.run(ASKS),
            private.run(ASKS, env={"A": "é 'its' own", "NBRUN_TOKEN": "given", "PYTHONOPTIMIZE": "1"}),
        )
        assert [printed(one.check().notebook) for one in results] == [
            "inherited None 0\n", "é 'its' own given 1\n",
        ]  # fmt: skip
    async with nbrun.connect(server.url, token=server.token) as opened:
        there = await opened.run(ASKS, env={"A": "é 'its' own", "NBRUN_TOKEN": "given"})
        assert printed(there.check().notebook) == "é 'its' own given 0\n"
        assert "its" not in str([cell.source for cell in there.notebook.cells])
        with pytest.raises(UsageError, match="how Scala sets environment variables"):
            await opened.run(ASKS, env={"A": "1"}, language="scala")
    assert (server.sessions(), server.get("api/kernels")) == ([], [])


async def test_headers_go_to_the_server_that_is_connected_to(server: RunningServer) -> None:
    headers = {"Authorization": f"token {server.token}"}
    async with nbrun.connect(server.url, headers=headers) as opened:
        assert (await opened.run(PARAMETERS)).check().outcome is nbrun.Outcome.PASSED
