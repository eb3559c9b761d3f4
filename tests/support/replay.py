"""Replay the runs of a trace (``nbrun run --trace FILE``), and compare the results.

``python -m tests.support.replay FILE`` shows each run with its differences and ends with 1 if there are any.
``--save NAME`` writes the run into ``fixtures/transcripts``; ``--run N`` chooses one of several. A test follows from an
entry in ``tests/core/execution/test_machine_transcripts.py``. Look through the file before: it holds sources, outputs
and paths of whoever made it.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from nbrun.core.execution import outcomes
from tests.support.transcripts import TRANSCRIPTS, Transcript

_TIME = re.compile(r"\d+(?:\.\d+)? (?:s|min|h)\b")


def replayed(transcript: Transcript) -> dict[str, Any]:
    """Return what the JSON result says of outcome, problem and cells, for a run that is played again; without times."""
    ending, cells = (played := transcript.play()).execution.ending, played.execution.results()
    assert ending is not None
    if not transcript.setting.get("tolerate_loss"):
        ending = outcomes.ending_with_losses(ending, cells, private=bool(transcript.setting.get("private")))
    problem = ending.problem and ending.problem.as_dict()
    result = {"outcome": ending.outcome.value, "problem": problem, "cells": [cell.as_dict() for cell in cells]}
    return {name: without_times(value) for name, value in result.items()}


def recorded(result: dict[str, Any]) -> dict[str, Any]:
    """Return the same of a JSON result."""
    return {name: without_times(result[name]) for name in ("outcome", "problem", "cells")}


def without_times(value: Any) -> Any:
    """Return a JSON value without the times of a run, which differ by microseconds."""
    if isinstance(value, dict):
        return {name: without_times(one) for name, one in value.items() if name != "seconds"}
    if isinstance(value, list):
        return [without_times(one) for one in value]
    return _TIME.sub("TIME", value) if isinstance(value, str) else value


def differences(transcript: Transcript) -> list[str]:
    """Return what is different when a run is played again, a line each; nothing of a run whose end is not recorded."""
    if transcript.result is None:
        return []
    then, now = recorded(transcript.result), replayed(transcript)
    found = [
        f"{name}: {then[name]!r} then, {now[name]!r} now" for name in ("outcome", "problem") if then[name] != now[name]
    ]
    for before, after in zip(then["cells"], now["cells"], strict=True):
        found += [
            f"cell {before['number']}: {name}: {before[name]!r} then, {after[name]!r} now"
            for name in before
            if before[name] != after[name]
        ]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.replay", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--run", type=int, default=1, metavar="N", help="which run of the trace is saved, from 1")
    parser.add_argument("--save", metavar="NAME", help="write the run to fixtures/transcripts/NAME.jsonl")
    parser.add_argument("--folder", type=Path, default=TRANSCRIPTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    runs = Transcript.of_trace(given.file)
    if not runs:
        print(f"{given.file}: no run in it came to its first cell", file=sys.stderr)
        return 1
    different = False
    for number, transcript in enumerate(runs, 1):
        found = differences(transcript)
        different = different or bool(found)
        outcome = replayed(transcript)["outcome"]
        then = "its end is not recorded" if transcript.result is None else "different" if found else "the same"
        print(f"run {number}: {transcript.setting['about']}: {outcome}, {then}", *found, sep="\n  ")
    if given.save:
        if not 1 <= given.run <= len(runs):
            print(f"there are {len(runs)} runs", file=sys.stderr)
            return 1
        runs[given.run - 1].write(given.folder / f"{given.save}.jsonl")
    return int(different)


if __name__ == "__main__":
    sys.exit(main())
