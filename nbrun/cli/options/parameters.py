"""Options for parameters and secrets, spelled as in papermill."""

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from nbrun.cli.options.generated import declared
from nbrun.core.batch.output_paths import Fields, Stamp, Template
from nbrun.core.planning.destinations import is_source_url
from nbrun.core.planning.job import Secret
from nbrun.errors import UsageError
from nbrun.reporters.safe_stream import write_command

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ParameterTexts:
    """The parameters and secrets on the command line, as text."""

    parameters: Sequence[tuple[str, str]]
    parameters_raw: Sequence[tuple[str, str]]
    parameters_file: Sequence[str]
    parameters_yaml: Sequence[str]
    parameters_base64: Sequence[str]
    parameter_template: Sequence[str]
    inject_input_path: bool
    inject_output_path: bool
    inject_paths: bool
    secret: Sequence[str]
    secret_file: Sequence[str]
    env: Sequence[str]


def parameter_options(function: Function) -> Function:
    """Add the options for parameters and secrets, which :func:`read_parameters` reads."""
    for decorate in reversed(
        (
            click.option(
                "-p", "--parameters", nargs=2, multiple=True, metavar="NAME VALUE", callback=_names_and_values,
                help="Set a parameter. VALUE becomes an integer, a float, True, False or None if it looks "
"like one.",
            ),
            click.option(
                "-r", "--parameters_raw", "--parameters-raw", nargs=2, multiple=True, metavar="NAME VALUE",
                callback=_names_and_values,
                help="Set a parameter to VALUE as text.",
            ),
            click.option(
                "-f", "--parameters_file", "--parameters-file", multiple=True, metavar="FILE",
                help="Set parameters from a YAML file, or from a TOML or JSON file with that suffix.",
            ),
            click.option(
                "-y", "--parameters_yaml", "--parameters-yaml", multiple=True, metavar="YAML",
                help="Set parameters from YAML text.",
            ),
            click.option(
                "-b", "--parameters_base64", "--parameters-base64", multiple=True, metavar="BASE64",
                help="Set parameters from base64-encoded YAML text.",
            ),
            click.option(
                "--parameter-template", multiple=True, metavar="NAME=TEMPLATE",
                help="Set a parameter to text with the fields of -o templates (example: day={date:%Y-%m-%d}). The date "
"is the one that the run is for, in the batch's timezone.",
            ),
            click.option(
                "--inject-input-path", is_flag=True,
                help="Set the parameter PAPERMILL_INPUT_PATH to the notebook's path.",
            ),
            click.option(
                "--inject-output-path", is_flag=True,
                help="Set the parameter PAPERMILL_OUTPUT_PATH to the output's path.",
            ),
            click.option(
                "--inject-paths", is_flag=True, help="Set both PAPERMILL_INPUT_PATH and PAPERMILL_OUTPUT_PATH.",
            ),
            click.option(
                "--secret", multiple=True, metavar="NAME[=ENVVAR]",
                help="Set NAME in the kernel from an environment variable. The value is not shown and is "
"masked in all outputs.",
            ),
            click.option(
                "--secret-file", multiple=True, metavar="NAME=PATH",
                help="Set NAME in the kernel from a file; masked like --secret.",
            ),
            click.option(
                "--env", multiple=True, metavar="NAME[=VALUE]",
                help="Set an environment variable of the kernel. Without VALUE it is that of nbrun. The value is "
"not masked; use --secret for secrets.",
            ),
        )
    ):  # fmt: skip
        function = decorate(function)
    return declared("allow_new", "language")(function)


def _names_and_values(
    context: click.Context, option: click.Parameter, pairs: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Refuse ``-p region=US``, which would use the next word as the value."""
    for name, _ in pairs:
        if "=" in name:
            from nbrun.cli.mistakes import parameter_with_equals

            raise click.UsageError(parameter_with_equals(option.opts[0], name), ctx=context)
    return pairs


def read_parameters(
    texts: ParameterTexts, notebook: str | None, output: str | None, *, on_seats: bool = False
) -> tuple[dict[str, Any], dict[str, Secret]]:
    """Return the parameters and the secrets of a run; raise :class:`UsageError`.

    Later sources take precedence, as in papermill: paths, base64, files, YAML, ``-p``, ``-r``. `notebook` is None for
    several notebooks. On GitHub the secrets are registered, so that its log masks them as well. With `on_seats`, a
    secret may be missing here (:attr:`Secret.problem`).
    """
    parameters = _paths(texts, notebook, output)
    if texts.parameters or texts.parameters_file or texts.parameters_yaml or texts.parameters_base64:
        parameters |= _read(texts)
    parameters |= dict(texts.parameters_raw)
    return parameters, _secrets(texts, on_seats) if texts.secret or texts.secret_file else {}


def read_templates(texts: ParameterTexts, taken: Collection[str]) -> dict[str, Template]:
    """Return the templates of parameters; raise :class:`UsageError` for a wrong one and for a name in `taken`."""
    found = {}
    for text in texts.parameter_template:
        name, equals, template = text.partition("=")
        where = f"--parameter-template {text}"
        if not equals or not name:
            raise UsageError(f"{where}: NAME=TEMPLATE is wanted", hint="Write --parameter-template 'day={date}'.")
        if name in taken or name in found:
            raise UsageError(f"{where}: {name} is set twice", hint="Leave one of them out.")
        found[name] = Template(template, where=where)
    return found


def named_templates(texts: Mapping[str, str]) -> dict[str, Template]:
    """Return the templates of ``parameter-templates`` in the settings, which were checked before."""
    return {name: Template(text, where=f"parameter-templates: {name} = {text}") for name, text in texts.items()}


def fill_templates(
    templates: Mapping[str, Template], notebook: str | None, stamp: Stamp, parameters: Mapping[str, Any]
) -> dict[str, str]:
    """Return the values of templates; raise :class:`UsageError` for a value that is missing or differs.

    `notebook` is the path of the only notebook in the tree, or None for several. `parameters` are those for
    ``{params.NAME}``.
    """
    if notebook is None:
        for template in templates.values():
            template.refuse_differing("a parameter has one value for all of them", "Use {date} and {run-id}.")
    fields = Fields(notebook or "", 1, stamp.when, stamp.run_id, parameters)
    return {name: template.fill_text(fields) for name, template in templates.items()}


def read_env(texts: ParameterTexts) -> dict[str, str]:
    """Return the environment variables of the kernel; raise :class:`UsageError`."""
    found = {}
    for text in texts.env:
        name, equals, value = text.partition("=")
        if not equals:
            if name not in os.environ:
                raise UsageError(
                    f"--env {name}: the environment variable {name} is not set",
                    hint=f"Give a value: --env {name}=VALUE",
                )
            value = os.environ[name]
        found[_name(name, text, "--env")] = value
    return found


def _paths(texts: ParameterTexts, notebook: str | None, output: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if notebook is None:
        if texts.inject_input_path or texts.inject_output_path or texts.inject_paths:
            raise UsageError("--inject-input-path and --inject-output-path are for one notebook")
        return found
    if texts.inject_input_path or texts.inject_paths:
        found["PAPERMILL_INPUT_PATH"] = notebook
    if texts.inject_output_path or texts.inject_paths:
        found["PAPERMILL_OUTPUT_PATH"] = output or notebook
    return found


def _read(texts: ParameterTexts) -> dict[str, Any]:
    # Imported here, because a run without parameters needs no YAML.
    from nbrun.runner import parameter_files

    found: dict[str, Any] = {}
    for text in texts.parameters_base64:
        found |= parameter_files.from_base64(text, "-b")
    for path in texts.parameters_file:
        is_url = is_source_url(path)
        found |= parameter_files.from_url(path, "-f") if is_url else parameter_files.from_file(Path(path), "-f")
    for text in texts.parameters_yaml:
        found |= parameter_files.from_yaml(text, "-y")
    return found | {name: parameter_files.guessed(name, text) for name, text in texts.parameters}


def _secrets(texts: ParameterTexts, on_seats: bool) -> dict[str, Secret]:
    from nbrun.runner.parameter_files import secret_of_environment, secret_of_file

    def read(place: str, get: Callable[[], str]) -> Secret:
        try:
            return Secret(get(), place)
        except UsageError as error:
            if not on_seats:
                raise
            return Secret("", place, error)

    found = {}
    for text in texts.secret:
        name, _, variable = text.partition("=")
        variable = variable or name
        get = partial(secret_of_environment, name, variable)
        found[_name(name, text, "--secret")] = read(f"env:{variable}", get)
    for text in texts.secret_file:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"--secret-file {text}: NAME=PATH is wanted")
        get = partial(secret_of_file, name, Path(path))
        found[_name(name, text, "--secret-file")] = read(f"file:{Path(path).absolute()}", get)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _announce(found)
    return found


def _name(name: str, text: str, option: str) -> str:
    if not name:
        raise UsageError(f"{option} {text}: a name is wanted before the =")
    return name


def _announce(secrets: Mapping[str, str]) -> None:
    """Register each line with GitHub for masking, on standard error because standard output carries data."""
    from nbrun.core.outputs.masking import lines_to_mask

    for secret in secrets.values():
        for line in lines_to_mask(secret):
            escaped = line.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
            write_command(sys.stderr, f"::add-mask::{escaped}")
