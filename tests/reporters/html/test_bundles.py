"""Which representation of an output a page shows, and what it says of a better one."""

from typing import Any

import pytest

from nbrun.reporters.html.bundles import NOTE, SHOWN, is_blank, settle
from nbrun.reporters.html.cleaning import clean

PLOTLY, VEGA = "application/vnd.plotly.v1+json", "application/vnd.vegalite.v6.json"
WIDGET, JAVASCRIPT = "application/vnd.jupyter.widget-view+json", "application/javascript"
SCRIPTED = "<div id=x></div><script src=https://cdn.example/x.js></script>"

CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"text/plain": "a", "text/html": "<b>a</b>"}, "text/html", ""),
    ({"text/plain": "a", PLOTLY: {}}, "text/plain", "This Plotly chart needs scripts; its text is shown."),
    ({PLOTLY: {}}, "text/html", "This Plotly chart needs scripts; it has no other form."),
    ({PLOTLY: {}, "image/png": "AA"}, "image/png", "This Plotly chart needs scripts; a static picture is shown."),
    (
        {PLOTLY: {}, "text/html": SCRIPTED, "image/png": "AA"},
        "image/png",
        "This Plotly chart needs scripts; a static picture is shown.",
    ),
    ({VEGA: {}, "text/plain": "a"}, "text/plain", "This Vega chart needs scripts; its text is shown."),
    ({WIDGET: {}, "text/plain": "a"}, "text/plain", "This widget needs scripts; its text is shown."),
    ({JAVASCRIPT: "x()", "text/html": "<b>a</b>"}, "text/html", "This output needs scripts; its static part is shown."),
    ({"text/html": SCRIPTED, "text/plain": "a"}, "text/plain", "This output needs scripts; its text is shown."),
    (
        {"text/html": f"<table><tr><td>1</td></tr></table>{SCRIPTED}", "text/plain": "a"},
        "text/html",
        "This output needs scripts; its static part is shown.",
    ),
    (
        {"application/x-own+json": {}, "text/plain": "a"},
        "text/plain",
        "This output of type application/x-own+json cannot be drawn in a page; its text is shown.",
    ),
    ({"application/json": {"a": 1}, "text/plain": "<JSON>"}, "text/plain", ""),
    ({"image/gif": "AA\nAA", "text/plain": "a"}, "text/html", ""),
    ({"application/vnd.bokehjs_load.v0+json": "x", JAVASCRIPT: "x"}, "text/html", ""),
    ({"text/html": '<a class="bk-notebook-logo"></a>Loading BokehJS ...'}, "text/html", ""),
    (
        {JAVASCRIPT: "x", "application/vnd.bokehjs_exec.v0+json": ""},
        "text/html",
        "This Bokeh plot needs scripts; it has no other form.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "shown", "note"), CASES)
def test_the_best_that_can_be_drawn_is_shown_and_what_is_missing_is_said(
    data: dict[str, Any], shown: str, note: str
) -> None:
    output: dict[str, Any] = {"data": dict(data), "metadata": {}}
    settle(output, clean)
    assert next(kind for kind in SHOWN if kind in output["data"]) == shown
    assert output["metadata"].get(NOTE, "") == note


def test_json_is_shown_as_text_and_other_images_as_images() -> None:
    output: dict[str, Any] = {"data": {"application/json": {"a": ["ä"]}, "text/plain": "<JSON>"}, "metadata": {}}
    settle(output, clean)
    assert output["data"] == {"text/plain": '{\n  "a": [\n    "ä"\n  ]\n}'}
    output = {"data": {"image/webp": "AA\nBB"}, "metadata": {}}
    settle(output, clean)
    assert output["data"]["text/html"] == '<img src="data:image/webp;base64,AABB" alt="">'


@pytest.mark.parametrize(
    ("markup", "blank"),
    [
        ("", True), ("<div> <style>a{}</style></div>", True), ("<p>&nbsp;</p>", True), ("<p>a</p>", False),
        ("<img src='data:,'>", False), ("<svg></svg>", False),
    ],
)  # fmt: skip
def test_html_is_blank_if_it_shows_nothing(markup: str, blank: bool) -> None:
    assert is_blank(markup) is blank
