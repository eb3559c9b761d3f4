"""Generate ``docs/cli.md`` and ``docs/nbrun.schema.json`` from the command line (``python docs/reference.py``).

Editors use the schema to complete and check a project's settings. Tests compare both files with the code.
"""

import json
from pathlib import Path

import click
from click.testing import CliRunner

from nbrun.cli.config.files import options_of
from nbrun.cli.config.schema import schema
from nbrun.cli.main import cli
from nbrun.cli.run import command as run
from nbrun.errors import ExitCode

PAGE = Path(__file__).with_name("cli.md")
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
| `JUPYTER_PATH` | additional directories in which the private server looks for kernelspecs |

There is no option for a token, because every user of a machine can read the command lines of all processes. A URL with
`?token=…` works, with a warning. The token is never printed.

## Exit codes
"""


def page() -> str:
    """Return the text of the page."""
    rows = ["| code | meaning |", "|--:|---|", *(f"| {code.value} | {meaning(code)} |" for code in ExitCode)]
    commands = [f"## {path}\n\n```text\n{text}```\n" for path, text in helps()]
    return "\n".join([_HEAD, *rows, "", *commands])


def meaning(code: ExitCode) -> str:
    """Return what an exit code means: the text that stands below it in the code."""
    lines = Path(str(ExitCode.__module__.replace(".", "/")) + ".py")
    source = (Path(__file__).parent.parent / lines).read_text(encoding="utf-8")
    return source.split(f"    {code.name} = {code.value}\n")[1].split('"""')[1].rstrip(".")


def helps() -> list[tuple[str, str]]:
    """Return every command with its ``--help``."""
    runner = CliRunner()
    context = click.Context(cli)
    paths = [[], *([name] for name in cli.list_commands(context))]
    return [
        (
            " ".join(["nbrun", *path]),
            runner.invoke(cli, [*path, "--help"], prog_name="nbrun", terminal_width=100).output,
        )
        for path in paths
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schema(options_of(run)), indent=1) + "\n", encoding="utf-8")
