"""Notebooks as pytest's items: each one is a test, which fails with the cell that failed.

One private server for each root (the notebook's git root or folder) serves all of a process's notebooks; each worker of
pytest-xdist has its own. Limits that a notebook's metadata sets hold here as everywhere.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.durations import parse_duration
from nbrun.core.job import STARTUP_LIMIT, Job, Limits
from nbrun.core.results import NotebookResult
from nbrun.core.tracebacks import trimmed
from nbrun.errors import NbrunError
from nbrun.notebook_server import NotebookServer
from nbrun.places import root_for
from nbrun.reporters import wording
from nbrun.reporters.record import Record, fault_of


class Notebooks:
    """Collects notebooks, and keeps the servers that run them."""

    def __init__(self, config: pytest.Config) -> None:
        self._servers: dict[Path, NotebookServer] = {}
        limits = Limits(
            run=_seconds(config, "--nbrun-timeout"),
            cell=_seconds(config, "--nbrun-cell-timeout"),
            silence=_seconds(config, "--nbrun-idle-timeout"),
            startup=_seconds(config, "--nbrun-startup-timeout") or STARTUP_LIMIT,
        )
        self._settings: dict[str, Any] = {
            "kernel": config.getoption("--nbrun-kernel"),
            "limits": limits,
            "save": config.getoption("--nbrun-save"),
        }

    @pytest.hookimpl
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Take notebooks, but none of Jupyter's checkpoints."""
        if file_path.suffix != ".ipynb" or ".ipynb_checkpoints" in file_path.parts:
            return None
        file: NotebookFile = NotebookFile.from_parent(parent, path=file_path)
        file.notebooks = self
        return file

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End the servers."""
        while self._servers:
            self._servers.popitem()[1].close()

    def run(self, path: Path, name: str, record: Record) -> NotebookResult:
        """Run a notebook, on a server that was started for an earlier one if there is one for its root."""
        root = root_for([(path, path)])
        if root not in self._servers:
            server = NotebookServer(root)
            server.start()
            self._servers[root] = server
        return self._servers[root].run(Job(name, **self._settings), path, observe=record.observe)


class NotebookFile(pytest.File):
    """A file with one test in it."""

    notebooks: Notebooks

    def collect(self) -> Iterator[pytest.Item]:
        """Give the notebook as an item."""
        item: NotebookItem = NotebookItem.from_parent(self, name="notebook")
        item.notebooks = self.notebooks
        yield item


class NotebookFailed(Exception):
    """A notebook did not pass; the text says where and why."""


class NotebookItem(pytest.Item):
    """A notebook as a test."""

    notebooks: Notebooks

    def runtest(self) -> None:
        """Run the notebook."""
        record = Record()
        name = self.nodeid.partition("::")[0]
        result = self.notebooks.run(self.path, name, record)
        for warning in result.warnings:
            self.add_report_section("call", "nbrun", warning)
        if not result.went_well:
            raise NotebookFailed(told(record, name, result))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the cell, not the inside of nbrun."""
        match excinfo.value:
            case NotebookFailed() as failed:
                return str(failed)
            case NbrunError() as error:
                return f"{error}\n  {error.hint}" if error.hint else str(error)
            case _:
                return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the test by its notebook."""
        return self.path, 0, self.nodeid.partition("::")[0]


def told(record: Record, name: str, result: NotebookResult) -> str:
    """Say why a notebook did not pass: the sentence, the cell with its failing line, the traceback."""
    lines = [line.removeprefix(f"{name}: ") for line in wording.problem(result)]
    fault = fault_of(record.runs[name], result) if name in record.runs else None
    if fault is not None:
        lines += ["", f"{fault.run.title(fault.cell)}"]
        lines += [f"{'>' if hit else ' '} {number:4} | {text}" for number, text, hit in fault.excerpt()]
        if fault.cell.error and fault.cell.error.traceback:
            lines += ["", *trimmed(fault.cell.error.traceback)]
    return "\n".join(lines)


def _seconds(config: pytest.Config, option: str) -> float | None:
    given = config.getoption(option)
    if given is None:
        return None
    try:
        return parse_duration(given)
    except ValueError as error:
        raise pytest.UsageError(f"{option}: {error}") from None
