"""A user's templates and style sheet."""

from pathlib import Path

import pytest

from nbrun.core.events import RunFinished
from nbrun.core.results import Outcome
from nbrun.reporters.html.reporter import Html, Look, template_problem
from tests.reporters.streams import result
from tests.support.notebooks import code, markdown, notebook

FILES = {
    "page.html.j2": """
{% extends "nbrun/page.html.j2" %}
{% block footer %}<footer>{{ name }} of ACME</footer>{% endblock %}
""",
    "index.html.j2": """
{% extends "nbrun/index.html.j2" %}
{% block header %}<h1>{{ rows|length }} by ACME</h1>{% endblock %}
""",
    "cells.html.j2": """
{%- extends "nbrun/cells.html.j2" -%}
{% block stream %}<pre class="own">{{ output.text }}</pre>{% endblock %}
""",
    "style.css": "h1 { color: rebeccapurple }",
}


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_templates_of_a_user_extend_those_of_nbrun(tmp_path: Path) -> None:
    own = folder(tmp_path / "own", **FILES)
    assert template_problem(own) == ""
    pages = Html(tmp_path / "html", local=False, look=Look(template=own))
    stream = {"output_type": "stream", "name": "stdout", "text": "printed"}
    document = notebook(markdown("# Sales"), code("1", outputs=[stream]))
    pages.observe(RunFinished("a.ipynb", result("a.ipynb", Outcome.PASSED), document))
    pages.close()
    page, index = ((tmp_path / "html" / name).read_text() for name in ("a.html", "index.html"))
    for text in ("<footer>a.ipynb of ACME</footer>", "rebeccapurple", '<pre class="own">printed</pre>', ">Sales</h1>"):
        assert text in page
    assert "<h1>1 by ACME</h1>" in index
    assert "rebeccapurple" in index


def test_a_style_sheet_alone_is_enough(tmp_path: Path) -> None:
    assert template_problem(folder(tmp_path / "own", **{"style.css": "b {}"})) == ""


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("other.txt", "", "there is none of page.html.j2, index.html.j2, cells.html.j2, style.css in it"),
        ("page.html.j2", "<p>\n{% if %}", "page.html.j2, line 2: Expected an expression"),
        ("page.html.j2", "{{ nothing }}", "UndefinedError: 'nothing' is undefined"),
        ("page.html.j2", '{% extends "other.j2" %}', "TemplateNotFound: other.j2"),
        ("index.html.j2", "{{ rows[5].name }}", "UndefinedError"),
        ("cells.html.j2", "{% block x %}", "cells.html.j2, line 1: "),
        ("style.css", "</STYLE><script>", "style.css: a style sheet cannot contain </style"),
    ],
)
def test_what_is_wrong_with_a_folder_is_found_before_the_run(
    name: str, text: str, problem: str, tmp_path: Path
) -> None:
    assert template_problem(folder(tmp_path / "own", **{name: text})).startswith(problem)
