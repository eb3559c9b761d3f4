"""The order of runs in a batch, shards, early end, retries, and the estimated time left."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

from msgspec import Struct, field

from nbrun.core.batch.terms import SERVER_WAIT, Cause, Shard
from nbrun.core.formats.json_text import as_object, dumps
from nbrun.core.results import CellOutcome, NotebookResult, Outcome

_CAUSES = {
    Outcome.KERNEL_DIED: Cause.KERNEL,
    Outcome.SERVER_FAILED: Cause.SERVER,
    Outcome.FAILED: Cause.CELL,
    Outcome.TIMED_OUT: Cause.TIMEOUT,
    Outcome.SEAT_LOST: Cause.WORKER,
}
MOST_LOSSES = 2
"""After so many lost seats a run is not tried again, because it may be what ends them."""
MOST_RETIREMENTS = 5
"""After so many seats that were taken away, a run is not tried again: it may need longer than any seat lasts."""
_OPEN = (CellOutcome.INTERRUPTED, CellOutcome.NOT_RUN)
_NOT_EXECUTED = (Outcome.NOT_RUN, Outcome.PREPARED)


class Policy(Struct, frozen=True):
    """The policy of a batch: number of workers, maximum failures, and retries."""

    jobs: int = 1
    max_failures: int | None = None
    retries: int = 0
    retry_on: Collection[Cause] = (Cause.KERNEL, Cause.SERVER, Cause.WORKER)
    server_wait: float = SERVER_WAIT
    """Seconds to wait for an unreachable server before the next attempt."""

    def tries_again(self, result: NotebookResult, attempt: int, losses: int = 0, retirements: int = 0) -> bool:
        """Return whether a run with this result of its `attempt`-th attempt, from 1, is retried.

        `losses` is the number of attempts whose seat was lost. They do not count as retries. One of them is repeated,
        and some more of the `retirements` among them, whose seats were taken away in an orderly way. A run that
        executed all cells and only could not be saved is not retried, because its result is in a rescue file.
        """
        if _CAUSES.get(result.outcome) not in self.retry_on:
            return False
        if result.outcome is Outcome.SEAT_LOST:
            return losses - retirements < MOST_LOSSES and retirements < MOST_RETIREMENTS
        if attempt - losses > self.retries:
            return False
        return not (result.rescued and result.cells and all(cell.outcome not in _OPEN for cell in result.cells))


class Durations(Struct, frozen=True):
    """The last durations of runs in seconds, by :func:`run_key`."""

    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read the JSON of ``nbrun run --json`` (of one notebook or of a batch) or of :meth:`as_dict`.

        Any other value contains no durations. Cached runs and runs that were not executed are ignored.
        """
        content = as_object(value)
        found = {
            key: float(number)
            for key, number in as_object(content.get("durations")).items()
            if isinstance(number, (int, float)) and number > 0
        }
        runs = content.get("runs")
        for run in map(as_object, runs if isinstance(runs, list) else [content]):
            took, notebook = run.get("seconds"), run.get("notebook")
            real = run.get("outcome") not in _NOT_EXECUTED and not run.get("cached")
            if real and isinstance(notebook, str) and isinstance(took, (int, float)) and took > 0:
                found[run_key(notebook, as_object(run.get("parameters")))] = float(took)
        return cls(found)

    def as_dict(self) -> dict[str, Any]:
        """Return the durations as JSON."""
        return {"durations": {key: round(seconds, 3) for key, seconds in sorted(self.seconds.items())}}

    def updated(self, results: Sequence[NotebookResult]) -> "Durations":
        """Return the durations updated by those of `results` that were executed."""
        taken = {
            run_key(result.path, result.parameters): result.seconds
            for result in results
            if result.outcome not in _NOT_EXECUTED and not result.cached and result.seconds > 0
        }
        return Durations({**self.seconds, **taken})


def time_left(finished: Sequence[float], running: Sequence[float], waiting: int) -> float | None:
    """Return the estimated seconds until a batch ends, or None before its first run has finished.

    `finished` are the durations of finished runs, `running` the elapsed seconds of current ones. The estimate uses the
    average duration, and assumes that the number of concurrent runs stays the same.
    """
    if not finished:
        return None
    mean = sum(finished) / len(finished)
    rests = [max(mean - passed, 0.0) for passed in running]
    return (sum(rests) + waiting * mean) / max(len(running), 1)


def run_key(notebook: str, parameters: Mapping[str, Any]) -> str:
    """Return the key of a run in a project, which is the same in each batch."""
    if not parameters:
        return notebook
    return f"{notebook} {dumps({name: str(parameters[name]) for name in sorted(parameters)}).decode()}"


def batch_key(keys: Sequence[str]) -> str:
    """Return the key of a batch, which all its shards have in common, from the keys of all its runs in order."""
    return hashlib.sha256(dumps(keys)).hexdigest()[:16]


def slowest_first(keys: Sequence[str], durations: Durations) -> list[int]:
    """Return the positions in `keys`: unknown durations first, because they may be long, then the longest."""
    return sorted(range(len(keys)), key=lambda place: -durations.seconds.get(keys[place], float("inf")))


def in_shard(keys: Sequence[str], shard: Shard, durations: Durations) -> list[int]:
    """Return the positions in `keys` that belong to a shard, in order.

    Each key is in exactly one shard if all shards have the same keys and durations. The longest runs are assigned
    first, each to the shard with the least work. An unknown duration counts as the median.
    """
    known = sorted(durations.seconds[key] for key in keys if key in durations.seconds)
    usual = known[len(known) // 2] if known else 1.0
    work = [0.0] * shard.total
    places = sorted(
        range(len(keys)), key=lambda place: (-durations.seconds.get(keys[place], usual), _hash(keys[place]))
    )
    mine = []
    for place in places:
        least = min(range(shard.total), key=lambda number: (work[number], number))
        work[least] += durations.seconds.get(keys[place], usual)
        if least == shard.number - 1:
            mine.append(place)
    return sorted(mine)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
