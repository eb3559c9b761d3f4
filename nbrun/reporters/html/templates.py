"""Load and fill the templates of pages; the only importer of jinja2 with ``cells``."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined

PAGE, INDEX, FRAME = "page.html.j2", "index.html.j2", "frame.html.j2"


@cache
def loader() -> BaseLoader:
    """Return the loader of the templates."""
    return PackageLoader("nbrun.reporters.html")


def fill(name: str, values: Mapping[str, Any]) -> str:
    """Return a template with `values` inserted."""
    return str(_environment().get_template(name).render(values))


@cache
def _environment() -> Environment:
    return Environment(loader=loader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
