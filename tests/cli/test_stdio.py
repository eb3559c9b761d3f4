"""``nbrun run -``: notebooks from standard input and to standard output."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import assert_exit, notebook, outputs_of, read_notebook, run_nbrun, write_notebook
from tests.support.other_servers import kernel_gateway

TEXT = json.dumps(notebook("print(6 * 7)"))


def printed(text: str) -> str:
    return str(outputs_of(json.loads(text))[0][0]["text"][0])


def test_a_notebook_comes_through_standard_input_and_goes_through_standard_output(tmp_path: Path) -> None:
    process = run_nbrun("run", "-", cwd=tmp_path, stdin=TEXT)
    assert_exit(process, ExitCode.OK)
    assert printed(process.stdout) == "42\n"
    assert "stdin.ipynb: passed: 1 cell" in process.stderr
    assert process.stderr.endswith(", delivered\n")
    assert list(tmp_path.iterdir()) == []


def test_what_comes_through_standard_input_may_go_elsewhere(tmp_path: Path) -> None:
    for options in (("-o", "out.ipynb"), ("--no-save", "--json", "-")):
        process = run_nbrun("run", "-", *options, cwd=tmp_path, stdin=TEXT)
        assert_exit(process, ExitCode.OK)
    assert outputs_of(read_notebook(tmp_path / "out.ipynb"))[0][0]["text"] == "42\n"
    assert (json.loads(process.stdout)["notebook"], json.loads(process.stdout)["output"]) == ("stdin.ipynb", None)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]


@pytest.mark.parametrize("word", ["-", "/dev/stdout"])
def test_a_files_result_goes_through_standard_output_also_when_a_cell_fails(tmp_path: Path, word: str) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", notebook("print(6 * 7)", "1 / 0"))
    before = path.read_bytes()
    process = run_nbrun("run", "nb.ipynb", "-o", word, "--json", "result.json", cwd=tmp_path)
    assert_exit(process, ExitCode.NOTEBOOK_FAILED)
    assert printed(process.stdout) == "42\n"
    assert json.loads((tmp_path / "result.json").read_text())["output"] == "-"
    assert path.read_bytes() == before


def test_the_projects_settings_hold_for_it_but_not_those_of_some_notebooks(tmp_path: Path) -> None:
    settings = '[parameters]\nx = 5\n[[overrides]]\nmatch = "*.ipynb"\nskip = true\n'
    (tmp_path / "nbrun.toml").write_text(f"allow-new = true\n{settings}")
    process = run_nbrun("run", "-", cwd=tmp_path, stdin=json.dumps(notebook("print(x)")))
    assert_exit(process, ExitCode.OK)
    assert outputs_of(json.loads(process.stdout))[-1][0]["text"] == ["5\n"]


def test_settings_that_have_it_run_many_times_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nbrun.toml").write_text('[batch.both]\nnotebooks = ["nb.ipynb"]\n[batch.both.matrix]\nx = [1, 2]\n')
    write_notebook(tmp_path / "nb.ipynb", notebook("print(1)"))
    process = run_nbrun("batch", "both", "-o", "-", cwd=tmp_path)
    assert_exit(process, ExitCode.USAGE)
    assert "--output -: for one notebook, run once" in process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_a_reader_that_stops_to_read_does_not_keep_it_for_ever(tmp_path: Path) -> None:
    """What does not fit into the pipe waits for the reader; a signal makes that end in a rescue file."""
    hurried = "import runpy, nbrun.runner.saving as it; it.SHORT_LIMIT = 0.5; runpy.run_module('nbrun', {}, '__main__')"
    command = [sys.executable, "-c", hurried, "run", "-"]
    large = json.dumps(notebook("print('x' * 1_000_000)"))
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(large)
        process.stdin.close()
        assert any("passed in" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        said = process.stderr.read()
    (rescued,) = tmp_path.iterdir()
    assert process.returncode == ExitCode.SERVER
    assert f"rescued in {rescued}" in said
    assert len(outputs_of(read_notebook(rescued))[0][0]["text"]) == 1_000_001


def test_it_is_prepared_without_a_server(tmp_path: Path) -> None:
    process = run_nbrun("run", "-", "--prepare-only", "-p", "x", "1", "--allow-new", cwd=tmp_path, stdin=TEXT)
    assert_exit(process, ExitCode.OK)
    assert json.loads(process.stdout)["cells"][0]["source"] == ["# Parameters\n", "x = 1"]


@pytest.mark.skipif(sys.platform == "win32", reason="the shell is Unix's")
@pytest.mark.parametrize(("closed", "said"), [("<&-", "input is closed"), (">&-", "output is closed")])
def test_a_stream_that_is_closed_is_told_in_a_line(tmp_path: Path, closed: str, said: str) -> None:
    command = ["sh", "-c", f'"{sys.executable}" -m nbrun run - {closed}']
    process = subprocess.run(
        command, cwd=tmp_path, input=TEXT, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert process.returncode == ExitCode.USAGE
    assert said in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
def test_a_path_that_is_a_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "nbrun", "run", "pipe"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        (tmp_path / "pipe").write_text(TEXT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK, err
    assert printed(out) == "42\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_what_standard_output_does_not_take_is_rescued(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nbrun", "run", "-"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            command, cwd=tmp_path, input=TEXT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert process.returncode == ExitCode.SERVER
    assert "could not be delivered: No space left on device" in process.stderr
    (rescued,) = tmp_path.iterdir()
    assert outputs_of(read_notebook(rescued))[0][0]["text"] == "42\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-", "-o", "-", "--json", "-"), "--output - and --json -: only one of them can have standard output"),
        (("-", "other.ipynb"), "- as a notebook: for one notebook, run once"),
        (("-", "--retries", "1"), "- as a notebook: for one notebook, run once"),
        ((".", "-o", "-"), "--output -: for one notebook, run once"),
        (("-", "-o", "-", "--no-save"), "--output and --no-save contradict each other"),
        (("-", "--help-notebook"), "--help-notebook wants a file"),
        (("-",), "stdin.ipynb: the file is empty"),
        (("a.ipynb", "-o", "/dev/null"), "/dev/null: this is no file"),
        (("/dev/null",), "pipe.ipynb: the file is empty"),
        (("/dev/null", "a.ipynb"), "as a notebook: for one notebook, run once"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    write_notebook(tmp_path / "a.ipynb", notebook("print(1)"))
    process = run_nbrun("run", *arguments, cwd=tmp_path)
    assert_exit(process, ExitCode.USAGE)
    assert said in process.stderr
    assert process.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]


def test_on_a_server_that_serves_kernels_alone_only_a_pipe_works_and_the_others_say_so(tmp_path: Path) -> None:
    write_notebook(tmp_path / "a.ipynb", notebook("print(1)"))
    with kernel_gateway(tmp_path, lists=False) as gateway:
        on_it: dict[str, Any] = {"cwd": tmp_path, "env": {"NBRUN_TOKEN": gateway.token}}
        piped = run_nbrun("run", "-", "--server", gateway.url, stdin=TEXT, **on_it)
        path = run_nbrun("run", "a.ipynb", "--server", gateway.url, **on_it)
        uploaded = run_nbrun("run", "a.ipynb", "--upload", "--server", gateway.url, **on_it)
    assert_exit(piped, ExitCode.OK)
    assert printed(piped.stdout) == "42\n"
    assert_exit(path, ExitCode.USAGE)
    assert "a.ipynb: this server serves no files" in path.stderr
    for process in (path, uploaded):
        assert "nbrun run - --server URL < in.ipynb" in process.stderr
