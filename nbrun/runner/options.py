"""The declarations of all options of a run and of a batch: type, default, flags and help.

A declaration is a key of a TypedDict: its type for Python, and an :mod:`Option <nbrun.core.planning.option_types>` with
its values, default, help and flags. The command line, the settings with their JSON schema, the pytest plug-in and the
Python API are derived from it. A new option is one entry here, plus the code that uses its value. The flag of an option
that is true by default is the negation: ``save`` is ``--no-save``.

The order is that of ``nbrun run --help``. The declarations are in groups: the signatures of the Python API write the
common options out and take the others by ``Unpack``. Options that exist only in Python are declared in
:mod:`nbrun.runner.job`. This module is imported before the private server starts, so it imports little.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from nbrun.core.batch.terms import SERVER_WAIT, Cause, Order, Override
from nbrun.core.formats.units import MAX_ARTEFACTS, MAX_FRAME, MAX_RESPONSE
from nbrun.core.planning.artefacts import check_pattern
from nbrun.core.planning.job import STARTUP_LIMIT, OnConflict
from nbrun.core.planning.option_types import (
    AUTO,
    Choice,
    Count,
    Duration,
    Flag,
    Integer,
    Named,
    Option,
    PathName,
    Pause,
    Size,
    Text,
    Texts,
    Thing,
    Words,
)
from nbrun.errors import UsageError

_Path = str | os.PathLike[str] | None


def _check_cause(word: str) -> None:
    if word not in list(Cause):
        raise ValueError(f"{word!r} is none of {', '.join(Cause)}")


def _check_module(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} is no name of a module; write pandas,matplotlib")


def _are_values(value: Any) -> bool:
    return isinstance(value, (list, tuple, range)) and len(value) > 0


class CommonRunOptions(TypedDict, total=False):
    """The options of a run that most callers need, written out in the signatures of the Python API."""

    output: Annotated[
        _Path,
        Option(
            PathName(),
            "Write the executed notebook to this path or URL (s3://, gs://, az://, https://). For several notebooks: "
            "a folder, or a template such as 'out/{folder}/{stem}.ipynb'. - is standard output.",
            flags=("-o", "--output"),
            metavar="PATH",
        ),
    ]
    save: Annotated[bool, Option(Flag(), "Do not write the executed notebook.", default=True, each=True)]
    parameters: Annotated[Mapping[str, Any], Option(Named(), "Parameters by name.", default={}, flags=None)]
    secrets: Annotated[
        Mapping[str, str],
        Option(
            Named("texts", lambda value: isinstance(value, str)),
            "What to set in the kernel without a trace in the notebook, by name.",
            default={},
            flags=None,
        ),
    ]
    env: Annotated[
        Mapping[str, str],
        Option(
            Named("texts", lambda value: isinstance(value, str)),
            "Environment variables of the kernel, by name.",
            default={},
            flags=None,
        ),
    ]
    kernel: Annotated[
        str | None,
        Option(
            Text(),
            "Use this kernelspec instead of the notebook's.",
            flags=("-k", "--kernel"),
            metavar="NAME",
            each=True,
        ),
    ]
    cwd: Annotated[
        _Path,
        Option(
            PathName(),
            "Working directory of the kernel; with --server, a directory of the server. The default is the notebook's. "
            "@scratch is a new folder for each run, which is removed afterwards.",
            metavar="DIR",
        ),
    ]
    timeout: Annotated[
        float | str | None,
        Option(Duration(), "Time limit of the whole run, from the first cell: 90, 90s, 5m, 1h30m.", each=True),
    ]
    cell_timeout: Annotated[
        float | str | None,
        Option(Duration(), "Time limit of each cell.", flags=("--cell-timeout", "--execution-timeout"), each=True),
    ]
    allow_errors: Annotated[
        bool,
        Option(
            Flag(),
            "Continue after a cell that raises an error, and do not fail the run because of it.",
            default=False,
            each=True,
        ),
    ]


class MoreRunOptions(TypedDict, total=False):
    """The other options of a run. Times are seconds or text, sizes are numbers or text; None sets no limit."""

    in_place: Annotated[
        bool,
        Option(
            Flag(),
            "Overwrite the notebooks with their results. This is the default for a single notebook.",
            default=False,
        ),
    ]
    on_conflict: Annotated[
        Literal["merge", "beside", "overwrite"] | None,
        Option(
            Choice(rule.value for rule in OnConflict),
            "If another client changed the notebook during the run: merge the results into it (default), write the "
            "executed notebook beside it as NAME-nbrun.ipynb, or overwrite it.",
            each=True,
        ),
    ]
    force: Annotated[bool, Option(Flag(), "Short for --on-conflict overwrite.", default=False, each=True)]
    save_every: Annotated[
        float | str | None,
        Option(
            Pause(),
            "Save the notebook at this interval during the run, within 5 % of the run's time; never disables it. By "
            "default nbrun chooses the interval.",
            flags=("--save-every", "--autosave-cell-every"),
            metavar="DURATION",
            each=True,
        ),
    ]
    checkpoint: Annotated[
        bool,
        Option(
            Flag(),
            "Keep the original notebook as a checkpoint that JupyterLab can restore.",
            default=False,
            each=True,
        ),
    ]
    restore_on_failure: Annotated[
        bool,
        Option(
            Flag(),
            "If the run fails, restore the original notebook from a checkpoint; the executed notebook is written next "
            "to it.",
            default=False,
            each=True,
        ),
    ]
    upload: Annotated[
        bool | None,
        Option(
            Flag(),
            "PATH is on this machine: upload it, run it on the server and download the result. The default is "
            "--no-upload for --server and --upload for --engine.",
            flags=("--upload/--no-upload",),
        ),
    ]
    language: Annotated[
        str | None,
        Option(
            Text(),
            "Write parameters in this language instead of the kernelspec's.",
            flags=("-l", "--language"),
            metavar="NAME",
            each=True,
        ),
    ]
    allow_new: Annotated[
        bool,
        Option(
            Flag(),
            "Accept parameters that the notebook does not declare or declares with another type.",
            default=False,
            each=True,
        ),
    ]
    prepare_only: Annotated[
        bool,
        Option(
            Flag(),
            "Write the notebook with its parameters and without outputs; execute nothing.",
            default=False,
            flags=("--prepare-only/--prepare-execute",),
        ),
    ]
    report_mode: Annotated[
        bool,
        Option(
            Flag(),
            "Hide the code of all cells when the notebook is opened.",
            default=False,
            flags=("--report-mode/--no-report-mode",),
            each=True,
        ),
    ]
    idle_timeout: Annotated[
        float | str | None, Option(Duration(), "Time limit of a running cell without output.", each=True)
    ]
    startup_timeout: Annotated[
        float | str,
        Option(
            Duration(),
            "Time limit of the kernel's start.",
            default=STARTUP_LIMIT,
            flags=("--startup-timeout", "--start-timeout", "--start_timeout"),
            each=True,
            show_default=True,
        ),
    ]
    pipeline: Annotated[
        int | Literal["auto"],
        Option(
            Count(),
            "Send up to N cells to the kernel before the first one ends. auto chooses N from the server's latency; 1 "
            "sends one cell at a time.",
            default=AUTO,
            metavar="N|auto",
            each=True,
            show_default=True,
        ),
    ]
    raw_streams: Annotated[
        bool,
        Option(Flag(), "Keep carriage returns and backspaces in text output unprocessed.", default=False, each=True),
    ]
    max_output: Annotated[
        int | str | None,
        Option(
            Size(),
            "Truncate a cell's outputs beyond this number of characters (example: 50MB) and add a note. The default is "
            "no limit.",
        ),
    ]
    artefacts: Annotated[
        Sequence[str],
        Option(
            Texts(check_pattern),
            "Collect the files that the run writes and this pattern matches, relative to the kernel's working "
            "directory (example: 'out/*.csv'). May be repeated.",
            default=(),
            metavar="GLOB",
            each=True,
        ),
    ]
    artefacts_dir: Annotated[
        _Path,
        Option(
            PathName(folder=True),
            "Copy the artefacts into this folder, below the notebook's name. The default is artefacts for a run on "
            "--server and in @scratch; otherwise they stay where they are.",
            metavar="DIR",
        ),
    ]
    max_artefacts: Annotated[
        int | str | None,
        Option(
            Size(),
            "Maximum size of all artefacts of a run; none disables the limit.",
            default=MAX_ARTEFACTS,
            show_default=True,
            each=True,
        ),
    ]
    lift_limits: Annotated[
        bool,
        Option(
            Flag(),
            "Remove ipykernel's output queue limit on --server. By default it drops output when 1000 messages are "
            "waiting.",
            default=False,
            each=True,
        ),
    ]
    resend: Annotated[
        bool,
        Option(
            Flag(),
            "Do not use a replay buffer in the kernel on --server; output lost in transit stays lost.",
            default=True,
            each=True,
        ),
    ]
    tolerate_loss: Annotated[
        bool,
        Option(
            Flag(),
            "Exit with code 0 even if output is known to be lost or an artefact is missing.",
            default=False,
            each=True,
        ),
    ]
    note_loss: Annotated[
        bool,
        Option(
            Flag(),
            "Do not add a note to a cell's outputs when some are missing.",
            default=True,
            flags=("--no-loss-note",),
            each=True,
        ),
    ]
    record_timing: Annotated[
        bool,
        Option(
            Flag(),
            "Do not write execution times into the notebook.",
            default=True,
            flags=("--no-timing",),
            each=True,
        ),
    ]


class CommonServerOptions(TypedDict, total=False):
    """Which server to run on."""

    server: Annotated[
        str | None, Option(Text(), "Run on this Jupyter server. By default a private server is started.", metavar="URL")
    ]
    token: Annotated[str | None, Option(Text(), "The token of the server.", flags=None)]


class MoreServerOptions(TypedDict, total=False):
    """How to connect to the server, and how to start a private one."""

    engine: Annotated[
        str | None,
        Option(
            Text(),
            "Run on the seats of this engine instead of one server, up to -j at a time: hub+https://HOST (named "
            "servers of a JupyterHub), gateway+https://HOST (an Enterprise or Kernel Gateway), or the engine of a "
            "plug-in.",
            metavar="URL",
        ),
    ]
    engine_options: Annotated[Mapping[str, Any], Option(Named(), "Settings of the engine.", default={}, flags=None)]
    password: Annotated[str | None, Option(Text(), "The password of the server.", flags=None)]
    headers: Annotated[
        Mapping[str, str],
        Option(
            Named("texts", lambda value: isinstance(value, str)),
            "Additional HTTP headers for the server, by name.",
            default={},
            flags=None,
        ),
    ]
    ca_file: Annotated[_Path, Option(PathName(exists=True), "Trust the certificate authorities in this PEM file.")]
    verify: Annotated[
        bool, Option(Flag(), "Do not verify the server's TLS certificate.", default=True, flags=("--insecure",))
    ]
    max_response: Annotated[
        int | str | None,
        Option(
            Size(),
            "Maximum size of a decompressed response of --server; none disables the limit.",
            default=MAX_RESPONSE,
            show_default=True,
        ),
    ]
    max_frame: Annotated[
        int | str | None,
        Option(
            Size(),
            "Maximum size of one kernel message from --server; none disables the limit.",
            default=MAX_FRAME,
            show_default=True,
        ),
    ]
    zygote: Annotated[
        bool | None,
        Option(
            Flag(),
            "Fork Python kernels of the private server from a process that has already imported ipykernel. The default "
            "is on where that is safe (Linux), unless NBRUN_ZYGOTE is 0.",
            flags=("--zygote/--no-zygote",),
        ),
    ]
    preload: Annotated[
        str | Sequence[str],
        Option(
            Words(_check_module),
            "Import these modules before kernels are forked (example: pandas,matplotlib).",
            default=(),
            metavar="MODULES",
        ),
    ]
    trace: Annotated[
        _Path,
        Option(
            PathName(),
            "Write the HTTP exchanges and kernel messages of the run to this file, for a bug report. Secrets and "
            "tokens are masked.",
            metavar="FILE",
        ),
    ]


class SharedRunOptions(CommonRunOptions, MoreRunOptions, CommonServerOptions, MoreServerOptions, total=False):
    """All options of a run that the command line, the settings and Python have."""


class CommonBatchOptions(TypedDict, total=False):
    """The options of a batch that most callers need."""

    jobs: Annotated[
        int | Literal["auto"] | None,
        Option(
            Count(),
            "Run up to N notebooks at the same time; auto is the number of processors.",
            default=1,
            flags=("-j", "--jobs"),
            metavar="N|auto",
            show_default=True,
        ),
    ]
    retries: Annotated[
        int,
        Option(
            Integer(0),
            "Retry a failed notebook up to N times, each time on a fresh kernel. The attempt that got furthest is "
            "kept.",
            default=0,
            metavar="N",
        ),
    ]
    max_failures: Annotated[int | None, Option(Integer(1), "Start no further notebook after N failures.", metavar="N")]
    matrix: Annotated[
        Mapping[str, Sequence[Any]],
        Option(Named("lists of values", _are_values), "A run for each combination of values.", default={}, flags=None),
    ]


class MoreBatchOptions(TypedDict, total=False):
    """The other options of a batch."""

    exclude: Annotated[
        Sequence[str],
        Option(
            Texts(),
            "Skip notebooks that match this pattern (.gitignore syntax). May be repeated.",
            default=(),
            metavar="GLOB",
        ),
    ]
    retry_on: Annotated[
        str | Sequence[str],
        Option(
            Words(_check_cause),
            "Failures to retry, separated by commas: kernel, server, cell, timeout, worker. worker is a lost seat of "
            "--engine: its notebook is run once more, also without --retries.",
            default=(Cause.KERNEL.value, Cause.SERVER.value, Cause.WORKER.value),
            metavar="CAUSES",
            show_default=True,
        ),
    ]
    server_wait: Annotated[
        float | str | None,
        Option(
            Duration(),
            "Before a retry, wait up to this long for an unreachable server.",
            default=SERVER_WAIT,
            show_default=True,
        ),
    ]
    order: Annotated[
        str,
        Option(
            Choice(order.value for order in Order),
            "Order in which notebooks are started.",
            default=Order.AS_GIVEN.value,
        ),
    ]
    shard: Annotated[
        str | None,
        Option(
            Text(),
            "Split the notebooks into N parts and run only part K. Each notebook is in exactly one part.",
            metavar="K/N",
        ),
    ]
    durations: Annotated[
        _Path,
        Option(
            PathName(exists=True),
            "Use the durations in this JSON result of an earlier run for --shard and --order. All shards need the same "
            "file.",
        ),
    ]
    changed_since: Annotated[
        str | None,
        Option(Text(), "Run only notebooks that changed, or whose inputs changed, since this commit.", metavar="REF"),
    ]
    cache: Annotated[
        _Path,
        Option(
            PathName(folder=True),
            "Cache results in this folder. Unchanged notebooks are not executed again; their outputs come from the "
            "cache.",
            metavar="DIR",
        ),
    ]
    refresh: Annotated[
        bool,
        Option(
            Flag(),
            "Execute every notebook and replace its result in --cache.",
            default=False,
            flags=("--no-cache-read",),
        ),
    ]
    resume: Annotated[
        bool,
        Option(
            Flag(),
            "Continue the same batch after nbrun was killed or stopped: run only the notebooks that have no result in "
            "the journal, or that changed since.",
            default=False,
        ),
    ]
    journal: Annotated[
        _Path,
        Option(
            PathName(),
            "Write the journal for --resume to this file. The default is .nbrun-journal.jsonl in the folder of -o; the "
            "file is removed when every notebook has a result.",
            metavar="FILE",
        ),
    ]
    overrides: Annotated[
        Sequence[Override],
        Option(
            Thing(
                "a list of nbrun.Override",
                lambda value: isinstance(value, (list, tuple)) and all(isinstance(one, Override) for one in value),
            ),
            default=(),
            flags=None,
        ),
    ]


class SharedBatchOptions(CommonBatchOptions, MoreBatchOptions, total=False):
    """The options of a batch, in addition to those of its runs."""


def check_environment(env: Mapping[str, str]) -> None:
    """Raise :class:`UsageError` for environment variables that no process can have."""
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise UsageError(
                f"env: {name!r} is no environment variable", hint="A name has no =, and nothing has a NUL."
            )


def check_together(options: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` for options that contradict each other."""
    check_environment(options["env"])
    if options["preload"] and options["zygote"] is False:
        raise UsageError("preload needs the zygote", hint="Without it every kernel imports for itself.")
