"""Arguments and results of the API: notebooks as paths or nodes, options, executed notebooks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbrun.core.events import Event, RunFinished
from nbrun.core.formats.json_text import dumps
from nbrun.core.notebook.file_reading import notebook_content, notebook_node, read_notebook
from nbrun.core.parameters.limits import shown_value
from nbrun.core.planning.option_types import options_in
from nbrun.core.results import NotebookResult
from nbrun.errors import UsageError
from nbrun.runner.job import RunOptions
from nbrun.runner.options import CommonServerOptions, MoreServerOptions
from nbrun.storage.on_disk import read_bytes

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A notebook: its path, or the notebook itself as a ``NotebookNode`` or another mapping in nbformat's JSON format."""
NotebookPath = str | os.PathLike[str]

_IN_MEMORY = "notebook.ipynb"
"""The name of a notebook that is passed as a mapping."""


def given_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options among the ``locals()`` of a function of this API, including those in ``**options``."""
    named = {name: value for name, value in arguments.items() if name not in _NO_OPTIONS}
    return {**named, **arguments["options"]}


_NO_OPTIONS = ("self", "notebook", "notebooks", "options", "switch")


def check_server_options(given: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` for an option that the server of the run does not use."""
    if given.get("engine"):
        return  # an engine decides by itself
    if given.get("engine_options"):
        raise UsageError("engine_options: needs engine=")
    of_server = options_in(MoreServerOptions) | options_in(CommonServerOptions)
    wrong = [
        name
        for name, option in of_server.items()
        if given.get(name) not in (None, "", option.default)
        and name in (_OF_PRIVATE_SERVER if given.get("server") else of_server.keys() - _OF_ANY_SERVER)
    ]
    if wrong and given.get("server"):
        raise UsageError(f"{', '.join(wrong)}: for a private server, and server= names an existing one")
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: needs server=", hint="Without it nbrun starts a private server.")


_OF_PRIVATE_SERVER = {"zygote", "preload"}
_OF_ANY_SERVER = {*_OF_PRIVATE_SERVER, "server", "trace"}


def read_source(notebook: Source, given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return a notebook's name and the options of its run, with its text if it is passed as a mapping."""
    if isinstance(notebook, Mapping):
        try:
            content = dumps(notebook)
        except (TypeError, RecursionError) as error:
            raise UsageError(f"the notebook has a value that JSON does not know: {error}") from None
        notebook_content(content, "the notebook")
        if given.get("in_place"):
            raise UsageError("in_place: a notebook that is not a file has no place", hint="Name a file with output=.")
        is_saved = given.get("output") is not None or given.get("deliver")
        return _IN_MEMORY, {**given, "content": content, **({} if is_saved else {"save": False})}
    if not isinstance(notebook, (str, os.PathLike)):
        raise UsageError(f"notebook: takes a path or a notebook, not {shown_value(notebook)}")
    return os.fspath(notebook), given


def keeping_notebook(options: RunOptions) -> tuple[RunOptions, list[RunFinished]]:
    """Return the options with an observer that stores the last event of the run."""
    finished: list[RunFinished] = []
    others = options["observe"] or ignore

    def observe(event: Event) -> None:
        if isinstance(event, RunFinished):
            finished.append(event)
        others(event)

    return {**options, "observe": observe}, finished


class ExecutedNotebook:
    """Returns an executed notebook as a node, from the `content` in memory or from a file."""

    def __init__(self, content: Mapping[str, Any] | None = None, file: Path | None = None) -> None:
        self._content = content
        self._file = file
        self._node: Any = None

    def __call__(self) -> Any:
        """Return the node, the same one each time."""
        if self._node is None and self._content is not None:
            self._node, self._content = notebook_node(self._content), None
        elif self._node is None and self._file is not None:
            self._node = read_notebook(read_bytes(self._file).decode())
        return self._node


def with_notebook(result: NotebookResult, finished: Sequence[RunFinished]) -> NotebookResult:
    """Return a result with the notebook of the last event."""
    content = finished[-1].content if finished else None
    return result if content is None else replace(result, load=ExecutedNotebook(content))


def ignore(event: Event) -> None:
    """Ignore an event."""
