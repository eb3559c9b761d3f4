"""Literals of every language. tests/e2e/test_values_in_kernels.py has them read by real kernels."""

import ast
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.parameters.literals.base import LiteralWriter, NoLiteral
from nbrun.core.parameters.literals.registry import writer_for
from nbrun.core.parameters.literals.scripting import RWriter
from nbrun.errors import UsageError

LANGUAGES = (
    "python", "r", "julia", "scala", "bash", "javascript", "c#", "f#", "powershell", "matlab", "octave", "rust", "go",
)  # fmt: skip
DAY, AWARE = date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)
MOMENT = AWARE.replace(tzinfo=None)
FINE = datetime(2026, 1, 1, 0, 0, 0, 1, UTC)
CULTURE = "System.Globalization.CultureInfo.InvariantCulture"


def literal(language: str, value: Any) -> str:
    return writer_for("", language).literal(value)


@pytest.mark.parametrize(
    ("language", "written"),
    [
        ("python", ['"a\\"\\\\\\n"', "None", "True", "1", "float('nan')", "[1, 2.5]", '{"k": 1}']),
        ("r", ['"a\\"\\\\\\n"', "NULL", "TRUE", "1", "NaN", "list(1, 2.5)", 'list("k" = 1)']),
        ("julia", ['"a\\"\\\\\\n"', "nothing", "true", "1", "NaN", "Any[1, 2.5]", 'Dict("k" => 1)']),
        ("scala", ['"a\\"\\\\\\n"', "None", "true", "1", "Double.NaN", "Seq[Any](1, 2.5)", 'Map("k" -> 1)']),
        ("bash", ["$'a\"\\\\\\n'", "", "true", "1", "nan", "(1 2.5)", "(['k']=1)"]),
        ("javascript", ['"a\\"\\\\\\n"', "null", "true", "1", "NaN", "[1, 2.5]", '{"k": 1}']),
        (
            "c#",
            [
                '"a\\"\\\\\\n"', "(object)null", "true", "1", "double.NaN", "new object[] { 1, 2.5 }",
                'new System.Collections.Generic.Dictionary<string, object> { { "k", 1 } }',
            ],
        ),
        (
            "f#",
            ['"a\\"\\\\\\n"', "None", "true", "1", "nan", "[ box (1); box (2.5) ]",
             '(Map.ofList<string, obj> [ ("k", box (1)) ])'],
        ),
        ("powershell", ['"a`"\\`n"', "$null", "$true", "1", "[double]::NaN", "@(1, 2.5)", '@{"k" = 1}']),
        (
            "matlab",
            ['("a""\\" + char(10) + "")', "[]", "true", "1", "NaN", "{1, 2.5}",
             "containers.Map({'k'}, {1}, 'UniformValues', false)"],
        ),
        (
            "octave",
            ['"a\\"\\\\\\n"', "[]", "true", "1", "NaN", "{1, 2.5}",
             "containers.Map({\"k\"}, {1}, 'UniformValues', false)"],
        ),
        (
            "go",
            [
                '"a\\"\\\\\\n"', "interface{}(nil)", "true", "1",
                "func() float64 { zero := 0.0; return zero / zero }()",
                "[]interface{}{1, 2.5}", 'map[string]interface{}{"k": 1}',
            ],
        ),
    ],
)  # fmt: skip
def test_each_language_has_its_own_literals(language: str, written: list[str]) -> None:
    values: list[Any] = ['a"\\\n', None, True, 1, float("nan"), [1, 2.5], {"k": 1}]
    assert [literal(language, value) for value in values] == written


def test_rust_holds_values_of_one_type_together_only() -> None:
    assert literal("rust", ["a\x01", "b"]) == 'vec![String::from("a\\u{1}"), String::from("b")]'
    assert literal("rust", {"k": 2**40}) == (
        'std::collections::BTreeMap::from([(String::from("k"), 1099511627776_i64)])'
    )
    assert literal("rust", []) == "Vec::<String>::new()"
    assert literal("rust", {}) == "std::collections::BTreeMap::<String, String>::new()"
    assert literal("rust", None) == "None::<String>"
    with pytest.raises(NoLiteral, match="Rust has no list or mapping of values of several types"):
        literal("rust", [1, "b"])


@pytest.mark.parametrize(
    ("language", "value", "written"),
    [
        ("python", 2**70, "1180591620717411303424"),
        ("r", 2**60, "0x1.0000000000000p+60"),
        ("julia", 2**70, "1180591620717411303424"),
        ("scala", 2**40, "1099511627776L"),
        ("scala", 2**70, 'BigInt("1180591620717411303424")'),
        ("javascript", 2**53, "9007199254740992n"),
        ("c#", 2**40, "1099511627776L"),
        ("c#", -(2**70), 'System.Numerics.BigInteger.Parse("-1180591620717411303424")'),
        ("f#", 2**40, "1099511627776L"),
        ("f#", 2**70, "1180591620717411303424I"),
        ("powershell", 2**40, "1099511627776"),
        ("powershell", 2**63, "[bigint]::Parse('9223372036854775808')"),
        ("matlab", 2**53 + 1, "typecast(uint32([1 2097152]), 'int64')"),
        ("octave", 2**64 - 1, "typecast(uint32([4294967295 4294967295]), 'uint64')"),
        ("rust", 2**100, "1267650600228229401496703205376_i128"),
        ("go", 2**63, "uint64(9223372036854775808)"),
    ],
)
def test_large_integers_are_written_so_that_none_of_their_digits_is_lost(
    language: str, value: int, written: str
) -> None:
    assert literal(language, value) == written


@pytest.mark.parametrize(
    ("language", "value"),
    [
        ("r", 2**53 + 1), ("r", 2**1024), ("matlab", 2**64), ("octave", -(2**63) - 1), ("rust", 2**127), ("go", 2**64),
        ("go", -(2**63) - 1), ("r", "a\0"), ("bash", "a\0"), ("bash", {"": 1}), ("powershell", {"a": 1, "A": 2}),
        ("julia", FINE), ("javascript", FINE),
        ("python", {1, 2}), ("python", b"bytes"),
    ],
)  # fmt: skip
def test_what_a_language_cannot_hold_is_refused_and_never_bent(language: str, value: Any) -> None:
    with pytest.raises(NoLiteral):
        literal(language, value)


@pytest.mark.parametrize("language", LANGUAGES)
def test_half_a_surrogate_pair_is_refused_everywhere(language: str) -> None:
    with pytest.raises(NoLiteral, match=r"parameter x: .*U\+D800"):
        writer_for("", language).cell({"x": ["fine", "a\ud800"]})


@pytest.mark.parametrize(
    ("language", "day", "moment", "aware"),
    [
        (
            "python", '__import__("datetime").date(2026, 1, 2)',
            '__import__("datetime").datetime.fromisoformat("2026-01-02T03:04:05.006000")',
            '__import__("datetime").datetime.fromisoformat("2026-01-02T03:04:05.006000+00:00")',
        ),
        (
            "r", 'as.Date("2026-01-02")',
            'as.POSIXct("2026-01-02 03:04:05.006000", format = "%Y-%m-%d %H:%M:%OS", tz = "UTC")',
            'as.POSIXct("2026-01-02 03:04:05.006000", format = "%Y-%m-%d %H:%M:%OS", tz = "UTC")',
        ),
        ("julia", "Dates.Date(2026, 1, 2)", "Dates.DateTime(2026, 1, 2, 3, 4, 5, 6)",
         "Dates.DateTime(2026, 1, 2, 3, 4, 5, 6)"),
        ("scala", 'java.time.LocalDate.parse("2026-01-02")',
         'java.time.LocalDateTime.parse("2026-01-02T03:04:05.006000")',
         'java.time.OffsetDateTime.parse("2026-01-02T03:04:05.006000+00:00")'),
        ("bash", "2026-01-02", "2026-01-02T03:04:05.006000", "2026-01-02T03:04:05.006000+00:00"),
        ("javascript", 'new Date("2026-01-02")', 'new Date("2026-01-02T03:04:05.006")',
         'new Date("2026-01-02T03:04:05.006Z")'),
        ("c#", "new System.DateTime(2026, 1, 2)",
         f'System.DateTime.Parse("2026-01-02T03:04:05.006000", {CULTURE})',
         f'System.DateTimeOffset.Parse("2026-01-02T03:04:05.006000+00:00", {CULTURE})'),
        ("f#", "System.DateTime(2026, 1, 2)",
         f'System.DateTime.Parse("2026-01-02T03:04:05.006000", {CULTURE})',
         f'System.DateTimeOffset.Parse("2026-01-02T03:04:05.006000+00:00", {CULTURE})'),
        ("powershell", "[datetime]::new(2026, 1, 2)",
         "[datetime]::Parse('2026-01-02T03:04:05.006000', [cultureinfo]::InvariantCulture)",
         "[datetimeoffset]::Parse('2026-01-02T03:04:05.006000+00:00', [cultureinfo]::InvariantCulture)"),
        ("matlab", "datetime(2026, 1, 2)", "datetime(2026, 1, 2, 3, 4, 5.006000)",
         "datetime(2026, 1, 2, 3, 4, 5.006000, 'TimeZone', 'UTC')"),
        ("octave", '"2026-01-02"', '"2026-01-02T03:04:05.006000"', '"2026-01-02T03:04:05.006000+00:00"'),
        ("rust", 'String::from("2026-01-02")', 'String::from("2026-01-02T03:04:05.006000")',
         'String::from("2026-01-02T03:04:05.006000+00:00")'),
        ("go", "time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)", "time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.Local)",
         "time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC)"),
    ],
)  # fmt: skip
def test_dates_are_dates_where_the_language_has_them_and_text_elsewhere(
    language: str, day: str, moment: str, aware: str
) -> None:
    assert [literal(language, value) for value in (DAY, MOMENT, AWARE)] == [day, moment, aware]


def test_times_of_day_are_values_in_python_and_julia_and_text_elsewhere() -> None:
    at = time(3, 4, 5, 6007)
    assert literal("python", at) == '__import__("datetime").time.fromisoformat("03:04:05.006007")'
    assert literal("julia", at) == "Dates.Time(3, 4, 5, 6, 7)"
    assert literal("r", at) == '"03:04:05.006007"'


def test_what_dates_need_stands_before_the_first_of_them() -> None:
    assert "import Dates\n" in writer_for("", "julia").cell({"a": 1, "b": {"c": [DAY]}})
    assert "import Dates" not in writer_for("", "julia").cell({"a": 1})
    assert writer_for("", "go").cell({"d": DAY}).splitlines()[:2] == ["// Parameters", 'import "time"']


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("python", "x = 1"), ("r", "x = 1"), ("julia", "x = 1"), ("scala", "val x = 1"), ("bash", "x=1"),
        ("typescript", "var x = 1;"), ("c#", "var x = 1;"), ("f#", "let x = 1"), ("powershell", "$x = 1"),
        ("matlab", "x = 1;"), ("rust", "let x = 1;"), ("go", "var x = 1"),
    ],
)  # fmt: skip
def test_each_language_assigns_in_its_own_way(language: str, line: str) -> None:
    assert writer_for("", language).cell({"x": 1}).splitlines()[1] == line
    assert writer_for("", language).cell({"x": 1}, comment="") == line


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_name_that_is_no_name_is_refused_before_it_becomes_code(language: str) -> None:
    with pytest.raises(UsageError, match="no name of a variable"):
        writer_for("", language).cell({"x; import os": 1})


def test_the_oddities_of_each_language_are_known() -> None:
    assert writer_for("", "r").cell({"_hidden": 1}, "") == "hidden = 1"
    assert literal("r", {"": 1}) == 'setNames(list(1), c(""))'
    assert literal("r", "\x01😀") == '"\\U00000001😀"'
    assert [literal("r", value) for value in (0.1, 0.0, 1 / 3, 1e300, 3.0)] == [
        "0.1", "0.0", "0x1.5555555555555p-2", "0x1.7e43c8800759cp+996", "3.0",
    ]  # fmt: skip
    assert writer_for("", "bash").cell({"m": {"a b": [1]}}, "") == "unset -v m; declare -A m=(['a b']='[1]')"
    assert [literal("bash", value) for value in ("it's", "", "a!", "\x1b", [None])] == [
        "'it'\"'\"'s'", "''", "$'a\\041'", "$'\\033'", "('')",
    ]  # fmt: skip
    assert literal("javascript", {"__proto__": 1}) == '{["__proto__"]: 1}'
    assert literal("powershell", [[1]]) == "@(,@(,1))"
    assert literal("powershell", "$x\u201d\x01") == '"`$x`\u201d$([char]::ConvertFromUtf32(1))"'
    assert literal("julia", "$x") == '"\\$x"'
    assert literal("octave", {"": 1}) == "containers.Map({char(zeros(1, 0))}, {1}, 'UniformValues', false)"
    assert literal("matlab", {}) == "containers.Map()"
    assert literal("matlab", {"it's\n": 1}) == "containers.Map({['it''s' char(10) '']}, {1}, 'UniformValues', false)"
    assert literal("matlab", "\U000e0001") == '("" + char([56128, 56321]) + "")'
    assert literal("scala", "\U000e0001") == '"\\udb40\\udc01"'
    assert [literal("c#", value) for value in (1e16, 1.5, [], [1, 2], [None])] == [
        "1.0e+16", "1.5", "new object[] {  }", "new [] { 1, 2 }", "new object[] { (object)null }",
    ]  # fmt: skip
    assert [literal("f#", value) for value in ([], [1, 2], [None, [1]])] == ["[]", "[ 1; 2 ]", "[ null; box ([ 1 ]) ]"]
    assert literal("python", "\U000e0001\x7f") == '"\\U000e0001\\u007f"'
    assert literal("python", float("-inf")) == "float('-inf')"
    assert literal("python", float("inf")) == "float('inf')"


def test_keys_of_mappings_become_text_as_in_papermill() -> None:
    assert literal("python", {1: "a", None: "b"}) == '{"1": "a", "None": "b"}'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=10,
    )
)  # fmt: skip
def test_python_reads_back_what_was_written(value: Any) -> None:
    assert ast.literal_eval(literal("python", value)) == value


@given(st.floats(1e-5, 1e15) | st.decimals(-1000, 1000, places=5).map(float))
def test_numbers_for_r_are_exact_whichever_way_they_are_written(value: float) -> None:
    written = literal("r", value)
    assert (float.fromhex(written) if "0x" in written else float(written)) == value


def test_a_kernels_name_counts_before_its_language_and_a_plug_in_before_both() -> None:
    class Shouting(RWriter):
        def text(self, value: str) -> str:
            return value.upper()

    assert writer_for("ir", "python").language == "R"
    assert writer_for("my-own", "Python").language == "Python"
    assert writer_for("my-own", "Python", {"my-own": Shouting()}).literal("a") == "A"
    assert writer_for("my-own", "Python", {"python": Shouting()}).literal("a") == "A"
    with pytest.raises(UsageError, match="'cobol'") as caught:
        writer_for("gnucobol", "cobol")
    assert "nbrun.literals" in caught.value.hint
    with pytest.raises(UsageError, match="of no name"):
        writer_for("nameless", "")


def test_a_writer_that_is_half_made_cannot_be_made_and_says_what_it_lacks() -> None:
    class Half(LiteralWriter):
        def text(self, value: str) -> str:
            return value

    with pytest.raises(TypeError, match=r"mapping\b.*\bsequence"):
        Half()  # type: ignore[abstract]


RESERVED = {
    "python": ("class", "None", "if", "lambda", "__debug__", "async"),
    "r": ("if", "function", "TRUE", "NA_integer_", "_if", "__in"),
    "julia": ("end", "module", "true", "baremodule"),
    "scala": ("_", "class", "val", "null", "given"),
    "bash": ("_", "UID", "PPID", "SHELLOPTS", "PS1", "RANDOM"),
    "javascript": ("class", "if", "null", "undefined", "await", "let", "static"),
    "c#": ("class", "namespace", "string", "null"),
    "f#": ("let", "member", "null", "mixin"),
    "powershell": ("null", "TRUE", "Error", "Home", "_"),
    "matlab": ("end", "function", "parfor"),
    "octave": ("end", "endwhile", "unwind_protect", "__FILE__"),
    "rust": ("fn", "Self", "_", "async"),
    "go": ("func", "map", "_", "main"),
}


@pytest.mark.parametrize(
    ("language", "name"), [(language, name) for language, names in RESERVED.items() for name in names]
)
def test_a_name_that_the_language_reserves_is_refused_with_another_one(language: str, name: str) -> None:
    with pytest.raises(UsageError, match="reserves this name") as caught:
        writer_for("", language).cell({name: 1})
    assert f"such as {name.lower().strip('_') if language == 'powershell' else name.strip('_')}_value" in str(
        caught.value.hint
    )


def test_every_language_has_a_list_of_reserved_names() -> None:
    assert set(RESERVED) == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb = 1; c", "1a", "a-b", "a;b", "$(x)", "a\0", "\u2028", "\u00b2", "x" * 99 + "!"]
)
def test_what_is_no_name_is_refused_shortly(language: str, name: str) -> None:
    with pytest.raises(UsageError, match="no name of a variable") as caught:
        writer_for("", language).cell({name: 1})
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_names_in_other_scripts_pass_where_the_language_has_them() -> None:
    for language in ("python", "r", "julia", "javascript"):
        assert "größe_π" in writer_for("", language).cell({"größe_π": 1})
    assert writer_for("", "octave").cell({"_x": 1}, comment="") == "_x = 1;"


def test_javascript_takes_what_only_modules_reserve_where_the_notebook_assigns_it() -> None:
    assert writer_for("", "javascript").cell({"package": 1}, comment="", declared={"package"}) == "package = 1;"


@pytest.mark.parametrize(("language", "names"), [("r", ("a", "_a")), ("powershell", ("Region", "region"))])
def test_two_parameters_that_are_one_variable_are_refused(language: str, names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="are the same variable") as caught:
        writer_for("", language).cell(dict.fromkeys(names, 1))
    assert all(repr(name) in str(caught.value) for name in names)
    assert writer_for("", "python").cell(dict.fromkeys(names, 1), comment="").count("=") == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_keys_that_become_the_same_text_are_refused(language: str) -> None:
    with pytest.raises(NoLiteral, match="two keys"):
        literal(language, {1: "a", "1": "b"})


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("python", '__import__("os").environ["A"] = "it\\"s"'),
        ("r", 'invisible(do.call(Sys.setenv, structure(list("it\\"s"), names = "A")))'),
        ("julia", 'ENV["A"] = "it\\"s";'),
        ("bash", "export A='it\"s'"),
        ("powershell", '[Environment]::SetEnvironmentVariable("A", "it`"s")'),
        ("matlab", 'setenv("A", "it""s");'),
        ("octave", 'setenv("A", "it\\"s");'),
    ],
)
def test_environment_variables_are_set_in_the_language_of_the_kernel(language: str, line: str) -> None:
    assert writer_for("", language).environment({"A": 'it"s'}) == line


def test_a_language_that_cannot_set_environment_variables_says_so() -> None:
    with pytest.raises(UsageError, match="nbrun does not know how Rust sets environment variables"):
        writer_for("", "rust").environment({"A": "1"})
