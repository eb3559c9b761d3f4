"""Filtered standard streams: only text passes, in any pieces and from any writer."""

import io
import os
import sys
from pathlib import Path

import click
import pytest

from nbrun.reporters.safe_stream import (
    SafeStream,
    binary,
    finish_standard_streams,
    is_on_runner,
    may_be_shown,
    own_stream,
    protect_standard_streams,
    write_command,
)
from tests.support.ci_runners import commands_in

HOSTILE = "x\r::error::a\n\x1b[0m::error::b\n##[error]c\n\x1b]0;t\x07d\x9b2J\x1b[2K\x1b[1A\n\t::set-output name=o::e\n"


@pytest.fixture(autouse=True)
def _no_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION", "GITLAB_CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def written(*pieces: str, colours: bool = False, commands: bool = True, movements: bool = False) -> str:
    sink = io.StringIO()
    stream = SafeStream(sink, colours=colours, commands=commands, movements=movements)
    stream.writelines(pieces)
    stream.close()
    return sink.getvalue()


@pytest.mark.parametrize("pieces", [[HOSTILE], list(HOSTILE), HOSTILE.partition("##")], ids=["whole", "letters", "cut"])
def test_no_piece_of_text_becomes_a_command_with_the_pieces_around_it(pieces: list[str]) -> None:
    made = written(*pieces)
    assert commands_in(made) == []
    assert made.replace("\u200b", "").split("\n")[2] == "##[error]c"


def test_a_line_that_does_not_end_is_written_at_the_end() -> None:
    assert written("no newline") == "no newline\n"
    assert written("no newline", commands=False) == "no newline"


def test_without_a_runner_text_is_written_at_once_and_commands_are_left() -> None:
    sink = io.StringIO()
    SafeStream(sink, commands=False).write("::group::x")
    assert sink.getvalue() == "::group::x"


def test_only_what_a_live_display_needs_moves_the_cursor() -> None:
    drawing = "\x1b[?25l\r\x1b[2K\x1b[1A\x1b[2Ka \x1b[1mb\x1b[0m\n\x1b[?25h"
    assert written(drawing, movements=True) == drawing
    assert written("\x1b[2J\x1b]0;t\x07\x1bc\x1b[H\x1b[?1049h", movements=True) == ""


def test_a_command_of_nbruns_own_stands_on_a_line_by_itself() -> None:
    sink = io.StringIO()
    stream = SafeStream(sink, commands=True)
    stream.write("begun ")
    write_command(stream, "::group::x")
    stream.write("::error::foreign\n")
    assert sink.getvalue() == "begun \n::group::x\n\u200b::error::foreign\n"
    write_command(sink, "::endgroup::")
    assert sink.getvalue().endswith("\n::endgroup::\n")


@pytest.mark.parametrize(("encoding", "errors"), [("utf-8", "strict"), ("ascii", "strict"), ("latin-1", "ignore")])
def test_everything_that_prints_goes_through_it(monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    data = io.BytesIO()
    under = io.TextIOWrapper(data, encoding=encoding, errors=errors, write_through=True)
    monkeypatch.setattr(sys, "stderr", under)
    monkeypatch.setattr(sys, "stdout", None)
    protect_standard_streams()
    protect_standard_streams()
    click.echo("::error::click", err=True)
    click.UsageError("::error::usage\r::error::x").show()
    print("::error::print \ud83d \u2603", file=sys.stderr)
    sys.excepthook(ValueError, ValueError("x\n::error::hook"), None)
    assert isinstance(sys.stderr, SafeStream)
    assert sys.stderr.under is under
    assert binary(sys.stderr) is binary(under) is under.buffer
    text = data.getvalue().decode()
    assert commands_in(text) == []
    assert [word for word in ("click", "usage", "print", "hook") if word not in text] == []


def test_a_line_that_has_not_ended_is_there_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    out, closed = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", SafeStream(out))
    monkeypatch.setattr(sys, "stderr", SafeStream(closed))
    print("out", end="")
    print("err", end="", file=sys.stderr)
    closed.close()
    finish_standard_streams()
    assert out.getvalue() == "out\n"


def test_it_is_a_stream_of_text_to_whoever_asks() -> None:
    stream = SafeStream(io.StringIO())
    assert (stream.encoding, stream.errors, stream.isatty(), stream.closed) == ("utf-8", "strict", False, False)
    assert (stream.readable(), stream.writable()) == (False, True)
    with pytest.raises(TypeError):
        stream.write(b"")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="fileno"):
        stream.fileno()
    closed = io.StringIO()
    closed.close()
    assert SafeStream(closed).closed


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"GITHUB_ACTIONS": "true"}, True),
        ({"GITHUB_ACTIONS": "false"}, False),
        ({"TF_BUILD": "True"}, True),
        ({"TEAMCITY_VERSION": "2026.1"}, True),
        ({"GITLAB_CI": "true"}, True),
        ({"GITLAB_CI": ""}, False),
        ({"CI": "true"}, False),
    ],
)
def test_a_runner_is_known_by_what_it_sets(environ: dict[str, str], wanted: bool) -> None:
    assert is_on_runner(environ) is wanted


def test_a_terminal_has_colours_unless_they_are_unwanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown() -> str:
        sink = Terminal()
        SafeStream(sink).write("\x1b[31mred")
        return sink.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    assert shown() == "\x1b[31mred"
    monkeypatch.setenv("TERM", "dumb")
    assert shown() == "red"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert shown() == "\x1b[31mred"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown() == "red"


def test_a_stream_of_ones_own_is_known_under_any_name(tmp_path: Path) -> None:
    assert [own_stream(name) for name in ("-", "/dev/stdout", "/dev/stderr")] == ["stdout", "stdout", "stderr"]
    assert [own_stream(name) for name in (None, str(tmp_path), "no\0name", str(tmp_path / "new"))] == [None] * 4
    assert own_stream(os.devnull) is None
    assert [may_be_shown(name) for name in ("-", os.devnull, str(tmp_path / "new"), __file__)] == [
        True,
        True,
        False,
        False,
    ]
    (tmp_path / "link").symlink_to("/dev/fd/1")
    reader, writer = os.pipe()
    saved = os.dup(1)
    try:
        os.dup2(writer, 1)
        assert own_stream(str(tmp_path / "link")) == "stdout"
        assert own_stream("/dev/fd/1") == "stdout"
    finally:
        os.dup2(saved, 1)
        for descriptor in (reader, writer, saved):
            os.close(descriptor)
