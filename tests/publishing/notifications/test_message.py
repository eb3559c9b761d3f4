"""The causes of notifications follow from the end of a run and the runs before it."""

import pytest

from nbrun.publishing.local_history import PastRun
from nbrun.publishing.notifications.message import causes_of


def run(code: int, seconds: float = 10, outcome: str = "") -> PastRun:
    return PastRun("2026-11-30T06:00:00Z", seconds, outcome or ("failed" if code else "passed"), code)


PASSED, FAILED, SKIPPED = run(0), run(1), run(0, outcome="skipped")


@pytest.mark.parametrize(
    ("now", "before", "causes"),
    [
        (PASSED, [], ["success"]),
        (FAILED, [], ["failure"]),
        (run(143, outcome="interrupted"), [PASSED], ["failure"]),
        (PASSED, [FAILED, PASSED], ["success", "recovery"]),
        (PASSED, [SKIPPED, FAILED], ["success", "recovery"]),
        (PASSED, [PASSED, FAILED], ["success"]),
        (SKIPPED, [FAILED], []),
        (run(0, 31), [PASSED] * 3, ["success", "slow"]),
        (run(0, 31), [PASSED] * 2, ["success"]),
        (run(0, 19), [PASSED] * 3, ["success"]),
        (run(1, 31), [PASSED] * 3, ["failure", "slow"]),
        (run(0, 31), [run(0, 20)] * 10 + [run(0, 1)] * 20, ["success"]),
        (run(0, 9), [run(0, 1)] * 3, ["success"]),
    ],
)
def test_causes(now: PastRun, before: list[PastRun], causes: list[str]) -> None:
    assert causes_of(now, before) == [*causes, "always"]
