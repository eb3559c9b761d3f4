"""Where a call writes: the choice between -o, --no-save and --in-place, and paths that nbrun cannot reach."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from nbrun.core.destinations import MATRIX, SETTINGS, refuse_contradiction, refuse_unreachable, require_choice
from nbrun.errors import UsageError

CHOICES = {"output": "--output", "no_save": "--no-save", "in_place": "--in-place"}
"""The parameters that say where executed notebooks go; only one of them can count."""
_WRITTEN = {
    "html_folder": "--html",
    "json_file": "--json",
    "junit_file": "--junit",
    "events_file": "--events",
    "stdout_file": "--stdout-file",
    "stderr_file": "--stderr-file",
    "cache": "--cache",
}
_READ = {"parameters_file": "-f", "durations": "--durations", "token_file": "--token-file", "ca_file": "--ca-file"}


def settle_choice(context: click.Context, given: dict[str, Any]) -> None:
    """Leave in `given` the one choice that counts: what was typed counts before the settings.

    Raises :class:`UsageError` where two of the same rank contradict each other.
    """
    made = [name for name in CHOICES if given[name] not in (None, False)]
    typed = [name for name in made if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    counting = typed or made
    refuse_contradiction([CHOICES[name] for name in counting])
    for name in set(made) - set(counting):
        given[name] = None if name == "output" else False


def check_choice(
    named: Sequence[str], given: Mapping[str, Any], *, single: bool, matrix: bool, by_settings: bool
) -> None:
    """Raise :class:`UsageError` for a call that names several notebooks and does not say where they go."""
    if any(given[name] not in (None, False) for name in CHOICES) or (single and not by_settings):
        return
    require_choice(named, message=MATRIX if matrix or given["matrix"] else SETTINGS if by_settings else "")


def check_paths(named: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` for paths that nbrun can neither read nor write, whatever is there."""
    for name in named:
        refuse_unreachable("" if name else "PATH", name, reads=True)
    for name, option in {"output": "-o", **_WRITTEN}.items():
        if given[name] is not None:
            refuse_unreachable(option, str(given[name]))
    for name, option in _READ.items():
        for path in given[name] if isinstance(given[name], tuple) else (given[name],):
            if path is not None:
                refuse_unreachable(option, str(path), reads=True)
    for pair in given["secret_file"]:
        if path := pair.partition("=")[2]:
            refuse_unreachable("--secret-file", path, reads=True)
    if given["cwd"] is not None and not given["cwd"]:
        raise UsageError("--cwd: the path is empty", hint="Is the variable set that it comes from?")
