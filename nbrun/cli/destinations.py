"""Check the paths of a call and the choice between ``-o``, ``--no-save`` and ``--in-place``."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from nbrun.core.batch.output_paths import is_template
from nbrun.core.planning.destinations import MATRIX, SETTINGS, refuse_contradiction, refuse_unreachable, require_choice
from nbrun.errors import UsageError
from nbrun.storage.writable import is_folder, is_there

CHOICES = {"output": "--output", "no_save": "--no-save", "in_place": "--in-place"}
"""The parameters that say where executed notebooks go; only one of them can count."""
REPORTS = {
    "html_folder": "--html",
    "json_file": "--json",
    "junit_file": "--junit",
    "events_file": "--events",
    "stdout_file": "--stdout-file",
    "stderr_file": "--stderr-file",
}
"""The parameters that say where reports go."""
_READ = {"parameters_file": "-f", "durations": "--durations", "token_file": "--token-file", "ca_file": "--ca-file"}


def is_single(notebooks: Sequence[str], given: Mapping[str, Any]) -> bool:
    """Return whether the call names one notebook, to be run once."""
    from nbrun.core.formats.globs import is_glob

    if len(notebooks) != 1 or given["matrix"]:
        return False
    (name,) = notebooks
    if name == "-":  # standard input, wherever it is run
        return True
    if given["server"] and not given["upload"]:
        return name.endswith(".ipynb") and not is_glob(name)
    return not is_folder(name) and (is_there(name) or not is_glob(name))


def is_plain(given: Mapping[str, Any], overrides: Sequence[Any]) -> bool:
    """Return whether the one run needs nothing that only a batch has."""
    from nbrun.core.batch.output_paths import is_template

    special = ("cache", "shard", "changed_since", "retries", "exclude", "refresh", "prepare_only")
    return not (overrides or is_template(given["output"] or "") or any(given[name] for name in special))


def settle_choice(context: click.Context, given: dict[str, Any]) -> None:
    """Leave in `given` the choices that count: what was typed replaces what the settings say.

    Raises :class:`UsageError` where two of the same rank contradict each other.
    """

    def is_typed(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    made = [name for name in CHOICES if given[name] not in (None, False)]
    typed = [name for name in made if is_typed(name)]
    counting = typed or made
    refuse_contradiction([CHOICES[name] for name in counting])
    for name in set(made) - set(counting):
        given[name] = None if name == "output" else False
    if is_typed("on_conflict") and not is_typed("force"):
        given["force"] = False
    if is_typed("force") and not is_typed("on_conflict"):
        given["on_conflict"] = None


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
    for name, option in {"output": "-o", **REPORTS, "cache": "--cache"}.items():
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


class Paths:
    """What the paths of a call mean: folders and templates become files, as far as their values are known.

    ``notebook`` is that of a single run; a report that is one for many knows only the date and the call's id.
    """

    def __init__(self, given: dict[str, Any], notebook: str | None) -> None:
        """Fill in what needs no parameter; raises :class:`UsageError`."""
        self._given = given
        self._notebook = notebook
        self._stamp: Any = None
        self._late: dict[str, str] = {}
        self._on_server = bool(given["server"]) and not given["upload"]
        for name, option in REPORTS.items():
            path = given[name]
            if path is not None and is_template(path):
                given[name] = self._filled(option, path, {}, late=name)
        if notebook is not None and given["output"] is not None and "deliver" not in given:
            self._settle_output(notebook)

    def _settle_output(self, notebook: str) -> None:
        from nbrun.storage.paths import names_folder, output_file

        output = self._given["output"]
        if is_template(output):
            return
        if "content" in self._given and names_folder(output, on_server=self._on_server):
            raise UsageError(f"-o {output}: a folder, and a notebook from a stream has no name", hint="Name the file.")
        self._given["output"] = output_file(notebook, output, on_server=self._on_server)

    def fill_in(self, parameters: Mapping[str, Any]) -> bool:
        """Fill in what needs parameters, and return whether anything did."""
        for name, path in self._late.items():
            self._given[name] = self._filled(REPORTS[name], path, parameters)
        return bool(self._late)

    def output_of_batch(self) -> Any:
        """Return the output as :func:`nbrun.run_many` takes it: that of a single run is exactly the file."""
        from nbrun.core.batch.output_paths import Template

        output = self._given["output"]
        if output is None:
            return None
        if is_template(output):
            return Template(output, self._now())
        return output if self._notebook is None else Template.exactly(output)

    def _filled(self, option: str, path: str, parameters: Mapping[str, Any], *, late: str = "") -> str | None:
        from nbrun.core.batch.output_paths import Fields, Template, template_of_all
        from nbrun.storage.paths import tree_path

        if self._notebook is None:
            return template_of_all(option, path, self._now())
        template = Template(path)
        if late and template.parameters:
            self._late[late] = path
            return None
        tree = self._notebook.strip("/") if self._on_server else tree_path(self._notebook)
        return template.fill(Fields(tree, 1, self._now().when, self._now().run_id, parameters))

    def _now(self) -> Any:
        from datetime import datetime

        from nbrun.core.batch.output_paths import Stamp

        self._stamp = self._stamp or Stamp(datetime.now().astimezone(), os.urandom(4).hex())
        return self._stamp
