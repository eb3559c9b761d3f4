"""Medians, ratios, verdicts and the page, from known numbers."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.environment import OWN, SHARED
from benchmarks.growth import GROWTH, exponent
from benchmarks.report import page
from benchmarks.results import Measurement, Results, summaries
from benchmarks.stages import SERVERS, by_stage
from benchmarks.targets import verdicts

MACHINE = {"date": "2026-01-01 00:00 UTC", "python": "3.11"}


def results(ours: float, *, failure: str = "", environment: str = SHARED) -> Results:
    """Return a run of three rounds of W1, in which papermill took 2 s; half of the CPU is the client's."""
    walls = [("nbrun", ours), ("papermill", 2.0)]
    rows = [
        Measurement(
            "W1",
            who,
            number,
            wall * factor,
            wall,
            2_000_000,
            1_000_000,
            failure if who == "nbrun" else "",
            {"client": wall / 2, "server": 0.0, "kernel": wall / 4},
        )
        for who, wall in walls
        for number, factor in enumerate((1.0, 0.5, 7.0))
    ]
    return Results(dict(MACHINE), rows, environment=environment)


def test_the_middle_of_the_rounds_counts() -> None:
    table = summaries([results(1.0)])
    assert table["W1", "papermill"].wall == 2.0
    assert table["W1", "papermill"].rounds == 3
    assert table["W1", "papermill"].failure == ""


@pytest.mark.parametrize(
    ("runs", "met"),
    [
        ([results(0.8)], True),
        ([results(1.0)], False),
        ([results(0.8), results(0.8), results(1.0)], False),
        ([results(0.1, failure="7 of 9 lines")], False),
    ],
    ids=["within", "beyond", "beyond once", "fast because it loses"],
)
def test_a_target_holds_in_every_run_or_not_at_all(runs: list[Results], met: bool) -> None:
    (verdict,) = verdicts(runs)
    assert verdict.is_met is met
    assert len(verdict.ratios) == len(runs)


def test_each_kind_of_environments_has_targets_of_its_own() -> None:
    assert [verdict.is_met for verdict in verdicts([results(1.1, environment=SHARED)])] == [False]
    by_quantity = {verdict.target.quantity: verdict for verdict in verdicts([results(1.2, environment=OWN)])}
    assert by_quantity["wall"].is_met
    assert by_quantity["cpu"].is_met
    assert not any(verdict.is_met for verdict in verdicts([results(2.0, environment=OWN)]))


def test_the_save_is_held_against_the_json_module() -> None:
    run = results(0.8)
    run.extras["W5"] = {"marks": [[1.0, "saving"], [2.5, "saved (1.200 s)"]], "json_module": 1.0}
    saving = verdicts([run])[-1]
    assert saving.ratios[0] == pytest.approx(1.2)
    assert saving.is_met


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    run = results(1.0)
    run.extras["scale"] = {"cells": []}
    run.save(tmp_path / "run.json")
    again = Results.load(tmp_path / "run.json")
    assert again == run
    assert again.has("W1", "nbrun", 2)
    assert not again.has("W1", "nbrun", 3)


def test_the_page_shows_ratios_failures_and_what_is_still_to_measure() -> None:
    text = page([results(0.8), results(1.2, failure="7 of 9 lines")])
    assert "0.40 · 0.60" in text
    assert "**failed**: 7 of 9 lines" in text
    assert "(incomplete)" in text
    assert "(incomplete)" not in page([results(0.8)])
    assert "python -m benchmarks scale" in text
    assert "<!--" not in text.partition("\n## ")[2]


def test_the_page_shows_the_tools_in_their_own_environments_first() -> None:
    text = page([results(0.8), results(1.5, environment=OWN)])
    own, _, shared = text.partition("## All tools in one environment")
    assert "| W1, one trivial cell, cold | 1.50 s | 0.75 |" in own
    assert "**missed**" in own
    assert "| 1.50 | 0.75 · 0.00 · 0.38 |" in own
    assert "peers-own.svg" in own
    assert "| W1, one trivial cell, cold | 0.80 s | 0.40 |" in shared
    assert "**missed**" not in shared
    assert "Not measured yet: `python -m benchmarks`." in page([results(0.8)])


def test_a_run_from_before_the_own_environments_is_one_in_the_shared_one(tmp_path: Path) -> None:
    row = {"workload": "W1", "contender": "nbrun", "round": 0, "wall": 1.0, "cpu": 1.0, "peak": 1, "runner_peak": 1}
    (tmp_path / "run.json").write_text(json.dumps({"machine": MACHINE, "measurements": [row]}))
    run = Results.load(tmp_path / "run.json")
    assert run.environment == SHARED
    assert summaries([run])["W1", "nbrun"].parts == {}


@pytest.mark.parametrize(
    ("values", "slope"),
    [([1.01, 1.1, 2.0, 11.0], 1.0), ([1.0, 1.1, 11.0, 1001.0], 2.0), ([1.0, 1.0, 1.0, 1.0], 0.0)],
    ids=["linear", "quadratic", "constant"],
)
def test_growth_is_told_from_what_every_run_takes(values: list[float], slope: float) -> None:
    assert exponent([10, 100, 1_000, 10_000], values) == pytest.approx(slope, abs=0.1)


def test_the_page_shows_what_grows_by_process() -> None:
    points = [
        {
            "size": size,
            "wall": size * 1.0,
            "cpu": 2.0,
            "peaks": {"client": size * 1_000_000, "server": 2_000_000, "kernel": 0},
            "files": {"client": 24, "server": 60, "kernel": 0},
            "failure": "",
        }
        for size in (1, 10, 100)
    ]
    text = page([Results(dict(MACHINE), [], {f"{GROWTH}notebooks": points})])
    assert "| 100 notebooks | 100.00 | 2.00 | 100 | 2 | 0 | 24 · 60 | all |" in text
    assert "| **exponent, notebooks** | **1.00** | **0.00** | **1.00** | **0.00** | **0.00** |  |  |" in text


def test_the_stages_of_a_batch_are_summed_up() -> None:
    at = "2026-01-01T00:00:{:06.3f}+00:00"
    told = [
        ("stage-entered", "a", "loading", 1.0),
        ("stage-entered", "b", "loading", 1.5),
        ("output", "a", "", 1.6),
        ("stage-entered", "a", "running", 2.0),
        ("run-finished", "a", "", 5.0),
        ("run-finished", "b", "", 6.0),
    ]
    lines = [
        json.dumps({"event": event, "notebook": name, "stage": stage, "time": at.format(second)})
        for event, name, stage, second in told
    ]
    began = datetime.fromisoformat(at.format(0.0)).timestamp()
    spent = by_stage(lines, began)
    assert spent["stages"] == pytest.approx({"loading": 5.5, "running": 3.0})
    assert (spent["runs"], spent["first"], spent["last"]) == (2, pytest.approx(1.0), pytest.approx(6.0))
    run = results(0.8)
    run.extras["W6"] = {**spent, "wall": 6.5, "cpu": 9.0}
    side = {**spent, "wall": 6.5, "cpu": 9.0, "parts": {"client": 1.0, "server": 2.0, "kernel": 5.5}}
    run.extras[SERVERS] = {"private": side, "stock": {**side, "stages": {"connecting": 0.25, "running": 4.0}}}
    text = page([run])
    assert "| running | 1.50 | 1.500 |" in text
    assert "| running | 3.00 | 4.00 |" in text
    assert "| connecting | 0.00 | 0.25 |" in text
    assert "| CPU s, kernel | 5.50 | 5.50 |" in text
