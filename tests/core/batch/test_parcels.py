"""Parcels, deliveries and events arrive as they were sent, and never with the value of a secret."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any

import pytest

from nbrun.core.batch.parcels import LARGEST_OUTPUT, Delivery, Parcel, packed_event, unpacked_event
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
)
from nbrun.core.formats.json_text import dumps, loads
from nbrun.core.planning.job import Job, Limits, Secret
from nbrun.core.results import BatchResult, CellOutcome, CellResult, NotebookResult, Outcome
from nbrun.errors import UsageError

RESULT = NotebookResult("1", "a.ipynb", None, "python3", Outcome.PASSED, "2026-01-01T00:00:00.000+00:00", 1.5)
JOB = Job(
    "reports/a.ipynb",
    kernel="python3",
    limits=Limits(cell=5.0),
    allow_errors=True,
    env={"A": "b"},
    pipeline=3,
    artefacts=["*.csv"],
)


def parcel(job: Job) -> Parcel:
    return Parcel.of(job, b'{"cells": []}\n', batch="b1", run="a.ipynb [x=1]", attempt=2, folder="/data/reports")


def test_a_job_arrives_as_it_was_sent() -> None:
    sent = parcel(JOB)
    received = Parcel.decode(sent.encode())
    assert (received.batch, received.run, received.attempt) == ("b1", "a.ipynb [x=1]", 2)
    assert (received.folder, received.notebook) == ("/data/reports", b'{"cells": []}\n')
    assert received.job({}) == replace(JOB, save_every=math.inf)


def test_a_time_limit_of_infinity_arrives() -> None:
    job = parcel(replace(JOB, limits=Limits(run=math.inf, startup=math.inf)))
    assert Parcel.decode(job.encode()).job({}).limits == Limits(startup=math.inf)


def test_of_a_secret_only_the_name_and_the_place_are_sent() -> None:
    secrets = {"TOKEN": "planted-value", "KEY": Secret("planted-value", "file:/run/key")}
    sent = parcel(replace(JOB, secrets=secrets)).encode()
    assert b"planted-value" not in sent
    received = Parcel.decode(sent)
    assert received.secrets == {"TOKEN": "env:TOKEN", "KEY": "file:/run/key"}
    assert received.job({"TOKEN": "of the seat"}).secrets == {"TOKEN": "of the seat"}


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 10**30, 1.5, "text", [1, ["a"]], {"a": {"b": [1]}}, {}, {"one": 1},
        date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, tzinfo=UTC), time(1, 2), math.inf, -math.inf,
    ],
    ids=repr,
)  # fmt: skip
def test_a_parameter_arrives_with_its_type(value: Any) -> None:
    received = Parcel.decode(parcel(replace(JOB, parameters={"x": value})).encode()).job({}).parameters["x"]
    assert (received, type(received)) == (value, type(value))


def test_not_a_number_arrives() -> None:
    assert math.isnan(Parcel.decode(parcel(replace(JOB, parameters={"x": math.nan})).encode()).job({}).parameters["x"])


@pytest.mark.parametrize("value", [object(), b"bytes", {1: 2}, {"$date": 1}], ids=["object", "bytes", "key", "own key"])
def test_a_parameter_that_cannot_be_sent_is_named(value: Any) -> None:
    with pytest.raises(UsageError, match="the parameter x has a value that cannot be sent"):
        parcel(replace(JOB, parameters={"x": [value]}))


@pytest.mark.parametrize("notebook", [None, b"", b'{"cells": []}\n\n'])
def test_a_delivery_arrives_as_it_was_sent(notebook: bytes | None) -> None:
    assert Delivery.decode(Delivery("a", 1, RESULT, notebook).encode()) == Delivery(
        "a", 1, replace(RESULT, cells=[], warnings=[], tries=[], artefacts=[]), notebook
    )


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[]\n", b'{"result": {}}', b'{"secrets": 1}'])
@pytest.mark.parametrize("kind", [Parcel, Delivery])
def test_other_bytes_are_refused(kind: type[Parcel] | type[Delivery], data: bytes) -> None:
    with pytest.raises(ValueError, match="not"):
        kind.decode(data)


@pytest.mark.parametrize(
    "event",
    [
        StageEntered("a", Stage.RUNNING),
        CellStarted("a", 1, 2, 3, "x = 1"),
        OutputArrived("a", 1, {"output_type": "stream", "name": "stdout", "text": "x"}),
        CellFinished("a", CellResult(1, "id", CellOutcome.PASSED, 1, 0.5, number=1)),
        Warned("a", "careful"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_arrives_as_it_was_sent(event: Event) -> None:
    assert unpacked_event(loads(dumps(packed_event(event)))) == event


@pytest.mark.parametrize(
    "event", [BatchStarted(["a"]), RunFinished("a", RESULT), BatchFinished(BatchResult("1", "", 0.0))], ids=str
)
def test_events_that_the_delivery_replaces_are_not_sent(event: Event) -> None:
    assert packed_event(event) is None


def test_a_large_output_is_replaced_by_a_note() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "x" * LARGEST_OUTPUT}
    sent = packed_event(OutputArrived("a", 1, output))
    assert sent is not None
    assert len(dumps(sent)) < 1000
    assert "in the executed notebook only" in sent["output"]["text"]


@pytest.mark.parametrize(
    "content",
    [{}, {"notebook": "a", "event": "other"}, {"notebook": "a", "event": "stage-entered", "stage": "none"},
     {"notebook": "a", "event": "cell-finished", "cell": None}],
)  # fmt: skip
def test_another_object_is_no_event(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="event"):
        unpacked_event(content)
