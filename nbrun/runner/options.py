"""The options of a run, and the values that the runner makes of them: job, place and access.

Command line, settings, pytest plug-in and Python share :class:`RunOptions`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from nbrun.core.events import Observer
from nbrun.core.formats.units import MAX_FRAME, MAX_RESPONSE
from nbrun.core.planning.destinations import refuse_contradiction, refuse_unreachable
from nbrun.core.planning.job import STARTUP_LIMIT, Job, Limits, OnConflict
from nbrun.errors import UsageError
from nbrun.runner.servers import Access, Place, path_on_server
from nbrun.runner.stop import StopSwitch
from nbrun.storage.checkpoint import CheckpointUse
from nbrun.storage.paths import Deliver, local_folder, output_file


class RunOptions(TypedDict, total=False):
    """What a run may be told; every key may be left out. Times are seconds, and None sets no limit."""

    output: str | os.PathLike[str] | None
    """Where the executed notebook goes; the notebook's own place if left out. Parents are created.

    A path that ends with a separator, or a folder that is there, is a folder, in which the tree is mirrored.
    """
    content: str | bytes
    """The notebook itself, as the text of a file, which need not be there: its name is then only a name.

    The kernel works in the folder of that name, the current one for a plain name, or in ``cwd``.
    """
    deliver: Deliver
    """Called with the text of the executed notebook, which is then saved nowhere; may raise OSError."""
    server: str | None
    """The address of a running server, as pasted from a browser; a private server is started if left out."""
    token: str | None
    """The token of `server`."""
    password: str | None
    """The password of `server`."""
    upload: bool
    """The notebook is on this machine and `server` is not: upload it, run it there, bring the result back."""
    kernel: str | None
    """The kernelspec to run with instead of the one that the notebook names."""
    language: str | None
    """The language in which parameters are written, instead of the kernelspec's."""
    cwd: str | os.PathLike[str] | None
    """The folder that the kernel works in, instead of the notebook's; of a kernel on `server`, a folder there."""
    prepare_only: bool
    """Put the parameters into the notebook and save it; execute nothing."""
    report_mode: bool
    """Hide the sources of code cells where the notebook is opened."""
    timeout: float | None
    """The limit of the whole run, from its first cell."""
    cell_timeout: float | None
    """The limit of each cell, unless the cell's own metadata sets one."""
    idle_timeout: float | None
    """How long a running cell may be silent."""
    startup_timeout: float
    """The limit for the start of the kernel (60)."""
    allow_errors: bool
    """Go on after a cell that raised."""
    save: bool
    """Write the executed notebook (True)."""
    in_place: bool
    """Write executed notebooks over the notebooks. :func:`run` does so by itself, :func:`nbrun.run_many` only if told.

    Not with ``output``, nor with ``save=False``.
    """
    on_conflict: Literal["merge", "beside", "overwrite"] | None
    """What to do if another client changed the notebook during the run ("merge").

    ``merge`` puts the results into the changed notebook. ``beside`` leaves it alone, and writes the executed notebook
    to ``NAME-nbrun.ipynb``. ``overwrite`` replaces it.
    """
    force: bool
    """Short for ``on_conflict="overwrite"``."""
    save_every: float | None
    """Seconds between two saves while it runs: chosen here if left out; ``math.inf`` saves at the end only."""
    checkpoint: bool
    """Keep the notebook as it was before the run as its checkpoint, to which JupyterLab reverts."""
    restore_on_failure: bool
    """Bring the notebook back from that checkpoint when the run does not pass; the executed one goes beside it."""
    raw_streams: bool
    r"""Keep ``\r`` and ``\b`` in stream outputs as they were written."""
    record_timing: bool
    """Write the standard ``execution`` times into the cells' metadata (True)."""
    tolerate_loss: bool
    """Let a run pass although output is known to be lost; it is a warning then."""
    note_loss: bool
    """Add a note to a cell's outputs when some are missing (default True)."""
    parameters: Mapping[str, Any]
    """What to set in the notebook, by name: None, bool, int, float, str, dates, lists and mappings."""
    allow_new: bool
    """Set parameters, too, that the notebook does not declare, or declares with another type."""
    secrets: Mapping[str, str]
    """What to set in the kernel, leaving no trace in the notebook; masked in all that comes back."""
    zygote: bool | None
    """Fork the private server's kernels from a process that has imported ipykernel, where that can be.

    None: yes, unless the environment has NBRUN_ZYGOTE=0.
    """
    preload: Sequence[str]
    """Modules that this process imports too, for all of its kernels; they start sooner for notebooks that use them."""
    pipeline: int | Literal["auto"]
    """How many cells may be on their way to the kernel at a time ("auto": what suits the way to the server)."""
    lift_limits: bool
    """Let the kernel queue any amount of output instead of dropping it while the server is busy (ipykernel)."""
    resend: bool
    """Let the kernel on somebody else's server send again what was lost on the way (ipykernel; True)."""
    max_output: int | None
    """How much each cell may put out, in characters; what is cut from longer outputs is told."""
    ca_file: str | os.PathLike[str] | None
    """A file of certificates to trust, for https."""
    verify: bool
    """Check the server's certificate (True)."""
    max_response: int | None
    """Bytes that are read of a response of `server`, decompressed (2 GiB); None sets no limit."""
    max_frame: int | None
    """Bytes that a message of a kernel on `server` may have, decompressed (1 GiB); None sets no limit."""
    observe: Observer
    """Called with each event of the run."""
    stop: StopSwitch
    """Ends the run early when it is pulled."""


def check_choice(options: RunOptions) -> bool:
    """Return whether the options say where results go; raises :class:`UsageError` where they contradict each other."""
    chosen = ["output"] if options.get("output") is not None else []
    chosen += ["save=False"] if not options.get("save", True) else []
    chosen += ["in_place"] if options.get("in_place") else []
    refuse_contradiction(chosen)
    return bool(chosen)


def job_of(name: str, options: RunOptions) -> Job:
    """Return the job that the options of a run describe."""
    return Job(
        name,
        kernel=options.get("kernel"),
        language=options.get("language"),
        limits=Limits(
            run=options.get("timeout"),
            cell=options.get("cell_timeout"),
            silence=options.get("idle_timeout"),
            startup=options.get("startup_timeout", STARTUP_LIMIT),
        ),
        allow_errors=options.get("allow_errors", False),
        save=options.get("save", True),
        save_every=options.get("save_every"),
        report_mode=options.get("report_mode", False),
        raw_streams=options.get("raw_streams", False),
        record_timing=options.get("record_timing", True),
        tolerate_loss=options.get("tolerate_loss", False),
        note_loss=options.get("note_loss", True),
        parameters=options.get("parameters", {}),
        allow_new=options.get("allow_new", False),
        secrets=options.get("secrets", {}),
        pipeline=_pipeline(options.get("pipeline", "auto")),
        lift_limits=options.get("lift_limits", False),
        resend=options.get("resend", True),
        max_output=options.get("max_output"),
    )


def place_of(name: str, options: RunOptions) -> Place:
    """Return where the notebook is, where its result goes and where its kernel works; raises :class:`UsageError`."""
    output, cwd = options.get("output"), options.get("cwd")
    if options.get("content") is None:
        refuse_unreachable("", name, reads=True)
    if output is not None:
        refuse_unreachable("output", os.fspath(output))
        output = output_file(name, output, on_server=bool(options.get("server")) and not options.get("upload"))
    if options.get("server") and not options.get("upload") and options.get("content") is None:
        path_on_server(name)
    if cwd and not options.get("server"):
        local_folder(cwd)
    content = options.get("content")
    return Place(
        name,
        output or None,
        upload=options.get("upload", False),
        on_conflict=on_conflict_of(options),
        checkpoint=checkpoint_of(options),
        cwd=os.fspath(cwd) if cwd else None,
        content=content.encode() if isinstance(content, str) else content,
        deliver=options.get("deliver"),
        save=options.get("save", True),
    )


def on_conflict_of(options: RunOptions) -> OnConflict:
    """Return the rule for a notebook that changed during the run; raises :class:`UsageError` for an unknown one."""
    wanted, force = options.get("on_conflict"), options.get("force", False)
    if wanted is not None and wanted not in {rule.value for rule in OnConflict}:
        raise UsageError(f"on_conflict takes {', '.join(rule.value for rule in OnConflict)}, not {wanted!r}")
    rule = OnConflict.MERGE if wanted is None else OnConflict(wanted)
    if force and wanted is not None and rule is not OnConflict.OVERWRITE:
        hint = "--force is short for --on-conflict overwrite."
        raise UsageError(f"force and on_conflict={wanted!r} contradict each other", hint=hint)
    return OnConflict.OVERWRITE if force else rule


def checkpoint_of(options: RunOptions) -> CheckpointUse:
    """Return whether a checkpoint is made; raises :class:`UsageError` where there can be none."""
    use = CheckpointUse.KEEP if options.get("checkpoint") else CheckpointUse.NONE
    use = CheckpointUse.RESTORE if options.get("restore_on_failure") else use
    if use is not CheckpointUse.NONE and options.get("upload"):
        raise UsageError("an uploaded notebook has no checkpoint", hint="With --output the local file stays as it is.")
    if use is not CheckpointUse.NONE and (options.get("content") is not None or options.get("deliver")):
        raise UsageError("a notebook that comes or goes as text has no checkpoint")
    if use is not CheckpointUse.NONE and not options.get("save", True):
        raise UsageError("a notebook that is not saved needs no checkpoint")
    return use


def _pipeline(wanted: int | Literal["auto"]) -> int | None:
    if wanted != "auto" and wanted < 1:
        raise UsageError(f"pipeline: {wanted} cells at a time are none", hint="1 sends each cell by itself.")
    return None if wanted == "auto" else wanted


def access_of(options: RunOptions) -> Access:
    """Return the server to run on."""
    ca_file = options.get("ca_file")
    return Access(
        options.get("server"),
        options.get("token"),
        options.get("password"),
        Path(ca_file) if ca_file else None,
        verify=options.get("verify", True),
        max_response=options.get("max_response", MAX_RESPONSE),
        max_frame=options.get("max_frame", MAX_FRAME),
        zygote=options.get("zygote"),
        preload=tuple(options.get("preload", ())),
    )
