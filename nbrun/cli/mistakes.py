"""Hints for unknown commands, options and values on the command line.

This module is imported only after a mistake. Most hints are for users of papermill, nbconvert, ``jupyter execute`` and
nbmake, whose options have other names. ``docs/coming-from.md`` has the same translations as a table.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import click

COMMANDS = {
    "execute": "run", "exec": "run", "papermill": "run", "convert": "run", "nbconvert": "run", "start": "run",
    "test": "run", "check": "plan", "inspect": "plan", "show": "plan", "status": "doctor", "diagnose": "doctor",
}  # fmt: skip
"""Commands of other tools, with nbrun's equivalents."""

_SECRETS = "Set NBRUN_TOKEN or NBRUN_PASSWORD, or name a file with --token-file: everybody can read a command line."
_LESS_OR_MORE = (
    "-v logs the steps of a run, -q prints failures only, --log-output prints what cells print, --events FILE "
    "writes each step as JSON."
)
_PAGES = "--html writes a page; for other formats and templates run jupyter nbconvert on the executed notebook."
OPTIONS = {
    # papermill
    "--request-save-on-cell-execute": "--save-every 10s saves during the run; nbrun chooses when without it.",
    "--no-request-save-on-cell-execute": "There is no save after each cell; --save-every never saves at the end only.",
    "--log-level": _LESS_OR_MORE,
    # nbconvert and jupyter execute
    "--to": _PAGES,
    "--execute": "nbrun run executes in any case: leave this out.",
    "--inplace": "--in-place overwrites the notebook.",
    "--output-dir": "-o DIR/ writes the executed notebooks there.",
    "--output_dir": "-o DIR/ writes the executed notebooks there.",
    "--stdin": "nbrun run - reads the notebook from standard input.",
    "--stdout": "-o - writes the notebook to standard output.",
    "--clear-output": "A run replaces all outputs; --prepare-only removes them and executes nothing.",
    "--no-input": "--report-mode hides the code where the notebook is opened.",
    "--no-prompt": _PAGES,
    "--template": _PAGES,
    "--template-file": _PAGES,
    "--theme": _PAGES,
    "--embed-images": _PAGES,
    "--sanitize-html": _PAGES,
    "--kernel_name": "-k NAME chooses the kernel.",
    "--kernel-name": "-k NAME chooses the kernel.",
    "--startup_timeout": "--startup-timeout limits the kernel's start.",
    "--skip-cells-with-tag": "Cells with the tag skip-execution are not executed.",
    "--show-config": "nbrun plan NOTEBOOK shows what would be run; --config FILE names a file of settings.",
    "--generate-config": "Settings stand in pyproject.toml or nbrun.toml; --config FILE names another file.",
    "--config-file": "--config FILE names a file of settings.",
    "--debug": _LESS_OR_MORE,
    # nbmake and pytest
    "--nbmake": "nbrun run DIR --no-save runs all notebooks in a folder; pytest --nbrun DIR runs them as tests.",
    "--nbmake-timeout": "--cell-timeout limits each cell.",
    "--nbmake-kernel": "-k NAME chooses the kernel.",
    "--nbmake-find-import-errors": "A failed import fails its cell; --allow-errors runs the following cells as well.",
    "--overwrite": "--in-place overwrites the notebooks.",
    "--junitxml": "--junit FILE writes results as JUnit XML.",
    "--junit-xml": "--junit FILE writes results as JUnit XML.",
    "-n": "-j N runs N notebooks at the same time.",
    "--numprocesses": "-j N runs N notebooks at the same time.",
    "--workers": "-j N runs N notebooks at the same time.",
    "--parallel": "-j N runs N notebooks at the same time.",
    "-x": "--fail-fast starts no other notebook after the first that failed.",
    "--exitfirst": "--fail-fast starts no other notebook after the first that failed.",
    "--maxfail": "--max-failures N starts no other notebook after N failures.",
    "--reruns": "--retries N runs a failed notebook again.",
    "--ignore": "--exclude GLOB leaves notebooks out.",
    # what one might expect
    "--token": _SECRETS,
    "--password": _SECRETS,
    "--url": "--server URL names a running server.",
    "--host": "--server URL names a running server.",
    "--gateway-url": "--server URL names a running server or kernel gateway.",
    "--cert": "--ca-file FILE names the certificates to trust.",
    "--no-verify": "--insecure does not check the server's certificate.",
    "--param": "-p NAME VALUE sets a parameter.",
    "--parameter": "-p NAME VALUE sets a parameter.",
    "--params": "-p NAME VALUE sets a parameter, -f FILE those in a file.",
    "--dry-run": "nbrun plan NOTEBOOK shows what would be run; --prepare-only writes the notebook with its parameters.",
    "--version": "nbrun --version shows the version.",
    "--recursive": "Folders are searched with all folders in them.",
}
"""Options of other tools and options that users may expect, with nbrun's equivalents."""

TRAITS = {
    "timeout": "--cell-timeout limits each cell.",
    "kernel_name": "-k NAME chooses the kernel.",
    "allow_errors": "--allow-errors runs the following cells after an error.",
    "startup_timeout": "--startup-timeout limits the kernel's start.",
    "iopub_timeout": "nbrun waits for all outputs of a cell: leave this out.",
    "skip_cells_with_tag": "Cells with the tag skip-execution are not executed.",
    "record_timing": "--no-timing writes no times into the notebook.",
    "store_widget_state": "The state of widgets is always saved: leave this out.",
    "interrupt_on_timeout": "A cell at its limit is always interrupted: leave this out.",
    "output_base": "-o PATH names the executed notebook.",
    "token": _SECRETS,
    "password": _SECRETS,
}
"""Settings of Jupyter applications, in the form ``--Class.name=value``."""

_TYPO = 0.85
"""How similar an option is to a mistyped one; less similar ones are suggested if no other command has the option."""
_NAMED = re.compile(r"[^\W\d]\w*$")
_LIKE_A_PATH = re.compile(r"[/\\*?\[]|\.(?:ipynb|py|md|qmd|Rmd|json|txt)$")


def explained(error: click.UsageError, arguments: Sequence[str], command: click.Group) -> click.UsageError:
    """Return `error`, with a hint if the `arguments` contain a known mistake."""
    context = error.ctx or click.get_current_context(silent=True)
    match error:
        case click.NoSuchOption():
            hint = _option_hint(error.option_name, context, command)
            if not hint:
                return error
            message = f"No such option: {error.option_name}"
        case click.BadOptionUsage():
            hint, message = _usage_hint(error, arguments), error.format_message()
        case click.MissingParameter() if context is not None and context.info_name in ("run", "plan"):
            message = error.format_message()
            hint = f"Name a notebook: nbrun {context.info_name} report.ipynb"
        case _:
            return error
    return click.UsageError(f"{message}\n  {hint}" if hint else message, ctx=context)


def unknown_command(name: str, arguments: Sequence[str], commands: Sequence[str]) -> str:
    """Return the message for an unknown command."""
    if _LIKE_A_PATH.search(name) or name in (".", "-") or Path(name).exists():
        rest = "".join(f" {word}" for word in (name, *arguments))
        line = f"nbrun run{rest}" if len(rest) <= 80 and rest.isprintable() else "nbrun run PATH"
        return f"{name!r} is no command.\n  To run a notebook: {line}"
    if name in ("help", "version"):
        return f"{name!r} is no command.\n  Write nbrun --{name}."
    near = COMMANDS.get(name) or next(iter(get_close_matches(name, [*commands, *COMMANDS], 1)), "")
    near = COMMANDS.get(near, near)
    hint = f"Did you mean nbrun {near}?" if near else f"There are {', '.join(commands)}: nbrun run report.ipynb"
    return f"No such command {name!r}.\n  {hint}"


def parameter_with_equals(option: str, name: str) -> str:
    """Return the message for ``-p region=US``."""
    name, _, value = name.partition("=")
    shown = f"{option} {name.strip()} {value.strip() or 'VALUE'}"
    return f"{option} takes NAME and VALUE, with a blank between them.\n  Write {shown if len(shown) < 80 else option}"


def _option_hint(name: str, context: click.Context | None, group: click.Group) -> str:
    if trait := re.fullmatch(r"--\w+\.(\w+)", name):
        return TRAITS.get(trait[1], "nbrun takes no settings of Jupyter applications; nbrun run --help lists its own.")
    here = context.command if context is not None else group
    if here is not group and name in OPTIONS:
        return OPTIONS[name]
    own = [option for option in _options_of(here) if option.startswith("--")]
    near = get_close_matches(name, own, 3, _TYPO)
    elsewhere = [] if near else _commands_with(name, group, here)
    if here is group and elsewhere:
        return f"Options follow the command: nbrun {elsewhere[0]} {name} …"
    if name in OPTIONS:
        return OPTIONS[name]
    if elsewhere:
        return f"It is an option of nbrun {' and nbrun '.join(elsewhere)}."
    near = near or get_close_matches(name, own, 3)
    return f"Did you mean {' or '.join(near)}?" if near else f"{_help_of(context)} lists all options."


def _commands_with(name: str, group: click.Group, here: click.Command) -> list[str]:
    """Return the names of the other commands that have an option. This imports all of them, which takes 20 ms."""
    context = click.Context(group)
    commands = {other: group.get_command(context, other) for other in group.list_commands(context)}
    return [
        other
        for other, command in commands.items()
        if command is not None and command is not here and name in _options_of(command)
    ]


def _options_of(command: click.Command) -> list[str]:
    return [name for option in command.params for name in (*option.opts, *option.secondary_opts)]


def _help_of(context: click.Context | None) -> str:
    return f"{context.command_path if context else 'nbrun'} --help"


def _usage_hint(error: click.BadOptionUsage, arguments: Sequence[str]) -> str:
    option = str(error.option_name)
    if option in ("-p", "--parameters", "-r", "--parameters_raw", "--parameters-raw"):
        at = max((number for number, word in enumerate(arguments) if word == option), default=len(arguments))
        name, equals, value = "".join(arguments[at + 1 : at + 2]).partition("=")
        good = _NAMED.match(name) and len(name) + len(value) < 60
        return (
            f"Write {option} {name} {value if equals and value else 'VALUE'}" if good else f"Write {option} NAME VALUE"
        )
    return ""
