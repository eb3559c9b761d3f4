"""An executed notebook opens trusted in JupyterLab, with its widgets drawn from the file.

JupyterLab draws them with a kernel at hand that knows nothing of them; without any its widget manager refuses
(ipywidgets issue 3773), and the widgets' own HTML manager, which pages made by nbconvert use, does not.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from nbconvert import HTMLExporter
from playwright.async_api import Page, Route, async_playwright

import nbrun
from tests.e2e.test_widgets import BAR, CAPTURED, INTERACT, SLIDER
from tests.support.browsers import OPTIONS, browser
from tests.support.environments import environment
from tests.support.notebooks import notebook, write_notebook
from tests.support.servers import RunningServer, jupyter_server

PICTURE = "import base64\nw.Image(value=base64.b64decode('{}'))".format(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCRIPT = "from IPython.display import HTML\nHTML('<b id=\"mine\">html</b><script>window.scriptRan = true</script>')"


DOCUMENT = (SLIDER, INTERACT, CAPTURED, PICTURE, BAR)


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
    write_notebook(lab.root / "nb.ipynb", notebook(*DOCUMENT, SCRIPT))
    result = await nbrun.run_async("nb.ipynb", server=lab.url, token=lab.token)
    assert result.outcome is nbrun.Outcome.PASSED
    assert lab.get("api/kernels") == []  # the one that knew the widgets is gone
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


async def test_widgets_are_drawn_from_the_file_without_any_kernel_or_server(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", notebook(*DOCUMENT))
    assert (await nbrun.run_async(path)).outcome is nbrun.Outcome.PASSED
    page_file = path.with_suffix(".html")
    page_file.write_text(HTMLExporter(template_name="lab").from_filename(str(path))[0], "utf-8")
    modules = environment("widget-pages").node_modules
    scripts = {
        "**/require.min.js": modules / "requirejs" / "require.js",
        "**/html-manager@*/dist/embed-amd.js": modules / "@jupyter-widgets" / "html-manager" / "dist" / "embed-amd.js",
    }
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=browser(), args=OPTIONS)
        page = await chromium.new_page(viewport={"width": 1200, "height": 2000})
        await page.route("https://**", lambda route: route.abort())
        for pattern, script in scripts.items():
            await page.route(pattern, partial(fulfil, script))
        await page.goto(page_file.as_uri())
        drawn_at = page.locator(".jp-OutputArea-output .widget-slider")
        await drawn_at.nth(1).wait_for(timeout=60_000)
        assert await drawn_at.count() == 2
        assert await page.locator("img.widget-image").count() == 1
        assert await page.locator(".progress-bar").count() == 1
        text = await page.locator("main").inner_text()
        await chromium.close()
    assert "twice 6" in text
    assert "ZeroDivisionError: division by zero" in text


async def fulfil(script: Path, route: Route) -> None:
    await route.fulfill(path=script, content_type="text/javascript")
