"""Notebooks as pytest items: a test runs a notebook and fails with its failing cell.

The settings of the project apply, except for the output: executed notebooks are not saved. One private server per root
(the notebook's git root or folder) runs all notebooks of a process. With pytest-xdist, each worker has its own servers.
Limits in a notebook's metadata apply as everywhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbrun.cli.project import ProjectOptions, project_options
from nbrun.core.formats.safe_text import safe_text
from nbrun.core.formats.units import parse_duration
from nbrun.core.results import NotebookResult
from nbrun.errors import NbrunError, UsageError
from nbrun.reporters import phrases
from nbrun.reporters.run_log import Record, fault_of
from nbrun.reporters.safe_stream import is_on_runner
from nbrun.runner.job import RunOptions, access_of, job_of, paths_of, private_root
from nbrun.runner.run import run_on_host
from nbrun.runner.servers import Host, open_host
from nbrun.runner.stop import StopSwitch
from nbrun.runner.synchronous import ServerThread

_OPTIONS = ("timeout", "cell-timeout", "idle-timeout", "startup-timeout", "kernel")
"""The options that exist on both command lines, with the prefix ``--nbrun-`` in pytest's."""
_OF_SAVING: RunOptions = {
    "output": None,
    "in_place": False,
    "prepare_only": False,
    "checkpoint": False,
    "restore_on_failure": False,
}


_ODD = re.compile(r":(?=:)|#(?=#)|[^\S ]|[^\w\s!-~]")
"""Characters in a file name that pytest, a terminal or a CI runner may interpret."""


class LeftOut(Exception):
    """The project's settings skip the notebook. Raised and caught in this module."""


class Notebooks:
    """Collects notebooks, and keeps the servers that run them."""

    def __init__(self, config: pytest.Config) -> None:
        self._servers: dict[Path | str, ServerThread[Host]] = {}
        self._save = bool(config.getoption("--nbrun-save"))
        self._project = _settings(config)

    @pytest.hookimpl
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect notebooks, except Jupyter's checkpoints."""
        if file_path.suffix != ".ipynb" or ".ipynb_checkpoints" in file_path.parts:
            return None
        file: NotebookFile = NotebookFile.from_parent(parent, path=file_path)
        if _ODD.search(file.nodeid):
            file = NotebookFile.from_parent(parent, path=file_path, nodeid=_ODD.sub(_escape, file.nodeid))
        file.notebooks = self
        return file

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End the servers."""
        while self._servers:
            self._servers.popitem()[1].close()

    def run(self, path: Path, name: str, record: Record) -> NotebookResult:
        """Run a notebook on the server for its root, which is started if necessary.

        Raises :class:`LeftOut` if the settings skip it.
        """
        of_project = self._project.of(path)
        if of_project is None:
            raise LeftOut
        upload = True if of_project["server"] else None
        options: RunOptions = {**of_project, **_OF_SAVING, "save": self._save, "upload": upload}
        paths, access = paths_of(str(path), options), access_of(options)
        key = access.server or private_root([paths])
        if key not in self._servers:
            server = ServerThread(lambda: open_host(access, [paths]))
            server.start()
            self._servers[key] = server
        job, stop = job_of(name, options), StopSwitch()
        return self._servers[key].run(
            lambda host: run_on_host(job, paths, host, observe=record.observe, stop=stop), stop
        )


class NotebookFile(pytest.File):
    """A notebook file with one test."""

    notebooks: Notebooks

    def collect(self) -> Iterator[pytest.Item]:
        """Return the notebook as an item."""
        item: NotebookItem = NotebookItem.from_parent(self, name="notebook")
        item.notebooks = self.notebooks
        yield item


class NotebookFailed(Exception):
    """The notebook did not pass. The message contains the cell and the error."""


class NotebookItem(pytest.Item):
    """A notebook as a test item."""

    notebooks: Notebooks

    def runtest(self) -> None:
        """Run the notebook."""
        record = Record()
        name = self.nodeid.partition("::")[0]
        try:
            result = self.notebooks.run(self.path, name, record)
        except LeftOut:
            pytest.skip("left out by the project's settings")
        for warning in result.warnings:
            self.add_report_section("call", "nbrun", _safe(warning))
        if not result.went_well:
            raise NotebookFailed(_safe(failure_text(record, name, result)))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the failing cell instead of nbrun's traceback."""
        match excinfo.value:
            case NotebookFailed() as failed:
                return str(failed)
            case NbrunError() as error:
                return _safe(f"{error}\n  {error.hint}" if error.hint else str(error))
            case _:
                return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the notebook's name as the name of the test."""
        return self.path, 0, self.nodeid.partition("::")[0]


def failure_text(record: Record, name: str, result: NotebookResult) -> str:
    """Return why a notebook did not pass: the message, the cell with its failing line, the traceback."""
    lines = [line.removeprefix(f"{name}: ") for line in phrases.problem(result)]
    fault = fault_of(record.runs[name], result) if name in record.runs else None
    if fault is not None:
        lines += ["", f"{fault.run.title(fault.cell)}"]
        lines += [f"{'>' if hit else ' '} {number:4} | {text}" for number, text, hit in fault.excerpt()]
        if traceback := fault.traceback():
            lines += ["", *traceback]
    return "\n".join(lines)


def _escape(found: re.Match[str]) -> str:
    """Return a printable, harmless character unchanged, and any other as a Python escape."""
    mark = found[0]
    if mark not in ":#" and mark.isprintable():
        return mark
    return f"\\x{ord(mark):02x}" if ord(mark) < 0x100 else f"\\u{ord(mark):04x}"


def _safe(text: str) -> str:
    """Return text that is safe to print, because pytest does not filter control characters and commands."""
    return safe_text(text, commands=is_on_runner())


def _settings(config: pytest.Config) -> ProjectOptions:
    """Return the project's settings. Options of pytest take precedence."""
    given = {name: config.getoption(f"--nbrun-{name}") for name in _OPTIONS}
    for name, value in given.items():
        if value is not None and name != "kernel":
            try:
                parse_duration(value)
            except ValueError as error:
                raise pytest.UsageError(f"--nbrun-{name}: {error}") from None
    try:
        return project_options([f"--{name}={value}" for name, value in given.items() if value is not None])
    except UsageError as error:
        raise pytest.UsageError(f"nbrun: {error}\n  {error.hint}" if error.hint else f"nbrun: {error}") from None
