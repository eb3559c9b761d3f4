"""Render executed notebooks as HTML pages and an index, in a process of its own.

:mod:`nbrun.reporters.html.cells` renders the cells with nbconvert. The page around them is nbrun's own, because
nbconvert's loads scripts from other servers, weighs half a megabyte and is either light or dark.

Two measures keep a page from loading anything, running code of the notebook, or navigating away. All output of
nbconvert is cleaned (:mod:`nbrun.reporters.html.cleaning`), and the page has a Content-Security-Policy, which the
browser enforces whatever the HTML contains. The policy alone is not enough: it forbids neither a ``<meta
http-equiv=refresh>`` nor a connection for a ``<link>``.

With `scripts`, outputs that contain scripts are in one sandboxed frame. The frame is a document of its own that can
neither access nor navigate the page. It inherits the page's policy. The page's ``frame-src`` keeps the frame from
navigating itself.

:mod:`nbrun.reporters.html.reporter` starts this process, because importing nbconvert takes a second and large notebooks
take long while other notebooks run.
"""

import html
import json
import logging
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from nbrun._lazy_imports import put_off_imports

if __name__ == "__main__":  # the process that renders pages
    put_off_imports()

# isort: split
from nbrun.core.formats.json_text import as_object
from nbrun.core.notebook.file_reading import read_notebook
from nbrun.reporters.html.bundles import bundles, settle
from nbrun.reporters.html.cells import Body, colours, render
from nbrun.reporters.html.cleaning import clean
from nbrun.reporters.html.libraries import libraries_of
from nbrun.reporters.html.printing import WEASYPRINT, NotDrawn, Printer, PrintFailed
from nbrun.reporters.html.scripts import STATE, Live, take_scripts
from nbrun.reporters.html.templates import FRAME, INDEX, NO_SCRIPTS, PAGE, fill, loader
from nbrun.reporters.html.visibility import Code, Rules
from nbrun.reporters.safe_stream import binary, protect_standard_streams

_SCRIPTS = f"{NO_SCRIPTS}; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:"
_ODD_ID = re.compile(r"[^\w-]|^$|.{65}", re.ASCII | re.DOTALL)
_LONGEST_REASON = 300


def page(
    text: str,
    facts: Mapping[str, Any],
    *,
    scripts: bool = False,
    template: str | None = None,
    mathml: bool = True,
    python: str = "",
) -> tuple[str, str]:
    """Return the page of an executed notebook, whose file contains `text`, and its title; `facts` are the run's.

    `python` is the program that ran the notebook, if it is not in the environment of nbrun.
    """
    notebook = read_notebook(text)
    body = Body(_title(notebook), mathml)
    widgets = as_object(as_object(as_object(notebook["metadata"].get("widgets")).get(STATE)).get("state"))
    rules = Rules.of(facts)
    rules.apply(notebook)
    rules.apply_to_widgets(widgets)
    live = take_scripts(notebook, widgets, libraries_of(python)) if scripts else None
    for output in bundles(notebook):
        settle(output, clean)
        if isinstance(mermaid := output["data"].get("text/vnd.mermaid"), str):
            output["data"]["text/vnd.mermaid"] = html.escape(
                mermaid
            )  # shown as its source, which may contain any character
    for cell in notebook.cells:
        if _ODD_ID.search(str(cell.get("id", ""))):
            del cell["id"]  # nbconvert refuses it
    render(notebook, body, loader(template))
    body.html = clean(body.html)
    return _page(body, facts, live, template), body.title


def _title(notebook: Any) -> str:
    title = notebook["metadata"].get("title")
    return title.strip() if isinstance(title, str) else ""


def _page(body: Body, facts: Mapping[str, Any], live: Live | None, template: str | None) -> str:
    """Return a page with a sanitised body, and a frame for its scripts if there are any."""
    frame = ""
    policy = _SCRIPTS if live and live.fragments else NO_SCRIPTS
    if live and live.fragments:
        content = {"policy": policy, "fragments": live.fragments, "libraries": live.libraries()}
        frame = fill(FRAME, content, None)
    values = {"frame": frame, "token": live.token if live else "", "policy": policy, "colours": colours()}
    return fill(PAGE, {**facts, **values, "title": body.title or facts["name"], "body": body}, template)


def index(facts: Mapping[str, Any], template: str | None = None) -> str:
    """Return the index page."""
    return fill(INDEX, {"policy": NO_SCRIPTS, **facts}, template)


def failure_page(facts: Mapping[str, Any], reason: str) -> str:
    """Return the page for a notebook that could not be rendered."""
    return _page(Body(html=f'<pre class="note">{html.escape(reason)}</pre>'), facts, None, None)


def write_page(
    target: Path, source: Path, facts: Mapping[str, Any], *, scripts: bool, template: str | None = None, **more: str
) -> tuple[str, str]:
    """Write the page of the notebook in the file `source`.

    Return the error that kept the notebook from being rendered, which the page shows, or ""; and the page's title.
    """
    made, problem, title = _made(source, facts, scripts=scripts, template=template, **more)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(made, encoding="utf-8", errors="replace")
    return problem, title


def _made(source: Path, facts: Mapping[str, Any], **options: Any) -> tuple[str, str, str]:
    """Return the page of the notebook in a file, or one that says what went wrong; the problem; the title."""
    try:
        made, title = page(source.read_text(encoding="utf-8"), facts, **options)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        lines = str(error).strip().splitlines() or [""]  # some errors continue with a copy of the notebook
        problem = f"{type(error).__name__}: {lines[0][:_LONGEST_REASON]}"
        return failure_page(facts, type(error).__name__ if facts["code"] == Code.HIDE else problem), problem, ""
    return made, "", title


def main() -> None:
    """Render pages and indexes requested by lines of JSON on standard input, and answer each with a line.

    The process ends at end of file, when nbrun has ended. A browser that is printing is ended too.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    protect_standard_streams()
    answers, sys.stdout = binary(sys.stdout), sys.stderr
    lines: SimpleQueue[str] = SimpleQueue()
    printer = Printer()
    Thread(target=_read, args=(lines, printer), daemon=True).start()
    while line := lines.get():
        answers.write(json.dumps(_answer(json.loads(line), printer)).encode() + b"\n")
        answers.flush()


def _read(lines: "SimpleQueue[str]", printer: Printer) -> None:
    for line in sys.stdin:
        lines.put(line)
    printer.stop()
    lines.put("")


def _answer(asked: Mapping[str, Any], printer: Printer) -> tuple[str, str]:
    target, facts, template = Path(asked["target"]), asked["facts"], asked["template"]
    try:
        if asked["source"] is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(index(facts, template), encoding="utf-8", errors="replace")
            return "", ""
        source, options = Path(asked["source"]), {"template": template, "python": asked["python"]}
        if not asked["printer"]:
            return write_page(target, source, facts, scripts=asked["scripts"], **options)
        is_browser = asked["printer"] != WEASYPRINT
        scripts = asked["scripts"] and is_browser
        made, problem, title = _made(source, facts, scripts=scripts, mathml=is_browser, **options)
        try:
            printer.print_page(made, target, asked["printer"], scripts=scripts)
        except NotDrawn as error:
            made, problem, title = _made(source, facts, **options)
            printer.print_page(made, target, asked["printer"])
            problem = problem or f"{error}; {target.name} shows them without scripts"
        return problem, title
    except OSError as error:
        return f"{target}: {error.strerror}", ""
    except PrintFailed as error:
        return str(error), ""


if __name__ == "__main__":
    main()
