"""The options that make a run faster, and what the command imports before the server's process is on its way."""

import subprocess
import sys

import pytest

from nbrun.cli.options.performance import read_speed
from nbrun.errors import UsageError


def test_modules_to_preload_are_listed_with_commas() -> None:
    given = {"zygote": None, "preload": "pandas, matplotlib.pyplot,"}
    assert read_speed(given) == {"zygote": None, "preload": ("pandas", "matplotlib.pyplot")}
    assert read_speed({"zygote": False, "preload": None}) == {"zygote": False, "preload": ()}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"zygote": True, "preload": "pandas;numpy"}, r"--preload: 'pandas;numpy' is no name of a module"),
        ({"zygote": False, "preload": "pandas"}, r"--preload needs --zygote"),
    ],
    ids=["no name", "nothing to preload in"],
)
def test_what_cannot_be_meant_is_told(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_speed(given)


def test_the_server_is_started_before_anything_that_takes_time_is_imported() -> None:
    script = """
import sys
import nbrun.cli.main, nbrun.cli.run
from nbrun.private_server.launcher import EmbeddedServer
import nbrun.storage.paths
print(sorted({"httpx", "websockets", "nbformat", "rich", "tenacity", "msgspec", "jupyter_server"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
