"""Outputs that need scripts, in the page's frame: drawn with libraries that are on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.results import Outcome
from nbrun.reporters.html import libraries
from nbrun.reporters.html.libraries import Libraries
from nbrun.reporters.html.pages import page
from nbrun.reporters.html.reporter import facts_of
from nbrun.reporters.html.scripts import STATE, take_scripts
from nbrun.reporters.run_log import RunRecord
from tests.reporters.streams import result
from tests.support.browsers import chromium
from tests.support.notebooks import code, notebook

PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
LOAD, EXECUTE = "application/vnd.bokehjs_load.v0+json", "application/vnd.bokehjs_exec.v0+json"
ADDRESS = "https://cdn.bokeh.org/bokeh/release/bokeh-3.9.2.min.js"
LOADER = f"""
const script = document.createElement("script");
script.onload = () => {{ window.ready = true }};
script.src = "{ADDRESS}";
document.head.appendChild(script);
"""
EXECUTED = """
const own = element;
const timer = setInterval(() => { if (window.ready) { Bokeh.draw(own); clearInterval(timer) } }, 5);
"""
SCRIPTS = {
    "plotly/package_data/plotly.min.js": (
        "window.Plotly = {newPlot: async (element, data) => {element.textContent = `plotted ${data[0].y} </b>`}};"
    ),
    "bokeh/server/static/js/bokeh.min.js": "window.Bokeh = {draw: (element) => {element.textContent = 'bokeh drew'}};",
}


def outputs(*data: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"output_type": "display_data", "metadata": {}, "data": one} for one in data]


def model(name: str, **state: Any) -> dict[str, Any]:
    module = "@jupyter-widgets/output" if name == "Output" else "@jupyter-widgets/controls"
    module = "@jupyter-widgets/base" if name == "Layout" else module
    attributes = {"_model_module": module, "_model_name": f"{name}Model", "_view_module": module, **state}
    version = "1.0.0" if name == "Output" else "2.0.0"
    attributes |= {"_model_module_version": version, "_view_module_version": version, "_view_name": f"{name}View"}
    if name.endswith("Style"):
        attributes |= {"_view_module": "@jupyter-widgets/base", "_view_name": "StyleView"}
    return {
        "model_module": module, "model_module_version": version, "model_name": f"{name}Model", "state": attributes,
    }  # fmt: skip


WIDGETS = {
    "box": model("VBox", children=["IPY_MODEL_slider", "IPY_MODEL_text"], layout="IPY_MODEL_layout"),
    "slider": model("IntSlider", value=7, description="Slide", layout="IPY_MODEL_layout", style="IPY_MODEL_style"),
    "style": model("SliderStyle"),
    "text": model("HTML", value="<b>bold</b>", layout="IPY_MODEL_layout", style="IPY_MODEL_html_style"),
    "html_style": model("HTMLStyle"),
    "layout": model("Layout"),
    "out": model("Output", outputs=[{"output_type": "stream", "text": "captured"}], layout="IPY_MODEL_layout"),
    "odd": {**model("Thing"), "model_module": "some-module"},
    "secret": model("Layout", width="secretwidth"),
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the libraries of Plotly and Bokeh beside the real one of widgets."""
    for path, text in SCRIPTS.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    real = libraries.own_folder
    monkeypatch.setattr(
        libraries, "own_folder", lambda name: tmp_path / name if name in ("plotly", "bokeh") else real(name)
    )
    libraries._text.cache_clear()


def made(*data: dict[str, Any]) -> str:
    document = notebook(code("1", outputs=outputs(*data)))
    document["metadata"]["widgets"] = {STATE: {"version_major": 2, "version_minor": 0, "state": WIDGETS}}
    ended = result("plots.ipynb", Outcome.PASSED)
    facts = {**facts_of(RunRecord("plots.ipynb"), ended, "hide", "show"), "index": ""}
    return page(notebook_text(document), facts, scripts=True)[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


@pytest.mark.usefixtures("installed")
def test_charts_and_widgets_are_drawn_with_copies_of_their_libraries(browser: Browser, tmp_path: Path) -> None:
    chart = {"data": [{"y": [1, 3, "</script>"]}], "layout": {}}
    data: list[dict[str, Any]] = [
        {PLOTLY: chart, "text/plain": "Figure"},
        {"application/javascript": LOADER, LOAD: LOADER},
        {"application/javascript": EXECUTED, EXECUTE: ""},
        {WIDGET: {"model_id": "box"}, "text/plain": "VBox()"},
        {WIDGET: {"model_id": "out"}, "text/plain": "Output()"},
    ]
    written = tmp_path / "plots.html"
    written.write_text(made(*data))
    opened = browser.new_page(viewport={"width": 1000, "height": 2000})
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(written.as_uri())
    frame = opened.frames[1]
    for text in ("plotted 1,3,</script>", "bokeh drew", "Slide", "bold", "captured"):
        frame.get_by_text(text).wait_for()
    assert frame.locator(".widget-slider .noUi-handle").is_visible()
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
    assert "secretwidth" not in written.read_text()  # only the models that are shown
    opened.close()


CASES: list[tuple[dict[str, Any], bool]] = [
    ({PLOTLY: {}}, False),
    ({"application/vnd.vegalite.v6.json": "{}", "text/plain": "a"}, False),
    ({WIDGET: {"model_id": "box"}}, True),
    ({WIDGET: {"model_id": "odd"}}, False),
    ({WIDGET: {"model_id": "unknown"}}, False),
    ({"application/javascript": "x()"}, True),
    ({"application/javascript": LOADER, LOAD: ""}, False),
    ({"application/javascript": "x()", EXECUTE: ""}, False),
    ({"text/html": f"<script src='{ADDRESS}'></script>"}, False),
    ({"text/html": "<script src='https://example.org/x.js'></script>", "image/png": "AA"}, False),
    ({"text/html": "<script>x()</script>"}, True),
    ({"text/html": "<b>x</b>"}, False),
]


@pytest.mark.parametrize(("data", "taken"), CASES, ids=[json.dumps(data)[:60] for data, _ in CASES])
def test_an_output_whose_library_is_missing_stays_in_the_page(
    data: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = libraries.own_folder
    monkeypatch.setattr(libraries, "own_folder", lambda name: real(name) if name == "widgetsnbextension" else None)
    document = notebook(code("1", outputs=outputs(data)))
    assert bool(take_scripts(document, WIDGETS, Libraries()).fragments) is taken


@pytest.mark.parametrize(("specification", "taken"), [('{"mark": "bar"}', True), ({"mark": "bar"}, True), ("{", False)])
def test_the_specification_of_a_chart_is_json_or_a_text_of_it(
    specification: Any, taken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(libraries, "own_folder", lambda _: tmp_path)
    document = notebook(code("1", outputs=outputs({"application/vnd.vegalite.v6.json": specification})))
    fragments = take_scripts(document, {}, Libraries()).fragments
    assert bool(fragments) is taken
    assert all('nbrun.vega(element, {"mark": "bar"}, "vega-lite");' in fragment for fragment in fragments)


@pytest.mark.usefixtures("installed")
def test_a_script_element_that_names_a_library_uses_the_copy() -> None:
    markup = f'<script src="{ADDRESS}" integrity="sha256-x" crossorigin></script><div id=x></div>'
    live = take_scripts(notebook(code("1", outputs=outputs({"text/html": markup}))), {}, Libraries())
    assert live.fragments == ['<script>nbrun.load("bokeh")</script><div id=x></div>']
    assert [library["name"] for library in live.libraries()] == ["bokeh"]
