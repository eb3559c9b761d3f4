"""Generate the parts of the documentation that follow from the code (``python docs/reference.py``).

These are ``docs/cli.md``, ``docs/nbrun.schema.json`` and the module list of ``docs/architecture.md``. Editors use the
schema to complete and check a project's settings. Tests compare the files with the code.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import click
from click.testing import CliRunner

from nbrun.cli.config.files import settings_of
from nbrun.cli.config.schema import schema
from nbrun.cli.main import cli
from nbrun.cli.run import command as run
from nbrun.core.planning.option_types import options_in
from nbrun.errors import ExitCode
from nbrun.runner.job import BatchOptions, RunOptions

PAGE = Path(__file__).with_name("cli.md")
ARCHITECTURE = Path(__file__).with_name("architecture.md")
SCHEMA = Path(__file__).with_name("nbrun.schema.json")

_HEAD = """\
# Command line

This page is generated from the command's help by `python docs/reference.py`. Do not edit it.

`nbrun`, `jupyter nbrun` and `python -m nbrun` are the same command. Messages go to standard error. Standard output
carries only data that you asked for (`--json -`).

## Environment

| variable | meaning |
|---|---|
| `NBRUN_TOKEN`, `JUPYTER_TOKEN` | the token of `--server`; the first one set is used; `--token-file` takes precedence |
| `NBRUN_PASSWORD` | the password of `--server`, if it uses a password instead of a token |
| `NO_COLOR`, `FORCE_COLOR` | turn colours off; turn colours on even if the output is not a terminal |
| `NBRUN_BROWSER` | the browser that prints `--pdf`: a path, or a name on `PATH` |
| `JUPYTER_PATH` | additional directories in which the private server looks for kernelspecs |

There is no option for a token, because every user of a machine can read the command lines of all processes. A URL with
`?token=…` works, with a warning. The token is never printed.

Without `--server` these variables have no effect. Options that only an existing server needs, such as `--token-file`,
`--header` and `--ca-file`, are then refused on the command line and ignored in the settings.

## Exit codes
"""

_OPTIONS = """\
## Options in Python

The options of `nbrun.run` and `nbrun.run_many` are the ones above; the key of the settings is the flag without its
dashes. A flag such as `--no-save` sets an option that is true by default to false. Durations and sizes are numbers or
text: `cell_timeout="5m"`, `max_output="50MB"`.

| Python | command line | default | of | may differ in `[[overrides]]` |
|---|---|---|---|---|"""


def page() -> str:
    """Return the text of the page."""
    rows = ["| code | meaning |", "|--:|---|", *(f"| {code.value} | {meaning(code)} |" for code in ExitCode)]
    commands = [f"## {path}\n\n```text\n{text}```\n" for path, text in helps()]
    return "\n".join([_HEAD, *rows, "", *commands, _OPTIONS, *option_rows(), ""])


def option_rows() -> list[str]:
    """Return the rows of the table of options."""
    of_run = options_in(RunOptions)
    rows = []
    for name, option in options_in(BatchOptions).items():
        flag = "" if option.flags is None else f"`--{option.setting(name)}`"
        default = f"`{option.default!r}`" if option.flags is not None or option.default is not None else ""
        where = "run" if name in of_run else "batch"
        rows.append(f"| `{name}` | {flag} | {default} | {where} | {'yes' if option.each else ''} |")
    return rows


def meaning(code: ExitCode) -> str:
    """Return what an exit code means: the text that stands below it in the code."""
    lines = Path(str(ExitCode.__module__.replace(".", "/")) + ".py")
    source = (Path(__file__).parent.parent / lines).read_text(encoding="utf-8")
    return source.split(f"    {code.name} = {code.value}\n")[1].split('"""')[1].rstrip(".")


def helps() -> list[tuple[str, str]]:
    """Return every command with its ``--help``."""
    runner = CliRunner()
    paths = [[], *_paths(cli)]
    return [
        (
            " ".join(["nbrun", *path]),
            runner.invoke(cli, [*path, "--help"], prog_name="nbrun", terminal_width=100).output,
        )
        for path in paths
    ]


def _paths(group: click.Group, *above: str) -> Iterator[list[str]]:
    """Yield the names of every command below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield [*above, name]
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _paths(command, *above, name)


def modules(folder: Path, indent: int = 1) -> list[str]:
    """Return a line for each module and package in `folder`, with the first sentence of its docstring."""
    lines = []
    files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
    packages = sorted(file.parent for file in folder.glob("*/__init__.py"))
    for path in [*files, *packages]:
        name = f"{'  ' * indent}{path.name}{'/' if path.is_dir() else ''}"
        lines.append(f"{name:28} {summary(path / '__init__.py' if path.is_dir() else path)}")
        if path.is_dir():
            lines += modules(path, indent + 1)
    return lines


def summary(module: Path) -> str:
    """Return the first sentence of a module's docstring, or as much of it as fits into a line."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"\.(?:\s|$)", text.split("\n\n")[0], maxsplit=1)[0].replace("\n", " ")
    return shorten(sentence, 90, placeholder=" …")


def architecture() -> str:
    """Return the text of ``docs/architecture.md`` with a current list of modules."""
    before, rest = ARCHITECTURE.read_text(encoding="utf-8").split("```text\n", 1)
    tree = "\n".join(["nbrun/", *modules(Path(__file__).parents[1] / "nbrun")])
    return f"{before}```text\n{tree}\n```{rest.split('```', 1)[1]}"


if __name__ == "__main__":
    ARCHITECTURE.write_text(architecture(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schema(settings_of(run)), indent=1) + "\n", encoding="utf-8")
