"""Merge the results of a batch's shards into the result of the whole batch; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from nbrun.core.batch.replay import read_result
from nbrun.core.formats.json_text import as_object
from nbrun.core.results import BatchResult, NotebookResult, Part, Problem
from nbrun.errors import ExitCode, UsageError


@dataclass(frozen=True, slots=True)
class ShardFile:
    """The result of one shard; ``source`` is its file, for messages."""

    source: str
    result: BatchResult
    part: Part


@dataclass(frozen=True, slots=True)
class Placed:
    """A run of the merged batch: its name in events, its result, and the file that contains the result."""

    name: str
    source: str
    result: NotebookResult


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged batch: its result, and its runs in the same order."""

    batch: BatchResult
    runs: Sequence[Placed]


def is_batch(content: Any) -> bool:
    """Return whether a JSON value looks like the result of a batch."""
    return isinstance(content, dict) and isinstance(content.get("runs"), list) and "tally" in content


def is_shard(content: Any) -> bool:
    """Return whether a JSON value looks like the result of a shard."""
    return is_batch(content) and content.get("shard") is not None


def why_not_started(content: Any) -> str:
    """Return why a batch could not start, from its JSON result, or "" if it did or the value is no result."""
    if not is_batch(content) or is_shard(content) or content["runs"]:
        return ""
    return str(as_object(content.get("problem")).get("message", ""))


def read_shard(source: str, content: Any) -> ShardFile:
    """Read the JSON result of a shard; raise :class:`UsageError`."""
    if not is_batch(content):
        raise UsageError(f"{source}: not the result of a batch", hint="Merge files of nbrun run --shard K/N --json.")
    if not is_shard(content):
        hint = "Run each part with --shard K/N, and write its result with --json FILE."
        raise UsageError(f"{source}: the result of a batch without --shard", hint=hint)
    try:
        runs = [read_result(run) for run in content["runs"]]
        part = _part(content["shard"])
        if not (len(part.positions) == len(part.names) == len(runs)):
            raise ValueError("the shard does not name each run")
        if datetime.fromisoformat(content["started"]).tzinfo is None:
            raise ValueError("the start has no time zone")
        result = BatchResult(
            str(content["version"]), content["started"], float(content["seconds"]), runs, int(content["left_out"])
        )
    except (ValueError, KeyError, TypeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        why = f"{source}: not a result that this nbrun can read: {what}"
        raise UsageError(why, hint="Merge with the version of nbrun that wrote it.") from None
    return ShardFile(source, result, part)


def _part(content: Mapping[str, Any]) -> Part:
    number, total, size = (int(content[name]) for name in ("number", "total", "size"))
    if not 1 <= number <= total:
        raise ValueError(f"shard {number} of {total}")
    positions = [int(position) for position in content["positions"]]
    if not all(0 <= position < size for position in positions):
        raise ValueError("a position is beyond the batch")
    return Part(number, total, str(content["batch"]), size, positions, [str(name) for name in content["names"]])


def merge(files: Sequence[ShardFile], failed: Mapping[str, str]) -> Merged:
    """Merge the results of shards; raise :class:`UsageError` if they do not belong together.

    The result of a batch with missing shards names them, and its exit code is 4. `failed` contains files of jobs that
    could not start, and why; their shards are missing.
    """
    _check_same(files)
    parts = [file.part for file in files]
    total, size = parts[0].total, parts[0].size
    pairs = [
        (position, Placed(name, file.source, result))
        for file in files
        for position, name, result in zip(file.part.positions, file.part.names, file.result.runs, strict=True)
    ]
    placed = sorted(pairs, key=lambda pair: pair[0])
    missing = sorted({*range(1, total + 1)} - {part.number for part in parts})
    _check_each_once(placed, None if missing else size)
    first = files[0].result
    starts = {file.result.started: datetime.fromisoformat(file.result.started).timestamp() for file in files}
    ends = [starts[file.result.started] + file.result.seconds for file in files]
    batch = BatchResult(
        first.version,
        min(starts, key=starts.__getitem__),
        max(ends) - min(starts.values()),
        [run.result for _, run in placed],
        max(0, first.left_out - (size - len(first.runs))),
        _missing(missing, total, failed) if missing else None,
        ExitCode.SERVER if missing else None,
    )
    return Merged(batch, [run for _, run in placed])


def _check_each_once(placed: Sequence[tuple[int, Placed]], size: int | None) -> None:
    """Raise :class:`UsageError` if a run is in two shards, or if all shards have fewer than `size` runs."""
    hint = "All shards need the same --durations file. Run them again with it."
    for (position, run), (next_position, other) in pairwise(placed):
        if position == next_position:
            raise UsageError(f"{run.source} and {other.source}: both have {run.name}", hint=hint)
    if size is not None and len(placed) < size:
        raise UsageError(f"the shards have {len(placed)} of the {size} runs of the batch", hint=hint)


def _missing(missing: Sequence[int], total: int, failed: Mapping[str, str]) -> Problem:
    listed = ", ".join(map(str, missing))
    shards = f"shard {listed} of {total} is" if len(missing) == 1 else f"shards {listed} of {total} are"
    again = f"Look at the log of that job. Run it again with --shard {missing[0]}/{total}, and merge again."
    reasons = "".join(f" {source}: {why}." for source, why in failed.items())
    return Problem(f"{shards} missing", f"{again}{reasons}")


def _check_same(files: Sequence[ShardFile]) -> None:
    """Raise :class:`UsageError` if two shards are the same, or belong to different batches."""
    first = files[0]
    seen: dict[int, str] = {}
    for file in files:
        one, other = first.part, file.part
        both = f"{first.source} and {file.source}"
        if one.total != other.total:
            counts = f"a shard of {one.total} and one of {other.total}"
            raise UsageError(f"{both}: {counts}", hint="Merge only results of one --shard …/N.")
        if first.result.version != file.result.version:
            versions = f"nbrun {first.result.version} and {file.result.version}"
            raise UsageError(f"{both}: of {versions}", hint="Run all shards with the same version.")
        if (one.batch, one.size) != (other.batch, other.size):
            hint = (
                "All shards must find the same notebooks with the same parameters, from the same folder, and have the "
                "same --order and --durations. Remove results of other calls."
            )
            raise UsageError(f"{both}: results of different batches", hint=hint)
        if other.number in seen:
            hint = "Remove the older file."
            raise UsageError(f"{seen[other.number]} and {file.source}: both are shard {other.number}", hint=hint)
        seen[other.number] = file.source
