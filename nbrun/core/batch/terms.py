"""Value types of batch options: causes, orders, shards and overrides.

They are in a separate module to keep the command's imports small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from nbrun.core.formats.units import parse_count
from nbrun.errors import UsageError

SERVER_WAIT = 120.0
"""Default seconds to wait for a lost server before a run is retried."""


class Cause(StrEnum):
    """Why a run failed, for ``--retry-on``."""

    KERNEL = "kernel"
    SERVER = "server"
    CELL = "cell"
    TIMEOUT = "timeout"


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
