"""Untrusted text through rich on a terminal, in a live display and in a log."""

import io
import re

import pytest
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from nbrun.reporters.console.safe_console import SafeConsole
from tests.support.ci_runners import commands_in

HOSTILE = "S1\x1b]52;c;cHduZWQ=\x07 S2\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\"
HOSTILE += " S4\x1b[2J S5\x9b2J S7\x1bc \x1b[8mS8\x1b[31mred"
ACTS = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029]|\x1b\[[0-9;]*\b8\b[0-9;]*m")
DRAWING = re.compile(r"\r|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh]")


def console(sink: io.StringIO, *, terminal: bool = True, **options: str) -> SafeConsole:
    return SafeConsole(
        file=sink, force_terminal=terminal, color_system="standard" if terminal else None, width=80, _environ=options
    )


def test_a_terminal_gets_text_and_colours() -> None:
    sink = io.StringIO()
    out = console(sink)
    out.say(HOSTILE, "bold")
    out.say_output(HOSTILE)
    said, output = sink.getvalue().splitlines()
    assert ACTS.search(sink.getvalue()) is None
    assert said == "\x1b[1mS1 S2link S4 S5 S7 S8red\x1b[0m"
    assert output == "S1 S2link S4 S5 S7 S8\x1b[31mred\x1b[0m"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_text_only(environ: dict[str, str]) -> None:
    sink = io.StringIO()
    out = SafeConsole(file=sink, force_terminal=True, width=80, _environ={"TERM": "xterm", **environ})
    out.say(HOSTILE, "bold red")
    out.say_output(HOSTILE)
    assert "\x1b" not in sink.getvalue()


def test_a_log_gets_text_only_and_keeps_tabs() -> None:
    sink = io.StringIO()
    out = console(sink, terminal=False)
    out.say("a\tb" + HOSTILE, "bold")
    out.say_output("[bold]c[/bold]\td" + HOSTILE)
    assert sink.getvalue() == "a\tbS1 S2link S4 S5 S7 S8red\n[bold]c[/bold]\tdS1 S2link S4 S5 S7 S8red\n"


def test_a_live_display_moves_the_cursor_and_nothing_in_it_does() -> None:
    sink = io.StringIO()
    out = console(sink)
    out.allow_movements()
    table = Table()
    table.add_row(HOSTILE, Text(HOSTILE, Style(link="http://evil/")), Text.from_ansi(HOSTILE))
    with Live(table, console=out, auto_refresh=False) as live:
        live.update(Text("\r\x1b[2K\x1b[1A" + HOSTILE), refresh=True)
        out.print(HOSTILE)
    drawn = sink.getvalue()
    assert "\x1b[2K" in drawn
    assert ACTS.search(DRAWING.sub("", drawn)) is None
    assert "S7" in drawn


def test_what_parted_a_secret_is_removed_before_secrets_are_looked_for() -> None:
    sink = io.StringIO()
    out = SafeConsole(file=sink, mask=lambda text: text.replace("secret", "***"), _environ={})
    out.say("sec\x07ret se\x1b[0mcret")
    out.say_output("s\x9b0mecret")
    assert sink.getvalue() == "*** ***\n***\n"


def test_a_secret_of_which_something_is_removed_is_masked_too() -> None:
    sink = io.StringIO()
    SafeConsole(file=sink, mask=lambda text: text.replace("se\x07cret", "***"), _environ={}).say("a se\x07cret")
    assert sink.getvalue() == "a ***\n"


def test_no_line_is_a_command_where_colours_are_forced_in_a_log() -> None:
    sink = io.StringIO()
    out = SafeConsole(file=sink, runner=True, color_system="standard", width=30, _environ={"FORCE_COLOR": "1"})
    for line in ("::error::a", "x\r::error::b", "##[error]c " * 5, "\x1b[31m::error::d", "#\x1b[1m#[error]e"):
        out.say(line, "bold red")
        out.say_output(line)
        out.print(Text(line), soft_wrap=False)
    assert "\x1b[31m" in sink.getvalue()
    assert commands_in(sink.getvalue()) == []
