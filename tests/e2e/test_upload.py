"""``--upload``: a local notebook runs on a remote server, and its result is saved locally."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.support.live_runs import live_run, outcomes, text_of
from tests.support.notebooks import assert_exit, code, notebook, read_notebook, run_nbrun, stdout, write_notebook
from tests.support.processes import live_nbrun
from tests.support.servers import RunningServer


def scratch(server: RunningServer) -> list[Path]:
    """Return what runs with an upload have left on the server."""
    return sorted(server.root.glob("nbrun-*"))


def options(server: RunningServer, **more: Any) -> dict[str, Any]:
    """Return the options of an upload to the server."""
    return {"server": server.url, "token": server.token, "upload": True, **more}


def test_the_result_comes_back_and_nothing_is_left_on_the_server(stock_server: RunningServer, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "local.ipynb", notebook("import os\nos.getcwd()", "print('done')"))

    run = run_nbrun(
        "run", path, "--upload", "--server", stock_server.url, "--json", "-",
        cwd=tmp_path, env={"NBRUN_TOKEN": stock_server.token},
    )  # fmt: skip

    assert_exit(run, ExitCode.OK)
    where, done = (cell["outputs"] for cell in read_notebook(path)["cells"])
    assert str(stock_server.root) in where[0]["data"]["text/plain"], "it ran over there"
    assert text_of(done) == "done\n"
    assert json.loads(run.stdout)["output"] == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["local.ipynb"]
    assert scratch(stock_server) == []
    assert stock_server.sessions() == []


async def test_the_result_can_go_elsewhere_on_this_machine(stock_server: RunningServer, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "local.ipynb", notebook("6 * 7"))
    before = path.read_bytes()
    output = tmp_path / "new" / "folder" / "out.ipynb"

    result = await nbrun.run_async(path, output=output, **options(stock_server))

    assert result.exit_code == ExitCode.OK
    assert read_notebook(output)["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"
    assert path.read_bytes() == before
    assert scratch(stock_server) == []


async def test_files_that_the_notebook_wrote_are_left_there_and_named(
    stock_server: RunningServer, tmp_path: Path
) -> None:
    path = write_notebook(tmp_path / "local.ipynb", notebook("open('model.bin', 'w').write('weights')"))

    result = await nbrun.run_async(path, **options(stock_server))

    assert result.exit_code == ExitCode.OK
    [folder] = scratch(stock_server)
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".")] == ["model.bin"]
    assert (folder / "model.bin").read_text() == "weights"
    assert any("model.bin" in warning and folder.name in warning for warning in result.warnings)
    shutil.rmtree(folder)


async def test_what_failed_comes_back_too(stock_server: RunningServer, tmp_path: Path) -> None:
    cells = ("print('one')", "1 / 0", code("print('never')", outputs=[stdout("old")], count=9))
    path = write_notebook(tmp_path / "local.ipynb", notebook(*cells))

    result = await nbrun.run_async(path, **options(stock_server))

    assert (result.exit_code, outcomes(result)) == (ExitCode.NOTEBOOK_FAILED, ["passed", "failed", "not-run"])
    one, raised, never = (cell["outputs"] for cell in read_notebook(path)["cells"])
    assert (text_of(one), raised[0]["ename"], never) == ("one\n", "ZeroDivisionError", [])
    assert scratch(stock_server) == []
    assert stock_server.sessions() == []


async def test_when_the_kernel_dies_what_ran_comes_back(stock_server: RunningServer, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "local.ipynb", notebook("print('one')", "import os; os._exit(1)"))

    result = await nbrun.run_async(path, **options(stock_server), pipeline=1)

    assert (result.exit_code, outcomes(result)) == (ExitCode.KERNEL, ["passed", "kernel-died"])
    assert text_of(read_notebook(path)["cells"][0]["outputs"]) == "one\n"
    assert scratch(stock_server) == []


def test_a_signal_brings_back_what_there_is_and_cleans_up(stock_server: RunningServer, tmp_path: Path) -> None:
    sign = tmp_path / "running"
    long = f"import pathlib, time\npathlib.Path({str(sign)!r}).touch()\ntime.sleep(120)"
    path = write_notebook(tmp_path / "local.ipynb", notebook("print('one')", long))
    with live_nbrun(
        path, "--upload", "--server", stock_server.url,
        cwd=tmp_path, json_file=tmp_path / "result.json", env={"NBRUN_TOKEN": stock_server.token},
    ) as run:  # fmt: skip
        run.await_file(sign)
        run.signal(signal.SIGTERM)
        assert run.end(30) == ExitCode.TERMINATED

    assert run.outcomes() == ["passed", "interrupted"]
    assert text_of(read_notebook(path)["cells"][0]["outputs"]) == "one\n"
    assert scratch(stock_server) == []
    assert stock_server.sessions() == []


@pytest.mark.parametrize(
    "text", ["", "no json", '{"cells": 3}', "[]"], ids=["empty", "no JSON", "no cells", "no object"]
)
async def test_a_file_that_is_no_notebook_is_refused_and_leaves_nothing(
    text: str, stock_server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "local.ipynb"
    path.write_text(text)

    with pytest.raises(nbrun.NbrunError) as caught:
        await nbrun.run_async(path, **options(stock_server))

    assert caught.value.exit_code == ExitCode.USAGE
    assert "local.ipynb" in str(caught.value)
    assert path.read_text() == text
    assert scratch(stock_server) == []


async def test_a_kernel_that_the_server_has_not_is_refused_and_leaves_nothing(
    stock_server: RunningServer, tmp_path: Path
) -> None:
    path = write_notebook(tmp_path / "local.ipynb", notebook("1", kernel="no-such-kernel"))

    with pytest.raises(nbrun.NbrunError, match="no-such-kernel") as caught:
        await nbrun.run_async(path, **options(stock_server))

    assert caught.value.exit_code == ExitCode.USAGE
    assert scratch(stock_server) == []


async def test_when_the_result_cannot_be_written_here_it_is_rescued(
    stock_server: RunningServer, tmp_path: Path, here: Path
) -> None:
    """The folder is replaced while the notebook runs: what cannot be written before the run is refused then."""
    folder = tmp_path / "folder"
    folder.mkdir()
    replace = f"import os\nos.rmdir({str(folder)!r})\nopen({str(folder)!r}, 'x').close()"
    path = write_notebook(tmp_path / "local.ipynb", notebook(replace, "6 * 7"))

    result = await nbrun.run_async(path, output=folder / "out.ipynb", **options(stock_server))

    assert result.rescued
    assert result.output is not None
    assert Path(result.output).parent == here
    assert read_notebook(Path(result.output))["cells"][1]["outputs"][0]["data"]["text/plain"] == "42"
    assert scratch(stock_server) == []


async def test_the_result_is_this_machines_even_when_the_server_forgets_the_upload(
    stock_server: RunningServer, tmp_path: Path
) -> None:
    removing = "import os, pathlib, shutil\nshutil.rmtree(os.getcwd())\nprint('gone', flush=True)"
    path = write_notebook(tmp_path / "local.ipynb", notebook(removing, "6 * 7"))

    async with live_run(path, **options(stock_server)) as run:
        result = await run.result()

    assert outcomes(result)[0] == "passed"
    assert text_of(read_notebook(path)["cells"][0]["outputs"]) == "gone\n"
    assert scratch(stock_server) == []
