"""The environment variables of the private server's process and of its kernels.

Kernels get the environment of nbrun, except for tokens and passwords. The server's process starts without the variables
that change how Python works: ``PYTHONWARNINGS=error`` must not end it, and ``PYTHONDEVMODE`` must not slow it down. The
server adds them to the environment of each kernel that it starts. They have no effect on a forked kernel, so kernels
are not forked if one of them is set.

This module imports the standard library only. Sources: "Environment variables" in Python's documentation, 3.11 to 3.14.
"""

from collections.abc import Mapping

SECRET_VARIABLES = frozenset({"NBRUN_TOKEN", "NBRUN_PASSWORD", "JUPYTER_TOKEN"})
"""Variables from which nbrun reads tokens and passwords. A notebook that needs one gets it with ``--secret``."""

INTERPRETER_VARIABLES = frozenset(
    {
        "PYTHONASYNCIODEBUG",
        "PYTHONDEBUG",
        "PYTHONDEVMODE",
        "PYTHONDUMPREFS",
        "PYTHONDUMPREFSFILE",
        "PYTHONEXECUTABLE",
        "PYTHONFAULTHANDLER",
        "PYTHONINSPECT",
        "PYTHONINTMAXSTRDIGITS",
        "PYTHONMALLOC",
        "PYTHONMALLOCSTATS",
        "PYTHONNODEBUGRANGES",
        "PYTHONOPTIMIZE",
        "PYTHONPERFSUPPORT",
        "PYTHONPROFILEIMPORTTIME",
        "PYTHONSAFEPATH",
        "PYTHONTHREADDEBUG",
        "PYTHONTRACEMALLOC",
        "PYTHONVERBOSE",
        "PYTHONWARNDEFAULTENCODING",
        "PYTHONWARNINGS",
        "PYTHON_CONTEXT_AWARE_WARNINGS",
        "PYTHON_CPU_COUNT",
        "PYTHON_DISABLE_REMOTE_DEBUG",
        "PYTHON_FROZEN_MODULES",
        "PYTHON_GIL",
        "PYTHON_JIT",
        "PYTHON_PERF_JIT_SUPPORT",
        "PYTHON_PRESITE",
        "PYTHON_THREAD_INHERIT_CONTEXT",
        "PYTHON_TLBC",
    }
)
"""Variables that change the interpreter from its start, and that the server does not need.

Others are harmless for the server, are inherited by a forked kernel, or are read later: ``PYTHONHASHSEED``,
``PYTHONUNBUFFERED``, ``PYTHONDONTWRITEBYTECODE``, ``PYTHONUTF8``, ``PYTHONIOENCODING``, ``PYTHONNOUSERSITE``,
``PYTHONSTARTUP``…
"""


def kernel_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of nbrun's environment that the kernels of a private server get."""
    return {name: value for name, value in environment.items() if name not in SECRET_VARIABLES}


def withheld_from_server(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that only kernels get. Python ignores empty variables."""
    return {name: value for name, value in environment.items() if name in INTERPRETER_VARIABLES and value}
