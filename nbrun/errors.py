"""Exit codes and their texts, and the exceptions of nbrun with their hints for the user.

This module imports nothing of nbrun, so that every layer can raise these errors. The failure of a *cell* is not an
exception but a value in :mod:`nbrun.core.results`. The exceptions here are failures of the environment: wrong usage, a
failed server or a failed kernel. ``str(error)`` is one sentence with what failed and where; ``error.hint`` is what the
user can do about it.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the command. A test compares them with the table in ``docs/cli.md``."""

    OK = 0
    """Every notebook that ran passed."""
    NOTEBOOK_FAILED = 1
    """A cell raised an error or timed out."""
    USAGE = 2
    """Wrong usage: bad option, no such notebook, not a notebook, no such kernel, or an unwritable output."""
    NOTHING_TO_RUN = 3
    """The patterns matched no notebook."""
    SERVER = 4
    """The server failed: unreachable, token refused, gone, or save refused; or a report could not be written."""
    KERNEL = 5
    """The kernel failed: it did not start, died, or was restarted by another client."""
    INCOMPLETE = 6
    """Output is known to be lost, or an artefact is missing. Every cell passed or was allowed to fail."""
    OVERDUE = 7
    """``nbrun schedule check``: a scheduled run is late or missing."""
    BUG = 70
    """A bug in nbrun."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C; results so far are saved."""
    TERMINATED = 143
    """Stopped by SIGTERM or SIGHUP; results so far are saved."""


class NbrunError(Exception):
    """Base class of the errors that nbrun raises."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(NbrunError):
    """Wrong usage; nothing was run or changed."""

    exit_code = ExitCode.USAGE


class NoSuchNotebook(UsageError):
    """There is no notebook at the given path."""


class NotANotebook(UsageError):
    """The file exists but does not contain a notebook that can be run."""


class NoSuchKernel(UsageError):
    """The server has no kernelspec with the requested name."""


class RunSkipped(NbrunError):
    """Another run holds the lock, and ``--lock skip`` leaves this one out; nothing was run or changed."""

    exit_code = ExitCode.OK


class ServerError(NbrunError):
    """The server failed; ``request`` is the request or the server that the message begins with, if any."""

    exit_code = ExitCode.SERVER
    request: str = ""

    @property
    def reason(self) -> str:
        """Return the message without the address of the request, for readers who know a file and not the API."""
        return str(self).removeprefix(f"{self.request}: ")


class ServerUnreachable(ServerError):
    """The server could not be reached: connection refused, reset or timed out, or a gateway error from a proxy."""


class PrivateServerEnded(ServerUnreachable):
    """The private server's process has exited; a retry cannot succeed."""


class ServerRestarted(ServerError):
    """The server was restarted during the run and has lost its sessions and kernels."""


class SeatLost(ServerError):
    """The place where a notebook ran is gone: a worker, its machine or its server. It may run on another one."""


class Throttled(ServerUnreachable):
    """The server or its proxy asked the client to wait; ``retry_after`` is the time in seconds."""

    def __init__(self, message: str, *, retry_after: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class AccessDenied(ServerError):
    """The server does not accept the token, the password or the cookie."""


class NotFound(ServerError):
    """The server has no such file, session or kernel."""


class NotAJupyterServer(ServerError):
    """The response is a web page or not of the Jupyter Server API."""


class RequestRefused(ServerError):
    """The server refused the request.

    ``status`` is the HTTP status; the message quotes the server's own.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class TooLarge(RequestRefused):
    """The request body is larger than the server or its proxy accepts."""


class ResponseTooLarge(ServerError):
    """A response body or a kernel message is larger than nbrun's limit."""


class SaveFailed(ServerError):
    """The executed notebook could not be saved to its output path."""


class BadFrame(ServerError):
    """A websocket frame is not a kernel message in either subprotocol."""


class KernelError(NbrunError):
    """The kernel failed."""

    exit_code = ExitCode.KERNEL


class KernelStartFailed(KernelError):
    """The kernel did not start, or not in time."""


class KernelNotLaunched(KernelStartFailed):
    """The kernelspec's program cannot be run."""


class KernelDied(KernelError):
    """The kernel has died or was replaced by another client."""
