"""Run Jupyter notebooks headless on a Jupyter server.

::

    import nbrun

    result = nbrun.run("report.ipynb", output="out/report.ipynb")
    print(result.outcome, result.exit_code)

Each name is imported when it is first used, because the command line and the private server's process also import this
package and need few of the names. ``__init__.pyi`` declares the same names for type checkers. A test compares the two.
"""

import logging
from importlib import import_module

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the caller decides where records go
_HOMES = {
    "nbrun.api": ("connect", "run", "run_async", "run_many", "run_many_async"),
    "nbrun.core.batch.terms": ("Override",),
    "nbrun.runner.job": ("BatchOptions", "RunOptions"),
    "nbrun.core.results": (
        "Attempt",
        "BatchResult",
        "CellError",
        "CellOutcome",
        "CellResult",
        "NotebookResult",
        "Outcome",
        "Problem",
    ),
    "nbrun.errors": ("ExitCode", "NbrunError"),
    "nbrun.runner.stop": ("StopSwitch",),
    "nbrun.version": ("__version__",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nbrun' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__]
