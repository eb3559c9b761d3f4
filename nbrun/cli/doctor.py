"""``nbrun doctor``: check everything that a run needs, without running a notebook.

For a server it checks whether the server is reachable, its version, the token, the kernels, whether a kernel starts,
how its messages arrive, and known limits. Without ``--server`` it checks the private server in the same way.
"""

import asyncio
import sys
from typing import Any

import click

from nbrun._lazy_imports import put_off_imports
from nbrun.cli.options.generated import OF_RUN, read_declared
from nbrun.cli.options.log import log_option, start_log
from nbrun.cli.options.server import access_options, server_options
from nbrun.errors import ExitCode, UsageError
from nbrun.runner.job import access_of, read_run_options


@click.command("doctor", short_help="Check whether notebooks can be run on a server or this machine.")
@server_options
@click.option("-k", "--kernel", metavar="NAME", help="Check this kernel. The default is the server's default kernel.")
@click.option(
    "--clean",
    is_flag=True,
    help="End sessions on --server that killed nbrun processes left: expired owner mark, idle "
    "kernel, and no connection at two checks 30 s apart.",
)
@log_option
def command(kernel: str | None, *, clean: bool, **given: Any) -> int:
    """Check whether notebooks can be run on a server, or on this machine without --server.

    Starts a kernel and shuts it down again. No file is written. With --server, also lists sessions that killed nbrun
    processes left there.

    The exit code is 0 when a notebook can be run and --clean ended every such session; otherwise 2, 4 or 5.
    """
    start_log(given)
    if clean and not given["server"]:
        raise UsageError(
            "--clean needs --server", hint="A private server ends with its run, whose sessions are never left."
        )
    put_off_imports()
    from rich.text import Text

    from nbrun.reporters.console.safe_console import SafeConsole
    from nbrun.runner.doctor import Finding, examine

    console = SafeConsole(file=sys.stdout)
    signs = {True: ("ok  ", "green"), False: ("bad ", "bold red"), None: ("note", "yellow")}

    def show(finding: Finding) -> None:
        sign, style = signs[finding.good]
        console.print(Text.assemble((sign, style), " ", console.clean(finding.text)))
        if finding.hint:
            console.say(f"     {finding.hint}")

    access = access_of(read_run_options({**read_declared(OF_RUN, given), **access_options(given)}))
    failure = asyncio.run(examine(access, kernel=kernel, clean=asyncio.sleep if clean else None, show=show))
    return ExitCode.OK if failure is None else failure
