"""Parameters and secrets from text and files."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import UsageError
from nbrun.runner import parameter_files


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1", -1), ("1_000", 1000), (" 7", 7), ("1.5", 1.5), ("1e3", 1000.0), ("True", True),
        ("False", False), ("None", None), ("true", "true"), ("null", "null"), ("a b", "a b"), ("", ""),
        ("2026-01-02", "2026-01-02"), ("[1]", "[1]"), ("inf", math.inf),
    ],
)  # fmt: skip
def test_a_typed_value_is_guessed_as_papermill_guesses(text: str, value: Any) -> None:
    found = parameter_files.guessed("x", text)
    assert (found, type(found)) == (value, type(value))


def test_yaml_keeps_dates_as_text_and_toml_gives_them(tmp_path: Path) -> None:
    assert parameter_files.from_yaml("{a: 2026-01-02, b: [1, null]}", "-y") == {"a": "2026-01-02", "b": [1, None]}
    assert parameter_files.from_yaml("", "-y") == {}
    (tmp_path / "values.toml").write_text("a = 2026-01-02\n[b]\nc = 1\n")
    (tmp_path / "values.json").write_text('{"a": NaN}')
    (tmp_path / "values.yml").write_text("\ufeffa: x\n", encoding="utf-8")
    assert parameter_files.from_file(tmp_path / "values.toml", "-f") == {"a": date(2026, 1, 2), "b": {"c": 1}}
    assert math.isnan(parameter_files.from_file(tmp_path / "values.json", "-f")["a"])
    assert parameter_files.from_file(tmp_path / "values.yml", "-f") == {"a": "x"}
    assert parameter_files.from_base64("YTogMQ==", "-b") == {"a": 1}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", b"a: [1", "not readable as YAML"),
        ("a.yaml", b"!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("a.yaml", b"- 1", "a mapping of names to values is wanted, this is a list"),
        ("a.yaml", b"1: 2", "1 is no name of a parameter"),
        ("a.toml", b"a = ", "not readable as TOML"),
        ("a.json", b"{", "not readable as JSON"),
        ("a.json", b"[]", "a mapping of names"),
        ("a.yaml", b"\xff", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_name(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        parameter_files.from_file(tmp_path / name, "-f")
    assert str(caught.value).startswith(f"-f {tmp_path / name}: ")


def test_what_is_not_there_or_no_base64_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        parameter_files.from_file(tmp_path / "none.yaml", "-f")
    with pytest.raises(UsageError, match="not readable as base64"):
        parameter_files.from_base64("abc", "-b")


def test_a_secrets_file_loses_its_last_newline_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b" a\nb\r\n")
    assert parameter_files.secret_of_file("A", path) == " a\nb"
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        parameter_files.secret_of_file("A", path)
    path.write_bytes(b"a" * (parameter_files.LARGEST_SECRET + 1))
    with pytest.raises(UsageError, match="larger than"):
        parameter_files.secret_of_file("A", path)
    assert parameter_files.secret_of_environment("A", "B", {"B": "c"}) == "c"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)}\n  <<: [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)
HOSTILE = {
    "nested.yaml": ("a: " + "[" * 100_000, "nest", "Flatten"),
    "nested-block.yaml": ("- " * 100_000, "nest", "Flatten"),
    "nested-150.yaml": ("a: " + "[" * 150 + "]" * 150, "nested more than 100 levels", "Flatten"),
    "nested.json": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep", "Flatten"),
    "nested-150.json": ('{"a": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 levels", "Flatten"),
    "nested.toml": ("a = " + "[" * 100_000, "nested", "NAME = VALUE"),
    "dotted.toml": ("a" + ".a" * 100_000 + " = 1", "more than 100 parts", "NAME = VALUE"),
    "cycle.yaml": ("a: &a [1, *a]", "line 1, column 11: the value with the anchor &a holds itself", "Flatten"),
    "cycle-mapping.yaml": ("a: &a\n  b: *a", "line 2, column 6: the value with the anchor &a holds itself", "Flatten"),
    "laughs.yaml": (LAUGHS, "more than 200000 values, aliases written out", "its path"),
    "merges.yaml": (MERGES, "more than 200000 values, aliases written out", "its path"),
    "texts.yaml": ("a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]", "characters", "its path"),
    "many.json": ('{"a": [' + ",".join(["[]"] * 300_000) + "]}", "more than 200000 values", "its path"),
    "large.yaml": ("a: " + "x" * (1 << 20), "larger than 1048576 bytes", "its path"),
    "integer.yaml": ("a: " + "9" * 20_000, "more than 4300 digits", "quotes"),
    "integer.json": ('{"a": ' + "9" * 20_000 + "}", "more than 4300 digits", "quotes"),
    "integer.toml": ("a = " + "9" * 20_000, "more than 4300 digits", "quotes"),
    "hexadecimal.yaml": ("a: 0x" + "f" * 20_000, "more than 4300 digits", "-r NAME VALUE"),
    "hexadecimal.toml": ("a = 0x" + "f" * 20_000, "more than 4300 digits", "-r NAME VALUE"),
    "base-60.yaml": ("a: " + ":".join(["1"] * 5000), "more than 4300 digits", "-r NAME VALUE"),
    "base-60-float.yaml": ("a: " + ":".join(["1"] * 500) + ".5", "too large", "quotes"),
    "exponent.yaml": ("a: 1.0e+400", "1.8e308", "quotes"),
    "exponent.json": ('{"a": 1e400}', "1.8e308", "quotes"),
    "exponent.toml": ("a = 1e400", "1.8e308", "NAME = VALUE"),
    "twice.yaml": ("a: 1\na: 2", "line 2, column 1: the key 'a' appears twice", "Remove"),
    "twice-inside.yaml": ("x: {a: 1, 'a': 2}", "the key 'a' appears twice", "Remove"),
    "twice.json": ('{"a": 1, "a": 2}', "the key 'a' appears twice", "Remove"),
    "twice.toml": ("a = 1\na = 2", "Cannot overwrite a value", "NAME = VALUE"),
    "number-key.yaml": ("1: a", "1 is no name of a parameter", "quotes"),
    "boolean-key.yaml": ("yes: a", "True is no name of a parameter", "quotes"),
    "list-key.yaml": ("[a]: b", "line 1, column 1: found unhashable key", "NAME: VALUE"),
    "object.yaml": ("a: !!python/object/apply:os.system [x]", "tag !!python/object/apply:os.system", "plain values"),
    "tag.yaml": ("a: !Ref x", "values with the tag !Ref are not read", "plain values"),
    "timestamp.yaml": ("a: !!timestamp x", "does not fit its tag", "plain values"),
    "integer-tag.yaml": ('a: !!int ""', "does not fit its tag", "plain values"),
    "boolean-tag.yaml": ("a: !!bool x", "does not fit its tag", "plain values"),
    "equals.yaml": ("a: =", "tag !!value", "plain values"),
    "list.yaml": ("- a", "this is a list", "NAME: VALUE"),
    "text.yaml": ("just text", "this is text", "NAME: VALUE"),
    "no-space.yaml": ("a:1", "this is text", "a: 1"),
    "documents.yaml": ("---\na: 1\n---\nb: 2", "more than one document", "NAME: VALUE"),
    "tab.yaml": ("a:\n\tb: 1", "line 2, column 1", "spaces, not with tabs"),
    "nul.yaml": ("a: \0", "control characters are not allowed", "UTF-8"),
    "comment.json": ('// x\n{"a": 1}', "line 1, column 1", "JSON has no comments"),
    "comment-inside.json": ('{"a": 1, /* x */ "b": 2}', "line 1, column 10", "JSON has no comments"),
    "empty.json": ("", "the file is empty", "{}"),
    "comma.json": ('{"a": 1,}', "line 1, column ", "YAML"),
    "yaml.toml": ("a: 1\n", "Expected '='", "looks like YAML"),
}


@pytest.mark.parametrize(("name", "case"), HOSTILE.items(), ids=list(HOSTILE))
def test_a_hostile_file_is_refused_in_one_sentence_with_what_to_do(
    tmp_path: Path, name: str, case: tuple[str, str, str]
) -> None:
    content, said, hint = case
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as caught:
        parameter_files.from_file(tmp_path / name, "-f")
    message = str(caught.value).replace(str(tmp_path), "")
    assert said in message
    assert hint in caught.value.hint
    assert len(message) < 300
    assert message.isprintable()


def test_what_only_looks_hostile_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: .inf}\nb: &b {<<: *a, x: 2}\nc: {<<: [*b, *a], x: 3}\nd: 1e400\n")
    found = parameter_files.from_file(tmp_path / "a.yaml", "-f")
    assert found == {
        "a": {"x": 1, "y": math.inf}, "b": {"x": 2, "y": math.inf}, "c": {"x": 3, "y": math.inf}, "d": "1e400",
    }  # fmt: skip


def test_a_place_that_is_no_file_is_refused_at_once() -> None:
    for name, said in (("/dev/zero", "larger than"), ("/", "Is a directory"), ("https://x/y.yaml", "this is a URL")):
        with pytest.raises(UsageError, match=said):
            parameter_files.from_file(Path(name), "-f")


@pytest.mark.parametrize(
    ("option", "text", "hint"),
    [
        ("-y", "values.yaml", "-f values.yaml"),
        ("-y", "x=1", "x: 1"),
        ("-y", "x:1", "x: 1"),
        ("-y", "[1, 2]", "NAME: VALUE"),
        ("-y", "&a [*a]", "Flatten"),
        ("-b", "x: 1", "-y"),
        ("-b", "/////w==", "UTF-8"),
        ("-f", "x: 1", "-y"),
    ],
)
def test_a_text_given_to_the_wrong_option_is_told_the_right_one(option: str, text: str, hint: str) -> None:
    read: Any = {"-y": parameter_files.from_yaml, "-b": parameter_files.from_base64}.get(
        option, lambda text, where: parameter_files.from_file(Path(text), where)
    )
    with pytest.raises(UsageError) as caught:
        read(text, option)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["9" * 20_000, "1e400", "-1e999"])
def test_a_typed_number_that_would_arrive_as_another_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="-p x: ") as caught:
        parameter_files.guessed("x", text)
    assert "-r x" in caught.value.hint
