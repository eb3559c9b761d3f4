"""A kernel's process has the same properties as under nbclient.

What may differ is listed in :data:`ALLOWED`, each with its reason; everything else must be the same, for a forked
kernel and for one that is started by itself.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support import process_properties
from tests.support.notebooks import assert_exit, notebook, read_notebook, run_nbrun, write_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the properties are read from /proc")

NBCLIENT = """
import sys
sys.modules["rfc3987_syntax"] = None  # the grammar of a format that no notebook has takes a second
import nbformat
from nbclient import NotebookClient
document = nbformat.read(sys.argv[1], 4)
NotebookClient(document, resources={"metadata": {"path": "."}}).execute()
nbformat.write(document, sys.argv[2])
"""

ALLOWED = {
    "command line": "nbrun's changes to ipykernel come with the command: the kernel's environment need not have nbrun. "
    "A forked kernel has that of the private server.",
    "environment.JPY_SESSION_NAME": "Jupyter Server names the notebook here; nbclient has no server.",
    "environment of the program": "The program of a forked kernel was started as the private server.",
    "session": "As JPY_SESSION_NAME, which ipykernel puts into the notebook's names.",
    "names in __main__": "As JPY_SESSION_NAME.",
    "hidden names": "As JPY_SESSION_NAME.",
    "names in builtins": "debugpy adds execfile and runfile; it is imported only when the notebook does.",
    "modules": "debugpy and what it imports are left out, since they take as long as all others together. A forked "
    "kernel has in addition what the server and kernels both import.",
    "connection": "Unix sockets in a private folder instead of ports on loopback, which anybody may connect to.",
    "IPython's callbacks.pre_execute": "nbrun's own: ipykernel's last traceback is forgotten before each cell.",
    "death signal": "A kernel ends with the server, also when that is killed.",
    "functions at exit": "debugpy's is missing.",
    "frozen objects": "What a forked kernel was forked with is not looked through for garbage, so it stays shared.",
    "stack below a cell": "nbrun's own lines at the bottom: they import ipykernel, which the launcher does otherwise.",
}


def described(path: Path) -> dict[str, Any]:
    [cell] = read_notebook(path)["cells"]
    text = "".join(output["text"] for output in cell["outputs"])
    properties: dict[str, Any] = json.loads(text)
    return properties


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= {f"{name}.{inner}": value for inner, value in differences(a, b).items()}
        elif a != b:
            found[name] = (a, b)
    return found


@cache
def clean_environment() -> Mapping[str, str]:
    ours = ("PYTEST_", "COV_", "NBRUN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def write_probe(folder: Path) -> None:
    source = f"{inspect.getsource(process_properties)}\nprint(report(get_ipython()))"
    write_notebook(folder / "probe.ipynb", notebook(source))


def run_under_nbclient(folder: Path, *options: str, source: str = NBCLIENT, **more: str) -> dict[str, Any]:
    words = [sys.executable, *options, "-c", source, "probe.ipynb", "expected.ipynb"]
    subprocess.run(
        words, cwd=folder, env={**clean_environment(), **more}, check=True, timeout=100, stdin=subprocess.DEVNULL
    )
    return described(folder / "expected.ipynb")


def run_under_nbrun(folder: Path, *options: str, **more: str) -> dict[str, Any]:
    subprocess.run(
        [sys.executable, "-m", "nbrun", "run", folder / "probe.ipynb", "-o", folder / "executed.ipynb", *options],
        cwd=folder.parent,  # not the kernel's: what was imported before the fork may have kept it
        env={**clean_environment(), **more},
        check=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    return described(folder / "executed.ipynb")


def test_a_kernels_process_is_as_under_nbclient(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    write_probe(folder)
    expected = run_under_nbclient(folder)
    assert len(expected) > 60
    found: dict[str, Any] = {}
    for options in ([], ["--no-zygote"]):
        seen = differences(expected, run_under_nbrun(folder, *options))
        assert {name: value for name, value in seen.items() if name not in ALLOWED} == {}
        found |= seen
    assert found.keys() == ALLOWED.keys(), "no longer different: take them out of the list"


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONOPTIMIZE": "2", "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1"},
        {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error::UserWarning,default::ResourceWarning"},
    ],
    ids=" ".join,
)
def test_what_changes_the_interpreter_changes_the_kernel_as_under_nbclient(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    write_probe(tmp_path)
    expected = run_under_nbclient(tmp_path, **variables)
    seen = differences(expected, run_under_nbrun(tmp_path, **variables))
    assert {name: value for name, value in seen.items() if name not in ALLOWED} == {}
    assert expected["environment"].items() >= variables.items()


def test_what_does_the_server_no_harm_is_inherited_by_a_forked_kernel(tmp_path: Path) -> None:
    write_probe(tmp_path)
    (tmp_path / "start.py").write_text("import colorsys")
    variables = {
        "PYTHONHASHSEED": "7",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "latin-1:replace",
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSTARTUP": str(tmp_path / "start.py"),
        "PYTHONPATH": str(tmp_path / "mine"),
    }
    expected = run_under_nbclient(tmp_path, **variables)
    seen = differences(expected, run_under_nbrun(tmp_path, **variables))
    assert "frozen objects" in seen, "it was not forked"
    assert {name: value for name, value in seen.items() if name not in ALLOWED} == {}
    assert "colorsys" in expected["modules"]


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONWARNINGS": "error"},
        {"PYTHONINSPECT": "1"},
        {"PYTHONOPTIMIZE": "2", "PYTHONDEVMODE": "1", "PYTHONVERBOSE": "", "PYTHONASYNCIODEBUG": "1"},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("source", ["print(__debug__)", "1 / 0"], ids=["passes", "fails"])
def test_the_command_ends_as_ever_whatever_is_set_for_the_interpreter(
    tmp_path: Path, variables: dict[str, str], source: str
) -> None:
    path = write_notebook(tmp_path / "a.ipynb", notebook(source))
    process = run_nbrun("run", path, env=variables)
    if "PYTHONWARNINGS" in variables and process.returncode == ExitCode.KERNEL:
        return  # ipykernel itself warns where a version of a library is new; so it does under nbclient
    assert_exit(process, ExitCode.NOTEBOOK_FAILED if "/" in source else ExitCode.OK)
    assert "Traceback" not in process.stderr.partition("ZeroDivisionError")[0]


MODULE = """
import os
def double(number):
    return 2 * number, os.getpid()
"""

CHILDREN = """
import importlib, inspect, multiprocessing, os, pickle, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
import helper

class Own:
    pass

def own(number):
    return number + 1

for method in ("spawn", "forkserver"):  # to fork a process with threads, as a kernel is, may hang anywhere
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        print(method, [value for value, _ in pool.map(helper.double, [1, 2])])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        value, pid = pool.submit(helper.double, 21).result()
        print(value, pid != os.getpid())
print(subprocess.run([sys.executable, "-m", "this"], capture_output=True, text=True).stdout[:15])
print(importlib.reload(helper) is helper, "return number + 1" in inspect.getsource(own))
print(pickle.loads(pickle.dumps(own)) is own, type(pickle.loads(pickle.dumps(Own()))) is Own, own.__module__)
print(os.path.basename(sys.argv[0]), len(os.listdir(f"/proc/{os.getpid()}/task")) > 1)
"""

PRINTED = """spawn [2, 4]
42 True
forkserver [2, 4]
42 True
The Zen of Pyth
True True
True True __main__
ipykernel_launcher.py True
"""


@pytest.mark.parametrize("option", ["--no-zygote", ""], ids=["started", "forked"])
def test_child_processes_modules_and_pickles_work_as_anywhere(tmp_path: Path, option: str) -> None:
    (tmp_path / "helper.py").write_text(MODULE)
    path = write_notebook(tmp_path / "a.ipynb", notebook(CHILDREN))
    with tempfile.TemporaryDirectory() as folder:  # a killed kernel leaves the socket of its fork server there
        process = run_nbrun("run", path, "--cell-timeout", "60", *filter(None, [option]), env={"TMPDIR": folder})
    assert_exit(process, ExitCode.OK)
    [cell] = read_notebook(path)["cells"]
    assert "".join(output["text"] for output in cell["outputs"]) == PRINTED


def test_a_notebook_whose_kernel_is_called_python_runs_with_python3(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "a.ipynb", notebook("6 * 7", kernel="python"))
    for arguments in ([], ["-k", "python"], ["--prepare-only"]):
        assert_exit(run_nbrun("run", path, *arguments), ExitCode.OK)
    process = run_nbrun("plan", path)
    assert "kernel      python3 (python)" in process.stdout
    assert "warning" not in process.stdout
    assert_exit(run_nbrun("doctor", "-k", "python"), ExitCode.OK)
