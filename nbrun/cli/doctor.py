"""``nbrun doctor``: everything a run needs, tried out before the run.

On a server: is it reachable, which version is it, does it accept the token, which kernels has it, does one start, how
do its messages come, and which limits are known of its kind. Without ``--server``: the same of the private server.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from nbrun._lazy_imports import put_off_imports
from nbrun.cli.options.server import find_password, find_token, server_options
from nbrun.errors import ExitCode, UsageError


@click.command("doctor", short_help="Check a server, or this machine, before a run.")
@server_options
@click.option("-k", "--kernel", metavar="NAME", help="Try this kernel; the server's default otherwise.")
@click.option(
    "--clean",
    is_flag=True,
    help="End the sessions that killed nbruns left on --server: their owner mark has expired, nobody is connected at "
    "two looks 30 s apart, and the kernel is idle.",
)
def command(server: str | None, kernel: str | None, token_file: Path | None, *, clean: bool, **connection: Any) -> int:
    """Check a server, or without --server this machine, before a run.

    Starts a kernel and ends it again; touches no file. On a server it lists the sessions that killed nbruns left.
    Exit code 0 when a notebook can be run and --clean has ended all that it may end, else 2, 4 or 5.
    """
    if clean and not server:
        raise UsageError(
            "--clean needs --server", hint="A private server ends with its run, whose sessions are never left."
        )
    put_off_imports()
    from rich.text import Text

    from nbrun.jupyter.http.client import HttpOptions
    from nbrun.reporters.console.safe_console import SafeConsole
    from nbrun.runner.doctor import Finding, examine

    console = SafeConsole(file=sys.stdout)
    signs = {True: ("ok  ", "green"), False: ("bad ", "bold red"), None: ("note", "yellow")}

    def show(finding: Finding) -> None:
        sign, style = signs[finding.good]
        console.print(Text.assemble((sign, style), " ", console.clean(finding.text)))
        if finding.hint:
            console.say(f"     {finding.hint}")

    token, password = (find_token(token_file), find_password()) if server else (None, None)
    failure = asyncio.run(
        examine(
            server,
            token=token,
            password=password,
            options=HttpOptions(
                connection["ca_file"],
                verify=not connection["insecure"],
                max_response=connection["max_response"],
                max_frame=connection["max_frame"],
            ),
            kernel=kernel,
            clean=asyncio.sleep if clean else None,
            show=show,
        )
    )
    return ExitCode.OK if failure is None else failure
