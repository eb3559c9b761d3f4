"""The log on standard error: the levels of -v, masking, and other output beside it."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import nbrun
from nbrun.cli.options.log import LogHandler, hide_in_log, log_option, start_log
from nbrun.errors import ExitCode, UsageError
from tests.support.notebooks import assert_exit, code, notebook, run_nbrun, write_notebook

NBRUN, PART = logging.getLogger("nbrun"), logging.getLogger("nbrun.jupyter.http.client")
SECRET = "corr3ct horse"


@pytest.fixture(autouse=True)
def no_handler_stays() -> Iterator[None]:
    before, level = list(NBRUN.handlers), NBRUN.level
    yield
    assert (NBRUN.handlers, NBRUN.level) == (before, level)


@click.command()
@click.option("-q", "--quiet", is_flag=True)
@log_option
def command(**given: Any) -> None:
    start_log(given)
    hide_in_log([SECRET, None])
    PART.debug("a request with %s", SECRET)
    PART.info("a step\nof two lines")
    PART.warning("a warning")
    click.echo(f"quiet: {bool(given['quiet'])}")


def call(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(command, arguments, env={"NBRUN_VERBOSE": None, **environ}, default_map={})


@pytest.mark.parametrize(
    ("arguments", "environ", "shown"),
    [
        ([], {}, ["warning"]),
        (["-q"], {}, ["warning"]),
        (["-v"], {}, ["step", "warning"]),
        (["-vv"], {}, ["request", "step", "warning"]),
        (["-v", "--verbose", "-v"], {}, ["request", "step", "warning"]),
        ([], {"NBRUN_VERBOSE": "1"}, ["step", "warning"]),
        (["-q"], {"NBRUN_VERBOSE": "2"}, ["warning"]),
    ],
)
def test_the_option_and_the_variable_decide_what_is_shown(
    arguments: list[str], environ: dict[str, str], shown: list[str]
) -> None:
    found = call(*arguments, **environ)
    assert found.exit_code == 0
    assert re.findall("request|step|warning", found.stderr) == shown


def test_a_line_has_the_time_the_short_name_and_no_secret() -> None:
    lines = call("-vv").stderr.splitlines()
    assert re.fullmatch(r" *\d+\.\d{3} jupyter\.http\.client: a request with \*\*\*", lines[0])
    assert lines[2:] == ["    of two lines", "nbrun: a warning"]


def test_quiet_and_verbose_contradict_each_other() -> None:
    error = call("-q", "-v").exception
    assert isinstance(error, UsageError)
    assert str(error) == "-q and -v contradict each other"
    settings = CliRunner().invoke(command, ["-v"], default_map={"quiet": True})
    assert "quiet: False" in settings.stdout
    assert "a step" in settings.stderr


def test_what_is_no_number_in_the_variable_is_a_wrong_call() -> None:
    found = call(NBRUN_VERBOSE="loud")
    assert (found.exit_code, "NBRUN_VERBOSE" in found.stderr or "--verbose" in found.stderr) == (2, True)


def test_a_record_commands_neither_terminal_nor_runner(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogHandler()
    handler.handle(
        logging.makeLogRecord({"name": "nbrun.x", "msg": "\x1b[2J\r::error::%s\nx ##[error]", "args": ("y",)})
    )
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert not re.search(r"^\s*::error|##\[", shown, re.MULTILINE)


def test_a_record_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    LogHandler().handle(logging.makeLogRecord({"name": "nbrun.x", "msg": "%d", "args": ("no number",)}))


def test_the_library_alone_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    nbrun.__getattr__("Outcome")  # what the first use of any name of the Python API calls
    assert logging.NullHandler in [type(handler) for handler in NBRUN.handlers]
    PART.warning("nobody wants this")
    assert capfd.readouterr().err == ""


def test_the_steps_of_a_run_are_logged_without_source_or_secret_beside_its_json(tmp_path: Path) -> None:
    source = f"marker = 1\nimport os\nprint(os.environ.get('K'), {SECRET!r})\n%no_magic_of_this_name"
    write_notebook(tmp_path / "nb.ipynb", notebook(code(source)))
    found = run_nbrun(
        "run", "nb.ipynb", "-vv", "--json", "-", "-o", "out.ipynb", "--secret", "K",
        cwd=tmp_path, env={"K": SECRET, "GITHUB_ACTIONS": "true"},
    )  # fmt: skip
    assert_exit(found, ExitCode.NOTEBOOK_FAILED)
    assert json.loads(found.stdout)["outcome"] == "failed"
    log = [line for line in found.stderr.splitlines() if re.match(r" *\d+\.\d{3} [a-z_.]+: ", line)]
    for wanted in (
        "local_server.launcher: private server at",
        "http.client: POST api/sessions: 201",
        "kernel_session: kernel python3: ",
        "kernel agent: abilities ",
        "execute_request sent",
        "nbrun_drain_request sent",
        "cell 1 failed",
        "PUT api/contents/out.ipynb: 201",
        "saved: arrived, version",
        "runner.run: nb.ipynb: failed in ",
    ):
        assert any(wanted in line for line in log), wanted
    assert not [word for word in ("marker", SECRET, "token") if any(word in line for line in log)]
