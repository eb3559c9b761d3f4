"""Options of the server, and where its token and password are found (file, environment)."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import click
from click.core import ParameterSource

from nbrun.cli.options.generated import declared
from nbrun.cli.options.log import hide_in_log
from nbrun.errors import UsageError
from nbrun.jupyter.endpoint import check_headers

Function = TypeVar("Function", bound=Callable[..., Any])
TOKEN_VARIABLES = ("NBRUN_TOKEN", "JUPYTER_TOKEN")
_OF_EXISTING_SERVER = ("token_file", "header", "ca_file", "insecure", "max_response", "max_frame")
_OF_PRIVATE_SERVER = ("zygote", "preload")
"""Options, by click's names."""
PASSWORD_VARIABLE = "NBRUN_PASSWORD"  # noqa: S105  (a name, no password)


def _warn_of_token(context: click.Context, option: click.Parameter, address: str | None) -> str | None:
    """Warn of a token in the address, as browsers show it. The token is used all the same."""
    typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if address and typed and re.search(r"[?&]token=[^&#\s]", address):
        click.echo(
            "nbrun: warning: --server has a token in it, and everybody on this machine can read a command line.\n"
            "  Give the address without it, and the token in NBRUN_TOKEN or with --token-file.",
            err=True,
        )
    return address


def server_options(function: Function) -> Function:
    """Add the options for the server and its token."""
    token_file = click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Read the server's token from this file. The default is the variable NBRUN_TOKEN or JUPYTER_TOKEN.",
    )
    header = click.option(
        "--header",
        multiple=True,
        metavar="'NAME: VALUE'",
        help="Send this HTTP header to --server, for example for a proxy. The value env:VARIABLE is read from that "
        "environment variable. Values are never shown. May be repeated.",
    )
    connection = declared("server", "ca_file", "verify", "max_response", "max_frame", server=_warn_of_token)
    return connection(token_file(header(function)))


def access_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the token and the password of the server, as keys of :class:`nbrun.RunOptions`.

    Raises :class:`UsageError` for an option on the command line that the server of the run does not use. Settings and
    environment variables are for runs on both kinds of servers, so they are ignored instead.
    """
    is_elsewhere = bool(given["server"] or given.get("engine"))
    typed = "" if given.get("engine") else _typed(_OF_PRIVATE_SERVER if given["server"] else _OF_EXISTING_SERVER)
    if typed and given["server"]:
        raise UsageError(f"{typed} is for a private server, and --server names an existing one")
    if typed:
        raise UsageError(f"{typed} needs --server", hint="Without --server nbrun starts a private server.")
    if not is_elsewhere:
        return {}
    token, password = find_token(given["token_file"]), find_password()
    headers = read_headers(given["header"])
    hide_in_log([token, password, *headers.values(), *_tokens_in(given["server"] or "")])
    return {"token": token, "password": password, "headers": headers}


def _typed(names: Sequence[str]) -> str:
    """Return the flag of the first of these options that is on the command line, or an empty text."""
    context = click.get_current_context()
    flags = {option.name: option.opts[0] for option in context.command.params}
    return next(
        (flags[name] for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE), ""
    )


def read_headers(texts: Sequence[str]) -> dict[str, str]:
    """Return the HTTP headers that ``NAME: VALUE`` describes; raise :class:`UsageError` without showing a value."""
    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name:
            raise UsageError(
                "--header: 'NAME: VALUE' is wanted", hint="Example: --header 'X-Proxy-Key: env:PROXY_KEY'."
            )
        if value.startswith("env:"):
            variable = value.removeprefix("env:").strip()
            if variable not in os.environ:
                raise UsageError(f"--header {name}: the environment variable {variable} is not set")
            value = os.environ[variable].strip()
        found[name] = value
    return check_headers(found)


def _tokens_in(address: str) -> list[str]:
    """Return the tokens in an address, encoded and decoded."""
    found = re.findall(r"[?&]token=([^&#\s]+)", address)
    return [*found, *map(unquote, found)]


def find_token(token_file: Path | None) -> str | None:
    """Return the token from the file or the environment. There is no option, because command lines are public."""
    if token_file is not None:
        try:
            return token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{token_file}: the token cannot be read: {error}") from None
    return next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)


def find_password() -> str | None:
    """Return the password from the environment."""
    return os.environ.get(PASSWORD_VARIABLE) or None
