"""``nbrun``: commands and exit codes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from nbrun.cli import main
from nbrun.errors import AccessDenied, ExitCode, KernelDied, NbrunError, NoSuchNotebook, SaveFailed
from nbrun.version import __version__
from tests.support.notebooks import run_nbrun


def ending_in(error: BaseException) -> Callable[..., object]:
    def main(**_: object) -> object:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoSuchNotebook("x"), ExitCode.USAGE),
        (AccessDenied("x"), ExitCode.SERVER),
        (SaveFailed("x"), ExitCode.SERVER),
        (KernelDied("x"), ExitCode.KERNEL),
        (NbrunError("x"), ExitCode.BUG),
        (click.UsageError("x"), ExitCode.USAGE),
        (click.Abort(), ExitCode.INTERRUPTED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError("x"), ExitCode.BUG),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.name,
)
def test_every_error_ends_in_its_exit_code(
    error: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main.cli, "main", ending_in(error))
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == code


def test_an_error_is_told_in_one_line_with_its_hint_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        main.cli, "main", ending_in(NoSuchNotebook("x.ipynb: there is no such file", hint="Look again."))
    )
    with pytest.raises(SystemExit):
        main.main()
    assert capsys.readouterr().err == "nbrun: x.ipynb: there is no such file\n  Look again.\n"


def test_a_bug_is_told_as_one_with_the_place_where_it_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main.cli, "main", ending_in(ZeroDivisionError("of nbrun")))
    with pytest.raises(SystemExit):
        main.main()
    told = capsys.readouterr().err
    assert "ZeroDivisionError: of nbrun" in told
    assert "this is a bug in nbrun" in told


def test_an_unknown_command_is_a_wrong_call() -> None:
    found = run_nbrun("fly")
    assert found.returncode == ExitCode.USAGE
    assert "No such command 'fly'" in found.stderr


def test_version_and_help_are_told_without_importing_what_a_run_needs() -> None:
    program = (
        "import sys\nfrom nbrun.cli import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('httpx', 'websockets', 'nbformat', 'rich', 'asyncio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert run_nbrun("--version").stdout.strip() == f"nbrun, version {__version__}"


def test_a_run_without_options_for_reports_imports_nothing_for_them() -> None:
    program = (
        "import sys\nfrom nbrun.cli import main\nsys.argv[1:] = ['run', 'no-such.ipynb', '--no-config']\n"
        "try:\n    main.main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
        "new = ('nbrun.publishing', 'cronsim', 'zoneinfo', 'smtplib', 'apprise', 'nbrun.core.batch.schedule')\n"
        "print([name for name in new if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_jupyter_finds_nbrun_as_its_subcommand() -> None:
    found = subprocess.run([sys.executable, "-m", "jupyter", "nbrun", "--version"], capture_output=True, text=True)
    assert found.stdout.strip().endswith(__version__), found.stderr


HABITS = """
import atexit, os, sys, threading, time
class Watched:
    def __del__(self): os.write(2, b"deleted ")
watched = Watched()
atexit.register(os.write, 2, b"handler ")
threading.Thread(target=lambda: (threading.main_thread().join(), os.write(2, b"thread "))).start()
"""


def test_the_process_ends_after_its_threads_and_exit_handlers_without_deleting_its_modules(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HABITS)
    found = run_nbrun("fly", env={"PYTHONPATH": str(tmp_path)})
    assert found.returncode == ExitCode.USAGE
    assert found.stderr.endswith("thread handler ")


def test_a_profile_of_the_command_is_printed() -> None:
    command = [sys.executable, "-m", "cProfile", "-m", "nbrun", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "function calls" in done.stdout


def test_python_does_not_ask_for_input_at_the_end() -> None:
    found = run_nbrun("--version", env={"PYTHONINSPECT": "1"}, stdin="print('asked')\n")
    assert "asked" not in found.stdout
