"""From options to a run: the job, the paths of notebook and output, and the server."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from nbrun.core.events import Observer
from nbrun.core.planning.destinations import refuse_contradiction, refuse_unreachable
from nbrun.core.planning.job import Job, Limits, OnConflict
from nbrun.core.planning.options import AUTO, Option, Thing, read_options
from nbrun.errors import UsageError
from nbrun.runner.options import SharedBatchOptions, SharedRunOptions, check_together
from nbrun.runner.servers import Access, Place, path_on_server
from nbrun.runner.stop import StopSwitch
from nbrun.storage.checkpoint import CheckpointUse
from nbrun.storage.paths import Deliver, local_folder, output_file

T = TypeVar("T")
_OF_JOB = {field.name for field in fields(Job)} - {"notebook", "limits"}


class RunOptions(SharedRunOptions, total=False):
    """What a run may be told; every key may be left out.

    The table in docs/cli.md lists the options that the command line and the settings have too, with their defaults.
    Times are seconds or text such as ``"5m"``, sizes are numbers or text such as ``"50MB"``; None sets no limit.
    ``output`` is the notebook's own path if left out; a path that ends with a separator, or a folder that is there, is
    a folder, in which the tree is mirrored.
    """

    content: Annotated[
        str | bytes | None,
        Option(Thing("the text of a notebook", lambda value: isinstance(value, (str, bytes))), flags=None),
    ]
    """The notebook itself, as the text of a file, which need not be there: its name is then only a name.

    The kernel works in the folder of that name, the current one for a plain name, or in ``cwd``.
    """
    deliver: Annotated[Deliver | None, Option(Thing("a function", callable), flags=None)]
    """Called with the text of the executed notebook, which is then saved nowhere; may raise OSError."""
    observe: Annotated[Observer | None, Option(Thing("a function", callable), flags=None)]
    """Called with each event of the run."""
    stop: Annotated[
        StopSwitch | None,
        Option(Thing("an nbrun.StopSwitch", lambda value: isinstance(value, StopSwitch)), flags=None),
    ]
    """Ends the run early when it is pulled."""


class BatchOptions(RunOptions, SharedBatchOptions, total=False):
    """What a batch may be told, beside what each of its runs may be told; every key may be left out.

    ``output`` is a folder in which the tree is mirrored, or a template (``out/{folder}/{stem}-{params.region}.ipynb``).
    Whatever is not one notebook by itself needs ``output``, ``save=False`` or ``in_place=True``.
    """


def read_run_options(given: Mapping[str, Any]) -> RunOptions:
    """Return all options of a run: those `given`, checked, and the defaults of the others.

    Raises TypeError for an option that does not exist, :class:`UsageError` for a wrong value.
    """
    options: RunOptions = read_options(RunOptions, given, "a run")
    check_together(options)
    return options


def read_batch_options(given: Mapping[str, Any]) -> BatchOptions:
    """Return all options of a batch, as :func:`read_run_options` does."""
    options: BatchOptions = read_options(BatchOptions, given, "a batch")
    check_together(options)
    return options


def check_choice(options: RunOptions) -> bool:
    """Return whether the options say where results go; raises :class:`UsageError` where they contradict each other."""
    chosen = ["output"] if options["output"] is not None else []
    chosen += ["save=False"] if not options["save"] else []
    chosen += ["in_place"] if options["in_place"] else []
    refuse_contradiction(chosen)
    return bool(chosen)


def job_of(name: str, options: RunOptions) -> Job:
    """Return the job that the options of a run describe: what :class:`Job` has by the same name, and its limits."""
    limits = Limits(
        run=_read(options["timeout"]),
        cell=_read(options["cell_timeout"]),
        silence=_read(options["idle_timeout"]),
        startup=_read(options["startup_timeout"]),
    )
    given: Mapping[str, Any] = options
    same = {field: given[field] for field in _OF_JOB}
    return Job(name, limits=limits, **{**same, "pipeline": None if given["pipeline"] == AUTO else given["pipeline"]})


def _read(value: T | str) -> T:
    """Return a value that has been read, and so is no text any more."""
    assert not isinstance(value, str)
    return value


def place_of(name: str, options: RunOptions) -> Place:
    """Return where the notebook is, where its result goes and where its kernel works; raises :class:`UsageError`."""
    output, cwd = options["output"], options["cwd"]
    if options["content"] is None:
        refuse_unreachable("", name, reads=True)
    if output is not None:
        refuse_unreachable("output", os.fspath(output))
        output = output_file(name, output, on_server=is_on_server(options))
    if is_on_server(options) and options["content"] is None:
        path_on_server(name)
    if cwd and not options["server"]:
        local_folder(cwd)
    content = options["content"]
    return Place(
        name,
        output or None,
        upload=options["upload"],
        on_conflict=on_conflict_of(options),
        checkpoint=checkpoint_of(options),
        cwd=os.fspath(cwd) if cwd else None,
        content=content.encode() if isinstance(content, str) else content,
        deliver=options["deliver"],
        save=options["save"],
    )


def is_on_server(options: RunOptions) -> bool:
    """Return whether the notebooks are a server's, and not on this machine."""
    return bool(options["server"]) and not options["upload"]


def on_conflict_of(options: RunOptions) -> OnConflict:
    """Return the rule for a notebook that changed during the run; raises :class:`UsageError` for a contradiction."""
    wanted, force = options["on_conflict"], options["force"]
    rule = OnConflict.MERGE if wanted is None else OnConflict(wanted)
    if force and wanted is not None and rule is not OnConflict.OVERWRITE:
        hint = "--force is short for --on-conflict overwrite."
        raise UsageError(f"force and on_conflict={wanted!r} contradict each other", hint=hint)
    return OnConflict.OVERWRITE if force else rule


def checkpoint_of(options: RunOptions) -> CheckpointUse:
    """Return whether a checkpoint is made; raises :class:`UsageError` where there can be none."""
    use = CheckpointUse.KEEP if options["checkpoint"] else CheckpointUse.NONE
    use = CheckpointUse.RESTORE if options["restore_on_failure"] else use
    if use is not CheckpointUse.NONE and options["upload"]:
        raise UsageError("an uploaded notebook has no checkpoint", hint="With --output the local file stays as it is.")
    if use is not CheckpointUse.NONE and (options["content"] is not None or options["deliver"]):
        raise UsageError("a notebook that comes or goes as text has no checkpoint")
    if use is not CheckpointUse.NONE and not options["save"]:
        raise UsageError("a notebook that is not saved needs no checkpoint")
    return use


def access_of(options: RunOptions) -> Access:
    """Return the server to run on."""
    ca_file = options["ca_file"]
    return Access(
        options["server"],
        options["token"],
        options["password"],
        Path(ca_file) if ca_file else None,
        verify=options["verify"],
        max_response=_read(options["max_response"]),
        max_frame=_read(options["max_frame"]),
        zygote=options["zygote"],
        preload=tuple(options["preload"]),
    )
