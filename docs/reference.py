"""Write what follows from the command line itself (``python docs/reference.py``); tests hold them together.

These are ``docs/cli.md``, and ``docs/nbrun.schema.json``, by which editors complete a project's settings.
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

This page is written by `python docs/reference.py` out of the command itself; do not edit it.

`nbrun`, `jupyter nbrun` and `python -m nbrun` are the same command. What it says to people goes to standard error;
standard output carries data only (`--json -`).

## Environment

| variable | what it is |
|---|---|
| `NBRUN_TOKEN`, `JUPYTER_TOKEN` | the token of `--server`; the first that is set counts, `--token-file` before both |
| `NBRUN_PASSWORD` | the password of `--server`, where it has one instead of a token |
| `NO_COLOR`, `FORCE_COLOR` | no colours; colours also where the output is no terminal |
| `JUPYTER_PATH` | where the private server looks for further kernelspecs |

No option takes a token: everybody on a machine can read the command lines of all processes. An address that is pasted
with `?token=…` works, with a warning; the token is never printed.

## Exit codes
"""


def page() -> str:
    """Return the text of the page."""
    rows = ["| code | means |", "|--:|---|", *(f"| {code.value} | {meaning(code)} |" for code in ExitCode)]
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
