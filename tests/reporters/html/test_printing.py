"""PDF files of executed notebooks."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbrun.core.events import RunFinished
from nbrun.core.results import Outcome
from nbrun.reporters.html import pages, printing
from nbrun.reporters.html.printing import WEASYPRINT, PrintFailed, find_printer
from nbrun.reporters.html.reporter import Html, Look, facts_of
from nbrun.reporters.run_log import RunRecord
from tests.reporters.streams import result
from tests.support.browsers import browser
from tests.support.environments import missing
from tests.support.notebooks import code, markdown, notebook, write_notebook

WIDE = [*range(1000100, 1000122)]
"""The numbers of a table with as many columns as pandas shows at most."""


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def text_of(pdf: Path) -> str:
    reader = shutil.which("pdftotext") or missing("pdftotext", install="poppler-utils, from the system's packages")
    return subprocess.run([reader, "-layout", pdf, "-"], check=True, capture_output=True, text=True).stdout


def printed(target: Path, printer: str, look: Look) -> None:
    lines = {"output_type": "stream", "name": "stdout", "text": "".join(f"line {i} of all\n" for i in range(400))}
    table = "<table><tr>" + "".join(f"<td>{number}</td>" for number in WIDE) + "</tr></table>"
    shown = {"output_type": "display_data", "metadata": {}, "data": {"text/html": table}}
    cells = [markdown("# Weekly sales\n\n[link](https://example.org/) $x^2$"), code("plantedword", outputs=[lines])]
    cells.append(code("1", outputs=[shown]))
    cells.append(code("2", tags=["hide-output"], outputs=[{**lines, "text": "folded away"}]))
    pdfs = Html(None, local=False, look=look, pdf=target, printer=printer)
    pdfs.observe(RunFinished("reports/sales.ipynb", result("reports/sales.ipynb", Outcome.PASSED), notebook(*cells)))
    pdfs.close()


@pytest.mark.browser
def test_a_browser_prints_a_page_with_title_numbers_and_all_lines(tmp_path: Path) -> None:
    printed(tmp_path / "pdf", browser(), Look("hide"))
    made = tmp_path / "pdf" / "reports" / "sales.pdf"
    assert [path for path in (tmp_path / "pdf").rglob("*") if path.is_file()] == [made]
    text = text_of(made)
    assert [i for i in range(400) if f"line {i} of all" not in text] == []
    assert "folded away" in text
    assert [number for number in WIDE if str(number) not in text] == []
    assert "plantedword" not in text
    pages = re.findall(r"(\d+) ?/ ?(\d+)\s*\f", text)
    assert len(pages) > 3
    assert [int(number) for number, _ in pages] == [*range(1, int(pages[0][1]) + 1)]
    assert b"https://example.org/" in made.read_bytes()
    assert b"/Title (Weekly sales)" in made.read_bytes()


TAGS = {
    "": (True, True),
    "hide-input": (False, True),
    "remove-input": (False, True),
    "hide-output": (True, True),
    "remove-output": (True, False),
    "hide-cell": (True, True),
    "remove-cell": (False, False),
}
"""Whether source and output of a cell with a tag are in a PDF file, which cannot unfold anything."""


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["show", "hide"])
def test_tags_remove_cells_sources_and_outputs_from_a_pdf_file(mode: str, tmp_path: Path) -> None:
    cells = []
    for number, tag in enumerate(TAGS):
        said = {"output_type": "stream", "name": "stdout", "text": f"output{number}\n"}
        cells.append(code(f"source{number}", tags=[tag], outputs=[said]))
    pdfs = Html(None, local=False, look=Look(mode), pdf=tmp_path / "tags.pdf", printer=browser())
    pdfs.observe(RunFinished("tags.ipynb", result("tags.ipynb", Outcome.PASSED), notebook(*cells)))
    pdfs.close()
    text = text_of(tmp_path / "tags.pdf")
    found = {tag: (f"source{number}" in text, f"output{number}" in text) for number, tag in enumerate(TAGS)}
    assert found == {tag: (source and mode == "show", output) for tag, (source, output) in TAGS.items()}


def test_weasyprint_prints_a_page_with_formulas_as_pictures(tmp_path: Path) -> None:
    printed(tmp_path / "sales.pdf", WEASYPRINT, Look("hide"))
    text = text_of(tmp_path / "sales.pdf")
    assert [i for i in range(400) if f"line {i} of all" not in text] == []
    assert "x^2" not in text
    assert [number for number in WIDE if str(number) not in text] == []
    assert "folded away" in text


def test_the_printer_is_the_named_browser_or_one_on_the_path_or_weasyprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "_APPLICATIONS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_printer({}) == WEASYPRINT
    with monkeypatch.context() as without:
        without.setattr(printing, "find_spec", lambda _: None)
        assert find_printer({}) is None
    chrome = program(tmp_path / "google-chrome", "exit")
    assert find_printer({}) == chrome
    own = program(tmp_path / "my-browser", "exit")
    assert find_printer({"NBRUN_BROWSER": own}) == own
    with pytest.raises(PrintFailed, match="NBRUN_BROWSER=nothing names no program"):
        find_printer({"NBRUN_BROWSER": "nothing"})


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'no display' >&2; exit 1", "printed nothing: no display"),
        ("exit 0", "printed nothing: it said nothing"),
        ("sleep 600 & sleep 600", "did not print the page in 1 s"),
    ],
)
def test_a_browser_that_does_not_print_is_reported_and_leaves_no_file(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "PRINT_LIMIT", 1.0)
    target = tmp_path / "out" / "page.pdf"
    with pytest.raises(PrintFailed, match=said):
        printing.Printer().print_page("<p>page", target, program(tmp_path / "browser", script))
    assert [*target.parent.iterdir()] == []


@pytest.mark.browser
def test_a_browser_without_a_sandbox_is_started_again_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    script = f"""
    for option; do case $option in --no-sandbox) sandboxed=no;; esac; done
    [ "$sandboxed" ] || {{ echo 'No usable sandbox!' >&2; exit 1; }}
    exec {browser()} "$@"
    """
    printing.Printer().print_page("<p>page", tmp_path / "page.pdf", program(tmp_path / "browser", script))
    assert text_of(tmp_path / "page.pdf").strip() == "page"


LATE = "setTimeout(() => { element.textContent = 'drawn late' }, 50)"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("source", "printer", "shown", "said"),
    [
        (LATE, "", "drawn late", ""),
        ("while (true);", "", "the text", "the scripts of its outputs did not finish in 2 s; a.pdf shows them without"),
        (LATE, WEASYPRINT, "the text", ""),
    ],
    ids=["drawn", "never finished", "WeasyPrint"],
)
def test_a_pdf_file_shows_what_scripts_draw_or_the_output_without_them(
    source: str, printer: str, shown: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "DRAW_LIMIT", 10.0 if source == LATE else 2.0)
    data = {"application/javascript": source, "text/plain": "the text"}
    cells = [code("1", outputs=[{"output_type": "display_data", "metadata": {}, "data": data}]), markdown("* x\n" * 80)]
    write_notebook(tmp_path / "a.ipynb", notebook(*cells))
    facts = {**facts_of(RunRecord("a.ipynb"), result("a.ipynb", Outcome.PASSED), "hide", "show"), "index": ""}
    asked: dict[str, Any] = {"target": str(tmp_path / "a.pdf"), "source": str(tmp_path / "a.ipynb"), "facts": facts}
    asked |= {"scripts": True, "template": None, "printer": printer or browser(), "python": ""}
    problem, _ = pages._answer(asked, printing.Printer())
    text = text_of(tmp_path / "a.pdf")
    assert problem.startswith(said)
    assert bool(problem) is bool(said)
    assert [words for words in ("drawn late", "the text") if words in text] == [shown]
    assert text.count("\f") > 1  # pages of paper


@pytest.mark.browser
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_no_process_of_a_browser_is_left_when_nbrun_is_ended_while_it_prints(
    number: signal.Signals, tmp_path: Path
) -> None:
    write_notebook(tmp_path / "a.ipynb", notebook(*[markdown("word " * 50_000)] * 20))
    mark = tmp_path / "options"
    wrapper = program(tmp_path / "browser", f'echo "$@" >{mark}.new; mv {mark}.new {mark}; exec {browser()} "$@"')
    command = [sys.executable, "-m", "nbrun", "run", "a.ipynb", "--prepare-only", "-o", "out.ipynb", "--pdf", "pdf"]
    running = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "NBRUN_BROWSER": wrapper})
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    profile = next(word for word in mark.read_text().split() if word.startswith("--user-data-dir="))

    def left() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if profile in (one.info["cmdline"] or ())]

    while len(left()) < 3 and time.monotonic() < deadline:  # the browser and the first of its helpers
        time.sleep(0.05)
    running.send_signal(number)
    running.wait(30)
    _, alive = psutil.wait_procs(left(), timeout=30)
    assert (alive, left()) == ([], [])
