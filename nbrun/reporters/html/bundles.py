"""Choose the representation of an output on a page, and note what is missing; pure."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

NOTE = "nbrun_note"
"""The metadata key of an output for the note that the page shows below it."""
HTML, JAVASCRIPT, TEXT = "text/html", "application/javascript", "text/plain"
WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = [
    HTML, "text/markdown", "image/svg+xml", "text/vnd.mermaid", "text/latex", "image/png", "image/jpeg", TEXT,
]  # fmt: skip
"""The MIME types that a page shows, the preferred ones first."""
_IMAGES = ("image/gif", "image/webp", "image/avif", "image/apng", "image/bmp")
_PICTURES = ("image/svg+xml", "image/png", "image/jpeg", *_IMAGES)
_KINDS = [
    (re.compile(r"application/vnd\.plotly"), "This Plotly chart"),
    (re.compile(r"application/vnd\.vega"), "This Vega chart"),
    (re.compile(r"application/vnd\.bokeh"), "This Bokeh plot"),
    (re.compile(re.escape(WIDGET)), "This widget"),
    (re.compile(re.escape(JAVASCRIPT)), "This output"),
]
_DRAWN_BY = {"plotly": "This Plotly chart", "vega": "This Vega chart", "bokeh": "This Bokeh plot"}
"""Names of outputs in HTML, by a word in their script."""
_HAS_SCRIPT = re.compile(r"<script\b|<iframe\b|<object\b|<embed\b", re.IGNORECASE)
_JSON = re.compile(r"application/(geo\+)?json")
_CONTENT = re.compile(r"<(img|svg|math|table|video|audio|hr|progress|meter|input|button)\b", re.IGNORECASE)
_INVISIBLE = re.compile(r"<style\b.*?</style>|<[^>]*>|&nbsp;|\s", re.DOTALL | re.IGNORECASE)
LOADER, LOADING = "application/vnd.bokehjs_load.v0+json", 'class="bk-notebook-logo"'
"""Outputs that load Bokeh's library or report that it is loaded. They are not shown."""


def settle(output: dict[str, Any], clean: Callable[[str], str]) -> None:
    """Reduce an output to what a page without scripts can show, and note what is missing; `clean` sanitises HTML."""
    data: dict[str, Any] = output["data"]
    for kind in _IMAGES:
        if isinstance(data.get(kind), str) and HTML not in data:
            data[HTML] = f'<img src="data:{kind};base64,{"".join(data[kind].split())}" alt="">'
    others = [kind for kind in data if kind not in SHOWN and kind not in _IMAGES]
    rich = min(others, key=JAVASCRIPT.__eq__, default="")  # a specific type is more informative than a script
    markup = data.get(HTML)
    runs = isinstance(markup, str) and _HAS_SCRIPT.search(markup) is not None
    if LOADER in data or LOADING in str(markup):
        output["data"] = {HTML: ""}
        return
    if not rich and not runs:
        return
    if runs and (any(kind in data for kind in _PICTURES) or is_blank(clean(str(markup)))):
        del data[HTML]
    if _JSON.fullmatch(rich):
        if not any(kind in data for kind in SHOWN if kind != TEXT):
            output["data"] = {TEXT: json.dumps(data[rich], indent=2, ensure_ascii=False)}
        return
    shown = next((kind for kind in SHOWN if kind in data), "")
    if not shown:
        data[HTML] = ""
    output["metadata"] = {**output.get("metadata", {}), NOTE: _note(rich, shown, str(markup).lower())}


def is_blank(markup: str) -> bool:
    """Return whether sanitised HTML shows nothing."""
    return not _CONTENT.search(markup) and not _INVISIBLE.sub("", markup)


def _note(rich: str, shown: str, markup: str) -> str:
    subject = next((name for kind, name in _KINDS if kind.match(rich)), f"This output of type {rich}")
    if not rich:
        subject = next((name for word, name in _DRAWN_BY.items() if word in markup), "This output")
    scripts = any(kind.match(rich) for kind, _ in _KINDS) or not rich
    needs = f"{subject} needs scripts" if scripts else f"{subject} cannot be drawn in a page"
    instead = {"": "it has no other form", TEXT: "its text is shown"}
    what = "a static picture is shown" if shown in _PICTURES else instead.get(shown, "its static part is shown")
    return f"{needs}; {what}."


def bundles(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the outputs of a notebook that have a mime bundle."""
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ()) if output.get("data")]
