"""Web pages of executed notebooks, and their index, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from nbrun.core.events import BatchFinished, BatchStarted, Event
from nbrun.core.results import BatchResult, Outcome
from nbrun.reporters.html import Html
from tests.reporters.streams import BATCH, STARTED, Speaker, batch, result, write_notebooks
from tests.support.browsers import chromium
from tests.support.notebooks import code, markdown, notebook

HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"><b id=kept>kept</b>"
AWAY = '<meta http-equiv="refresh" content="0;url=https://example.org/"><img src="https://example.org/x.png">'


def written(events: list[Event], folder: Path, *, scripts: bool = False) -> Path:
    pages = Html(folder, local=False, scripts=scripts)
    for event in events:
        pages.observe(event)
    pages.close()
    return folder


def hostile() -> list[Event]:
    data = {"output_type": "display_data", "data": {"text/html": HOSTILE + AWAY}, "metadata": {}}
    document = notebook(markdown(f"# Title\n\n{HOSTILE}"), code("1", outputs=[data]))
    run = Speaker("<b>odd</b> & name.ipynb")
    return [run.stage(), run.is_over(result(run.name, Outcome.PASSED), document)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the batch."""
    folder = tmp_path_factory.mktemp("site")
    write_notebooks(folder / "notebooks")
    return written(batch(), folder / "html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


def test_every_run_with_a_notebook_has_a_page_and_the_index_links_to_it(site: Path) -> None:
    assert sorted(str(path.relative_to(site)) for path in site.rglob("*.html")) == [
        "a/bad.html",
        "a/good.html",
        "index.html",
    ]
    index = (site / "index.html").read_text()
    assert re.findall(r'<div class="name"><a href="([^"]+)"', index) == ["a/bad.html", "a/good.html"]
    assert "3 of 4 notebooks did not pass" in index
    assert "there is no such file" in index
    assert 'a/bad.html#cell-id=cell-2"' in index
    assert "&lt;no&gt; &amp;" in index


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_their_screens_and_ask_nothing_of_any_network(
    site: Path, browser: Browser, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in ("index.html", "a/bad.html"):
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", background)[0])
        assert (red < 60) == (scheme == "dark")
    assert all(url.startswith("file:") for url in asked)
    page.close()


def test_from_the_index_one_gets_to_the_failing_cell_and_back(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="open").first.click()
    assert page.locator(".jp-Cell:target").inner_text().count("raise ValueError") >= 1
    page.get_by_role("link", name="All notebooks").click()
    assert page.locator("h1").inner_text().replace("\n", " ") == "3 of 4 notebooks did not pass"
    page.close()


@pytest.mark.parametrize(("scripts", "title"), [(False, "<b>odd</b> & name.ipynb · passed"), (True, "pwned")])
def test_scripts_of_outputs_run_only_if_asked_for_and_nothing_leaves_the_page(
    scripts: bool, title: str, tmp_path: Path, browser: Browser
) -> None:
    folder = written(hostile(), tmp_path / "html", scripts=scripts)
    (name,) = [path for path in folder.rglob("*.html") if path.name != "index.html"]
    page = browser.new_page()
    fetched: list[str] = []
    page.on("requestfinished", lambda request: fetched.append(request.url))
    page.goto(name.as_uri())
    page.wait_for_load_state("networkidle")
    assert page.title() == title
    assert page.locator("#kept").count() == 2
    assert page.url == name.as_uri()
    assert [url for url in fetched if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_names_stay_in_the_folder_and_do_not_collide(tmp_path: Path) -> None:
    names = ["../up.ipynb", "/up.ipynb", "a/../up.ipynb", "index.ipynb", "n.ipynb[x=1]", "UP.ipynb"]
    events: list[Event] = [BatchStarted(names)]
    events += [Speaker(name).is_over(result(name, Outcome.PASSED), notebook("1")) for name in names]
    folder = written([*events, BatchFinished(BatchResult("0", STARTED, 1.0, BATCH.runs))], tmp_path / "in" / "html")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == len(names) + 1
    assert all(path.is_relative_to(folder) for path in pages)


def test_a_notebook_that_cannot_be_made_into_a_page_is_told_of_and_the_others_are_made(tmp_path: Path) -> None:
    bad, good = Speaker("bad.ipynb"), Speaker("good.ipynb")
    over = [
        bad.is_over(result("bad.ipynb", Outcome.PASSED), {"no": "notebook"}),
        good.is_over(result("good.ipynb", Outcome.PASSED), notebook("1")),
    ]
    with pytest.raises(RuntimeError, match=r"bad\.ipynb: "):
        written(over, tmp_path / "html")
    assert 'class="note"' in (tmp_path / "html" / "bad.html").read_text()
    assert (tmp_path / "html" / "index.html").exists()
    assert "jp-Cell" in (tmp_path / "html" / "good.html").read_text()
