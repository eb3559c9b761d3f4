"""The job: what one run executes, with which limits, and what happens to the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from nbrun.errors import UsageError

STARTUP_LIMIT = 75.0
"""Default time limit in seconds for the start of a kernel."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The time limits of a run in seconds; None means no limit.

    ``run`` counts from the first cell, ``cell`` from the start of a cell, ``silence`` from the last output of the
    running cell (the option is ``--idle-timeout``). ``startup`` limits the start of the server and of the kernel.
    """

    run: float | None = None
    cell: float | None = None
    silence: float | None = None
    startup: float = STARTUP_LIMIT


class Secret(str):
    """The value of a secret, and its place: ``env:VARIABLE`` or ``file:PATH``.

    Seats that execute runs read the value at this place. ``problem`` is the error if there is no value on this machine;
    it matters only for runs whose secrets are set from here.
    """

    __slots__ = ("place", "problem")

    place: str
    problem: UsageError | None

    def __new__(cls, value: str, place: str, problem: UsageError | None = None) -> Self:
        """Return the value as text that knows its place."""
        secret = super().__new__(cls, value)
        secret.place, secret.problem = place, problem
        return secret


def place_of_secret(name: str, value: str) -> str:
    """Return the place of a secret; one without a place is in the environment variable of its name."""
    return value.place if isinstance(value, Secret) else f"env:{name}"


class OnConflict(Enum):
    """The rule for a notebook that another client changed during its run."""

    MERGE = "merge"
    """The edited notebook gets the results. Results without a place in it are saved beside it."""
    BESIDE = "beside"
    """The edited notebook stays as it is, and the executed one is saved beside it."""
    OVERWRITE = "overwrite"
    """The executed notebook replaces the edited one."""


class CheckpointUse(Enum):
    """Whether a checkpoint is created, and for what."""

    NONE = "none"
    KEEP = "keep"
    """The original notebook is kept as a checkpoint."""
    RESTORE = "restore"
    """The original notebook is kept, and restored if the run does not pass."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one notebook.

    ``notebook`` is its path as given by the user. ``kernel`` overrides the notebook's kernelspec, and ``language`` the
    kernel's language for literals. ``report_mode`` hides the sources of code.

    ``save_every`` is the interval in seconds between saves during the run: None to choose it, infinite to save at the
    end only. ``tolerate_loss`` makes lost output a warning. ``note_loss`` adds a note to the outputs of such a cell.

    ``parameters`` are injected into the notebook; with ``allow_new``, also those that it does not declare. ``secrets``
    are set in the kernel and masked in all outputs. ``env`` are environment variables of the kernel.

    ``artefacts`` are patterns of files that the run writes and nbrun collects, up to ``max_artefacts`` bytes, into
    ``artefacts_dir`` if it is given. With ``scratch`` the kernel works in a new folder, which is removed afterwards.

    ``pipeline`` is how many cells may be in progress at a time; None to choose it. ``lift_limits`` lets the kernel
    queue any amount of output. ``resend`` lets it send lost messages again. ``max_output`` limits the outputs of each
    cell, in characters.
    """

    notebook: str
    kernel: str | None = None
    language: str | None = None
    limits: Limits = field(default_factory=Limits)
    allow_errors: bool = False
    save: bool = True
    save_every: float | None = None
    report_mode: bool = False
    raw_streams: bool = False
    record_timing: bool = True
    tolerate_loss: bool = False
    note_loss: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    allow_new: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    pipeline: int | None = None
    lift_limits: bool = False
    resend: bool = True
    max_output: int | None = None
    artefacts: Sequence[str] = ()
    artefacts_dir: str | None = None
    max_artefacts: int | None = None
    scratch: bool = False
