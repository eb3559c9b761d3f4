"""Hostile notebooks on a real terminal: only text, colours and nbrun's own output reach it."""

import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import notebook, outputs_of, write_notebook

pty = pytest.importorskip("pty", reason="terminals are Unix's")
termios = pytest.importorskip("termios")
FIXTURES = Path(__file__).parents[2] / "fixtures" / "hostile"
DRAWING = re.compile(r"\r|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh]")
COLOUR = re.compile(r"\x1b\[(?!(?:[\d;]*;)?0?8(?:;[\d;]*)?m)[\d;]*m")
ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")
LIMIT = 100.0


def on_terminal(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str]:
    """Run nbrun on a terminal of its own, of 80 columns and 24 lines; return the exit code and what came there."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PYTEST_CUR"))}
    for name in ("NO_COLOR", "FORCE_COLOR", "TF_BUILD", "TEAMCITY_VERSION", "GITLAB_CI", "COLUMNS", "LINES"):
        inherited.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "nbrun", *arguments],
        cwd=cwd, stdin=its, stdout=its, stderr=its, env={**inherited, "TERM": "xterm-256color", **environ},
    )  # fmt: skip
    os.close(its)
    came = b""
    deadline = time.monotonic() + LIMIT
    try:
        while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that nobody has the other end any more
                break
            if not piece:
                break
            came += piece
        return process.wait(max(0.1, deadline - time.monotonic())), came.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with hostile notebooks, one of them by its name as well."""
    escapes = (FIXTURES / "terminal_escapes.ipynb").read_bytes()
    (tmp_path / "nb.ipynb").write_bytes(escapes)
    (tmp_path / "[red]\x1b]0;t\x07\x1b[2Jx\r\x9b2Jname.ipynb").write_bytes(escapes)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "environ", "is_live", "is_coloured"),
    [
        (("nb.ipynb",), {}, True, True),
        ((".", "--log-output"), {}, True, True),
        ((".", "--log-output", "--no-progress-bar"), {"NO_COLOR": "1"}, False, False),
        (("nb.ipynb", "--log-output"), {"TERM": "dumb"}, False, False),
        (("nb.ipynb", "--log-output"), {"GITHUB_ACTIONS": "true"}, False, True),
    ],
    ids=["live", "a batch", "no colours", "a dumb terminal", "a runner's"],
)
def test_a_terminal_gets_text_colours_and_what_is_drawn(
    arguments: tuple[str, ...], environ: dict[str, str], is_live: bool, is_coloured: bool, folder: Path
) -> None:
    code, came = on_terminal("run", *arguments, "--no-save", cwd=folder, **environ)
    assert code == ExitCode.NOTEBOOK_FAILED, came
    assert (DRAWING.search(came) is not None) is is_live
    assert (COLOUR.search(came) is not None) is is_coloured
    assert ACTS.search(COLOUR.sub("", DRAWING.sub("", came))) is None, repr(came)
    assert "V9 hidden" in COLOUR.sub("", came)
    if "--log-output" in arguments:
        assert "S1 S2 S3link S4 S5 S6 S7 S8" in COLOUR.sub("", came)
    if "." in arguments:
        assert "[red]x name.ipynb" in COLOUR.sub("", came)


def test_what_was_asked_for_on_a_terminal_is_text_too(folder: Path) -> None:
    code, came = on_terminal("run", "nb.ipynb", "--no-save", "-q", "--stdout-file", "-", cwd=folder)
    assert code == ExitCode.NOTEBOOK_FAILED
    assert came.startswith("S1 S2 S3link S4 S5 S6 S7 S8\n")
    assert ACTS.search(COLOUR.sub("", came)) is None
    write_notebook(folder / "shown.ipynb", notebook("print('\\x85\\x9b2J\\u2028')"))
    code, came = on_terminal("run", "shown.ipynb", "-o", "-", "-q", cwd=folder)
    assert code == ExitCode.OK
    assert ACTS.search(came) is None
    assert "".join(outputs_of(json.loads(came))[0][0]["text"]) == "\x85\x9b2J\u2028\n"


def test_log_records_stand_above_the_live_display_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    write_notebook(tmp_path / "nb.ipynb", notebook("print(1)"))
    code, came = on_terminal("run", "nb.ipynb", "--no-save", "-vv", cwd=tmp_path)
    assert code == ExitCode.OK, came
    assert "\x1b[?25l" in came  # the display is live
    # What stands before the last erasure of a line is not seen any more.
    lines = [line.rpartition("\x1b[2K")[2] for line in came.split("\n")]
    log = [line for line in lines if "runner.run: " in line]
    assert len(log) >= 3
    assert [line for line in log if not re.match(r" *\d+\.\d{3} runner\.run: nb\.ipynb", line)] == []
