"""The targets: ratios of medians within one run, for each kind of environments, and whether they hold.

A target that holds in one run and not in the next does not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.environment import OWN, SHARED
from benchmarks.results import Results, Summary, summaries

FLOOR = "bare ZeroMQ loop"
CLICK = 'python -c "import click"'


@dataclass(frozen=True, slots=True)
class Target:
    """One quantity of a contender, `limit` times that of a peer at most."""

    workload: str
    peer: str
    limit: float
    quantity: str = "wall"
    ours: str = "nbrun"


_COMMAND_LINE = (
    Target("help", CLICK, 1.5, ours="nbrun --help"),
    Target("help", CLICK, 1.5, ours="nbrun --version"),
)
TARGETS = {
    OWN: (
        Target("W1", "papermill", 0.65),
        Target("W1", "jupyter execute", 0.60),
        Target("W1", FLOOR, 0.90),
        Target("W1", "papermill", 0.9, "cpu"),
        Target("W2", "papermill", 0.12),
        Target("W2", "jupyter execute", 0.60),
        Target("W2", FLOOR, 0.65),
        Target("W2", "nbrun", 1.3, ours="nbrun on a server"),
        Target("W3", "papermill", 0.75),
        Target("W3", "jupyter execute", 0.80),
        Target("W3", FLOOR, 1.0),
        Target("W4", "papermill", 0.75),
        Target("W4", "jupyter execute", 0.85),
        Target("W4", FLOOR, 1.0),
        Target("W5", "papermill", 0.60),
        Target("W5", "jupyter execute", 0.75),
        Target("W5", "papermill", 1.0, "peak"),
        Target("W6", "papermill", 0.15),
        Target("W6", "jupyter execute", 0.20),
        Target("W6", "nbmake -n2", 0.30),
        Target("W6", "nbmake -n2", 0.6, ours="nbrun on a server"),
        Target("W7", "nbrun, one cell at a time", 0.12),
        Target("W8", "papermill", 0.70),
        Target("W8", "jupyter execute", 0.70),
        Target("W8", FLOOR, 1.0),
        *_COMMAND_LINE,
    ),
    SHARED: (
        Target("W1", "papermill", 0.45),
        Target("W1", "jupyter execute", 0.50),
        Target("W1", FLOOR, 1.6),
        Target("W2", "papermill", 0.20),
        Target("W2", "jupyter execute", 0.60),
        Target("W2", FLOOR, 1.25),
        Target("W3", "papermill", 0.45),
        Target("W3", "jupyter execute", 0.60),
        Target("W4", "papermill", 0.75),
        Target("W4", "jupyter execute", 0.85),
        Target("W5", "papermill", 0.70),
        Target("W5", "jupyter execute", 0.85),
        Target("W5", "papermill", 0.6, "runner_peak"),
        Target("W5", "jupyter execute", 0.7, "runner_peak"),
        Target("W6", "papermill", 0.15),
        Target("W6", "nbmake -n2", 0.5),
        Target("W7", "jupyter-kernel-client", 0.10),
        Target("W8", "papermill", 0.6),
        Target("W8", "jupyter execute", 0.7),
        *_COMMAND_LINE,
    ),
}
SAVING = 2.5
"""W5: seconds of the save, as a ratio to writing the same notebook with the json module."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured: a ratio for each run in which both ran; what was incomplete on our side."""

    target: Target
    ratios: Sequence[float]
    failure: str = ""

    @property
    def is_met(self) -> bool:
        """Return whether it holds in every run, with every output there."""
        return bool(self.ratios) and not self.failure and max(self.ratios) <= self.target.limit


def ratio(ours: Summary, theirs: Summary, quantity: str) -> float:
    """Return ours over theirs; infinity where theirs is nothing."""
    below = float(getattr(theirs, quantity))
    return float(getattr(ours, quantity)) / below if below else float("inf")


def verdicts(runs: Sequence[Results]) -> list[Verdict]:
    """Compare every target that was measured with every run; all runs have the same kind of environments."""
    each = [summaries([run]) for run in runs]
    found = []
    for target in TARGETS[runs[0].environment] if runs else ():
        pairs = [
            (run[target.workload, target.ours], run[target.workload, target.peer])
            for run in each
            if (target.workload, target.ours) in run and (target.workload, target.peer) in run
        ]
        if pairs:
            failure = next((ours.failure for ours, _ in pairs if ours.failure), "")
            found.append(Verdict(target, [ratio(*pair, target.quantity) for pair in pairs], failure))
    saved = [saving_ratio(run.extras.get("W5", {})) for run in runs]
    known = [one for one in saved if one is not None]
    if known:
        found.append(Verdict(Target("W5", "the json module", SAVING, "saving"), known))
    return found


def saving_ratio(stages: dict[str, Any]) -> float | None:
    """Return the save's seconds over the json module's, out of a record of clients/stages.py."""
    for _, what in stages.get("marks", []):
        if what.startswith("saved ("):
            seconds = float(what.removeprefix("saved (").removesuffix(" s)"))
            return seconds / float(stages["json_module"])
    return None
