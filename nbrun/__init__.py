"""Run Jupyter notebooks headless on a Jupyter server.

::

    import nbrun

    result = nbrun.run("report.ipynb", output="out/report.ipynb")
    print(result.outcome, result.exit_code)

Each name is imported when it is first used, because the command line and the private server's process also import this
package and need few of the names. ``__init__.pyi`` declares the same names for type checkers. A test compares the two.
"""

from importlib import import_module

_HOMES = {
    "nbrun.api.functions": ("plan", "prepare", "run", "run_async", "run_many", "run_many_async"),
    "nbrun.api.notebooks": ("NotebookPath", "Source"),
    "nbrun.api.servers": ("Server", "SyncServer", "connect", "private_server"),
    "nbrun.core.batch.terms": ("Override",),
    "nbrun.core.delivery.loss_mark": ("Incomplete",),
    "nbrun.core.events": (
        "BatchFinished",
        "BatchStarted",
        "CellFinished",
        "CellStarted",
        "Event",
        "Observer",
        "OutputArrived",
        "RunFinished",
        "Stage",
        "StageEntered",
        "Warned",
    ),
    "nbrun.core.outputs.limit": ("Truncated",),
    "nbrun.core.parameters.declarations": ("Declaration",),
    "nbrun.core.parameters.literals.base": ("LiteralWriter",),
    "nbrun.core.planning.plan": ("Action", "CellPlan"),
    "nbrun.core.planning.preview": ("Preview",),
    "nbrun.core.results": (
        "Attempt",
        "BatchFailed",
        "BatchResult",
        "CellError",
        "CellFailed",
        "CellOutcome",
        "CellResult",
        "NotebookResult",
        "Outcome",
        "Problem",
        "RunFailed",
    ),
    "nbrun.errors": (
        "AccessDenied",
        "BadFrame",
        "ExitCode",
        "KernelDied",
        "KernelError",
        "KernelNotLaunched",
        "KernelStartFailed",
        "NbrunError",
        "NoSuchKernel",
        "NoSuchNotebook",
        "NotAJupyterServer",
        "NotANotebook",
        "NotFound",
        "PrivateServerEnded",
        "RequestRefused",
        "ResponseTooLarge",
        "SaveFailed",
        "ServerError",
        "ServerRestarted",
        "ServerUnreachable",
        "Throttled",
        "TooLarge",
        "UsageError",
    ),
    "nbrun.jupyter.client": ("Client", "Identity", "ServerStatus"),
    "nbrun.jupyter.contents": ("Checkpoint", "Contents", "ContentsModel"),
    "nbrun.jupyter.endpoint": ("Endpoint",),
    "nbrun.jupyter.kernel.driver": ("Kernel",),
    "nbrun.jupyter.kernelspecs": ("KernelSpec", "KernelSpecs"),
    "nbrun.jupyter.sessions": ("KernelModel", "Kernels", "SessionModel", "Sessions"),
    "nbrun.core.protocol.messages": ("Message",),
    "nbrun.core.protocol.handshake": ("KernelInfo",),
    "nbrun.runner.job": ("BatchOptions", "RunOptions"),
    "nbrun.runner.stop": ("StopSwitch",),
    "nbrun.version": ("__version__",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nbrun' has no attribute {name!r}")
    _leave_records_to_the_caller()
    value: object = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def _leave_records_to_the_caller() -> None:
    """Add a null handler to the package's logger, once: without any handler, Python prints warnings itself.

    This happens at the first use of the Python API and not at import. The private server forks kernels from a process
    that has imported nbrun, and in a kernel no logger but the user's has a handler.
    """
    import logging

    logger = logging.getLogger(__name__)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__]
