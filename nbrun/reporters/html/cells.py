"""Render the cells of a notebook as HTML with nbconvert, and collect the headings.

nbconvert's template ``lab`` renders them. Our template on top of it, ``cells.html.j2``, folds parts away and writes
below an output what the page cannot draw. A page needs more of the text than its HTML: the headings, of which the
table of contents and the title are made, and the formulas, which become MathML or pictures.
"""

import html
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import BaseLoader, pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from nbrun.reporters.html.bundles import SHOWN
from nbrun.reporters.html.formulas import formula, text_with_formulas

_ODD_ID = re.compile(r"[^\w-]+")
_TAGS = re.compile(r'<img alt="([^"]*)"[^>]*>|<[^>]*>')
"""A tag; that of a formula as a picture has the formula's source."""
_LONGEST_TITLE = 200


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of the page, with its level from 1."""

    level: int
    id: str
    text: str


@dataclass
class Body:
    """The cells as HTML, and their headings. ``title`` is the page's; an equal first heading is omitted.

    Without a title, the first heading becomes the title and is omitted too, because the page's head shows it. Without
    ``mathml`` formulas are pictures.
    """

    title: str = ""
    mathml: bool = True
    html: str = ""
    title_id: str = ""
    headings: list[Heading] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)
    _seen: bool = False

    def heading(self, level: int, markup: str) -> str:
        """Record a heading and return it as HTML."""
        text = html.unescape(_TAGS.sub(r"\1", markup)).strip()
        name = self._id(text)
        is_first, self._seen = not self._seen, True
        if is_first and self.title in ("", text):
            self.title, self.title_id = text[:_LONGEST_TITLE], name
            return ""
        self.headings.append(Heading(level, name, text))
        return f'<h{level} id="{html.escape(name)}">{markup}</h{level}>\n'

    def _id(self, text: str) -> str:
        """Return an anchor in Jupyter's form, with a number if it is not unique."""
        name = wanted = re.sub(r"\s+", "-", text) or "section"
        number = 2
        while name in self._ids:
            name, number = f"{wanted}-{number}", number + 1
        self._ids.add(name)
        return name


def render(notebook: Any, body: Body, loader: BaseLoader) -> None:
    """Render the cells of a notebook into `body`, with the templates of `loader`."""
    exporter = _Exporter(
        config=Config({"NbConvertBase": {"display_data_priority": SHOWN}}),
        template_name="lab",
        template_file="cells.html.j2",
        extra_loaders=[loader],
        embed_images=False,
    )
    exporter.body = body
    body.html, _ = exporter.from_notebook_node(notebook)


class _Exporter(HTMLExporter):
    body: Body

    def default_filters(self) -> Any:
        yield from super().default_filters()
        yield "markdown2html", self.markdown
        yield "formulas", self.formulas

    def formulas(self, text: str) -> str:
        return text_with_formulas(text, mathml=self.body.mathml)

    @pass_context
    def markdown(self, context: Any, source: str) -> str:
        renderer = _Renderer(escape=False, attachments=context.get("cell", {}).get("attachments", {}))
        renderer.body = self.body
        return str(MarkdownWithMath(renderer=renderer).render(source))


class _Renderer(IPythonRenderer):
    body: Body

    def heading(self, text: str, level: int, **_: Any) -> str:
        return self.body.heading(level, text)

    def block_math(self, body: str) -> str:
        return self._formula(body, f"$${body}$$", displayed=True)

    def inline_math(self, body: str) -> str:
        return self._formula(body, f"${body}$", displayed=False)

    def latex_environment(self, name: str, body: str) -> str:
        written = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return self._formula(written, written, displayed=True)

    def _formula(self, source: str, written: str, *, displayed: bool) -> str:
        return formula(source, displayed=displayed, written=written, mathml=self.body.mathml)

    def block_mermaidjs(self, code: str) -> str:
        return f'<pre class="mermaid">{html.escape(code.strip())}</pre>'


@cache
def colours() -> dict[str, str]:
    """Return the style sheets for highlighted code."""
    names = {"light": "friendly", "dark": "github-dark"}
    return {name: str(HtmlFormatter(style=style).get_style_defs(".highlight")) for name, style in names.items()}
