"""Options and hooks of the pytest plug-in (``pytest --nbrun``).

The rest of nbrun is imported only with ``--nbrun``.
"""

from importlib import import_module

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of nbrun."""
    group = parser.getgroup("nbrun", "notebooks, executed by nbrun")
    group.addoption("--nbrun", action="store_true", help="Run each notebook (*.ipynb) as a test.")
    group.addoption("--nbrun-timeout", metavar="TIME", help="Time limit of each notebook: 90, 90s, 5m, 1h30m.")
    group.addoption("--nbrun-cell-timeout", metavar="TIME", help="Time limit of each cell.")
    group.addoption("--nbrun-idle-timeout", metavar="TIME", help="Time limit of a running cell without output.")
    group.addoption("--nbrun-startup-timeout", metavar="TIME", help="Time limit of the kernel's start.")
    group.addoption("--nbrun-kernel", metavar="NAME", help="Run with this kernelspec instead of the notebooks' own.")
    group.addoption("--nbrun-save", action="store_true", help="Write the executed notebooks back in place.")


def pytest_configure(config: pytest.Config) -> None:
    """Collect notebooks if ``--nbrun`` is given."""
    if config.getoption("--nbrun"):
        config.pluginmanager.register(import_module("nbrun.pytest_plugin.items").Notebooks(config), "nbrun-notebooks")
