"""The end of the private server is reported at once, with its cause and the cell."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import nbrun
from nbrun.core.events import Event, Stage, StageEntered
from nbrun.errors import ExitCode, NbrunError
from tests.support.notebooks import assert_exit, notebook, read_notebook, run_nbrun, write_notebook

AT_ONCE = 8.0
"""Seconds that a whole run may take whose server dies, with the start of the server on a busy machine."""

CELLS = ("print('kept')", "import os; print('before', flush=True); os.kill(os.getppid(), 9); input()", "print('never')")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where rescue files may be left."""
    monkeypatch.chdir(tmp_path)


def kill_the_server() -> None:
    for child in psutil.Process().children():
        if "process.boot" in " ".join(child.cmdline()):
            child.kill()


def told(problem: Any) -> str:
    return f"{problem.message}\n{problem.hint}"


def test_a_server_that_is_killed_in_a_cell_is_reported_with_the_cell_and_what_ran_is_kept(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "a.ipynb", notebook(*CELLS))
    began = time.monotonic()
    process = run_nbrun("run", path, cwd=tmp_path)
    assert time.monotonic() - began < AT_ONCE
    assert_exit(process, ExitCode.SERVER)
    assert "the private server was killed by SIGKILL in cell 2 of 3" in process.stderr
    assert "too much memory" in process.stderr
    assert "http://" not in process.stderr
    [rescued] = [other for other in tmp_path.glob("*.ipynb") if other != path]
    first, _, third = read_notebook(rescued)["cells"]
    assert first["outputs"][0]["text"] == "kept\n"
    assert third["outputs"] == []


KILLING_LATER = "import os, threading\nthreading.Timer({}, os.kill, [{}, 9]).start()"


@pytest.mark.parametrize(("victim", "last"), [("os.getppid()", "interrupted"), ("os.getpid()", "kernel-died")])
def test_what_is_killed_in_the_middle_of_a_list_leaves_an_outcome_that_is_true_of_each_cell(
    tmp_path: Path, victim: str, last: str
) -> None:
    marks = [f"open('{number}', 'x').close()" for number in range(60)]
    path = write_notebook(tmp_path / "a.ipynb", notebook("1", KILLING_LATER.format(0.05, victim), *marks, "while 1: 1"))
    result = nbrun.run(path)
    outcomes = [cell.outcome.value for cell in result.cells]
    [cut] = [place for place, outcome in enumerate(outcomes) if outcome == last]
    assert outcomes == ["passed"] * cut + [last] + ["not-run"] * (len(outcomes) - cut - 1)
    ran = [name for name in range(60) if (tmp_path / str(name)).exists()]
    assert ran in ([*range(cut - 2)], [*range(cut - 1)])
    assert f"in cell {cut + 1} of {len(outcomes)}" in told(result.problem)


@pytest.mark.parametrize("stage", [Stage.LOADING, Stage.STARTING_KERNEL, Stage.RUNNING], ids=lambda stage: stage.name)
def test_a_server_that_is_killed_before_a_cell_ran_is_reported(tmp_path: Path, stage: Stage) -> None:
    path = write_notebook(tmp_path / "a.ipynb", notebook("import time; time.sleep(60)"))

    def observe(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage is stage:
            kill_the_server()

    began = time.monotonic()
    try:
        result = nbrun.run(path, observe=observe)
    except NbrunError as error:
        code, text = error.exit_code, f"{error}\n{error.hint}"
    else:
        code, text = result.exit_code, told(result.problem)
    assert time.monotonic() - began < AT_ONCE
    assert code == ExitCode.SERVER
    assert "the private server was killed by SIGKILL" in text
    assert "http://" not in text


@pytest.mark.parametrize("stage", [Stage.SAVING, Stage.STOPPING], ids=lambda stage: stage.name)
def test_a_server_that_is_killed_when_all_cells_ran_loses_no_result(tmp_path: Path, stage: Stage) -> None:
    path = write_notebook(tmp_path / "a.ipynb", notebook("print('kept')"))

    def observe(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage is stage:
            kill_the_server()

    result = nbrun.run(path, observe=observe)
    assert result.output is not None
    assert read_notebook(Path(result.output))["cells"][0]["outputs"][0]["text"] == "kept\n"
    if result.rescued:
        assert result.exit_code == ExitCode.SERVER
        assert "the private server was killed by SIGKILL" in told(result.problem)
        assert "http://" not in told(result.problem)
    else:
        assert result.exit_code == ExitCode.OK
        assert result.output == str(path)


def test_in_a_batch_the_others_run_on_a_server_that_is_started_again(tmp_path: Path) -> None:
    paths = [
        write_notebook(tmp_path / "a.ipynb", notebook(*CELLS)),
        write_notebook(tmp_path / "b.ipynb", notebook("print('fine')")),
    ]
    result = nbrun.run_many(paths, jobs=1, save=False)
    assert [run.exit_code for run in result.runs] == [ExitCode.SERVER, ExitCode.OK]
    assert "the private server was killed by SIGKILL in cell 2 of 3" in told(result.runs[0].problem)
    assert "http://" not in told(result.runs[0].problem)


FIRST_START_FAILS = """
import os, sys
if any("process.boot" in word for word in sys.orig_argv) and not os.path.exists({mark!r}):
    open({mark!r}, "w").close()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_server_that_dies_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    mark = tmp_path / "started once"
    (tmp_path / "sitecustomize.py").write_text(FIRST_START_FAILS.format(mark=str(mark)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    paths = [write_notebook(tmp_path / f"{name}.ipynb", notebook("1")) for name in ("ab" if many else "a")]
    assert_exit(run_nbrun("run", *paths, "--no-save"), ExitCode.OK)
    assert mark.exists()


def test_a_server_that_dies_whenever_it_starts_is_reported_with_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif any('process.boot' in word for word in sys.orig_argv):\n"
        "    os.write(2, b'the disk of this machine is on fire')\n    os._exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    path = write_notebook(tmp_path / "a.ipynb", notebook("1"))
    process = run_nbrun("run", path, "--no-save")
    assert_exit(process, ExitCode.SERVER)
    assert "the private server ended while it started (exit status 3)" in process.stderr
    assert "the disk of this machine is on fire" in process.stderr


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"TMPDIR": "/nowhere/at/all"}, "missing"),
        ({"TMPDIR": "/proc"}, "not writable"),
        ({"TMPDIR": "long"}, "too long for a socket"),
        ({"HOME": "/nowhere"}, "no home"),
        ({}, "nothing at all"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_needs_neither_a_home_nor_an_environment(tmp_path: Path, environment: dict[str, str], why: str) -> None:
    if environment.get("TMPDIR") == "long":
        folder = tmp_path.joinpath("x" * 100)
        folder.mkdir()
        environment = {"TMPDIR": str(folder)}
    path = write_notebook(tmp_path / "a.ipynb", notebook("print(6 * 7)"))
    process = subprocess.run(
        [sys.executable, "-m", "nbrun", "run", str(path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 0, f"{why}: {process.stderr}"
    assert read_notebook(path)["cells"][0]["outputs"][0]["text"] == "42\n"


@pytest.mark.parametrize(
    ("limits", "hint"),
    [("ulimit -n 12", "ulimit -n"), ("ulimit -n 40", "Too many open files"), ("ulimit -f 0", "TMPDIR")],
    ids=["few files", "few files for a kernel", "no byte may be written"],
)
def test_too_low_a_limit_is_reported_in_a_line(tmp_path: Path, limits: str, hint: str) -> None:
    path = write_notebook(tmp_path / "a.ipynb", notebook("1"))
    process = subprocess.run(
        ["bash", "-c", f"{limits}; exec '{sys.executable}' -m nbrun run '{path}' --no-save"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert process.returncode in (ExitCode.SERVER, ExitCode.KERNEL), process.stderr
    assert hint in process.stderr
    assert "jupyter_server" not in process.stderr  # a kernel's own traceback may be shown, the server's is not
