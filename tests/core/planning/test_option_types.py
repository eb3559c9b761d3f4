"""Option values from Python, settings and command line, and messages for invalid ones."""

import math
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, TypedDict

import pytest

from nbrun.core.planning.artefacts import check_pattern
from nbrun.core.planning.option_types import (
    AUTO,
    Checked,
    Choice,
    Count,
    Duration,
    Flag,
    Integer,
    Kind,
    Moment,
    Named,
    Option,
    PathName,
    PathOrTrue,
    Pause,
    Size,
    Text,
    Texts,
    Thing,
    Words,
    nearest,
    options_in,
    read_options,
)
from nbrun.errors import UsageError


def _check(word: str) -> None:
    if word != "a":
        raise ValueError(f"{word!r} is no a")


WORDS, NUMBERS = Words(_check), Named("numbers", lambda value: isinstance(value, int))
PATH = PurePosixPath("a/b")


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (Flag(), True, True),
        (Checked(str.upper), "a", "A"),
        (Integer(1), 3, 3),
        (Count(), 3, 3),
        (Count(), "3", 3),
        (Count(), "auto", AUTO),
        (Count(), None, AUTO),
        (Duration(), 5, 5.0),
        (Duration(), 0.5, 0.5),
        (Duration(), "5m", 300.0),
        (Duration(), "none", math.inf),
        (Duration(), None, math.inf),
        (Duration(), math.inf, math.inf),
        (Moment(), "2026-11-30", datetime(2026, 11, 30)),  # noqa: DTZ001 (local time)
        (Moment(), " 2026-11-30T06:00Z ", datetime(2026, 11, 30, 6, tzinfo=UTC)),
        (Moment(), datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)),
        (Pause(), 0, math.inf),
        (Pause(), "0", math.inf),
        (Pause(), "never", math.inf),
        (Pause(), "5s", 5.0),
        (Size(), 50_000, 50_000),
        (Size(), "50MB", 50_000_000),
        (Size(), "none", None),
        (Size(), None, None),
        (Text(), "x", "x"),
        (PathName(), "a/b", "a/b"),
        (PathName(), PATH, PATH),
        (PathOrTrue(), PATH, PATH),
        (PathOrTrue(), True, True),
        (Choice(["x", "y"]), "y", "y"),
        (WORDS, "a, a,", ("a", "a")),
        (WORDS, ["a"], ("a",)),
        (Texts(), ("x", "y"), ["x", "y"]),
        (NUMBERS, {"a": 1}, {"a": 1}),
        (Named(), {"a": None}, {"a": None}),
        (Thing("a function", callable), print, print),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Kind) else repr(value),
)
def test_a_value_is_read_and_what_was_read_is_read_as_itself(kind: Kind, value: Any, read: Any) -> None:
    assert kind.read(value) == read
    assert kind.read(kind.read(value)) == read


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Flag(), "yes", "takes true or false, not 'yes'"),
        (Flag(), 1, "takes true or false, not 1"),
        (Integer(), "3", "takes a whole number, not '3'"),
        (Integer(), True, "takes a whole number, not True"),
        (Integer(1), 0, "takes a whole number from 1, not 0"),
        (Integer(), 10**9, "takes a whole number from 0, not 1000000000"),
        (Count(), 0, "takes a number from 1, or auto, not 0"),
        (Count(), True, "takes a number from 1, or auto, not True"),
        (Count(), "many", "takes a number from 1, or auto, not 'many'"),
        (Count(), [1], r"takes a number from 1, or auto, not \[1\]"),
        (Duration(), "soon", "'soon' is no duration; write 90, 90s, 5m"),
        (Duration(), 0, "'0.0' is no time at all"),
        (Duration(), math.nan, "'nan' is no duration"),
        (Duration(), 10**400, "beyond all durations"),
        (Duration(), True, 'takes seconds, or text such as "5m", not True'),
        (Duration(), [5], r'takes seconds, or text such as "5m", not \[5\]'),
        (Pause(), False, "takes seconds"),
        (Size(), "much", "'much' is no size"),
        (Size(), 5, "5 is too little; the least is 10kB"),
        (Size(), True, 'takes a number, or text such as "50MB", not True'),
        (Text(), 3, "takes text, not 3"),
        (PathName(), 3, "takes a path, not 3"),
        (PathOrTrue(), 3, "takes a path, or true, not 3"),
        (Moment(), "soon", "or a date, not 'soon'"),
        (Moment(), 5, "takes a time such as .*, or a date, not 5"),
        (Choice(["x", "y"]), "z", "takes x, y, not 'z'"),
        (Choice(["x", "y"]), 3, "takes x, y, not 3"),
        (WORDS, 3, "takes words, as a list or with commas between them, not 3"),
        (WORDS, "a,b", "'b' is no a"),
        (Texts(), "x", "takes a list of texts, not 'x'"),
        (Texts(check_pattern), ["a", "/b"], "leads out of the working directory"),
        (Texts(), [1], r"takes a list of texts, not \[1\]"),
        (NUMBERS, [1], r"takes a mapping of names to numbers, not \[1\]"),
        (NUMBERS, {1: 1}, "takes a mapping of names to numbers; 1 is none"),
        (NUMBERS, {"a": "b"}, "takes a mapping of names to numbers; 'a' is none"),
        (Thing("a function", callable), 3, "takes a function, not 3"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_right(kind: Kind, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind.read(value)


def test_text_of_the_command_line_may_be_a_number() -> None:
    assert (Integer().parse(" 3 "), Duration().parse("90"), Count().parse("2")) == (3, 90.0, 2)
    for text in ("x", "1.5", "", "9" * 5000):
        with pytest.raises(ValueError, match="takes a whole number, not"):
            Integer().parse(text)
    with pytest.raises(ValueError, match="takes a whole number from 0, not -1"):
        Integer().parse("-1")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Duration(), 60.0, "60s"),
        (Size(), 2 << 30, "2GiB"),
        (WORDS, ("a", "a"), "a,a"),
        (Integer(), 3, "3"),
        (Count(), AUTO, AUTO),
    ],
    ids=["duration", "size", "words", "integer", "count"],
)
def test_a_default_is_spelled_as_the_command_line_reads_it(kind: Kind, value: Any, text: str) -> None:
    assert kind.spell(value) == text
    assert kind.parse(text) == value


def test_each_kind_has_a_schema() -> None:
    kinds = (Flag(), Integer(1), Count(), Duration(), Size(), Text(), Texts(), PathOrTrue(), Choice(["x"]))
    assert [kind.schema()["type"] for kind in kinds] == [
        "boolean", "integer", ["string", "number"], ["string", "number"], ["string", "number"], "string", "array",
        ["string", "boolean"], "string",
    ]  # fmt: skip
    assert (Integer(1).schema()["minimum"], Choice(["x"]).schema()["enum"]) == (1, ["x"])


def test_an_option_is_spelled_by_its_name_unless_it_says_otherwise() -> None:
    plain, opposite = Option(Flag(), default=False), Option(Flag(), default=True)
    assert (plain.spellings("allow_new"), plain.setting("allow_new")) == (["--allow-new"], "allow-new")
    assert (opposite.spellings("save"), opposite.setting("save")) == (["--no-save"], "no-save")
    named = Option(Text(), flags=("-o", "--output"))
    assert (named.spellings("out"), named.setting("out")) == (["-o", "--output"], "output")
    assert Option(Flag(), flags=("--this/--that",)).setting("one") == "this"
    assert (opposite.is_opposite, plain.is_opposite, named.is_opposite) == (True, False, False)


class Declared(TypedDict, total=False):
    cell_timeout: Annotated[float | str | None, Option(Duration())]
    wait: Annotated[float | str | None, Option(Duration(), default=9.0)]
    note: Annotated[bool, "no option"]
    plain: bool


def test_all_options_are_read_and_what_is_not_given_has_its_default() -> None:
    assert options_in(Declared).keys() == {"cell_timeout", "wait"}
    assert read_options(Declared, {"cell_timeout": "5m"}, "a run") == {"cell_timeout": 300.0, "wait": 9.0}
    assert read_options(Declared, {"cell_timeout": None, "wait": None}, "a run") == {
        "cell_timeout": None, "wait": math.inf,
    }  # fmt: skip


def test_an_unknown_option_is_told_with_the_nearest_one_and_a_wrong_value_with_its_name() -> None:
    with pytest.raises(UsageError, match=r"no such option of a run: cell_timout \(did you mean cell_timeout\?\)"):
        read_options(Declared, {"cell_timout": 5}, "a run")
    with pytest.raises(UsageError, match=r"no such option of a run: colour$"):
        read_options(Declared, {"colour": 5}, "a run")
    with pytest.raises(UsageError, match="cell_timeout: 'soon' is no duration"):
        read_options(Declared, {"cell_timeout": "soon"}, "a run")
    assert nearest("wit", Declared.__annotations__) == ["wait"]


def test_no_mapping_is_an_empty_one_and_a_false_path_is_none() -> None:
    assert Named().read(None) == {}
    assert PathOrTrue().read(value=False) is None
