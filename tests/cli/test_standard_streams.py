"""Standard streams that are closed, full, non-blocking or disconnected, and starts without a terminal."""

import array
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import notebook, outputs_of, read_notebook, write_notebook
from tests.support.processes import default_signals, live_nbrun
from tests.support.servers import pause

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell is Unix's")

CLOSED = ["", "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
"""Every combination of closed standard streams, as a shell writes it."""
NBRUN = f"'{sys.executable}' -m nbrun"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")


def shell(script: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=default_signals,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "fine.ipynb", notebook("print(6 * 7)"))
    write_notebook(tmp_path / "wrong.ipynb", notebook("print(6 * 7)", "1 / 0"))
    return tmp_path


@pytest.mark.parametrize("closed", CLOSED, ids=lambda closed: closed or "none")
def test_closed_streams_change_neither_the_exit_code_nor_the_work(closed: str, folder: Path) -> None:
    for words, expected in (
        ("plan fine.ipynb", ExitCode.OK),
        ("run fine.ipynb -o out.ipynb --prepare-only -p x 1 --allow-new", ExitCode.OK),
        ("run fine.ipynb --no-such-option", ExitCode.USAGE),
        ("run missing.ipynb", ExitCode.USAGE),
    ):
        found = shell(f"{NBRUN} {words} {closed}", folder)
        assert found.returncode == expected, (words, found.stderr)
        assert "Traceback" not in found.stderr
    assert read_notebook(folder / "out.ipynb")["cells"][0]["source"] == "# Parameters\nx = 1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run - <&-", "standard input is closed"),
        ("run /dev/stdin <&-", "standard input is closed"),
        ("run fine.ipynb -o - >&-", "standard output is closed"),
        ("run fine.ipynb --json - >&-", "standard output is closed"),
        ("run fine.ipynb --events - >&- <&-", "standard output is closed"),
        ("run fine.ipynb --stdout-file - >&-", "standard output is closed"),
        ("run fine.ipynb --stderr-file /dev/stderr 2>&-", ""),
    ],
)
def test_a_closed_stream_that_carries_what_was_asked_for_is_an_error(words: str, said: str, folder: Path) -> None:
    before = (folder / "fine.ipynb").read_bytes()
    found = shell(f"{NBRUN} {words}", folder)
    assert found.returncode == ExitCode.USAGE, found.stderr
    assert said in found.stderr
    assert (folder / "fine.ipynb").read_bytes() == before


def test_with_all_streams_closed_a_failing_run_saves_reports_and_exits_with_its_code(folder: Path) -> None:
    found = shell(f"{NBRUN} run wrong.ipynb --json r.json --log-output <&- >&- 2>&-", folder)
    assert found.returncode == ExitCode.NOTEBOOK_FAILED
    assert (found.stdout, found.stderr) == ("", "")
    result = json.loads((folder / "r.json").read_text())
    assert ([cell["outcome"] for cell in result["cells"]], result["warnings"]) == (["passed", "failed"], [])
    assert outputs_of(read_notebook(folder / "wrong.ipynb"))[0][0]["text"] == "42\n"


@pytest.mark.parametrize(
    "redirected",
    [pytest.param("2> /dev/full", marks=FULL), "2> >(true)", "2< /dev/null"],
    ids=["full", "nobody reads it", "not open for writing"],
)
def test_what_standard_error_does_not_take_changes_nothing(redirected: str, folder: Path) -> None:
    for words, expected in (
        ("run wrong.ipynb -o out.ipynb --log-output --json r.json", ExitCode.NOTEBOOK_FAILED),
        ("run missing.ipynb", ExitCode.USAGE),
    ):
        assert shell(f"{NBRUN} {words} {redirected}", folder).returncode == expected
    assert json.loads((folder / "r.json").read_text())["warnings"] == []
    assert outputs_of(read_notebook(folder / "out.ipynb"))[0][0]["text"] == "42\n"


def test_a_reader_that_stops_to_read_text_is_no_error(folder: Path) -> None:
    for words in ("--help", "run --help", "plan fine.ipynb", "--version"):
        found = shell(f"set -o pipefail; {NBRUN} {words} | true", folder)
        assert (found.returncode, found.stderr) == (0, ""), words


@pytest.mark.parametrize(
    "words", ["fine.ipynb --json -", "fine.ipynb --events -", ". --no-save --allow-errors --events -"]
)
def test_a_report_whose_reader_has_gone_is_lost(words: str, folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "nbrun", "run", *words.split()]
    done = subprocess.run(command, cwd=folder, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == ExitCode.SERVER
    lost = [line for line in done.stderr.splitlines() if "could not be written" in line]
    assert len(lost) == 1
    assert lost[0].endswith("in standard output could not be written: Broken pipe")
    assert not lost[0].startswith(":")


@FULL
def test_text_that_was_asked_for_and_cannot_be_written_is_an_error(folder: Path) -> None:
    found = shell(f"{NBRUN} plan fine.ipynb > /dev/full", folder)
    assert found.returncode == ExitCode.SERVER
    assert found.stderr == "nbrun: standard output cannot be written: No space left on device\n"


def test_a_pipe_that_does_not_block_takes_all(folder: Path) -> None:
    """Node leaves the pipes of its children so; a run then printed a BlockingIOError."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    write_notebook(folder / "long.ipynb", notebook(*[f"x = '{'x' * 1000}'"] * 300))
    command = [sys.executable, "-m", "nbrun", "run", "long.ipynb", "-o", "-", "--prepare-only"]
    with subprocess.Popen(command, cwd=folder, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read()
        assert process.wait(60) == ExitCode.OK
    assert len(json.loads(text)["cells"]) == 300


def test_a_notebook_comes_whole_through_a_pipe_that_does_not_block(folder: Path) -> None:
    """Python's own reading returns nothing, or a part, where the rest has not come yet."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    text = json.dumps(notebook("1", "2"))
    command = [sys.executable, "-m", "nbrun", "run", "-", "-o", "out.ipynb", "--prepare-only"]
    with subprocess.Popen(command, cwd=folder, stdin=reading, stderr=subprocess.PIPE, text=True) as process:
        os.close(reading)
        for part in (text[:50], text[50:]):
            os.write(writing, part.encode())
            while process.poll() is None and unread(writing):
                pause(0.01)
        os.close(writing)
        assert process.wait(60) == ExitCode.OK, process.communicate()
    assert len(read_notebook(folder / "out.ipynb")["cells"]) == 2


def unread(pipe: int) -> int:
    """Return how many bytes wait in a pipe."""
    import fcntl
    import termios

    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0]


def test_a_name_that_the_terminals_encoding_lacks_is_printed_all_the_same(folder: Path) -> None:
    write_notebook(folder / "\u0436.ipynb", notebook("1"))
    found = shell(f"PYTHONIOENCODING=latin-1 {NBRUN} plan ?.ipynb", folder)
    assert (found.returncode, found.stderr) == (0, "")
    assert r"\u0436.ipynb" in found.stdout


STARTS = [
    ("nohup, as a background job of a script", "nohup {command} & wait $!"),
    ("a new session and an empty environment", "setsid -w env -i {command}"),
    ("no home", "env -u HOME -u XDG_DATA_HOME -u XDG_CONFIG_HOME {command} < /dev/null"),
]


@pytest.mark.parametrize("start", [script for _, script in STARTS], ids=[name for name, _ in STARTS])
def test_a_run_is_right_however_it_is_started(start: str, folder: Path) -> None:
    """The second cell is interrupted, which needs a kernel that does not ignore SIGINT."""
    write_notebook(folder / "nb.ipynb", notebook("print(6 * 7)", "import time; time.sleep(60)", "3"))
    command = f"{NBRUN} run nb.ipynb --cell-timeout 1 --json r.json"
    found = shell(start.format(command=command), folder)
    assert found.returncode == ExitCode.NOTEBOOK_FAILED, found.stderr
    result = json.loads((folder / "r.json").read_text())
    assert [cell["outcome"] for cell in result["cells"]] == ["passed", "timed-out", "not-run"]
    first, second, _ = outputs_of(read_notebook(folder / "nb.ipynb"))
    assert first[0]["text"] == "42\n"
    assert second[-1]["ename"] == "KeyboardInterrupt"


@pytest.fixture(params=["--zygote", "--no-zygote"])
def zygote(request: pytest.FixtureRequest) -> str:
    return str(request.param)


IGNORED = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
DISPOSITIONS = """import os, signal
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM), sorted(mask))"""


def ignore_and_block() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)


def test_signals_that_are_ignored_at_the_start_stay_ignored_and_kernels_start_with_defaults(
    folder: Path, zygote: str
) -> None:
    wait = (
        "import pathlib, time\npathlib.Path('running').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(.02)"
    )
    path = write_notebook(folder / "nb.ipynb", notebook(DISPOSITIONS, wait))
    with live_nbrun(path, zygote, cwd=folder, json_file=folder / "r.json", before=ignore_and_block) as run:
        run.await_file(folder / "running")
        for number in IGNORED:
            run.signal(number)
        (folder / "go").touch()
        assert run.end(within=60) == ExitCode.OK
    assert run.outcomes() == ["passed", "passed"]
    assert outputs_of(read_notebook(path))[0][0]["text"] == "True 0 []\n"


def test_a_run_that_ignores_sighup_survives_the_terminal_that_it_writes_to(folder: Path) -> None:
    """As after ``nohup`` or ``trap "" HUP``: from then on each write to the terminal is an error."""
    wait = (
        "import pathlib, time\npathlib.Path('running').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(.02)"
    )
    path = write_notebook(folder / "nb.ipynb", notebook(wait, "print(6 * 7)"))
    master, terminal = os.openpty()
    with live_nbrun(
        path, "--log-output", cwd=folder, json_file=folder / "r.json", before=ignore_and_block, stderr=terminal
    ) as run:
        os.close(terminal)
        run.await_file(folder / "running")
        os.close(master)
        (folder / "go").touch()
        assert run.end(within=60) == ExitCode.OK
    assert (run.outcomes(), run.report()["warnings"]) == (["passed", "passed"], [])
    assert outputs_of(read_notebook(path))[1][0]["text"] == "42\n"
