"""Move outputs with scripts into one sandboxed frame of the page (``--html-scripts``).

All of them are in one frame, because a later plot uses the library that an earlier output loaded. The page keeps an
empty place for each. A script of the page lays the frame over the places and gives each the height of its output.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JAVASCRIPT, HTML = "application/javascript", "text/html"
_SCRIPT = re.compile(r"<script\b|<iframe\b|<object\b|<embed\b|\son\w+\s*=|javascript:", re.IGNORECASE)
_ID = re.compile(r"\sid\s*=", re.IGNORECASE)
_LEAVES = re.compile(r"<(?=(meta\b[^>]*http-equiv|base\b))", re.IGNORECASE)
_END = re.compile(r"<(?=/script|!--)", re.IGNORECASE)


@dataclass
class Live:
    """The outputs in the frame; `token` marks their places, and a notebook cannot know it."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    fragments: list[str] = field(default_factory=list)

    def place(self, fragment: str) -> str:
        """Store a fragment of HTML and return its placeholder.

        The frame cannot be navigated: an element that tries would replace all outputs by an error page.
        """
        self.fragments.append(_LEAVES.sub("<no-", fragment))
        return f'<div data-live="{self.token}"></div>'


def take_scripts(notebook: Any) -> Live:
    """Move the outputs that need scripts out of a notebook, and leave placeholders; return the outputs.

    If there are any, HTML with an ``id`` is moved with them, because a script may write into it.
    """
    live = Live()
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ()) if output.get("data")]
    any_runs = any(JAVASCRIPT in output["data"] or _found(_SCRIPT, output["data"]) for output in outputs)
    for output in outputs:
        data = output["data"]
        if JAVASCRIPT in data:
            output["data"] = {HTML: live.place(script(_text(data[JAVASCRIPT])))}
        elif _found(_SCRIPT, data) or (any_runs and _found(_ID, data)):
            output["data"] = {HTML: live.place(_text(data[HTML]))}
    return live


def _found(pattern: re.Pattern[str], data: Mapping[str, Any]) -> bool:
    return bool(pattern.search(_text(data.get(HTML))))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def script(source: str) -> str:
    """Return JavaScript as HTML; `element` is the output's element, as in Jupyter."""
    name = f"element-{secrets.token_hex(8)}"
    begin = f'<div id="{name}"></div><script>\nvar element = document.getElementById("{name}");\n'
    return begin + _END.sub(r"\\x3c", source) + "\n</script>"
