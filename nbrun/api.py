"""The Python API: :func:`run`, :func:`run_async` and :func:`connect`.

Without a server address, a private server is started for the run.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Unpack

from nbrun.core.events import Journal, Stage
from nbrun.core.results import NotebookResult
from nbrun.jupyter.client import connect
from nbrun.jupyter.kernel_session import Server
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.runner.job import RunOptions, access_of, check_choice, job_of, place_of, read_run_options
from nbrun.runner.prepare_only import host_to_prepare_on, prepare_unless_stopped
from nbrun.runner.run import run_notebook
from nbrun.runner.servers import Access, Place, check_local, existing_host, private_host
from nbrun.runner.stop import StopSwitch
from nbrun.runner.synchronous import run_to_end
from nbrun.storage.base import Notebook

__all__ = ["RunOptions", "connect", "run", "run_async"]


def run(notebook: str | os.PathLike[str], **options: Unpack[RunOptions]) -> NotebookResult:
    """Run a notebook and return its result; :class:`RunOptions` describes the options.

    A failed notebook is not an exception; see the result's ``outcome``. Raise :class:`~nbrun.errors.NbrunError` if
    nothing could be run; nothing was changed then. Inside a running event loop, for example in a notebook, the run uses
    a thread.
    """
    return run_to_end(run_async(notebook, **options))


async def run_async(notebook: str | os.PathLike[str], **options: Unpack[RunOptions]) -> NotebookResult:
    """Run a notebook as :func:`run` does, in the running event loop. A cancelled run is saved first."""
    read = read_run_options(options)
    check_choice(read)
    return await run_beside_start(None, notebook, read)


async def run_beside_start(
    started: EmbeddedServer | None, notebook: str | os.PathLike[str], options: RunOptions
) -> NotebookResult:
    """Run as :func:`run_async` does, on a private server that may have been started already, to save time.

    It has been started for the root that :func:`~nbrun.storage.paths.root_for` names, and is stopped after the run.
    """
    name = os.fspath(notebook)
    place = place_of(name, options)
    if started is None and (place.upload or not options["server"]):
        check_local(place)
    journal = Journal(name, options["observe"] or (lambda _: None))
    if options["prepare_only"]:
        async with host_to_prepare_on(access_of(options)) as host:
            return await prepare_unless_stopped(
                job_of(name, options), place, host, journal, options["stop"] or StopSwitch()
            )
    opening = _open(access_of(options), place, journal, started)
    job = job_of(name, options)
    return await run_notebook(job, opening, journal=journal, stop=options["stop"] or StopSwitch())


@contextlib.asynccontextmanager
async def _open(
    access: Access, place: Place, journal: Journal, started: EmbeddedServer | None
) -> AsyncIterator[tuple[Server, Notebook]]:
    """Open a server for one run alone."""
    if access.server:
        opening = existing_host(access, lambda: journal.enter(Stage.CONNECTING))
    else:
        opening = private_host(access, [place], lambda: journal.enter(Stage.STARTING_SERVER), started=started)
    async with opening as host:
        yield host.server, host.notebook(place, journal.warn)
