"""The exact content of pages."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.events import RunFinished
from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.results import CellError, CellOutcome, CellResult, Outcome, Problem
from nbrun.reporters.html.pages import failure_page, page, write_page
from nbrun.reporters.html.reporter import Html, Look, facts_of
from nbrun.reporters.run_log import RunRecord
from tests.reporters.streams import result
from tests.support.notebooks import code, markdown, notebook

WORDS = [f"planted{number:02}word" for number in range(20)]
ALLOWED = {
    "output_type": "error",
    "ename": "KeyError",
    "evalue": "missing",
    "traceback": [f"----> 1 d['k'] # {WORDS[7]}"],
}


def report() -> dict[str, Any]:
    """A notebook with words in its sources, comments, parameters, metadata, warnings and tracebacks."""
    stderr = {"output_type": "stream", "name": "stderr", "text": f"cell.py:1: UserWarning: old\n  {WORDS[6]} = 1\n"}
    shown = {"output_type": "execute_result", "execution_count": 7, "metadata": {}, "data": {"text/plain": "4711"}}
    styled = {**shown, "metadata": {WORDS[13]: {"x": WORDS[14]}}}
    tagged = code(f"{WORDS[9]}()", tags=[WORDS[10], "hide-input"], outputs=[shown], count=7)
    tagged["metadata"] |= {"jupyter": {"source_hidden": True}, WORDS[11]: {"x": WORDS[12]}}
    cells = [
        markdown("# Weekly sales\n\nRevenue $r = p \\cdot q$ by region."),
        code(f"{WORDS[0]} = 'EU'  # {WORDS[1]}", tags=["parameters"]),
        code(f"{WORDS[2]} = '{WORDS[3]}'", tags=["injected-parameters"]),
        code(f"import pandas  # {WORDS[4]}\n'''{WORDS[5]}'''", outputs=[stderr, styled], count=3),
        code(f"d['k'] # {WORDS[7]}", tags=["raises-exception"], outputs=[ALLOWED]),
        tagged,
        code(f"%%html\n<b>{WORDS[15]}</b>", outputs=[], count=9),
    ]
    document = notebook(*cells)
    document["metadata"] = {
        "kernelspec": {"name": WORDS[16], "display_name": WORDS[17], "language": WORDS[18]},
        "papermill": {"parameters": {"x": WORDS[19]}},
        "language_info": {"name": "python"},
    }
    return document


def made(document: dict[str, Any], outcome: Outcome = Outcome.PASSED, cells: Any = (), **more: Any) -> str:
    look, scripts = Look(more.pop("code", None), more.pop("failures", "show")), more.pop("scripts", False)
    ended = result("reports/sales.ipynb", outcome, cells, **more)
    run = RunRecord("reports/sales.ipynb")
    facts = facts_of(run, ended, look.code_of(report_mode=False), look.failures)
    return page(notebook_text(document), {**facts, "index": ""}, scripts=scripts)[0]


@pytest.mark.parametrize("scripts", [False, True])
def test_without_code_none_of_it_is_in_any_byte_of_the_page(scripts: bool) -> None:
    text = made(report(), code="hide", scripts=scripts)
    assert [word for word in [*WORDS, "python3", "In&nbsp;[", "Out["] if word in text] == []
    for kept in ("<h1", "Weekly sales", "<math>", "4711", "KeyError: missing"):
        assert kept in text


@pytest.mark.parametrize("code", ["show", "fold"])
def test_with_code_it_is_there(code: str) -> None:
    text = made(report(), code=code)
    assert [word for word in (*WORDS[:6], WORDS[9], "python3", "Out[7]") if word not in text] == []
    assert text.count("<summary>Show code</summary>") == (6 if code == "fold" else 1)


def failed() -> tuple[dict[str, Any], list[CellResult]]:
    document = report()
    error = {"output_type": "error", "ename": "ValueError", "evalue": "evalueword", "traceback": ["----> 1 tracedword"]}
    document["cells"].append({**code("failingword()", outputs=[error]), "id": "bad"})
    problem = CellError("ValueError", "evalueword", ("tracedword",))
    return document, [CellResult(7, "bad", CellOutcome.FAILED, 8, 0.1, problem, number=7)]


@pytest.mark.parametrize("code", ["show", "fold", "hide"])
@pytest.mark.parametrize("failures", ["show", "hide"])
def test_a_failed_cell_is_shown_with_its_traceback_unless_that_is_hidden(code: str, failures: str) -> None:
    document, cells = failed()
    message = Problem("ValueError: evalueword in cell 7 of 7", cell=7)
    text = made(document, Outcome.FAILED, cells, problem=message, code=code, failures=failures)
    assert ("failingword" in text) == (failures == "show" or code != "hide")
    assert ("tracedword" in text) == ("evalueword" in text) == (failures == "show")
    assert ("This cell failed." in text) == (failures == "hide")
    if code == "hide":
        assert [word for word in WORDS if word in text] == []
    assert "failed" in text


def test_report_mode_hides_the_code_and_an_explicit_choice_comes_first() -> None:
    assert Look().code_of(report_mode=True) == "hide"
    assert Look().code_of(report_mode=False) == "show"
    assert Look("show").code_of(report_mode=True) == "show"


def test_the_event_of_a_run_in_report_mode_makes_a_page_without_code(tmp_path: Path) -> None:
    pages = Html(tmp_path / "html", local=False)
    for name, report_mode in (("shown.ipynb", False), ("hidden.ipynb", True)):
        ended = result(name, Outcome.PASSED, warnings=["kernel python3"])
        pages.observe(RunFinished(name, ended, report(), report_mode))
    pages.close()
    assert WORDS[0] in (tmp_path / "html" / "shown.html").read_text()
    assert WORDS[0] not in (tmp_path / "html" / "hidden.html").read_text()
    index = (tmp_path / "html" / "index.html").read_text()
    assert '<a href="hidden.html">Weekly sales</a>' in index
    assert index.count("python3") == 2  # those of the run that shows them


def test_the_title_is_the_metadata_or_the_first_heading_or_the_name() -> None:
    cells = [markdown("intro\n\n## First *one* $x$\n\ntext"), markdown("# Second")]
    text = made(notebook(*cells))
    assert "<title>First one x</title>" in text
    assert text.count("First") == 3  # the title, the head and its anchor
    document = notebook(*cells)
    document["metadata"]["title"] = "<Given>"
    text = made(document)
    assert "<title>&lt;Given&gt;</title>" in text
    assert '<h2 id="First-one-x">' in text
    assert "<title>reports/sales.ipynb</title>" in made(notebook(code("1")))
    failing = made(notebook(*cells), Outcome.TIMED_OUT)
    assert "<title>First one x · timed out</title>" in failing


def test_the_contents_link_to_headings_of_cells_and_outputs() -> None:
    printed = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": "## Same"}}
    text = made(notebook(markdown("# T\n\n## A & B"), markdown("## Same"), code("1", outputs=[printed])))
    links = ["#A-%26-B", "#Same", "#Same-2"]
    assert [link for link in links if f'<a href="{link}">' in text] == links
    assert [name for name in ("A-&amp;-B", "Same", "Same-2") if f'<h2 id="{name}">' in text] == [
        "A-&amp;-B",
        "Same",
        "Same-2",
    ]
    assert "Contents" not in made(notebook(markdown("# T\n\n## A\n\n## B")))


def test_the_time_is_in_the_zone_of_the_report() -> None:
    ended = replace(result("a.ipynb", Outcome.PASSED), started="2026-10-24T22:30:00.000+00:00")
    for timezone, shown in (("", "2026-10-24 22:30 UTC"), ("Europe/Berlin", "2026-10-25 00:30 CEST")):
        facts = facts_of(RunRecord("a.ipynb"), ended, "hide", "show", timezone)
        assert f">{shown}</time>" in page(notebook_text(notebook()), {**facts, "index": ""})[0]


def test_parameters_are_a_table_at_the_top() -> None:
    text = made(report(), code="hide", parameters={"day": "<b>", "n": 3})
    assert '<tr><th scope="row">day</th><td>&lt;b&gt;</td></tr>' in text
    assert '<tr><th scope="row">n</th><td>3</td></tr>' in text


def test_an_output_that_a_page_cannot_draw_says_so_in_its_place() -> None:
    plot = {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.plotly.v1+json": {"data": []}}}
    text = made(notebook(code("1", outputs=[plot])))
    assert '<p class="missing">This Plotly chart needs scripts; it has no other form.</p>' in text


def test_a_page_that_could_not_be_made_quotes_no_code_where_it_is_hidden(tmp_path: Path) -> None:
    source = tmp_path / "bad.ipynb"
    source.write_text(f"not json {WORDS[0]}")
    run, ended = RunRecord("bad.ipynb"), result("bad.ipynb", Outcome.PASSED)
    for mode in ("show", "hide"):
        facts = {**facts_of(run, ended, mode, "show"), "index": ""}
        problem, _ = write_page(tmp_path / f"{mode}.html", source, facts, scripts=False)
        assert problem
        assert (WORDS[0] in (tmp_path / f"{mode}.html").read_text()) == (mode == "show")
    assert "reason" in failure_page({**facts_of(run, ended, "show", "show"), "index": ""}, "reason")
