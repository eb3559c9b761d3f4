"""Options that several commands share, and the types of their values."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nbrun.core.formats.units import parse_duration, parse_size
from nbrun.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
TOKEN_VARIABLES = ("NBRUN_TOKEN", "JUPYTER_TOKEN")
PASSWORD_VARIABLE = "NBRUN_PASSWORD"  # noqa: S105  (a name, no password)


class Duration(click.ParamType[float]):
    """Seconds, written as a person writes a duration."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds; infinity for ``none``."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


SMALLEST_SIZE = 10_000


class Size(click.ParamType[int | None]):
    """A number of characters or bytes, written as a person writes a size; None for ``none``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number; refuse one that leaves no room for a note or a message."""
        try:
            size = parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size is not None and size < SMALLEST_SIZE:
            self.fail(f"{value!r} is too little; the least is {SMALLEST_SIZE // 1000}kB", param, ctx)
        return size


def _warn_of_token(context: click.Context, option: click.Parameter, address: str | None) -> str | None:
    """Warn of an address with a token in it, as browsers show it; the token is used all the same."""
    typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if address and typed and re.search(r"[?&]token=[^&#\s]", address):
        click.echo(
            "nbrun: warning: --server has a token in it, and everybody on this machine can read a command line.\n"
            "  Give the address without it, and the token in NBRUN_TOKEN or with --token-file.",
            err=True,
        )
    return address


def server_options(function: Function) -> Function:
    """Add the options that say which server, and what opens it."""
    for decorate in reversed(
        (
            click.option(
                "--server",
                metavar="URL",
                callback=_warn_of_token,
                help="Run on this Jupyter server. By default a private server is started.",
            ),
            click.option(
                "--token-file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Read the server's token from this file. The default is the variable NBRUN_TOKEN or "
                "JUPYTER_TOKEN.",
            ),
            click.option(
                "--ca-file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Trust the certificate authorities in this PEM file.",
            ),
            click.option("--insecure", is_flag=True, help="Do not verify the server's TLS certificate."),
            click.option(
                "--max-response",
                type=Size(),
                default="2GiB",
                show_default=True,
                help="Maximum size of a decompressed response of --server; none disables the limit.",
            ),
            click.option(
                "--max-frame",
                type=Size(),
                default="1GiB",
                show_default=True,
                help="Maximum size of one kernel message from --server; none disables the limit.",
            ),
        )
    ):
        function = decorate(function)
    return function


def find_token(token_file: Path | None) -> str | None:
    """Return the token from the file or the environment; never from the command line, which everybody can read."""
    if token_file is not None:
        try:
            return token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{token_file}: the token cannot be read: {error}") from None
    return next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)


def find_password() -> str | None:
    """Return the password from the environment."""
    return os.environ.get(PASSWORD_VARIABLE) or None
