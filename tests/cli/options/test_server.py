"""Options of the server, which several commands share."""

from pathlib import Path

import pytest

from nbrun.cli.options.server import find_password, find_token, read_headers
from nbrun.errors import UsageError


def test_the_token_comes_from_the_file_then_from_nbruns_variable_then_from_jupyters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NBRUN_TOKEN", raising=False)
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    assert find_token(None) is None
    monkeypatch.setenv("JUPYTER_TOKEN", "theirs")
    assert find_token(None) == "theirs"
    monkeypatch.setenv("NBRUN_TOKEN", "ours")
    assert find_token(None) == "ours"
    (tmp_path / "token").write_text("filed\n")
    assert find_token(tmp_path / "token") == "filed"


def test_a_token_file_that_is_no_text_is_a_wrong_call(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        find_token(tmp_path / "token")


def test_an_empty_password_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBRUN_PASSWORD", "")
    assert find_password() is None
    monkeypatch.setenv("NBRUN_PASSWORD", "open sesame")
    assert find_password() == "open sesame"


def test_headers_are_read_with_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_KEY", "5ecret")
    assert read_headers(["X-Team: data", "X-Key:env:PROXY_KEY", "X-Empty:"]) == {
        "X-Team": "data", "X-Key": "5ecret", "X-Empty": "",
    }  # fmt: skip
    for text, said in [
        ("X-Team", "'NAME: VALUE' is wanted"),
        (": value", "'NAME: VALUE' is wanted"),
        ("X-Key: env:NOT_SET_ANYWHERE", "variable NOT_SET_ANYWHERE is not set"),
        ("Host: x", "set by nbrun itself"),
    ]:
        with pytest.raises(UsageError, match=said):
            read_headers([text])
