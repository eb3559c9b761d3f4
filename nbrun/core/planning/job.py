"""The job: what one run executes, with which limits, and what happens to the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

STARTUP_LIMIT = 60.0
"""Seconds that a kernel may take to start, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The clocks of a run, in seconds; None never strikes.

    ``run`` counts from the first cell, ``cell`` from a cell's start, ``silence`` from the last output of the running
    cell (the command line calls it the idle time-out); ``startup`` bounds the start of the server and of the kernel.
    """

    run: float | None = None
    cell: float | None = None
    silence: float | None = None
    startup: float = STARTUP_LIMIT


class OnConflict(Enum):
    """What happens to a notebook that somebody else changed during its run."""

    MERGE = "merge"
    """Their notebook gets the results; what finds no place in it is saved beside it."""
    BESIDE = "beside"
    """Their notebook stays as it is; the executed one is saved beside it."""
    OVERWRITE = "overwrite"
    """The executed notebook replaces theirs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one notebook.

    ``notebook`` is its name for the user, the path as it was given; ``kernel`` overrides the notebook's own kernelspec,
    ``language`` what that says of the language in which values are written. ``report_mode`` hides the sources of code.
    ``save_every`` is the pause in seconds between two saves while it runs: None to choose it, infinite to save at the
    end only. ``tolerate_loss`` makes lost output a warning, ``note_loss`` says so at the end of the cell's outputs.
    ``parameters`` are injected into the notebook, ``allow_new`` those too that it does not declare; ``secrets`` are set
    in the kernel and masked wherever they come out.
    ``pipeline`` is how many cells may be on their way to the kernel at a time, None for what suits the server.
    ``lift_limits`` lets the kernel queue any amount of output; ``resend`` lets it send again what was lost on the way;
    ``max_output`` is what each cell may put out, in characters.
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
    pipeline: int | None = None
    lift_limits: bool = False
    resend: bool = True
    max_output: int | None = None
