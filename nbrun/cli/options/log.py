"""The option ``-v`` and the log on standard error.

The library only creates records. The command line attaches one handler to the logger ``nbrun``: warnings without
``-v``, INFO with ``-v``, DEBUG with ``-vv``. The handler looks up ``sys.stderr`` for each record: there the records go
through the filter for control characters and CI commands, and a live display puts itself below them.
"""

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nbrun.core.formats.safe_text import safe_text
from nbrun.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
VARIABLE = "NBRUN_VERBOSE"
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_LOGGER = "nbrun"
_META = "nbrun.log"


def log_option(function: Function) -> Function:
    """Add the option ``-v``."""
    return click.option(
        "-v",
        "--verbose",
        count=True,
        envvar=VARIABLE,
        help="Log the steps of a run to standard error; -vv also logs HTTP requests, kernel requests and cells. The "
        f"variable {VARIABLE} can hold 1 or 2.",
    )(function)


class LogHandler(logging.Handler):
    """Writes records to standard error, with secrets masked."""

    def __init__(self) -> None:
        super().__init__()
        self._hidden: set[str] = set()
        self._mask: Callable[[str], str] = str

    def hide(self, secrets: Iterable[str | None]) -> None:
        """Mask these values too from now on."""
        new = {secret for secret in secrets if secret} - self._hidden
        if new:
            from nbrun.core.outputs.masking import Mask

            self._hidden |= new
            self._mask = Mask(self._hidden).text

    def format(self, record: logging.LogRecord) -> str:
        """Return the text for a record: the time since the start, the logger's short name, and the message."""
        message = self._mask(safe_text(self._mask(record.getMessage()))).replace("\n", "\n    ")
        if record.levelno >= logging.WARNING:
            return f"nbrun: {message}"
        name = record.name.removeprefix(f"{_LOGGER}.")
        return f"{record.relativeCreated / 1000:8.3f} {name}: {message}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; an error in it or of the stream does not end the run."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001  (a log is worth less than the run)
            return


def start_log(given: dict[str, Any]) -> None:
    """Attach the handler until the running command ends; raise :class:`UsageError` for both -q and -v.

    If only one of the two is on the command line, it takes precedence over the other from the settings or the
    environment.
    """
    context = click.get_current_context()
    if given.get("quiet") and given["verbose"]:
        typed = {name for name in ("quiet", "verbose") if _is_typed(context, name)}
        if len(typed) != 1:
            raise UsageError("-q and -v contradict each other", hint="Leave one of them out.")
        given["verbose" if "quiet" in typed else "quiet"] = 0
    logger = logging.getLogger(_LOGGER)
    handler, level = LogHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(_LEVELS[min(given["verbose"], len(_LEVELS) - 1)])
    context.meta[_META] = handler

    def stop() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    context.call_on_close(stop)


def hide_in_log(secrets: Iterable[str | None]) -> None:
    """Mask these values in the log of the running command."""
    context = click.get_current_context(silent=True)
    if context is not None and (handler := context.meta.get(_META)) is not None:
        handler.hide(secrets)


def _is_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
