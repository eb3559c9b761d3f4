"""The command ``nbrun``: its subcommands, and the exit code of the process.

A subcommand is imported when it is called, so ``nbrun --help`` takes little more time than importing click.
"""

import atexit
import contextlib
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import click

from nbrun.cli.standard_streams import lost_output, prepare_standard_streams
from nbrun.errors import ExitCode, NbrunError
from nbrun.reporters.safe_stream import finish_standard_streams, protect_standard_streams
from nbrun.version import __version__

_COMMANDS = {
    "run": ("nbrun.cli.run", "Run notebooks and save them with their outputs."),
    "batch": ("nbrun.cli.batch", "Run a named job from the project's settings."),
    "merge": ("nbrun.cli.merge", "Merge the results of --shard K/N into one result and its reports."),
    "plan": ("nbrun.cli.plan", "Show what a run would do: parameters, kernel, cells and limits."),
    "schedule": ("nbrun.cli.schedule", "Write timers and cron lines for scheduled batches, and check their runs."),
    "publish": ("nbrun.cli.publish", "Rebuild the index of published reports, and delete old runs."),
    "doctor": ("nbrun.cli.doctor", "Check whether notebooks can be run on a server or this machine."),
}
_TYPED = "nbrun.typed"
COLLECT_EVERY = 200_000
"""Objects that are created until the garbage collector looks at them; Python's default is 700 or 2000."""


class _LazyCommands(click.Group):
    """A command group that imports its subcommands on demand."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the command line, and add hints to errors."""
        typed = [*args]
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise self._explained(error, typed) from None
        context.meta[_TYPED] = typed
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Call the subcommand, and add hints to errors in its options."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise self._explained(error, ctx.meta[_TYPED]) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand; raise :class:`click.UsageError` with a suggestion for an unknown one."""
        name, *rest = args
        if name not in _COMMANDS and not ctx.resilient_parsing:
            from nbrun.cli.mistakes import unknown_command

            raise click.UsageError(unknown_command(name, rest, [*_COMMANDS]), ctx=ctx)
        return super().resolve_command(ctx, args)

    def _explained(self, error: click.UsageError, typed: list[str]) -> click.UsageError:
        from nbrun.cli.mistakes import explained

        return explained(error, typed, self)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(cls=_LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nbrun")
def cli() -> None:
    """Run Jupyter notebooks headless, on a private or an existing Jupyter server.

    \b
    Exit codes:
      0  every cell passed                   4  the server failed
      1  a cell failed or timed out          5  the kernel failed
      2  wrong usage                         6  cells passed, but output was lost
      3  no notebook found                   7  a scheduled run is late or missing
     70  a bug in nbrun
      130 / 143  stopped by Ctrl-C / SIGTERM or SIGHUP; results so far are saved
    """  # noqa: D301  (click reads the backspace)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    prepare_standard_streams()
    protect_standard_streams()
    code = _exit_code()
    if lost := lost_output():
        click.echo(f"nbrun: standard output cannot be written: {lost}", err=True)
        code = code or ExitCode.SERVER
    finish_standard_streams()
    sys.exit(code)


def main_of_process() -> NoReturn:
    """Run the command line and end the process as early as possible.

    Imports create no garbage, so few collections look for it. At the end the process does not delete its modules one by
    one, which takes longer than many notebooks. Threads and exit handlers are waited for as usual. Profilers and
    debuggers get the usual end. With ``PYTHONINSPECT``, which is meant for the kernel, Python would ask for input.
    """
    gc.set_threshold(COLLECT_EVERY, 20, 20)
    try:
        main()
    except SystemExit as end:
        if _is_observed():
            raise
        code = end.code if isinstance(end.code, int) else 0
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _is_observed() -> bool:
    """Return whether a profiler, a debugger or a tool for coverage is active."""
    monitoring = getattr(sys, "monitoring", None)
    tools = [monitoring.get_tool(number) for number in range(6)] if monitoring is not None else []
    return any(tools) or sys.gettrace() is not None or sys.getprofile() is not None


def _exit_code() -> int:
    """Run the command, then what waits for its end however it ended, and return the exit code."""
    endings: list[Callable[[int, BaseException | None], list[str]]] = []
    code, error = _ended(endings)
    for end in endings:
        try:
            warnings = end(code, error)
        except (Exception, KeyboardInterrupt) as failure:  # noqa: BLE001  (the run has its outcome)
            warnings = [f"{type(failure).__name__}: {failure}"]
        for warning in warnings:
            click.echo(f"nbrun: warning: {warning}", err=True)
    return code


def _ended(endings: list[Any]) -> tuple[int, BaseException | None]:
    """Run the command and print its error; return the exit code and the error."""
    try:
        outcome = cli.main(standalone_mode=False, obj=endings)
    except click.ClickException as error:
        error.show()
        return error.exit_code, error
    except (click.Abort, KeyboardInterrupt) as error:
        return ExitCode.INTERRUPTED, error
    except NbrunError as error:
        click.echo(f"nbrun: {error}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        return error.exit_code, error
    except Exception as error:  # noqa: BLE001  (whatever comes here is a bug, and is to be told as one)
        traceback.print_exc()
        click.echo(f"nbrun {__version__}: this is a bug in nbrun. Please report it with the lines above.", err=True)
        return ExitCode.BUG, error
    return outcome if isinstance(outcome, int) else ExitCode.OK, None
