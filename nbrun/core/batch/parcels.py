"""What travels to and from a seat that runs nbrun: parcels, deliveries and events; pure.

A parcel and a delivery are a line of JSON and the bytes of a notebook. A parcel has the places of secrets, never their
values. Events are the JSON objects of ``--events`` without a time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from typing import Any, Self

from msgspec.structs import replace

from nbrun.core.batch.replay import read_cell, read_result
from nbrun.core.events import (
    BatchFinished,
    BatchStarted,
    CellFinished,
    CellStarted,
    Event,
    OutputArrived,
    RunFinished,
    Stage,
    StageEntered,
    Warned,
    as_dict,
)
from nbrun.core.formats.json_text import as_object, dumps, loads
from nbrun.core.formats.units import spell_size
from nbrun.core.outputs.mimebundle import stream_output
from nbrun.core.planning.job import Job, Limits, place_of_secret
from nbrun.core.results import NotebookResult
from nbrun.errors import BadFrame, UsageError

LARGEST_OUTPUT = 64_000
"""Maximum bytes of an output in an event. The event of a larger one has a note; the delivery has the output."""
_OF_PARENT = ("notebook", "parameters", "secrets", "limits", "save", "save_every")
"""Fields of :class:`Job` that are not sent among the options."""
_DATES: Mapping[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "time": time.fromisoformat,
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What the runs of a batch need on each seat: their ``secrets``, by name with their places, and ``folders``."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that a seat needs for one attempt of a run.

    ``batch`` and ``run`` identify the run, ``attempt`` counts from 1. ``name`` is the notebook as the user named it,
    and ``folder`` the working directory of its kernel. ``options`` and ``parameters`` are JSON. ``secrets`` are the
    places of secrets by name, which are read where the kernel runs. ``inputs`` are the paths of files that must be
    there.
    """

    batch: str
    run: str
    attempt: int
    name: str
    folder: str
    notebook: bytes = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        job: Job,
        notebook: bytes,
        *,
        batch: str,
        run: str,
        attempt: int,
        folder: str,
        inputs: Sequence[str] = (),
    ) -> Self:
        """Return the parcel of a job; raise :class:`UsageError` for a parameter that cannot be sent."""
        options = {one.name: getattr(job, one.name) for one in fields(job) if one.name not in _OF_PARENT}
        limits = {one.name: getattr(job.limits, one.name) for one in fields(job.limits)}
        parameters = {name: _packed(value, name) for name, value in job.parameters.items()}
        return cls(
            batch, run, attempt, job.notebook, folder, notebook, {**options, "limits": limits}, parameters,
            places_of_secrets(job), inputs,
        )  # fmt: skip

    def job(self, secrets: Mapping[str, str]) -> Job:
        """Return the job, with the values of its secrets."""
        options = dict(self.options)
        limits = {**options.pop("limits")}
        startup = limits.pop("startup")
        return Job(
            self.name,
            limits=Limits(**limits, startup=math.inf if startup is None else startup),
            save_every=math.inf,
            parameters=_unpacked(self.parameters),
            secrets=secrets,
            **options,
        )

    def encode(self) -> bytes:
        """Return the parcel as bytes."""
        header = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "notebook"}
        return dumps(header) + b"\n" + self.notebook

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the parcel from the bytes of :meth:`encode`; raise ValueError for others."""
        header, notebook = _split(data)
        try:
            return cls(**header, notebook=notebook)
        except TypeError as error:
            raise ValueError(f"not a parcel: {error}") from None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a seat returns for a parcel: the result, and the executed notebook if cells were executed.

    Both are masked before they leave the seat.
    """

    run: str
    attempt: int
    result: NotebookResult
    notebook: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """Return the delivery as bytes."""
        header = {"run": self.run, "attempt": self.attempt, "result": self.result.as_dict()}
        return dumps({**header, "executed": self.notebook is not None}) + b"\n" + (self.notebook or b"")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the delivery from the bytes of :meth:`encode`; raise ValueError for others."""
        header, notebook = _split(data)
        try:
            result = read_result(as_object(header["result"]))
            return cls(header["run"], header["attempt"], result, notebook if header["executed"] else None)
        except KeyError as error:
            raise ValueError(f"not a delivery: {error}") from None


def places_of_secrets(job: Job) -> dict[str, str]:
    """Return the places of a job's secrets by name."""
    return {name: place_of_secret(name, value) for name, value in job.secrets.items()}


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, notebook = data.partition(b"\n")
    try:
        return as_object(loads(line)), notebook
    except BadFrame as error:
        raise ValueError(str(error)) from None


def packed_event(event: Event) -> dict[str, Any] | None:
    """Return the JSON object of an event of a run, or None for an event that the delivery replaces."""
    if isinstance(event, (BatchStarted, RunFinished, BatchFinished)):
        return None
    if isinstance(event, OutputArrived) and (size := len(dumps(event.output))) > LARGEST_OUTPUT:
        note = f"nbrun: an output of {spell_size(size)} is in the executed notebook only\n"
        event = replace(event, output=stream_output("stderr", note))
    return as_dict(event)


def unpacked_event(content: Mapping[str, Any]) -> Event:
    """Return the event from the object of :func:`packed_event`; raise ValueError for another object."""
    try:
        notebook = content["notebook"]
        match content["event"]:
            case "stage-entered":
                return StageEntered(notebook, Stage[content["stage"].upper()])
            case "cell-started":
                place = (content[key] for key in ("index", "number", "total", "source"))
                return CellStarted(notebook, *place)
            case "output":
                return OutputArrived(notebook, content["index"], content["output"])
            case "cell-finished":
                return CellFinished(notebook, read_cell(content["cell"]))
            case "warning":
                return Warned(notebook, content["text"])
            case other:
                raise ValueError(f"no event of a run: {other}")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {type(error).__name__} {error}") from None


def _packed(value: Any, name: str) -> Any:
    """Return a parameter's value as JSON; dates and endless numbers are objects with one key."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case date() | time():
            return {f"${type(value).__name__}": value.isoformat()}
        case list() | tuple():
            return [_packed(item, name) for item in value]
        case Mapping() if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _packed(item, name) for key, item in value.items()}
    raise UsageError(
        f"the parameter {name} has a value that cannot be sent to a seat: {type(value).__name__}",
        hint="Numbers, texts, dates, and lists and mappings of them can be sent.",
    )


def _unpacked(value: Any) -> Any:
    match value:
        case list():
            return [_unpacked(item) for item in value]
        case {"$float": number}:
            return float(number)
        case dict() if len(value) == 1 and (kind := next(iter(value))).startswith("$"):
            return _DATES[kind[1:]](value[kind])
        case dict():
            return {key: _unpacked(item) for key, item in value.items()}
        case _:
            return value
