"""Open the server of a run, private or existing, and the notebooks on it.

A single run and a batch use the same code. A :class:`Host` is an open server, which opens the notebook of a
:class:`Place`. A private server's root is the folder that contains all notebooks and outputs. It is at least the git
root of the notebooks, so that each kernel starts in its notebook's own folder, as in JupyterLab.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbrun.core.formats.units import MAX_FRAME, MAX_RESPONSE
from nbrun.core.notebook.file_format import get_ready
from nbrun.core.planning.job import OnConflict
from nbrun.errors import UsageError
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.endpoint import Endpoint, contents_path
from nbrun.jupyter.http.client import UNBOUNDED, HttpOptions
from nbrun.jupyter.kernel_session import Server
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.storage.base import Notebook
from nbrun.storage.checkpoint import CheckpointUse
from nbrun.storage.in_memory import InMemoryNotebook
from nbrun.storage.on_server import ServerNotebook
from nbrun.storage.paths import (
    Deliver,
    absolute,
    check_pair,
    hint_for_missing_on_server,
    local_folder,
    local_pair,
    root_for,
    shown,
)
from nbrun.storage.uploaded import UploadedNotebook

_NOWHERE = ""
"""Stands for the output path of a notebook that is passed to ``deliver``."""


@dataclass(frozen=True, slots=True)
class Access:
    """The server's address and credentials.

    Without an address a private server is started. Its ``zygote`` imports ``preload`` and forks the kernels.
    """

    server: str | None = None
    token: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    verify: bool = True
    max_response: int | None = MAX_RESPONSE
    max_frame: int | None = MAX_FRAME
    zygote: bool | None = None
    preload: Sequence[str] = ()

    @property
    def http_options(self) -> HttpOptions:
        """Return the options for HTTP connections to the server."""
        return HttpOptions(self.ca_file, verify=self.verify, max_response=self.max_response, max_frame=self.max_frame)


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of a notebook and of its output, as the user wrote them, and how the result is saved.

    Without ``output`` the notebook is saved in place. With ``upload`` both paths are on this machine and the server is
    elsewhere. ``on_conflict`` is the rule for a notebook that somebody else changed during the run, ``checkpoint`` says
    whether the original is kept. The kernel works in ``cwd``, a folder on the server's machine, or else in the
    notebook's folder. ``content`` is the text of a notebook that need not exist as a file. ``deliver`` is called with
    the text of the result, which is then not saved. Without ``save`` nothing is written.
    """

    notebook: str
    output: str | None = None
    upload: bool = False
    on_conflict: OnConflict = OnConflict.MERGE
    checkpoint: CheckpointUse = CheckpointUse.NONE
    cwd: str | None = None
    content: bytes | None = None
    deliver: Deliver | None = None
    save: bool = True

    @property
    def is_handed(self) -> bool:
        """Return whether the notebook is read from or delivered as text."""
        return self.content is not None or self.deliver is not None


@dataclass(frozen=True, slots=True)
class Host:
    """An open server; ``notebook`` returns the notebook that a place names.

    For a private server, ``gone`` returns whether it has ended by itself, and ``ended`` waits until it does.
    """

    server: Server
    notebook: Callable[[Place, Callable[[str], None]], Notebook]
    gone: Callable[[], bool] = lambda: False
    ended: Callable[[], Awaitable[object]] | None = None


@contextlib.asynccontextmanager
async def existing_host(access: Access, starting: Callable[[], None] = lambda: None) -> AsyncIterator[Host]:
    """Open a server that exists, for as long as the block lasts; `starting` is called when the address is one."""
    destination = Endpoint.parse(access.server or "", access.token, access.password)
    starting()
    async with connect(destination, options=access.http_options) as client:
        # A save there is proved by the text of the file. What that needs is imported while the server is waited for.
        asyncio.get_running_loop().run_in_executor(None, get_ready)

        def find(place: Place, warn: Callable[[str], None]) -> Notebook:
            cwd = contents_path(place.cwd) if place.cwd else None
            notebook: Notebook
            if place.upload:
                local, _ = _local_pair(place)
                output = Path(place.output or local)
                notebook = UploadedNotebook(
                    client.contents, local, output, warn=warn, on_conflict=place.on_conflict, cwd=cwd
                )
            else:
                path = path_on_server(place.notebook)
                target = _NOWHERE if place.deliver else contents_path(place.output) if place.output else path
                notebook = remote = ServerNotebook(
                    client.contents,
                    path,
                    target,
                    warn=warn,
                    on_conflict=place.on_conflict,
                    checkpoint=place.checkpoint,
                    cwd=cwd,
                )
                remote.check_output = place.save and not place.deliver
            return _in_memory(notebook, client, place, warn, cwd)

        yield Host(Server(client), find)


@contextlib.asynccontextmanager
async def private_host(
    access: Access,
    places: Sequence[Place],
    starting: Callable[[], None] = lambda: None,
    *,
    started: EmbeddedServer | None = None,
) -> AsyncIterator[Host]:
    """Start a server of our own for these places, for as long as the block lasts; `starting` is called before.

    It may have been `started` already, for the same root.
    """
    pairs = [_local_pair(place) for place in places]
    root = root_for(pairs, [local_folder(place.cwd) for place in places if place.cwd])
    here = Path.cwd()  # asked for now: a notebook may take it away
    starting()
    embedded = started or EmbeddedServer(root, zygote=access.zygote, preload=access.preload)
    async with embedded, Client(embedded.endpoint, UNBOUNDED, explain=embedded.explain) as client:

        def find(place: Place, warn: Callable[[str], None]) -> Notebook:
            local, output = absolute(here / place.notebook), absolute(here / (place.output or place.notebook))
            cwd = _below(root, absolute(here / place.cwd)) if place.cwd else None
            notebook = ServerNotebook(
                client.contents,
                local.relative_to(root).as_posix(),
                _NOWHERE if place.deliver else output.relative_to(root).as_posix(),
                warn=warn,
                on_conflict=place.on_conflict,
                checkpoint=place.checkpoint,
                name_for_user=lambda path: shown(root / path, here),
                cwd=cwd,
            )
            return _in_memory(notebook, client, place, warn, cwd)

        yield Host(Server.private(client, embedded.kernels_log_tail), find, lambda: embedded.has_ended, embedded.ended)


def path_on_server(name: str) -> str:
    """Return a notebook's path as the server names it; raises :class:`UsageError` for one that is none."""
    try:
        return contents_path(name)
    except UsageError as error:
        raise UsageError(str(error), hint=hint_for_missing_on_server(name)) from None


def _local_pair(place: Place) -> tuple[Path, Path]:
    return local_pair(
        place.notebook, place.output, is_given=place.content is not None, is_delivered=place.deliver is not None
    )


def check_local(place: Place, probed: set[Path] | None = None) -> None:
    """Raise :class:`UsageError` where a notebook of this machine cannot be read, or its result cannot be written."""
    is_given, is_delivered = place.content is not None, place.deliver is not None
    check_pair(
        place.notebook, place.output, is_given=is_given, is_delivered=is_delivered, save=place.save, probed=probed
    )


def _in_memory(
    notebook: Notebook, client: Client, place: Place, warn: Callable[[str], None], cwd: str | None
) -> Notebook:
    """Return the notebook with its text taken from memory, or delivered, where its place says so."""
    if not place.is_handed:
        return notebook
    return InMemoryNotebook(
        notebook, client.contents, place.notebook, warn=warn, content=place.content, deliver=place.deliver, cwd=cwd
    )


def _below(root: Path, folder: Path) -> str:
    """Return a folder's path on a server with that root, whose own path is empty."""
    return "" if folder == root else folder.relative_to(root).as_posix()
