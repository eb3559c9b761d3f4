"""Untrusted text has no effect on terminals and CI runners, and stays readable."""

import json
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbrun.core.formats.safe_text import safe_json, safe_text, without_commands, without_controls
from tests.core.properties import json_values
from tests.support.ci_runners import WHITE_SPACE, commands_in, other_commands_in

PIECES = [
    "::", ":", "#", "##", "[", "]", "error", "set-output name=x", "add-mask", "##[error]", "##vso[task.complete]",
    "##teamcity[x]", "section_start:0:a", "section_END:0:a", " ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x85",
    "\u2028", "\u2029", "\x1b", "\x1b[31m", "\x1b[0m", "\x1b[8m", "\x1b[2J", "\x1b]0;t\x07", "\x1b]52;c;eA==\x1b\\",
    "\x1bP+q\x1b\\", "\x9b", "\x9b2J", "\x90q\x9c", "\x1bc", "\x07", "\x00", "\x7f", "\ud800", "\udc80", "\u202e",
    "\u200b", "\xad", "\u3000",
]  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=30).map("".join)
NOTHING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@given(hostile)
@example("x\r::error::y")
@example("#\x07#[error]z")
@example("##\x1b[0m[error]z")
def test_no_line_holds_a_character_that_acts_or_a_command(text: str) -> None:
    made = safe_text(text)
    assert NOTHING.search(made) is None
    assert commands_in(made) == []
    assert list(other_commands_in(made)) == []
    assert safe_text(made) == made


@given(hostile)
@example("\x1b[0m::error::A4")
@example("#\x1b[1m#\x1b[31m[error]z")
@example(":\x1b[0m:error::")
def test_with_colours_there_are_colours_besides_and_no_command_with_or_without_them(text: str) -> None:
    made = safe_text(text, colours=True)
    assert NOTHING.search(COLOUR.sub("", made)) is None
    assert commands_in(made) == []
    assert list(other_commands_in(made)) == []
    assert safe_text(made, colours=True) == made


@given(hostile)
def test_nothing_a_person_reads_is_added_and_commands_are_broken_invisibly(text: str) -> None:
    clean = without_controls(text)
    assert without_commands(clean).replace("\u200b", "") == clean.replace("\u200b", "")
    assert safe_text(text, commands=False) == clean


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"]) | st.sampled_from("\t\n")))
def test_text_without_such_characters_stays_as_it_is(text: str) -> None:
    assert without_controls(text) == text.replace("\ufffe", "").replace("\uffff", "")


@given(
    st.sampled_from(["::error::x", "::set-output name=a::b"]),
    st.text(st.sampled_from(WHITE_SPACE + "\u200b\ufeff\xad")),
)
def test_every_white_space_of_the_runner_may_stand_before_a_command(command: str, before: str) -> None:
    assert commands_in(safe_text(before + command)) == []


def test_only_command_like_places_are_broken() -> None:
    for text in (
        "a :: b",
        "std::vector",
        "## Heading [link]",
        "#[attr]",
        "C## ]",
        "x ::error::",
        "my_section_starts: 1",
    ):
        assert safe_text(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\rb\vc\fd\x85e\u2028f\u2029g", "a b c d e f g"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("S1\x1b]52;c;cHduZWQ=\x07 S2\x1b]0;title\x07.", "S1 S2."),
        ("\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b[2Jb\x9b2Jc\x1b[?1049hd\x1bce\x1bP+q\x1b\\f", "abcdef"),
        ("not ended: \x1b]0;title", "not ended: 0;title"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b(Bx\x1b#8y", "xy"),
        ("\ud83d half, \U0001f600 whole", "\ufffd half, \U0001f600 whole"),
        ("abc\u202edcba", "abcdcba"),
        ("\u0647\u200f\u0644 LRM\u200e", "\u0647\u200f\u0644 LRM\u200e"),
    ],
)
def test_what_becomes_of_control_characters(text: str, wanted: str) -> None:
    assert without_controls(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\x1b[31mred\x1b[m", "\x1b[31mred\x1b[0m"),
        ("\x1b[1;8;31mx", "\x1b[1;31mx"),
        ("\x1b[8mhidden\x1b[5mblinks", "hiddenblinks"),
        ("\x1b[38;5;20mx\x1b[48;2;1;2;3my", "\x1b[38;5;20mx\x1b[48;2;1;2;3my"),
        ("\x1b[38;5;300mx\x1b[38;9my\x1b[38mz", "xyz"),
        ("\x1b[38:5:20mx\x1b[>4mx", "xx"),
        ("\x9b31mx", "x"),
        ("\x1b[007mx\x1b[05mx", "\x1b[7mxx"),
        (f"\x1b[{'1;' * 99}1mx", "x"),
        ("\x1b[31ma\rb", "\x1b[31ma b"),
    ],
)
def test_what_becomes_of_colours_where_they_are_allowed(text: str, wanted: str) -> None:
    assert without_controls(text, colours=True) == wanted


@given(json_values, st.booleans(), st.sampled_from([None, 1]))
@example(value=["##[error]x", "\x85\u2028\x7f\\#", "section_start:0:a", "::error::\n"], ascii_=False, indent=1)
def test_json_keeps_its_value_and_holds_neither_commands_nor_control_characters(
    value: object, ascii_: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
    made = safe_json(text)
    assert json.loads(made) == value
    assert NOTHING.search(made) is None
    assert "#" not in made
    assert commands_in(made) == []
    assert list(other_commands_in(made)) == []


def test_in_json_a_number_sign_and_control_characters_are_escaped() -> None:
    text = json.dumps(["##[error]x", "\x85"], ensure_ascii=False)
    assert safe_json(text) == r'["\u0023\u0023[error]x", "\u0085"]'


@pytest.mark.large
def test_hostile_text_of_a_million_characters_takes_linear_time() -> None:
    for piece in ("\x90", "\x1b]", "\x1b[38;", "#", "##a", "#\x1b[m", "::", " ", "section_"):
        safe_text(piece * (1_000_000 // len(piece)), colours=True)  # a quadratic pattern would take hours


def test_the_white_space_of_the_runner_is_white_space_here() -> None:
    assert all(mark.isspace() for mark in WHITE_SPACE)
    assert {unicodedata.category(mark) for mark in WHITE_SPACE} == {"Cc", "Zs", "Zl", "Zp"}
