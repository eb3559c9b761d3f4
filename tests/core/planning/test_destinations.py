"""The choice of a destination for executed notebooks, and unreachable paths."""

import pytest

from nbrun.core.planning.destinations import (
    CHOICES,
    is_url,
    refuse_contradiction,
    refuse_unreachable,
    require_choice,
    without_credentials,
)
from nbrun.errors import UsageError


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["in.ipynb", "out.ipynb"], "in.ipynb, out.ipynb: the notebooks of 2 paths"),
        (["docs/"], "docs/: the notebooks of a folder or a pattern"),
        (["a", "b", "c", "d", "e"], "a, b, c and 2 more: the notebooks of 5 paths"),
    ],
    ids=["two", "folder", "five"],
)
def test_a_call_that_would_overwrite_several_is_told_what_to_say(named: list[str], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_choice(named)
    assert str(raised.value).startswith(said)
    assert raised.value.hint.endswith(CHOICES)
    for option in ("-o DIR", "--no-save", "--in-place", "output=", "save=False", "in_place=True"):
        assert option in raised.value.hint


@pytest.mark.parametrize(
    ("named", "command"),
    [
        (["in.ipynb", "out.ipynb"], "nbrun run in.ipynb -o out.ipynb"),
        (["IN.IPYNB", "out"], "nbrun run IN.IPYNB -o out"),
        (["my in.ipynb", "it's.ipynb"], "nbrun run 'my in.ipynb' -o 'it'\"'\"'s.ipynb'"),
        (["docs/", "out.ipynb"], ""),
        (["a.ipynb", "b.ipynb", "c.ipynb"], ""),
    ],
    ids=["papermill's form", "no suffix", "blanks", "a folder first", "three"],
)
def test_two_paths_are_answered_with_the_command_that_was_meant(named: list[str], command: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_choice(named, message="a reason")
    assert str(raised.value) == "a reason"
    first = raised.value.hint.splitlines()[0]
    assert first.endswith(command) if command else CHOICES.startswith(first)


def test_two_choices_contradict_each_other() -> None:
    refuse_contradiction([])
    refuse_contradiction(["--output"])
    with pytest.raises(UsageError, match="--output and --no-save contradict each other"):
        refuse_contradiction(["--output", "--no-save"])


@pytest.mark.parametrize(
    "path",
    ["s3://b/x", "S3://b/x", "gs://b", "https://h/x.ipynb", "abfss://c@a/x", "foo+bar://x", "s3:/b/x", "dbfs:/x"],
)
def test_a_url_is_known_by_its_scheme(path: str) -> None:
    assert is_url(path)


@pytest.mark.parametrize(
    "path", ["out.ipynb", "C:\\out.ipynb", "C:/out", "C://out", "RTC:x.ipynb", "a/s3://x", "s3:", "{date:%Y}/x", ":/x"]
)
def test_a_path_is_none(path: str) -> None:
    assert not is_url(path)
    refuse_unreachable("-o", path)


@pytest.mark.parametrize(
    ("path", "reads", "said", "hint"),
    [
        ("", False, "-o: the path is empty", "variable"),
        ("a\0b", False, "NUL", ""),
        ("s3:/b/x", False, "-o s3://b/x: nbrun cannot write to s3://", "aws s3 cp FILE s3://b/x"),
        ("gs://b/x", False, "cannot write to gs://", "gcloud storage cp FILE gs://b/x"),
        ("ftp://b/x", False, "cannot write to ftp://", "copy it afterwards."),
        ("s3://b/x", True, "cannot read from s3://", "Download it first, and name the file."),
        ("file:///x", True, "nbrun takes paths", "Leave out file://"),
        ("~/x", False, "did not replace ~", "$HOME"),
        ("~somebody/x", False, "did not replace ~", "$HOME"),
        ("~", False, "did not replace ~", "$HOME"),
    ],
)
def test_a_place_that_cannot_be_reached_is_refused(path: str, reads: bool, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        refuse_unreachable("-o", path, reads=reads)
    assert said in str(raised.value)
    assert hint in raised.value.hint


def test_a_notebook_of_the_web_may_be_one_of_a_server() -> None:
    with pytest.raises(UsageError) as raised:
        refuse_unreachable("", "https://h/x.ipynb", reads=True)
    assert str(raised.value).startswith("https://h/x.ipynb: ")
    assert "--server URL" in raised.value.hint
    with pytest.raises(UsageError) as raised:
        refuse_unreachable("-f", "https://h/x.yaml", reads=True)
    assert "--server" not in raised.value.hint


@pytest.mark.parametrize("path", ["~x.ipynb", "~$report.ipynb", "./~/x", "a~/b"])
def test_a_tilde_in_a_name_is_a_name(path: str) -> None:
    refuse_unreachable("-o", path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pa@ss@host/a/b?sig=x#y", "https://host/a/b"),
        ("git+https://token@host/repo#nb.ipynb", "git+https://host/repo#nb.ipynb"),
        ("s3://bucket/a?b#c", "s3://bucket/a?b#c"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("abfss://box@account.dfs.core.windows.net/x", "abfss://box@account.dfs.core.windows.net/x"),
        ("out/x", "out/x"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.parametrize(
    ("url", "reads", "writes"),
    [
        ("s3://b/x", True, True),
        ("HTTPS://h/x", True, True),
        ("git+https://h/r#x", True, False),
        ("sftp://h/x", True, True),
        ("file:///x", False, False),
        ("s3:/b/x", False, False),
    ],
)
def test_an_option_for_stores_takes_their_urls(url: str, reads: bool, writes: bool) -> None:
    for is_read, is_taken in ((True, reads), (False, writes)):
        if is_taken:
            refuse_unreachable("-o", url, reads=is_read, stores=True)
        else:
            with pytest.raises(UsageError, match=r"cannot|takes paths"):
                refuse_unreachable("-o", url, reads=is_read, stores=True)


def test_a_refused_url_is_shown_without_its_password() -> None:
    with pytest.raises(UsageError) as raised:
        refuse_unreachable("--trace", "https://me:hidden@host/x?sig=hidden")
    assert "hidden" not in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize(
    "url", ["https://[::error::x]/nb.ipynb", "s3://bucket:key/nb.ipynb", "git+https://host:x/repo#nb"]
)
def test_a_url_with_a_malformed_host_or_port_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a valid URL"):
        refuse_unreachable("-o", url, reads=True, stores=True)
