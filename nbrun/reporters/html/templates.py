"""Load and fill the templates of pages, of nbrun and of a user (``--html-template``).

A user's folder may contain ``page.html.j2``, ``index.html.j2`` and ``cells.html.j2``, which take the place of nbrun's,
and ``style.css``, which is added to nbrun's style sheet. A template reaches the one that it replaces under ``nbrun/``:
``{% extends "nbrun/page.html.j2" %}``.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    PrefixLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
)

PAGE, INDEX, CELLS, FRAME, STYLE = "page.html.j2", "index.html.j2", "cells.html.j2", "frame.html.j2", "style.css"
REPLACEABLE = (PAGE, INDEX, CELLS, STYLE)
HISTORY, LATEST, REPORTS = "history.html.j2", "latest.html.j2", "reports.html.j2"
NO_SCRIPTS = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data: blob:; "
    "form-action 'none'; base-uri 'none'; frame-src 'none'"
)
"""The Content-Security-Policy of a page without scripts."""


@cache
def loader(folder: str | None) -> BaseLoader:
    """Return the loader of the templates, a user's folder first."""
    own = PackageLoader("nbrun.reporters.html")
    users = [FileSystemLoader(folder)] if folder else []
    return ChoiceLoader([*users, own, PrefixLoader({"nbrun": own})])


def fill(name: str, values: Mapping[str, Any], folder: str | None) -> str:
    """Return a template with `values` filled in."""
    style = Path(folder, STYLE).read_text(encoding="utf-8") if folder and Path(folder, STYLE).is_file() else ""
    return str(_environment(folder).get_template(name).render({**values, "style": style}))


@cache
def _environment(folder: str | None) -> Environment:
    return Environment(loader=loader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def problem_of(folder: Path, samples: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong with a user's folder, or an empty text; `samples` are values for each template."""
    there = [name for name in REPLACEABLE if (folder / name).is_file()]
    if not there:
        return f"there is none of {', '.join(REPLACEABLE)} in it"
    try:
        for name in there:
            text = (folder / name).read_text(encoding="utf-8")
            if name == STYLE and "</style" in text.lower():
                return f"{STYLE}: a style sheet cannot contain </style"
            if name != STYLE:
                _environment(str(folder)).parse(text, name, str(folder / name))
        for name, values in samples.items():
            fill(name, values, str(folder))
    except TemplateSyntaxError as error:
        return f"{error.name or error.filename}, line {error.lineno}: {error.message}"
    except (TemplateError, OSError, UnicodeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
