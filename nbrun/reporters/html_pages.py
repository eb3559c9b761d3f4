"""Executed notebooks as web pages, and an index of them; the front door of nbconvert, jinja2 and pygments.

nbconvert makes the cells into HTML; the page around them is our own, because nbconvert's loads scripts from elsewhere,
weighs half a megabyte and is either light or dark. A page asks nothing of any network, and no script that an output
brought runs: its Content-Security-Policy says so, which a browser keeps to whatever the HTML looks like. With `scripts`
those of outputs run, still without a network.

It is a process of its own, which :mod:`nbrun.reporters.html` starts: nbconvert takes a second to import and works
long on large notebooks, while others run.
"""

import html
import json
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbrun.lean_imports  # noqa: F401

# isort: split
from jinja2 import Environment, PackageLoader, StrictUndefined
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from nbrun.core.notebook_text import read_notebook
from nbrun.reporters.safe_stream import binary, protect_standard_streams

_META = re.compile(r"<(/?)(meta|base|link)\b", re.IGNORECASE)
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data:"
_SCRIPTS = f"{_NO_SCRIPTS}; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:"
_COMMON = "; form-action 'none'; base-uri 'none'"


def page(text: str, facts: Mapping[str, Any], *, scripts: bool = False) -> str:
    """Give the page of an executed notebook, whose file's text is `text`; `facts` stand at its head."""
    notebook = read_notebook(text)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            _defuse(output.get("data", {}))
    exporter = HTMLExporter(template_name="lab", template_file="base.html.j2", embed_images=False)
    exporter.exclude_anchor_links = True
    body, _ = exporter.from_notebook_node(notebook)
    policy = (_SCRIPTS if scripts else _NO_SCRIPTS) + _COMMON
    template = _templates().get_template("page.html.j2")
    return str(template.render(body=body, policy=policy, colours=_colours(), **facts))


def _defuse(data: dict[str, Any]) -> None:
    """Keep an output from sending the reader elsewhere: a policy cannot forbid what these elements do."""
    for mime in ("text/html", "image/svg+xml", "text/markdown"):
        if isinstance(data.get(mime), str):
            data[mime] = _META.sub(r"&lt;\1\2", data[mime])


def index(facts: Mapping[str, Any]) -> str:
    """Give the index page."""
    return str(_templates().get_template("index.html.j2").render(policy=_NO_SCRIPTS + _COMMON, **facts))


def failure_page(facts: Mapping[str, Any], reason: str) -> str:
    """Give the page of a notebook that could not be made into one."""
    template = _templates().get_template("page.html.j2")
    body = f'<pre class="note">{html.escape(reason)}</pre>'
    return str(template.render(body=body, policy=_NO_SCRIPTS + _COMMON, colours=_colours(), **facts))


def _templates() -> Environment:
    loader = PackageLoader("nbrun.reporters")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _colours() -> dict[str, str]:
    """Give the style sheets of highlighted code."""
    names = {"light": "friendly", "dark": "github-dark"}
    return {name: str(HtmlFormatter(style=style).get_style_defs(".highlight")) for name, style in names.items()}


def write_page(target: Path, source: Path, facts: Mapping[str, Any], *, scripts: bool) -> str:
    """Write the page of the notebook in the file `source`.

    Gives what kept the notebook from being made into a page, in which case the page says so, or nothing.
    """
    problem = ""
    try:
        made = page(source.read_text(encoding="utf-8"), facts, scripts=scripts)
    except Exception as error:  # noqa: BLE001  (nbconvert's templates and filters raise whatever they like)
        problem = f"{type(error).__name__}: {error}"
        made = failure_page(facts, problem)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(made, encoding="utf-8", errors="replace")
    return problem


def main() -> None:
    """Make pages and indexes as lines of JSON on standard input ask for them, and answer each with a line.

    The end of the input is the end of nbrun, and of this process.
    """
    logging.disable(logging.WARNING)
    protect_standard_streams()
    answers, sys.stdout = binary(sys.stdout), sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        target = Path(asked["target"])
        try:
            if asked["source"] is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(index(asked["facts"]), encoding="utf-8", errors="replace")
                problem = ""
            else:
                problem = write_page(target, Path(asked["source"]), asked["facts"], scripts=asked["scripts"])
        except OSError as error:
            problem = f"{target}: {error.strerror}"
        answers.write(json.dumps(problem).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
