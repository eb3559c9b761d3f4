"""Every way a run can fail, with the exit code it ends in and a hint of what to do next.

Errors carry plain values and import nothing of nbrun, so that any room may raise them. A *cell's* failure is no
exception: it is a value in :mod:`nbrun.core.results`. The exceptions here are the *world's*: a wrong call, a server
or a kernel that failed us. ``str(error)`` is one sentence of what and where; ``error.hint`` says what to do about it.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How the process ends. The table in ``docs/cli.md`` is tested to agree with this one."""

    OK = 0
    """Everything that ran passed."""
    NOTEBOOK_FAILED = 1
    """A cell raised or timed out."""
    USAGE = 2
    """The call was wrong: usage, no such notebook, not a notebook, no such kernel, a place that cannot be written."""
    NOTHING_TO_RUN = 3
    """The patterns matched no notebook."""
    SERVER = 4
    """The server failed us: unreachable, refused the token, went away, would not save; or a report was not written."""
    KERNEL = 5
    """The kernel failed us: did not start, died, was restarted by someone else."""
    INCOMPLETE = 6
    """No cell failed that was not allowed to, but output is known to be lost."""
    BUG = 70
    """A bug in nbrun."""
    INTERRUPTED = 130
    """Ctrl-C; results so far are saved."""
    TERMINATED = 143
    """SIGTERM or SIGHUP; results so far are saved."""


class NbrunError(Exception):
    """The base of all errors that nbrun raises on purpose."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(NbrunError):
    """The call cannot be carried out as it was made; nothing was run and nothing was changed."""

    exit_code = ExitCode.USAGE


class NoSuchNotebook(UsageError):
    """There is no notebook at the given path."""


class NotANotebook(UsageError):
    """The file is there, but it does not hold a notebook that can be run."""


class NoSuchKernel(UsageError):
    """The server has no kernelspec of the wanted name."""


class ServerError(NbrunError):
    """The server failed us."""

    exit_code = ExitCode.SERVER


class ServerUnreachable(ServerError):
    """No connection, or none that lasted: refused, reset, timed out, or a gateway error from a proxy."""


class PrivateServerEnded(ServerUnreachable):
    """The private server's process has ended by itself: to ask it again is of no use."""


class ServerRestarted(ServerError):
    """The server is there, but it is not the process that it was: it has forgotten its sessions and kernels."""


class Throttled(ServerUnreachable):
    """The server, or a proxy in front of it, says when to come back; ``retry_after`` is that in seconds from now."""

    def __init__(self, message: str, *, retry_after: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class AccessDenied(ServerError):
    """The server does not accept the token, the password or the cookie."""


class NotFound(ServerError):
    """The server says that there is no such file, session or kernel."""


class NotAJupyterServer(ServerError):
    """Something answered, but with a web page or a shape that is not the Jupyter Server API."""


class RequestRefused(ServerError):
    """The server understood and refused.

    ``status`` is the HTTP status; the message quotes the server's own.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class TooLarge(RequestRefused):
    """The body is larger than the server, or a proxy in front of it, takes."""


class ResponseTooLarge(ServerError):
    """The server sent more than nbrun reads: a response body or a message of a kernel beyond its limit."""


class SaveFailed(ServerError):
    """The executed notebook could not be saved where it was asked for."""


class BadFrame(ServerError):
    """A websocket frame that is no kernel message in either subprotocol."""


class KernelError(NbrunError):
    """The kernel failed us."""

    exit_code = ExitCode.KERNEL


class KernelStartFailed(KernelError):
    """The kernel did not come up, or not in time."""


class KernelNotLaunched(KernelStartFailed):
    """The program that the kernelspec names cannot be run at all."""


class KernelDied(KernelError):
    """The kernel is no more, or is no longer the one this run was talking to."""
