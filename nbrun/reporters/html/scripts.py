"""Move outputs with scripts into one sandboxed frame of the page (``--html-scripts``).

All of them are in one frame, because a later plot uses the library that an earlier output loaded. The page keeps an
empty place for each. A script of the page lays the frame over the places and gives each the height of its output.

Charts of Plotly and Vega and saved widgets are in a notebook as data. They are drawn with copies of the libraries that
are on this machine (:mod:`nbrun.reporters.html.libraries`). Where there is none, the output stays in the page.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbrun.core.formats.json_text import as_object
from nbrun.reporters.html.bundles import HTML, JAVASCRIPT, LOADER, LOADING, WIDGET, bundles
from nbrun.reporters.html.libraries import LIBRARIES, Libraries, named_in

STATE = "application/vnd.jupyter.widget-state+json"
_PLOTLY, _EXECUTED = "application/vnd.plotly.v1+json", "application/vnd.bokehjs_exec.v0+json"
_VEGA = re.compile(r"application/vnd\.(vega|vegalite)\.v\d+[.+]json")
_SCRIPT = re.compile(r"<script\b|<iframe\b|<object\b|<embed\b|\son\w+\s*=|javascript:", re.IGNORECASE)
_ID = re.compile(r"\sid\s*=", re.IGNORECASE)
_LEAVES = re.compile(r"<(?=(meta\b[^>]*http-equiv|base\b))", re.IGNORECASE)
_END = re.compile(r"<(?=/script|!--)", re.IGNORECASE)
_MODEL = re.compile(r"IPY_MODEL_([\w-]+)")
_MODULES = {
    "@jupyter-widgets/base": "widgets",
    "@jupyter-widgets/controls": "widgets",
    "@jupyter-widgets/output": "widgets",
    "anywidget": "anywidget",
}


@dataclass
class Live:
    """The outputs in the frame; `token` marks their places, and a notebook cannot know it."""

    installed: Libraries
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    fragments: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """The names of libraries that nbrun's own scripts load."""

    def place(self, fragment: str) -> str:
        """Store a fragment of HTML and return its placeholder.

        The frame cannot be navigated: an element that tries would replace all outputs by an error page.
        """
        fragment = _LEAVES.sub("<no-", fragment)
        for library in named_in([fragment]):
            loads = rf"<script\b[^>]*\bsrc\s*=\s*[\"']?{library.address}[\"']?[^>]*>\s*</script>"
            fragment = re.sub(loads, f'<script>nbrun.load("{library.name}")</script>', fragment, flags=re.IGNORECASE)
            self.used.add(library.name)
        self.fragments.append(fragment)
        return f'<div data-live="{self.token}"></div>'

    def call(self, function: str, *arguments: Any, uses: set[str]) -> str:
        """Return a call of one of the frame's functions as HTML; its first argument is the output's own element."""
        self.used |= uses
        values = ", ".join(["element", *(json.dumps(value) for value in arguments)])
        return script(f"nbrun.{function}({values});")

    def libraries(self) -> list[dict[str, str]]:
        """Return the libraries that the frame needs: name, address, script."""
        return [
            {"name": one.name, "address": one.address, "text": _END.sub(r"\\x3c", self.installed.script(one.name))}
            for one in LIBRARIES.values()
            if one.name in self.used
        ]


def take_scripts(notebook: Any, widgets: Mapping[str, Any], installed: Libraries) -> Live:
    """Move the outputs that need scripts out of a notebook, and leave placeholders; return the outputs.

    If there are any, HTML with an ``id`` is moved with them, because a script may write into it. `widgets` is the saved
    state of the notebook's widgets by model, `installed` are the libraries.
    """
    live = Live(installed)
    outputs = bundles(notebook)
    fragments = [_fragment(live, output["data"], widgets) for output in outputs]
    plots = any(LOADER in output["data"] and place for output, place in zip(outputs, fragments, strict=True))
    for output, fragment in zip(outputs, fragments, strict=True):
        data = output["data"]
        if fragment and (plots or _EXECUTED not in data):
            output["data"] = {HTML: live.place(fragment)}
        elif any(fragments) and _may_be_written_into(_text(data.get(HTML))):
            output["data"] = {HTML: live.place(data[HTML])}
    return live


def _fragment(live: Live, data: Mapping[str, Any], widgets: Mapping[str, Any]) -> str:
    """Return what the frame holds of an output; nothing for one that needs no script, or a library that is missing."""
    if _PLOTLY in data and live.installed.is_installed("plotly"):
        return live.call("plotly", as_object(data[_PLOTLY]), uses={"plotly"})
    vega = next((kind for kind in data if _VEGA.fullmatch(kind)), None)
    if vega is not None and live.installed.is_installed("vega") and (specification := _object(data[vega])):
        return live.call("vega", specification, "vega-lite" if "vegalite" in vega else "vega", uses={"vega"})
    if WIDGET in data:
        return _widget(live, str(as_object(data[WIDGET]).get("model_id")), widgets)
    if JAVASCRIPT in data:
        source = _text(data[JAVASCRIPT])
        return "" if live.installed.is_incomplete(source) else script(source)
    markup = _text(data.get(HTML))
    return markup if _SCRIPT.search(markup) and not live.installed.is_incomplete(markup) else ""


def _widget(live: Live, model: str, widgets: Mapping[str, Any]) -> str:
    """Return the script that draws a saved widget with all the models that it refers to."""
    needed, waiting = {}, [model]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        if name not in widgets:
            return ""
        needed[name] = widgets[name]
        waiting += _MODEL.findall(json.dumps(widgets[name]))
    libraries = {_MODULES.get(str(as_object(one).get("model_module")), "") for one in needed.values()}
    if not all(name and live.installed.is_installed(name) for name in libraries):
        return ""
    return live.call("widget", model, needed, uses=libraries | {"widgets"})


def _may_be_written_into(markup: str) -> bool:
    return bool(_ID.search(markup)) and not _SCRIPT.search(markup) and LOADING not in markup


def _object(value: Any) -> dict[str, Any]:
    """Return a JSON object, which nbformat stores as text under a type such as ``….v6.json``; otherwise nothing."""
    with contextlib.suppress(ValueError):
        return as_object(json.loads(value) if isinstance(value, str) else value)
    return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def script(source: str) -> str:
    """Return JavaScript as HTML; `element` is the output's element, as in Jupyter."""
    name = f"element-{secrets.token_hex(8)}"
    begin = f'<div id="{name}"></div><script>\nvar element = document.getElementById("{name}");\n'
    return begin + _END.sub(r"\\x3c", source) + "\n</script>"
