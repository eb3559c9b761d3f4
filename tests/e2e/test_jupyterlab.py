"""An executed notebook opens in JupyterLab as if it had been run there: trusted, its widgets drawn without a kernel."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

import nbrun
from tests.e2e.test_widgets import BAR, CAPTURED, INTERACT, SLIDER
from tests.support.browsers import OPTIONS, browser
from tests.support.notebooks import notebook, write_notebook
from tests.support.servers import RunningServer, jupyter_server

PICTURE = "import base64\nw.Image(value=base64.b64decode('{}'))".format(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCRIPT = "from IPython.display import HTML\nHTML('<b id=\"mine\">html</b><script>window.scriptRan = true</script>')"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[RunningServer]:
    (tmp_path / "root").mkdir()
    with jupyter_server(tmp_path / "root", application="jupyterlab") as server:
        yield server


async def drawn(page: Page, selector: str) -> int:
    """Count what of a notebook is drawn, once there is any."""
    await page.wait_for_selector(f".jp-NotebookPanel {selector}", timeout=60_000)
    return await page.locator(f".jp-NotebookPanel {selector}").count()


async def test_what_was_run_is_drawn_in_a_browser_from_the_file_alone(lab: RunningServer) -> None:
    write_notebook(lab.root / "nb.ipynb", notebook(SLIDER, INTERACT, CAPTURED, PICTURE, BAR, SCRIPT))
    result = await nbrun.run_async("nb.ipynb", server=lab.url, token=lab.token)
    assert result.outcome is nbrun.Outcome.PASSED
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=browser(), args=OPTIONS)
        page = await chromium.new_page(viewport={"width": 1200, "height": 2000})
        await page.goto(f"{lab.url}lab/tree/nb.ipynb?token={lab.token}&reset")
        assert await drawn(page, ".widget-slider") == 2
        assert await drawn(page, "img.widget-image") == 1
        assert await drawn(page, ".progress-bar") == 1
        # Where a notebook is not trusted, ids are stripped from its HTML and its scripts do not run.
        assert await drawn(page, ".jp-OutputArea-output b#mine") == 1
        assert await page.evaluate("window.scriptRan") is True
        text = await page.locator(".jp-NotebookPanel").inner_text()
        await chromium.close()
    assert "twice 6" in text
    assert "ZeroDivisionError: division by zero" in text
