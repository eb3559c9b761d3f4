"""Durations are parsed and formatted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.formats.units import parse_duration, spell_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0), ("90s", 90.0), ("1.5", 1.5), ("5m", 300.0), ("1h30m", 5400.0), ("2d", 172800.0), ("250ms", 0.25),
        ("1m1ms", 60.001), (" 1 H 30 M ", 5400.0), ("0.5h", 1800.0), ("none", math.inf), ("Never", math.inf),
    ],
)  # fmt: skip
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 minutes", "1m30", "h", "1,5", "1e3", "5x", "inf", "nan", "m5"])
def test_what_is_no_duration_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration; write 90, 90s, 5m, 1h30m, or none"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0.0", "0m0s"])
def test_no_time_at_all_is_not_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="write none for no limit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.95, "10 s"), (41.2, "41 s"), (59.4, "59 s"),
        (59.5, "1 min"), (60, "1 min"), (303, "5 min 3 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min"),
        (5400, "1 h 30 min"), (86399.4, "23 h 59 min"), (86399.6, "1 d"), (90000, "1 d 1 h"), (561600, "6 d 12 h"),
    ],
)  # fmt: skip
def test_a_duration_is_spelled_as_one_reads_it(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text


@given(st.floats(0, 1e6))
def test_what_is_spelled_never_counts_sixty_of_anything(seconds: float) -> None:
    assert "60" not in spell_duration(seconds).replace(" h", "").split() or seconds >= 3600


@given(st.integers(1, 10**6))
def test_whole_seconds_are_read_as_they_are_written(seconds: int) -> None:
    assert parse_duration(str(seconds)) == parse_duration(f"{seconds}s") == seconds


def test_a_duration_beyond_the_numbers_is_no_missing_limit() -> None:
    with pytest.raises(ValueError, match="beyond all durations"):
        parse_duration("9" * 400)
