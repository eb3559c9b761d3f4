"""Real charts and widgets on a page: ``fixtures/pages/charts.ipynb``, with the libraries of another environment."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from nbrun.core.results import Outcome
from nbrun.reporters.html.pages import page
from nbrun.reporters.html.reporter import facts_of
from nbrun.reporters.run_log import RunRecord
from tests.reporters.streams import result
from tests.support.browsers import chromium
from tests.support.environments import environment

NOTEBOOK = Path(__file__).resolve().parents[3] / "fixtures" / "pages" / "charts.ipynb"
DEAD_PROXY = {"server": "http://127.0.0.1:9", "bypass": "<-loopback>"}
SIZES = [(390, "dark"), (1280, "light")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


def made(*, scripts: bool) -> str:
    facts = {**facts_of(RunRecord("charts.ipynb"), result("charts.ipynb", Outcome.PASSED), "hide", "show"), "index": ""}
    python = str(environment("charts").python) if scripts else ""
    return page(NOTEBOOK.read_text(), facts, scripts=scripts, python=python)[0]


def opened(browser: Browser, file: Path, width: int, scheme: str) -> tuple[Page, list[str], list[str]]:
    """Open a page without a network; return it, its requests, and its errors."""
    dark = "dark" if scheme == "dark" else "light"
    context = browser.new_context(viewport={"width": width, "height": 1500}, color_scheme=dark, proxy=DEAD_PROXY)  # type: ignore[arg-type]
    shown, asked, errors = context.new_page(), list[str](), list[str]()
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    shown.goto(file.as_uri())
    return shown, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))], errors


def test_charts_are_drawn_with_the_libraries_of_the_kernels_environment(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "charts.html"
    file.write_text(made(scripts=True))
    shown, asked, errors = opened(browser, file, 390, "dark")
    frame = shown.frames[1]
    frame.locator(".plotly .bars path").first.wait_for()
    frame.get_by_text("Bars by Plotly").wait_for()
    frame.locator(".vega-embed canvas, .vega-embed svg").first.wait_for()
    frame.locator(".bk-Figure").first.wait_for()
    frame.get_by_text("bold").wait_for()
    assert frame.locator(".widget-slider .noUi-handle").is_visible()
    assert (asked, errors) == ([], [])
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    shown.context.close()


def test_without_scripts_the_page_says_what_is_missing_and_fits_the_screen(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "charts.html"
    file.write_text(made(scripts=False))
    for width, scheme in SIZES:
        shown, asked, errors = opened(browser, file, width, scheme)
        assert shown.locator(".missing").all_inner_texts() == [
            "This Plotly chart needs scripts; it has no other form.",
            "This Bokeh plot needs scripts; it has no other form.",
            "This Vega chart needs scripts; its text is shown.",
            "This widget needs scripts; its text is shown.",
        ]
        assert shown.locator("math").count() == 2
        assert shown.get_by_text("line 399 of all").count() == 1
        assert (asked, errors) == ([], [])
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        shown.context.close()
