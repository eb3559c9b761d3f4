"""Web pages of executed notebooks, and their index, in a real browser."""

import hashlib
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from nbrun.core.events import BatchFinished, BatchStarted, Event
from nbrun.core.results import Artefact, BatchResult, Outcome
from nbrun.reporters.composite import IncompleteReport
from nbrun.reporters.html.reporter import Html, Look
from tests.reporters.streams import BATCH, STARTED, Speaker, batch, result, write_notebooks
from tests.support.browsers import chromium
from tests.support.notebooks import code, markdown, notebook

HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"><b id=kept>kept</b>"
AWAY = '<meta http-equiv="refresh" content="0;url=https://example.org/"><img src="https://example.org/x.png">'


def written(events: list[Event], folder: Path, *, scripts: bool = False) -> Path:
    pages = Html(folder, local=False, look=Look(scripts=scripts))
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


@pytest.mark.parametrize("scripts", [False, True])
def test_scripts_of_outputs_run_only_if_asked_for_and_in_a_frame_without_rights(
    scripts: bool, tmp_path: Path, browser: Browser
) -> None:
    folder = written(hostile(), tmp_path / "html", scripts=scripts)
    (name,) = [path for path in folder.rglob("*.html") if path.name != "index.html"]
    page = browser.new_page()
    fetched: list[str] = []
    page.on("requestfinished", lambda request: fetched.append(request.url))
    page.goto(name.as_uri())
    assert page.title() == "Title"
    assert page.url == name.as_uri()
    assert page.locator("#kept").count() == 2 - scripts
    assert page.locator("main > iframe").count() == scripts
    if scripts:
        assert page.frames[1].evaluate("[document.title, origin]") == ["pwned", "null"]
        assert page.locator("main > iframe").get_attribute("sandbox") == "allow-scripts"
    assert [url for url in fetched if not url.startswith(("file:", "data:"))] == []
    page.close()


def interactive(*outputs: dict[str, str]) -> list[Event]:
    """The events of a run whose cells have these outputs."""
    cells = [
        code(f"{i}", outputs=[{"output_type": "display_data", "data": d, "metadata": {}}])
        for i, d in enumerate(outputs)
    ]
    run = Speaker("plots.ipynb")
    document = notebook(markdown("[away](https://example.org/elsewhere)"), *cells, markdown("the end"))
    return [run.stage(), run.is_over(result(run.name, Outcome.PASSED), document)]


LIBRARY = {"text/html": "<script>library = (id, high) => { window[id].style.height = `${high}px` }</script>"}
PLOT = {"text/html": "<div id=plot>plot</div>"}
MORE = "<button onclick=library('plot',500)>more</button>"
DRAWN = {"application/javascript": f"library('plot', 300); element.innerHTML = `{MORE}`"}
TABLE = {"text/html": "<table class=dataframe><tr><td>1</td></tr></table>"}


def test_outputs_with_scripts_work_together_and_each_stands_at_its_cell(tmp_path: Path, browser: Browser) -> None:
    folder = written(interactive(LIBRARY, PLOT, DRAWN, TABLE), tmp_path / "html", scripts=True)
    page = browser.new_page()
    page.goto((folder / "plots.html").as_uri())
    places, inside = page.locator("[data-live]"), page.frames[1]

    def laid_out(height: int) -> bool:
        """Whether the place of the plot is as high as the plot, and the plot is in its place."""
        expect(places.nth(1)).to_have_css("height", f"{height}px")
        inside.wait_for_function(
            f"document.getElementById('plot').parentNode.getBoundingClientRect().height >= {height}"
        )
        place, plot = places.nth(1).bounding_box(), inside.locator("#plot").bounding_box()
        assert place is not None
        assert plot is not None
        return plot["height"] == height and abs(place["y"] - plot["y"]) <= 1 and abs(place["x"] - plot["x"]) <= 1

    assert laid_out(300)
    inside.get_by_role("button", name="more").click()
    assert laid_out(500)
    assert page.locator("table").count() == 1  # what needs no script stays in the page
    box = page.get_by_text("the end").bounding_box()
    assert box is not None
    assert box["y"] > 500
    page.get_by_role("link", name="away").click(trial=True)  # the frame does not lie over it
    page.close()


def test_what_a_frame_sends_to_its_page_is_taken_for_heights_and_copies_only(tmp_path: Path, browser: Browser) -> None:
    heights = ["'x'", "[1e99]", "['<b>']", "[{valueOf() { return 9 }}].map(String)", "[1, 2]", "[NaN]", "null"]
    copies = [
        "7, copy: ''",
        "0, copy: 5",
        "0, copy: '<img src=x onerror=parent.document.title=`pwned`>', styles: '<b>'",
    ]
    sent = ["null", "'x'", *(f"{{heights: {one}}}" for one in heights), *(f"{{index: {one}}}" for one in copies)]
    posts = "".join(f"parent.postMessage({message}, '*');" for message in sent)
    folder = written(interactive({"application/javascript": posts}), tmp_path / "html", scripts=True)
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((folder / "plots.html").as_uri())
    place = page.locator("[data-live]")
    expect(place).to_have_css("height", re.compile(r"^\d{1,2}px$"))  # in the end, the true one
    page.evaluate("postMessage({heights: [4321]}, '*')")  # not from the frame
    page.evaluate("new Promise(done => { onmessage = done; postMessage('after', '*') })")
    expect(place).not_to_have_css("height", "4321px")
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert page.title() == "plots.ipynb"
    assert problems == []
    page.close()


DRAWING = """
const canvas = document.createElement("canvas"), host = document.createElement("div"), sheet = new CSSStyleSheet();
Object.assign(canvas, {width: 50, height: 100});
canvas.getContext("2d").fillStyle = "rgb(0, 0, 255)";
canvas.getContext("2d").fillRect(0, 0, 50, 100);
const root = host.attachShadow({mode: "closed"});
sheet.replaceSync("p { background: rgb(255, 0, 0); height: 100px; margin: 0 }");
root.adoptedStyleSheets = [sheet];
root.innerHTML = "<p>drawn late</p>";
element.append(canvas, host);
"""


def test_an_output_far_below_the_window_is_in_a_picture_of_the_whole_page(tmp_path: Path, browser: Browser) -> None:
    """Chromium draws only what is near the window of a frame in another process."""
    gap = {"text/html": "<br>" * 150}
    wide = {"text/html": "<script></script><p style='width: 2000px'>wide"}
    drawn = interactive(gap, gap, gap, {"application/javascript": DRAWING}, wide)
    folder = written(drawn, tmp_path / "html", scripts=True)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((folder / "plots.html").as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    box = page.locator("[data-live]").first.bounding_box()
    assert box is not None
    assert box["y"] > 1500
    with Image.open(BytesIO(page.screenshot(full_page=True))) as taken:
        x, y = int(box["x"]), int(box["y"])
        assert taken.getpixel((x + 25, y + 50))[:3] == (0, 0, 255)  # type: ignore[index]
        assert taken.getpixel((x + 200, y + int(box["height"]) - 50))[:3] == (255, 0, 0)  # type: ignore[index]
    # A copy shows all of an output that is scrolled on the screen.
    assert re.match(r"0 0 2\d\d\d ", page.locator("[data-live] > svg").last.get_attribute("viewBox") or "")
    page.close()


def test_a_link_in_a_frame_does_not_replace_its_outputs(tmp_path: Path, browser: Browser) -> None:
    link = {"text/html": "<script></script><a href='https://example.org/'>away</a>"}
    folder = written(interactive(link), tmp_path / "html", scripts=True)
    page = browser.new_page()
    page.goto((folder / "plots.html").as_uri())
    page.frames[1].get_by_role("link").click()
    assert page.frames[1].url == "about:srcdoc"
    assert page.frames[1].get_by_role("link").is_visible()
    page.close()


def test_a_frame_whose_outputs_left_it_is_told_of(tmp_path: Path, browser: Browser) -> None:
    folder = written(
        interactive({"application/javascript": "location = 'https://example.org/'"}), tmp_path, scripts=True
    )
    page = browser.new_page()
    page.clock.install()
    page.goto((folder / "plots.html").as_uri())
    page.clock.run_for(10_000)
    expect(page.locator("[data-live]")).to_have_text(re.compile("tried to leave"))
    page.close()


def test_an_ordinary_link_leads_to_its_page(tmp_path: Path, browser: Browser) -> None:
    folder = written(interactive(TABLE), tmp_path / "html")
    page = browser.new_page()
    page.route("https://example.org/elsewhere", lambda route: route.fulfill(body="arrived"))
    page.goto((folder / "plots.html").as_uri())
    page.get_by_role("link", name="away").click()
    page.wait_for_url("https://example.org/elsewhere")
    page.close()


def test_a_widget_without_its_scripts_is_shown_as_text(tmp_path: Path) -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=0)"}
    folder = written(interactive(widget), tmp_path / "html")  # type: ignore[arg-type]
    assert "IntSlider(value=0)" in (folder / "plots.html").read_text()


def test_what_libraries_print_of_a_notebook_does_not_get_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Speaker("odd.ipynb")
    document = notebook(code("1"), language_info={"name": "x\n::error::odd", "pygments_lexer": "x\n::error::odd"})
    document["cells"][0]["id"] = "not an id"
    folder = written([run.is_over(result(run.name, Outcome.PASSED), document)], tmp_path / "html")
    assert "jp-Cell" in (folder / "odd.html").read_text()
    assert capfd.readouterr() == ("", "")


def test_an_artefact_is_copied_and_linked_and_one_that_changed_is_reported(tmp_path: Path) -> None:
    def artefact(name: str, content: str) -> Artefact:
        return Artefact(name, str(tmp_path / name), 4, hashlib.sha256(content.encode()).hexdigest())

    (tmp_path / "same").write_text("same")
    (tmp_path / "other").write_text("that of another run")
    artefacts = [artefact("same", "same"), artefact("other", "mine"), artefact("of another machine", "gone")]
    run = Speaker("a.ipynb")
    pages = Html(tmp_path / "html", local=False)
    pages.observe(run.is_over(result(run.name, Outcome.PASSED, artefacts=artefacts), notebook("1")))
    with pytest.raises(
        IncompleteReport, match=r"^a\.ipynb: the artefact other was changed after the run; --cwd @scratch"
    ):
        pages.close()
    for page in ("a.html", "index.html"):
        text = (tmp_path / "html" / page).read_text()
        assert re.findall(r'href="(a_files[^"]*)"', text) == ["a_files/same"]
        assert "of another machine" in text


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
    with pytest.raises(IncompleteReport, match=r"bad\.ipynb: "):
        written(over, tmp_path / "html")
    assert 'class="note"' in (tmp_path / "html" / "bad.html").read_text()
    assert (tmp_path / "html" / "index.html").exists()
    assert "jp-Cell" in (tmp_path / "html" / "good.html").read_text()


def test_a_page_at_which_the_process_died_or_stays_costs_no_other_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Speaker("first.ipynb"), Speaker("second.ipynb")
    pages = Html(tmp_path / "html", local=False)
    pages.observe(first.stage())
    assert pages._maker is not None
    pages._maker._process.kill()
    pages._maker._process.wait()
    pages.observe(second.is_over(result("second.ipynb", Outcome.PASSED), notebook("1")))
    pages.close()
    assert "jp-Cell" in (tmp_path / "html" / "second.html").read_text()

    monkeypatch.setattr("nbrun.reporters.html.reporter.PAGE_LIMIT", 0.001)
    with pytest.raises(IncompleteReport, match=r"first\.ipynb: given up after"):
        written([first.is_over(result("first.ipynb", Outcome.PASSED), notebook("1"))], tmp_path / "html")
