"""Targets of notifications are read without showing a part of them."""

from pathlib import Path

import pytest

from nbrun.errors import UsageError
from nbrun.publishing.notifications.targets import environment_names, read_target

URL = "mailtos://me%40example.org:pl%40nted@smtp.example.org/?to=ann@example.org"


def test_a_variable_is_read_and_removed_so_that_no_kernel_inherits_it() -> None:
    environment = {"REPORT_MAIL": URL, "PATH": "/bin"}
    target = read_target("--notify", "env:REPORT_MAIL", environment, typed=True)
    assert environment == {"PATH": "/bin"}
    assert (target.label, target.is_web) == ("--notify env:REPORT_MAIL", False)
    assert target.mail is not None
    mail = target.mail
    assert (mail.host, mail.port, mail.tls, mail.sender, mail.recipients, mail.password) == (
        "smtp.example.org", 587, "required", "me@example.org", ("ann@example.org",), "pl@nted",
    )  # fmt: skip
    assert "nted" not in repr(target)
    assert {URL, "pl@nted", "pl%40nted"} <= {*target.secrets}


@pytest.mark.parametrize(
    ("url", "port", "tls", "sender"),
    [
        ("mailto://host/?to=a@x", 25, "offered", "nbrun@host"),
        ("mailto://host:2525/?to=a@x&from=b@y", 2525, "offered", "b@y"),
        ("mailtos://u:p@host:465/?to=a@x", 465, "always", "u@host"),
    ],
)
def test_mail_servers(url: str, port: int, tls: str, sender: str) -> None:
    mail = read_target("--notify", url, {}, typed=False).mail
    assert mail is not None
    assert (mail.port, mail.tls, mail.sender) == (port, tls, sender)


def test_a_file_contains_one_url(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("https://hooks.example.org/services/T0/planted\n")
    target = read_target("--notify", f"file:{file}", {}, typed=True)
    assert (target.is_web, target.name) == (True, f"file:{file}")
    assert "services/T0/planted" in target.secrets
    file.write_text("https://one\nhttps://two\n")
    with pytest.raises(UsageError, match="must contain one URL"):
        read_target("--notify", f"file:{file}", {}, typed=True)
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_target("--notify", f"file:{file}", {}, typed=True)


@pytest.mark.parametrize(
    ("given", "typed", "said"),
    [
        ("env:MISSING", False, "the variable is not set"),
        ("file:/nowhere/url", False, "cannot be read"),
        ("mailtos://u:planted@host/?to=a@x", True, "everybody can read a command line"),
        ("slack://planted/b/c", True, "everybody can read a command line"),
        ("https://u:planted@host/", True, "everybody can read a command line"),
        ("mailto://host/", False, "has no recipient"),
        ("mailto:ann@example.org", False, "names no server"),
        ("https:///planted", False, "names no server"),
        ("planted", False, "no URL"),
        ("https://host:planted/", False, "no URL"),
        ("https://host/planted word", False, "no URL"),
    ],
)
def test_a_wrong_target_is_refused_without_its_secret(given: str, typed: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        read_target("--notify", given, {}, typed=typed)
    assert "planted" not in str(refused.value).replace("--notify planted:…", "")


def test_the_variables_of_settings_are_found() -> None:
    assert environment_names(["env:A", "https://x", "env:B"]) == ["A", "B"]
    assert environment_names("env:A") == ["A"]
    assert environment_names(None) == []
