"""The runs that are kept, as text."""

import pytest

from nbrun.core.batch.terms import Keep


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ([], Keep()),
        (["30d"], Keep(seconds=30 * 86400.0)),
        (["100"], Keep(runs=100)),
        (["30d", "100"], Keep(100, 30 * 86400.0)),
        (["100", "7", "30d", "2h"], Keep(7, 7200.0)),
    ],
)
def test_runs_are_kept_by_age_by_number_or_by_both(words: list[str], kept: Keep) -> None:
    assert Keep.parse(words) == kept


@pytest.mark.parametrize("word", ["0", "99999999999", "soon", "-3", "0d"])
def test_what_is_neither_a_number_of_runs_nor_an_age_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"no number of runs|no duration|no time"):
        Keep.parse([word])
