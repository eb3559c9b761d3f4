"""Servers that stay open for several runs: :func:`private_server` and :func:`connect`.

``async with`` opens a :class:`Server`. ``with`` opens it in a thread, as a :class:`SyncServer`.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self, Unpack

from nbrun.api.notebooks import (
    NotebookPath,
    Source,
    given_options,
    ignore,
    keeping_notebook,
    read_source,
    with_notebook,
)
from nbrun.core.events import Journal, Observer
from nbrun.core.formats.units import MAX_FRAME, MAX_RESPONSE
from nbrun.core.planning.destinations import is_store_url, refuse_unreachable
from nbrun.core.planning.job import OnConflict
from nbrun.core.planning.option_types import Option, PathName, Text, options_in, read_option
from nbrun.core.results import NotebookResult
from nbrun.errors import ExitCode, UsageError
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.runner.job import (
    NotebookPaths,
    RunOptions,
    TextOptions,
    access_of,
    check_choice,
    is_scratch,
    job_of,
    paths_of,
    read_run_options,
)
from nbrun.runner.options import (
    CommonServerOptions,
    MoreRunOptions,
    MoreServerOptions,
)
from nbrun.runner.prepare_only import prepare_unless_stopped
from nbrun.runner.run import run_on_host
from nbrun.runner.servers import Host, existing_host, private_host
from nbrun.runner.stop import StopSwitch
from nbrun.runner.synchronous import NOT_OPEN, ServerThread
from nbrun.storage.paths import absolute, names_folder
from nbrun.storage.wait_budget import WaitBudget


class OptionsOnServer(MoreRunOptions, TextOptions, total=False):
    """The options of :meth:`Server.run` that are not in its signature."""


def private_server(
    root: NotebookPath = ".",
    *,
    zygote: bool | None = None,
    preload: str | Sequence[str] = (),
    trace: NotebookPath | None = None,
) -> "Server":
    """Return a private Jupyter server, to be started by ``async with`` or ``with``.

    Args:
        root: An existing folder. The paths of notebooks and outputs are relative to it and must be below it.
        zygote: Whether Python kernels are forked from a process that has imported ipykernel. By default they are where
            that is safe.
        preload: Modules that this process also imports, such as ``["pandas"]``.
        trace: Write all messages of all runs to this file, with secrets masked.

    """
    folder = absolute(os.fspath(read_option("root", Option(PathName(), default="."), root)))
    if not folder.is_dir():
        raise UsageError(f"{os.fspath(root)}: there is no such folder to serve notebooks from")
    access = access_of(read_run_options({"zygote": zygote, "preload": preload, "trace": trace}))
    return Server(lambda: private_host(access, folder), root=folder)


def connect(
    url: str,
    *,
    token: str | None = None,
    password: str | None = None,
    headers: Mapping[str, str] | None = None,
    ca_file: NotebookPath | None = None,
    verify: bool = True,
    max_response: int | str | None = MAX_RESPONSE,
    max_frame: int | str | None = MAX_FRAME,
    trace: NotebookPath | None = None,
) -> "Server":
    """Return an existing Jupyter server, to be connected to by ``async with`` or ``with``.

    Connecting finds the API and checks the authentication. It raises :class:`ServerUnreachable`,
    :class:`AccessDenied` or :class:`NotAJupyterServer`.

    Args:
        url: The address, also as copied from the browser.
        token: The token of the server.
        password: The password of the server, if it has one.
        headers: Additional HTTP headers, for example for a proxy. No message or log shows their values.
        ca_file: Trust the certificate authorities in this PEM file.
        verify: Whether to verify the server's TLS certificate.
        max_response: Maximum size of a decompressed response; None disables the limit.
        max_frame: Maximum size of one kernel message; None disables the limit.
        trace: Write all messages of all runs to this file, with secrets masked.

    """
    given = dict(locals())
    given["server"] = read_option("url", Option(Text(), default=""), given.pop("url"))
    access = access_of(read_run_options(given))
    Endpoint.parse(url, token, password)  # raises an error for an invalid address
    return Server(lambda: existing_host(access), address=url)


class Server:
    """A Jupyter server that runs notebooks; created by :func:`private_server` or :func:`connect`.

    ``async with`` opens it and returns it. ``with`` opens it in a thread and returns a :class:`SyncServer`, which works
    the same way without ``await``. Runs may be sequential or concurrent. Closing the server stops those that have not
    ended. They save their results so far, as after Ctrl-C.
    """

    def __init__(
        self,
        open_host: Callable[[], AbstractAsyncContextManager[Host]],
        *,
        address: str | None = None,
        root: Path | None = None,
    ) -> None:
        self._open_host = open_host
        self._address = address
        self._root = root
        self._host: Host | None = None
        self._stack = contextlib.AsyncExitStack()
        self._running: dict[asyncio.Future[None], StopSwitch] = {}
        """The switches of the runs, by what is done when they have ended."""
        self._thread: ServerThread[Server] | None = None

    async def __aenter__(self) -> Self:
        self._check_closed()
        self._host = await self._stack.enter_async_context(self._open_host())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._host = None
        try:
            for stop in [*self._running.values()]:
                stop.pull("stopped because the server was closed", ExitCode.INTERRUPTED)
            if self._running:
                await asyncio.wait([*self._running])
        finally:
            await self._stack.aclose()

    def __enter__(self) -> "SyncServer":
        self._check_closed()
        thread = ServerThread(lambda: self)
        thread.start()
        self._thread = thread
        return SyncServer(thread)

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.close()

    @property
    def client(self) -> Client:
        """Return the client for the server's files, sessions and kernels. It knows nothing of runs."""
        return self._opened.server.client

    @property
    def _opened(self) -> Host:
        if self._host is None:
            raise RuntimeError(NOT_OPEN)
        return self._host

    def _check_closed(self) -> None:
        if self._host is not None or self._thread is not None:
            raise RuntimeError("the server is open already")

    async def run(
        self,
        notebook: Source,
        *,
        output: NotebookPath | None = None,
        save: bool = True,
        parameters: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        kernel: str | None = None,
        cwd: NotebookPath | None = None,
        timeout: float | str | None = None,
        cell_timeout: float | str | None = None,
        allow_errors: bool = False,
        observe: Observer | None = None,
        stop: StopSwitch | None = None,
        **options: Unpack[OptionsOnServer],
    ) -> NotebookResult:
        """Run a notebook on this server and return its result; the options are those of :func:`run`.

        Paths are relative to the server's root folder. With ``upload=True`` and an existing server they are paths of
        this machine. Each run has a kernel of its own.
        """
        with WaitBudget().shared():
            return await self._run(notebook, given_options(locals()))

    async def _run(self, notebook: Source, given: Mapping[str, Any]) -> NotebookResult:
        host = self._opened
        known = [*options_in(CommonServerOptions), *options_in(MoreServerOptions)]
        if wrong := [name for name in given if name in known]:
            raise UsageError(
                f"{', '.join(wrong)}: options of the server and not of a run",
                hint="Pass them to nbrun.connect or nbrun.private_server.",
            )
        name, given = read_source(notebook, given)
        options = read_run_options({**given, "server": self._address})
        check_choice(options)
        paths = self._paths(name, options)
        if paths.save and paths.stored:
            from nbrun.storage.in_object_store import check_store

            await check_store("output:", paths.stored, guarded=paths.on_conflict is not OnConflict.OVERWRITE)
        job = job_of(name, options)
        options, finished = keeping_notebook(options)
        observe = options["observe"] or ignore
        with self._stoppable(options["stop"]) as stop:
            if options["prepare_only"]:
                to_prepare_on = host if self._address else None
                result = await prepare_unless_stopped(job, paths, to_prepare_on, Journal(name, observe), stop)
                if finished and (error := finished[-1].error) is not None:
                    raise error
            else:
                result = await run_on_host(job, paths, host, observe=observe, stop=stop)
        return with_notebook(result, finished)

    @contextlib.contextmanager
    def _stoppable(self, given: StopSwitch | None) -> Iterator[StopSwitch]:
        """Yield a switch for a run, which the caller's switch pulls, and also the end of the server."""
        switch, ended = StopSwitch(), asyncio.get_running_loop().create_future()

        def follow(reason: str) -> None:
            switch.pull(reason, (given and given.exit_code) or ExitCode.INTERRUPTED)

        if given is not None:
            given.listen(follow)
        self._running[ended] = switch
        try:
            yield switch
        finally:
            del self._running[ended]
            ended.set_result(None)
            if given is not None:
                given.forget(follow)

    def _paths(self, name: str, options: RunOptions) -> NotebookPaths:
        if self._root is None:
            return paths_of(name, options)
        if options["upload"]:
            raise UsageError("upload: a private server has the files of this machine")
        inner: Any = dict(options)
        if options["content"] is None:
            refuse_unreachable("", name, reads=True)
        if options["output"] is not None and not is_store_url(os.fspath(options["output"])):
            output = self._below_root("output: ", options["output"])
            if output.is_dir() or names_folder(options["output"]):
                output /= self._below_root("", name).relative_to(self._root)
            inner["output"] = output
        if options["cwd"] and not is_scratch(options):
            inner["cwd"] = self._below_root("cwd: ", options["cwd"])
        paths = paths_of(str(self._below_root("", name)), inner)
        paths.check()
        return paths

    def _below_root(self, what: str, path: NotebookPath) -> Path:
        assert self._root is not None
        found = absolute(self._root / path)
        if not found.is_relative_to(self._root):
            raise UsageError(
                f"{what}{os.fspath(path)}: outside of the server's root folder {self._root}",
                hint="Start the private server with a root folder that holds all notebooks and outputs.",
            )
        return found


class SyncServer:
    """A :class:`Server` for code without ``await``. It lives in a thread with an event loop of its own.

    Several threads may run notebooks on it at the same time.
    """

    def __init__(self, thread: ServerThread[Server]) -> None:
        self._thread = thread

    def run(
        self,
        notebook: Source,
        *,
        output: NotebookPath | None = None,
        save: bool = True,
        parameters: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        kernel: str | None = None,
        cwd: NotebookPath | None = None,
        timeout: float | str | None = None,
        cell_timeout: float | str | None = None,
        allow_errors: bool = False,
        observe: Observer | None = None,
        stop: StopSwitch | None = None,
        **options: Unpack[OptionsOnServer],
    ) -> NotebookResult:
        """Run a notebook on this server and return its result, as :meth:`Server.run` does.

        Ctrl-C interrupts the running cell, saves the notebook and raises KeyboardInterrupt.
        """
        switch = stop or StopSwitch()
        given = {**given_options(locals()), "stop": switch}
        return self._thread.run(lambda server: server._run(notebook, given), switch)
