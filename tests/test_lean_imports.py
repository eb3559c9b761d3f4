"""What is put off at import is not built, and gives the same answers when it is asked for after all."""

import subprocess
import sys

import pytest


def run(script: str) -> str:
    """Run in an interpreter of its own, which has imported nothing yet; give what it prints."""
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("library", ["nbformat", "jupyter_server.serverapp"])
def test_importing_the_libraries_builds_no_grammar_and_no_calendar(library: str) -> None:
    loaded = f"import sys, {library}; print('rfc3987_syntax.syntax_helpers' in sys.modules, 'arrow.api' in sys.modules)"
    assert run(loaded) == "True True"
    assert run(f"import nbrun.lean_imports; {loaded}") == "False False"


FORMATS = [
    ("uri", "http://example.org/x", "no uri"),
    ("uri-reference", "x/y", "no reference: <>"),
    ("iri", "http://example.org/\u00fc", "no iri"),
    ("iri-reference", "\u00fc/x", "no reference: <>"),
    ("duration", "P1Y2M", "soon"),
    ("duration", "P2020-01-01T00:00:00", "P2020-99-01T00:00:00"),
]
CHECK = f"""
import os, jsonschema
conforms = jsonschema.FormatChecker().conforms
for name, *texts in {FORMATS!r}:
    # In a process of its own, in which no other format has been asked for.
    if os.fork() == 0:
        print(*(conforms(text, name) for text in texts), flush=True)
        os._exit(0)
    os.wait()
"""


def test_formats_are_checked_all_the_same() -> None:
    as_it_is, put_off = run(CHECK).splitlines(), run(f"import nbrun.lean_imports\n{CHECK}").splitlines()
    assert put_off == as_it_is
    assert len(put_off) == len(FORMATS)
    assert {line.split()[1] for line in put_off} == {"False"}


def test_names_of_the_grammar_are_found_by_every_kind_of_import() -> None:
    script = """
import nbrun.lean_imports
import rfc3987_syntax
from rfc3987_syntax import is_valid_syntax_iri
from rfc3987_syntax.utils import load_grammar
print(rfc3987_syntax.parse("iri", "http://a.b/").data, is_valid_syntax_iri("http://a.b/"))
try:
    rfc3987_syntax.no_such_name
except AttributeError:
    print("absent")
"""
    assert run(script).split() == ["iri", "True", "absent"]


def test_nothing_happens_where_the_libraries_are_absent() -> None:
    script = """
import sys
sys.modules["rfc3987_syntax"] = None
sys.modules["arrow"] = None
import nbrun.lean_imports, jsonschema
print(jsonschema.FormatChecker().conforms("no iri", "iri"))
"""
    assert run(script) == "True"


def test_importing_httpx_imports_no_command_line_and_it_can_be_had_all_the_same() -> None:
    script = """
import sys
import nbrun.lean_imports
import httpx
print("rich" in sys.modules, callable(httpx.main))
from httpx._main import download_response
print(type(download_response).__name__, "rich" in sys.modules)
"""
    assert run(script).split() == ["False", "True", "function", "True"]


def test_the_client_reads_notebooks_without_nbformat_until_it_writes_one_itself() -> None:
    script = """
import sys, nbrun.api
print("jsonschema" in sys.modules)
from nbrun.core.notebook_text import notebook_text
print(len(notebook_text({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})))
"""
    assert run(script).split() == ["False", "72"]


def test_threads_that_use_a_module_at_once_all_get_the_whole_of_it() -> None:
    script = """
import nbrun.lean_imports, sys, threading
sys.setswitchinterval(1e-6)
import nbformat
before = 'nbformat.v4' in sys.modules
ready, found = threading.Barrier(8), []
def use():
    ready.wait()
    try:
        found.append(callable(nbformat.writes))
    except AttributeError as error:
        found.append(error)
threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(before, found == [True] * 8, type(nbformat).__name__)
"""
    assert run(script) == "False True module"
