"""Options of the server, which several commands share."""

from pathlib import Path
from typing import Any

import click
import pytest

from nbrun.cli.options.generated import declared
from nbrun.cli.options.server import access_options, find_password, find_token, read_headers, server_options
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


def access(*arguments: str, settings: dict[str, Any] | None = None) -> Any:
    """Return the credentials that a command reads from its arguments and settings."""

    @click.command
    @server_options
    @declared("zygote", "preload")
    def command(**given: Any) -> dict[str, Any]:
        return access_options(given)

    return command.main([*arguments], standalone_mode=False, default_map=settings)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--header", "X-Key: 5ecret"], "--header needs --server"),
        (["--token-file", __file__], "--token-file needs --server"),
        (["--ca-file", __file__], "--ca-file needs --server"),
        (["--insecure"], "--insecure needs --server"),
        (["--max-response", "1MB"], "--max-response needs --server"),
        (["--max-frame", "1MB"], "--max-frame needs --server"),
        (["--server", "http://localhost/", "--preload", "pandas"], "--preload is for a private server"),
        (["--server", "http://localhost/", "--no-zygote"], "--zygote is for a private server"),
    ],
)
def test_an_option_that_the_server_of_the_run_does_not_use_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        access(*arguments)
    assert "5ecret" not in str(raised.value)


def test_settings_and_variables_are_for_runs_on_both_kinds_of_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBRUN_TOKEN", "t")
    settings = {"header": ["X-Team: data"], "insecure": True, "max_frame": "1MB", "zygote": False, "preload": "json"}
    assert access(settings=settings) == {}
    found = access("--server", "http://localhost/", settings=settings)
    assert (found["token"], found["headers"]) == ("t", {"X-Team": "data"})
    assert access("--header", "X-Team: ops", settings={"server": "http://localhost/"})["headers"] == {"X-Team": "ops"}
