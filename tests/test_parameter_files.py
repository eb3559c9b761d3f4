"""Parameters and secrets from text and files."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from nbrun import parameter_files
from nbrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1", -1), ("1_000", 1000), (" 7", 7), ("1.5", 1.5), ("1e3", 1000.0), ("True", True),
        ("False", False), ("None", None), ("true", "true"), ("null", "null"), ("a b", "a b"), ("", ""),
        ("2026-01-02", "2026-01-02"), ("[1]", "[1]"), ("inf", math.inf),
    ],
)  # fmt: skip
def test_a_typed_value_is_guessed_as_papermill_guesses(text: str, value: Any) -> None:
    found = parameter_files.guessed(text)
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
