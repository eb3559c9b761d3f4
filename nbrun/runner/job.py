"""The options of a run in Python, and the job, paths and server that follow from them.

The module imports little, so that the private server can be started before the slow imports.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar

from nbrun.core.batch.output_paths import free_stem
from nbrun.core.formats.units import MAX_FRAME, MAX_RESPONSE
from nbrun.core.planning.artefacts import SCRATCH
from nbrun.core.planning.destinations import is_store_url, refuse_contradiction, refuse_unreachable
from nbrun.core.planning.job import CheckpointUse, Job, Limits, OnConflict
from nbrun.core.planning.option_types import AUTO, Option, Thing, read_options
from nbrun.errors import UsageError
from nbrun.jupyter.endpoint import Destination, Endpoint, check_headers, contents_path
from nbrun.runner.options import SharedBatchOptions, SharedRunOptions, check_together
from nbrun.runner.stop import StopSwitch
from nbrun.storage.paths import (
    Deliver,
    check_pair,
    hint_for_missing_on_server,
    local_folder,
    local_pair,
    output_file,
    root_for,
)
from nbrun.storage.writable import check_trace

if TYPE_CHECKING:
    from nbrun.core.events import Observer
    from nbrun.jupyter.trace import Trace

T = TypeVar("T")
_OF_JOB = {field.name for field in fields(Job)} - {"notebook", "limits", "scratch"}
ARTEFACTS = "artefacts"
"""The default folder for artefacts of runs on a server and in scratch folders."""


@dataclass(frozen=True, slots=True)
class Access:
    """The server's address and credentials.

    Without an address a private server is started. Its ``zygote`` imports ``preload`` and forks the kernels.
    """

    server: str | None = None
    token: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool = True
    max_response: int | None = MAX_RESPONSE
    max_frame: int | None = MAX_FRAME
    zygote: bool | None = None
    preload: Sequence[str] = ()
    trace: "Trace | None" = None


@dataclass(frozen=True, slots=True)
class NotebookPaths:
    """The paths of a notebook and of its output as the user wrote them, and how the result is saved.

    Without ``output`` the notebook is saved in place. With ``upload`` both paths are on this machine and the server is
    remote. ``on_conflict`` is the rule for a notebook that another client changed during the run. ``checkpoint`` is the
    use of a checkpoint. The kernel works in ``cwd``, a folder on the server's machine, or else in the notebook's
    folder. ``content`` is the text of a notebook that need not exist as a file. ``deliver`` is called with the text of
    the result, which is then not saved. Without ``save`` nothing is written.

    A notebook that was read from a URL has its text in ``content``, and that URL and its version in ``origin`` and
    ``version``. The output may be the URL of a store, and is the origin for such a notebook in place.
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
    origin: str = ""
    version: str = ""

    @property
    def stored(self) -> str:
        """Return the URL of the store's object that the result is saved to, or ""."""
        if self.deliver is not None:
            return ""
        output = self.output or self.origin
        return output if is_store_url(output) else ""

    @property
    def in_memory(self) -> bool:
        """Return whether the notebook is read from text or delivered as text."""
        return self.content is not None or self.deliver is not None

    def local_pair(self) -> tuple[Path, Path]:
        """Return the local paths of the notebook and its output; raise :class:`UsageError`."""
        is_given, is_elsewhere = self.content is not None, self.deliver is not None or bool(self.stored)
        return local_pair(self.notebook, self.output, is_given=is_given, is_delivered=is_elsewhere)

    def check(self, probed: set[Path] | None = None) -> None:
        """Raise :class:`UsageError` if the local notebook cannot be read, or its result cannot be written."""
        is_given, is_elsewhere = self.content is not None, self.deliver is not None or bool(self.stored)
        check_pair(
            self.notebook, self.output, is_given=is_given, is_delivered=is_elsewhere, save=self.save, probed=probed
        )


def private_root(paths: Sequence[NotebookPaths]) -> Path:
    """Return the root folder of a private server for these notebooks; raise :class:`UsageError`."""
    folders = [scratch_parent() if each.cwd == SCRATCH else local_folder(each.cwd) for each in paths if each.cwd]
    return root_for([each.local_pair() for each in paths], folders)


def scratch_parent() -> Path:
    """Return the folder in which scratch folders are made."""
    import tempfile  # it imports fifteen modules, which few runs need

    return Path(tempfile.gettempdir()).resolve()


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run: its name in events, the job, its paths, and its parameters."""

    name: str
    job: Job
    paths: NotebookPaths
    parameters: Mapping[str, Any] = field(default_factory=dict)


class TextOptions(TypedDict, total=False):
    """Options for notebooks that are passed or delivered as text."""

    content: Annotated[
        str | bytes | None,
        Option(Thing("the text of a notebook", lambda value: isinstance(value, (str, bytes))), flags=None),
    ]
    """The notebook as text. A file of its name need not exist.

    The kernel works in the folder of that name, in the current folder for a plain name, or in ``cwd``.
    """
    deliver: Annotated[Deliver | None, Option(Thing("a function", callable), flags=None)]
    """Called with the text of the executed notebook, which is then not saved; may raise OSError."""


class ControlOptions(TypedDict, total=False):
    """Options to observe a run and to end it early."""

    observe: Annotated["Observer | None", Option(Thing("a function", callable), flags=None)]
    """Called with each event of the run."""
    stop: Annotated[
        StopSwitch | None,
        Option(Thing("an nbrun.StopSwitch", lambda value: isinstance(value, StopSwitch)), flags=None),
    ]
    """Ends the run early when it is pulled."""


class RunOptions(SharedRunOptions, TextOptions, ControlOptions, total=False):
    """The options of a run; every key is optional.

    The table in docs/cli.md lists the options that the command line and the settings also have, with their defaults.
    Times are seconds or text such as ``"5m"``, sizes are numbers or text such as ``"50MB"``; None means no limit. The
    default of ``output`` is the notebook's own path. A path that ends with a separator, or an existing folder, is a
    folder that mirrors the tree.
    """


class BatchOptions(RunOptions, SharedBatchOptions, total=False):
    """The options of a batch and of each of its runs; every key is optional.

    ``output`` is a folder that mirrors the tree, or a template (``out/{folder}/{stem}-{params.region}.ipynb``). A batch
    that is not a single notebook needs ``output``, ``save=False`` or ``in_place=True``.
    """


def read_run_options(given: Mapping[str, Any]) -> RunOptions:
    """Return all options of a run: those in `given`, checked, and the defaults of the others.

    Raises :class:`UsageError` for an unknown option and for an invalid value.
    """
    options: RunOptions = read_options(RunOptions, given, "a run")
    check_together(options)
    return options


def read_batch_options(given: Mapping[str, Any]) -> BatchOptions:
    """Return all options of a batch, like :func:`read_run_options`."""
    options: BatchOptions = read_options(BatchOptions, given, "a batch")
    check_together(options)
    return options


def check_choice(options: RunOptions) -> bool:
    """Return whether the options contain a choice of destination; raise :class:`UsageError` for several."""
    chosen = ["output"] if options["output"] is not None else []
    chosen += ["save=False"] if not options["save"] else []
    chosen += ["in_place"] if options["in_place"] else []
    refuse_contradiction(chosen)
    return bool(chosen)


def job_of(name: str, options: RunOptions) -> Job:
    """Return the job for the options of a run. Most fields of :class:`Job` have the name of an option."""
    limits = Limits(
        run=_read(options["timeout"]),
        cell=_read(options["cell_timeout"]),
        silence=_read(options["idle_timeout"]),
        startup=_read(options["startup_timeout"]),
    )
    given: Mapping[str, Any] = options
    same: dict[str, Any] = {field: given[field] for field in _OF_JOB}
    same |= {"pipeline": None if given["pipeline"] == AUTO else given["pipeline"]}
    same |= {"scratch": is_scratch(options), "artefacts_dir": artefacts_folder(name, options)}
    return Job(name, limits=limits, **same)


def is_scratch(options: RunOptions) -> bool:
    """Return whether the kernel works in a new folder that is removed afterwards."""
    return options["cwd"] is not None and os.fspath(options["cwd"]) == SCRATCH


def _read(value: T | str) -> T:
    """Return a value that is no longer text, because it was read before."""
    assert not isinstance(value, str)
    return value


def paths_of(name: str, options: RunOptions) -> NotebookPaths:
    """Return the paths of the notebook, its output and the kernel's folder; raise :class:`UsageError`."""
    output, cwd, content = options["output"], options["cwd"], options["content"]
    if content is None:
        refuse_unreachable("", name, reads=True)
    if output is not None:
        refuse_unreachable("output", os.fspath(output), stores=True)
        output = output_file(name, output, on_server=is_on_server(options))
    if is_on_server(options) and content is None:
        path_on_server(name)
    if cwd and not (options["server"] or options["engine"] or is_scratch(options)):
        local_folder(cwd)
    return NotebookPaths(
        name,
        output or None,
        upload=bool(options["server"] or options["engine"]) and not is_on_server(options),
        on_conflict=on_conflict_of(options),
        checkpoint=checkpoint_of(options),
        cwd=os.fspath(cwd) if cwd else None,
        content=content.encode() if isinstance(content, str) else content,
        deliver=options["deliver"],
        save=options["save"],
    )


def artefacts_folder(name: str, options: RunOptions) -> str | None:
    """Return the folder that the artefacts of the run `name` are copied into, or None if they stay where they are."""
    folder = options["artefacts_dir"]
    if folder is None:
        if not (options["server"] or options["engine"] or is_scratch(options)):
            return None
        folder = ARTEFACTS
    refuse_unreachable("artefacts_dir", os.fspath(folder))
    return str(Path(folder, free_stem(parts_of_name(name))))


def parts_of_name(name: str) -> list[str]:
    """Return the parts of the name of a run, for the path of what is made of it."""
    path = Path(name)
    return [part for part in path.parts if part != path.anchor]


def path_on_server(name: str) -> str:
    """Return the server's form of a notebook's path; raise :class:`UsageError` if it is invalid."""
    try:
        return contents_path(name)
    except UsageError as error:
        raise UsageError(str(error), hint=hint_for_missing_on_server(name)) from None


def is_on_server(options: RunOptions) -> bool:
    """Return whether the notebooks are on the server, or on the servers of the engine, and not on this machine."""
    return options["upload"] is False if options["engine"] else bool(options["server"]) and not options["upload"]


def engine_name(url: str) -> str:
    """Return the name of an engine's table in the settings: ``hub`` for ``hub+https://…``."""
    return url.partition("://")[0].partition("+")[0].lower()


def on_conflict_of(options: RunOptions) -> OnConflict:
    """Return the rule for a notebook that changed during the run; raise :class:`UsageError` for a contradiction."""
    wanted, force = options["on_conflict"], options["force"]
    rule = OnConflict.MERGE if wanted is None else OnConflict(wanted)
    if force and wanted is not None and rule is not OnConflict.OVERWRITE:
        hint = "--force is short for --on-conflict overwrite."
        raise UsageError(f"force and on_conflict={wanted!r} contradict each other", hint=hint)
    return OnConflict.OVERWRITE if force else rule


def checkpoint_of(options: RunOptions) -> CheckpointUse:
    """Return whether a checkpoint is created; raise :class:`UsageError` if that is impossible."""
    use = CheckpointUse.KEEP if options["checkpoint"] else CheckpointUse.NONE
    use = CheckpointUse.RESTORE if options["restore_on_failure"] else use
    if use is not CheckpointUse.NONE and (options["upload"] or options["engine"]) and not is_on_server(options):
        raise UsageError("an uploaded notebook has no checkpoint", hint="With --output the local file stays as it is.")
    if use is not CheckpointUse.NONE and (options["content"] is not None or options["deliver"]):
        raise UsageError("a notebook that comes or goes as text has no checkpoint")
    if use is not CheckpointUse.NONE and not options["save"]:
        raise UsageError("a notebook that is not saved needs no checkpoint")
    return use


def access_of(options: RunOptions) -> Access:
    """Return the address and credentials of the server; raise :class:`UsageError` for an unwritable trace."""
    ca_file = options["ca_file"]
    return Access(
        options["server"],
        options["token"],
        options["password"],
        Path(ca_file) if ca_file else None,
        check_headers(options["headers"]),
        verify=options["verify"],
        max_response=_read(options["max_response"]),
        max_frame=_read(options["max_frame"]),
        zygote=options["zygote"],
        preload=tuple(options["preload"]),
        trace=trace_of(options),
    )


def endpoint_of(access: Access) -> Destination:
    """Return the address and credentials of the existing server; raise :class:`UsageError` for an invalid address."""
    return Endpoint.parse(access.server or "", access.token, access.password)


def trace_of(options: RunOptions) -> "Trace | None":
    """Return the trace of the options; raise :class:`UsageError` if it cannot be written."""
    target = options["trace"]
    if target is None:
        return None
    from nbrun.jupyter.trace import Trace

    check_trace("--trace", os.fspath(target))
    trace = target if isinstance(target, Trace) else Trace(target)
    trace.hide(options["secrets"].values())
    return trace
