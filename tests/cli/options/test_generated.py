"""Options of the command line that follow from their declarations."""

import math
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

import nbrun
from nbrun.cli.options.generated import OF_BATCH, OF_RUN, declared, parameter_name, read_declared
from nbrun.cli.run import command
from nbrun.core.planning.option_types import Flag, options_in

OF_RUN_AND_BATCH = {**options_in(nbrun.BatchOptions)}


def given(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a call with these arguments, and what the Python API would be told."""
    told: dict[str, Any] = {}

    @click.command()
    @declared(*OF_RUN, *OF_BATCH)
    def command(**options: Any) -> None:
        told.update(read_declared([*OF_RUN, *OF_BATCH], options))

    return CliRunner().invoke(command, arguments).exit_code, told


def test_nothing_said_is_what_the_python_api_has_by_default() -> None:
    code, told = given()
    assert code == 0
    assert told == {name: option.default for name, option in OF_RUN_AND_BATCH.items() if name in told}


@pytest.mark.parametrize("name", [name for name in OF_RUN if isinstance(OF_RUN_AND_BATCH[name].kind, Flag)])
def test_a_flag_sets_the_opposite_of_its_default(name: str) -> None:
    option = OF_RUN_AND_BATCH[name]
    flag = option.spellings(name)[0].partition("/")[0]
    assert given(flag) == (0, {**given()[1], name: not option.default})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("5m", 300.0), ("100ms", 0.1), ("never", math.inf), ("0", math.inf)]
)
def test_a_pause_is_a_duration_or_never(text: str, seconds: float) -> None:
    assert given("--save-every", text)[1]["save_every"] == seconds
    assert given("--autosave-cell-every", text)[1]["save_every"] == seconds


@pytest.mark.parametrize("text", ["0.0", "-1", "often"])
def test_what_is_no_pause_is_a_wrong_call(text: str) -> None:
    assert given("--save-every", text) == (2, {})


def test_modules_to_preload_are_listed_with_commas() -> None:
    assert given("--preload", "pandas, matplotlib.pyplot,")[1]["preload"] == ("pandas", "matplotlib.pyplot")
    assert given("--preload", "pandas;numpy")[0] == 2


@pytest.mark.parametrize("name", [*OF_RUN, *OF_BATCH])
def test_every_declared_option_is_one_of_nbrun_run(name: str) -> None:
    [option] = [one for one in command.params if one.name == parameter_name(name)]
    assert isinstance(option, click.Option)
    assert option.help == OF_RUN_AND_BATCH[name].help
    assert option.help


def test_the_server_is_started_before_anything_that_takes_time_is_imported() -> None:
    script = """
import sys
import nbrun.cli.main, nbrun.cli.run
from nbrun.local_server.launcher import EmbeddedServer
import nbrun.storage.paths
print(sorted({"httpx", "websockets", "nbformat", "rich", "tenacity", "msgspec", "jupyter_server"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
