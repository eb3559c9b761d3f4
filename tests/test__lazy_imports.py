"""Postponed imports are not executed early and behave the same afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.notebooks import notebook, write_notebook


def run(script: str) -> str:
    """Run in an interpreter of its own, which has imported nothing yet; returns what it prints."""
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


PUT_OFF = "from nbrun._lazy_imports import put_off_imports; put_off_imports()"


@pytest.mark.parametrize("library", ["nbformat", "jupyter_server.serverapp"])
def test_importing_the_libraries_builds_no_grammar_and_no_calendar(library: str) -> None:
    loaded = f"import sys, {library}; print('rfc3987_syntax.syntax_helpers' in sys.modules, 'arrow.api' in sys.modules)"
    assert run(loaded) == "True True"
    assert run(f"{PUT_OFF}; {loaded}") == "False False"


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
    as_it_is, put_off = run(CHECK).splitlines(), run(f"{PUT_OFF}\n{CHECK}").splitlines()
    assert put_off == as_it_is
    assert len(put_off) == len(FORMATS)
    assert {line.split()[1] for line in put_off} == {"False"}


def test_names_of_the_grammar_are_found_by_every_kind_of_import() -> None:
    script = f"""
{PUT_OFF}
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
from nbrun._lazy_imports import put_off_imports
put_off_imports()
import jsonschema
print(jsonschema.FormatChecker().conforms("no iri", "iri"))
"""
    assert run(script) == "True"


def test_importing_httpx_imports_no_command_line_and_it_can_be_had_all_the_same() -> None:
    script = f"""
import sys
{PUT_OFF}
import httpx
print("rich" in sys.modules, callable(httpx.main))
from httpx._main import download_response
print(type(download_response).__name__, "rich" in sys.modules)
"""
    assert run(script).split() == ["False", "True", "function", "True"]


def test_the_client_reads_and_writes_notebooks_without_nbformat() -> None:
    script = """
import sys, nbrun.api.functions
from nbrun.core.notebook.file_reading import notebook_content
from nbrun.core.notebook.file_writing import notebook_text
content = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
print(notebook_content(notebook_text(content).encode(), "a.ipynb") == content, "nbformat" in sys.modules)
"""
    assert run(script).split() == ["True", "False"]


def test_a_program_that_runs_notebooks_is_left_as_it_was(tmp_path: Path) -> None:
    """Neither importing nbrun nor a run changes what the program imports, or what else of it is everybody's."""
    write_notebook(tmp_path / "a.ipynb", notebook("6 * 7"))
    script = """
import logging, os, signal, sys, threading, warnings
import asyncio

def everybodys():
    return {
        "finders": [one for one in sys.meta_path if type(one).__module__ != "six"],  # nbformat brings six
        "path hooks": list(sys.path_hooks), "path": list(sys.path),
        "warnings": list(warnings.filters), "environment": dict(os.environ), "folder": os.getcwd(),
        "hooks": (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook, sys.gettrace()),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "logging": (logging.root.level, list(logging.root.handlers)), "streams": (sys.stdout, sys.stderr, sys.stdin),
        "loops": type(asyncio.get_event_loop_policy()), "switches": (sys.getswitchinterval(), sys.getrecursionlimit()),
    }

before, modules = everybodys(), dict(sys.modules)
import nbrun
result = nbrun.run("a.ipynb", output="b.ipynb")
delivered = []
nbrun.run("a.ipynb", deliver=delivered.append)
assert result.exit_code == 0 and delivered, result
after = everybodys()
print("changed:", [name for name in before if before[name] != after[name]])
print("replaced:", [name for name, module in modules.items() if sys.modules.get(name) is not module])
others = [one for one in threading.enumerate() if one is not threading.main_thread()]
for one in others:
    one.join(10)  # a thread that has told of the server's end, or has delivered, may have some steps left
print("threads:", [one.name for one in others if one.is_alive()])
import httpx, nbformat
new = {name: module for name, module in sys.modules.items() if name not in modules and module is not None}
print("no modules:", [name for name, one in new.items() if type(one).__module__.startswith("nbrun")
                      or (type(one) is type(sys) and getattr(one, "__spec__", None) is None)])
print("unexecuted:", [name for name in ("httpx._main", "rfc3987_syntax", "rfc3986_validator")
                      if name in sys.modules and not getattr(sys.modules[name], "__file__", None)])
import rfc3987_syntax.syntax_helpers
print(type(nbformat).__name__, type(httpx.main).__module__, rfc3987_syntax.parse is rfc3987_syntax.syntax_helpers.parse)
"""
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [
        "changed: []",
        "replaced: []",
        "threads: []",
        "no modules: []",
        "unexecuted: []",
        "module click.core True",
    ]


STARTING = """
import atexit, runpy, sys
def look(event, args):
    if event == "subprocess.Popen" and "process.boot" in str(args[1]):
        print("started with", *sys.modules)
        early.update(sys.modules)
early = set()
def dataclasses():
    for name, module in sys.modules.items():
        if name.startswith("nbrun.") and name not in early:
            for found in vars(module).values():
                if isinstance(found, type) and found.__module__ == name and "__dataclass_fields__" in vars(found):
                    yield found.__name__
sys.addaudithook(look)
atexit.register(lambda: print("dataclasses", *dataclasses()))
atexit.register(lambda: print("ended with", *sys.modules))
sys.argv = ["nbrun", *sys.argv[1:]]
runpy.run_module("nbrun", {}, "__main__")
"""


@pytest.mark.parametrize(
    "options",
    ["", "-o b.ipynb -p x 1 --allow-new --junit r.xml", "--matrix x=1,2 --allow-new --no-save"],
    ids=["plain", "with options", "batch"],
)
def test_the_command_starts_the_private_server_before_it_imports_what_a_run_needs(tmp_path: Path, options: str) -> None:
    write_notebook(tmp_path / "a.ipynb", notebook("6 * 7"))
    command = [sys.executable, "-c", STARTING, "run", "a.ipynb", *options.split()]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    [line] = [line for line in process.stdout.splitlines() if line.startswith("started with")]
    loaded = set(line.split())
    assert "nbrun.local_server.launcher" in loaded
    late = (
        "httpx",
        "websockets",
        "tenacity",
        "nbformat",
        "rich",
        "msgspec",
        "nbrun.api",
        "nbrun.core.results",
        "nbrun.runner.batch.run",
        "nbrun.runner.run",
    )
    assert loaded.isdisjoint(late), loaded.intersection(late)
    [line] = [line for line in process.stdout.splitlines() if line.startswith("ended with")]
    for_stores = {
        "obstore",
        "boto3",
        "nbrun.cli.stored_reports",
        "nbrun.storage.in_object_store",
        "nbrun.storage.object_stores.base",
    }
    assert for_stores.isdisjoint(line.split())
    assert not {"nbrun.engines", "nbrun.runner.sending", "nbrun.core.batch.parcels"}.intersection(line.split())


NOT_OF_ONE_NOTEBOOK = (
    "idna.core",
    "nbformat",
    "nbrun.api.functions",
    "nbrun.core.batch.cache_key",
    "nbrun.core.batch.replay",
    "nbrun.core.parameters.literals.registry",
    "nbrun.core.planning.preview",
    "nbrun.reporters.junit",
    "nbrun.runner.batch.cache",
    "nbrun.runner.batch.resume",
    "nbrun.runner.prepare_only",
    "nbrun.storage.in_memory",
    "nbrun.local_server.process.zygote",
    "nbrun.storage.local",
    "pathspec",
    "tornado.ioloop",
)
HIDING = {"Answer", "ContentsModel", "HttpOptions", "KernelSpec", "NotebookResult", "Request", "Server"}
"""Dataclasses with fields that are not shown or compared, which a Struct cannot have."""


def test_a_run_of_one_notebook_imports_only_what_it_needs_and_defines_few_dataclasses(tmp_path: Path) -> None:
    write_notebook(tmp_path / "a.ipynb", notebook("6 * 7"))
    command = [sys.executable, "-c", STARTING, "run", "-q", "a.ipynb", "-o", "b.ipynb"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    told = {line.split()[0]: line.split()[1:] for line in process.stdout.splitlines()}
    assert "nbrun.runner.run" in told["ended"]
    assert not set(told["ended"]).intersection(NOT_OF_ONE_NOTEBOOK)
    assert set(told["dataclasses"]) == HIDING


def test_threads_that_use_a_module_at_once_all_get_the_whole_of_it() -> None:
    script = f"""
{PUT_OFF}
import sys, threading
sys.setswitchinterval(1e-6)
import arrow
before = 'arrow.api' in sys.modules
ready, found = threading.Barrier(8), []
def use():
    ready.wait()
    try:
        found.append(callable(arrow.get))
    except AttributeError as error:
        found.append(error)
threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(before, found == [True] * 8, type(arrow).__name__)
"""
    assert run(script) == "False True module"


def test_the_command_line_does_not_load_what_few_runs_need() -> None:
    late = ("tempfile", "random", "httpx", "websockets", "nbformat", "rich", "nbrun.publishing.publish")
    assert run(f"import sys, nbrun.cli.run; print([name for name in {late} if name in sys.modules])") == "[]"
