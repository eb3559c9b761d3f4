"""The side of an executing seat: run parcels on a warm private server.

An engine starts a :class:`Worker` where the kernels run, for example in a Dask worker. It passes the parcels to it, and
its events and deliveries back.
"""

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from nbrun.core.batch.parcels import Delivery, Needs, Parcel
from nbrun.core.events import Event, Journal, RunFinished
from nbrun.core.results import NotebookResult, Problem, outcome_of, unexecuted
from nbrun.errors import NbrunError, SeatLost, ServerError, UsageError
from nbrun.jupyter.kernel_session import Server
from nbrun.runner.engine import SeatSetting
from nbrun.runner.job import Access, NotebookPaths
from nbrun.runner.parameter_files import secret_of_environment, secret_of_file
from nbrun.runner.run import run_notebook
from nbrun.runner.servers import Host, private_host
from nbrun.runner.stop import StopSwitch
from nbrun.storage.base import Notebook
from nbrun.version import __version__

_SHARED = "The seats and this machine must see the same files under the same paths."
ROOT = Path(os.path.abspath(os.sep))  # noqa: PTH100  (the root of the current drive)
"""The root folder of the private server, because the notebooks may be in any folder."""


class Worker:
    """Runs parcels on a private server, which is started by ``async with`` and kept until the end of the block."""

    def __init__(
        self, *, root: Path = ROOT, zygote: bool | None = None, preload: Sequence[str] = (), name: str = "this seat"
    ) -> None:
        """Use `root` as the server's root folder; `name` is the seat's, for messages."""
        self._root = root
        self._access = Access(zygote=zygote, preload=preload)
        self._name = name
        self._stack = contextlib.AsyncExitStack()
        self._host: Host | None = None
        self._opening = asyncio.Lock()
        self._claimed: set[tuple[str, str, int]] = set()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> Host:
        """Return the open server; a server that has ended is replaced."""
        async with self._opening:
            if self._host is None or self._host.gone():
                await self._stack.aclose()
                self._host = await self._stack.enter_async_context(private_host(self._access, self._root))
            return self._host

    async def setting(self) -> SeatSetting:
        """Return what must be the same on all seats."""
        host = await self._open()
        return SeatSetting(await host.server.client.kernelspecs(), __version__, platform.python_version())

    def check(self, needs: Needs, environ: Mapping[str, str] = os.environ) -> None:
        """Raise :class:`UsageError` if this machine lacks a secret or a folder that the runs need."""
        self._values(needs.secrets, environ)
        for folder in needs.folders:
            self._folder(folder)

    async def run(
        self,
        parcel: Parcel,
        tell: Callable[[Event], None],
        stop: StopSwitch,
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> Delivery:
        """Run a parcel, call `tell` with its events, and return its delivery.

        `secrets` are the values of its secrets; by default they are read at their places. An error before the first
        cell is in the delivery's result. Raises :class:`SeatLost` for an attempt that was claimed before, and if the
        private server cannot be started.
        """
        claim = (parcel.batch, parcel.run, parcel.attempt)
        if claim in self._claimed:
            raise SeatLost(f"{self._name}: attempt {parcel.attempt} of {parcel.run} was started here before")
        self._claimed.add(claim)
        texts: list[str] = []
        journal = Journal(parcel.run, lambda event: None if isinstance(event, RunFinished) else tell(event))
        began = datetime.now(UTC)
        try:
            host = await self._open()
        except NbrunError as error:
            raise SeatLost(f"{self._name}: {error}", hint=error.hint) from None
        try:
            job = parcel.job(self._values(parcel.secrets) if secrets is None else secrets)
            folder = self._folder(parcel.folder)
            self._check_inputs(parcel.inputs)
            paths = NotebookPaths(str(folder / "notebook.ipynb"), content=parcel.notebook, deliver=texts.append)
            result = await run_notebook(job, _opened(host, paths, journal), journal=journal, stop=stop)
        except ServerError as error:
            if host.gone():
                raise SeatLost(f"{self._name}: {error}", hint=error.hint) from None
            result = _failed(parcel, error, began, journal)
        except NbrunError as error:
            result = _failed(parcel, error, began, journal)
        notebook = texts[-1].encode("utf-8", "replace") if texts else None
        return Delivery(parcel.run, parcel.attempt, replace(result, output=None), notebook)

    def _folder(self, name: str) -> Path:
        folder = Path(name)
        if not folder.is_dir():
            raise UsageError(f"{self._name}: there is no folder {folder}", hint=_SHARED)
        if not folder.is_relative_to(self._root):
            raise UsageError(f"{self._name}: {folder} is not below {self._root}, the root of its server")
        return folder

    def _check_inputs(self, inputs: Sequence[str]) -> None:
        for path in inputs:
            if not os.path.lexists(path):
                message = f"{self._name}: there is no file {path}, which the notebook declares as an input"
                raise UsageError(message, hint=_SHARED)

    def _values(self, places: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the values of secrets by name; raise :class:`UsageError` if one is missing here."""
        values = {}
        for name, place in places.items():
            kind, _, where = place.partition(":")
            try:
                is_file = kind == "file"
                value = secret_of_file(name, Path(where)) if is_file else secret_of_environment(name, where, environ)
            except UsageError as error:
                hint = "The values of secrets are not sent. Set the variable, or write the file, where the seats are."
                raise UsageError(f"{self._name}: {error}", hint=hint) from None
            values[name] = value
        return values


def _failed(parcel: Parcel, error: NbrunError, began: datetime, journal: Journal) -> NotebookResult:
    result = unexecuted(parcel.name, outcome_of(error), Problem.of(error), began)
    return replace(result, warnings=tuple(journal.warnings))


@contextlib.asynccontextmanager
async def _opened(host: Host, paths: NotebookPaths, journal: Journal) -> AsyncIterator[tuple[Server, Notebook]]:
    yield host.server, host.notebook(paths, journal.warn)
