"""Events and results as JSON."""

import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbrun.core.events import RunFinished, Stage
from nbrun.reporters.jsonlines import Events, Results, line_of
from tests.reporters.streams import BATCH, GOOD, RESULTS, batch

WHEN = datetime(2026, 11, 23, 6, tzinfo=UTC)


def test_each_event_is_a_line_written_at_once(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "events.jsonl"
    log = Events(str(target), clock=lambda: WHEN)
    for number, event in enumerate(batch(), start=1):
        log.observe(event)
        assert len(target.read_text().splitlines()) == number
    log.close()
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert {line["time"] for line in lines} == {"2026-11-23T06:00:00.000+00:00"}
    assert lines[0]["notebooks"] == list(RESULTS)
    assert lines[-1]["result"] == BATCH.as_dict()
    assert [line["stage"] for line in lines if line["event"] == "stage-entered"][:2] == ["starting_server"] * 2


def test_the_page_of_events_names_every_event_every_stage_and_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page, re.MULTILINE))
    for event in batch():
        line = line_of(event, "now")
        fields = line.keys() - {"event", "time"}
        assert [name for name in fields if f"`{name}`" not in table[line["event"]]] == []
    assert set(table) == {line_of(event, "")["event"] for event in batch()}
    assert [stage for stage in Stage if f"`{stage.name.lower()}`" not in page] == []


def test_the_result_of_one_run_is_its_object_and_that_of_a_batch_the_batch_s(tmp_path: Path) -> None:
    one, many = Results(str(tmp_path / "one.json")), Results(str(tmp_path / "many.json"))
    one.observe(RunFinished(GOOD, RESULTS[GOOD]))
    for event in batch():
        many.observe(event)
    one.close()
    many.close()
    assert json.loads((tmp_path / "one.json").read_text()) == RESULTS[GOOD].as_dict()
    assert json.loads((tmp_path / "many.json").read_text()) == BATCH.as_dict()


def test_without_a_result_nothing_is_written(tmp_path: Path) -> None:
    Results(str(tmp_path / "none.json")).close()
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=sink))
    log, results = Events("-"), Results("-")
    for listener in (log, results):
        listener.observe(RunFinished(GOOD, RESULTS[GOOD]))
        listener.close()
    line, _, rest = sink.getvalue().partition(b"\n")
    assert json.loads(line)["event"] == "run-finished"
    assert json.loads(rest) == RESULTS[GOOD].as_dict()


READER_GONE = """
import sys
from nbrun.reporters.composite import Composite
from nbrun.reporters.jsonlines import Events
from tests.reporters.streams import batch
fanout = Composite([Events("-")])
sys.stdin.readline()
for event in batch():
    fanout.observe(event)
fanout.close()
sys.exit(7)
"""


def test_a_reader_that_has_gone_changes_no_exit_code() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", READER_GONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(b"go\n", timeout=60)
    assert (process.returncode, said) == (7, b"")
