"""A notebook that is open in a shared JupyterLab document during its run: nothing is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

import nbrun
from tests.support.browsers import OPTIONS, browser
from tests.support.environments import environment
from tests.support.live_runs import live_run
from tests.support.notebooks import joined, notebook, read_notebook, write_notebook
from tests.support.servers import RunningServer, jupyter_server

WAITS = "import pathlib, time\nprint('here', flush=True)\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)"
EXTENSIONS = {"jupyterlab": True, "jupyter_server_ydoc": True, "jupyter_server_fileid": True}


@pytest.fixture
def shared_lab(tmp_path: Path) -> Iterator[RunningServer]:
    """A JupyterLab whose documents live on the server, which watches their files and writes them by itself."""
    (tmp_path / "root").mkdir()
    python = str(environment("collaboration").python)
    extensions = f"--ServerApp.jpserver_extensions={EXTENSIONS}"
    with jupyter_server(tmp_path / "root", python=python, application="jupyterlab", args=[extensions]) as server:
        yield server


async def test_what_a_person_types_into_an_open_document_during_a_run_stands_beside_its_outputs(
    shared_lab: RunningServer,
) -> None:
    document = notebook(WAITS, "6 * 7")
    document["cells"].append({"cell_type": "markdown", "id": "notes", "metadata": {}, "source": "old"})
    path = write_notebook(shared_lab.root / "nb.ipynb", document)
    async with (
        async_playwright() as playwright,
        live_run("nb.ipynb", server=shared_lab.url, token=shared_lab.token) as run,
    ):
        chromium = await playwright.chromium.launch(executable_path=browser(), args=OPTIONS)
        page = await chromium.new_page(viewport={"width": 1200, "height": 1400})
        await page.goto(f"{shared_lab.url}lab/tree/nb.ipynb?token={shared_lab.token}&reset")
        await run.watch.printed("here")
        await page.locator(".jp-MarkdownCell .jp-RenderedMarkdown", has_text="old").dblclick(timeout=60_000)
        await page.locator(".jp-MarkdownCell .cm-content").click()
        await page.keyboard.type("typed by a person, ")
        async with asyncio.timeout(30):
            while "typed by a person" not in path.read_text():
                await asyncio.sleep(0.05)
        (shared_lab.root / "go").touch()
        result = await run.result()
        await page.locator(".jp-NotebookPanel .jp-OutputArea-output", has_text="42").wait_for(timeout=30_000)
        shown = await page.locator(".jp-NotebookPanel").inner_text()
        await chromium.close()

    assert result.exit_code == nbrun.ExitCode.OK, result
    assert "typed by a person" in shown
    cells = read_notebook(path)["cells"]
    assert "typed by a person" in joined(cells[2]["source"])
    assert cells[1]["outputs"][0]["data"]["text/plain"] == "42"
