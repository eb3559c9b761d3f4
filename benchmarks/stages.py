"""Where the time of a run or a batch goes, by its stages."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

SERVERS = "W2 by stage"
"""The name under which W2's stages on a private and on a stock server are kept."""


def by_stage(lines: Iterable[str], began: float) -> dict[str, Any]:
    """Sum up the seconds that the runs of a batch spent in each stage, from its log of events.

    `began` is when the process was started, in seconds since the epoch; the result also tells how long after that the
    first run began and the last one ended.
    """
    spent: dict[str, float] = {}
    entered: dict[str, tuple[str, float]] = {}
    first = last = began
    for line in lines:
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] not in ("stage-entered", "run-finished"):
            continue
        name = event["notebook"]
        if name in entered:
            stage, since = entered[name]
            spent[stage] = spent.get(stage, 0.0) + at - since
        first = at if first == began else first
        last = at
        entered[name] = (event.get("stage", ""), at)
    return {"stages": spent, "runs": len(entered), "first": first - began, "last": last - began}
