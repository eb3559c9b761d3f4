"""The documentation agrees with the code."""

import re
import subprocess
import sys
from pathlib import Path

import nbrun
from nbrun.core.execution.interruption import INTERRUPT_GRACE, SIGNAL_GRACE
from nbrun.core.results import BatchResult, CellOutcome, CellResult, NotebookResult, Outcome
from nbrun.errors import ExitCode

ROOT = Path(__file__).parents[2]


def test_the_command_line_page_is_generated_from_the_current_help() -> None:
    # In a process of its own: click remembers the help option with which a command was first looked at.
    script = "import runpy, sys; sys.stdout.write(runpy.run_path('docs/reference.py')['page']())"
    page = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    assert (ROOT / "docs" / "cli.md").read_text() == page, "run python docs/reference.py"


def test_the_exit_codes_of_the_documentation_are_those_of_the_code() -> None:
    table = (ROOT / "docs" / "cli.md").read_text().split("## Exit codes")[1].split("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [code.value for code in ExitCode]


def test_the_json_page_names_every_field_of_the_result_and_no_other() -> None:
    cell = CellResult(0, None, CellOutcome.PASSED)
    run = NotebookResult("", "", None, None, Outcome.PASSED, "", 0.0, [cell]).as_dict()
    page = (ROOT / "docs" / "json.md").read_text()
    run_table, rest = page.split("\nA cell:\n")
    cell_table, batch_table = rest.split("\n## A batch\n")
    assert re.findall(r"^\| `(\w+)` \|", run_table, re.MULTILINE) == list(run)
    assert re.findall(r"^\| `(\w+)` \|", cell_table, re.MULTILINE) == list(cell.as_dict())
    assert re.findall(r"^\| `(\w+)` \|", batch_table, re.MULTILINE) == list(BatchResult("", "", 0.0).as_dict())


def test_the_json_page_names_every_outcome() -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    assert [outcome for outcome in (*Outcome, *CellOutcome) if f"`{outcome.value}`" not in page] == []


def test_links_between_pages_exist() -> None:
    pages = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_the_package_and_its_stub_export_the_same_names() -> None:
    stub = (ROOT / "nbrun" / "__init__.pyi").read_text()
    assert sorted(re.findall(r"import (\w+) as \1", stub)) == sorted(nbrun.__all__)
    assert all(getattr(nbrun, name) is not None for name in nbrun.__all__)


def test_the_architecture_page_names_every_module_and_no_other() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().split("```text\n")[1].split("```")[0]
    modules = [path.name for path in (ROOT / "nbrun").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(re.findall(r"^ +(\w+\.py) ", tree, re.MULTILINE)) == sorted(modules), "run python docs/reference.py"
    assert "…" not in tree, "a module's docstring begins with a sentence of at most 90 characters"


def test_no_page_installs_the_other_distribution_named_nbrun() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "nbrun").rglob("*.py")]
    assert [page.name for page in pages if re.search(r"pip install\s+['\"]?nbrun\b", page.read_text())] == []


def test_the_documented_times_of_an_interrupted_cell_are_those_of_the_code() -> None:
    page = " ".join((ROOT / "docs" / "execution.md").read_text().split())
    grace = f"{INTERRUPT_GRACE:g} s"
    assert f"has {grace} to end. It is then interrupted again. If it has not ended {grace} later" in page
    assert f"the running cell, which then has {SIGNAL_GRACE:g} s to end" in page
