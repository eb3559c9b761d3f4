"""Sizes are parsed and formatted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.formats.units import parse_count, parse_size, spell_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500000", 500_000),
        ("500kB", 500_000),
        ("50MB", 50_000_000),
        ("50 mb", 50_000_000),
        ("50M", 50_000_000),
        ("1.5GB", 1_500_000_000),
        ("1GiB", 1 << 30),
        ("2Ki", 2048),
        ("10_000", 10_000),
        ("none", None),
    ],
)
def test_a_size_is_read(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "-5MB", "5 TB", "1.5.2MB", "MB"])
def test_what_is_no_size_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="write 500kB, 50MB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (812, "812 B"), (4200, "4.2 kB"), (50_000_000, "50 MB"), (999_600, "1 MB"),
        (123_456_789, "123 MB"), (1_300_000_000, "1.3 GB"), (5 * 10**15, "5000 TB"),
    ],
)  # fmt: skip
def test_a_size_is_spelt(size: int, text: str) -> None:
    assert spell_size(size) == text


@given(st.integers(1000, 10**12))
def test_what_is_spelt_is_near_what_is_read_back(size: int) -> None:
    spelt = spell_size(size)
    if "T" not in spelt:
        back = parse_size(spelt)
        assert back is not None
        assert abs(back - size) <= 0.05 * size


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), (" 12 ", 12), ("0", None), ("-1", None), ("9" * 5000, None), ("²", None)]
)
def test_a_count_is_a_whole_number_from_1(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def test_a_size_beyond_the_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond all sizes"):
        parse_size("9" * 400)
