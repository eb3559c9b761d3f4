"""Value types of batch options: causes, orders, shards, overrides, kept runs.

They are in a separate module to keep the command's imports small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from nbrun.core.formats.units import parse_count, parse_duration
from nbrun.errors import UsageError

SERVER_WAIT = 120.0
"""Default seconds to wait for a lost server before a run is retried."""


class Cause(StrEnum):
    """Why a run failed, for ``--retry-on``."""

    KERNEL = "kernel"
    SERVER = "server"
    CELL = "cell"
    TIMEOUT = "timeout"
    WORKER = "worker"
    """The seat of an engine was lost."""


class Order(StrEnum):
    """The order in which notebooks are started."""

    AS_GIVEN = "as-given"
    SLOWEST_FIRST = "slowest-first"


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`-th of `total` parts, counted from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``2/3``; raise :class:`UsageError`."""
        number, _, total = text.partition("/")
        part, whole = parse_count(number), parse_count(total)
        if part is None or whole is None or part > whole:
            raise UsageError(f"--shard {text[:40]}: no part of a whole", hint="Write --shard 1/3, 2/3 and 3/3.")
        return cls(part, whole)


@dataclass(frozen=True, slots=True)
class Override:
    """Options for the notebooks that match the .gitignore patterns in ``match``. Later overrides win.

    The patterns are relative to the folder that contains the current one at ``base``. ``options`` are keys of
    :class:`nbrun.RunOptions`. With ``skip`` the notebooks are left out.
    """

    match: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    skip: bool = False
    base: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """How many published runs are kept, and for how many seconds. None means no limit."""

    runs: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """Parse ``30d``, ``100``, or both; raise ValueError."""
        runs: int | None = None
        seconds: float | None = None
        for word in words:
            if word.isdecimal():
                count = parse_count(word)
                if count is None:
                    raise ValueError(f"{word!r} is no number of runs; write a number from 1")
                runs = count if runs is None else min(runs, count)
            else:
                age = parse_duration(word)
                seconds = age if seconds is None else min(seconds, age)
        return cls(runs, seconds)
