"""The order of the tests, for a run with several processes.

``--dist worksteal`` of pytest-xdist gives each of N processes an N-th of the collection, from the front to the back. A
process that has no tests left takes half of what another one still has, from the end. So a long test should be at the
beginning of a share and a short one at the end, or one process works alone in the end.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_shares(modules: Sequence[Sequence[T]], short: Sequence[T], cost: Callable[[T], float], number: int) -> list[T]:
    """Return all tests in the order for this number of processes.

    `modules` are lists of tests that stay together, since they share fixtures. Each share begins with some of them, so
    that their total of `cost` is about the same in all shares, and goes on with `short` tests.
    """
    left = sum(map(len, modules)) + len(short)
    sizes = []
    for rest in range(number, 0, -1):
        sizes.append(left // rest)
        left -= sizes[-1]
    shares: list[list[T]] = [[] for _ in range(number)]
    costs = [0.0] * number
    for module in sorted(modules, key=lambda module: -sum(map(cost, module))):
        cheapest = costs.index(min(costs))
        shares[cheapest] += module
        costs[cheapest] += sum(map(cost, module))
    order, rest_of_short = list[T](), list(short)
    for share, size in zip(shares, sizes, strict=True):
        fill = max(size - len(share), 0)
        order += share + rest_of_short[:fill]
        del rest_of_short[:fill]
    return order + rest_of_short
