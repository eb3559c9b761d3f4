"""The quick starts of papermill, nbclient and httpx, written with nbrun's Python API."""

import asyncio
from pathlib import Path

import nbformat
import pytest

import nbrun
from tests.support.notebooks import code, notebook, write_notebook
from tests.support.servers import RunningServer

PARAMETERS = notebook(code("alpha = 0.1\nratio = 0.0", tags=["parameters"]), "print(alpha + ratio)")


def test_papermill_executes_a_notebook_with_parameters(here: Path) -> None:
    """``pm.execute_notebook("input.ipynb", "output.ipynb", parameters=dict(alpha=0.6, ratio=0.1))``."""
    write_notebook(here / "input.ipynb", PARAMETERS)
    result = nbrun.run("input.ipynb", output="output.ipynb", parameters={"alpha": 0.6, "ratio": 0.1}).check()

    assert result.notebook == nbformat.read(here / "output.ipynb", as_version=4)
    assert result.notebook.cells[-1].outputs[0].text == "0.7\n"
    assert dict(result.parameters) == {"alpha": 0.6, "ratio": 0.1}


def test_nbclient_executes_a_node_and_raises_the_error_of_a_cell(here: Path) -> None:
    """``NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": "work/"}}).execute()``.

    And ``except CellExecutionError``, with the notebook saved in any case.
    """
    (here / "work").mkdir()
    nb = nbformat.from_dict(notebook("import os; print(os.path.basename(os.getcwd()))", "1 / 0"))
    result = nbrun.run(nb, cell_timeout=600, kernel="python3", cwd="work", output="executed.ipynb")
    with pytest.raises(nbrun.CellFailed, match="ZeroDivisionError: division by zero") as raised:
        result.check()

    assert nb.cells[0].outputs == []
    saved = nbformat.read(here / "executed.ipynb", as_version=4)
    assert saved.cells[0].outputs[0].text == "work\n"
    assert saved.cells[raised.value.index].outputs[0].ename == raised.value.ename == "ZeroDivisionError"


async def test_httpx_has_a_client_that_is_used_for_several_requests(server: RunningServer) -> None:
    """``async with httpx.AsyncClient(…) as client: (await client.get(…)).raise_for_status()``."""
    write_notebook(server.root / "a.ipynb", notebook("print('a')"))
    write_notebook(server.root / "b.ipynb", notebook("print('b')"))
    async with nbrun.connect(server.url, token=server.token) as opened:
        results = await asyncio.gather(*(opened.run(name, save=False) for name in ("a.ipynb", "b.ipynb")))
    assert [result.check().notebook.cells[0].outputs[0].text for result in results] == ["a\n", "b\n"]


def test_httpx_has_the_same_without_await(server: RunningServer) -> None:
    """``with httpx.Client(…) as client: client.get(…).raise_for_status()``."""
    write_notebook(server.root / "a.ipynb", notebook("print('a')"))
    with nbrun.connect(server.url, token=server.token) as opened:
        assert opened.run("a.ipynb", save=False).check().notebook.cells[0].outputs[0].text == "a\n"
