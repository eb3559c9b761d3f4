"""Options that say when the notebook is saved."""

import math
from typing import Any

import click
import pytest
from click.testing import CliRunner

from nbrun.cli.options.saving import saving_of, saving_options


def given(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a call with these arguments, and what a run would be told."""
    told: dict[str, Any] = {}

    @click.command()
    @saving_options
    def command(**options: Any) -> None:
        told.update(saving_of(options))

    return CliRunner().invoke(command, arguments).exit_code, told


def test_nothing_said_leaves_the_saves_to_nbrun() -> None:
    assert given() == (0, {"save_every": None, "checkpoint": False, "restore_on_failure": False})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("5m", 300.0), ("100ms", 0.1), ("never", math.inf), ("0", math.inf)]
)
def test_a_pause_is_a_duration_or_never(text: str, seconds: float) -> None:
    assert given("--save-every", text)[1]["save_every"] == seconds
    assert given("--autosave-cell-every", text)[1]["save_every"] == seconds


@pytest.mark.parametrize("text", ["0.0", "-1", "often"])
def test_what_is_no_pause_is_a_wrong_call(text: str) -> None:
    assert given("--save-every", text) == (2, {})


def test_the_way_back_is_a_word_each() -> None:
    told = given("--checkpoint", "--restore-on-failure")[1]
    assert (told["checkpoint"], told["restore_on_failure"]) == (True, True)
